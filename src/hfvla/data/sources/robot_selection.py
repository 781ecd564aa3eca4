"""Reader of the robot-selection JSON files: the multi-label file, the plan file, and JSONL of either.

The kind of a record is read from its keys, never from the file's name:

* multi-label record: ``{"instruction", "input": "Task: ...", "output": "Drone, Robot with Legs"}``;
* plan record: ``{"instruction", "input", "original_single_robot_output", "subtasks": [{"subtask", "assigned_robot",
  "execution_order"}]}``.

Either may carry ``"image"``: a path relative to `image_dir`, or to the file. Every record that cannot be used is
counted by reason with the first offender named; nothing is dropped or replaced in silence.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.pictures import load_picture
from hfvla.data.reasoning import build_chain
from hfvla.data.samples.robots import ROBOTS, RobotTask, Subtask, normalise_task
from hfvla.data.sources.rows import build_dataset
from hfvla.errors import DataError, did_you_mean
from hfvla.family import SourceData

__all__ = ["RobotSelectionOptions", "build_robot_selection"]

logger = logging.getLogger(__name__)


class RobotSelectionOptions(BaseModel):
    """What a recipe may say about a robot-selection file.

    Attributes:
        path: JSON or JSONL file of multi-label or plan records.
        plan_path: plan file whose subtasks are joined to the tasks of `path` (same letters, any case).
        reasoning: write a chain of thought for each record from its gold set (training target).
        image_dir: folder that "image" paths are relative to; the file's own folder when absent.
        max_bad_fraction: share of unusable records above which reading fails.
        robots: the fleet; names in the file must be among these.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    plan_path: str | None = None
    reasoning: bool = True
    image_dir: str | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    robots: tuple[str, ...] = ROBOTS


class _UnusableError(Exception):
    """A record cannot be used; `reason` is what the census counts it under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass
class _Census:
    found: int = 0
    usable: int = 0
    rejected: dict[str, dict[str, Any]] = field(default_factory=dict)

    def reject(self, where: str, problem: _UnusableError) -> None:
        entry = self.rejected.setdefault(problem.reason, {"count": 0, "first": ""})
        entry["count"] += 1
        if not entry["first"]:
            entry["first"] = f"{where}: {problem.detail}" if problem.detail else where

    @property
    def bad(self) -> int:
        return sum(entry["count"] for entry in self.rejected.values())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            "robot-selection file cannot be read", where=str(path), got=error.strerror, fix="Check the path."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("file is not UTF-8 text", where=str(path), got=error.reason, expected="UTF-8 JSON") from error


def load_records(path: Path) -> list[tuple[str, Any]]:
    """Read a JSON list or JSONL file as (place, record) pairs; place is "file:index", counted from 0 in a list.

    Raises:
        DataError: unreadable, not JSON (names line and column), or not a list of records.
    """
    text = _read_text(path)
    if text.lstrip().startswith("["):
        return [(f"{path.name}:{index}", record) for index, record in enumerate(_parse(text, path, 1))]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError("file holds no record", where=str(path), expected="a JSON list or one JSON object a line")
    return [(f"{path.name}:{number}", _parse(line, path, number)) for number, line in lines]


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(
            f"broken JSON: {error.msg}",
            where=f"{path}:{line}:{error.colno}",
            got=error.doc[error.pos : error.pos + 20],
            expected="a JSON list of records, or one JSON object a line",
            fix=f"Correct line {line}, column {error.colno}.",
        ) from error


def _robot(name: object, robots: tuple[str, ...]) -> str:
    """The fleet's own spelling of a name; letter case and outer blanks do not matter, anything else does."""
    known = {robot.lower(): robot for robot in robots}
    if not isinstance(name, str) or name.strip().lower() not in known:
        raise _UnusableError("unknown robot name", f"{name!r}. {did_you_mean(str(name), robots)}")
    return known[name.strip().lower()]


def _robots(record: Mapping[str, Any], robots: tuple[str, ...]) -> tuple[str, ...]:
    """Gold robots of a record; the real plan file writes "A, B" in some records and ["A", "B"] in others."""
    value = record.get("output", record.get("original_single_robot_output"))
    names_given = value.split(",") if isinstance(value, str) else value
    if not isinstance(names_given, list) or not any(str(name).strip() for name in names_given):
        raise _UnusableError("no output", f"got {value!r}")
    names = tuple(_robot(part, robots) for part in names_given)
    if len(set(names)) != len(names):
        raise _UnusableError("robot named twice", f"{value!r}")
    return names


def _task(record: Any) -> str:
    if not isinstance(record, Mapping):
        raise _UnusableError("not an object", f"got {type(record).__name__}")
    if "input" not in record:
        raise _UnusableError("no input key", f"keys {sorted(map(str, record))}")
    if not isinstance(record["input"], str):
        raise _UnusableError("input is not text", f"got {type(record['input']).__name__}")
    task = record["input"].strip()
    task = task[len("task:") :].strip() if task.lower().startswith("task:") else task
    if not normalise_task(task):
        raise _UnusableError("empty task", f"input {record['input']!r}")
    return task


def _plan(record: Mapping[str, Any], robots: tuple[str, ...]) -> tuple[Subtask, ...]:
    steps = record.get("subtasks") or ()
    plan = []
    if not isinstance(steps, list | tuple):
        raise _UnusableError("broken subtasks", f"got {type(steps).__name__}, expected a list")
    for number, step in enumerate(steps):
        keys = ("subtask", "assigned_robot", "execution_order")
        missing = [key for key in keys if key not in step] if isinstance(step, Mapping) else list(keys)
        if missing:
            raise _UnusableError("broken subtasks", f"subtask {number} lacks {', '.join(missing)}")
        order = step["execution_order"]
        if not isinstance(order, int) or isinstance(order, bool):
            raise _UnusableError(
                "broken subtasks", f"subtask {number}: execution_order {order!r} is not a whole number"
            )
        plan.append(Subtask(str(step["subtask"]), _robot(step["assigned_robot"], robots), order))
    return tuple(plan)


def _image(record: Mapping[str, Any], folder: Path) -> bytes | None:
    name = record.get("image")
    if name is None:
        return None
    path = folder / str(name)
    if not path.is_file():
        raise _UnusableError("missing image", str(path))
    data = path.read_bytes()
    try:
        load_picture(data, str(path))
    except DataError as error:
        raise _UnusableError("corrupted image", str(error)) from error
    return data


def _load_plans(options: RobotSelectionOptions, census: _Census) -> dict[str, tuple[Subtask, ...]]:
    """Plans by group key; the first record of a task counts. Unusable plan records go to the census."""
    if options.plan_path is None:
        return {}
    plans: dict[str, tuple[Subtask, ...]] = {}
    records = load_records(Path(options.plan_path))
    _require_known_format(records, options.plan_path, ("subtasks",))
    for where, record in records:
        census.found += 1
        try:
            task = _task(record)
            plan = _plan(record, options.robots)
            if not plan:
                raise _UnusableError("no subtasks", f"task {task!r}")
        except _UnusableError as problem:
            census.reject(where, problem)
            continue
        census.usable += 1
        plans.setdefault(normalise_task(task), plan)
    return plans


def _require_known_format(records: list[tuple[str, Any]], path: str, keys: tuple[str, ...]) -> None:
    if not any(isinstance(record, Mapping) and any(key in record for key in keys) for _, record in records):
        first = records[0][1] if records else None
        got = sorted(map(str, first)) if isinstance(first, Mapping) else type(first).__name__
        raise DataError(
            "no record has the format of a robot-selection file",
            where=path,
            got=f"{len(records)} records, the first with {got}",
            expected=" or ".join(f"the key '{key}'" for key in keys),
        )


def _refuse_if_too_bad(census: _Census, limit: float, path: str) -> None:
    if census.bad <= limit * census.found:
        return
    counts = ", ".join(f"{entry['count']} {reason}" for reason, entry in census.rejected.items())
    first = next(iter(census.rejected.values()))["first"]
    raise DataError(
        f"{census.bad} of {census.found} records are unusable ({counts}); first: {first}",
        where=path,
        expected=f"at most {limit:.1%}",
        fix="Correct the records, or raise max_bad_fraction.",
    )


def _log_census(census: _Census, duplicates: int, without_plan: int | None, path: str) -> None:
    rows = [("records found", census.found, ""), ("records usable", census.usable, "")]
    rows += [(f"rejected: {reason}", entry["count"], entry["first"]) for reason, entry in census.rejected.items()]
    rows.append(("repeated tasks (kept)", duplicates, ""))
    if without_plan is not None:
        rows.append(("tasks without a plan", without_plan, ""))
    width = max(len(row[0]) for row in rows)
    table = "\n".join(f"  {name:<{width}}  {count:>6}  {first}".rstrip() for name, count, first in rows)
    logger.log(logging.WARNING if census.rejected else logging.INFO, "robot-selection census of %s\n%s", path, table)


def build_robot_selection(options: RobotSelectionOptions, *, seed: int = 0) -> SourceData:
    """Read a robot-selection file into rows.

    Tasks that repeat stay, with the same group key. Plan-only files give their robots from
    `original_single_robot_output`.

    Args:
        options: see `RobotSelectionOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census counts records of both files, repeated tasks as "duplicates" and, with a plan file,
        tasks that found no plan as "without_plan".

    Raises:
        DataError: unreadable or broken file, unknown format, or too many unusable records.
    """
    path = Path(options.path)
    folder = Path(options.image_dir) if options.image_dir else path.parent
    records = load_records(path)
    _require_known_format(records, options.path, ("output", "original_single_robot_output"))
    census = _Census()
    plans = _load_plans(options, census)
    tasks: list[RobotTask] = []
    for where, record in records:
        census.found += 1
        try:
            tasks.append(_sample(record, where, options, folder, plans))
        except _UnusableError as problem:
            census.reject(where, problem)
    census.usable += len(tasks)
    duplicates = sum(count - 1 for count in Counter(task.group for task in tasks).values())
    without_plan = sum(not task.plan for task in tasks) if options.plan_path else None
    _log_census(census, duplicates, without_plan, options.path)
    _refuse_if_too_bad(census, options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected, "duplicates": duplicates}
    if without_plan is not None:
        summary["without_plan"] = without_plan
    return SourceData(build_dataset(tasks), summary)


def _sample(
    record: Any,
    where: str,
    options: RobotSelectionOptions,
    folder: Path,
    plans: Mapping[str, tuple[Subtask, ...]],
) -> RobotTask:
    task = _task(record)
    robots = _robots(record, options.robots)
    group = normalise_task(task)
    return RobotTask(
        id=where,
        task=task,
        robots=robots,
        reasoning=build_chain(task, robots, options.robots) if options.reasoning else "",
        plan=plans.get(group) or _plan(record, options.robots),
        image=_image(record, folder),
        source="robot_selection",
        group=group,
    )
