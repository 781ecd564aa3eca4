"""Data sets of the hub, and folders that `datasets` reads: records by the names of their columns or a mapping."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.arrow_cache import cache_folder, cache_key, cached_rows
from hfvla.data.sources.vision_language.conversations import conversation_sample
from hfvla.data.sources.vision_language.generic import guess_columns, mapped_sample
from hfvla.data.sources.vision_language.options import HubOptions
from hfvla.data.sources.vision_language.reading import Reading, record_id
from hfvla.data.sources.vision_language.splits import split_wanted
from hfvla.errors import DataError
from hfvla.family import SourceData

__all__ = ["build_hub", "stream_hub_rows"]

logger = logging.getLogger(__name__)

_TURNS = ("messages", "conversations", "conversation", "texts")


def build_hub(options: HubOptions, *, seed: int = 0) -> SourceData:
    """Read a data set of the hub into rows of `chat_features`.

    Args:
        options: see `HubOptions`.
        seed: unused; part of every source's signature.

    Raises:
        DataError: not to be had (offline without a copy in the cache, unknown name, no right to it), no such split,
            no usable record, or too many unusable ones.
    """
    splits = _load(options)
    if options.streaming:
        from datasets import IterableDataset

        given = {"options": options, "splits": list(splits)}
        rows = IterableDataset.from_generator(stream_hub_rows, gen_kwargs=given)
        return SourceData(rows, {"streaming": True, "files": {options.repo: "hub"}, "rejected": {}})
    kept = options.model_dump(exclude={"streaming", "cache_dir", "max_bad_fraction"})
    kept["fingerprints"] = {name: getattr(rows, "_fingerprint", "") for name, rows in splits.items()}
    reading = Reading(options)
    rows, facts = cached_rows(
        cache_folder(options.cache_dir) / cache_key(kept, (), ()),
        lambda: _samples(options, splits, reading),
        lambda: _facts(options, reading),
    )
    if not len(rows):
        raise DataError("no usable record", where=options.repo, got=facts["census"]["rejected"], fix="Say `mapping`.")
    return SourceData(rows, facts["census"], facts["rejected"])


def stream_hub_rows(options: HubOptions, splits: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows as records arrive; the census is logged at the end of each pass.

    Raises:
        DataError: too many unusable records.
    """
    loaded = _load(options)
    for sample in _samples(options, {name: loaded[name] for name in splits}, Reading(options)):
        yield sample.to_row()


def _load(options: HubOptions) -> Mapping[str, Any]:
    """Return the wanted splits by name, pictures undecoded."""
    from datasets import Image, load_dataset

    try:
        loaded = load_dataset(options.repo, options.config, revision=options.revision, streaming=options.streaming)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise DataError(
            "the data set cannot be loaded",
            where=options.repo,
            got=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="Offline, it must be in the cache of `datasets`, or a folder on disk; online, check name and access.",
        ) from error
    wanted = {name: rows for name, rows in loaded.items() if split_wanted(name, options.splits)}
    if not wanted:
        raise DataError(
            f"no split '{', '.join(options.splits)}'",
            where=options.repo,
            got=", ".join(map(str, loaded)),
            fix=f"Say `split: {next(iter(loaded), '')}` where that one is wanted.",
        )
    for name, rows in wanted.items():
        for column, feature in (rows.features or {}).items():
            if isinstance(feature, Image):
                wanted[name] = wanted[name].cast_column(column, Image(decode=False))
            elif isinstance(getattr(feature, "feature", None), Image):
                kind = type(feature)(Image(decode=False))
                wanted[name] = wanted[name].cast_column(column, kind)
    return wanted


def _samples(options: HubOptions, splits: Mapping[str, Any], reading: Reading) -> Iterator[ChatSample]:
    for split, rows in splits.items():
        for number, record in enumerate(rows):
            where = f"{options.repo} {split}:{number}"
            with reading.record(where, record_id(record, "id", "question_id")):
                sample = _sample(record, where, options, reading)
                yield from reading.take(replace(sample, split=str(split)), again="keep")
    reading.census.log(options.repo, reading.notes.items())
    reading.census.refuse_if_too_bad(options.max_bad_fraction, options.repo)


def _sample(record: Mapping[str, Any], where: str, options: HubOptions, reading: Reading) -> ChatSample:
    source = options.repo.rstrip("/").rpartition("/")[2]
    if options.mapping is None and ("chosen" in record or any(record.get(key) for key in _TURNS)):
        return conversation_sample(record, where, Path(options.repo), reading, source)
    columns = options.mapping or guess_columns(record)
    if columns is None:
        raise UnusableError("no picture and text by any usual name", f"columns {sorted(record)}")
    return mapped_sample(record, where, Path(options.repo), reading, columns, source)


def _facts(options: HubOptions, reading: Reading) -> dict[str, Any]:
    census = {
        "found": reading.census.found,
        "usable": reading.census.usable,
        "rejected": reading.census.rejected(),
        "samples": dict(reading.by_set),
        "files": {options.repo: "hub"},
        "notes": dict(reading.notes),
    }
    return {
        "census": census,
        "rejected": {one.id: f"{one.reason}: {one.detail}" for one in reading.census.rejections if one.id},
    }
