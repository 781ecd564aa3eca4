"""Folders of pictures with a text of the same name beside each, as img2dataset's `files` and trainers of styles have.

00000/000000000.jpg, 00000/000000000.txt (the caption), 00000/000000000.json (facts, passed over)
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.image_files import PICTURE_SUFFIXES
from hfvla.data.sources.vision_language.json_stream import open_text
from hfvla.data.sources.vision_language.reading import Reading, text_of
from hfvla.data.sources.vision_language.records import Taken
from hfvla.data.sources.vision_language.splits import image_group, split_of_path
from hfvla.errors import DataError

__all__ = ["read_captioned"]

_LONGEST = 1 << 16  # letters of a caption
_SUFFIXES = (".txt", ".caption")


def read_captioned(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a picture, in the order of names; one without a text is counted."""
    for head in taken.heads:
        split, folder = split_of_path(head.name), str(head.path)
        if not reading.wants_file(head.path, split):
            continue
        for name in sorted(os.listdir(folder)):
            stem, suffix = os.path.splitext(name)
            if name.startswith(".") or suffix.casefold() not in PICTURE_SUFFIXES:
                continue
            where = f"{head.name}/{name}"
            with reading.record(where):
                caption = text_of(_caption(os.path.join(folder, stem)), "caption")
                sample = ChatSample(
                    id=where,
                    turns=(
                        text_turn("user", reading.options.prompts.caption, images=1),
                        text_turn("assistant", caption),
                    ),
                    images=(reading.picture(name, head.path / name),),
                    references=(caption,),
                    kind="caption",
                    source=taken.source,
                    split=split,
                    group=image_group(where),
                )
                yield from reading.take(sample)


def _caption(stem: str) -> str:
    for suffix in _SUFFIXES:
        if os.path.exists(stem + suffix):
            try:
                with open_text(stem + suffix) as file:
                    return file.read(_LONGEST)
            except DataError as error:
                raise UnusableError("caption cannot be read", str(error)) from error
    raise UnusableError("picture without a caption", os.path.basename(stem))
