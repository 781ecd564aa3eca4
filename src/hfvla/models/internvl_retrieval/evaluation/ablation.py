"""The same model on changed input: grey and corrupted pictures, captions of other buildings, words out of order."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from hfvla.family import EvaluationContext
from hfvla.models.internvl_retrieval.evaluation.placing import predict_places, truth_of
from hfvla.models.internvl_retrieval.evaluation.ranking import similarity_ranks
from hfvla.models.internvl_retrieval.evaluation.scores import (
    Searchable,
    means,
    place_columns,
    retrieval_columns,
)
from hfvla.models.internvl_retrieval.search import EncodedImages, encode_images, encode_texts

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["CORRUPTIONS", "ablate", "blank", "corruptions"]

_MAX_PICTURES = 1000


def ablate(
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    data: Searchable,
    images: EncodedImages,
    texts: Tensor,
    context: EvaluationContext,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Score changed input, all of it on the same buildings: those of about 1,000 pictures, drawn by the seed.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        data: what is evaluated; every picture can be read.
        images: its encoded pictures.
        texts: [N, D] its encoded captions, not normalised.
        context: seed and batch size.

    Returns:
        `tuple`: scores by ablation, "clean" for unchanged input, and notes.
    """
    rows = _some_rows(data, context.seed)
    part = Searchable.of([data.rows[row] for row in rows])
    own = images.take(data.image_of_row[rows][part.image_rows])
    told = texts[rows]
    truth = truth_of(part.rows)
    together: dict[str, Any] = {"batch_size": context.batch_size, "processes": context.processes}
    sentences = None
    if len(truth.boxes):
        sentences = encode_texts(model, processor, truth.sentences, **together)

    def scores(shown: EncodedImages, captions: Tensor, places: bool = True) -> dict[str, float]:
        ranks = similarity_ranks(shown.embed, captions, *part.ids(), device=model.device, processes=context.processes)
        columns = retrieval_columns(ranks, part)
        if places and sentences is not None:
            found = predict_places(model, truth, sentences, shown, part.image_of_row, **together)
            columns |= place_columns(truth, found)
        kept = {name: value for name, value in means(columns).items() if "/" not in name}
        return {"n": float(len(part.rows)), **kept}

    found = {"clean": scores(own, told)}
    words = [_shuffled_words(caption, number, context.seed) for number, caption in enumerate(part.captions)]
    found["shuffled_words"] = scores(own, encode_texts(model, processor, words, **together), places=False)
    found["shuffled_captions"] = scores(own, told[_other_buildings(part.groups, context.seed)], places=False)
    for name, change in {"blank_picture": blank, **corruptions(context.seed)}.items():
        shown = encode_images(model, processor, part.paths, change=change, **together)
        found[name] = scores(shown, told)
    notes = [
        "Ablations: with grey pictures a text scores all of them the same, and a tie counts against the model; "
        "shuffled captions belong to another building, so what is left is chance."
    ]
    if len(part.paths) < len(data.paths):
        notes.append(f"Ablations search {len(part.paths)} of {len(data.paths)} pictures, whole buildings of them.")
    return found, notes


def _some_rows(data: Searchable, seed: int) -> np.ndarray:
    """Return the numbers of all rows, or those of buildings drawn until they have 1,000 pictures."""
    if len(data.paths) <= _MAX_PICTURES:
        return np.arange(len(data.rows))
    names, counts = np.unique(data.image_groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    enough = int(np.searchsorted(counts[order].cumsum(), _MAX_PICTURES)) + 1
    return np.flatnonzero(np.isin(data.groups, names[order[:enough]]))


def _shuffled_words(caption: str, number: int, seed: int) -> str:
    words = caption.split()
    random.Random(f"{seed}/{number}").shuffle(words)
    return " ".join(words)


def _other_buildings(groups: np.ndarray, seed: int) -> np.ndarray:
    """Return for each row a row of another building, each row once, as far as no building has half of all rows."""
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    place = np.random.default_rng(seed).permutation(len(names))
    order = np.argsort(place[codes], kind="stable")
    taken = np.empty(len(groups), dtype=np.int64)
    taken[order] = np.roll(order, int(counts.max()))
    return taken


_NOISE = (0.08, 0.18)  # standard deviation, as a share of the range of values
_BLUR = (0.012, 0.03)  # radius, as a share of the shorter side
_BRIGHTNESS = (0.6, 0.35)
_FOG = (0.4, 0.65)  # share of light that comes from the fog
_FOG_GREY = 205
_JPEG_QUALITY = (25, 8)
SEVERITIES = 2

_Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def _noise(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float64)
    pixels = pixels + generator.normal(0.0, 255 * _NOISE[level], pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _blur(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(_BLUR[level] * min(picture.size)))


def _brightness(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(_BRIGHTNESS[level])


def _fog(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    return Image.blend(picture, Image.new("RGB", picture.size, (_FOG_GREY,) * 3), _FOG[level])


def _jpeg(picture: Image.Image, level: int, generator: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY[level])
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


CORRUPTIONS: dict[str, _Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "fog": _fog,
    "jpeg": _jpeg,
}
"""Functions (picture, level from 0, generator) by name."""


def blank(picture: Image.Image, name: str) -> Image.Image:
    """Return a grey picture of the same size."""
    return Image.new("RGB", picture.size, (128, 128, 128))


def corruptions(seed: int) -> dict[str, Callable[[Image.Image, str], Image.Image]]:
    """Return every corruption at every severity as `change(picture, name)`, by e.g. "fog_2".

    What is random follows from seed, kind, severity and the last two parts of the name, wherever the data lies.

    Args:
        seed: of the evaluation.
    """
    return {
        f"{kind}_{level + 1}": partial(_changed, kind=kind, level=level, seed=seed)
        for kind in CORRUPTIONS
        for level in range(SEVERITIES)
    }


def _changed(picture: Image.Image, name: str, *, kind: str, level: int, seed: int) -> Image.Image:
    own = f"{seed}/{kind}/{level}/{'/'.join(PurePath(name).parts[-2:])}"
    digest = hashlib.blake2b(own.encode(), digest_size=8).digest()
    return CORRUPTIONS[kind](picture, level, np.random.default_rng(int.from_bytes(digest, "little")))
