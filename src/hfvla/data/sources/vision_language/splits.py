"""Official splits, told by file names and records, and the groups that must not cross them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePath

__all__ = ["image_group", "split_of_path", "split_wanted", "usual_split"]

_WORDS = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val|valid|validation|dev|minival)"
    r"|(?P<test>test(?:[-_]?(?:dev|std|standard|challenge|a|b))?|challenge|submission))"
    r"(?:20\d\d|all)?(?![a-z])"
)
_USUAL = {
    "training": "train",
    "trainval": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "minival": "val",
    "restval": "train",
}
_COCO = re.compile(r"^(?:COCO_(?:train|val|test)20\d\d_)?(\d{12})$")
_NAMESPACES = {
    "gqa": "vg",
    "vg": "vg",
    "visual_genome": "vg",
    "visualgenome": "vg",
    "vg_100k": "vg",
    "vg_100k_2": "vg",
}


def usual_split(name: str) -> str:
    """Return "train", "val" or "test" for a split of any set's own name; another name as it is.

    "testA" and "testdev" are test, "minival" is val, and so are the numbers of years behind a name.
    """
    lowered = re.sub(r"20\d\d$", "", name.strip().casefold())
    if lowered.startswith(("test", "challenge", "submission")):
        return "test"
    return _USUAL.get(lowered, lowered)


def split_of_path(name: str) -> str:
    """Return the official split that a file's name or one of its folders tells, the last one that does; "" for none.

    Args:
        name: path below the root; what stands above it says nothing.
    """
    for part in reversed(PurePath(name).parts):
        found = [match["test"] or match.lastgroup or "" for match in _WORDS.finditer(part.casefold())]
        if found:
            return found[-1]
    return ""


def split_wanted(split: str, wanted: Collection[str]) -> bool:
    """Tell whether a record of an official split is to be read; one of a set without splits always is."""
    if not split or "all" in wanted:
        return True
    return split in wanted or usual_split(split) in {usual_split(name) for name in wanted if name in _usual_names()}


def _usual_names() -> Collection[str]:
    return ("train", "val", "test", "validation")


def image_group(name: str, fallback: str = "") -> str:
    """Return a key of a picture that is the same in every set that shows it.

    COCO's pictures are in COCO, VQA, A-OKVQA, RefCOCO and LLaVA under two names, those of Visual Genome in GQA: a
    picture that is held out of one set must be held out of all.

    Args:
        name: path or file name of the picture.
        fallback: namespace of a set's own names, where the path has none that is known.
    """
    path = name.replace("\\", "/") if "\\" in name else name
    folders, _, last = path.rpartition("/")
    stem = last.rpartition(".")[0] or last
    coco = _COCO.match(stem)
    if coco:
        return f"coco/{int(coco[1])}"
    if folders:
        for part in reversed(folders.casefold().split("/")):
            space = _NAMESPACES.get(part)
            if space:
                return f"{space}/{stem}"
    return f"{fallback}/{stem}" if fallback else path
