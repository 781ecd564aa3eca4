"""Pictures and videos of which the tower's output is kept: what a batch needs of them, and batches without pixels.

A processor does two things with pictures: pixels, and the text that stands in their places (how many tokens, marks of
tiles, rows and times). The second is kept beside the features, so that no picture or video is opened again; the
processor's own code then makes the batch from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hfvla.errors import DataError
from hfvla.models.chat_vlm.tower import IMAGES, SLOTS, VIDEOS, Slot

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = [
    "KEPT",
    "Made",
    "as_kept",
    "blank_clips",
    "blank_images",
    "kept_by_row",
    "kept_pictures",
    "of_clips",
    "of_pictures",
    "seen_pictures",
]

KEPT = "pictures"
"""Key of cached features: what a processor made of a row's pictures and videos besides pixels, as JSON in uint8."""

_MASK = "pixel_attention_mask"
_LARGE = (IMAGES.pixels, VIDEOS.pixels, _MASK)
_LEFT_OUT = (*_LARGE, "video_metadata")
_OF_IMAGES, _OF_VIDEOS = 1.0, 2.0  # what stands in the place of pixels, where both have one name
_REFUSED = (ValueError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True)
class Made:
    """What a processor made of one row's pictures, or of its videos.

    Attributes:
        name: that it gives the pixels.
        shape: of the pixels.
        rest: what else it made of them, by name: tensors, lists, numbers.
        texts: what stands in the place of each.
        by_row: whether the pixels begin with the rows of a batch (Idefics' kind), not with pictures.
    """

    name: str
    shape: tuple[int, ...]
    rest: Mapping[str, Any]
    texts: Sequence[str]
    by_row: bool

    def plain(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        tail = 1 if len(self.shape) == 2 else 3
        return {
            "name": self.name,
            "texts": list(self.texts),
            "tiles": list(self.shape[:-tail]),
            "tail": list(self.shape[-tail:]),
            "by_row": self.by_row,
            "made": {name: _plain(value) for name, value in self.rest.items()},
        }


def as_kept(images: Made | None, videos: Made | None) -> Tensor:
    """Return what is kept of a row besides features, as JSON in uint8."""
    parts = {"images": images and images.plain(), "videos": videos and videos.plain()}
    return torch.tensor(list(json.dumps(parts).encode()), dtype=torch.uint8)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    return [_tensors(one) for one in value] if isinstance(value, list) else value


def blank_images(count: int) -> tuple[Image.Image, ...]:
    """Return pictures of one pixel: a processor wants some, and looks at none where others are kept."""
    return (Image.new("RGB", (1, 1)),) * count


def blank_clips(count: int) -> tuple[tuple[Any, Any], ...]:
    """Return videos of one pixel, for the same reason."""
    from transformers.video_utils import VideoMetadata

    return (
        (np.zeros((1, 3, 1, 1), np.uint8), VideoMetadata(total_num_frames=1, fps=1.0, frames_indices=[0])),
    ) * count


def placeholder(processor: ProcessorMixin) -> str:
    """Return what stands for a picture in a text before its tokens do; Gemma has a mark of its own."""
    return str(getattr(processor, "boi_token", None) or processor.image_token)


def of_pictures(processor: ProcessorMixin, images: Sequence[Any], where: str) -> tuple[Made, dict[str, Tensor]]:
    """Return what a processor makes of one row's pictures, and the batch of it that the model's tower takes.

    Args:
        processor: of the model.
        images: decoded.
        where: names the row in errors.

    Raises:
        DataError: the processor refuses them.
    """
    given = {"text": [placeholder(processor) * len(images)], "images": [list(images)]}
    return _of_processor(processor, "_process_images", given, where)


def of_clips(
    processor: ProcessorMixin, clips: Sequence[tuple[Any, Any]], where: str
) -> tuple[Made, dict[str, Tensor]]:
    """Return what a processor makes of one row's videos, and the batch of it that the model's tower takes.

    Args:
        processor: of the model.
        clips: frames, and where they lie in the clip.
        where: names the row in errors.

    Raises:
        DataError: the processor refuses them.
    """
    given = {
        "text": [str(processor.video_token) * len(clips)],
        "videos": [frames for frames, _ in clips],
        "video_metadata": [told for _, told in clips],
        "do_sample_frames": False,
    }
    return _of_processor(processor, "_process_videos", given, where)


def _of_processor(
    processor: ProcessorMixin, way: str, given: Mapping[str, Any], where: str
) -> tuple[Made, dict[str, Tensor]]:
    found: list[tuple[dict[str, Any], list[str]]] = []
    own = getattr(processor, way)  # for all processors of transformers >= 5.19; there is no public name for it

    def noted(*args: Any, **more: Any) -> Any:
        processed, texts = own(*args, **more)
        found.append((dict(processed), list(texts)))
        return processed, texts

    try:
        with _instead(processor, way, noted):
            batch = processor(**given, add_special_tokens=False, return_tensors="pt")
    except _REFUSED as error:
        raise DataError("the processor refuses these pictures", where=where, got=str(error).splitlines()[0]) from error
    processed, texts = found[0]
    name = next(name for name in (VIDEOS.pixels, IMAGES.pixels) if name in processed)
    rest = {key: value for key, value in processed.items() if key not in _LEFT_OUT}
    inputs = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    shape = batch[name].shape if name in batch and way == "_process_images" else _shape(processed[name])
    return Made(name, tuple(shape), rest, texts, _MASK in processed), inputs


def _shape(pixels: Any) -> tuple[int, ...]:
    return tuple(pixels.shape) if hasattr(pixels, "shape") else (len(pixels), *pixels[0].shape)


def _told(features: Mapping[str, Tensor]) -> dict[str, Any]:
    return dict(json.loads(bytes(features[KEPT].tolist())))


def kept_by_row(features: Mapping[str, Tensor]) -> bool:
    """Tell whether the pixels of which features are kept begin with the rows of a batch."""
    return any(part["by_row"] for part in _told(features).values() if part)


@contextmanager
def kept_pictures(processor: ProcessorMixin, rows: Sequence[Mapping[str, Tensor] | None]) -> Iterator[None]:
    """Let a processor take what was kept of pictures and videos in their place, while this lasts.

    Args:
        processor: of the model.
        rows: cached features of each row of a batch; None for a row without pictures.

    Raises:
        DataError: tiles of another size than the others'.
    """
    told = [None if row is None else _told(row) for row in rows]
    ways = {"images": ("_process_images", _OF_IMAGES), "videos": ("_process_videos", _OF_VIDEOS)}
    with ExitStack() as stack:
        for kind, (way, mark) in ways.items():
            found = [None if row is None else row[kind] for row in told]
            if any(found):
                stack.enter_context(_instead(processor, way, _answering(*_put_together(found, mark))))
        yield


def _answering(made: Any, texts: Any) -> Any:
    return lambda *_, **__: (made, texts)


def _put_together(found: Sequence[Mapping[str, Any] | None], mark: float) -> tuple[dict[str, Any], list[str]]:
    """Return what a processor would make of the pictures of all rows."""
    known = [one for one in found if one]
    if len({tuple(one["tail"]) for one in known}) > 1:
        raise DataError(
            "pictures of rows of one batch are kept with other sizes",
            got=", ".join(sorted({str(one["tail"]) for one in known})),
            fix="Leave `cache` out of the stage, or give all pictures one size.",
        )
    names = dict.fromkeys(name for one in known for name in one["made"])
    made = {name: _joined([_tensors(one["made"][name]) for one in known if name in one["made"]]) for name in names}
    made[known[0]["name"]] = _stand_ins(found, mark)
    return made, [text for one in known for text in one["texts"]]


def _stand_ins(found: Sequence[Mapping[str, Any] | None], mark: float) -> Tensor:
    """Return marks in the shape of the pixels' first dimensions, others of length 1; 0 where there is no picture."""
    known = [one for one in found if one]
    rows = found if known[0]["by_row"] else known
    most = max(one["tiles"][1] if len(one["tiles"]) > 1 else 0 for one in known)
    parts = []
    for one in rows:
        lead = one["tiles"] if one else [1, 0]
        marks = torch.full(lead, mark)
        parts.append(marks if len(lead) == 1 else torch.nn.functional.pad(marks, (0, most - lead[1])))
    tiles = torch.cat(parts)
    return tiles.reshape(*tiles.shape, *[1] * len(known[0]["tail"]))


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return [one for value in values for one in value] if isinstance(values[0], list) else values[0]


def seen_pictures(batch: dict[str, Any], rows: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Any]:
    """Return a batch with features in place of pixels.

    Args:
        batch: of a processor, made inside `kept_pictures`.
        rows: cached features of each row.

    Raises:
        DataError: features of different sizes, which no batch can hold.
    """
    rest = {name: value for name, value in batch.items() if name not in _LARGE}
    told = [(row, _told(row)) for row in rows if row is not None]
    apart = VIDEOS.pixels in batch
    for slot in SLOTS:
        if slot.pixels not in batch:
            continue
        kinds = ("videos",) if slot is VIDEOS else ("images",) if apart else ("images", "videos")
        known = [(row, kind, parts[kind]) for row, parts in told for kind in kinds if parts[kind]]
        stand, tail = batch[slot.pixels], known[0][2]["tail"]
        tiles = stand.reshape(stand.shape[: stand.ndim - len(tail)])
        row, kind, _ = known[0]
        rest[slot.tiles], rest[slot.tail] = (tiles > 0).to(tiles.dtype), torch.tensor([tail])
        rest[slot.reads] = row[_slot_of(kind).reads][None]
        for number, key in enumerate(slot.features):
            parts = {kind: _features(known, kind, number) for kind in kinds}
            found = [part for part in parts.values() if part is not None]
            if len(found) == 2:
                _check_sizes(found)
                marks = tiles[tiles > 0]
                rest[key] = found[0].new_empty(len(marks), *found[0].shape[1:])
                rest[key][marks == _OF_IMAGES], rest[key][marks == _OF_VIDEOS] = found
            elif found:
                rest[key] = found[0]
    return rest


def _slot_of(kind: str) -> Slot:
    return VIDEOS if kind == "videos" else IMAGES


def _features(known: Sequence[tuple[Any, str, Any]], kind: str, number: int) -> Tensor | None:
    """Return one of the features of all rows that have pictures, or videos."""
    key = _slot_of(kind).features[number]
    parts = [row[key] for row, of, _ in known if of == kind and key in row]
    _check_sizes(parts)
    return torch.cat(parts) if parts else None


def _check_sizes(parts: Sequence[Tensor]) -> None:
    if len({part.shape[1:] for part in parts}) > 1:
        raise DataError(
            "kept features of rows of one batch have different sizes",
            got=", ".join(sorted({str(list(part.shape)) for part in parts})),
            fix="Leave `cache` out of the stage, or give all pictures one size.",
        )


@contextmanager
def _instead(processor: ProcessorMixin, name: str, way: Any) -> Iterator[None]:
    setattr(processor, name, way)
    try:
        yield
    finally:
        delattr(processor, name)
