"""Writes an evaluation: metrics.json, predictions, plots and the report."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hfvla.errors import DataError
from hfvla.evaluation.charts.draw import SVG_KINDS, draw_svg
from hfvla.evaluation.plots import HTML_KINDS, draw
from hfvla.evaluation.report import write_report
from hfvla.evaluation.report_data import plain_json, save_report_data
from hfvla.evaluation.run_record import PARAMETERS, read_run
from hfvla.evaluation.validation_figures import read_validations
from hfvla.family import EvaluationResult, Figure
from hfvla.outputs import mark_folder, purpose_of

__all__ = ["command_line", "draw_report", "metrics_json", "write_evaluation", "write_plot", "write_training_report"]

logger = logging.getLogger(__name__)


def command_line() -> str:
    """Return the command that this process was started with, to be given again; "" in a notebook."""
    words = list(sys.argv)
    if not words or "ipykernel" in words[0] or words[0] in ("", "-c"):
        return ""
    name = Path(words[0]).name
    program = "hfvla" if name in ("hfvla", "__main__.py") and "hfvla" in words[0] else f"python {words[0]}"
    return f"{program} {shlex.join(words[1:])}".strip()


def metrics_json(result: EvaluationResult) -> dict[str, Any]:
    """Return the content of metrics.json for one set: the scores flat, the rest by name."""
    own: dict[str, list[float]] = {}
    by_baseline: dict[str, dict[str, list[float]]] = {}
    differences: dict[str, dict[str, list[float]]] = {}
    for key, bounds in result.intervals.items():
        kind, _, rest = key.partition("/")
        name, _, metric = rest.partition("/")
        if kind == "baselines":
            by_baseline.setdefault(name, {})[metric] = list(bounds)
        elif kind == "difference":
            differences.setdefault(name, {})[metric] = list(bounds)
        else:
            own[key] = list(bounds)
    return plain_json(
        {
            **result.metrics,
            "intervals": own,
            "baselines": result.baselines,
            "baseline_intervals": by_baseline,
            "difference_intervals": differences,
            "ablations": result.ablations,
            "census": result.census,
            "notes": result.notes,
        }
    )


def _file_name(set_name: str, name: str, sets: int) -> str:
    """Return where a further file of a set lies beside the report."""
    return f"{set_name}_{name}" if sets > 1 else name


def _note_files(results: Mapping[str, EvaluationResult], output_dir: Path) -> None:
    """Note in the folder's mark what is written beside the usual files, as a run that is replaced deletes its own."""
    purpose = purpose_of(output_dir)
    names = [_file_name(name, file, len(results)) for name, result in results.items() for file in result.files]
    if purpose is not None and names:
        mark_folder(output_dir, purpose, names)


def _take_parameters(results: Mapping[str, EvaluationResult]) -> tuple[dict[str, EvaluationResult], list[Figure]]:
    """Take the table of parameters out of the sets, where it would repeat."""
    tables = [figure for result in results.values() for figure in result.figures if figure.name == PARAMETERS]
    rest = {
        name: replace(result, figures=[figure for figure in result.figures if figure.name != PARAMETERS])
        for name, result in results.items()
    }
    return rest, tables[:1]


def write_evaluation(
    results: Mapping[str, EvaluationResult], output_dir: str | Path, run_info: Mapping[str, Any]
) -> str | None:
    """Write metrics.json, predictions*.jsonl, report.json, plots/*.svg and report.html.

    Training curves and the tables of the stages join the report if `output_dir` is a run folder (has run.json), or
    if `run_info["run_folder"]` names one.

    Args:
        results: by set name, at least one.
        output_dir: folder; created.
        run_info: facts for the report: "title", "summary", seed, commit, hardware, versions, duration ...;
            "figures", a list of `Figure`s, joins the training section.

    Returns:
        `str` or None: why there is no report, see `draw_report`.

    Raises:
        DataError: no results.
    """
    if not results:
        raise DataError("there are no evaluation results to write", where=str(output_dir))
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    metrics = {name: metrics_json(result) for name, result in results.items()}
    _note_files(results, output_dir)
    first = next(iter(metrics.values()))
    content = first if len(metrics) == 1 else {**first, "sets": metrics}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    temporary = output_dir / ".metrics.json.tmp"  # a run may be killed in the middle
    temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    temporary.replace(output_dir / "metrics.json")
    for name, result in results.items():
        suffix = f"_{name}" if len(results) > 1 else ""
        with (output_dir / f"predictions{suffix}.jsonl").open(
            "w", encoding="utf-8", errors="backslashreplace"
        ) as file:
            for row in result.rows:
                file.write(json.dumps(plain_json(row), ensure_ascii=False, allow_nan=False) + "\n")
        for file_name, data in result.files.items():
            (output_dir / _file_name(name, file_name, len(results))).write_bytes(data)
    save_report_data(output_dir, results, run_info)
    return draw_report(results, output_dir, run_info)


def write_training_report(output_dir: Path, run_info: Mapping[str, Any]) -> str | None:
    """Write the report of a run that scored nothing: curves, tables, and the scores of its validation rows.

    Args:
        output_dir: run folder.
        run_info: see `write_evaluation`.

    Returns:
        `str` or None: why there is no report, see `draw_report`.
    """
    save_report_data(output_dir, {}, run_info)
    return draw_report({}, output_dir, run_info)


def draw_report(
    results: Mapping[str, EvaluationResult], output_dir: str | Path, run_info: Mapping[str, Any]
) -> str | None:
    """Write plots/*.svg and report.html; scores and predictions do not depend on it.

    Args:
        results: by set name.
        output_dir: folder with the rest of the evaluation.
        run_info: see `write_evaluation`.

    Returns:
        `str` or None: why there is no report; it can be made later with `hfvla report`.

    Raises:
        OSError: the disk refused it.
    """
    try:
        _draw(results, Path(output_dir), run_info)
    except OSError:
        raise
    except Exception as error:  # hours of training and scoring must not end on a plot
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        logger.warning("no report: %s. Later: hfvla report %s", reason, output_dir)
        logger.debug("the report failed", exc_info=True)
        return reason
    logger.info("wrote %s", Path(output_dir) / "report.html")
    return None


def write_plot(figure: Figure, folder: Path, prefix: str = "", png: bool = False) -> str | None:
    """Write a plot to a folder: SVG, and PNG where it is asked for or the kind has no SVG.

    Args:
        figure: a table or examples leave nothing.
        folder: created.
        prefix: of the file's name.
        png: draw the slower PNG too.

    Returns:
        `str` or None: the SVG.
    """
    if figure.kind in HTML_KINDS:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    svg = draw_svg(figure) if figure.kind in SVG_KINDS else None
    if svg is not None:
        (folder / f"{prefix}{figure.name}.svg").write_text(svg, encoding="utf-8")
    if png or figure.kind not in SVG_KINDS:
        picture = draw(figure)
        if picture is not None:
            (folder / f"{prefix}{figure.name}.png").write_bytes(picture)
    return svg


def _links(output_dir: Path, results: Mapping[str, EvaluationResult]) -> list[tuple[str, str]]:
    """Return what lies beside the report: checkpoint, recipe, scores, predictions, logs."""
    names = [("checkpoint", "final/"), ("recipe", "recipe.json"), ("scores", "metrics.json"), ("run", "run.json")]
    predictions = [f"predictions_{name}.jsonl" for name in results] if len(results) > 1 else ["predictions.jsonl"]
    names += [(file.removesuffix(".jsonl").replace("_", " "), file) for file in predictions]
    names += [("log", "logs/run.log"), ("log lines", "logs/log_history.jsonl"), ("plots", "plots/")]
    return [(name, quote(path)) for name, path in names if (output_dir / path).exists()]


def _draw(results: Mapping[str, EvaluationResult], output_dir: Path, run_info: Mapping[str, Any]) -> None:
    (output_dir / "plots").mkdir(parents=True, exist_ok=True)
    record = read_run(Path(run_info.get("run_folder") or output_dir))
    results, parameters = _take_parameters(results)
    training = [*run_info.get("figures", ()), *parameters, *record.figures]
    named = [(f"{name}_" if len(results) > 1 else "", f) for name, result in results.items() for f in result.figures]
    charts: dict[int, str | None] = {}
    for prefix, figure in [*named, *(("", figure) for figure in training)]:
        charts[id(figure)] = write_plot(figure, output_dir / "plots", prefix, png=bool(run_info.get("png")))
    facts = {
        **record.facts,
        **{key: value for key, value in run_info.items() if key not in {"figures", "run_folder", "png"}},
    }
    title = str(facts.get("title") or facts.get("name") or "Evaluation")
    links = _links(output_dir, results)
    names = [str(stage.get("name")) for stage in record.stages]
    validations = read_validations(Path(run_info.get("run_folder") or output_dir) / "plots", names)
    write_report(
        output_dir / "report.html", title, results, facts, training, record.stages, charts, links, validations
    )
