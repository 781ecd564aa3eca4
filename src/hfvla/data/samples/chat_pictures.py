"""The pictures of a conversation: read from where they lie, and blank ones in their place."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hfvla.data.pictures import load_picture
from hfvla.data.samples.chat import ChatSample, ImageRef, Part, Turn
from hfvla.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["blank_pictures", "encoded_bytes", "load_reference", "reference_of"]

_GREY = (127, 127, 127)


def encoded_bytes(reference: ImageRef, where: str = "picture") -> bytes:
    """Return the encoded bytes of a picture: given, of a file, or of a part of a shard.

    Raises:
        DataError: the file is missing or shorter than the reference says, or the reference names nothing.
    """
    if reference.data:
        return reference.data
    try:
        with open(reference.path, "rb") as file:
            file.seek(reference.offset)
            found = file.read(reference.size or -1)
    except OSError as error:
        raise DataError(
            "picture cannot be read", where=where, got=f"{reference.path}: {error.strerror}", fix="Check the path."
        ) from error
    if reference.size and len(found) < reference.size:
        got = f"{len(found)} bytes from {reference.offset} of {reference.path}"
        raise DataError("picture is cut off", where=where, got=got, expected=f"{reference.size} bytes")
    return found


def load_reference(reference: ImageRef, where: str = "picture", *, draft_side: int | None = None) -> Image.Image:
    """Decode the picture of a reference by the rules of `hfvla.data.pictures`.

    Args:
        reference: of a `ChatSample`.
        where: names the picture in errors.
        draft_side: see `load_picture`.

    Raises:
        DataError: it cannot be read.
    """
    whole_file = not reference.data and not reference.size and not reference.offset
    source = reference.path if whole_file else encoded_bytes(reference, where)
    return load_picture(source, where, draft_side=draft_side)


def reference_of(picture: Image.Image) -> ImageRef:
    """Return a reference that holds a decoded picture, without loss (PNG)."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="PNG", compress_level=1)
    return ImageRef(data=buffer.getvalue())


def blank_pictures(sample: ChatSample) -> ChatSample:
    """Return the sample with a grey picture of the same size in the place of each, and of each video.

    What a model then answers rightly, it answers without looking.

    Raises:
        DataError: a picture or video cannot be read.
    """
    from PIL import Image

    from hfvla.data.video import probe

    sizes = [load_reference(one, f"{sample.id}, picture {number}").size for number, one in enumerate(sample.images)]
    turns = sample.turns
    if sample.videos:
        clips = [probe(path) for path in sample.videos]
        turns, sizes = _videos_as_pictures(turns, sizes, [(info.width, info.height) for info in clips])
    blanks = tuple(reference_of(Image.new("RGB", size, _GREY)) for size in sizes)
    return replace(sample, turns=turns, images=blanks, videos=())


def _videos_as_pictures(
    turns: tuple[Turn, ...], pictures: Sequence[tuple[int, int]], videos: Sequence[tuple[int, int]]
) -> tuple[tuple[Turn, ...], list[tuple[int, int]]]:
    """Return turns with the place of a picture where one of a video was, and the sizes of all pictures then."""
    sizes = {"image": iter(pictures), "video": iter(videos)}
    shown = [next(sizes[part.type]) for turn in turns for part in turn.content if part.type != "text"]
    seen = [
        replace(turn, content=tuple(Part("image") if part.type == "video" else part for part in turn.content))
        for turn in turns
    ]
    return tuple(seen), shown
