"""How many samples a set has, for plans: from its table where there is one, else from what records have once each.

Small sets are read: training finds their tables. Of a large one the bytes are searched for a key that each record has,
or the lines or the numbers in a footer are counted; no record is parsed, and those that cannot be used count, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hfvla.data.sources.vision_language import vqa
from hfvla.data.sources.vision_language.arrow_cache import kept_facts
from hfvla.data.sources.vision_language.build import build_vision_language, table_folder
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.options import VisionLanguageOptions
from hfvla.data.sources.vision_language.plan import Plan, plan_files
from hfvla.data.sources.vision_language.records import Taken
from hfvla.data.sources.vision_language.splits import split_of_path, split_wanted

__all__ = ["count_vision_language"]

_LARGE = 1 << 28  # bytes of a set's files, above which it is not read to be counted
_CHUNK = 1 << 24
_KEYS = {  # that each sample of a format has once
    "coco_captions": "caption",
    "aokvqa": "question_id",
    "gqa": "imageId",
    "textvqa": "question_id",
    "textcaps": "caption_str",
    "visual_genome": "phrase",
    "preference": "chosen",
}
_TURNS = ("messages", "conversations", "conversation", "texts")


def count_vision_language(options: VisionLanguageOptions) -> int | None:
    """Return the samples of a set; None where they are streamed.

    Exact where the table is made already or the files are small. Otherwise near: records that cannot be used count,
    and so do those of other official splits in one file.

    Raises:
        DataError: see `build_vision_language`.
    """
    if options.streaming:
        return None
    plan = plan_files(options)
    facts = kept_facts(table_folder(options, plan))
    if facts is not None:
        return int(facts["census"]["usable"])
    found = _counted(plan, options) if sum(path.stat().st_size for path in plan.paths) > _LARGE else None
    return len(build_vision_language(options).dataset) if found is None else found


def _counted(plan: Plan, options: VisionLanguageOptions) -> int | None:
    """Return the records of all files; None where one of them is of a format that only reading counts."""
    total = 0
    for taken in plan.taken:
        for head in _with_samples(taken):
            split = split_of_path(head.name)
            if split and not split_wanted(split, options.splits):
                continue
            found = _records(head, taken.format)
            if found is None:
                return None
            total += found
    return total


def _with_samples(taken: Taken) -> tuple[Head, ...]:
    """Return the files that have a record a sample; others are joined to them."""
    return tuple(head for head in taken.heads if taken.format != "vqa" or vqa.is_questions(head))


def _records(head: Head, kind: str) -> int | None:
    if head.kind == "parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(head.path).num_rows)
    if head.kind == "jsonl":
        return sum(chunk.count(b"\n") for chunk in _chunks(head.path))
    if head.kind in ("tsv", "csv"):
        return max(sum(chunk.count(b"\n") for chunk in _chunks(head.path)) - 1, 0)
    key = "question_id" if kind == "vqa" else _KEYS.get(kind)
    if kind in ("llava", "messages"):
        key = next((name for name in _TURNS if head.first.get(name)), None)
    return None if key is None or head.kind not in ("list", "object") else _occurrences(head.path, key)


def _occurrences(path: Path, key: str) -> int:
    """Count a key; within a text its quotes would stand behind backslashes."""
    wanted = re.compile(rb"(?<!\\)" + re.escape(json.dumps(key).encode()) + rb"\s*:")
    count, rest = 0, b""
    for chunk in _chunks(path):
        text, end = rest + chunk, 0
        for match in wanted.finditer(text):
            count, end = count + 1, match.end()
        rest = text[max(end, len(text) - len(key) - 64) :]
    return count


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
