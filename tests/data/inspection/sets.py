"""Rows of conversations about generated pictures, for the tests of inspection, checks and conversion."""

import io

import numpy as np
from datasets import Dataset
from PIL import Image

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, chat_features, text_turn
from hfvla.family import SourceData

SIZE = (96, 64)


def scene(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return a smooth random picture: neighbouring pixels are alike, as in photos."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def sample(number: int, picture: bytes | None, question: str = "", answer: str = "", **more) -> ChatSample:
    images = (ImageRef(data=picture),) if picture is not None else ()
    turns = (
        text_turn("user", question or f"What is number {number}?", images=len(images)),
        text_turn("assistant", answer or f"It is {number}."),
    )
    facts = {"source": "made", "split": "train", "group": f"made/{number}", "kind": "vqa", **more}
    return ChatSample(id=f"s{number}", turns=turns, images=images, **facts)


def rows_of(samples) -> Dataset:
    rows = [one.to_row() for one in samples]
    return Dataset.from_dict({key: [row[key] for row in rows] for key in chat_features()}, features=chat_features())


def data_of(samples) -> SourceData:
    rows = rows_of(samples)
    return SourceData(rows, {"found": len(rows), "usable": len(rows), "rejected": {}})


def box(image: int = 0, label: str = "cat", xyxy=(10.0, 8.0, 50.0, 40.0), size=SIZE, crowd: bool = False) -> Box:
    return Box(image, label, xyxy, size, crowd)
