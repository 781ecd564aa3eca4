"""Evaluation of InternVL for retrieval: `evaluate` of the family contract."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.samples.retrieval import PLATFORMS
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.metrics.retrieval import RetrievalRanks, recalls
from hfvla.models.internvl_retrieval.evaluation.ablation import ablate
from hfvla.models.internvl_retrieval.evaluation.baselines import chance, fitted_baselines
from hfvla.models.internvl_retrieval.evaluation.figures import (
    Clock,
    ablation_figure,
    platform_figure,
    recall_figure,
    relation_figures,
    search_mistakes,
    sweep_figure,
)
from hfvla.models.internvl_retrieval.evaluation.placing import (
    Places,
    Truth,
    place_scores,
    predict_places,
    truth_of,
)
from hfvla.models.internvl_retrieval.evaluation.ranking import (
    K_TEST,
    Shortlists,
    match_shortlists,
    reranked,
    similarity_ranks,
    sweep_of,
)
from hfvla.models.internvl_retrieval.evaluation.scores import (
    Columns,
    Searchable,
    all_intervals,
    means,
    place_columns,
    prediction_rows,
    retrieval_columns,
)
from hfvla.models.internvl_retrieval.search import EncodedImages, encode_images, encode_texts

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


def evaluate(
    model: InternVLForRetrieval, processor: ProcessorMixin, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Search all pictures with every caption and all captions with every picture; point at what sentences name.

    A hit is any item of the query's building. A picture that cannot be read is left out with its captions, counted
    and named.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        rows: `datasets.Dataset` of `ImageText` rows, one a caption.
        context: training rows for baselines, seed, batch size, resamples, the share of rows that may fail, and the
            options `k_test` (items that the matching head puts in order) and `legacy_building_ids` (headline scores
            with GeoText-1652's own off-by-one ids, to compare with published ones).

    Raises:
        DataError: no rows, rows without pictures, or too many that cannot be read.
    """
    model.eval().to(context.device)
    clock = Clock()
    data, images, failures = _encoded(model, processor, Searchable.of(list(rows)), context, clock)
    unanswered: dict[int, str] = {}
    with clock.measure("captions", len(set(data.captions)), model.device):
        together: dict[str, Any] = {"batch_size": context.batch_size, "processes": context.processes}
        texts = encode_texts(model, processor, data.captions, failures=unanswered, **together)
    data, images, texts = _without(data, images, texts, unanswered, context)
    failures["failures"] += len(unanswered)
    captions = data.captions
    legacy = bool(context.options.get("legacy_building_ids", False))
    ids = data.ids(legacy)
    with clock.measure("scores", len(data.paths) * len(captions), model.device):
        ranks = similarity_ranks(images.embed, texts, *ids, device=model.device, processes=context.processes)
    columns = retrieval_columns(ranks, data)
    result = EvaluationResult(metrics={"n": float(len(captions))})
    systems, lists = {"similarity": ranks}, None
    if model.config.loss_weights.get("itm"):
        lists = _rerank(result, model, images, texts, ranks, ids, context, clock)
        systems["re-ranked"] = reranked(ranks, lists, *ids, k=lists.longest)
        columns |= retrieval_columns(systems["re-ranked"], data, "reranked/")
    else:
        result.notes.append("No re-ranking: the matching head had no weight in the last stage.")
    truth = truth_of(data.rows, model.config.sentence_slots)
    places = _places(model, processor, data, images, truth, context, clock)
    if places is not None:
        columns |= place_columns(truth, places)
        result.figures += relation_figures(places.relations, truth.relations) if len(truth.relations) else []
    _fill(result, data, ranks, columns, truth, places)
    result.metrics |= _other_ids(images, texts, data, legacy, model.device, context)
    _compare(result, model, processor, data, images, texts, columns, truth, context)
    result.metrics |= {**failures, **clock.metrics(model)}
    result.notes += [_failed_note(images, data)] if images.failures else []
    result.figures.insert(0, recall_figure(systems, result.baselines["chance"]))
    if context.processes.is_main:
        first = np.asarray([int((images.embed @ text).argmax()) for text in texts])
        mistakes = search_mistakes(data.rows, data.paths, ranks, first, data.image_of_row)
        result.figures += [mistakes] if mistakes is not None else []
        result.rows = prediction_rows(data, images, texts, systems, lists, columns, truth, places)
    return result


def _encoded(
    model: InternVLForRetrieval, processor: ProcessorMixin, data: Searchable, context: EvaluationContext, clock: Clock
) -> tuple[Searchable, EncodedImages, dict[str, float]]:
    """Encode the pictures, and leave out those that cannot be read with their rows.

    Raises:
        DataError: more rows than the context allows.
    """
    with clock.measure("images", len(data.paths), model.device):
        images = encode_images(
            model, processor, data.paths, batch_size=context.batch_size, processes=context.processes
        )
    lost = np.isin(data.image_of_row, list(images.failures))
    if not lost.any():
        return data, images, {"failures": 0.0}
    first = min(images.failures)
    for number, reason in list(images.failures.items())[:3]:
        logger.warning("%s is left out: %s", data.paths[number], reason)
    if lost.sum() > context.max_bad_fraction * len(lost):
        raise DataError(
            f"{len(images.failures)} pictures of {lost.sum()} rows cannot be read; first: {images.failures[first]}",
            got=f"{lost.mean():.1%} of the rows",
            expected=f"at most {context.max_bad_fraction:.1%}",
            fix="Repair the pictures, or raise max_bad_fraction.",
        )
    kept = images.take([number for number in range(len(data.paths)) if number not in images.failures])
    kept.failures = {number: f"{data.paths[number]}: {reason}" for number, reason in images.failures.items()}
    data = Searchable.of([row for row, gone in zip(data.rows, lost, strict=True) if not gone])
    return data, kept, {"failures": float(lost.sum()), "failures/pictures": float(len(kept.failures))}


def _without(
    data: Searchable, images: EncodedImages, texts: Tensor, lost: Mapping[int, str], context: EvaluationContext
) -> tuple[Searchable, EncodedImages, Tensor]:
    """Leave out the rows whose caption has no finite vector, and the pictures that no other row has.

    Raises:
        DataError: more rows than the context allows.
    """
    if not lost:
        return data, images, texts
    first = min(lost)
    text = f"{len(lost)} of {len(data.rows)} captions have no vector; first: {data.rows[first]['id']}: {lost[first]}"
    if len(lost) > context.max_bad_fraction * len(data.rows):
        raise DataError(text, expected=f"at most {context.max_bad_fraction:.1%}")
    logger.warning("%s", text)
    kept = [number for number in range(len(data.rows)) if number not in lost]
    part = Searchable.of([data.rows[number] for number in kept])
    place = {path: number for number, path in enumerate(data.paths)}
    shown = images.take([place[path] for path in part.paths])
    shown.failures = images.failures
    return part, shown, texts[kept]


def _failed_note(images: EncodedImages, data: Searchable) -> str:
    first = next(iter(images.failures.values()))
    return f"{len(images.failures)} pictures cannot be read and are left out with their captions; first: {first}"


def _rerank(
    result: EvaluationResult,
    model: InternVLForRetrieval,
    images: EncodedImages,
    texts: Tensor,
    ranks: RetrievalRanks,
    ids: tuple[np.ndarray, np.ndarray],
    context: EvaluationContext,
    clock: Clock,
) -> Shortlists:
    """Let the matching head judge the lists once, and fill in the recalls for lists of several lengths."""
    given = context.options.get("k_test")
    k_test = K_TEST if given is None else int(given)
    if k_test < 1:
        raise DataError("no such option value", where="k_test", got=k_test, expected="at least 1")
    most = min(k_test, max(len(images.embed), len(texts)))
    pairs = len(texts) * min(most, len(images.embed)) + len(images.embed) * min(most, len(texts))
    with clock.measure("matched_pairs", pairs, model.device):
        lists = match_shortlists(model, images, texts, most, context.processes)
    sweep = {}
    for k in sweep_of(most):
        found = recalls(reranked(ranks, lists, *ids, k=k))
        part = "reranked" if k == most else f"reranked_{k}"
        result.metrics |= {f"{part}/{name}": value for name, value in found.items()}
        sweep[k] = found["mean_recall"]
    result.figures.append(sweep_figure(sweep, recalls(ranks)["mean_recall"]))
    result.notes.append(f"Re-ranking: the matching head puts the first {most} items of each list in order.")
    return lists


def _places(
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    data: Searchable,
    images: EncodedImages,
    truth: Truth,
    context: EvaluationContext,
    clock: Clock,
) -> Places | None:
    """Return boxes and relations, or None where no row has boxes."""
    if not len(truth.boxes):
        return None
    with clock.measure("sentences", len(truth.sentences), model.device):
        together: dict[str, Any] = {"batch_size": context.batch_size, "processes": context.processes}
        sentences = encode_texts(model, processor, truth.sentences, **together)
        return predict_places(model, truth, sentences, images, data.image_of_row, **together)


def _fill(
    result: EvaluationResult,
    data: Searchable,
    ranks: RetrievalRanks,
    columns: Columns,
    truth: Truth,
    places: Places | None,
) -> None:
    """Fill in the model's own scores, and the recalls of each platform's queries."""
    scores = means(columns)
    own = {name: value for name, value in scores.items() if "/" not in name}
    result.metrics |= own
    if places is not None:
        result.metrics |= {name: value for name, value in place_scores(truth, places).items() if "/" in name}
    else:
        result.notes.append("No row has boxes, so boxes and relations are not scored.")
    counts = {"images": len(data.paths), "buildings": len(set(data.groups.tolist())), "n": len(data.rows)}
    result.metrics |= {f"gallery/{name}": float(count) for name, count in counts.items()}
    platforms = np.array([row["platform"] for row in data.rows])
    present = [name for name in PLATFORMS if (platforms == name).any()]
    for name in present if len(present) > 1 else ():
        texts, images = platforms == name, platforms[data.image_rows] == name
        part = RetrievalRanks(
            ranks.t2i[texts], ranks.i2t[images], ranks.text_has_hit[texts], ranks.image_has_hit[images]
        )
        found = {f"{name}/n": float(texts.sum()), **{f"{name}/{key}": v for key, v in recalls(part).items()}}
        result.metrics |= found
    if len(present) > 1:
        result.figures.append(platform_figure(result, present))


def _other_ids(
    images: EncodedImages,
    texts: Tensor,
    data: Searchable,
    legacy: bool,
    device: torch.device,
    context: EvaluationContext,
) -> dict[str, float]:
    """Return the recalls under the building ids that the headline does not use."""
    ranks = similarity_ranks(images.embed, texts, *data.ids(not legacy), device=device, processes=context.processes)
    name = "correct_ids" if legacy else "legacy_ids"
    return {f"{name}/{key}": value for key, value in recalls(ranks).items()}


def _compare(
    result: EvaluationResult,
    model: InternVLForRetrieval,
    processor: ProcessorMixin,
    data: Searchable,
    images: EncodedImages,
    texts: Tensor,
    columns: Columns,
    truth: Truth,
    context: EvaluationContext,
) -> None:
    """Fill in baselines, intervals and ablations."""
    said: list[str] = []
    if context.ablations:  # what processes share comes first: the others do not wait while one fits baselines
        result.ablations, said = ablate(model, processor, data, images, texts, context)
    baselines, notes = fitted_baselines(data, truth, context)
    result.baselines = {"chance": chance(data)}
    result.baselines |= {name: _headline(means(found)) for name, found in baselines.items()}
    result.intervals = _kept(all_intervals({"": columns, **baselines}, data.groups, context), result.metrics)
    result.notes += [*notes, "Chance is the expected recall of a random order, computed exactly."]
    if context.ablations:
        result.notes += said
        result.figures.append(ablation_figure(result.ablations))


def _headline(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if "/" not in name}


def _kept(
    intervals: Mapping[str, tuple[float, float]], metrics: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Leave out the intervals of what is no metric of the result."""
    known = ("baselines/", "difference/")
    return {name: bounds for name, bounds in intervals.items() if name.startswith(known) or name in metrics}
