"""Pictures and texts of a whole set as vectors; each different picture and each different text is encoded once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hfvla.data.contact_sheet import draw_sheet, save_sheet
from hfvla.data.gallery import Picture, list_pictures
from hfvla.data.pictures import load_picture
from hfvla.data.processes import Processes
from hfvla.errors import DataError, PredictionError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = [
    "Change",
    "EncodedImages",
    "embed_images",
    "embed_texts",
    "encode_images",
    "encode_texts",
    "predict",
    "ranking",
    "unit",
]

logger = logging.getLogger(__name__)

Change = Callable[[Image.Image, str], Image.Image]
"""Maps a picture and its name to the picture that is shown in its place."""

_NOT_FINITE = "the model's vector of it is not finite"
_ALONE = Processes()
_FULL_GRID_BYTES = 2**30  # above, the grid is kept in half precision
_LOG_EVERY_S = 30.0
_BATCH = 32


@dataclass
class EncodedImages:
    """Pictures behind the model, on the CPU.

    Shapes: I pictures, D width of the shared space, G image tokens.

    Attributes:
        embed: [I, D], not normalised; zeros for a picture that could not be read or has no finite vector.
        grid: [I, G, D] for heads over the grid, else None; only the pictures that this process encoded are filled in.
        owner: [I] number of the process that encoded each picture.
        failures: reason by picture number.
    """

    embed: Tensor
    grid: Tensor | None = None
    failures: dict[int, str] = field(default_factory=dict)
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def features(self, index: Tensor, device: Any) -> dict[str, Tensor]:
        """Return `image_embed` [B, D] and, where there is one, `grid` [B, G, D] of some pictures, in float32."""
        found = {"image_embed": self.embed[index].to(device)}
        if self.grid is not None:
            found["grid"] = self.grid[index].to(device, torch.float32)
        return found

    def take(self, index: Sequence[int]) -> EncodedImages:
        """Return some of the pictures, none of which failed."""
        chosen = torch.as_tensor(list(index), dtype=torch.long)
        grid = None if self.grid is None else self.grid[chosen]
        return EncodedImages(self.embed[chosen], grid, owner=self.owner[chosen.numpy()])


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [N, D] at length 1, in float32."""
    return F.normalize(vectors.float(), dim=-1)


@torch.inference_mode()
def encode_images(
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    paths: Sequence[str],
    *,
    batch_size: int = 32,
    change: Change | None = None,
    processes: Processes = _ALONE,
) -> EncodedImages:
    """Encode pictures; the next batch is read while one is encoded.

    Vectors are gathered from all processes; grids, which are large, stay where they were computed.

    Args:
        model: `InternVLForRetrieval`, on the device it is to run on.
        processor: its processor.
        paths: I files.
        batch_size: pictures a forward pass.
        change: shows something else in place of each picture.
        processes: those that share the batches.

    Raises:
        DataError: none of the pictures can be read and encoded.
    """
    model.eval()
    batch_of = np.arange(len(paths)) // batch_size
    found = EncodedImages(torch.zeros(0), owner=batch_of % processes.count)
    own = range(processes.index * batch_size, len(paths), processes.count * batch_size)
    parts = processes.gather_done(lambda: _encode(model, processor, paths, batch_size, change, own, found))
    for numbers, vectors, failures in parts if processes.count > 1 else ():
        found.failures |= failures
        if len(numbers) and not len(found.embed):
            found.embed = torch.zeros(len(paths), vectors.shape[1])
        if len(numbers):
            found.embed[numbers] = vectors
    if len(found.failures) == len(paths):
        first = next(iter(found.failures.values()), "no picture")
        raise DataError("none of the pictures can be encoded", got=first, expected=f"{len(paths)} pictures")
    found.failures = dict(sorted(found.failures.items()))
    return found


def _encode(
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    paths: Sequence[str],
    batch_size: int,
    change: Change | None,
    starts: range,
    found: EncodedImages,
) -> tuple[Tensor, Tensor, dict[int, str]]:
    """Fill in the pictures of some batches; return their numbers, their vectors, and why some cannot be read."""
    encoded: list[int] = []
    told = time.perf_counter()
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(_read, processor, paths, start, batch_size, change) for start in starts[:1]]
        for start, following in zip(starts, [*starts[1:], None], strict=False):
            numbers, pixels, failures = waiting.pop().result()
            if following is not None:
                waiting.append(reader.submit(_read, processor, paths, following, batch_size, change))
            found.failures |= failures
            if pixels is None:
                continue
            features = model(pixel_values=pixels.to(model.device), encode_only=True).features
            lost = _not_finite(features["image_embed"], *([features["grid"]] if "grid" in features else []))
            found.failures |= {numbers[place]: _NOT_FINITE for place in lost}
            encoded += numbers
            _fill(found, torch.tensor(numbers), features, len(paths))
            if time.perf_counter() - told > _LOG_EVERY_S:
                told = time.perf_counter()
                logger.info("encoded %d of %d pictures", start + len(numbers), len(paths))
    index = torch.tensor(encoded, dtype=torch.long)
    return index, found.embed[index] if len(index) else torch.zeros(0), found.failures


def _not_finite(*parts: Tensor) -> list[int]:
    """Return the places in a batch where a feature is NaN or infinite."""
    finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in parts]).all(dim=0)
    return (~finite).nonzero().flatten().tolist()


def _fill(found: EncodedImages, index: Tensor, features: dict[str, Tensor], count: int) -> None:
    """Write the features of some pictures in their places; the first call makes room for all."""
    embed, grid = features["image_embed"].float().cpu(), features.get("grid")
    if not len(found.embed):
        found.embed = torch.zeros(count, embed.shape[1])
        if grid is not None:
            whole = count * grid[0].numel() * 4 <= _FULL_GRID_BYTES
            found.grid = torch.zeros(count, *grid.shape[1:], dtype=torch.float32 if whole else torch.float16)
    found.embed[index] = embed
    if grid is not None and found.grid is not None:
        found.grid[index] = grid.to("cpu", found.grid.dtype)
    lost = [number for number in index.tolist() if number in found.failures]
    for part in (found.embed, found.grid):
        if part is not None and lost:
            part[lost] = 0.0


def _read(
    processor: ProcessorMixin, paths: Sequence[str], start: int, batch_size: int, change: Change | None
) -> tuple[list[int], Tensor | None, dict[int, str]]:
    """Return the numbers and pixels of the pictures of a batch that can be read, and why the others cannot."""
    numbers = list(range(start, min(start + batch_size, len(paths))))
    try:
        return numbers, _pixels(processor, [paths[number] for number in numbers], change), {}
    except DataError:
        pass  # one of them; which one is seen when each is read by itself
    good, pixels, failures = [], [], {}
    for number in numbers:
        try:
            pixels.append(_pixels(processor, [paths[number]], change))
            good.append(number)
        except DataError as error:
            failures[number] = str(error)
    return good, torch.cat(pixels) if pixels else None, failures


def _pixels(processor: ProcessorMixin, paths: Sequence[str], change: Change | None) -> Tensor:
    if change is None:
        return processor.images(list(paths))
    shown = []
    for path in paths:
        shown.append(change(load_picture(path, path), path))
    return processor.images(shown, list(paths))


@torch.inference_mode()
def encode_texts(
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    failures: dict[int, str] | None = None,
    processes: Processes = _ALONE,
) -> Tensor:
    """Return [T, D] vectors of texts, not normalised, on the CPU; texts of like length share a batch.

    Args:
        model: `InternVLForRetrieval`, on the device it is to run on.
        processor: its processor.
        texts: T texts; a text that is there twice is encoded once.
        batch_size: texts a forward pass.
        failures: takes the reason by number of each text that has no finite vector (zeros stand there); without it
            the first is an error.
        processes: those that share the batches.

    Raises:
        DataError: an empty text, or no text.
        PredictionError: the vector of a text is not finite.
    """
    if not len(texts):
        raise DataError("there is no text to encode", expected="at least one")
    model.eval()
    different = list(dict.fromkeys(texts))
    ranked = sorted(range(len(different)), key=lambda number: len(different[number]))

    def encode(numbers: Sequence[int]) -> Tensor:
        batch = processor.texts([different[number] for number in numbers])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        return model(**batch, encode_only=True).features["text_embed"].float().cpu()

    vectors = torch.cat(processes.share(encode, list(_batches(ranked, batch_size))))
    place = {different[number]: row for row, number in enumerate(ranked)}
    lost = set(_not_finite(vectors))
    if lost and failures is None:
        raise PredictionError(_NOT_FINITE, where=repr(different[ranked[min(lost)]]))
    vectors[list(lost)] = 0.0
    places = [place[text] for text in texts]
    if failures is not None:
        failures |= {number: _NOT_FINITE for number, row in enumerate(places) if row in lost}
    return vectors[torch.tensor(places)]


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def embed_images(
    model: InternVLForRetrieval, processor: ProcessorMixin, paths: Sequence[str], batch_size: int
) -> tuple[Any, dict[int, str]]:
    """Return unit vectors [I, D] of pictures as a float32 array, and the reason by number where one has none."""
    found = encode_images(model, processor, paths, batch_size=batch_size)
    return unit(found.embed).numpy(), found.failures


def embed_texts(model: InternVLForRetrieval, processor: ProcessorMixin, texts: Sequence[str], batch_size: int) -> Any:
    """Return unit vectors [T, D] of texts as a float32 array."""
    return unit(encode_texts(model, processor, texts, batch_size=batch_size)).numpy()


def predict(model: InternVLForRetrieval, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
    """Rank pictures as `FAMILY.request` says; the reply is JSON-serialisable.

    Returns:
        {"text", "searched": how many pictures, "results": [{"rank", "id", "score", "path"}], "sheet"}.

    Raises:
        DataError: no picture in the folder, or one that cannot be read.
        PredictionError: a vector is not finite.
    """
    pictures = list_pictures(request["gallery"]) if "gallery" in request else _named(request["images"])
    sources = list(request["images"]) if "images" in request else [picture.path for picture in pictures]
    found = encode_images(model, processor, sources, batch_size=_BATCH)
    words = unit(encode_texts(model, processor, [str(request["text"])], batch_size=1))
    reply = ranking(request, unit(found.embed), words[0], found.failures, pictures=pictures)
    if request.get("sheet") is not None:
        place_of = {picture.id: number for number, picture in enumerate(pictures)}
        shown = [(sources[place_of[one["id"]]], f"{one['rank']}  {one['score']:.3f}  {one['id']}")
                 for one in reply["results"]]  # fmt: skip
        save_sheet(draw_sheet(str(request["text"]), shown), request["sheet"])
        reply["sheet"] = str(request["sheet"])
    return reply


def ranking(
    request: Mapping[str, Any],
    vectors: Tensor,
    words: Tensor,
    failures: Mapping[int, str],
    lost: str | None = None,
    *,
    pictures: Sequence[Picture] | None = None,
) -> dict[str, Any]:
    """Return the answer to one request from its vectors.

    Args:
        request: with `text` and `top_k`.
        vectors: [I, D] of its pictures, of length 1.
        words: [D] of its text, of length 1.
        failures: reason by number of each picture that has no vector.
        lost: why the text has none.
        pictures: I names and files; those of `images` when None.

    Raises:
        DataError: a picture cannot be read.
        PredictionError: the text has no vector.
    """
    pictures = _named(request["images"]) if pictures is None else pictures
    if failures:
        first = min(failures)
        raise DataError("a picture cannot be read", where=pictures[first].id, got=failures[first])
    if lost is not None:
        raise PredictionError(lost, where=repr(request["text"]))
    scores = (vectors @ words).tolist()
    ranked = sorted(range(len(pictures)), key=lambda number: -scores[number])[: request.get("top_k")]
    results = [
        {"rank": place, "id": pictures[number].id, "score": scores[number], "path": pictures[number].path}
        for place, number in enumerate(ranked, 1)
    ]
    return {"text": request["text"], "searched": len(pictures), "results": results}


def _named(images: Sequence[Any]) -> list[Picture]:
    """Return pictures by their paths; one that has none is named by its place."""
    names = [str(image) if isinstance(image, str | PathLike) else f"picture {n}" for n, image in enumerate(images, 1)]
    return [Picture(name, name) for name in names]
