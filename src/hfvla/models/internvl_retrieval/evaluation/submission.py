"""Ranked pictures for every query of a file, as the RoboSense challenge wants them: `answer_file` of the contract."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.data.sources.robosense import Gallery, read_gallery, submission_name
from hfvla.errors import DataError
from hfvla.family import AnswerFile, SourceData
from hfvla.metrics.retrieval import stream_top_k
from hfvla.models.internvl_retrieval.search import encode_images, encode_texts, unit
from hfvla.outputs import beside

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = ["PLACES", "write_answers"]

logger = logging.getLogger(__name__)

PLACES = 10
"""Pictures that a line names."""

_BATCH = 32


def write_answers(
    model: InternVLForRetrieval, processor: ProcessorMixin, data: SourceData, request: AnswerFile
) -> dict[str, Any]:
    """Rank a gallery for every query, by similarity, and write the submission.

    A line is `q1 image_a ... image_j`: 10 different pictures by file name without extension, best first. A query that
    the reader rejected has no line; it is named with its reason in `<name>.details.json`, as is every picture that
    could not be read. Both files are replaced in one go, when everything is ranked.

    Args:
        model: `InternVLForRetrieval`.
        processor: its processor.
        data: queries, and rejected ones.
        request: path, `given["gallery"]` (a folder of pictures), limit, device; `settings` tell whose file it is.

    Returns:
        `dict`: path, details, questions, answered, failed, reasons (count by reason), pictures, pictures_failed.

    Raises:
        DataError: no gallery, fewer than 10 pictures, no usable query, or a file of other settings is there.
    """
    path, details = Path(request.path), beside(request.path, ".details.json", usual=".txt")
    folder = request.given.get("gallery")
    settings = json.loads(json.dumps({**request.settings, "gallery": str(folder)}, default=str))
    _check_ours(path, details, settings, request.overwrite)
    if folder is None:
        raise DataError("queries are ranked over a folder of pictures", where="--gallery", fix="Add --gallery FOLDER.")
    rows = [dict(row) for row in data.dataset][: request.limit]
    if not rows:
        first = next(iter(data.rejected.items()), None)
        raise DataError("the data holds no usable query", got=first, expected="at least one")
    twice = [name for name, count in Counter(submission_name(row["id"]) for row in rows).items() if count > 1]
    if twice:
        raise DataError("two queries have one name in a submission", got=twice[0])
    # A picture that cannot be read must not end a submission: it is named, and cannot be found.
    gallery = read_gallery(folder, max_bad_fraction=1.0)
    lines, lost, unanswered = _rank(model.to(request.device), processor, rows, gallery)
    known = {row["id"] for row in data.dataset} if request.limit is None else set(data.rejected)
    broken = gallery.census["rejected"]
    failed = {row_id: f"unusable record: {why}" for row_id, why in data.rejected.items() if row_id not in known}
    failed |= {row_id: f"no answer: {why}" for row_id, why in unanswered.items()}
    summary = {
        "path": str(path),
        "details": str(details),
        "questions": len(rows) + len(failed) - len(unanswered),
        "answered": len(lines),
        "failed": len(failed),
        "reasons": dict(Counter(reason.split(": ")[1] for reason in failed.values())),
        "pictures": len(gallery.images),
        "pictures_failed": gallery.census["found"] - gallery.census["usable"] + len(lost),
    }
    content: dict[str, Any] = {"settings": settings, "summary": summary, "failed_queries": failed}
    content |= {"rejected_queries": data.census.get("rejected", {})}
    content |= {"failed_pictures": lost, "rejected_pictures": broken}
    _write(details, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _write(path, "".join(f"{line}\n" for line in lines))
    logger.info("ranked %d pictures for %d queries: %s", len(gallery.images), len(lines), path)
    return summary


def _check_ours(path: Path, details: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse to replace a file that was not written with these settings.

    Raises:
        DataError: naming what differs.
    """
    before = {}
    if details.exists():
        before = _settings_before(path, details)
    if overwrite or not (path.exists() or before):
        return
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if changed:
        raise DataError(
            "there is a file of another checkpoint, data or gallery",
            where=str(path),
            got=f"other {', '.join(changed)}",
            fix="Choose another --csv, or pass --overwrite.",
        )


def _settings_before(path: Path, details: Path) -> dict[str, Any]:
    """Return the settings in the details file of this submission.

    Raises:
        DataError: it is another file, which --overwrite is not for.
    """
    try:
        found = json.loads(details.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    ours = isinstance(found, dict) and isinstance(found.get("settings"), dict)
    summary = found.get("summary") if isinstance(found, dict) else None
    name = Path(str(summary["path"])).name if isinstance(summary, dict) and "path" in summary else path.name
    if not ours or name != path.name:
        raise DataError(
            "this file is not of this submission, and would be replaced",
            where=str(details),
            fix=f"Name another file than {path.name}, or move this one away.",
        )
    return dict(found["settings"])


def _rank(
    model: InternVLForRetrieval, processor: ProcessorMixin, rows: Sequence[Mapping[str, Any]], gallery: Gallery
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return the lines, the pictures that cannot be decoded, and the queries without a vector, with their reasons.

    Raises:
        DataError: fewer than 10 pictures can be ranked.
    """
    images = encode_images(model, processor, [image.path for image in gallery.images], batch_size=_BATCH)
    kept = [number for number in range(len(gallery.images)) if number not in images.failures]
    if len(kept) < PLACES:
        raise DataError("too few pictures to rank", got=len(kept), expected=f"at least {PLACES}, one a place")
    names = [gallery.images[number].id for number in kept]
    blanks = [name for name in names if any(letter.isspace() for letter in name)]
    if blanks:
        raise DataError(
            "a picture's name has a blank, which separates the ids of a line", got=blanks[0], fix="Rename the file."
        )
    failures: dict[int, str] = {}
    captions = [row["caption"] for row in rows]
    texts = unit(encode_texts(model, processor, captions, batch_size=_BATCH, failures=failures))
    best = np.concatenate([part.numpy() for _, _, part in stream_top_k(texts, unit(images.take(kept).embed), PLACES)])
    lines = [
        " ".join([submission_name(row["id"]), *(names[number] for number in order)])
        for place, (row, order) in enumerate(zip(rows, best, strict=True))
        if place not in failures
    ]
    lost = {gallery.images[number].id: reason for number, reason in images.failures.items()}
    return lines, lost, {rows[number]["id"]: reason for number, reason in failures.items()}


def _write(path: Path, text: str) -> None:
    """Put a file in its place at once.

    Raises:
        DataError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError("the submission cannot be written", where=str(path), got=error.strerror) from error
