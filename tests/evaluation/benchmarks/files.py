"""Benchmark files as they are published, small: pictures of one colour, and questions about it."""

import base64
import csv
import io
import json

import numpy as np
from PIL import Image

from hfvla.data.samples.chat_pictures import load_reference
from hfvla.family import ChatSystem

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (250, 250, 250)}
NAMES = list(COLOURS)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), COLOURS[colour]).save(buffer, format="PNG")
    return buffer.getvalue()


def encoded(colour: str) -> str:
    return base64.b64encode(png(colour)).decode()


def write_tsv(path, rows) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def choice_row(index: int, colour: str, **more) -> dict:
    row = {"index": index, "question": "Which colour?", "hint": "", "image": encoded(colour), "category": "colour"}
    row |= dict(zip("ABCD", NAMES, strict=True)) | {"answer": "ABCD"[NAMES.index(colour)], "split": "dev"}
    return row | more


def colour_of(reference) -> str | None:
    pixel = np.asarray(load_reference(reference))[0, 0].astype(int)
    name = min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum())
    return name if np.abs(pixel - COLOURS[name]).sum() < 30 else None


class Seer:
    """Answers by the first picture's colour: a letter, yes or no, or a word. Says A to a grey picture."""

    def __init__(self):
        self.asked = []

    def write(self, samples, max_new_tokens):
        self.asked += samples
        return [self.answer(sample) for sample in samples]

    def answer(self, sample):
        text, colour = sample.turns[-1].text, colour_of(sample.images[0])
        lines = text.split("\n")
        letters = [line[0] for line in lines if colour and line[1:] == f". {colour}"]
        if any(line.startswith("A. ") for line in lines):
            return letters[0] if letters else "A"
        if "yes or no" in text.lower():
            return "Yes" if colour and colour in text else "No."
        return colour or "nothing"

    def system(self) -> ChatSystem:
        return ChatSystem(self.write)


def write_mme(folder) -> None:
    for category in ("existence", "color"):
        (folder / category).mkdir(parents=True)
        for number, colour in enumerate(("red", "green")):
            (folder / category / f"{number}.jpg").write_bytes(png(colour))
            lines = [f"Is it {colour}? Please answer yes or no.\tYes", "Is it blue? Please answer yes or no.\tNo"]
            (folder / category / f"{number}.txt").write_text("\n".join(lines) + "\n")


def write_pope(folder) -> None:
    (folder / "val2014").mkdir(parents=True)
    for colour in ("red", "blue"):
        (folder / "val2014" / f"{colour}.jpg").write_bytes(png(colour))
    for kind in ("random", "popular"):
        lines = []
        for number, (colour, asked) in enumerate([("red", "red"), ("red", "blue"), ("blue", "green")]):
            record = {
                "question_id": number,
                "image": f"{colour}.jpg",
                "text": f"Is there a {asked} wall in the image?",
            }
            lines.append(json.dumps(record | {"label": "yes" if colour == asked else "no"}))
        (folder / f"coco_pope_{kind}.json").write_text("\n".join(lines))
