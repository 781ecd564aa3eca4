"""Load a trained InternVL for video questions, ask several questions on one clip, and print the answers.

The vision tower runs once on the clip; every question then costs one pass of the language model.

Run:  hfvla train recipes/internvl_video_qa/tiny.yaml
      python examples/internvl_video_qa.py --checkpoint outputs/internvl_video_qa_tiny/final
      python examples/internvl_video_qa.py --checkpoint DIR --video a.mp4 --question "Which light?" --choices "A|B"
"""

import argparse

from transformers import AutoModel, AutoProcessor

import hfvla  # noqa: F401  makes the Auto classes know hfvla's families
from hfvla.worlds.road import RoadOptions, build_road


def generated_questions() -> tuple[str, list[tuple[str, list[str]]], list[str]]:
    """Return a clip that no training saw, the questions on it, and the right answers."""
    rows = build_road(RoadOptions(size=4, split="test"), seed=0).dataset
    asked = [(row["question"], row["choices"]) for row in rows]
    return rows[0]["video"], asked, [row["choices"][row["answer"]] for row in rows]


def main() -> None:
    """Answer one question, or those of a generated clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/internvl_video_qa_tiny/final", help="folder, or a hub id")
    parser.add_argument("--video", help="a clip; default: a generated one with its questions")
    parser.add_argument("--question", default="What colour is the traffic light?")
    parser.add_argument("--choices", default="Red|Yellow|Green", help="separated by |")
    args = parser.parse_args()

    model = AutoModel.from_pretrained(args.checkpoint)
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    if args.video:
        video, asked, right = args.video, [(args.question, args.choices.split("|"))], [""]
    else:
        video, asked, right = generated_questions()

    features = model.encode_video(processor, video)
    answers = model.answer_features(processor, features, asked)
    print(f"{video}: {len(features.frame_tiles)} frames, {sum(features.frame_tiles)} tiles")
    for (question, choices), answer, truth in zip(asked, answers, right, strict=True):
        print(f"\n{question}")
        for choice, probability in zip(choices, answer.probabilities, strict=True):
            print(f"  {probability:.2f}  {choice}{'  (right)' if choice == truth else ''}")
        print(f"  -> {answer.letter}. {choices[answer.index]}")


if __name__ == "__main__":
    main()
