"""A model that sees colours and key words, so that every number of an evaluation is known beforehand."""

import io
from types import SimpleNamespace

import torch
from datasets import Dataset
from PIL import Image

from hfvla.data.samples.robots import ROBOTS, RobotTask, Subtask

KEYWORDS = {"roof": 0, "reef": 1, "valve": 2, "parcel": 3, "hill": 4}
COLOURS = {"red": 0, "blue": 1}  # what a scene shows: a drone's or a diver's place
MAX_TOKENS = 4.0


def picture(colour: str, width: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def task_row(number: int, place: str, image: str | None = None, source: str = "real", plan: bool = False) -> dict:
    """A task whose text tells the robot, with a picture that agrees if it has one."""
    robot = ROBOTS[KEYWORDS[place]]
    steps = (Subtask("reach the place", robot, 1), Subtask("look around", "Drone", 2)) if plan else ()
    return RobotTask(
        id=f"{source}:{number}",
        task=f"Check the {place} number {'abcdefghijklmnopqrstuvwxyz'[number % 26] * (1 + number // 26)}",
        robots=(robot,),
        plan=steps,
        image=picture(image) if image else None,
        source=source,
    ).to_row()


def scene_row(number: int, colour: str) -> dict:
    """A task that only the picture can answer."""
    word = "abcdefghijklmnopqrstuvwxyz"[number]
    return RobotTask(
        id=f"scene:{number}",
        task=f"Watch place {word}{word}",
        robots=(ROBOTS[COLOURS[colour]],),
        image=picture(colour),
        needs_scene=True,
        source="real",
    ).to_row()


def dataset(rows: list[dict]) -> Dataset:
    return Dataset.from_list(rows)


class FakeCollator:
    """Rows to votes: +3 for the robot of a key word, +2 for that of the picture's colour."""

    def __init__(self, processor, config, training=False):
        assert training is False

    def __call__(self, rows):
        votes = torch.full((len(rows), len(ROBOTS)), -1.0)
        for index, row in enumerate(rows):
            for word, robot in KEYWORDS.items():
                if word in row["task"].lower():
                    votes[index, robot] += 3.0
            if row["image"] is not None:
                red, _, blue = Image.open(io.BytesIO(row["image"])).convert("RGB").getpixel((0, 0))
                if red != blue:
                    votes[index, 0 if red > blue else 1] += 2.0
        return {"votes": votes}


class FakeModel(torch.nn.Module):
    """Passes the collator's votes on; writes chains that decide for the first word of `decide`."""

    def __init__(self, decide=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        calibration = {"temperature": 1.0, "threshold": 0.5}
        self.config = SimpleNamespace(robots=list(ROBOTS), calibration=calibration, explain_decision=False)
        self.decide = decide
        self.batch_sizes = []

    def forward(self, votes):
        assert not self.training and torch.is_inference_mode_enabled()
        self.batch_sizes.append(len(votes))
        return SimpleNamespace(selection_logits=votes * self.scale)

    def generate_answers(self, processor, tasks, images, max_new_tokens=256):
        votes = FakeCollator(None, None)([{"task": t, "image": i} for t, i in zip(tasks, images, strict=True)])[
            "votes"
        ]
        answers = []
        for task, vote in zip(tasks, votes, strict=True):
            robot = self.decide or ROBOTS[int(vote.argmax())]
            verdicts = "; ".join(f"{name}: {'yes' if name == robot else 'no'}, because" for name in ROBOTS)
            text = (
                f"Step 1: Task Analysis: {task}.\nStep 2: Environment Assessment: dry.\n"
                f"Step 3: Robot Capability Matching: {verdicts}.\n"
                f"Step 4: Decision Justification: it fits. Decision: {robot}."
            )
            plan = (Subtask("reach the place", robot, 1),)
            answers.append(SimpleNamespace(text=text, reasoning=text, robots=(robot,), plan=plan))
        return answers
