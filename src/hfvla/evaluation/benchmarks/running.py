"""Runs benchmarks that lie on disk, and writes their scores, with a line for each that was not run and why."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import blank_pictures
from hfvla.errors import DataError, HfvlaError
from hfvla.evaluation.benchmarks.catalog import STAGES, Benchmark
from hfvla.evaluation.benchmarks.folders import expected_files, find_benchmark, read_benchmark
from hfvla.evaluation.benchmarks.scoring import benchmark_scores, chance, judge
from hfvla.evaluation.benchmarks.wording import rotated
from hfvla.evaluation.report_data import plain_json
from hfvla.family import ChatSystem, EvaluationContext, EvaluationResult, Figure
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.chat.tasks import choices_of
from hfvla.metrics.chat.writing import failure_note, write_answers

__all__ = ["BenchmarkRun", "benchmark_record", "check_folder", "run_benchmark", "run_benchmarks", "write_record"]

logger = logging.getLogger(__name__)

_CHUNK = 256  # questions whose pictures are in memory at a time
_BLIND = 200


def check_folder(folder: Path) -> None:
    """Refuse a folder of benchmarks that is not there.

    Raises:
        HfvlaError: no such folder.
    """
    if not folder.is_dir():
        raise HfvlaError("no such folder of benchmarks", where="--benchmark-dir", got=str(folder))


@dataclass
class BenchmarkRun:
    """What came of a list of benchmarks.

    Attributes:
        results: by official name.
        not_run: why, by official name.
    """

    results: dict[str, EvaluationResult] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


def run_benchmarks(
    system: ChatSystem,
    benchmarks: Sequence[Benchmark],
    folder: Path,
    context: EvaluationContext,
    limit: int | None = None,
) -> BenchmarkRun:
    """Run what can be run; what cannot is named with its reason.

    Args:
        system: the model.
        benchmarks: which, in order.
        folder: that holds their files.
        context: batch size, seed, resamples, processes.
        limit: only as many questions of each, drawn by the seed.

    Raises:
        HfvlaError: no such folder.
        DataError: none of them can be run, or a file is damaged.
    """
    check_folder(folder)
    run = BenchmarkRun()
    for benchmark in benchmarks:
        if benchmark.needs:
            run.not_run[benchmark.name] = benchmark.needs
            continue
        place = find_benchmark(benchmark, folder)
        if place is None:
            run.not_run[benchmark.name] = f"no file of it in {folder}; expected {expected_files(benchmark)}"
            continue
        run.results[benchmark.name] = run_benchmark(system, benchmark, place, context, limit)
    for name, reason in run.not_run.items():
        logger.warning("%s was not run: %s", name, reason)
    if not run.results:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in run.not_run.items())
        raise DataError("no benchmark could be run", where=str(folder), got=reasons)
    return run


@dataclass
class _Answered:
    """Questions without their pictures, answers, and scores."""

    samples: list[ChatSample] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    blind: list[tuple[float, float]] = field(default_factory=list)  # score with a blank picture, and with the picture
    failures: dict[int, str] = field(default_factory=dict)


def run_benchmark(
    system: ChatSystem, benchmark: Benchmark, place: Path, context: EvaluationContext, limit: int | None = None
) -> EvaluationResult:
    """Ask all questions of a benchmark, and up to 200 of them again with blank pictures.

    Args:
        system: the model.
        benchmark: which.
        place: its file or folder.
        context: batch size, seed, resamples, processes.
        limit: only as many questions, drawn by the seed.

    Raises:
        DataError: no questions, a damaged file, or too many questions cannot be answered.
    """
    names = [(sample.id, sample.group) for sample in read_benchmark(benchmark, place)]
    if not names:
        raise DataError("a benchmark without questions", where=str(place))
    groups = list(dict.fromkeys(group for _, group in names))
    generator = np.random.default_rng(context.seed)
    kept = {groups[int(n)] for n in generator.permutation(len(groups))[:limit]}
    rotate = benchmark.circular and all(name == group for name, group in names)
    blind = {sorted(kept)[int(n)] for n in generator.permutation(len(kept))[:_BLIND]} if context.ablations else set()
    found = _Answered()
    questions = (sample for sample in read_benchmark(benchmark, place) if sample.group in kept)
    while chunk := list(islice(_asked(questions, rotate), _CHUNK)):
        _answer(found, system, benchmark, chunk, blind, context)
        logger.info("%s: %d answers", benchmark.name, len(found.samples))
    result = _scored(benchmark, found, context)
    result.notes += _file_note(benchmark, place)
    if limit is not None and limit < len(groups):
        result.notes.append(f"Only {len(kept)} of {len(groups)} questions, drawn by the seed: no official score.")
    return result


def _file_note(benchmark: Benchmark, place: Path) -> list[str]:
    """Say where a TSV file is not the published one: a part of it, or another edition."""
    if not place.is_file() or not benchmark.md5:
        return []
    with place.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return [] if found == benchmark.md5 else [f"{place.name} is not the file that VLMEvalKit publishes (md5 {found})."]


def _asked(questions: Iterator[ChatSample], rotate: bool) -> Iterator[ChatSample]:
    """Yield each question, and under all cyclic orders of its choices where the file does not hold them."""
    for sample in questions:
        orders = len(choices_of(sample)) if rotate else 1
        yield from (rotated(sample, steps) for steps in range(orders))


def _answer(
    found: _Answered,
    system: ChatSystem,
    benchmark: Benchmark,
    chunk: Sequence[ChatSample],
    blind: set[str],
    context: EvaluationContext,
) -> None:
    texts, failures = write_answers(system, chunk, context, benchmark.max_new_tokens)
    start = len(found.samples)
    found.failures |= {start + number: reason for number, reason in failures.items()}
    again = [n for n, s in enumerate(chunk) if s.group in blind and s.images and n not in failures]
    again = [n for n in again if not benchmark.circular or chunk[n].id == chunk[n].group]  # in its first order
    if again:
        blank, lost = write_answers(
            system, [chunk[n] for n in again], context, benchmark.max_new_tokens, change=blank_pictures
        )
        found.blind += [
            (judge(benchmark, chunk[n], text), judge(benchmark, chunk[n], texts[n]))
            for place, (n, text) in enumerate(zip(again, blank, strict=True))
            if place not in lost
        ]
    found.samples += [replace(sample, images=()) for sample in chunk]
    found.texts += texts


def _scored(benchmark: Benchmark, found: _Answered, context: EvaluationContext) -> EvaluationResult:
    note = failure_note(found.failures, [sample.id for sample in found.samples], context.max_bad_fraction)
    scores = np.array([judge(benchmark, s, t) for s, t in zip(found.samples, found.texts, strict=True)])
    known = np.flatnonzero(~np.isnan(scores))
    result = EvaluationResult(metrics={"n": len(found.samples), "failures": len(found.failures)})
    result.notes += [note] if note else []
    result.rows = _rows(found, scores)
    if not len(known):
        result.notes.append("No question has a published answer: answered, not scored.")
        return result
    samples, texts = [found.samples[n] for n in known], [found.texts[n] for n in known]
    result.metrics |= benchmark_scores(benchmark, samples, texts, scores[known])
    guess = chance(benchmark, samples)
    if guess is not None:
        result.baselines["chance"] = {"accuracy": guess}
    pairs = np.array([pair for pair in found.blind if not np.isnan(pair).any()])
    if len(pairs):
        for name, column in (("blank_image", 0), ("with_image", 1)):
            result.ablations[name] = {"accuracy": float(pairs[:, column].mean()), "n": float(len(pairs))}
    if context.bootstrap_samples:
        result.intervals = _intervals(benchmark, samples, scores[known], context)
    if len(known) < len(scores):
        result.notes.append(f"{len(scores) - len(known)} questions have no published answer: not scored.")
    result.figures += _figures(benchmark, result)
    return result


def _intervals(
    benchmark: Benchmark, samples: Sequence[ChatSample], scores: np.ndarray, context: EvaluationContext
) -> dict[str, tuple[float, float]]:
    """Bootstrap over questions, each with all its orders."""
    groups = [sample.group for sample in samples]
    arrays = {"accuracy": scores}
    if benchmark.circular:
        orders: dict[str, list[float]] = {}
        for group, score in zip(groups, scores, strict=True):
            orders.setdefault(group, []).append(float(score))
        groups = list(orders)
        first, every = [found[0] for found in orders.values()], [float(min(found) == 1) for found in orders.values()]
        arrays = {"accuracy": np.array(first), "circular_accuracy": np.array(every)}

    def means(**drawn: np.ndarray) -> dict[str, float]:
        return {name: float(values.mean()) for name, values in drawn.items()}

    return bootstrap_intervals(means, arrays, groups, context.bootstrap_samples, context.seed)


def _rows(found: _Answered, scores: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for number, (sample, text, score) in enumerate(zip(found.samples, found.texts, scores, strict=True)):
        gold = sample.details.get("answer") or list(sample.references) or None
        row: dict[str, Any] = {
            "id": sample.id,
            "group": sample.group,
            "question": sample.details["question"],
            "kind": sample.kind,
        }
        row |= {"choices": list(choices_of(sample)), "gold": gold, "prediction": text}
        if number in found.failures:
            row |= {"prediction": None, "failure": found.failures[number]}
        rows.append(row | ({} if np.isnan(score) else {"scores": {"accuracy": float(score)}}))
    return rows


def _figures(benchmark: Benchmark, result: EvaluationResult) -> list[Figure]:
    part = "accuracy_by_category/"
    kinds = [key.removeprefix(part) for key in result.metrics if key.startswith(part)]
    if len(kinds) < 2:
        return []
    kinds = sorted(kinds, key=lambda kind: -result.metrics[f"n_by_category/{kind}"])[:24]
    series = {"model": [result.metrics[part + kind] for kind in kinds]}
    if "chance" in result.baselines:
        series["chance"] = [result.baselines["chance"]["accuracy"]] * len(kinds)
    names = [f"{kind}\n(n={result.metrics[f'n_by_category/{kind}']:.0f})" for kind in kinds]
    data = {"groups": names, "series": series, "ylabel": "accuracy", "ylim": [0, 1]}
    caption = "Chance: of all questions together. n: questions."
    return [Figure("accuracy_by_category", "bars", f"{benchmark.name} by category", data, caption)]


def benchmark_record(
    run: BenchmarkRun, checkpoint: str, asked: Sequence[str], details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the content of `evaluation_results.json`.

    Args:
        run: what came of it.
        checkpoint: folder or hub id.
        asked: names as the user gave them; a stage's name among them is the record's `stage`.
        details: further facts: seed, limit ...
    """
    stages = [name for name in asked if name.lower().replace("_", "").replace("-", "") in STAGES]
    return plain_json(
        {
            "model_path": checkpoint,
            "stage": stages[0] if len(stages) == 1 else stages or None,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "benchmarks": {name: _benchmark_entry(result) for name, result in run.results.items()},
            "not_run": run.not_run,
            **(details or {}),
        }
    )


def _benchmark_entry(result: EvaluationResult) -> dict[str, Any]:
    return {
        **result.metrics,
        "intervals": {name: list(bounds) for name, bounds in result.intervals.items()},
        "chance": result.baselines.get("chance", {}).get("accuracy"),
        "blank_image": result.ablations.get("blank_image"),
        "notes": result.notes,
    }


def write_record(record: Mapping[str, Any], folder: Path) -> Path:
    """Write `evaluation_results.json` into a folder that is there, and return its path."""
    path = folder / "evaluation_results.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path
