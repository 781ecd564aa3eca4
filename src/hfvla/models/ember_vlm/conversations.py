"""Conversations about pictures (`ChatSample` rows) beside tasks for robots: what the first two stages learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hfvla.data.rows.columns import column
from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.data.rows.learned_terms import LEARNED_TERMS
from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.vision_language.build import build_vision_language
from hfvla.data.sources.vision_language.hub import build_hub
from hfvla.data.sources.vision_language.options import HubOptions, VisionLanguageOptions
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, SourceData

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["as_task", "as_tasks", "asks_for_caption", "build_conversations", "is_conversation", "only_conversations"]


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is a conversation; in a mixture with tasks it has a task's columns too, empty."""
    return bool(row.get("messages"))


def as_tasks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return rows as the collator reads them; see `as_task`."""
    return [as_task(row) for row in rows]


def as_task(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a conversation's row with the fields of a `RobotTask`, or any other row as it is.

    A row whose kind says "caption" becomes a caption, any other a dialogue: a turn that is not to be learned gives
    context only. The picture stays encoded where it lies (`ImageRef`).

    Raises:
        DataError: more than one picture, or a video.
    """
    if not is_conversation(row):
        return row
    sample = ChatSample.from_row(dict(row))
    problem = _too_much(sample)
    if problem:
        raise DataError(problem, where=sample.id, expected="at most one picture, before the first question")
    caption = sample.turns[-1].text.strip() if asks_for_caption(sample) and len(sample.turns) == 2 else ""
    found: dict[str, Any] = {
        "id": sample.id,
        "task": "",
        "robots": [],
        "reasoning": "",
        "plan": [],
        "image": sample.images[0] if sample.images else None,
        "caption": caption,
        "dialogue": [] if caption else _dialogue(sample),
        "needs_scene": bool(sample.images),
        "source": sample.source,
        "group": sample.group,
        "details": "",
    }
    kept = (AUGMENTATION_SEED, CACHED_FEATURES, LEARNED_TERMS)
    return {**found, **{name: row[name] for name in kept if name in row}}


def asks_for_caption(sample: ChatSample) -> bool:
    """Whether a sample is a picture and its caption, or is one once its caption is written.

    Such a sample is prompted as captions are trained, not as a question.
    """
    spoken = [turn.role for turn in sample.turns]
    return "caption" in sample.kind.lower() and spoken in (["user"], ["user", "assistant"])


def _dialogue(sample: ChatSample) -> list[dict[str, Any]]:
    """Return the turns as questions and answers; a system's words stand before the first question."""
    turns = list(sample.turns)
    before = turns.pop(0).text.strip() + "\n" if turns[0].role == "system" else ""
    pairs = []
    for asked, said in zip(turns[::2], [*turns[1::2], None], strict=False):
        answer = "" if said is None else said.text.strip()
        train = said is not None and said.train
        pairs.append({"question": before + asked.text.strip(), "answer": answer, "train": train})
        before = ""
    return pairs


def _too_much(sample: ChatSample) -> str:
    if sample.videos:
        return "a video, which this model does not see"
    return "more than one picture" if len(sample.images) > 1 else ""


def build_conversations(options: VisionLanguageOptions | HubOptions, *, seed: int) -> SourceData:
    """Build a public image-text set; conversations with several pictures or a video are counted as unusable.

    A stream is left as it is: such a conversation stops training with its name.
    """
    if isinstance(options, HubOptions):
        data = build_hub(options, seed=seed)
    else:
        data = build_vision_language(options, seed=seed)
    if not hasattr(data.dataset, "select"):
        return data
    counts = data.dataset.select_columns(["id", "images", "videos"])
    kept, census = [], Census()
    for number, row in enumerate(counts):
        if len(row["images"]) <= 1 and not row["videos"]:
            kept.append(number)
        else:
            reason = "video" if row["videos"] else "more than one picture"
            census.reject(f"row {number}", row["id"], UnusableError(reason))
    if len(kept) == len(data.dataset):
        return data
    rejected = {**data.census["rejected"], **census.rejected()}
    whole = {**data.census, "usable": len(kept), "rejected": rejected}
    lost = {entry.id: entry.reason for entry in census.rejections}
    return SourceData(data.dataset.select(kept), whole, {**data.rejected, **lost})


def only_conversations(rows: Dataset | None) -> Dataset | None:
    """Return the conversations among training rows, for baselines; None where there is none."""
    if rows is None or "messages" not in rows.column_names:
        return None
    kept = [number for number, turns in enumerate(column(rows, "messages")) if turns]
    return rows.select(kept) if kept else None
