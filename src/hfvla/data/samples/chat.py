"""One conversation about pictures, as every vision-language source yields it, and its `datasets` features.

The one sample of captions, questions with answers, grounded boxes, instruction data and preference pairs: what a
source calls its fields ends in the reader.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hfvla.data.sources.census import UnusableError

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["Box", "ChatSample", "ImageRef", "Part", "Role", "Turn", "chat_features", "check_chat", "text_turn"]

Role = Literal["system", "user", "assistant"]
PartKind = Literal["text", "image", "video"]


@dataclass(frozen=True)
class Part:
    """A piece of a turn: text, or the place of the next picture or video.

    Attributes:
        type: "text", "image" or "video".
        text: of a "text" part; "" otherwise.
    """

    type: PartKind
    text: str = ""


@dataclass(frozen=True)
class Turn:
    """What one side says, in the shape that chat templates of transformers take.

    Attributes:
        role: who speaks.
        content: the parts in order; image parts take the sample's `images` in order over all turns.
        train: whether an assistant's turn is learned; False for one that only gives context.
    """

    role: Role
    content: tuple[Part, ...]
    train: bool = True

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if part.type == "text")


@dataclass(frozen=True)
class ImageRef:
    """Where the bytes of an encoded picture lie; decoded late, by `hfvla.data.pictures.load_picture`.

    Attributes:
        path: a file; or the shard that holds the picture when `size` is not 0.
        data: the encoded bytes themselves, where a stream gives them; empty otherwise.
        offset: first byte within `path`.
        size: number of bytes within `path`; 0 for the whole file.
    """

    path: str = ""
    data: bytes = b""
    offset: int = 0
    size: int = 0


@dataclass(frozen=True)
class Box:
    """A named place in a picture.

    Attributes:
        image: number of the picture within the sample.
        label: what lies there: a category or a referring expression.
        xyxy: left, top, right, bottom in pixels of the picture as displayed.
        size: width and height of that picture, so that shares of it can be computed.
        crowd: whether it stands for a group of things.
    """

    image: int
    label: str
    xyxy: tuple[float, float, float, float]
    size: tuple[int, int]
    crowd: bool = False

    @property
    def normalised(self) -> tuple[float, float, float, float]:
        """`xyxy` as shares of width and height, all in 0..1."""
        (left, top, right, bottom), (width, height) = self.xyxy, self.size
        return (left / width, top / height, right / width, bottom / height)


@dataclass(frozen=True)
class ChatSample:
    """One conversation with its pictures.

    Attributes:
        id: unique within its source.
        turns: the conversation.
        images: pictures, in the order of the image parts.
        videos: paths, in the order of the video parts.
        boxes: places that the sample is about.
        rejected: for preference pairs, the turns that end in the worse answer; empty otherwise.
        references: all accepted answers or captions, for scoring.
        kind: of question or task ("caption", "vqa", "how many", ...), for scores by kind; "" when unknown.
        source: name of the set.
        split: official split; "" when the set has none.
        group: what must not cross a split: the image id.
        weight: of the sample's loss.
        details: further facts as strings, e.g. {"rationale": "..."}; in a row, a JSON object, "" without any.
    """

    id: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...] = ()
    videos: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    rejected: tuple[Turn, ...] = ()
    references: tuple[str, ...] = ()
    kind: str = ""
    source: str = ""
    split: str = ""
    group: str = ""
    weight: float = 1.0
    details: dict[str, str] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return the sample as a row of `chat_features`."""
        return {
            "id": self.id,
            "messages": _turn_rows(self.turns),
            "rejected": _turn_rows(self.rejected),
            "images": [
                {"path": ref.path, "bytes": ref.data or None, "offset": ref.offset, "size": ref.size}
                for ref in self.images
            ],
            "videos": list(self.videos),
            "boxes": [
                {"image": b.image, "label": b.label, "xyxy": list(b.xyxy), "size": list(b.size), "crowd": b.crowd}
                for b in self.boxes
            ],
            "references": list(self.references),
            "kind": self.kind,
            "source": self.source,
            "split": self.split,
            "group": self.group,
            "weight": float(self.weight),
            "details": json.dumps(self.details, ensure_ascii=False) if self.details else "",
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ChatSample:
        """Return the sample of a row of `chat_features`."""
        return cls(
            id=row["id"],
            turns=_turns(row["messages"]),
            images=tuple(
                ImageRef(ref["path"] or "", ref["bytes"] or b"", ref["offset"] or 0, ref["size"] or 0)
                for ref in row["images"]
            ),
            videos=tuple(row["videos"]),
            boxes=tuple(
                Box(b["image"], b["label"], tuple(b["xyxy"]), tuple(b["size"]), b["crowd"]) for b in row["boxes"]
            ),
            rejected=_turns(row["rejected"]),
            references=tuple(row["references"]),
            kind=row["kind"],
            source=row["source"],
            split=row["split"],
            group=row["group"],
            weight=row["weight"],
            details=json.loads(row["details"]) if row["details"] else {},
        )


def text_turn(role: Role, text: str, *, images: int = 0, videos: int = 0, train: bool = True) -> Turn:
    """Return a turn that shows pictures, then videos, then says a text."""
    shown = (Part("image"),) * images + (Part("video"),) * videos
    return Turn(role, (*shown, Part("text", text)), train=train)


def check_chat(sample: ChatSample) -> None:
    """Raise where a sample cannot be trained on.

    Raises:
        UnusableError: no turns; a turn without content; roles out of order (an optional system turn, then user and
            assistant in turn, user first, assistant last); an empty answer; image or video parts that do not match
            the pictures and videos; a box without area, outside of its picture, or of a picture that is not there.
    """
    for turns in (sample.turns, sample.rejected) if sample.rejected else (sample.turns,):
        _check_order(turns)
        for kind, here in (("image", len(sample.images)), ("video", len(sample.videos))):
            placed = sum(part.type == kind for turn in turns for part in turn.content)
            if placed != here:
                raise UnusableError(
                    f"{kind} placeholders and {kind}s differ", f"{placed} placeholders, {here} {kind}s"
                )
    for box in sample.boxes:
        _check_box(box, len(sample.images))


def _check_order(turns: Sequence[Turn]) -> None:
    roles = [turn.role for turn in turns]
    said = roles[1:] if roles and roles[0] == "system" else roles
    if not said:
        raise UnusableError("conversation without turns")
    if said != ["user", "assistant"] * (len(said) // 2) or not said:
        raise UnusableError("roles out of order", " ".join(roles))
    for number, turn in enumerate(turns):
        if turn.role == "assistant" and not turn.text.strip():
            raise UnusableError("empty answer", f"turn {number}")
        if not turn.content:
            raise UnusableError("empty turn", f"turn {number}")


def _check_box(box: Box, images: int) -> None:
    left, top, right, bottom = box.xyxy
    if not 0 <= box.image < images:
        raise UnusableError("box of a picture that is not there", f"{box.label!r}: picture {box.image} of {images}")
    if not (right > left and bottom > top):
        raise UnusableError("box without area", f"{box.label!r}: {box.xyxy}")
    if left < 0 or top < 0 or right > box.size[0] or bottom > box.size[1]:
        raise UnusableError("box outside of its picture", f"{box.label!r}: {box.xyxy} in {box.size}")


def _turn_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [
        {
            "role": turn.role,
            "content": [{"type": part.type, "text": part.text} for part in turn.content],
            "train": turn.train,
        }
        for turn in turns
    ]


def _turns(rows: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    return tuple(
        Turn(row["role"], tuple(Part(part["type"], part["text"] or "") for part in row["content"]), row["train"])
        for row in rows
    )


def chat_features() -> Features:
    """Return the `datasets` features of a row: the same for every vision-language source, so that any can be mixed."""
    from datasets import Features, List, Value

    text, integer = Value("string"), Value("int64")
    turn = {"role": text, "content": List({"type": text, "text": text}), "train": Value("bool")}
    return Features(
        {
            "id": text,
            "messages": List(turn),
            "rejected": List(turn),
            "images": List({"path": text, "bytes": Value("binary"), "offset": integer, "size": integer}),
            "videos": List(text),
            "boxes": List(
                {
                    "image": integer,
                    "label": text,
                    "xyxy": List(Value("float32")),
                    "size": List(integer),
                    "crowd": Value("bool"),
                }
            ),
            "references": List(text),
            "kind": text,
            "source": text,
            "split": text,
            "group": text,
            "weight": Value("float32"),
            "details": text,
        }
    )
