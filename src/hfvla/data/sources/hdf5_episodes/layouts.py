"""Where an HDF5 episode keeps what: ACT's layout (ALOHA too), a file an episode; robomimic's, many episodes in a file.

```text
action, observations/qpos, observations/images/<camera>, timestamp             ACT, ALOHA
data/demo_0/actions, data/demo_0/obs/<state>, data/demo_0/obs/<camera>         robomimic, LIBERO
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.hdf5_checks import HDF5_ERRORS
from hfvla.data.sources.hdf5_rows import import_h5py
from hfvla.data.text import clean_text, text_problem

__all__ = ["ACT", "ROBOMIMIC", "Layout", "demos_of", "robomimic_facts"]

_MAX_FACTS = 1 << 20  # letters of a JSON attribute
_DEMO = re.compile(r"demo_(\d+)")


@dataclass(frozen=True)
class Layout:
    """Names of one kind of file.

    Attributes:
        name: as errors say it.
        action: dataset of the actions, where the options name none.
        observations: group of states and cameras.
        images: group of the cameras; "" where they lie among the states and are told by their shape.
        states: sets of datasets that make a state where the options name none; the first that is there in full.
    """

    name: str
    action: str
    observations: str
    images: str
    states: tuple[tuple[str, ...], ...]

    def views(self, datasets: Mapping[str, Any], lost: Sequence[str]) -> list[str]:
        """Return the cameras' names, of those behind lost links too."""
        start = f"{self.images or self.observations}/"
        found = [name for name in (*datasets, *lost) if name.startswith(start)]
        if not self.images:
            found = [name for name in found if name in datasets and _is_camera(datasets[name])]
        return [name.removeprefix(start) for name in found]

    def state(self, datasets: Mapping[str, Any], wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Return the datasets of the state, from the observations' group.

        Raises:
            UnusableError: none are named, and none of the known ones is there.
        """
        if wanted is not None:
            return tuple(wanted)
        for names in self.states:
            if all(f"{self.observations}/{name}" in datasets for name in names):
                return names
        if len(self.states) == 1:
            return self.states[0]  # reading it says what is missing
        start = f"{self.observations}/"
        there = [n.removeprefix(start) for n in datasets if n.startswith(start) and not _is_camera(datasets[n])]
        raise UnusableError(
            "no state that is known", f"name datasets in `state`, of {', '.join(there[:20])}; [] for none"
        )


def _is_camera(dataset: Any) -> bool:
    shape: tuple[int, ...] = dataset.shape or ()
    return dataset.dtype == np.uint8 and len(shape) == 4 and shape[3] in (3, 4)


ACT = Layout("ACT", "action", "observations", "observations/images", (("qpos",),))
ROBOMIMIC = Layout(
    "robomimic",
    "actions",
    "obs",
    "",
    (
        ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
        ("ee_states", "gripper_states"),  # LIBERO
        ("ee_pos", "ee_ori", "gripper_states"),
    ),
)


def demos_of(file: Any) -> list[str]:
    """Return the groups of robomimic's episodes, in the order of their numbers; none for another kind of file."""
    h5py = import_h5py()
    try:
        data = file.get("data")
        names = list(data) if isinstance(data, h5py.Group) else []
    except HDF5_ERRORS as error:
        raise UnusableError("HDF5 file is damaged", f"group data: {str(error)[:200]}") from error
    demos = [(int(match[1]), name) for name in names if isinstance(name, str) and (match := _DEMO.fullmatch(name))]
    return [f"data/{name}" for _, name in sorted(demos)]


def robomimic_facts(file: Any) -> tuple[str | None, float | None]:
    """Return the task in words and the control rate in Hz that robomimic's or LIBERO's attributes say, else None."""
    problem, environment = (_json_attribute(file, name) for name in ("problem_info", "env_args"))
    words = problem.get("language_instruction") or environment.get("env_name")
    words = words[0] if isinstance(words, list) and words else words
    settings = environment.get("env_kwargs")
    rate = settings.get("control_freq") if isinstance(settings, Mapping) else None
    task, rate_hz = None, None
    if isinstance(words, str) and words.strip() and not text_problem(words):
        task = clean_text(words)
    if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < 1e6:
        rate_hz = float(rate)
    return task, rate_hz


def _json_attribute(file: Any, name: str) -> Mapping[str, Any]:
    try:
        text = file["data"].attrs.get(name)
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        found = json.loads(text) if isinstance(text, str) and len(text) <= _MAX_FACTS else {}
    except (*HDF5_ERRORS, RecursionError):
        return {}
    return found if isinstance(found, Mapping) else {}
