"""Reader of the robot-selection JSON files: the multi-label file, the plan file, and JSONL of either.

The kind of a record is read from its keys, never from the file's name:

* multi-label record: ``{"instruction", "input": "Task: ...", "output": "Drone, Robot with Legs"}``;
* plan record: ``{"instruction", "input", "original_single_robot_output", "subtasks": [{"subtask", "assigned_robot",
  "execution_order"}]}``; one without an output names its robots in its subtasks alone.

Either may carry ``"image"``, a path relative to `image_dir` or to the file, and ``"reasoning"``. Every record that
cannot be used is counted by reason with the first offender named; nothing is dropped or replaced in silence.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.pictures import load_picture
from hfvla.data.reasoning import STEP_TITLES, build_chain, parse_reasoning
from hfvla.data.samples.robots import ROBOTS, RobotTask, Subtask, normalise_task
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.data.sources.json_files import parse_json, read_text, text_lines
from hfvla.data.sources.rows import build_dataset
from hfvla.data.text import clean_text, task_key, text_problem
from hfvla.errors import DataError, did_you_mean
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["RobotSelectionOptions", "build_robot_selection"]

logger = logging.getLogger(__name__)

_MAX_IMAGE_BYTES = 1 << 29  # rows hold their pictures


class RobotSelectionOptions(BaseModel):
    """What a recipe may say about a robot-selection file.

    Attributes:
        path: JSON or JSONL file of multi-label or plan records.
        plan_path: plan file whose subtasks are joined to the tasks of `path` (same letters and numbers, any case).
        reasoning: write a chain of thought from the gold set (training target) for each record that has none of its
            own; a record's own "reasoning", a text or a list of steps, is used as it is given.
        scenes: draw the place that a task's own words name for each record without a picture; the answer is not looked
            at, and a task that names no known place stays without one.
        scene_size: of these pictures, pixels a side.
        image_dir: folder that "image" paths are relative to and stay inside; the file's own folder when absent.
        max_bad_fraction: share of unusable records above which reading fails.
        max_task_letters: length above which a task is unusable.
        robots: the fleet; names in the file must be among these.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    plan_path: UserPath | None = None
    reasoning: bool = True
    scenes: bool = False
    scene_size: int = Field(default=224, ge=16, le=4096)
    image_dir: UserPath | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    max_task_letters: int = Field(default=2000, ge=1)
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


def load_records(path: Path) -> list[tuple[str, Any]]:
    """Read a JSON list or JSONL file as (place, record) pairs; place is "file:index", counted from 0 in a list.

    Raises:
        DataError: unreadable, not JSON (names line and column), or not a list of records.
    """
    text = read_text(path, what="robot-selection file cannot be read")
    expected = "a JSON list of records, or one JSON object a line"
    if text.lstrip().startswith("["):
        records = parse_json(text, str(path), expected=expected)
        return [(f"{path.name}:{index}", record) for index, record in enumerate(records)]
    lines = text_lines(text)
    if not lines:
        raise DataError("file holds no record", where=str(path), expected="a JSON list or one JSON object a line")
    return [(f"{path.name}:{number}", parse_json(line, str(path), line=number, expected=expected))
            for number, line in lines]  # fmt: skip


def _spelling(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", clean_text(name)).strip().casefold()


def _robot(name: object, robots: tuple[str, ...]) -> str:
    """The fleet's own spelling of a name; letter case, blanks and hyphens do not matter, anything else does."""
    known = {_spelling(robot): robot for robot in robots}
    if not isinstance(name, str) or _spelling(name) not in known:
        raise _UnusableError("unknown robot name", f"{name!r}. {did_you_mean(str(name), robots)}")
    return known[_spelling(name)]


def _robots(record: Mapping[str, Any], robots: tuple[str, ...]) -> tuple[str, ...]:
    """Gold robots of a record; the real plan file writes "A, B" in some records and ["A", "B"] in others.

    A record without an output has those that its subtasks are assigned to, in their order of execution.
    """
    value = record.get("output", record.get("original_single_robot_output"))
    if value is None and record.get("subtasks"):
        steps = sorted(_plan(record, robots), key=lambda step: step.order)
        return tuple(dict.fromkeys(step.robot for step in steps))
    names_given = value.split(",") if isinstance(value, str) else value
    if not isinstance(names_given, list) or not any(str(name).strip() for name in names_given):
        raise _UnusableError("no output", f"got {value!r}"[:200])
    names = tuple(_robot(part, robots) for part in names_given)
    if len(set(names)) != len(names):
        raise _UnusableError("robot named twice", f"{value!r}")
    return names


def _text(value: Any, name: str) -> str:
    """Return a text in NFC; half a character, as broken escapes leave it, cannot be stored."""
    if not isinstance(value, str):
        raise _UnusableError(f"{name} is not text", f"got {type(value).__name__}")
    if problem := text_problem(value):
        raise _UnusableError(f"{name} is not text", problem)
    return clean_text(value)


def _task(record: Any, most_letters: int) -> str:
    if not isinstance(record, Mapping):
        raise _UnusableError("not an object", f"got {type(record).__name__}")
    if "input" not in record:
        raise _UnusableError("no input key", f"keys {sorted(map(str, record))}")
    task = _text(record["input"], "input")
    task = task[len("task:") :].strip() if task.lower().startswith("task:") else task
    if not normalise_task(task):
        raise _UnusableError("empty task", f"input {record['input']!r}"[:200])
    if len(task) > most_letters:
        raise _UnusableError("task is too long", f"{len(task)} letters, max_task_letters {most_letters}")
    return task


def _plan(record: Mapping[str, Any], robots: tuple[str, ...]) -> tuple[Subtask, ...]:
    steps = record.get("subtasks")
    plan: list[Subtask] = []
    if steps is None:
        return ()
    if not isinstance(steps, list):
        raise _UnusableError("broken subtasks", f"got {type(steps).__name__}, expected a list")
    for number, step in enumerate(steps):
        keys = ("subtask", "assigned_robot", "execution_order")
        missing = [key for key in keys if key not in step] if isinstance(step, Mapping) else list(keys)
        if missing:
            raise _UnusableError("broken subtasks", f"subtask {number} lacks {', '.join(missing)}")
        order = step["execution_order"]
        if not isinstance(order, int) or isinstance(order, bool) or abs(order) >= 2**31:
            raise _UnusableError(
                "broken subtasks", f"subtask {number}: execution_order {order!r} is not a whole number"
            )
        plan.append(Subtask(_text(step["subtask"], "subtask"), _robot(step["assigned_robot"], robots), order))
    return tuple(plan)


def _image(record: Mapping[str, Any], folder: Path) -> bytes | None:
    if record.get("image") is None:
        return None
    try:
        path = inside_root(folder, record["image"], "image")
        if not path.is_file():
            raise _UnusableError("missing image", str(path))
        if path.stat().st_size > _MAX_IMAGE_BYTES:
            raise _UnusableError("image file is too large", f"{path}: {path.stat().st_size} bytes")
        data = path.read_bytes()
    except UnusableError as problem:
        raise _UnusableError(problem.reason, problem.detail) from problem
    except OSError as error:
        raise _UnusableError("image cannot be read", f"{path}: {error.strerror or error}") from error
    try:
        load_picture(data, str(path))
    except DataError as error:
        raise _UnusableError("corrupted image", str(error)) from error
    return data


def _load_plans(options: RobotSelectionOptions, census: _Census) -> dict[str, tuple[Subtask, ...]]:
    """Plans by task key; the first record of a task counts. Unusable plan records go to the census."""
    if options.plan_path is None:
        return {}
    plans: dict[str, tuple[Subtask, ...]] = {}
    records = load_records(Path(options.plan_path))
    _require_known_format(records, options.plan_path, ("subtasks",))
    for where, record in records:
        census.found += 1
        try:
            task = _task(record, options.max_task_letters)
            plan = _plan(record, options.robots)
            if not plan:
                raise _UnusableError("no subtasks", f"task {task!r}")
        except _UnusableError as problem:
            census.reject(where, problem)
            continue
        census.usable += 1
        plans.setdefault(task_key(task), plan)
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


def _log_census(census: _Census, duplicates: int, without_plan: int | None, path: str, chains: _Census) -> None:
    rows = [("records found", census.found, ""), ("records usable", census.usable, "")]
    rows += [(f"rejected: {reason}", entry["count"], entry["first"]) for reason, entry in census.rejected.items()]
    rows.append(("repeated tasks (kept)", duplicates, ""))
    if without_plan is not None:
        rows.append(("tasks without a plan", without_plan, ""))
    if chains.found:
        rows.append(("records with reasoning", chains.found, ""))
        rows += [(f"kept: {reason}", entry["count"], entry["first"]) for reason, entry in chains.rejected.items()]
    width = max(len(row[0]) for row in rows)
    table = "\n".join(f"  {name:<{width}}  {count:>6}  {first}".rstrip() for name, count, first in rows)
    logger.log(
        logging.WARNING if census.rejected or chains.rejected else logging.INFO,
        "robot-selection census of %s\n%s",
        path,
        table,
    )


def build_robot_selection(options: RobotSelectionOptions, *, seed: int = 0) -> SourceData:
    """Read a robot-selection file into rows.

    Tasks that repeat stay, with the same group key. Plan-only files give their robots from
    `original_single_robot_output`, or from their subtasks where they have none.

    Args:
        options: see `RobotSelectionOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census counts records of both files, repeated tasks as "duplicates" and, with a plan file,
        tasks that found no plan as "without_plan"; where records bring chains of thought, these as "reasoning_given",
        and by reason those among them that do not parse or decide for other robots than the record names.

    Raises:
        DataError: unreadable or broken file, unknown format, or too many unusable records.
    """
    path = Path(options.path)
    folder = Path(options.image_dir) if options.image_dir else path.parent
    records = load_records(path)
    _require_known_format(records, options.path, ("output", "original_single_robot_output", "subtasks"))
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
    chains = _given_chains(records, tasks, options)
    _log_census(census, duplicates, without_plan, options.path, chains)
    _refuse_if_too_bad(census, options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected, "duplicates": duplicates}
    if options.scenes:
        summary["with_picture"] = sum(task.image is not None for task in tasks)
    if without_plan is not None:
        summary["without_plan"] = without_plan
    if chains.found:
        summary |= {"reasoning_given": chains.found, "reasoning_kept_as_given": chains.rejected}
    return SourceData(build_dataset(tasks), summary)


def _sample(
    record: Any,
    where: str,
    options: RobotSelectionOptions,
    folder: Path,
    plans: Mapping[str, tuple[Subtask, ...]],
) -> RobotTask:
    task = _task(record, options.max_task_letters)
    robots = _robots(record, options.robots)
    reasoning = _reasoning(record)
    if not reasoning and options.reasoning:
        reasoning = build_chain(task, robots, options.robots)
    return RobotTask(
        id=where,
        task=task,
        robots=robots,
        reasoning=reasoning,
        plan=plans.get(task_key(task)) or _plan(record, options.robots),
        image=_image(record, folder) or _scene(task, options),
        source="robot_selection",
        group=normalise_task(task),
    )


def _scene(task: str, options: RobotSelectionOptions) -> bytes | None:
    """Return a drawn picture of the place that the task names, where the recipe asks for it."""
    if not options.scenes:
        return None
    from hfvla.worlds.fleet.words import scene_of_task

    return scene_of_task(task, options.scene_size)


def _reasoning(record: Mapping[str, Any]) -> str:
    """A record's own chain of thought as it is given: a text, or a list of steps, a line each; "" without one."""
    given = record.get("reasoning")
    if given is None:
        return ""
    return "\n".join(_text(step, "reasoning") for step in (given if isinstance(given, list) else [given])).strip()


def _given_chains(records: list[tuple[str, Any]], tasks: list[RobotTask], options: RobotSelectionOptions) -> _Census:
    """Count the chains that records brought, and those that cannot be parsed or decide for other robots."""
    given = {where for where, record in records if isinstance(record, Mapping) and record.get("reasoning")}
    census = _Census()
    for task in (task for task in tasks if task.id in given):
        census.found += 1
        chain = parse_reasoning(task.reasoning, options.robots)
        if len(chain.steps) < len(STEP_TITLES) or not chain.decision:
            census.reject(task.id, _UnusableError("reasoning does not parse", f"steps {list(chain.steps)}"))
        elif set(chain.decision) != set(task.robots):
            detail = f"{', '.join(chain.decision)}; output {', '.join(task.robots)}"
            census.reject(task.id, _UnusableError("reasoning decides for other robots", detail))
    return census
