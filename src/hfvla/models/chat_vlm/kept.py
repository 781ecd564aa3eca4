"""Pictures of which the tower's output is kept: what of them a batch still needs, and batches without their pixels.

A processor does two things with pictures: pixels, and the text that stands in their places (how many tokens, marks of
tiles and rows). The second is kept beside the features, so that no picture is opened again; the processor's own code
then makes the batch from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from hfvla.errors import DataError
from hfvla.models.chat_vlm.tower import FEATURES, READS, TAIL, TILES

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["KEPT", "Pictures", "blank_images", "kept_by_row", "kept_pictures", "of_processor", "seen_pictures"]

KEPT = "pictures"
"""Key of cached features: what a processor made of a row's pictures besides pixels, as JSON in uint8."""

_PIXELS = "pixel_values"
_LARGE = (_PIXELS, "pixel_attention_mask")


@dataclass(frozen=True)
class Pictures:
    """What a processor made of one row's pictures.

    Attributes:
        pixels: as the model takes them.
        made: what else it made of them, by name: tensors, lists, numbers.
        texts: what stands in the place of each picture.
        by_row: whether `pixel_values` begins with the rows of a batch (Idefics' kind), not with pictures.
    """

    pixels: Tensor
    made: Mapping[str, Any]
    texts: Sequence[str]
    by_row: bool

    def kept(self) -> Tensor:
        """Return all but the pixels, as JSON in uint8."""
        tail = 1 if self.pixels.ndim == 2 else 3
        plain = {
            "texts": list(self.texts),
            "tiles": list(self.pixels.shape[:-tail]),
            "tail": list(self.pixels.shape[-tail:]),
            "by_row": self.by_row,
            "made": {name: _plain(value) for name, value in self.made.items()},
        }
        return torch.tensor(list(json.dumps(plain).encode()), dtype=torch.uint8)


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


def placeholder(processor: ProcessorMixin) -> str:
    """Return what stands for a picture in a text before its tokens do; Gemma has a mark of its own."""
    return str(getattr(processor, "boi_token", None) or processor.image_token)


def of_processor(processor: ProcessorMixin, images: Sequence[Any], where: str) -> tuple[Pictures, dict[str, Tensor]]:
    """Return what a processor makes of one row's pictures, and the batch of it that the model's tower takes.

    Args:
        processor: of the model.
        images: decoded.
        where: names the row in errors.

    Raises:
        DataError: the processor refuses them.
    """
    found: list[tuple[dict[str, Any], list[str]]] = []
    own = processor._process_images  # one for all processors of transformers >= 5.19; there is no public name for it

    def noted(given: Any, **more: Any) -> Any:
        processed, texts = own(given, **more)
        found.append((dict(processed), list(texts)))
        return processed, texts

    try:
        with _instead(processor, noted):
            batch = processor(
                text=[placeholder(processor) * len(images)],
                images=[list(images)],
                add_special_tokens=False,
                return_tensors="pt",
            )
    except (ValueError, IndexError, TypeError) as error:
        raise DataError("the processor refuses these pictures", where=where, got=str(error).splitlines()[0]) from error
    made = {name: value for name, value in found[0][0].items() if name not in _LARGE}
    inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    return Pictures(inputs[_PIXELS], made, found[0][1], "pixel_attention_mask" in found[0][0]), inputs


def kept_by_row(features: Mapping[str, Tensor]) -> bool:
    """Tell whether the pixels of which features are kept begin with the rows of a batch."""
    return bool(json.loads(bytes(features[KEPT].tolist()))["by_row"])


@contextmanager
def kept_pictures(processor: ProcessorMixin, rows: Sequence[Mapping[str, Tensor] | None]) -> Iterator[None]:
    """Let a processor take what was kept of pictures in their place, while this lasts.

    Args:
        processor: of the model.
        rows: cached features of each row of a batch; None for a row without pictures.

    Raises:
        DataError: tiles of another size than the others'.
    """
    found = [None if row is None else json.loads(bytes(row[KEPT].tolist())) for row in rows]
    known = [one for one in found if one is not None]
    if len({tuple(one["tail"]) for one in known}) > 1:
        raise DataError(
            "pictures of rows of one batch are kept with other sizes",
            got=", ".join(sorted({str(one["tail"]) for one in known})),
            fix="Leave `cache` out of the stage, or give all pictures one size.",
        )
    names = dict.fromkeys(name for one in known for name in one["made"])
    made = {name: _joined([_tensors(one["made"][name]) for one in known if name in one["made"]]) for name in names}
    made[_PIXELS] = _stand_ins(found)
    texts = [text for one in known for text in one["texts"]]
    with _instead(processor, lambda *_, **__: (made, texts)):
        yield


def _stand_ins(found: Sequence[Mapping[str, Any] | None]) -> Tensor:
    """Return ones in the shape of the pixels' first dimensions, others of length 1."""
    known = [one for one in found if one is not None]
    rows = found if known[0]["by_row"] else known
    most = max(one["tiles"][1] if len(one["tiles"]) > 1 else 0 for one in known)
    parts = []
    for one in rows:
        lead = [1, 0] if one is None else one["tiles"]
        ones = torch.ones(*lead)
        parts.append(ones if len(lead) == 1 else torch.nn.functional.pad(ones, (0, most - lead[1])))
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
    known = [row for row in rows if row is not None]
    rest = {name: value for name, value in batch.items() if name not in _LARGE}
    if not known:
        return rest
    tail = json.loads(bytes(known[0][KEPT].tolist()))["tail"]
    stand = batch[_PIXELS]
    rest[TILES] = stand.reshape(stand.shape[: stand.ndim - len(tail)])
    rest[TAIL], rest[READS] = torch.tensor([tail]), known[0][READS][None]
    for key in FEATURES:
        parts = [row[key] for row in known if key in row]
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(
                "kept features of rows of one batch have different sizes",
                got=", ".join(sorted({str(list(part.shape)) for part in parts})),
                fix="Leave `cache` out of the stage, or give all pictures one size.",
            )
        if parts:
            rest[key] = torch.cat(parts)
    return rest


@contextmanager
def _instead(processor: ProcessorMixin, way: Any) -> Iterator[None]:
    processor._process_images = way
    try:
        yield
    finally:
        del processor._process_images
