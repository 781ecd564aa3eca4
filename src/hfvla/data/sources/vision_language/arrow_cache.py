"""Samples as an Arrow table on disk, found again by what they were made of."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.data.samples.chat import ChatSample, chat_features

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["cache_folder", "cache_key", "cached_rows", "kept_facts", "write_rows"]

logger = logging.getLogger(__name__)

_VERSION = 3  # of what readers make of a record; another number, and tables are made anew
_ROWS = "rows.arrow"
_FACTS = "source.json"
_BATCH_ROWS = 4000
_BATCH_BYTES = 1 << 27  # of pictures
_TELL_S = 30  # between two lines of the log


def cache_folder(chosen: str | None) -> Path:
    """Return the folder of all tables: the one a recipe names, or that of `datasets`."""
    from datasets import config

    return Path(chosen) if chosen else Path(config.HF_DATASETS_CACHE) / "hfvla" / "vision_language"


def cache_key(options: dict[str, Any], files: Iterable[Path], folders: Iterable[Path]) -> str:
    """Return a name that changes with options, any file's size or time, and what a folder of pictures holds.

    Args:
        options: that decide what the rows are.
        files: read for records.
        folders: of pictures; their times change when a picture comes or goes.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, options], sort_keys=True, default=str).encode())
    for path in (*files, *folders):
        status = os.stat(path)
        digest.update(json.dumps([str(path), status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()[:32]


def cached_rows(
    folder: Path, samples: Callable[[], Iterator[ChatSample]], facts: Callable[[], dict[str, Any]]
) -> tuple[Dataset, dict[str, Any]]:
    """Return rows and facts from a folder, which is written first where it is not there.

    Args:
        folder: of this table alone; appears when all of it is written.
        samples: yields what the rows are made of.
        facts: what is kept beside them, asked for after the last sample.
    """
    from datasets import Dataset

    if kept_facts(folder) is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            write_rows(work / _ROWS, samples())
            (work / _FACTS).write_text(json.dumps(facts(), default=str), encoding="utf-8")
            _publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    else:
        logger.info("rows are taken from %s", folder)
    return Dataset.from_file(str(folder / _ROWS)), kept_facts(folder) or {}


def kept_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts beside a table that is there, None where there is none."""
    path = folder / _FACTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _publish(work: Path, folder: Path) -> None:
    try:
        os.rename(work, folder)
    except OSError:
        if not (folder / _FACTS).is_file():  # another process may have been first, with the same rows
            raise


def write_rows(path: Path, samples: Iterable[ChatSample]) -> int:
    """Write samples to an Arrow file of `chat_features`, a few thousand in memory at a time; return their number.

    Each batch of the file costs memory as long as the table is open, and brings pages around its head into memory:
    `datasets.arrow_writer` would write a hundred rows a batch, which is 0.7 GB for five million.
    """
    import pyarrow as pa

    schema, written, told = chat_features().arrow_schema, 0, time.monotonic()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for rows in _batches(samples):
            stream.write_table(pa.Table.from_pylist(rows, schema=schema))
            written += len(rows)
            if time.monotonic() - told > _TELL_S:
                logger.info("%s samples read so far", f"{written:,}")
                told = time.monotonic()
    return written


def _batches(samples: Iterable[ChatSample]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists that are neither long nor, where samples bring the bytes of their pictures, large."""
    rows: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        rows.append(sample.to_row())
        size += sum(len(ref.data) for ref in sample.images)
        if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
