"""Questions whose model is a rule: evaluation and submission see its letters as if a network had scored them."""

import numpy as np

from hfvla.data.samples.video import VideoQuestion, build_video_dataset
from hfvla.models.internvl_video_qa.evaluation.predicting import LetterScores
from hfvla.models.internvl_video_qa.frames import Clip

COLOURS = ("red", "green", "yellow", "blue")


class Config:
    def __init__(self):
        self.calibration = {"temperature": 1.0}
        self.answer_by = "letters"


class Model:
    """Stands for a model; what it answers is decided by a `Script`."""

    def __init__(self):
        self.config = Config()


class Reader:
    def close(self):
        """Forget frames; there are none."""


class Processor:
    reader = Reader()

    def read_clip(self, path, support_frames, *, mode, where):
        """Return one black frame."""
        return Clip(path, np.zeros((1, 8, 8, 3), dtype=np.uint8), (0,))


class Script:
    """A `predict_letters` whose letter logits are `rule(row, mode, shown choices)`; None fails with a message.

    Attributes:
        calls: (mode, ids, orders) of every call.
    """

    def __init__(self, rule):
        self.rule, self.calls = rule, []

    def __call__(self, model, processor, rows, context, *, mode="support", orders=None):
        orders = [tuple(range(len(row["choices"]))) for row in rows] if orders is None else [tuple(o) for o in orders]
        self.calls.append((mode, [row["id"] for row in rows], orders))
        scores = LetterScores.empty(orders)
        for number, (row, order) in enumerate(zip(rows, orders, strict=True)):
            if not order:
                continue
            found = self.rule(row, mode, [row["choices"][index] for index in order])
            if found is None:
                scores.failures[number] = f"{row['video']}: the video is truncated; got 7 bytes; expected 90 bytes"
                continue
            logits = np.full(4, -np.inf)
            logits[: len(order)] = found
            powers = np.exp(logits / model.config.calibration["temperature"])
            scores.log_likelihoods[number], scores.probabilities[number] = logits, powers / powers.sum()
            scores.answers[number] = order.index(row["answer"]) if row["answer"] >= 0 else -1
        return scores

    def all_orders(self, model, processor, rows, context, *, mode, orders):
        """Stand for `predict_orders`."""
        most = max(map(len, orders), default=1)
        by_pass = [[each[place] if place < len(each) else () for each in orders] for place in range(most)]
        return [self(model, processor, rows, context, mode=mode, orders=shown) for shown in by_pass]


def truth(row):
    return row["choices"][row["answer"]]


def favour(shown, text, strength=2.0):
    """Logits that prefer one of the shown choices."""
    return [strength if choice == text else 0.0 for choice in shown]


def questions(count, *, seed=0, labelled=True, support=True, start=0):
    """Questions with four colours each, two a video; even ones need the moment."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(start, start + count):
        choices = tuple(COLOURS[index] for index in generator.permutation(4))
        answer = int(generator.integers(4))
        moment = number % 2 == 0
        rows.append(
            VideoQuestion(
                id=f"q{number:03d}",
                question=f"What colour is light number {number}?",
                choices=choices,
                answer=answer if labelled else -1,
                video=f"v{number // 2}.mp4",
                support_frames=(1.0,) if support else (),
                duration=6.0,
                kind="light" if moment else "scene",
                language="vi" if number % 3 else "en",
                source="scripted",
                details={"needs_moment": str(int(moment)), "needs_text": "0"},
            )
        )
    return build_video_dataset(rows)
