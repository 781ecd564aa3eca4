"""What is wrong with data that reads well: leaks between splits and into evaluation sets, imbalance, outliers."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfvla.data.inspection.hashing import NEAR_BITS, PictureHash, hash_picture, near_pairs
from hfvla.data.inspection.rows import is_chat, picture_sources, row_boxes, row_name, row_texts
from hfvla.data.pictures import load_picture
from hfvla.errors import DataError

__all__ = ["CheckedRows", "Finding", "check_sets", "read_set"]

_DOMINANT, _FEW = 0.5, 20  # share of the commonest answer above which it is said; answers that this is asked of
_FAR = 4.0  # interquartile ranges beyond the quartiles
_DRAFT = 64  # pixels of a side that a JPEG is decoded at, at least
_NAMED = 3
_ASKED = frozenset({"user", "question", "task", "query", "instruction"})  # turns and columns that ask for something


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes:
        check: what was looked for.
        status: "ok", "warn" or "fail".
        where: the set, or the two sets.
        count: of what was found.
        found: in words, with the first ones named.
    """

    check: str
    status: str
    where: str
    count: int
    found: str


@dataclass
class CheckedRows:
    """What the checks need to know of a set of rows.

    Attributes:
        name: of the set.
        names: of the rows.
        groups: what must not cross a split; "" where unknown.
        pictures: digests of pixels, hashes and owning row of each picture.
        questions: normalised questions, with the rows that ask them.
        answers: normalised answer of each row that has one, by kind.
        numbers: values by what they measure, with their row.
        broken: pictures that cannot be read.
    """

    name: str
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    hashes: list[PictureHash] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    questions: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    numbers: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)

    def asked(self, questions: set[str]) -> dict[tuple[str, bytes], int]:
        """Return a row by question and picture, for some questions; those without a picture have b""."""
        pictures: dict[int, list[bytes]] = defaultdict(list)
        for digest, owner in zip(self.digests, self.owners, strict=True):
            pictures[owner].append(digest)
        return {
            (text, digest): row
            for text in questions
            for row in self.questions[text]
            for digest in pictures.get(row) or [b""]
        }


def read_set(name: str, rows: Any, chosen: Iterable[int]) -> CheckedRows:
    """Look at rows once; every picture is decoded, each file once.

    Args:
        name: of the set.
        rows: map-style, of any source.
        chosen: numbers of the rows.
    """
    found = CheckedRows(name)
    seen: dict[str, tuple[bytes, PictureHash, tuple[int, int]]] = {}
    for number in chosen:
        row = rows[number]
        place = len(found.names)
        found.names.append(row_name(row, number))
        found.groups.append(str(row.get("group") or ""))
        _add_texts(found, row, place)
        try:
            for source in picture_sources(row):
                key = source if isinstance(source, str) else ""
                facts = seen.get(key) if key else None
                if facts is None:
                    facts = _facts(source, found.names[-1])
                    if key:
                        seen[key] = facts
                _add_picture(found, facts, place)
        except DataError as error:
            found.broken.append(str(error))
    return found


def _facts(source: str | bytes, name: str) -> tuple[bytes, PictureHash, tuple[int, int]]:
    picture = load_picture(source, name, draft_side=_DRAFT)
    digest = hashlib.blake2b(str(picture.size).encode() + picture.tobytes(), digest_size=16).digest()
    return digest, hash_picture(picture), picture.size


def _add_picture(found: CheckedRows, facts: tuple[bytes, PictureHash, tuple[int, int]], place: int) -> None:
    digest, hashed, (width, height) = facts
    found.digests.append(digest)
    found.hashes.append(hashed)
    found.owners.append(place)
    found.numbers["longer over shorter side of a picture"].append((max(width, height) / min(width, height), place))


def _add_texts(found: CheckedRows, row: Mapping[str, Any], place: int) -> None:
    said = row_texts(row)
    words = sum(len(one.text.split()) for one in said)
    found.numbers["words of a row"].append((words, place))
    for one in said:
        if one.who in _ASKED:
            found.questions[normalised(one.text)].append(place)
    if not is_chat(row):
        return
    learned = [one.text for one in said if one.learned]
    if len(learned) == 1:
        found.answers[str(row.get("kind") or "")][normalised(learned[0])] += 1
    for box in row_boxes(row):
        left, top, right, bottom = box.normalised
        found.numbers["share of the picture that a box covers"].append(((right - left) * (bottom - top), place))


def normalised(text: str) -> str:
    """Return a text without case, punctuation and blanks that do not matter."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]", " ", plain).split())


def check_sets(
    training: Sequence[CheckedRows], evaluation: Sequence[CheckedRows], bits: int = NEAR_BITS
) -> list[Finding]:
    """Return what was found, worst first.

    Args:
        training: sets that are trained on; official splits of one path are sets of their own.
        evaluation: sets that must share nothing with them, nor with each other.
        bits: by which the hashes of pictures that look alike may differ.
    """
    found: list[Finding] = []
    pairs = [(one, other) for number, one in enumerate(training) for other in training[number + 1 :]]
    pairs += [(one, other) for one in training for other in evaluation]
    pairs += [(one, other) for number, one in enumerate(evaluation) for other in evaluation[number + 1 :]]
    for one, other in pairs:
        found += _leaks(one, other, bits)
    for rows in (*training, *evaluation):
        found += _repeats(rows)
        found += _balance(rows)
        found += _outliers(rows)
        if rows.broken:
            found.append(Finding("pictures", "fail", rows.name, len(rows.broken), f"not read: {rows.broken[0]}"))
    rank = {"fail": 0, "warn": 1, "ok": 2}
    return sorted(found, key=lambda one: rank[one.status])


def _leaks(one: CheckedRows, other: CheckedRows, bits: int) -> list[Finding]:
    where = f"{one.name} and {other.name}"
    found = []
    shared = sorted(set(filter(None, one.groups)) & set(other.groups))
    found.append(_leak("groups", where, len(shared), ", ".join(shared[:_NAMED])))
    equal = set(one.digests) & set(other.digests)
    first = _first(equal, one, other)
    found.append(_leak("equal pictures", where, len(equal), first))
    near = [
        (a, b)
        for a, b, _ in near_pairs(one.hashes, other.hashes, bits)
        if one.digests[a] not in equal and other.digests[b] not in equal
    ]
    named = [f"{one.names[one.owners[a]]} ~ {other.names[other.owners[b]]}" for a, b in near[:_NAMED]]
    found.append(_leak("nearly equal pictures", where, len(near), ", ".join(named)))
    questions = set(filter(None, one.questions)) & set(other.questions)
    own, theirs = one.asked(questions), other.asked(questions)
    both = sorted(set(own) & set(theirs))
    named = [f"{one.names[own[key]]} = {other.names[theirs[key]]}" for key in both[:_NAMED]]
    found.append(_leak("equal questions about the same", where, len(both), ", ".join(named)))
    if questions:
        share = sum(len(other.questions[text]) for text in questions) / max(1, sum(map(len, other.questions.values())))
        text = f"{share:.1%} of the questions of {other.name}, about other pictures; e.g. {min(questions, key=len)!r}"
        found.append(Finding("equal questions", "ok", where, len(questions), text))
    return found


def _leak(check: str, where: str, count: int, named: str) -> Finding:
    return Finding(check, "fail" if count else "ok", where, count, named or "none shared")


def _first(digests: set[bytes], one: CheckedRows, other: CheckedRows) -> str:
    named = []
    for digest in sorted(digests)[:_NAMED]:
        a, b = one.owners[one.digests.index(digest)], other.owners[other.digests.index(digest)]
        named.append(f"{one.names[a]} = {other.names[b]}")
    return ", ".join(named)


def _repeats(rows: CheckedRows) -> list[Finding]:
    names = Counter(rows.names)
    twice = [name for name, count in names.items() if count > 1]
    if not twice:
        return []
    return [Finding("names", "warn", rows.name, len(twice), f"rows of one name, e.g. {', '.join(twice[:_NAMED])}")]


def _balance(rows: CheckedRows) -> list[Finding]:
    found = []
    for kind, answers in rows.answers.items():
        total = answers.total()
        if total < _FEW or len(answers) < 2:
            continue
        (answer, most), *_ = answers.most_common(1)
        share = most / total
        where = f"{rows.name}, kind '{kind}'" if kind else rows.name
        text = f"{answer!r} is {share:.1%} of {total} answers, {len(answers)} different ones"
        if share > _DOMINANT:
            found.append(Finding("class balance", "warn", where, most, text))
        elif len(answers) < total / 4:  # else answers are sentences, of which none repeats
            found.append(Finding("class balance", "ok", where, most, text))
    return found


def _outliers(rows: CheckedRows) -> list[Finding]:
    found = []
    for what, pairs in rows.numbers.items():
        values = np.array([value for value, _ in pairs], dtype=np.float64)
        if len(values) < _FEW:
            continue
        low, high = np.quantile(values, [0.25, 0.75])
        reach = _FAR * max(high - low, 0.05 * abs(high), 1e-9)
        far = [(value, owner) for value, owner in pairs if not low - reach <= value <= high + reach]
        if far:
            far.sort(key=lambda pair: -abs(pair[0]))
            named = ", ".join(f"{rows.names[owner]} ({value:.3g})" for value, owner in far[:_NAMED])
            text = f"{what}: {len(far)} of {len(values)} beyond {low - reach:.3g} to {high + reach:.3g}: {named}"
            found.append(Finding("outliers", "warn", rows.name, len(far), text))
    return found
