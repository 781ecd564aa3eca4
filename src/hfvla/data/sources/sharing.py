"""Building the sources of a run on several processes: each is built by one of them and read by all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.processes import Meeting
from hfvla.family import SourceData

__all__ = ["build_sources"]

logger = logging.getLogger(__name__)

_FACTS = "source.json"


def build_sources(
    builders: Mapping[str, Callable[[], SourceData]], meeting: Meeting | None = None, name: str = "source"
) -> dict[str, SourceData]:
    """Build sources; where processes meet, each builds every n-th one, and all read the tables that are written.

    Args:
        builders: builds one source, by its key; the same on every process, in the same order.
        meeting: of the processes; None, or of one process: everything is built here.
        name: of this call, unique in the meeting.

    Raises:
        DataError: a source cannot be used.
        HfvlaError: another process could not build one.
    """
    if meeting is None or meeting.processes.count == 1:
        return {key: build() for key, build in builders.items()}
    processes, built = meeting.processes, {}
    places = {key: (number % processes.count, f"{name}-{number}") for number, key in enumerate(builders)}
    for key, (owner, place) in places.items():
        if owner == processes.index:
            with meeting.announced(place):
                built[key] = builders[key]()
                _write(built[key], meeting.folder / place)
    for key, (owner, place) in places.items():
        if owner != processes.index:
            meeting.wait(place)
            built[key] = _read(meeting.folder / place) or builders[key]()
    return {key: built[key] for key in builders}


def _write(data: SourceData, folder: Path) -> None:
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(data.dataset, Dataset):
        return  # rows of another kind: each process builds its own
    data.dataset.save_to_disk(str(folder / "rows"))
    facts = {"census": data.census, "rejected": data.rejected}
    (folder / _FACTS).write_text(json.dumps(facts, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _read(folder: Path) -> SourceData | None:
    from datasets import load_from_disk

    if not (folder / _FACTS).is_file():
        return None
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    return SourceData(load_from_disk(str(folder / "rows")), facts["census"], facts["rejected"])
