"""Load a trained EmberVLM, ask it which robots to send, and print the answer.

Run:  make demo                       # trains outputs/demo/final
      python examples/ember_vlm.py --checkpoint outputs/demo/final --task "Inspect the structure shown." --scene reef
"""

import argparse

from PIL import Image
from transformers import AutoModel, AutoProcessor

import hfvla  # noqa: F401  makes the Auto classes know hfvla's families
from hfvla.worlds.fleet import render_scene


def main() -> None:
    """Pick robots for one task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/demo/final", help="folder, or a hub id")
    parser.add_argument("--task", default="Carry these parts across the area in the picture.")
    parser.add_argument("--image", help="a picture of the scene")
    parser.add_argument("--scene", help="a generated scene instead, e.g. reef, warehouse, mountain")
    args = parser.parse_args()

    model = AutoModel.from_pretrained(args.checkpoint)
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    image = Image.open(args.image) if args.image else render_scene(args.scene, 0, 64) if args.scene else None

    selection = model.select_robots(processor=processor, image=image, task_description=args.task, top_k=3)
    print(f"Task: {args.task}\nSend: {', '.join(selection.robots)}")
    for choice in selection:
        print(f"  {choice['confidence']:.2f}  {choice['robot_type']}")
    print(selection.reasoning)
    for step in selection.plan:
        print(f"  {step.order}. {step.robot}: {step.subtask}")


if __name__ == "__main__":
    main()
