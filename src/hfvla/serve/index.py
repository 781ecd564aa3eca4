"""An index of pictures on disk: their vectors as Parquet and NumPy, and a FAISS index where that is installed."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.gallery import Picture, list_pictures
from hfvla.errors import DataError, MissingExtraError
from hfvla.outputs import MARK, claim_folder

__all__ = ["PictureIndex", "build_index", "claim_index_folder", "has_faiss", "read_index", "write_index"]

logger = logging.getLogger(__name__)

_FACTS, _TABLE, _ARRAY, _FAISS = "index.json", "embeddings.parquet", "embeddings.npy", "index.faiss"


@dataclass
class PictureIndex:
    """Pictures with their vectors, in one order.

    Attributes:
        pictures: N, ids and files.
        vectors: [N, D] float32, of length 1.
        facts: checkpoint, gallery, pictures that could not be read.
        faiss: a FAISS index of the same vectors, or None.
    """

    pictures: list[Picture]
    vectors: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    faiss: Any = None

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores [Q, k] and numbers [Q, k] of the best pictures, best first; all where there are fewer.

        Args:
            queries: [Q, D] float32, of length 1; scores are cosines.
            k: pictures a query.
        """
        k = min(k, len(self.pictures))
        if self.faiss is not None:
            scores, numbers = self.faiss.search(np.ascontiguousarray(queries, dtype=np.float32), k)
            return scores, numbers
        products = queries @ self.vectors.T
        numbers = np.argsort(-products, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(products, numbers, axis=1), numbers


def has_faiss() -> bool:
    """Return whether the package `faiss` is installed."""
    return importlib.util.find_spec("faiss") is not None


def _faiss(needed_for: str) -> Any:
    if not has_faiss():
        raise MissingExtraError("faiss-cpu", "index", needed_for)
    import faiss

    return faiss


def build_index(
    embed: Any, gallery: str | Path, facts: Mapping[str, Any] | None = None, max_bad_fraction: float = 0.0
) -> PictureIndex:
    """Embed the pictures of a folder.

    Args:
        embed: `embed(paths) -> (vectors [N, D], {number: reason})`.
        gallery: folder.
        facts: kept with the index, e.g. which checkpoint it is of.
        max_bad_fraction: share of unreadable pictures up to which they are named and left out.

    Raises:
        DataError: no picture, or too many that cannot be read.
    """
    pictures = list_pictures(gallery)
    vectors, failures = embed([picture.path for picture in pictures])
    if len(failures) > max_bad_fraction * len(pictures):
        first = min(failures)
        raise DataError(
            f"{len(failures)} of {len(pictures)} pictures cannot be read",
            where=pictures[first].id,
            got=failures[first],
            expected=f"at most {max_bad_fraction:.1%}",
            fix="Repair or remove them, or pass --max-bad-fraction.",
        )
    kept = [number for number in range(len(pictures)) if number not in failures]
    lost = {pictures[number].id: reason for number, reason in failures.items()}
    known = {**(facts or {}), "gallery": str(Path(gallery).expanduser().resolve()), "left_out": lost}
    return PictureIndex([pictures[number] for number in kept], np.asarray(vectors, np.float32)[kept], known)


def claim_index_folder(folder: str | Path) -> None:
    """Create the folder of an index, before the work whose result it takes.

    Raises:
        DataError: the folder holds something else, or cannot be written.
    """
    folder = claim_folder(folder, "index", before_marks=_is_old_index, error=DataError)
    before = [name for name in (_FACTS, _TABLE, _ARRAY, _FAISS) if (folder / name).exists()]
    if before:
        logger.warning("the index in %s is replaced: %s", folder, ", ".join(before))


def _is_old_index(folder: Path) -> bool:
    """Return whether a folder without a mark holds an index, and nothing else, from before there were marks."""
    try:
        facts = json.loads((folder / _FACTS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    names = {path.name for path in folder.iterdir()}
    return (
        names <= {_FACTS, _TABLE, _ARRAY, _FAISS} and isinstance(facts, dict) and {"pictures", "width"} <= set(facts)
    )


def write_index(index: PictureIndex, folder: str | Path, *, faiss: bool | None = None) -> dict[str, Any]:
    """Write embeddings.parquet (id, path, embedding), embeddings.npy, index.json and, with FAISS, index.faiss.

    Args:
        index: what to write.
        folder: created; the files of an earlier index in it are replaced, any other folder is refused.
        faiss: also write a FAISS index (inner product, exact); None = where the package is installed.

    Returns:
        `dict`: folder, pictures, left_out (how many), width, files.

    Raises:
        MissingExtraError: a FAISS index is asked for, and the package is not installed.
        DataError: the folder holds something else, or cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    wanted = has_faiss() if faiss is None else faiss
    package = _faiss("a FAISS index") if wanted else None
    if faiss is None and not wanted:
        logger.info('no FAISS index is written: install it with pip install "hfvla[index]"')
    folder, width = Path(folder), int(index.vectors.shape[1])
    claim_index_folder(folder)
    table = pa.table(
        {
            "id": [picture.id for picture in index.pictures],
            "path": [picture.path for picture in index.pictures],
            "embedding": pa.array(list(index.vectors), type=pa.list_(pa.float32())),
        }
    )
    files = [MARK, _FACTS, _TABLE, _ARRAY, *([_FAISS] if wanted else [])]
    try:
        for name in (_FACTS, _TABLE, _ARRAY, _FAISS):  # index.json goes first: half an index is none
            (folder / name).unlink(missing_ok=True)
        parquet.write_table(table, folder / _TABLE)
        np.save(folder / _ARRAY, index.vectors)
        if package is not None:
            flat = package.IndexFlatIP(width)
            flat.add(np.ascontiguousarray(index.vectors))
            package.write_index(flat, str(folder / _FAISS))
        facts = {**index.facts, "pictures": len(index.pictures), "width": width}
        (folder / _FACTS).write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError("the index cannot be written", where=str(folder), got=error.strerror or str(error)) from error
    left_out = len(index.facts.get("left_out", {}))
    return {"folder": str(folder), "pictures": len(index.pictures), "left_out": left_out, "width": width,
            "files": files}  # fmt: skip


def read_index(folder: str | Path, *, use_faiss: bool | None = None) -> PictureIndex:
    """Read what `write_index` wrote.

    Args:
        folder: of the index.
        use_faiss: search with the FAISS index; None = where there is one and the package is installed.

    Raises:
        DataError: no index, or a part of it is missing or does not fit.
        MissingExtraError: FAISS is asked for, and not installed.
    """
    from pyarrow import ArrowInvalid, parquet

    folder = Path(folder)
    if not (folder / _FACTS).is_file():
        raise DataError("no index in this folder", where=str(folder), expected=_FACTS, fix="Write one: hfvla index.")
    try:
        facts = json.loads((folder / _FACTS).read_text("utf-8"))
        table = parquet.read_table(folder / _TABLE, columns=["id", "path"]).to_pydict()
        vectors = np.load(folder / _ARRAY)
    except (OSError, ValueError, ArrowInvalid) as error:
        raise DataError("the index is incomplete or damaged", where=str(folder), got=str(error)) from error
    shape = (facts["pictures"], facts["width"])
    if vectors.shape != shape or len(table["id"]) != shape[0]:
        raise DataError("the parts of the index do not fit", where=str(folder), got=vectors.shape, expected=shape)
    pictures = [Picture(*pair) for pair in zip(table["id"], table["path"], strict=True)]
    searcher = None
    exists = (folder / _FAISS).is_file()
    if use_faiss and not exists:
        raise DataError("the index has no FAISS part", where=str(folder), fix="Write it: hfvla index --faiss.")
    if use_faiss or (use_faiss is None and exists and has_faiss()):
        searcher = _faiss("search with FAISS").read_index(str(folder / _FAISS))
    return PictureIndex(pictures, vectors, facts, searcher)
