"""What of a checkpoint is pushed, in three forms.

final      every file of the checkpoint, for hfvla: heads, processor, recipe, adapters; with `code` for others, too
merged     the plain backbone with what was trained in it, in transformers' layout; hfvla is not needed
adapter    the trained adapters for the plain backbone, in peft's layout; hfvla is not needed
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError
from hfvla.family import FamilySpec
from hfvla.hub.card import CARD, card_of_run, card_text
from hfvla.hub.code import files_with_code
from hfvla.hub.push import push_files
from hfvla.loading import check_folder, read_object
from hfvla.outputs import MARK
from hfvla.recipe.schema import HubRecipe

__all__ = ["push_checkpoint", "pushed_files"]

_OF_A_RUN = ("report.html", "metrics.json", "experiment_summary.json")


def push_checkpoint(folder: str | Path, hub: HubRecipe) -> dict[str, Any]:
    """Push a run's final checkpoint, or any checkpoint folder, with its card and report.

    Args:
        folder: of a run, or of a checkpoint.
        hub: repository, form and visibility.

    Returns:
        `dict`: see `hfvla.hub.push.push_files`; also "what".

    Raises:
        CheckpointError: the folder is no checkpoint, has no such form, or the push failed.
    """
    folder = Path(folder)
    with pushed_files(folder, hub) as files:
        found = push_files(hub.repo, files, private=hub.private, message=f"hfvla: {hub.what} of {folder.name}")
    return {**found, "what": hub.what}


@contextmanager
def pushed_files(folder: Path, hub: HubRecipe) -> Iterator[dict[str, Path]]:
    """Return the files to push by their names in the repository; those made for it are deleted at the end.

    Raises:
        CheckpointError: the folder is no checkpoint, or has no such form.
    """
    run = folder if (folder / "run.json").is_file() else folder.parent
    checkpoint = folder / "final" if run == folder else folder
    if not checkpoint.is_dir():
        raise CheckpointError(
            "no checkpoint to push", where=str(checkpoint), expected="a run with final/, or a checkpoint's folder"
        )
    of_final = checkpoint.name == "final" and (run / "run.json").is_file()
    check_folder(checkpoint)
    with tempfile.TemporaryDirectory(prefix="hfvla-push-") as name:
        made = Path(name)
        if hub.what == "final":
            files = _files(checkpoint)
        else:
            from hfvla.export.plain import write_adapter, write_backbone

            (write_backbone if hub.what == "merged" else write_adapter)(checkpoint, made / "form")
            files = _files(made / "form")
        if hub.code:
            (made / "code").mkdir()
            files = files_with_code(_family(checkpoint, hub), files, made / "code")
        if of_final:
            files |= {one: run / one for one in _OF_A_RUN if (run / one).is_file()}
        if of_final or hub.what != "final" or CARD not in files or hub.code:
            (made / CARD).write_text(_card(checkpoint, run if of_final else None, hub), encoding="utf-8")
            files[CARD] = made / CARD
        yield files


def _family(checkpoint: Path, hub: HubRecipe) -> FamilySpec:
    """Return the family whose code goes along.

    Raises:
        CheckpointError: the form needs no code.
    """
    if hub.what != "final":
        raise CheckpointError(
            "code goes with the whole checkpoint alone", where=f"hub.code with hub.what: {hub.what}",
            fix="Leave out `code`: transformers and peft load this form as it is.",
        )  # fmt: skip
    from hfvla.registry import family_of_checkpoint

    return family_of_checkpoint(checkpoint)


def _files(folder: Path) -> dict[str, Path]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARK]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _card(checkpoint: Path, run: Path | None, hub: HubRecipe) -> str:
    """Return the card of a run, or what can be said of a folder that is none.

    Raises:
        CheckpointError: nothing is known of where it comes from.
    """
    if run is not None:
        return card_of_run(run, repo=hub.repo, what=hub.what, license=hub.license, code=hub.code)
    if not (checkpoint / "recipe.json").is_file():
        raise CheckpointError(
            "there is no model card, and no recipe to write one from", where=str(checkpoint),
            expected=f"{CARD} or recipe.json in it", fix="Write a card, or push the run's folder.",
        )  # fmt: skip
    record: Mapping[str, Any] = {"recipe": read_object(checkpoint / "recipe.json")}
    return card_text(record, {}, repo=hub.repo, what=hub.what, license=hub.license, code=hub.code)
