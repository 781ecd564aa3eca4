"""One self-contained HTML file for an evaluation: tables, plots, examples, and how it came about."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hfvla.evaluation import tables
from hfvla.evaluation.charts.draw import SVG_KINDS, draw_svg
from hfvla.evaluation.plots import HTML_KINDS, draw
from hfvla.evaluation.validation_figures import StageFigures
from hfvla.family import EvaluationResult, Figure

__all__ = ["write_report"]

_WIDE_KINDS = {"curves", "progression", "heatmap"}
_WIDE_BARS = 12  # bars in a plot from which it takes the whole width
_MAX_TILES = 5
_CHIPS = ("family", "commit", "seed", "hardware", "device")
_HIDDEN = {
    "stages",
    "summary",
    "title",
    "metrics",
    "baselines",
    "command",
    "finished",
    "evaluation",
}  # shown elsewhere in the report


def write_report(
    path: str | Path,
    title: str,
    results: Mapping[str, EvaluationResult],
    run_info: Mapping[str, Any] | None = None,
    figures: Sequence[Figure] = (),
    stages: Sequence[Mapping[str, Any]] = (),
    charts: Mapping[int, str | None] | None = None,
    links: Sequence[tuple[str, str]] = (),
    validations: Sequence[StageFigures] = (),
) -> Path:
    """Write the report; it needs no other file and no network.

    Args:
        path: the HTML file.
        title: heading.
        results: evaluation by set name.
        run_info: facts of the run: seed, commit, hardware, versions, duration ...; long values fold away.
        figures: plots and tables of the training.
        stages: entries of run.json for the table of stages: name, seconds, scores.
        charts: SVG by `id` of its figure, None for one that cannot be drawn; others are drawn here.
        links: names and relative paths of what lies beside the report.
        validations: what was drawn while the stages trained.

    Returns:
        `Path`: the file.
    """
    import jinja2

    info = dict(run_info or {})
    here = resources.files("hfvla.evaluation")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["cell"] = _cell
    drawn = {} if charts is None else charts
    sets = [_set_section(name, result, len(results), drawn) for name, result in results.items()]
    training = {**_split_figures(figures, drawn), "stages": _stage_table(stages)}
    sections = [(section["anchor"], section["heading"]) for section in sets]
    sections += [("training", "Training")] if figures or training["stages"] else []
    facts, documents = _facts(info)
    html = environment.from_string(here.joinpath("report.html.j2").read_text("utf-8")).render(
        title=title,
        summary=info.get("summary", ""),
        css=here.joinpath("report.css").read_text("utf-8"),
        script=here.joinpath("report.js").read_text("utf-8"),
        links=links,
        validations=validations,
        command=info.get("command", ""),
        validation=[] if sets else _validation_tiles(stages),
        chips=[(key, info[key]) for key in _CHIPS if isinstance(info.get(key), str | int | float)],
        sections=[*sections, ("run", "Run")],
        sets=sets,
        training=training,
        facts=facts,
        documents=documents,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _set_section(name: str, result: EvaluationResult, count: int, drawn: Mapping[int, str | None]) -> dict[str, Any]:
    return {
        "anchor": "set-" + re.sub(r"[^a-z0-9]+", "-", name.lower()),
        "heading": f"Results on {name}" if count > 1 or name else "Results",
        "tiles": _tiles(result),
        "headline": tables.headline_table(result),
        "ablations": tables.ablation_table(result),
        "details": tables.detail_tables(result.metrics),
        "notes": result.notes,
        "census": tables.census_table(result.census),
        "videos": [f"{name}_{file}" if count > 1 else file for file in result.files if file.endswith(".mp4")],
        **_split_figures(result.figures, drawn),
    }


def _tiles(result: EvaluationResult) -> list[dict[str, str]]:
    """Show the first headline scores, each beside the best baseline."""
    tiles = []
    for metric in tables.headline_metrics(result):
        others = [scores[metric] for scores in result.baselines.values() if metric in scores]
        best = (min if tables.lower_is_better(metric) else max)(others) if others else None
        note = f"best baseline {best:.3f}" if best is not None else ""
        tiles.append({"name": tables.label(metric), "value": f"{result.metrics[metric]:.3f}", "note": note})
    return tiles[:_MAX_TILES]


def _validation_tiles(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Show the last stage's validation scores, where nothing else was scored."""
    found = [stage for stage in stages if stage.get("scores")]
    if not found:
        return []
    scores = {key.removeprefix("eval_"): value for key, value in found[-1]["scores"].items()}
    shown = {
        key: scores[key] for key in scores if isinstance(scores[key], float) and "/" not in key and "loss_" not in key
    }
    note = f"validation rows of stage {found[-1].get('name', '')}"
    tiles = [{"name": tables.label(key), "value": f"{value:.3f}", "note": note} for key, value in shown.items()]
    return tiles[:_MAX_TILES]


def _split_figures(figures: Sequence[Figure], drawn: Mapping[int, str | None]) -> dict[str, list[Any]]:
    plots = []
    for figure in figures:
        if figure.kind in SVG_KINDS:
            svg = drawn[id(figure)] if id(figure) in drawn else draw_svg(figure)
            plots.append({"figure": figure, "svg": svg or "", "uri": "", "wide": _is_wide(figure)})
        elif figure.kind not in HTML_KINDS:
            picture = draw(figure)
            uri = "" if picture is None else "data:image/png;base64," + base64.b64encode(picture).decode()
            plots.append({"figure": figure, "svg": "", "uri": uri, "wide": _is_wide(figure)})
    return {
        "plots": plots,
        "tables": [figure for figure in figures if figure.kind == "table"],
        "examples": [figure for figure in figures if figure.kind == "text_examples"],
    }


def _is_wide(figure: Figure) -> bool:
    if figure.kind == "bars":
        return len(figure.data["groups"]) * len(figure.data["series"]) >= _WIDE_BARS
    return figure.kind in _WIDE_KINDS


def _stage_table(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    entries = []
    for stage in stages:
        scores = {
            key: value
            for key, value in (stage.get("scores") or {}).items()
            if "loss_" not in key and "/" not in key.partition("eval_")[2]
        }
        entries.append({key: v for key, v in {**stage, **scores}.items() if isinstance(v, str | int | float)})
    columns = list(dict.fromkeys(key for entry in entries for key in entry))
    if not columns:
        return None
    rows = [[entry.get(column, "") for column in columns] for entry in entries]
    return {"columns": [tables.label(column.split("/")[-1].removeprefix("eval_")) for column in columns], "rows": rows}


def _line(value: Any) -> str | None:
    """Write a list of plain values, or a mapping to such, in one line; None for anything else."""
    if isinstance(value, list | tuple) and all(isinstance(v, str | int | float) for v in value):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        lines = {key: str(v) if isinstance(v, str | int | float | None) else _line(v) for key, v in value.items()}
        if all(isinstance(line, str) and not isinstance(value[key], Mapping) for key, line in lines.items()):
            return ", ".join(f"{key}: {line}" for key, line in lines.items())
    return None


def _facts(info: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Split the run's facts into short lines and long documents (the resolved recipe)."""
    facts, documents = [], []
    for key, value in info.items():
        if key in _HIDDEN or value is None or value == "":
            continue
        name = key.replace("_", " ").capitalize()
        line = _line(value)
        if line is not None:
            facts.append((name, line))
        elif isinstance(value, Mapping | list | tuple):
            documents.append((name, json.dumps(value, indent=2, ensure_ascii=False, default=str)))
        elif isinstance(value, float):
            facts.append((name, f"{value:.1f}"))
        else:
            facts.append((name, str(value)))
    return facts, documents
