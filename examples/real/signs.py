"""Real dashcam tracks of traffic signs, one behind the other as drives, with questions in Vietnamese and English.

The pictures are those of the German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), training part: tracks
of 30 frames in which the car approaches one of 43 signs. No package carries them; `--signs` names the archive, or one
that keeps some of the frames: `<class>/<track>_<frame>.png` or `.ppm`.

A drive is four tracks of four different signs, a second each. Tracks are divided before drives are made of them, so no
track of a test drive is in a training drive. Choices are drawn as the answers are, by how many tracks a sign has:
a question alone tells nothing of its answer.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sign_names import SIGNS

from hfvla.worlds.road.encode import write_mp4

SIDE, TRACKS, TRACK_FRAMES = 128, 4, 8  # pixels; tracks a drive; frames a track, in a second
TEST_SHARE = 0.2
KINDS = ("which", "first", "last", "when", "at")
TIMED = ("when", "at")  # those of one second
LANGUAGES = ("en", "vi")
_FILE = re.compile(r"(\d{5})/(\d{5})_(\d{5})\.(?:png|ppm)$")

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "which": "Which of these traffic signs does the car pass?",
        "first": "Which of these traffic signs does the car pass first?",
        "last": "Which of these traffic signs does the car pass last?",
        "when": "When does the car pass the sign '{sign}'?",
        "at": "Which traffic sign does the car pass in {second}?",
        "name": "Which traffic sign does the car pass?",
        "order": "Which traffic signs does the car pass, in this order?",
        "second": "second {number}",
    },
    "vi": {
        "which": "Xe đi qua biển báo nào trong các biển sau?",
        "first": "Xe đi qua biển báo nào đầu tiên?",
        "last": "Xe đi qua biển báo nào cuối cùng?",
        "when": "Xe đi qua biển '{sign}' khi nào?",
        "at": "Xe đi qua biển báo nào ở {second}?",
        "name": "Xe đi qua biển báo nào?",
        "order": "Xe lần lượt đi qua các biển báo nào?",
        "second": "giây thứ {number}",
    },
}


@dataclass(frozen=True)
class Track:
    """One approach to one sign.

    Attributes:
        sign: 0..42, the official number.
        number: of the track among those of its sign.
        files: names in the archive, in time.
    """

    sign: int
    number: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Drive:
    """Tracks in the order in which the car passes them, and the file that shows them."""

    name: str
    tracks: tuple[Track, ...]

    @property
    def signs(self) -> tuple[int, ...]:
        """Numbers of the signs, in time."""
        return tuple(track.sign for track in self.tracks)


def tracks_of(archive: zipfile.ZipFile) -> list[Track]:
    """Return the tracks of an archive, each with `TRACK_FRAMES` of its frames.

    Raises:
        ValueError: it holds no pictures of tracks.
    """
    found: dict[tuple[int, int], list[str]] = {}
    for name in sorted(archive.namelist()):
        if match := _FILE.search(name):
            found.setdefault((int(match[1]), int(match[2])), []).append(name)
    if not found:
        raise ValueError(f"{archive.filename}: no <class>/<track>_<frame>.png or .ppm in it")
    places = np.linspace(0, 1, TRACK_FRAMES)
    return [
        Track(sign, number, tuple(files[round(place * (len(files) - 1))] for place in places))
        for (sign, number), files in sorted(found.items())
    ]


def split_tracks(tracks: Sequence[Track], seed: int = 0) -> dict[str, list[Track]]:
    """Divide tracks into "train" and "test", sign by sign, so that both have every sign with two tracks or more."""
    parts: dict[str, list[Track]] = {"train": [], "test": []}
    for sign in sorted({track.sign for track in tracks}):
        own = [track for track in tracks if track.sign == sign]
        random.Random(f"signs/{seed}/{sign}").shuffle(own)
        count = max(1, round(TEST_SHARE * len(own))) if len(own) > 1 else 0
        parts["test"] += own[:count]
        parts["train"] += own[count:]
    return parts


def drives_of(tracks: Sequence[Track], count: int, part: str, seed: int = 0) -> list[Drive]:
    """Draw drives of `TRACKS` tracks with different signs; every track is used about as often as any other.

    Raises:
        ValueError: too few different signs for a drive and for what it does not show.
    """
    different, least = len({track.sign for track in tracks}), 2 * TRACKS - 1
    if different < least:
        raise ValueError(f"{part}: a question needs {least} different signs; got {different}")
    generator = random.Random(f"drives/{seed}/{part}")
    drives, waiting = [], list[Track]()
    for number in range(count):
        chosen: list[Track] = []
        while len(chosen) < TRACKS:
            fitting = [track for track in waiting if track.sign not in {other.sign for other in chosen}]
            if not fitting:
                fresh = list(tracks)
                generator.shuffle(fresh)
                waiting += fresh
                continue
            chosen.append(fitting[0])
            waiting.remove(fitting[0])
        generator.shuffle(chosen)
        drives.append(Drive(f"{part}_{number:04d}", tuple(chosen)))
    return drives


def questions_of(
    drive: Drive, tracks: Sequence[Track], number: int, *, every_second: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a drive's records as the road-video challenge has them: one of each kind, in turn in each language.

    Args:
        drive: which.
        tracks: of its part; wrong choices are among their signs.
        number: of the drive.
        every_second: ask of each second where a question is of one, as for training: what a drive shows in its other
            seconds then says nothing about the answer.
    """
    for place, kind in enumerate(KINDS):
        generator = random.Random(f"{drive.name}/{kind}")
        everywhere = every_second and kind in TIMED
        for second in range(TRACKS) if everywhere else (generator.randrange(TRACKS),):
            turn = number + place + (second if every_second else 0)
            yield _record(drive, tracks, kind, LANGUAGES[turn % len(LANGUAGES)], second, generator)


def named_of(drives: Sequence[Drive], kind: str) -> Iterator[dict[str, Any]]:
    """Yield the records that ask for all signs of each drive, in each language: what teaches names, and then seconds.

    Args:
        drives: past one sign ("name"), or past several ("order").
        kind: "name" or "order".
    """
    tracks = [track for drive in drives for track in drive.tracks]
    for drive in drives:
        for language in LANGUAGES:
            yield _record(drive, tracks, kind, language, 0, random.Random(f"{drive.name}/{kind}/{language}"))


def _record(
    drive: Drive, tracks: Sequence[Track], kind: str, language: str, place: int, generator: random.Random
) -> dict[str, Any]:
    said, place = WORDS[language], {"first": 0, "last": len(drive.tracks) - 1}.get(kind, place)
    seconds = [said["second"].format(number=second + 1) for second in range(len(drive.tracks))]
    shown = [SIGNS[sign][LANGUAGES.index(language)] for sign in drive.signs]
    choices, right = list(shown), shown[place]
    if kind == "when":
        choices, right = list(seconds), seconds[place]
    elif kind in ("which", "name"):
        others = _others(drive, tracks, generator)
        choices = [right, *(SIGNS[sign][LANGUAGES.index(language)] for sign in others)]
    elif kind == "order":
        choices = [", ".join((*shown[first:], *shown[:first])) for first in range(len(shown))]
        right = choices[0]
    generator.shuffle(choices)
    listed = [f"{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
    return {
        "id": f"{drive.name}_{kind}_{place}_{language}",
        "question": said[kind].format(sign=shown[place], second=seconds[place]),
        "choices": listed,
        "answer": listed[choices.index(right)],
        "video_path": f"videos/{drive.name}.mp4",
        "kind": kind,
        "signs": list(drive.signs),
        "tracks": [track.number for track in drive.tracks],
        "place": place,
    }


def _others(drive: Drive, tracks: Sequence[Track], generator: random.Random) -> list[int]:
    """Draw three signs that the drive does not show, each as likely as it has tracks."""
    found: list[int] = []
    while len(found) < TRACKS - 1:
        sign = generator.choice(tracks).sign
        if sign not in drive.signs and sign not in found:
            found.append(sign)
    return found


def picture(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return a frame of a track as [SIDE, SIDE, 3] uint8."""
    with Image.open(io.BytesIO(archive.read(name))) as opened:
        return np.asarray(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def build_signs(archive: Path, target: Path, drives: Mapping[str, int]) -> Path:
    """Lay out drives as clips with questions: `train.json`, `test.json`, `videos/`; a whole folder is kept.

    `names.json` asks for the sign of each training track alone, `orders.json` for all signs of a training drive.

    Args:
        archive: zip of the tracks.
        target: folder to make.
        drives: how many, of "train" and "test".
    """
    if all((target / file).is_file() for file in ("orders.json", "test.json")):  # the last of each part
        return target
    (target / "videos").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as opened:
        for part, tracks in split_tracks(tracks_of(opened)).items():
            made = drives_of(tracks, drives[part], part)
            alone = [Drive(f"track_{one.sign:02d}_{one.number:04d}", (one,)) for one in tracks if part == "train"]
            for drive in (*made, *alone):
                _film(opened, drive, target / "videos" / f"{drive.name}.mp4")
            if part == "train":
                _write(target / "names.json", named_of(alone, "name"))
                _write(target / "orders.json", named_of(made, "order"))
            every = part == "train"
            asked = (questions_of(drive, tracks, number, every_second=every) for number, drive in enumerate(made))
            _write(target / f"{part}.json", itertools.chain.from_iterable(asked))
    return target


def _film(archive: zipfile.ZipFile, drive: Drive, clip: Path) -> None:
    if not clip.is_file():
        names = [name for track in drive.tracks for name in track.files]
        write_mp4(clip, (picture(archive, name) for name in names), TRACK_FRAMES)


def _write(file: Path, records: Iterable[Mapping[str, Any]]) -> None:
    listed = list(records)
    content = {"__count__": len(listed), "data": listed}
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=0), encoding="utf-8")
    unfinished.rename(file)
