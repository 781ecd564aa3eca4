"""Hostile data: tiny valid inputs of every source, harmed at random from a seed, read, and judged.

`attack_data(name, seed, folder)` does one. `benchmarks/attack.py` and the tests beside this file do many.
"""

from __future__ import annotations

import json
import math
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .data_inputs import INPUTS
from .data_mutations import MUTATIONS, mutations_for
from .judging import LOST, HangError, limited

__all__ = ["INPUTS", "Outcome", "attack_data", "prepare"]

_LIMIT_S = 30


@dataclass(frozen=True)
class Outcome:
    """What became of one hostile input.

    Attributes:
        source: name of the input.
        seed: of the harm.
        mutation: its kind.
        verdict: "read", "counted" (some records unusable), "refused" (an error of hfvla), or what must never be:
            "traceback", "hang", "silent" (harm that nobody was told of, or rows that do not hold together).
        detail: error, reasons, or what does not hold together.
    """

    source: str
    seed: int
    mutation: str
    verdict: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether it must never be."""
        return self.verdict in LOST


def prepare(folder: Path, names: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Write the valid inputs under a folder, once.

    Returns:
        name to the rows that reading it gives.
    """
    rows = {}
    for name in names or list(INPUTS):
        INPUTS[name].write(folder / name)
        found = INPUTS[name].read(folder / name)
        assert all(not one.census["rejected"] for one in found), (name, [one.census for one in found])
        rows[name] = _rows(found, folder / name)
        shutil.rmtree(folder / name / "series", ignore_errors=True)
    return rows


def attack_data(name: str, seed: int, valid: Path, work: Path, rows: list[dict[str, Any]]) -> Outcome:
    """Harm a copy of a valid input, read it, and judge what comes of it.

    Args:
        name: of the input.
        seed: chooses the harm.
        valid: folder of `prepare`.
        work: folder for copies; emptied again.
        rows: of the valid input, from `prepare`.
    """
    generator = np.random.default_rng([seed, sum(map(ord, name))])
    folder = work / name
    shutil.copytree(valid / name, folder)
    kinds = mutations_for(folder)
    mutation = kinds[int(generator.integers(len(kinds)))]
    try:
        expected = MUTATIONS[mutation][0](folder, generator)
        verdict, detail = _judge(name, folder, expected, rows)
    finally:
        for path in (folder, work / f"{name}-elsewhere"):
            shutil.rmtree(path, ignore_errors=True)
    return Outcome(name, seed, mutation, verdict, detail)


def _judge(name: str, folder: Path, expected: str, rows: list[dict[str, Any]]) -> tuple[str, str]:
    from hfvla.errors import HfvlaError

    try:
        with limited(_LIMIT_S):
            found = INPUTS[name].read(folder)
            problem = _problem(found, folder)
    except HfvlaError as error:
        str(error).encode()
        return ("silent", f"a harmless change is refused: {error}") if expected == "same" else ("refused", str(error))
    except HangError:
        return "hang", f"over {_LIMIT_S} s"
    except Exception:
        return "traceback", traceback.format_exc()
    if problem:
        return "silent", problem
    reasons = [reason for one in found for reason in one.census["rejected"]]
    if expected == "same" and (reasons or _rows(found, folder) != rows):
        return "silent", f"a harmless change gives other rows: {reasons}"
    if reasons:
        return "counted", ", ".join(reasons)
    if expected == "refused":
        return "silent", "harm that is neither refused nor counted"
    return "read", ""


def _rows(found: list[Any], folder: Path) -> list[dict[str, Any]]:
    """Rows of everything that was read, without the folder's own place."""
    rows = [row for one in found for row in (one.dataset.to_list() if hasattr(one, "dataset") else _images(one))]
    return json.loads(json.dumps(rows, default=lambda value: value.hex()).replace(str(folder), ""))


def _images(gallery: Any) -> list[dict[str, Any]]:
    return [{"id": image.id, "path": image.path} for image in gallery.images]


def _problem(found: list[Any], folder: Path) -> str:
    """Return what does not hold together in what was read; "" for nothing."""
    for one in found:
        census = one.census
        json.dumps(census, ensure_ascii=False).encode()
        rejected = sum(entry["count"] for entry in census["rejected"].values())
        if census["found"] != census["usable"] + rejected:
            return f"the census does not add up: {census}"
        if not all(entry["first"] for entry in census["rejected"].values()):
            return f"a reason without its first record: {census}"
    for row in _rows(found, Path("/nowhere")):
        problem = _row_problem(row, folder)
        if problem:
            return f"{problem} in {str(row)[:300]}"
    return _pictures(found)


def _row_problem(row: dict[str, Any], folder: Path) -> str:
    for path in _named_paths(row):
        if not Path(path).is_relative_to(folder):
            return f"a path outside the input: {path}"
    numbers = [row.get(key) for key in ("actions", "state", "timestamp", "duration", "support_frames", "boxes")]
    if not all(map(math.isfinite, _flat(numbers))):
        return "a value that is not finite"
    if "answer" in row and not -1 <= row["answer"] < len(row["choices"]):
        return "an answer that is no choice"
    texts = [row[key] for key in ("task", "question", *(["caption"] if "image_id" in row else [])) if key in row]
    return "" if all(text.strip() for text in texts) else "an empty text"


def _named_paths(row: dict[str, Any]) -> list[str]:
    views = row.get("views") or []
    found = [view["path"] for view in views if isinstance(view, dict) and view.get("path")]
    found += [row[key] for key in ("video", "path") if row.get(key)]
    return found + ([row["image"]] if "image_id" in row and row["image"] else [])


def _flat(value: Any) -> list[float]:
    if isinstance(value, list):
        return [number for one in value for number in _flat(one)]
    return [] if value is None else [float(value)]


def _pictures(found: list[Any]) -> str:
    """Decode the pictures of the first rows: RGB, or an error of hfvla."""
    from hfvla.data.pictures import read_picture
    from hfvla.data.samples.actions import ActionSample
    from hfvla.data.signals.frame_loader import FrameLoader
    from hfvla.data.video import read_frames
    from hfvla.errors import HfvlaError

    def load(row: dict[str, Any]) -> list[np.ndarray]:
        if "views" in row:
            return FrameLoader().load(list(ActionSample.from_row(row).views.values()))
        if "video" in row:
            return list(read_frames(row["video"], [0.0, row["duration"]], threads=1).pixels)
        return [read_picture(row["image"], "a")] if row.get("image") else []

    for one in found:
        for row in one.dataset.select(range(min(2, len(one.dataset)))) if hasattr(one, "dataset") else ():
            try:
                pictures = load(row)
            except HfvlaError:
                continue
            if any(one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3 for one in pictures):
                return "a picture that is not RGB"
    return ""
