"""Conversations in other files: a folder of JSON lines and pictures, Parquet, or tar shards.

All three hold the pictures themselves, so that the set can be moved, and are read back by `hfvla.data.sources`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hfvla.data.inspection.rows import is_chat, picture_sources
from hfvla.data.samples.chat import ChatSample, Turn
from hfvla.errors import DataError
from hfvla.outputs import claim_new_folder

__all__ = ["FORMATS", "convert_rows"]

FORMATS = ("jsonl", "parquet", "webdataset")

_ROWS_A_SHARD = 5000
_SUFFIXES = {b"\x89PNG": "png", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


def convert_rows(
    rows: Any, output: str | Path, to: str, rows_a_shard: int = _ROWS_A_SHARD, where: str = "rows"
) -> dict[str, Any]:
    """Write conversations into a new folder, which appears when it is complete.

    Args:
        rows: rows of `chat_features`, map-style or streamed.
        output: folder, new or empty.
        to: "jsonl" (`messages` of TRL and OpenAI, pictures in `images/`), "parquet" (the same with the pictures'
            bytes), or "webdataset" (tars of pictures with their conversation as JSON).
        rows_a_shard: rows of a Parquet file or a tar.
        where: names the rows in errors.

    Returns:
        `dict`: "output", "rows", "pictures", "files".

    Raises:
        DataError: rows of another kind, a picture that cannot be read, or a conversation that the format cannot hold.
    """
    folder = claim_new_folder(output)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        writer = {"jsonl": _write_lines, "parquet": _write_parquet, "webdataset": _write_shards}[to]
        counts = writer(_samples(rows, where), temporary, rows_a_shard)
        if not counts["rows"]:
            raise DataError("there is no row to write", where=where)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    return {"output": str(folder), "to": to, **counts, "files": files}


def _samples(rows: Any, where: str) -> Iterator[tuple[ChatSample, list[bytes]]]:
    """Yield conversations with the encoded bytes of their pictures."""
    for row in rows:
        if not is_chat(row):
            raise DataError(
                "these rows are no conversations",
                where=where,
                got=f"columns {', '.join(sorted(row))}",
                fix="Robot episodes are written with hfvla.data.sources.lerobot.LeRobotWriter.",
            )
        sample = ChatSample.from_row(dict(row))
        if sample.videos:
            raise DataError("a conversation about a video", where=f"{where}, {sample.id}", expected="pictures only")
        yield sample, [_bytes(source, f"{where}, {sample.id}") for source in picture_sources(row)]


def _bytes(source: str | bytes, where: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError("a picture cannot be read", where=f"{where}, {source}", got=error.strerror) from error


def _suffix(data: bytes) -> str:
    return next((suffix for head, suffix in _SUFFIXES.items() if data.startswith(head)), "jpg")


def _facts(sample: ChatSample) -> dict[str, Any]:
    """Return what goes beside the conversation; readers of other programs pass over what they do not know."""
    facts: dict[str, Any] = {"id": sample.id, "source": sample.source, "split": sample.split, "kind": sample.kind}
    facts |= {"group": sample.group, "references": list(sample.references), "weight": float(sample.weight)}
    if sample.boxes:
        facts["boxes"] = [
            {"image": b.image, "label": b.label, "xyxy": list(b.xyxy), "size": list(b.size), "crowd": b.crowd}
            for b in sample.boxes
        ]
    return {key: value for key, value in (facts | sample.details).items() if value not in ("", [])}


def _messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    found = []
    for turn in turns:
        content = [{"type": "image"} if part.type == "image" else vars(part) for part in turn.content]
        found.append({"role": turn.role, "content": content, **({} if turn.train else {"train": False})})
    return found


def _conversation(sample: ChatSample) -> dict[str, Any]:
    """Return the turns as TRL has them: `messages`, or `prompt`, `chosen` and `rejected`."""
    if not sample.rejected:
        return {"messages": _messages(sample.turns)}
    same = 0
    for one, other in zip(sample.turns, sample.rejected, strict=False):
        if one != other:
            break
        same += 1
    return {
        "prompt": _messages(sample.turns[:same]),
        "chosen": _messages(sample.turns[same:]),
        "rejected": _messages(sample.rejected[same:]),
    }


def _write_lines(samples: Iterable[Any], folder: Path, rows_a_shard: int) -> dict[str, int]:
    rows, written = 0, set()
    (folder / "images").mkdir()
    with open(folder / "data.jsonl", "w", encoding="utf-8") as file:
        for sample, pictures in samples:
            names = []
            for data in pictures:  # one file a picture, however many conversations are about it
                name = f"images/{hashlib.blake2b(data, digest_size=12).hexdigest()}.{_suffix(data)}"
                if name not in written:
                    (folder / name).write_bytes(data)
                    written.add(name)
                names.append(name)
            record = {**_facts(sample), **_conversation(sample), "images": names}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            rows += 1
    return {"rows": rows, "pictures": len(written)}


def _write_parquet(samples: Iterable[Any], folder: Path, rows_a_shard: int) -> dict[str, int]:
    from datasets import Dataset

    rows = pictures = shard = 0
    batch: list[dict[str, Any]] = []

    def write() -> None:
        nonlocal shard
        Dataset.from_list(batch).to_parquet(folder / f"part-{shard:05d}.parquet")
        shard += 1
        batch.clear()

    for sample, data in samples:
        texts = {key: json.dumps(v, ensure_ascii=False) if key == "boxes" else v for key, v in _facts(sample).items()}
        images = [{"bytes": part, "path": None} for part in data]
        turns = {key: _plain_turns(value) for key, value in _conversation(sample).items()}
        batch.append({**dict.fromkeys(("split", "kind"), ""), **texts, **turns, "images": images})
        rows, pictures = rows + 1, pictures + len(data)
        if len(batch) == rows_a_shard:
            write()
    if batch:
        write()
    return {"rows": rows, "pictures": pictures}


def _plain_turns(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return turns of one shape, as a table wants them."""
    return [
        {
            "role": turn["role"],
            "content": [{"type": part["type"], "text": part.get("text")} for part in turn["content"]],
            "train": turn.get("train", True),
        }
        for turn in turns
    ]


def _write_shards(samples: Iterable[Any], folder: Path, rows_a_shard: int) -> dict[str, int]:
    rows = 0
    with contextlib.ExitStack() as stack:
        archive: tarfile.TarFile | None = None
        for sample, pictures in samples:
            if len(pictures) != 1:
                raise DataError(
                    "a shard's sample has one picture",
                    where=sample.id,
                    got=f"{len(pictures)} pictures",
                    fix="Convert to jsonl or parquet.",
                )
            if archive is None or rows % rows_a_shard == 0:
                stack.close()
                archive = stack.enter_context(tarfile.open(folder / f"{rows // rows_a_shard:05d}.tar", "w"))
            key, record = f"{rows:09d}", {**_facts(sample), **_conversation(sample)}
            _put(archive, f"{key}.{_suffix(pictures[0])}", pictures[0])
            _put(archive, f"{key}.json", json.dumps(record, ensure_ascii=False).encode())
            rows += 1
    return {"rows": rows, "pictures": rows}


def _put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
