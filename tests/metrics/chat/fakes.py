"""Samples whose right answers are known, and systems that answer by a rule."""

import io
import json

import numpy as np
from PIL import Image

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, text_turn
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.family import AnswerLosses, ChatSystem

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 230, 20)}


def picture(colour: str, width: int = 16) -> ImageRef:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 8), COLOURS[colour]).save(buffer, format="PNG")
    return ImageRef(data=buffer.getvalue())


def sample(name: str, question: str, answer: str, colour: str = "red", **more) -> ChatSample:
    turns = (text_turn("user", question, images=1), text_turn("assistant", answer))
    return ChatSample(id=name, turns=turns, images=(picture(colour),), group=more.pop("group", name), **more)


def vqa(number: int, colour: str) -> ChatSample:
    people = (colour,) * 8 + ("grey", "The grey")
    question = f"What colour is thing {number}?"
    return sample(f"vqa{number}", question, colour, colour, references=people, kind="what colour", source="vqa")


def caption(number: int, colour: str) -> ChatSample:
    told = (f"a wall of {colour} paint", f"{colour} paint on a wall", f"{colour} wall", f"the wall is {colour}")
    return sample(f"cap{number}", "Describe it.", told[0], colour, references=told, kind="caption", source="captions")


def choice(number: int, colour: str) -> ChatSample:
    details = {"choices": json.dumps(list(COLOURS)), "answer": colour}
    letter = "ABCD"[list(COLOURS).index(colour)]
    return sample(
        f"choice{number}",
        "Which colour is it? " + " ".join(COLOURS),
        letter,
        colour,
        kind="choice",
        source="choices",
        details=details,
    )


def box(number: int, left: int) -> ChatSample:
    place = Box(0, "thing", (left, 0, left + 8, 8), (16, 8))
    text = "[" + ", ".join(f"{value:.2f}" for value in place.normalised) + "]"
    return sample(f"box{number}", "Where is the thing?", text, boxes=(place,), kind="box", source="boxes")


def mixed(count: int, start: int = 0) -> list[ChatSample]:
    names = list(COLOURS)
    found = []
    for number in range(start, start + count):
        colour = names[number % 4]
        found += [vqa(number, colour), caption(number, colour), choice(number, colour), box(number, number % 9)]
    return found


def colour_of(one: ChatSample) -> str:
    pixel = np.asarray(load_reference(one.images[0]))[0, 0].astype(int)
    return min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum())


class Seer:
    """Looks at the colour; names the box at the left edge."""

    def __init__(self):
        self.asked = []

    def write(self, samples, max_new_tokens):
        self.asked += samples
        return [self.answer(one) for one in samples]

    def answer(self, one):
        assert one.turns[-1].role == "user"  # never shown the answer
        colour = colour_of(one)
        return {
            "vqa": colour,
            "captions": f"a wall of {colour} paint",
            "choices": f"The answer is ({'ABCD'[list(COLOURS).index(colour)]})",
            "boxes": "it is at [0.00, 0.00, 0.50, 1.00]",
        }[one.source]

    def losses(self, samples):
        return [AnswerLosses(np.array([1, 2]), np.array([0.1, 0.3]), ("a", " b")) for _ in samples]

    def system(self):
        return ChatSystem(self.write, self.losses, lambda one: [1, 2] if "vqa" in one.id else [2, 1], vocabulary=5)
