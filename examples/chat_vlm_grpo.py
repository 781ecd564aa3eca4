"""Reinforcement learning with TRL (GRPO) on a checkpoint that hfvla trained: it is a plain model of transformers.

    hfvla train recipes/chat_vlm/tiny.yaml
    pip install trl
    python examples/chat_vlm_grpo.py outputs/chat_vlm_tiny/final outputs/chat_vlm_grpo --steps 50

The reward of an answer is what an evaluation scores: 1 where it is the right one after the clean-up of VQA. What comes
out is a plain checkpoint again: `hfvla eval`, `hfvla chat`, or `model: {pretrained: ...}` of the next recipe take it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from transformers import AutoModelForImageTextToText, AutoProcessor

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.metrics.vqa import normalise_answer
from hfvla.worlds.shapes import ShapesOptions, build_shapes


def questions(count: int, seed: int) -> Dataset:
    """Return drawn questions as TRL takes them: a prompt, its pictures, and the right answer for the reward."""
    rows = []
    for row in build_shapes(ShapesOptions(size=count, seed=seed), seed=seed).dataset:
        sample = ChatSample.from_row(row)
        said = [{"role": turn.role, "content": turn.text} for turn in sample.turns[:-1]]
        images = [load_reference(image) for image in sample.images]
        rows.append({"prompt": said, "images": images, "answer": sample.turns[-1].text})
    turn = List({"role": Value("string"), "content": Value("string")})
    return Dataset.from_list(rows, Features({"prompt": turn, "images": List(Image()), "answer": Value("string")}))


def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """Return 1.0 for each written answer that is the right one."""
    written = [one[0]["content"] if isinstance(one, list) else one for one in completions]
    return [float(normalise_answer(a) == normalise_answer(b)) for a, b in zip(written, answer, strict=True)]


def main() -> None:
    """Train, and save model and processor."""
    from trl import GRPOConfig, GRPOTrainer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--answers", type=int, default=8, help="written to each question")
    args = parser.parse_args()
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    config = GRPOConfig(
        output_dir=str(args.output), max_steps=args.steps, per_device_train_batch_size=args.answers,
        learning_rate=1e-5, num_generations=args.answers, max_completion_length=8, logging_steps=1,
        save_strategy="no", report_to="none", bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(args.checkpoint),
        reward_funcs=right,
        args=config,
        train_dataset=questions(args.questions, seed=0),
        processing_class=processor,
    )
    trainer.train()
    trainer.model.save_pretrained(args.output)
    processor.save_pretrained(args.output)


if __name__ == "__main__":
    main()
