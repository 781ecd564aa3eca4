"""What a run folder tells about training: facts, curves, scores by stage, trainable and hand-over tables."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.evaluation.across_stages import across_stages
from hfvla.family import Figure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PARAMETERS", "RunRecord", "parameter_figure", "read_run"]

logger = logging.getLogger(__name__)

PARAMETERS = "parameters"
"""Name of the figure that `parameter_figure` returns; it describes the model and not a set."""

_PROGRESSION = (
    *("top1_in_set", "exact_match", "jaccard", "macro_f1", "accuracy"),
    *("retrieval_mean_recall", "box_iou", "spatial_accuracy"),
)
_MAX_CURVE_POINTS = 400
_MAX_LISTED = 6


@dataclass
class RunRecord:
    """A run folder, read for a report.

    Attributes:
        facts: run.json without its stages: recipe, versions, seed, commit ...
        stages: the stages' entries of run.json.
        figures: training curves, how the loss terms get on, score progression, and a table for each trainable.json and
            handover.json.
        across: those among them that follow the run from stage to stage, for trackers.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    across: list[Figure] = field(default_factory=list)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def read_run(folder: Path) -> RunRecord:
    """Read run.json and, for each stage, <stage>/{log_history,trainable,handover}.json; what is absent is left out.

    Args:
        folder: a run's output folder; any other folder gives an empty record.
    """
    run = _read_json(Path(folder) / "run.json")
    if not isinstance(run, dict):
        return RunRecord()
    stages = run.get("stages") or []
    if isinstance(stages, dict):
        stages = [{"name": name, **(stage or {})} for name, stage in stages.items()]
    record = RunRecord({key: value for key, value in run.items() if key != "stages"}, stages)
    for stage in stages:
        name = stage.get("name", "")
        history = _read_json(Path(folder) / name / "log_history.json")
        if isinstance(history, dict):
            history = history.get("log_history", [])
        stage["log_history"] = history or []
        curves = _curves(name, stage["log_history"])
        record.figures += [curves] if curves else []
        for more in (_pace(name, stage["log_history"]), _balance(name, stage["log_history"])):
            record.figures += [more] if more else []
        within = _within(stage)
        record.figures += [within] if within else []
    progression = _progression(stages)
    record.across = [*([progression] if progression else []), *across_stages(stages, run.get("stage_scores"))]
    record.figures += record.across
    record.figures += [_stage_scores(name, found) for name, found in (run.get("stage_scores") or {}).items()]
    for kind, title in (("trainable", "Trainable parameters"), ("handover", "Hand-over")):
        for stage in stages:
            table = _table(_read_json(Path(folder) / stage.get("name", "") / f"{kind}.json"))
            if table:
                name = stage["name"]
                record.figures.append(Figure(f"{kind}_{name}", "table", f"{title}: stage {name}", table))
    return record


def _curves(stage: str, history: list[dict[str, Any]]) -> Figure | None:
    """One panel a logged loss, training and evaluation in one panel, losses by source, and the learning rate."""
    panels: dict[str, dict[str, dict[str, list[float]]]] = {}
    for entry in history:
        for key, value in entry.items():
            place = _panel(stage, key) if isinstance(value, int | float) else None
            if place is None:
                continue
            panel, line = place
            found = panels.setdefault(panel, {}).setdefault(line, {"x": [], "y": []})
            found["x"].append(entry.get("step", len(found["x"])))
            found["y"].append(float(value))
    if not panels:
        return None
    _thin(panels)
    order = sorted(panels, key=lambda name: (name == "learning_rate", name != "loss", name))
    data = {"panels": [{"title": n.replace("_", " "), "xlabel": "step", "series": panels[n]} for n in order]}
    caption = "Every logged loss term, unweighted unless it is the total."
    return Figure(f"curves_{stage}", "curves", f"Training curves: stage {stage}", data, caption)


def _panel(stage: str, key: str) -> tuple[str, str] | None:
    """Return panel and line of a logged key: `<stage>/loss_<term>`, `<stage>/loss_<term>/<source>`, `eval_...`."""
    if key.startswith("train_"):  # the Trainer's summary of the whole run
        return None
    name = key.removeprefix(f"{stage}/")
    short, _, source = name.removeprefix("eval_").partition("/")
    evaluated = name.startswith("eval_")
    if source and not short.startswith("loss_"):  # another prefix before the name
        short, source, evaluated = name.split("/")[-1].removeprefix("eval_"), "", "eval_" in name
    if not short.startswith(("loss", "learning_rate")):
        return None
    if short.startswith("learning_rate_"):  # one line a parameter group in the panel of the rate
        return "learning_rate", short.removeprefix("learning_rate_")
    if source:
        return f"{short} by source", f"{source}, eval" if evaluated else source
    return short, "eval" if evaluated else "train"


def _pace(stage: str, history: list[dict[str, Any]]) -> Figure | None:
    """Show weights of the loss terms and their share of the loss, gradient norm, samples a second and memory."""
    panels: dict[str, dict[str, dict[str, list[float]]]] = {}

    def add(panel: str, line: str, step: Any, value: Any) -> None:
        if isinstance(value, int | float) and math.isfinite(value):
            found = panels.setdefault(panel, {}).setdefault(line, {"x": [], "y": []})
            found["x"].append(step)
            found["y"].append(float(value))

    for number, entry in enumerate(line for line in history if "loss" in line):
        step, prefix = entry.get("step", number), f"{stage}/weight_"
        weights = {key.removeprefix(prefix): entry[key] for key in entry if key.startswith(prefix)}
        parts = {name: weight * (entry.get(f"{stage}/loss_{name}") or 0.0) for name, weight in weights.items()}
        whole = sum(abs(part) for part in parts.values())
        if len(weights) > 1:
            for name, weight in weights.items():
                add("loss weights", name, step, weight)
                add("share of the loss", name, step, abs(parts[name]) / whole if whole else None)
        add("gradient norm", "all", step, entry.get("grad_norm"))
        for title, name in (("samples a second", "samples_per_second"), ("peak memory, GB", "peak_memory_gb"),
                            ("seconds a step waits for data", "data_s"), ("energy, kWh", "energy_kwh")):  # fmt: skip
            add(title, "all", step, entry.get(f"{stage}/{name}"))
    if not panels:
        return None
    _thin(panels)
    data = {"panels": [{"title": title, "xlabel": "step", "series": lines} for title, lines in panels.items()]}
    caption = (
        "A term's share is its weight times its value, of the sum of all. Memory: of the GPU, else of the process."
    )
    return Figure(f"pace_{stage}", "curves", f"Weights, gradient, speed and memory: stage {stage}", data, caption)


def _within(stage: Mapping[str, Any]) -> Figure | None:
    """Show the last scores of each phase of a stage with phases."""
    name, last = stage.get("name", ""), {}
    phase = 0
    for entry in stage["log_history"]:
        phase = entry.get(f"{name}/phase", phase)
        found = _scores({"log_history": [entry]})
        if found and f"{name}/phase" in {key for line in stage["log_history"] for key in line}:
            last[phase] = found
    names = _chosen(list(last.values()))
    if len(last) < 2 or not names:
        return None
    series = {one.replace("_", " "): [found.get(one) for found in last.values()] for one in names}
    data = {"stages": [f"phase {number:g}" if number else "start" for number in last], "series": series}
    caption = "The last scores on the validation rows before the next phase began."
    return Figure(f"phases_{name}", "progression", f"Scores from phase to phase: stage {name}", data, caption)


def _chosen(scores: list[dict[str, float]]) -> list[str]:
    """Return the scores to draw: the known ones, else what lies between 0 and 1."""
    known = [name for name in _PROGRESSION if any(name in found for found in scores)]
    if known:
        return known
    names = dict.fromkeys(name for found in scores for name in found if not name.startswith("loss"))
    return [
        name for name in names
        if not name.endswith(("runtime", "per_second")) and all(0 <= found.get(name, 0.0) <= 1 for found in scores)
    ][:_MAX_LISTED]  # fmt: skip


def _balance(stage: str, history: list[dict[str, Any]]) -> Figure | None:
    """Show how the loss terms get on: cosines and norms of their gradients, and what each counts."""
    titles = {"cosine": "cosine of gradients", "gradnorm": "gradient norm", "balance": "weight after balancing"}
    panels: dict[str, dict[str, dict[str, list[float]]]] = {}
    for entry in history:
        for key, value in entry.items():
            kind, _, line = key.removeprefix(f"{stage}/").partition("_")
            if key.startswith(f"{stage}/") and kind in titles and isinstance(value, int | float):
                found = panels.setdefault(kind, {}).setdefault(line, {"x": [], "y": []})
                found["x"].append(entry.get("step", len(found["x"])))
                found["y"].append(float(value))
    if not panels:
        return None
    _thin(panels)
    data = {"panels": [{"title": titles[k], "xlabel": "step", "series": panels[k]} for k in titles if k in panels]}
    caption = "A cosine below 0 is a step in which two loss terms pulled the shared parts apart."
    return Figure(f"balance_{stage}", "curves", f"Loss terms against each other: stage {stage}", data, caption)


def _thin(panels: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    for lines in panels.values():
        for line in lines.values():
            stride = -(-len(line["x"]) // _MAX_CURVE_POINTS)
            line["x"], line["y"] = line["x"][::stride], line["y"][::stride]


def _scores(stage: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a stage: its run.json entry, else the last evaluation in its history."""
    found: dict[str, Any] = {}
    for entry in stage.get("log_history", []):
        found |= {key: value for key, value in entry.items() if "eval_" in key}
    found |= stage.get("scores") or stage.get("metrics") or {}
    return {
        key.split("/")[-1].removeprefix("eval_"): float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _progression(stages: list[dict[str, Any]]) -> Figure | None:
    scores = [_scores(stage) for stage in stages]
    names = _chosen(scores)
    if not names or len(stages) < 2:
        return None
    series = {name.replace("_", " "): [found.get(name) for found in scores] for name in names}
    data = {"stages": [stage.get("name", "") for stage in stages], "series": series}
    caption = "Scores on the validation rows after each stage, before calibration."
    return Figure("progression", "progression", "Scores from stage to stage", data, caption)


def _stage_scores(name: str, found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One row a score of a set, one column a stage: what each stage gave, and what it forgot."""
    stages = list(found)
    scores = dict.fromkeys(
        key for metrics in found.values() for key, value in metrics.items() if isinstance(value, int | float)
    )
    rows = [[key.replace("_", " "), *(found[stage].get(key, "") for stage in stages)] for key in scores]
    data: dict[str, Any] = {"columns": ["score", *stages], "rows": rows}
    caption = "Before the first stage and after each one, on the same rows, before calibration."
    return Figure(f"stage_scores_{name}", "table", f"{name}: from stage to stage", data, caption)


def _cell(value: Any) -> Any:
    """Shorten what is no plain value: a list to its length and first entries."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and len(value) > _MAX_LISTED:
        return f"{len(value)}: {', '.join(map(str, value[:_MAX_LISTED]))} ..."
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else ("" if value is None else value)


def _table(content: Any) -> dict[str, Any] | None:
    """Turn a list of dicts, {"modules": such a list}, or any other dict (a row a key) into columns and rows."""
    if isinstance(content, dict) and isinstance(content.get("modules"), list):
        content = content["modules"]
    if isinstance(content, dict):
        content = [{"": key, "entries": value} for key, value in content.items()]
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        return None
    columns = list(dict.fromkeys(key for entry in content for key in entry))
    rows = [[_cell(entry.get(column)) for column in columns] for entry in content]
    return {"columns": [column.replace("_", " ") for column in columns], "rows": rows}


def parameter_figure(model: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> Figure:
    """Count parameters by part.

    Args:
        model: a torch module.
        parts: parameter-name patterns by part; a parameter counts for the first part that matches.
    """
    counts = dict.fromkeys([*parts, "other"], 0)
    for name, parameter in model.named_parameters():
        part = next((p for p, patterns in parts.items() if any(fnmatch(name, one) for one in patterns)), "other")
        counts[part] += parameter.numel()
    total = sum(counts.values())
    rows = [
        [part, count, f"{count / max(total, 1):.1%}"] for part, count in counts.items() if count or part != "other"
    ]
    data: dict[str, Any] = {"columns": ["part", "parameters", "share"], "rows": [*rows, ["total", total, "100.0%"]]}
    caption = "Shared tensors count once."
    return Figure(PARAMETERS, "table", "Parameters", data, caption)
