"""What an evaluator of a family is given, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hfvla.data.processes import Processes

__all__ = ["AnswerFile", "EvaluationContext", "EvaluationResult", "Figure", "Option"]


@dataclass(frozen=True)
class Figure:
    """A plot as data, rendered by `hfvla.evaluation.plots`; JSON-serialisable.

    Args:
        name: file stem, unique in a report, e.g. "reliability".
        kind: one of the renderer's kinds (`hfvla.evaluation.plots.KINDS`).
        title: heading shown above it.
        data: what the kind needs, plain lists, numbers and strings.
        caption: one or two sentences on how to read it.
    """

    name: str
    kind: str
    title: str
    data: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class Option:
    """An option of a family's evaluation: a count, or a switch.

    Args:
        description: one line for help and docs.
        kind: `int` or `bool`.
        least: the smallest count that has a meaning.
    """

    description: str
    kind: type = int
    least: int = 0


@dataclass
class EvaluationContext:
    """What an evaluator may use besides model and samples.

    Args:
        train_rows: training samples for baselines, or None when they cannot be rebuilt (said in the report).
        seed: seed of shuffles and bootstraps.
        batch_size: samples a forward pass.
        bootstrap_samples: resamples behind each confidence interval.
        max_generate: samples for which text is generated (generation is slow on a CPU).
        device: torch device string.
        ablations: also score the model with parts of its input taken away.
        max_bad_fraction: share of rows above which rows that cannot be read (a broken video) end the evaluation; up to
            it they are counted and named.
        options: values of the family's `evaluation_options`.
        processes: those that evaluate together. All run the evaluator on the same rows; batches are shared out by
            `processes.share`, and only the first process's result is written.
    """

    train_rows: Any | None = None
    seed: int = 0
    batch_size: int = 32
    bootstrap_samples: int = 1000
    max_generate: int = 64
    device: str = "cpu"
    ablations: bool = True
    max_bad_fraction: float = 0.01
    options: Mapping[str, Any] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)

    def of_process(self, processes: Processes) -> EvaluationContext:
        """Return this context for one of several processes; only the first fits baselines and draws resamples."""
        if processes.is_main:
            return replace(self, processes=processes)
        return replace(self, processes=processes, train_rows=None, bootstrap_samples=0)


@dataclass
class EvaluationResult:
    """Everything one evaluation found, ready for metrics.json, predictions.jsonl and the HTML report.

    Args:
        metrics: headline numbers; has "n".
        intervals: 95 % bootstrap interval by metric name.
        baselines: the same metrics by baseline name.
        ablations: the same metrics by ablation name (blank image ...).
        rows: one dict a sample: id, group, prediction, gold. For `hfvla compare` also scores: by metric a number, or a
            list of numbers, whose mean over all rows is the metric.
        figures: plots as data.
        files: further files to write beside the report, by name; videos (.mp4) are shown in it.
        census: found, usable and rejected records.
        notes: sentences a reader of the numbers must know.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    ablations: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    census: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AnswerFile:
    """A file of answers to a whole data source, as a challenge wants it: what `hfvla predict --csv` asks for.

    Args:
        path: the CSV file; what lies beside it is the family's to say. An unfinished file is continued.
        settings: facts that all answers of a file share (checkpoint, data); a file begun with others is refused.
        id_column: heading of the column with the questions' ids.
        limit: only the first questions; None for all.
        deadline_s: seconds a question may take before it counts as failed; None for no limit.
        device: torch device string.
        overwrite: start the file anew.
        retry_failed: ask again the questions that an earlier run could not answer.
        given: fields of the family's request that hold for all questions (`RequestField.whole_file`), e.g. the folder
            of pictures that is searched.
    """

    path: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    id_column: str = "id"
    limit: int | None = None
    deadline_s: float | None = 30.0
    device: str = "cpu"
    overwrite: bool = False
    retry_failed: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
