"""Harm done to data, at random from a seed: each kind says what must come of it.

"same": the rows stay as they were. "refused": an error, or a counted record. "any": whatever comes must be an error, a
count, or rows that hold together.
"""

from __future__ import annotations

import json
import os
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MUTATIONS", "Mutation", "mutations_for"]

TEXTS = {".json", ".jsonl", ".csv", ".txt"}
PICTURES = {".png", ".jpg"}
STATS = ("episodes_stats.jsonl", "stats.json")  # reading rows does not open them
BINARY = {".npz", ".parquet", ".hdf5", ".mp4"}

Generator = np.random.Generator
Mutation = Callable[[Path, Generator], str]

HOSTILE: list[Any] = [
    None, float("nan"), float("inf"), -1, 0, 10**30, 10**400, 1e308, True, "", "  ", "\x00", "\ud800",
    "../../etc/passwd", "/dev/zero", "x" * 20_000, "a\u2028b", "\u202e", [], {}, [[]], [None], {"a": 1},
    [[0.5, 0.5, 2.0, 2.0]], list(range(50)), "A", "B", "nan", "..\\..\\x", "{episode_index:0999999999d}", "9" * 400,
]  # fmt: skip


def _pick(items: list[Any], generator: Generator) -> Any:
    return items[int(generator.integers(len(items)))]


def _files(folder: Path, kinds: set[str]) -> list[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in kinds and "series" not in path.parts)
    return [path for path in found if path.is_file()]


def _paths(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        items = list(enumerate(content))
    return [one for key, value in items for one in ((*path, key), *_paths(value, (*path, key)))]


def _json_file(folder: Path, generator: Generator) -> tuple[Path, list[Any]]:
    path = _pick(_files(folder, {".json", ".jsonl"}), generator)
    text = path.read_text("utf-8")
    return path, [json.loads(line) for line in (text.splitlines() if path.suffix == ".jsonl" else [text])]


def _write_json(path: Path, parts: list[Any], **options: Any) -> None:
    text = "\n".join(json.dumps(part, **options) for part in parts) + "\n"
    path.write_text(text, encoding="utf-8")


# ---- JSON -----------------------------------------------------------------------------------------------------------


def hostile_value(folder: Path, generator: Generator) -> str:
    """Put something else where a value was."""
    path, parts = _json_file(folder, generator)
    place = _pick(_paths(parts), generator)
    holder: Any = parts
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = _pick(HOSTILE, generator)
    _write_json(path, parts)
    return "any"


def lost_key(folder: Path, generator: Generator) -> str:
    """Take a key or an element out."""
    path, parts = _json_file(folder, generator)
    place = _pick([one for one in _paths(parts) if len(one) > 1], generator)
    holder: Any = parts
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    _write_json(path, parts)
    return "any"


def decomposed(folder: Path, generator: Generator) -> str:
    """Write every text in NFD."""
    path, parts = _json_file(folder, generator)
    text = unicodedata.normalize("NFD", path.read_text("utf-8"))
    path.write_text(text, encoding="utf-8")
    return "same"


def key_twice(folder: Path, generator: Generator) -> str:
    path, _ = _json_file(folder, generator)
    text = path.read_text("utf-8")
    place = text.index("{") + 1
    key = text[place : text.index(":", place)]
    path.write_text(f"{text[:place]}{key}: 1, {text[place:]}", encoding="utf-8")
    return "any" if path.name in STATS else "refused"


def too_deep(folder: Path, generator: Generator) -> str:
    path, _ = _json_file(folder, generator)
    path.write_text(_pick(["[", '{"a":'], generator) * 60_000, encoding="utf-8")
    return "any" if path.name in STATS else "refused"


def many_digits(folder: Path, generator: Generator) -> str:
    path, _ = _json_file(folder, generator)
    path.write_text("[" + "9" * 5000 + "]", encoding="utf-8")
    return "any" if path.name in STATS else "refused"


# ---- texts ----------------------------------------------------------------------------------------------------------


def byte_order_mark(folder: Path, generator: Generator) -> str:
    path = _pick(_files(folder, TEXTS), generator)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return "same"


def line_ends(folder: Path, generator: Generator) -> str:
    path = _pick(_files(folder, TEXTS), generator)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return "same"


def sixteen_bit_text(folder: Path, generator: Generator) -> str:
    path = _pick(_files(folder, TEXTS - {".jsonl"}), generator)
    path.write_bytes(path.read_text("utf-8").encode("utf-16"))
    return "any" if path.name in STATS else "refused"


def broken_text(folder: Path, generator: Generator) -> str:
    """Change, cut or add bytes of a text."""
    path = _pick(_files(folder, TEXTS), generator)
    path.write_bytes(_damaged(path.read_bytes(), generator))
    return "any"


def separators(folder: Path, generator: Generator) -> str:
    """Put a character that only looks like a line end between two letters."""
    path = _pick(_files(folder, TEXTS), generator)
    text = path.read_text("utf-8")
    places = [place for place in range(1, len(text)) if text[place - 1 : place + 1].isalpha()]
    place = _pick(places, generator)
    path.write_text(text[:place] + _pick(["\u2028", "\u0085", "\u2029", "\x0b"], generator) + text[place:], "utf-8")
    return "any"


# ---- files ----------------------------------------------------------------------------------------------------------


def _damaged(content: bytes, generator: Generator) -> bytes:
    kind = int(generator.integers(4))
    if kind == 0 or len(content) < 8:
        return content[: int(generator.integers(len(content) + 1))]
    changed = bytearray(content)
    if kind == 1:
        place = int(generator.integers(len(content)))
        changed[place:place] = generator.bytes(int(generator.integers(1, 40)))
        return bytes(changed)
    reach = len(content) if kind == 2 else min(len(content), 400)
    for place in generator.integers(0, reach, int(generator.integers(1, 12))):
        changed[place] = int(generator.integers(256))
    return bytes(changed)


def damaged_file(folder: Path, generator: Generator) -> str:
    path = _pick(_files(folder, PICTURES | BINARY), generator)
    path.write_bytes(_damaged(path.read_bytes(), generator))
    return "any"


def other_content(folder: Path, generator: Generator) -> str:
    """Put an empty file, a text or another file in its place."""
    path = _pick(_files(folder, BINARY), generator)
    path.write_bytes(
        _pick([b"", b"text\n", b"PK\x03\x04" + bytes(40), b"\x89HDF\r\n\x1a\n" + bytes(9), b"PAR1"], generator)
    )
    return "refused"


def no_regular_file(folder: Path, generator: Generator) -> str:
    """Put a pipe, a device, a folder or a link that leads nowhere in a file's place."""
    needed = [path for path in _files(folder, TEXTS | BINARY) if "stats" not in path.name]
    path = _pick(needed, generator)
    path.unlink()
    kind = int(generator.integers(5))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    else:
        path.symlink_to(["/dev/zero", str(folder / "gone"), str(path)][kind - 2])
    absent = "data/" in path.as_posix() or path.parent.name == "touch"  # a part of a set is an ordinary thing to have
    return "any" if absent or (kind == 1 and path.suffix == ".hdf5") else "refused"


def enormous(folder: Path, generator: Generator) -> str:
    """Let a file claim to hold a terabyte; it takes no room on the disk."""
    path = _pick(_files(folder, TEXTS | BINARY | PICTURES), generator)
    os.truncate(path, 1 << 40)
    return "refused" if path.suffix in TEXTS | {".npz", ".parquet"} and path.name not in STATS else "any"


def linked_file(folder: Path, generator: Generator) -> str:
    """Move a file to another place and leave a link."""
    path = _pick(_files(folder, TEXTS | BINARY | PICTURES), generator)
    elsewhere = folder.parent / f"{folder.name}-elsewhere"
    elsewhere.mkdir(exist_ok=True)
    path.rename(elsewhere / "moved")
    path.symlink_to(elsewhere / "moved")
    return "same"


def notes_of_macos(folder: Path, generator: Generator) -> str:
    for path in _files(folder, TEXTS | BINARY | PICTURES):
        (path.parent / f"._{path.name}").write_bytes(bytes.fromhex("0005160700020000") + bytes(60))
    return "same"


def circles(folder: Path, generator: Generator) -> str:
    for path in [folder, *(one for one in sorted(folder.rglob("*")) if one.is_dir())][:6]:
        (path / "circle").symlink_to(folder)
    return "any"


def lost_file(folder: Path, generator: Generator) -> str:
    _pick(_files(folder, TEXTS | BINARY | PICTURES), generator).unlink()
    return "any"


# ---- pictures and what is in binary files ---------------------------------------------------------------------------


def bomb(folder: Path, generator: Generator) -> str:
    """Make a picture one of 3.6 gigapixels."""
    path = _pick(_files(folder, PICTURES), generator)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(60_001))]
    packed = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return "refused" if path.suffix == ".png" else "any"  # of an episode's pictures the first is decoded


def hostile_array(folder: Path, generator: Generator) -> str:
    """Change an array of an npz: its type, its shape, a value, or what its header promises."""
    path = _pick(_files(folder, {".npz"}), generator)
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    name = _pick(sorted(arrays), generator)
    kind, values, harmless = int(generator.integers(6)), arrays[name], False
    if kind == 0:
        arrays[name] = values[: int(generator.integers(len(values)))]
    elif kind == 1:
        dtype = _pick(["S4", "complex64", "float16", "bool", "U3"], generator)
        arrays[name] = values.astype(dtype)
        harmless = dtype == "float16" and name != "timestamps"  # a recorder may well keep half precision
    elif kind == 2:
        arrays[name] = np.full(values.shape, _pick([np.nan, np.inf, -1e300], generator))
    elif kind == 3:
        arrays[name] = values.reshape(1, 1, *values.shape)
    elif kind == 4:
        del arrays[name]
    else:
        arrays[name] = np.array(3.0)
    np.savez(path, **arrays)
    return "any" if harmless else "refused"


def hostile_dataset(folder: Path, generator: Generator) -> str:
    """Change a dataset of an HDF5 file for one that is none of its own, none at all, or of another kind."""
    import h5py

    names = ("action", "timestamp", "observations/qpos", "observations/images/View1", "observations/sensor/force")
    path, name = _pick(_files(folder, {".hdf5"}), generator), _pick(list(names), generator)
    with h5py.File(path, "a") as file:
        values = file[name][()]
        del file[name]
        _HOSTILE_DATASETS[int(generator.integers(len(_HOSTILE_DATASETS)))](h5py, file, name, values)
    return "refused"


def _virtual(h5py: Any, file: Any, name: str, values: np.ndarray) -> None:
    layout = h5py.VirtualLayout(values.shape, dtype=values.dtype)
    layout[...] = h5py.VirtualSource("gone.hdf5", name, values.shape)
    file.create_virtual_dataset(name, layout)


_HOSTILE_DATASETS: list[Callable[[Any, Any, str, np.ndarray], Any]] = [
    _virtual,
    lambda h5py, file, name, values: file.create_dataset(
        name, values.shape, values.dtype, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    ),
    lambda h5py, file, name, values: file.create_dataset(name, values.shape, values.dtype),
    lambda h5py, file, name, values: file.create_dataset(name, (10**12, *values.shape[1:]), values.dtype, chunks=True),
    lambda h5py, file, name, values: file.create_dataset(name, data=h5py.Empty(values.dtype)),
    lambda h5py, file, name, values: file.create_dataset(name, data="text"),
    lambda h5py, file, name, values: file.create_dataset(name, data=values[:-1]),
    lambda h5py, file, name, values: file.create_dataset(name, data=values.astype(np.complex64)),
    lambda h5py, file, name, values: file.create_dataset(name, data=np.zeros(len(values), [("a", "f4"), ("b", "f4")])),
    lambda h5py, file, name, values: file.create_group(name),
    lambda h5py, file, name, values: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
    lambda h5py, file, name, values: file.__setitem__(name, h5py.SoftLink("/gone")),
    lambda h5py, file, name, values: file.__setitem__(name, h5py.ExternalLink("/etc/passwd", "/x")),
    lambda h5py, file, name, values: file.__setitem__(name, np.dtype("f4")),
]


def hostile_table(folder: Path, generator: Generator) -> str:
    """Change a column of a parquet table: its type, its values, its length, or have it twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [path for path in _files(folder, {".parquet"}) if "data" in path.parts]
    path = _pick(tables, generator)
    table = pq.read_table(path)
    names = ("action", "timestamp", "frame_index", "episode_index", "task_index", "observation.state")
    name, kind = _pick(list(names), generator), int(generator.integers(5))
    place = table.column_names.index(name)
    if kind == 0:
        table = table.remove_column(place)
    elif kind == 1:
        table = table.set_column(place, name, pa.array(["x"] * len(table)))
    elif kind == 2:
        table = table.set_column(place, name, pa.nulls(len(table), table.schema.field(place).type))
    elif kind == 3:
        table = table.slice(0, 1)
    else:
        table = table.append_column(name, table.column(place))
    pq.write_table(table, path)
    return "refused"


MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "hostile value": (hostile_value, {".json", ".jsonl"}),
    "lost key": (lost_key, {".json", ".jsonl"}),
    "decomposed": (decomposed, {".json", ".jsonl"}),
    "key twice": (key_twice, {".json", ".jsonl"}),
    "too deep": (too_deep, {".json", ".jsonl"}),
    "many digits": (many_digits, {".json", ".jsonl"}),
    "byte-order mark": (byte_order_mark, TEXTS),
    "line ends": (line_ends, TEXTS),
    "16-bit text": (sixteen_bit_text, TEXTS - {".jsonl"}),
    "broken text": (broken_text, TEXTS),
    "separators": (separators, TEXTS),
    "damaged file": (damaged_file, PICTURES | BINARY),
    "other content": (other_content, BINARY),
    "no regular file": (no_regular_file, TEXTS | BINARY),
    "enormous": (enormous, TEXTS | BINARY),
    "linked file": (linked_file, TEXTS | BINARY),
    "notes of macOS": (notes_of_macos, TEXTS | BINARY),
    "circles": (circles, TEXTS | BINARY),
    "lost file": (lost_file, TEXTS | BINARY),
    "bomb": (bomb, PICTURES),
    "hostile array": (hostile_array, {".npz"}),
    "hostile dataset": (hostile_dataset, {".hdf5"}),
    "hostile table": (hostile_table, {".parquet"}),
}
"""By name: the harm, and the kinds of files of which an input must have one."""

_OFTEN = ("hostile value", "broken text", "damaged file", "hostile dataset", "hostile table", "hostile array")


def mutations_for(folder: Path) -> list[str]:
    """Return the kinds of harm that an input can come to; the most telling ones several times."""
    there = {path.suffix for path in folder.rglob("*") if path.is_file()}
    fitting = [name for name, (_, kinds) in MUTATIONS.items() if kinds & there]
    return fitting + [name for name in fitting if name in _OFTEN] * 3
