"""Whether a run has been done in full, so that its result can be shown again at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.recipe import Recipe, Stage, resolved_dict
from hfvla.sealing import check_contents

__all__ = ["is_finished"]


def is_finished(folder: Path, record: Mapping[str, Any], recipe: Recipe, stages: Sequence[Stage]) -> bool:
    """Tell whether an earlier process did all of a run, and its checkpoint, scores and report are still there.

    Args:
        folder: run folder.
        record: content of its run.json.
        recipe: of the run, as it is asked for now.
        stages: those that are asked for now.

    Raises:
        CheckpointError: a checkpoint of the run is damaged.
    """
    names = [stage.get("name") for stage in record.get("stages", ())]
    files = ["report.html", "final/config.json", *(["metrics.json"] if recipe.data.scored else [])]
    same = record.get("recipe") == json.loads(json.dumps(resolved_dict(recipe), default=str))
    if not record.get("finished") or not same or names != [stage.name for stage in stages]:
        return False
    if not all((folder / name).is_file() for name in files):
        return False
    for name in (*names, "final"):
        check_contents(folder / str(name))
    return True
