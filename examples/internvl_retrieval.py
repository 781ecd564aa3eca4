"""Load a trained InternVL for retrieval, search images with a text, and print the best ones.

Run:  hfvla train recipes/internvl_retrieval/tiny.yaml
      python examples/internvl_retrieval.py --checkpoint outputs/internvl_retrieval_tiny/final
      python examples/internvl_retrieval.py --checkpoint DIR --images a.jpeg b.jpeg --query "A red building."
"""

import argparse

import torch
from transformers import AutoModel, AutoProcessor

import hfvla  # noqa: F401  makes the Auto classes know hfvla's families
from hfvla.worlds.drone import DroneOptions, build_drone


def generated_gallery() -> tuple[list[str], str, str]:
    """Return pictures of buildings that no training saw, the caption of one of them, and which one it is."""
    rows = build_drone(DroneOptions(buildings=40, captions=1, split="test"), seed=7).dataset
    asked = rows[21]
    return [row["image"] for row in rows], asked["caption"], asked["image"]


def main() -> None:
    """Search a gallery with one text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/internvl_retrieval_tiny/final", help="folder, or a hub id")
    parser.add_argument("--images", nargs="+", help="gallery; default: generated scenes")
    parser.add_argument("--query", default="A red building with a pool.", help="with --images: what to look for")
    parser.add_argument("--top-k", type=int, default=5)
    args = parser.parse_args()

    model = AutoModel.from_pretrained(args.checkpoint).eval()
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    images, query, truth = (args.images, args.query, "") if args.images else generated_gallery()

    with torch.inference_mode():
        found = model(**processor(images=images, text=query))
        scores = found.image_embeds @ found.text_embeds[0]
    print(f"{len(images)} images, query: {query}\n")
    for place in scores.argsort(descending=True)[: args.top_k].tolist():
        print(f"  {scores[place]:.3f}  {images[place]}{'  (right)' if images[place] == truth else ''}")


if __name__ == "__main__":
    main()
