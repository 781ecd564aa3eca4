"""Evaluates a model or a checkpoint and writes what was found: metrics, predictions, plots and the report."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.data.processes import COLLECTIVE_TIMEOUT, Meeting, Processes
from hfvla.data.rows.columns import column
from hfvla.data.sources.sharing import build_sources
from hfvla.errors import DataError, HfvlaError, RecipeError
from hfvla.evaluation import tables
from hfvla.evaluation.output import command_line, draw_report, metrics_json, write_evaluation
from hfvla.evaluation.report_data import load_report_data
from hfvla.evaluation.run_record import parameter_figure
from hfvla.evaluation.training_rows import HELD_OUT, held_out_rows, load_training_rows
from hfvla.family import EvaluationContext, EvaluationResult, FamilySpec, SourceData, resolve
from hfvla.fetching import local_checkpoint
from hfvla.nn.devices import checked_device
from hfvla.outputs import MARK, claim_folder, purpose_of, shown
from hfvla.paths import expand_user
from hfvla.plugins import offers
from hfvla.registry import describe_metric

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = [
    "evaluate_checkpoint",
    "evaluate_model",
    "evaluate_together",
    "load_training_rows",
    "metrics_json",
    "process_device",
    "remake_report",
    "results_tables",
    "write_evaluation",
]

logger = logging.getLogger(__name__)

_FEW_GROUPS = 5
_PACKAGES = ("torch", "transformers", "datasets", "timm", "scikit-learn")


def evaluate_model(
    model: PreTrainedModel, processor: ProcessorMixin, spec: FamilySpec, rows: Any, context: EvaluationContext
) -> EvaluationResult:
    """Evaluate with the family's own evaluator.

    Args:
        model: the family's model.
        processor: its processor.
        spec: the family.
        rows: `datasets.Dataset` of the family's rows.
        context: seed, batch size, training rows for baselines ...
    """
    started = time.perf_counter()
    result = spec.load("evaluate")(model, processor, rows, context)
    spec = spec.of_model(model)
    result.notes += _group_notes(rows, context)
    result.figures.append(parameter_figure(model, spec.parameter_table))
    for draw in offers().figures.values():
        figure = draw(spec=spec, model=model, rows=rows, result=result, context=context)
        if figure is not None:
            result.figures.append(figure)
    logger.info("evaluated %d rows in %.1f s", len(rows), time.perf_counter() - started)
    return result


def _group_notes(rows: Any, context: EvaluationContext) -> list[str]:
    """Say where the rows are of so few groups that intervals over groups mean little, or nothing."""
    if "group" not in getattr(rows, "column_names", ()) or not context.bootstrap_samples:
        return []
    groups = set(column(rows, "group"))
    if len(groups) == 1:
        return [f"All {len(rows)} rows are of one group ({next(iter(groups))}): no interval can be drawn from it."]
    if len(groups) < _FEW_GROUPS:
        return [f"Intervals are drawn over {len(groups)} groups only: they are rough, and likely too narrow."]
    return []


def evaluate_together(
    name: str,
    meeting: Meeting,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    spec: FamilySpec,
    rows: Any,
    context: EvaluationContext,
) -> EvaluationResult:
    """Evaluate one set on all processes of a meeting; the first one's result is whole.

    The others wait for it without a collective: fitting baselines and drawing resamples takes as long as it takes.

    Args:
        name: of the set, unique in the meeting.
        meeting: of the processes.
        model: as for `evaluate_model`; the same on every process, as is all that follows.
        processor: its processor.
        spec: the family.
        rows: of the set.
        context: of this process (`EvaluationContext.of_process`).
    """
    if meeting.processes.is_main:
        with meeting.announced(f"evaluated-{name}"):
            return evaluate_model(model, processor, spec, rows, context)
    result = evaluate_model(model, processor, spec, rows, context)
    meeting.wait(f"evaluated-{name}")
    return result


def evaluate_checkpoint(
    checkpoint: str | Path,
    data: Mapping[str, Mapping[str, Any]],
    output_dir: str | Path,
    *,
    seed: int = 0,
    device: str | None = None,
    batch_size: int = 32,
    max_generate: int = 64,
    bootstrap_samples: int = 1000,
    options: Mapping[str, Any] | None = None,
) -> dict[str, EvaluationResult]:
    """Evaluate a saved checkpoint and write the results.

    Args:
        checkpoint: folder that `from_pretrained` loads, or hub id.
        data: sets by name: {"source": name of a source, **its options}; without "source" the set's name is it.
            "validation" and "test" are what the checkpoint's run held out of its training data.
        output_dir: for metrics.json, predictions, plots and report.html.
        seed: of generated data, shuffles and bootstraps.
        device: torch device; default: a GPU if there is one.
        batch_size: rows a forward pass.
        max_generate: rows of each set for which text is generated.
        bootstrap_samples: resamples behind each interval.
        options: values of the family's `evaluation_options`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        DataError: a set cannot be built, or there is none.
        RecipeError: unknown source or options.
        HfvlaError: `output_dir` was not made for an evaluation, or cannot be written.
    """
    from hfvla.registry import family_of_checkpoint, load_checkpoint

    checkpoint, output_dir = expand_user(str(checkpoint)), expand_user(str(output_dir))
    if not data:
        raise DataError("no evaluation set is named", fix="Pass at least one source.")
    _check_options(family_of_checkpoint(checkpoint) if options else None, options or {})
    started, device = time.perf_counter(), process_device(device)
    processes = Processes.current()
    processes.gather_done(lambda: _claim(output_dir) if processes.is_main else None)
    spec, model, processor = load_checkpoint(checkpoint)
    meeting = Meeting(output_dir, processes)
    try:
        built, bad = _build_sets(spec, data, seed, meeting)
        train_rows: Any = None
        notes: list[str] = []
        for name in _held_out_names(spec, data):
            rows, train_rows = held_out_rows(local_checkpoint(checkpoint), spec, str(data[name].get("source", name)))
            built[name] = SourceData(rows, {"found": len(rows), "usable": len(rows), "rejected": {}})
            bad[name] = EvaluationContext.max_bad_fraction
        if meeting.processes.is_main and train_rows is None:
            train_rows, notes = load_training_rows(local_checkpoint(checkpoint), spec)
        context = EvaluationContext(
            train_rows, seed, batch_size, bootstrap_samples, max_generate, device, options=options or {}
        ).of_process(meeting.processes)
        results = {}
        for name, source_data in built.items():
            own = replace(context, max_bad_fraction=bad[name])
            results[name] = evaluate_together(name, meeting, model, processor, spec, source_data.dataset, own)
            results[name].census = source_data.census
            results[name].notes += notes
        meeting.alone("report", lambda: _write(results, checkpoint, data, output_dir, spec, seed, device, started))
    finally:
        meeting.close()
    return results


def process_device(device: str | None) -> str:
    """Return the device of this process; started by a launcher, it joins the others first."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=COLLECTIVE_TIMEOUT)
        return str(state.device)
    return checked_device(device)


def _write(
    results: Mapping[str, EvaluationResult],
    checkpoint: str | Path,
    data: Mapping[str, Mapping[str, Any]],
    output_dir: str | Path,
    spec: FamilySpec,
    seed: int,
    device: str,
    started: float,
) -> None:
    run_folder = Path(checkpoint).parent if (Path(checkpoint).parent / "run.json").is_file() else None
    info = {
        "title": f"Evaluation of {Path(checkpoint).name}",
        "summary": f"{spec.name}: {spec.summary}",
        **_machine(device),
        "checkpoint": str(checkpoint),
        "data": {name: json.dumps(dict(entry), default=str) for name, entry in data.items()},
        "seed": seed,
        "command": command_line(),
        "evaluation_seconds": time.perf_counter() - started,
        "run_folder": run_folder,
    }
    write_evaluation(results, output_dir, info)


def _claim(output_dir: str | Path) -> None:
    """Make sure that the results can be written, and name what they replace."""
    claim_folder(output_dir, "evaluation")
    before = {path.name for path in Path(output_dir).iterdir() if path.name != MARK}
    if before:
        logger.warning("the evaluation in %s is replaced: %s", output_dir, shown(before))


def remake_report(folder: str | Path, output_dir: str | Path | None = None, png: bool = False) -> Path:
    """Draw the report of a run or an evaluation again from what it saved.

    Args:
        folder: a run, or what `hfvla eval` wrote.
        output_dir: another folder for plots and report; default: `folder`.
        png: draw each plot as PNG too, half a second each.

    Returns:
        `Path`: the report.

    Raises:
        DataError: nothing was evaluated there, or what was saved is damaged.
        HfvlaError: the folder is not one of hfvla's, or the report cannot be drawn.
    """
    folder = Path(folder)
    results, info = load_report_data(folder)
    if output_dir is not None:
        target = claim_folder(output_dir, "evaluation")
    else:
        target = folder
        if purpose_of(folder) not in ("run", "evaluation"):
            raise HfvlaError(
                "this folder has no mark of a run or an evaluation, so nothing in it is replaced",
                where=str(folder),
                fix="Name another folder for the report: --output DIR.",
            )
        logger.warning("the report in %s is replaced: report.html, plots", folder)
    try:
        reason = draw_report(results, target, {**info, "png": png})
    except OSError as error:
        raise HfvlaError("the report cannot be written", where=str(target), got=error.strerror) from error
    if reason is not None:
        raise HfvlaError("the report cannot be made", where=str(folder), got=reason)
    return target / "report.html"


def _held_out_names(spec: FamilySpec, data: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the sets that are parts of the run's own training data."""
    sources = {name: entry.get("source", name) for name, entry in data.items()}
    return [name for name, source in sources.items() if source in HELD_OUT and source not in spec.sources]


def _build_sets(
    spec: FamilySpec, data: Mapping[str, Mapping[str, Any]], seed: int, meeting: Meeting
) -> tuple[dict[str, SourceData], dict[str, float]]:
    """Return the sets, and of each the share of rows that may be unusable."""
    from hfvla.recipe import build_options

    builders, bad = {}, {}
    held_out = _held_out_names(spec, data)
    for name, entry in data.items():
        if name in held_out:
            continue
        source = entry.get("source", name)
        given = {key: value for key, value in entry.items() if key != "source"}
        options = build_options(spec, source, given, where=name)
        builders[name] = partial(resolve(spec.source(source).build), options, seed=seed)
        bad[name] = getattr(options, "max_bad_fraction", EvaluationContext.max_bad_fraction)
    return build_sources(builders, meeting), bad


def _check_options(spec: FamilySpec | None, options: Mapping[str, Any]) -> None:
    """Refuse options that the family's evaluation does not have, and values that they cannot take.

    Raises:
        RecipeError: with every problem; for an unknown option with the nearest name.
    """
    from hfvla.recipe.document import format_steps
    from hfvla.recipe.option_values import evaluation_option_problems

    found = [] if spec is None else list(evaluation_option_problems(options, spec, ()))
    if found:
        raise RecipeError([f"--option {format_steps(problem.steps)}: {problem.text}" for problem in found])


def _machine(device: str) -> dict[str, Any]:
    """Return device, hardware, versions and the commit of the working folder, if it is one."""
    import torch

    hardware = f"{os.cpu_count()} x {platform.machine()} CPU"
    if device.startswith("cuda"):
        hardware = f"{torch.cuda.get_device_name(device)}, {hardware}"
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    return {"device": device, "hardware": hardware, **_commit(), "versions": versions}


def _commit() -> dict[str, str]:
    """Return the commit that this package's own folder is checked out at; empty for an installed package."""
    git = shutil.which("git")
    if git is None:
        return {}
    command = [git, "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"commit": found.stdout.strip()} if found.returncode == 0 else {}


def results_tables(results: Mapping[str, EvaluationResult]) -> list[Table]:
    """Return the main scores as tables for the terminal: sets of which most scores are the same ones share a table."""
    alike: list[tuple[set[str], dict[str, EvaluationResult]]] = []
    for name, result in results.items():
        own = set(tables.headline_metrics(result))
        group = next((sets for known, sets in alike if 2 * len(own & known) >= len(own | known)), None)
        if group is None:
            alike.append((own, group := {}))
        group[name] = result
    return [_results_table(sets) for _, sets in alike]


def _results_table(results: Mapping[str, EvaluationResult]) -> Table:
    """Return the main scores of every set as a table for the terminal; the best of a column is bold."""
    from rich.table import Table
    from rich.text import Text

    named = dict.fromkeys(name for result in results.values() for name in tables.headline_metrics(result))
    metrics = [name for name in named if describe_metric(name).headline]
    table = Table(title="Evaluation")
    for heading in ("set", "system", "n"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for metric in metrics:
        table.add_column(tables.label(metric), justify="right")
    for name, result in results.items():
        systems = {"this model": result.metrics, **result.baselines}
        for system, scores in systems.items():
            cells = []
            for metric in metrics:
                best = tables.is_best(scores.get(metric), [other.get(metric) for other in systems.values()], metric)
                text = tables.number(scores.get(metric))
                cells.append(Text(text, style="bold" if best else ""))
            shown = "this model" if system == "this model" else tables.label(system)
            table.add_row(name, shown, tables.number(result.metrics.get("n"), "n"), *cells)
        table.add_section()
    return table
