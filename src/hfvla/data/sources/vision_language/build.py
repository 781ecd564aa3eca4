"""From a path to rows: what lies there, what each file is taken for, reading it, counting what cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language.arrow_cache import cache_folder, cache_key, cached_rows
from hfvla.data.sources.vision_language.discovery import Found, discover
from hfvla.data.sources.vision_language.image_files import ImageFiles
from hfvla.data.sources.vision_language.options import VisionLanguageOptions
from hfvla.data.sources.vision_language.plan import KINDS, Plan, plan_files
from hfvla.data.sources.vision_language.reading import Reading
from hfvla.data.sources.vision_language.records import Taken
from hfvla.errors import DataError
from hfvla.family import SourceData

__all__ = ["build_vision_language", "read_samples", "stream_rows", "table_folder"]

logger = logging.getLogger(__name__)

_MOST_NAMED = 50


def read_samples(plan: Plan, reading: Reading) -> Iterator[ChatSample]:
    """Yield the samples of all files, in the files' order."""
    for taken in plan.taken:
        yield from KINDS[taken.format].read(taken, reading)


def build_vision_language(options: VisionLanguageOptions, *, seed: int = 0) -> SourceData:
    """Read a file of a vision-language set, or a folder of any of them, into rows of `chat_features`.

    Args:
        options: see `VisionLanguageOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census counts records, and names what each file was taken for ("files"), files that nothing
        recognises ("unknown"), official splits that were left out, and links that were not followed.

    Raises:
        DataError: nothing at the path, nothing there that is recognised, broken files, no usable record of the
            splits, or too many unusable records.
    """
    plan = plan_files(options)
    if options.streaming:
        return _streamed(options, plan)
    reading = _reading(options, plan)
    rows, facts = cached_rows(
        table_folder(options, plan), lambda: _checked(options, plan, reading), lambda: _facts(plan, reading)
    )
    _refuse_nothing(options, facts, len(rows))
    return SourceData(rows, facts["census"], facts["rejected"])


def table_folder(options: VisionLanguageOptions, plan: Plan) -> Path:
    """Return where the table of a set lies, or will lie; options that change no row change no name."""
    kept = options.model_dump(exclude={"streaming", "cache_dir", "max_bad_fraction"})
    return cache_folder(options.cache_dir) / cache_key(kept, plan.paths, plan.found.pictures)


def _reading(options: VisionLanguageOptions, plan: Plan) -> Reading:
    found = discover(Path(options.images), follow_links=options.follow_links) if options.images else plan.found
    images = ImageFiles(found.root, found.pictures, options.check_images, follow_links=options.follow_links)
    return Reading(options, images, plan.found.root, alone=len(plan.taken) == 1)


def _checked(options: VisionLanguageOptions, plan: Plan, reading: Reading) -> Iterator[ChatSample]:
    """Yield the samples, then say what was counted; too many unusable records leave no table behind."""
    yield from read_samples(plan, reading)
    _log(options, plan, reading)
    reading.census.refuse_if_too_bad(options.max_bad_fraction, options.path)


def _log(options: VisionLanguageOptions, plan: Plan, reading: Reading) -> None:
    more = [(f"samples of {name}", count) for name, count in reading.by_set.items()]
    more += [(f"left out: split {name}", count) for name, count in reading.left_out.items()]
    more += list(reading.notes.items())
    reading.census.log(options.path, more)
    _log_files(plan, reading)


def _log_files(plan: Plan, reading: Reading) -> None:
    for name, kind in plan.files.items():
        split = reading.files_left_out.get(name)
        logger.info("%s: taken for %s%s", name, kind, f"; left out, of the split {split}" if split else "")
    for name in reading.address_files:
        logger.warning("%s: not read: addresses of pictures that are not on disk (fetch them with img2dataset)", name)
    for name, reason in plan.beside.items():
        logger.info("%s: read with others: %s", name, reason)
    for name, reason in plan.unknown.items():
        logger.warning("%s: not recognised, and not read: %s", name, reason)
    for path, reason in plan.found.passed:
        logger.warning("%s is passed over: %s", path, reason)


def _facts(plan: Plan, reading: Reading) -> dict[str, Any]:
    census: dict[str, Any] = {
        "found": reading.census.found,
        "usable": reading.census.usable,
        "rejected": reading.census.rejected(),
        "samples": dict(reading.by_set),
        "files": plan.files,
        "beside": dict(list(plan.beside.items())[:_MOST_NAMED]),
        "unknown": dict(list(plan.unknown.items())[:_MOST_NAMED]),
        "addresses_only": reading.address_files[:_MOST_NAMED],
        "left_out": dict(reading.left_out),
        "files_left_out": dict(reading.files_left_out),
        "notes": dict(reading.notes),
    }
    if plan.found.passed:
        path, reason = plan.found.passed[0]
        census["passed_over"] = {"count": len(plan.found.passed), "first": f"{path}: {reason}"}
    if plan.found.hidden:
        census["hidden"] = plan.found.hidden
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in reading.census.rejections if one.id}
    return {"census": census, "rejected": rejected}


def _refuse_nothing(options: VisionLanguageOptions, facts: dict[str, Any], rows: int) -> None:
    if rows:
        return
    census = facts["census"]
    splits = sorted({*census["left_out"], *census["files_left_out"].values()})
    raise DataError(
        f"no record of the split '{', '.join(options.splits)}'" if splits else "no usable record",
        where=options.path,
        got=f"records of {', '.join(splits)}" if splits else census["rejected"] or "no record",
        fix=f"Say `split: {splits[0]}` where these are wanted." if splits else "Check the files.",
    )


def _streamed(options: VisionLanguageOptions, plan: Plan) -> SourceData:
    """Return rows that are read anew in each pass; files are shared out among workers."""
    from datasets import IterableDataset

    rows = IterableDataset.from_generator(
        stream_rows,  # its rows are of `chat_features`; to say so would have each encoded anew, for twice the time
        gen_kwargs={"taken": plan.taken, "options": options, "found": plan.found},
    )
    census = {
        "streaming": True,
        "files": plan.files,
        "unknown": dict(list(plan.unknown.items())[:_MOST_NAMED]),
        "rejected": {},
    }
    logger.info("%s is streamed: its records are counted at the end of each pass", options.path)
    _log_files(plan, _reading(options, plan))
    return SourceData(rows, census)


def stream_rows(taken: list[Taken], options: VisionLanguageOptions, found: Found) -> Iterator[dict[str, Any]]:
    """Yield the rows of some of a source's files; the census is logged at the end of each pass.

    Raises:
        DataError: too many unusable records.
    """
    plan = Plan(found, list(taken))
    reading = _reading(options, plan)
    for sample in _checked(options, plan, reading):
        yield sample.to_row()
