"""report.json: what a report is made of, saved before it is drawn, so that `hfvla report` can draw it later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hfvla.errors import DataError
from hfvla.family import EvaluationResult, Figure

__all__ = ["REPORT_DATA", "load_report_data", "plain_json", "save_report_data"]

REPORT_DATA = "report.json"
"""Name of the file."""

_METRICS = "metrics.json"
_PARTS = (
    "intervals",
    "baselines",
    "baseline_intervals",
    "difference_intervals",
    "ablations",
    "census",
    "notes",
    "sets",
)


def plain_json(value: Any) -> Any:
    """Return a value as strict JSON has it: arrays as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return plain_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def save_report_data(folder: Path, results: Mapping[str, EvaluationResult], run_info: Mapping[str, Any]) -> None:
    """Write report.json.

    Args:
        folder: of the evaluation.
        results: by set name.
        run_info: as `write_evaluation` takes it.
    """
    info = {key: value for key, value in run_info.items() if key not in {"figures", "run_folder", "png"}}
    of_run = run_info.get("run_folder")
    content = {
        "run_info": info,
        "run_folder": None if of_run is None or Path(of_run) == folder else str(Path(of_run).absolute()),
        "figures": [asdict(figure) for figure in run_info.get("figures", ())],
        "results": {name: _saved(result) for name, result in results.items()},
    }
    text = json.dumps(plain_json(content), ensure_ascii=False, allow_nan=False)
    (folder / REPORT_DATA).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _saved(result: EvaluationResult) -> dict[str, Any]:
    return {
        "metrics": result.metrics,
        "intervals": {name: list(bounds) for name, bounds in result.intervals.items()},
        "baselines": result.baselines,
        "ablations": result.ablations,
        "figures": [asdict(figure) for figure in result.figures],
        "files": sorted(result.files),
        "census": result.census,
        "notes": result.notes,
    }


def load_report_data(folder: Path) -> tuple[dict[str, EvaluationResult], dict[str, Any]]:
    """Return the results and the facts that a report is made of; files of a set have no content here.

    Where there is no report.json, as before there was one, the scores of metrics.json are all there is: no figures.

    Raises:
        DataError: nothing was evaluated here, or the file is not what it should be.
    """
    path = folder / REPORT_DATA
    if not path.is_file():
        return _from_metrics(folder), {"run_folder": folder}
    content = _read(path)
    try:
        results = {name: _loaded(entry) for name, entry in content["results"].items()}
        info = {**content["run_info"], "figures": [Figure(**entry) for entry in content["figures"]]}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError("this file is damaged", where=str(path), got=f"{type(error).__name__}: {error}") from None
    return results, {**info, "run_folder": Path(content.get("run_folder") or folder)}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        fix = "Score the checkpoint first: hfvla eval, or the same hfvla train once more."
        raise DataError("nothing was evaluated here", where=str(path.parent), expected=path.name, fix=fix) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("this file is damaged", where=str(path), got=str(error)) from None
    if not isinstance(content, dict):
        raise DataError("this file is damaged", where=str(path), got=type(content).__name__, expected="a mapping")
    return content


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in scores.items()}


def _loaded(entry: Mapping[str, Any]) -> EvaluationResult:
    return EvaluationResult(
        metrics=_numbers(entry["metrics"]),
        intervals={name: (bounds[0], bounds[1]) for name, bounds in entry["intervals"].items() if None not in bounds},
        baselines={name: _numbers(scores) for name, scores in entry["baselines"].items()},
        ablations={name: _numbers(scores) for name, scores in entry["ablations"].items()},
        figures=[Figure(**figure) for figure in entry["figures"]],
        files=dict.fromkeys(entry["files"], b""),
        census=dict(entry["census"]),
        notes=list(entry["notes"]),
    )


def _from_metrics(folder: Path) -> dict[str, EvaluationResult]:
    content = _read(folder / _METRICS)
    sets = content["sets"] if isinstance(content.get("sets"), dict) else {"": content}
    try:
        return {name: _of_metrics(entry) for name, entry in sets.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        where = str(folder / _METRICS)
        raise DataError("this file is not of hfvla", where=where, got=f"{type(error).__name__}: {error}") from None


def _of_metrics(entry: Mapping[str, Any]) -> EvaluationResult:
    intervals = dict(entry["intervals"])
    for part, prefix in (("baseline_intervals", "baselines"), ("difference_intervals", "difference")):
        for name, found in entry[part].items():
            intervals |= {f"{prefix}/{name}/{metric}": bounds for metric, bounds in found.items()}
    note = "This report was made from the scores alone: the evaluation is from before report.json."
    return _loaded(
        {
            "metrics": {key: value for key, value in entry.items() if key not in _PARTS},
            "intervals": intervals,
            **{part: entry[part] for part in ("baselines", "ablations", "census")},
            "notes": [*entry["notes"], note],
            "figures": [],
            "files": [],
        }
    )
