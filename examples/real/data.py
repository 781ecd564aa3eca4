"""Lays out real pictures with words as plain files, from packages of public registries.

    python examples/real/data.py --output outputs/real/data

| folder | what | from | licence |
|---|---|---|---|
| stamps | 784 pictures, captions in up to 75 languages | Debian `tuxpaint-stamps-default` | GPL-2 |
| easy_vqa | 5,000 pictures, 48,248 questions, 13 answers, the official split | PyPI `easy-vqa` | MIT |

Each folder has `train.jsonl` and `test.jsonl`, one record a line: `image` (relative path), and `caption`, or
`question` and `answer`. Stamps that share a caption are on one side, and `test_themes.jsonl` holds whole themes that
the other two never show. Needs `pip` with a package index; `apt-get` and `dpkg-deb` for the stamps (no root).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parts import unpack

STAMPS = "tuxpaint-stamps-default"
EASY_VQA = "easy-vqa==1.0"
HELD_OUT_THEMES = ("clothes", "plants", "vehicles")
TEST_SHARE = 0.2


def share(text: str) -> float:
    """Return a number in 0..1 that depends on a text only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as JSON lines; return how many."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def captions(file: Path) -> dict[str, str]:
    """Return the caption by language of a stamp's text file; the first line is English."""
    first, *others = file.read_text(encoding="utf-8").splitlines()
    found = {"en": first.strip()}
    for line in others:
        name, equals, text = line.partition(".utf8=")
        if equals and text.strip():
            found[name] = text.strip()
    return found


def build_stamps(scratch: Path, target: Path) -> dict[str, int]:
    """Lay out the stamps; pictures that are drawn as SVG, and those without an English caption, are left out."""
    subprocess.run(["apt-get", "download", "-qq", STAMPS], cwd=scratch, check=True)
    package = next(scratch.glob(f"{STAMPS}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "unpacked")], check=True)
    root = scratch / "unpacked/usr/share/tuxpaint/stamps"
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": [], "test_themes": []}
    for picture in sorted(root.rglob("*.png")):
        words = picture.with_suffix(".txt")
        texts = captions(words) if words.is_file() else {}
        if not texts.get("en"):
            continue
        name = picture.relative_to(root)
        (target / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target / "images" / name)
        theme = name.parts[0]
        part = "test_themes" if theme in HELD_OUT_THEMES else "test" if share(texts["en"]) < TEST_SHARE else "train"
        record = {"id": str(name.with_suffix("")), "image": f"images/{name}", "caption": texts.pop("en")}
        parts[part].append({**record, "theme": theme, "languages": texts})
    known = {record["caption"] for record in parts["train"] + parts["test"]}
    parts["test_themes"] = [record for record in parts["test_themes"] if record["caption"] not in known]
    return {part: write(target / f"{part}.jsonl", records) for part, records in parts.items()}


def build_easy_vqa(scratch: Path, target: Path) -> dict[str, int]:
    """Lay out easy-VQA with its official split."""
    root = unpack(EASY_VQA, scratch) / "easy_vqa" / "data"
    counts = {}
    for part in ("train", "test"):
        shutil.copytree(root / part / "images", target / "images" / part)
        questions = json.loads((root / part / "questions.json").read_text())
        counts[part] = write(
            target / f"{part}.jsonl",
            (
                {
                    "id": f"{part}:{number}",
                    "image": f"images/{part}/{picture}.png",
                    "image_id": f"{part}:{picture}",
                    "question": question,
                    "answer": answer,
                    "kind": "yes/no" if answer in ("yes", "no") else " ".join(question.split()[:2]),
                }
                for number, (question, answer, picture) in enumerate(questions)
            ),
        )
    return counts


SETS = {"stamps": build_stamps, "easy_vqa": build_easy_vqa}


def build(name: str, output: Path) -> Path:
    """Return the folder of one of `SETS`, made if it is not there whole."""
    target = output / name
    if not target.is_dir():
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            counts = SETS[name](Path(scratch), made)
            print(f"{name}: " + ", ".join(f"{count} {part}" for part, count in counts.items()))
            made.rename(target)
    return target


def main() -> None:
    """Lay out all sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/real/data"))
    output = parser.parse_args().output
    for name in SETS:
        print(build(name, output))


if __name__ == "__main__":
    main()
