"""Features on disk: Arrow files of `datasets`, memory-mapped, written under a temporary name and then renamed.

One folder a fingerprint. A file holds whole encoding batches, so that a build that was cut short goes on with the
batches it would have made anyway, and computes the same bits.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.cache.fingerprint import Fingerprint
from hfvla.errors import DataError, HfvlaError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FeatureStore", "Record", "ShardWriter"]

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"^features-(?P<rows>\d+)-[0-9a-f]{12}\.arrow$")
_ABANDONED_S = 3600.0  # a file of a living build is written to far more often
_META = "fingerprint.json"

Record = Mapping[str, "Tensor"]


def _encoded(key: str, features: Record) -> dict[str, Any]:
    """Return one stored line: the key, and bytes, shape and type of each tensor (bfloat16 as its 16 bits)."""
    import torch

    line: dict[str, Any] = {"key": key}
    for name, tensor in features.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        line |= {f"{name}.data": raw, f"{name}.shape": list(tensor.shape)}
        line[f"{name}.dtype"] = str(tensor.dtype).removeprefix("torch.")
    return line


def _decoded(line: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    features = {}
    for column, data in line.items():
        name, _, kind = column.rpartition(".")
        if kind == "data" and data is not None:
            dtype, shape = getattr(torch, line[f"{name}.dtype"]), line[f"{name}.shape"]
            empty = not data
            flat = torch.empty(0, dtype=dtype) if empty else torch.frombuffer(bytearray(data), dtype=dtype)
            features[name] = flat.reshape(shape)
    return features


def _schema(names: Iterable[str]) -> Any:
    from datasets import Features, List, Value

    columns: dict[str, Any] = {"key": Value("string")}
    for name in names:
        columns |= {f"{name}.data": Value("large_binary"), f"{name}.shape": List(Value("int32"))}
        columns[f"{name}.dtype"] = Value("string")
    return Features(columns)


class ShardWriter:
    """Writes records; each shard appears under its final name only when it is complete.

    Args:
        folder: folder of the fingerprint.
        shard_bytes: bytes of features after which a shard is closed.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self._lines: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, records: Sequence[tuple[str, Record]]) -> None:
        """Add one encoding batch; closes the shard when it has its size."""
        for key, features in records:
            self._lines.append(_encoded(key, features))
            self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in features.values())
        if self._bytes >= self.shard_bytes:
            self.close_shard()

    def close_shard(self) -> None:
        """Write what was added since the last shard.

        Raises:
            HfvlaError: the disk is full or cannot be written.
        """
        if not self._lines:
            return
        token = uuid.uuid4().hex[:12]
        temporary = self.folder / f".features-{token}.tmp"
        try:
            self._write_file(temporary)
            temporary.replace(self.folder / f"features-{len(self._lines)}-{token}.arrow")
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise HfvlaError(
                f"the feature cache cannot be written ({error.strerror or error})",
                where=str(self.folder),
                got=f"{self._bytes:,} bytes to write",
                fix="Free some space, or choose another place with cache.folder. What is written stays usable.",
            ) from error
        self._lines, self._bytes = [], 0

    def _write_file(self, path: Path) -> None:
        from datasets.arrow_writer import ArrowWriter

        names = dict.fromkeys(
            column.rpartition(".")[0] for line in self._lines for column in line if column.endswith(".data")
        )
        schema = _schema(names)
        with ArrowWriter(path=str(path), features=schema) as writer:
            for line in self._lines:
                writer.write({column: line.get(column) for column in schema})
            writer.finalize()
        with path.open("rb") as file:
            os.fsync(file.fileno())


class FeatureStore:
    """The features of one fingerprint: what is there, and reading it.

    Args:
        root: folder of all caches of a run.
        fingerprint: what the features belong to.
    """

    def __init__(self, root: Path, fingerprint: Fingerprint) -> None:
        self.root, self.fingerprint = Path(root), fingerprint
        self.folder = self.root / fingerprint.value
        self._rows: Any = None
        self._index: dict[str, int] = {}

    def create(self) -> None:
        """Make the folder, drop what an interrupted build left, and say what changed since other caches (one process).

        Raises:
            HfvlaError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise HfvlaError(
                f"the feature cache cannot be written ({error.strerror or error})",
                where=str(self.folder),
                fix="Choose another place with cache.folder.",
            ) from error
        for path in self._shards():
            if self._open(path) is None:
                logger.warning("cache file %s is damaged; it is deleted and its samples are encoded again", path)
                path.unlink()
        meta = self.folder / _META
        if not meta.is_file():
            self._explain_miss()
            temporary = meta.with_name(f".{_META}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.fingerprint.parts, indent=2) + "\n", encoding="utf-8")
            temporary.replace(meta)

    def _explain_miss(self) -> None:
        """Log in what this fingerprint differs from the most similar cache beside it."""
        others = [json.loads(path.read_text("utf-8")) for path in sorted(self.root.glob(f"*/{_META}"))]
        if others:
            nearest = min((self.fingerprint.differences(parts) for parts in others), key=len)
            logger.info("no cached features fit; nearest cache differs in: %s", ", ".join(nearest))

    def _shards(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("features-*.arrow") if _SHARD.match(path.name))

    def _open(self, path: Path) -> Any | None:
        """Return the file's rows, or None when they are not what its name says."""
        import pyarrow
        from datasets import Dataset

        found = _SHARD.match(path.name)
        try:
            rows = Dataset.from_file(str(path))
        except (pyarrow.ArrowInvalid, OSError, ValueError) as error:
            logger.debug("%s: %s", path, error)
            return None
        return rows if found is not None and len(rows) == int(found["rows"]) else None

    def load(self) -> None:
        """Map all shards and index their keys.

        Raises:
            DataError: a shard is damaged, or the folder is not there.
        """
        from datasets import concatenate_datasets

        if not self.folder.is_dir():
            raise DataError(
                "the cache folder of this process does not exist",
                where=str(self.folder),
                fix="All processes need the same weights, and a folder that they share (cache.folder).",
            )
        parts = []
        for path in self._shards():
            rows = self._open(path)
            if rows is None:
                raise DataError("cache file is damaged", where=str(path), fix="Delete it and run again.")
            parts.append(rows)
        self._rows, self._index = None, {}
        if parts:
            self._rows = concatenate_datasets(parts).with_format("arrow")
            keys = self._rows.data.column("key").to_pylist()
            self._index = {key: position for position, key in enumerate(keys)}

    def __contains__(self, key: str) -> bool:
        """Tell whether a sample's features are there."""
        return key in self._index

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._index)

    def position(self, key: str) -> int:
        """Return where a sample is; the argument of `read`."""
        return self._index[key]

    def forget_keys(self) -> None:
        """Free the index, once all positions are known."""
        self._index = {}

    def read(self, positions: Sequence[int]) -> list[dict[str, Tensor]]:
        """Return the features at these positions, as they are stored."""
        return [_decoded(line) for line in self._rows[list(positions)].to_pylist()] if len(positions) else []

    def stored_bytes(self) -> int:
        """Return the size of all shards on disk."""
        return sum(path.stat().st_size for path in self._shards())
