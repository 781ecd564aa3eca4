"""Typed samples that readers yield and families turn into model inputs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from hfvla.data.text import letter_key

if TYPE_CHECKING:
    pass

__all__ = ["ROBOTS", "RobotAnswer", "RobotTask", "Subtask", "Turn", "normalise_task"]

ROBOTS: tuple[str, ...] = ("Drone", "Underwater Robot", "Humanoid", "Robot with Wheels", "Robot with Legs")
"""The five robots of the robot-selection data, in the order used everywhere (`id2label`)."""


def normalise_task(task: str) -> str:
    """Return the group key of a task: its letters only, of any script, lower case, without a leading "Task:".

    Tasks that differ in a number only share it, so that none of them crosses a split; what says whether two texts are
    one task is `hfvla.data.text.task_key`.
    """
    return letter_key(re.sub(r"^\s*task\s*:", "", task, flags=re.IGNORECASE))


@dataclass(frozen=True)
class Subtask:
    """One step of a multi-robot plan; equal orders run in parallel."""

    subtask: str
    robot: str
    order: int


@dataclass(frozen=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class RobotTask:
    """One robot-selection sample: a task in words, perhaps a scene, and what a fleet should do.

    Attributes:
        id: unique within its source, e.g. "single_robot_selection.json:17".
        task: the task text without the "Task:" prefix.
        robots: gold set of robot names, primary first; empty when unlabelled.
        reasoning: chain-of-thought text in four steps, or "".
        plan: subtasks with robot and order; empty when unknown.
        image: encoded image bytes, or None when the sample has no picture.
        caption: what the picture shows, in words; "" when unknown.
        dialogue: question-answer turns about the picture or the fleet, for instruction tuning.
        needs_scene: True when the task cannot be answered without the picture.
        source: name of the reader or generator.
        group: key that must not cross a split; `normalise_task(task)` unless the source knows better.
        details: latent facts of a generated sample (environment, action, template ...) as strings.
    """

    id: str
    task: str
    robots: tuple[str, ...]
    reasoning: str = ""
    plan: tuple[Subtask, ...] = ()
    image: bytes | None = None
    caption: str = ""
    dialogue: tuple[Turn, ...] = ()
    needs_scene: bool = False
    source: str = ""
    group: str = ""
    details: dict[str, str] = field(default_factory=dict)

    def to_row(self) -> dict:
        """Return a plain dict for `datasets` (details become one `key=value;...` string)."""
        row = asdict(self)
        row["robots"] = list(self.robots)
        row["plan"] = [asdict(step) for step in self.plan]
        row["dialogue"] = [asdict(turn) for turn in self.dialogue]
        row["group"] = self.group or normalise_task(self.task)
        row["details"] = ";".join(f"{key}={value}" for key, value in self.details.items())
        return row


@dataclass(frozen=True)
class RobotAnswer:
    """What the language model wrote after a prompt.

    Attributes:
        text: the raw continuation.
        reasoning: the text between the reasoning tokens.
        robots: robots named after `<robot>`.
        plan: subtasks parsed after `<plan>`.
    """

    text: str
    reasoning: str
    robots: tuple[str, ...]
    plan: tuple[Subtask, ...]
