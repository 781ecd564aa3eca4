"""The episodes that a LeRobot data set names, their tasks and statistics, wherever its version keeps them."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.sources.lerobot.info import DatasetInfo, load_json, load_json_lines
from hfvla.data.sources.parquet_rows import check_once, check_regular
from hfvla.data.text import clean_text, text_problem
from hfvla.data.walking import natural_key
from hfvla.errors import DataError

__all__ = ["EpisodeEntry", "Stats", "aggregate_stats", "load_episodes", "load_stats", "load_tasks"]

logger = logging.getLogger(__name__)

Stats = dict[str, dict[str, np.ndarray]]
"""Feature to {"min", "max", "mean", "std", "count", and in v3.0 "q01", ...} to values."""


@dataclass(frozen=True)
class EpisodeEntry:
    """Where an episode lies.

    Attributes:
        index: its number.
        length: steps.
        tasks: texts of its tasks.
        table: parquet file of its steps.
        first_row: of the table.
        videos: camera to (file, second of the file at which the episode starts).
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    table: Path
    first_row: int
    videos: dict[str, tuple[Path, float]]


def load_episodes(root: Path, info: DatasetInfo) -> dict[int, EpisodeEntry]:
    """Read the list of episodes, by number.

    Raises:
        DataError: missing or broken file, an entry without its number or length, or a number named twice.
    """
    entries = _episodes_v3(root, info) if info.version == "v3.0" else _episodes_v2(root, info)
    found: dict[int, EpisodeEntry] = {}
    for entry in entries:
        if entry.index in found:
            raise DataError("an episode is named twice", where=str(root / "meta"), got=entry.index)
        found[entry.index] = entry
    return dict(sorted(found.items()))


def _episodes_v2(root: Path, info: DatasetInfo) -> list[EpisodeEntry]:
    videos = [name for name in info.cameras if info.features[name].dtype == "video"]
    entries = []
    for where, line in load_json_lines(root / "meta/episodes.jsonl"):
        index, length = _whole(line, "episode_index", where), _whole(line, "length", where)
        fields: dict[str, Any] = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        entries.append(
            EpisodeEntry(
                index=index,
                length=length,
                tasks=_texts(line.get("tasks"), where),
                table=_file(root, info.data_path, where, **fields),
                first_row=0,
                videos={key: (_file(root, info.video_path, where, **fields, video_key=key), 0.0) for key in videos},
            )
        )
    return entries


def _episodes_v3(root: Path, info: DatasetInfo) -> list[EpisodeEntry]:
    rows = _table_rows(root / "meta/episodes", skip=re.compile(r"^stats/"))
    starts: dict[tuple[int, int], int] = {}  # a table's first step, in the numbering of the whole data set
    for where, row in rows:
        file = _whole(row, "data/chunk_index", where), _whole(row, "data/file_index", where)
        start = _whole(row, "dataset_from_index", where)
        starts[file] = min(starts.get(file, start), start)
    return [_episode_v3(root, info, where, row, starts) for where, row in rows]


def _episode_v3(
    root: Path, info: DatasetInfo, where: str, row: Mapping[str, Any], starts: Mapping[tuple[int, int], int]
) -> EpisodeEntry:
    chunk, file = row["data/chunk_index"], row["data/file_index"]
    videos = {}
    for key in (name for name in info.cameras if info.features[name].dtype == "video"):
        place = {field: _whole(row, f"videos/{key}/{field}", where) for field in ("chunk_index", "file_index")}
        from_s = row.get(f"videos/{key}/from_timestamp")
        if not isinstance(from_s, int | float) or not 0 <= from_s < math.inf:
            raise DataError("no such time", where=f"{where}: videos/{key}/from_timestamp", got=from_s)
        videos[key] = (_file(root, info.video_path, where, video_key=key, **place), float(from_s))
    return EpisodeEntry(
        index=_whole(row, "episode_index", where),
        length=_whole(row, "length", where),
        tasks=_texts(row.get("tasks"), where),
        table=_file(root, info.data_path, where, chunk_index=chunk, file_index=file),
        first_row=row["dataset_from_index"] - starts[chunk, file],
        videos=videos,
    )


def _file(root: Path, template: str, where: str, **fields: Any) -> Path:
    """Return the file that a template names.

    Raises:
        DataError: it leaves the folder of the data set.
    """
    path = Path(os.path.normpath(root / template.format(**fields)))
    if not path.is_relative_to(root):
        raise DataError("path outside the data set", where=where, got=template.format(**fields)[:200])
    return path


def _table_rows(folder: Path, *, skip: re.Pattern[str]) -> list[tuple[str, dict[str, Any]]]:
    """Read every parquet file of a folder as ("file:row", row) pairs, without the columns that match."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [folder]
    if folder.is_dir():
        found = list(folder.glob("*/*.parquet"))
        hidden = [path for path in found if path.name.startswith(".")]  # "._file-000.parquet" of macOS
        if hidden:
            logger.info("%s: %d hidden files are passed over", folder, len(hidden))
        paths = sorted(set(found) - set(hidden), key=lambda path: [natural_key(part) for part in path.parts])
    if not paths:
        raise DataError("no table", where=str(folder), expected="chunk-000/file-000.parquet and so on")
    rows = []
    for path in paths:
        try:
            check_regular(path)
            names = [name for name in pq.read_schema(path).names if not skip.match(name)]
            check_once(names, path)
            table = pq.read_table(path, columns=names, memory_map=True, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise DataError("not a parquet table", where=str(path), got=str(error).splitlines()[0]) from error
        rows += [(f"{path}:{number}", row) for number, row in enumerate(table.to_pylist())]
    return rows


def _whole(entry: Mapping[str, Any], key: str, where: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise DataError("no such number", where=f"{where}: {key}", got=value, expected="a whole number, 0 or more")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise DataError("no list of tasks", where=f"{where}: tasks", got=value)
    return tuple(_stored(one, where) for one in value)


def _stored(text: str, where: str) -> str:
    if problem := text_problem(text):
        raise DataError("a task is no text", where=where, got=problem)
    return clean_text(text)


def load_tasks(root: Path, info: DatasetInfo) -> dict[int, str]:
    """Read the tasks' texts, by number.

    Raises:
        DataError: missing or broken file, an entry without its number or text, or two tasks of one number.
    """
    if info.version == "v3.0":
        rows: list[tuple[str, Mapping[str, Any]]] = list(
            _table_rows(root / "meta/tasks.parquet", skip=re.compile("$^"))
        )
    else:
        rows = list(load_json_lines(root / "meta/tasks.jsonl"))
    tasks: dict[int, str] = {}
    for where, row in rows:
        # v3.0 keeps the text in the index of a pandas frame, whose column has no certain name.
        texts = [value for value in row.values() if isinstance(value, str)]
        text = row["task"] if isinstance(row.get("task"), str) else (texts[0] if len(texts) == 1 else None)
        if text is None:
            raise DataError("a task has no text", where=where, got=dict(row))
        number, text = _whole(row, "task_index", where), _stored(text, where)
        if tasks.setdefault(number, text) != text:
            raise DataError("two tasks have one number", where=where, got=f"{number}: {tasks[number]!r} and {text!r}")
    return tasks


def load_stats(root: Path, info: DatasetInfo) -> Stats:
    """Read the statistics of the whole data set: all episodes that it names, whether they are on disk or not.

    Those of v2.1 stand by episode and are put together here. For training, fit statistics on the training split.

    Raises:
        DataError: missing or broken file.
    """
    if info.version != "v2.1":
        path = root / "meta/stats.json"
        return _as_stats(load_json(path), str(path))
    path = root / "meta/episodes_stats.jsonl"
    parts = [_as_stats(line.get("stats"), where) for where, line in load_json_lines(path)]
    try:
        return aggregate_stats(parts)
    except (ValueError, IndexError) as error:
        raise DataError("statistics of the episodes do not fit together", where=str(path), got=str(error)) from error


def _as_stats(content: Any, where: str) -> Stats:
    if not isinstance(content, Mapping) or not all(isinstance(entry, Mapping) for entry in content.values()):
        raise DataError("no statistics", where=where, got=type(content).__name__, expected="{feature: {name: values}}")
    try:
        return {
            name: {key: np.asarray(value, dtype=np.float64) for key, value in entry.items()}
            for name, entry in content.items()
        }
    except (TypeError, ValueError) as error:
        raise DataError("statistics are not numbers", where=where, got=str(error)) from error


def _check_complete(parts: Sequence[Stats]) -> None:
    for number, part in enumerate(parts):
        for name, entry in part.items():
            missing = {"min", "max", "mean", "std", "count"} - entry.keys()
            if missing:
                raise DataError("statistics are missing", where=f"episode entry {number}: {name}", got=sorted(entry),
                                expected=sorted(missing))  # fmt: skip


def aggregate_stats(parts: Sequence[Stats]) -> Stats:
    """Put statistics of several episodes together.

    Minimum, maximum, mean, standard deviation and count are exact; quantiles are the episodes' mean, weighted by
    count, as the format has it. A feature that an episode lacks is taken from the others.

    Raises:
        DataError: an entry lacks one of min, max, mean, std and count.
    """
    together: Stats = {}
    _check_complete(parts)
    for name in dict.fromkeys(name for part in parts for name in part):
        entries = [part[name] for part in parts if name in part]
        counts = np.array([float(entry["count"].reshape(-1)[0]) for entry in entries])
        shares = counts / counts.sum()

        def mean(values: list[np.ndarray], shares: np.ndarray = shares) -> np.ndarray:
            return np.tensordot(shares, np.stack(values), axes=1)

        centre = mean([entry["mean"] for entry in entries])
        spread = mean([entry["std"] ** 2 + (entry["mean"] - centre) ** 2 for entry in entries])
        together[name] = {
            "min": np.min([entry["min"] for entry in entries], axis=0),
            "max": np.max([entry["max"] for entry in entries], axis=0),
            "mean": centre,
            "std": np.sqrt(spread),
            "count": np.array([counts.sum()]),
        }
        for key in (key for key in entries[0] if re.fullmatch(r"q\d\d", key)):
            together[name][key] = mean([entry[key] for entry in entries])
    return together
