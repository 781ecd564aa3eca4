"""What the files at a path are taken for, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hfvla.data.sources.vision_language import refcoco, vqa
from hfvla.data.sources.vision_language.discovery import Found, discover
from hfvla.data.sources.vision_language.formats import FORMATS, Format, recognise
from hfvla.data.sources.vision_language.heads import Head, read_head
from hfvla.data.sources.vision_language.options import VisionLanguageOptions
from hfvla.data.sources.vision_language.records import Taken
from hfvla.data.sources.vision_language.splits import split_of_path
from hfvla.errors import DataError

__all__ = ["KINDS", "Plan", "plan_files"]

KINDS = {one.name: one for one in FORMATS}
_NAMELESS = frozenset({"table", "llava", "messages", "preference"})  # formats of many sets: the file names the set
_OF_FOLDERS = frozenset({"refcoco", "webdataset", "captioned_files"})  # the folder does


@dataclass
class Plan:
    """What the files at a path are taken for.

    Attributes:
        found: what lies there.
        taken: files by what they are read as.
        beside: reason by name of files that only describe or complete others.
        unknown: reason by name of files that nothing recognises.
    """

    found: Found
    taken: list[Taken] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Format by name of the file."""
        return {head.name: taken.format for taken in self.taken for head in taken.heads}

    @property
    def paths(self) -> list[Path]:
        """Every file that decides what the rows are."""
        return sorted({*self.found.files, *(head.path for taken in self.taken for head in taken.heads)})


def plan_files(options: VisionLanguageOptions) -> Plan:
    """Look at every file at a path and say what it is read as; nothing is read beyond heads.

    Raises:
        DataError: nothing is there, or nothing that is recognised.
    """
    plan = Plan(discover(Path(options.path), follow_links=options.follow_links))
    heads: dict[str, list[Head]] = {}
    for path in plan.found.files:
        head = read_head(path, path.relative_to(plan.found.root).as_posix())
        told = _beside_a_shard(path)
        if told:
            plan.beside[head.name] = told
            continue
        chosen = _chosen(head, options)
        if chosen is None:
            plan.unknown[head.name] = head.problem or _described(head)
        else:
            heads.setdefault(chosen.name, []).append(head)
    if options.format in ("auto", "captioned_files"):
        for folder in plan.found.captioned:
            name = folder.relative_to(plan.found.root).as_posix()
            heads.setdefault("captioned_files", []).append(Head(folder, name, "folder"))
    _complete(heads, plan)
    for name, found in heads.items():
        plan.taken += _joined(found) if name == "vqa" else [_taken(name, (head,)) for head in found]
    order = {name: number for number, name in enumerate(sorted(plan.files))}
    plan.taken.sort(key=lambda taken: order[taken.heads[0].name])
    if not plan.taken:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(plan.unknown.items())[:5])
        raise DataError(
            "nothing here is a vision-language set",
            where=options.path,
            got=shown or "no file",
            expected=f"one of {', '.join(KINDS)}",
            fix="Name its fields: mapping.",
        )
    return plan


def _chosen(head: Head, options: VisionLanguageOptions) -> Format | None:
    if head.problem or head.kind in ("picture", "text"):
        return None
    if options.format != "auto":
        return KINDS[options.format]
    if options.mapping is not None and head.kind not in ("tar", "pickle"):
        return KINDS["table"]
    return recognise(head)


def _beside_a_shard(path: Path) -> str:
    """Return what a file of img2dataset is that only says what a shard beside it holds; "" for any other."""
    stem = path.name.split(".")[0].removesuffix("_stats")
    if path.suffix not in (".parquet", ".json") or not stem.isdecimal():
        return ""
    return f"describes {stem}.tar" if path.with_name(f"{stem}.tar").is_file() else ""


def _complete(heads: dict[str, list[Head]], plan: Plan) -> None:
    """Add what files need beside them, and leave out what is read with others."""
    if heads.get("vqa") and not any(vqa.is_answers(head) for head in heads["vqa"]):
        heads["vqa"] += _answers_beside(heads["vqa"])
    references = heads.get("refcoco", [])
    folders = {head.path.parent for head in references}
    for head in [one for one in heads.get("coco_instances", []) if one.path.parent in folders]:
        if head.path.name == refcoco.INSTANCES:
            heads["coco_instances"].remove(head)
            plan.beside[head.name] = "boxes of the references beside it"
    for folder in folders:
        same = sorted((head for head in references if head.path.parent == folder), key=refcoco.division_of)
        for head in same[1:] if same[0].kind == "pickle" else ():
            references.remove(head)
            plan.beside[head.name] = f"another division of {same[0].path.name}; name the file to read it"


def _answers_beside(questions: Iterable[Head]) -> list[Head]:
    """Look for answers beside the one file of questions that a recipe names."""
    asked = {split_of_path(vqa.subtype_of(head)) for head in questions}
    folders = {head.path.parent for head in questions}
    found = []
    for path in sorted(one for folder in folders for one in folder.glob("*.json")):
        head = read_head(path, path.name)
        if vqa.is_answers(head) and split_of_path(vqa.subtype_of(head)) in asked:
            found.append(head)
    return found


def _joined(heads: Iterable[Head]) -> list[Taken]:
    """Put question files and answer files of one split together."""
    by_split: dict[str, list[Head]] = {}
    for head in heads:
        by_split.setdefault(split_of_path(vqa.subtype_of(head)), []).append(head)
    return [_taken("vqa", tuple(sorted(found, key=vqa.is_answers))) for found in by_split.values()]


def _taken(name: str, heads: tuple[Head, ...]) -> Taken:
    path, source = heads[0].path, name
    if name in _NAMELESS:
        source = path.stem
    elif name in _OF_FOLDERS:
        source = (path if heads[0].kind == "folder" else path.parent).name or name
    return Taken(name, source, heads)


def _described(head: Head) -> str:
    if head.kind == "object":
        return f"an object with {', '.join(sorted(head.sections)[:8])}"
    if head.first:
        return f"{head.kind} of records with {', '.join(sorted(map(str, head.first))[:12])}"
    return f"{head.kind} without records" if head.kind else "no kind of file that is read"
