"""Lays out real excerpts of COCO, A-OKVQA and TextVQA: pictures to learn from, and others to score.

An excerpt is a few dozen pictures, so half of them, by a seed, are kept for scores, and what a picture model needs in
numbers comes from the stamps of `data.py`, which are cut out: pasted over pictures to learn from, they are objects
whose names and places are known.

| file | what | for |
|---|---|---|
| `annotations/captions_*.json`, `instances_*.json` | COCO's, a half each (`train2017`, `val2017`) | captions, boxes |
| `asked_*.jsonl` | "Is there a dog in the picture?", as many yes as no | questions |
| `scenes/instances_train.json`, `scenes/asked_train.jsonl` | pasted stamps, the same two | boxes, questions |
| `words_*.jsonl` | questions of A-OKVQA and TextVQA, whose pictures are not there | answers by words alone |

What is absent is drawn as often as it is present elsewhere (POPE's "popular" objects, Li et al. 2023): a frequent name
is as often wrong as right. A stamp may lie over another one, whose name and box stay.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data import write

SCENES, SCENE_SIDE = 1200, 224
MOST_STAMPS, SMALLEST, LARGEST = 3, 0.25, 0.8  # of a scene; sides of a stamp, as shares of the scene's
ASKED = 3  # names that a picture shows, and as many that it does not
LONGEST_NAME = 3  # words

COCO, AOKVQA, TEXTVQA = "coco", "aokvqa", "textvqa"


def load(file: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(file.read_text(encoding="utf-8"))


def check_source(source: Path) -> None:
    """Look for the files that are read.

    Raises:
        FileNotFoundError: some are missing; all of them are named.
    """
    wanted = [f"{COCO}/annotations/{kind}_val2017.json" for kind in ("captions", "instances")]
    wanted += [f"{COCO}/val2017", f"{AOKVQA}/aokvqa_v1p0_val.json"]
    wanted += [f"{TEXTVQA}/TextVQA_0.5.1_{part}.json" for part in ("train", "val")]
    missing = [name for name in wanted if not (source / name).exists()]
    if missing:
        raise FileNotFoundError(f"{source} has no {', '.join(missing)}")


def halves(folder: Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Divide the pictures of an excerpt whose files are there into "train" and "val", half each.

    Raises:
        FileNotFoundError: fewer than two pictures are there.
    """
    pictures = load(folder / "annotations" / "captions_val2017.json")["images"]
    there = sorted((one for one in pictures if (folder / "val2017" / one["file_name"]).is_file()), key=_number)
    if len(there) < 2:
        raise FileNotFoundError(f"{folder / 'val2017'}: {len(there)} of the {len(pictures)} pictures listed; need two")
    random.Random(f"excerpts/{seed}").shuffle(there)
    middle = len(there) // 2
    return {"train": there[middle:], "val": there[:middle]}


def _number(picture: Mapping[str, Any]) -> int:
    return int(picture["id"])


def write_coco(folder: Path, target: Path, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write COCO's two files once for each half, and copy the pictures."""
    (target / "annotations").mkdir(parents=True, exist_ok=True)
    (target / "pictures").mkdir(exist_ok=True)
    for kind in ("captions", "instances"):
        whole = load(folder / "annotations" / f"{kind}_val2017.json")
        for part, pictures in parts.items():
            kept = {picture["id"] for picture in pictures}
            own = [one for one in whole["annotations"] if one["image_id"] in kept]
            content = {**whole, "images": list(pictures), "annotations": own}
            (target / "annotations" / f"{kind}_{part}2017.json").write_text(json.dumps(content))
    for picture in (one for pictures in parts.values() for one in pictures):
        shutil.copyfile(folder / "val2017" / picture["file_name"], target / "pictures" / picture["file_name"])


def shown(instances: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of what each picture of a COCO file shows, by file name."""
    names = {one["id"]: one["name"] for one in instances["categories"]}
    files = {one["id"]: one["file_name"] for one in instances["images"]}
    found: dict[str, list[str]] = {file: [] for file in files.values()}
    for one in instances["annotations"]:
        seen = found[files[one["image_id"]]]
        if names[one["category_id"]] not in seen:
            seen.append(names[one["category_id"]])
    return found


def asked_of(present: Mapping[str, Sequence[str]], folder: str, seed: int) -> Iterable[dict[str, Any]]:
    """Yield questions for what pictures show and for what they do not, as many of both for each picture.

    Args:
        present: names by picture.
        folder: of the pictures, as the records have it.
        seed: which names.
    """
    everywhere = [name for names in present.values() for name in sorted(set(names))]
    for file, names in sorted(present.items()):
        generator = random.Random(f"asked/{seed}/{file}")
        yes = sorted(set(names))
        generator.shuffle(yes)
        others = [name for name in everywhere if name not in names]
        no: list[str] = []
        while others and len(no) < min(ASKED, len(yes)):
            no.append(generator.choice(others))
            others = [name for name in others if name != no[-1]]
        for answer, chosen in (("yes", yes[: len(no)]), ("no", no)):
            for name in chosen:
                article = "an" if name[0] in "aeiou" else "a"
                question = f"Is there {article} {name} in the picture? Answer yes or no."
                record = {"id": f"{file}/{name}", "image": f"{folder}/{file}", "question": question}
                yield {**record, "answer": answer, "question_type": "is there"}


def stamp_name(caption: str) -> str:
    """Return what a stamp's caption calls it, or "" where it is no plain name ("A frog." is a frog)."""
    words = caption.strip().rstrip(".!").split()
    if not words or words[0].lower() not in ("a", "an") or not 1 <= len(words) - 1 <= LONGEST_NAME:
        return ""
    return " ".join(words[1:]).lower() if all(word.isalpha() for word in words) else ""


def paste_scenes(stamps: Path, pictures: Sequence[Path], target: Path, seed: int) -> dict[str, Any]:
    """Paste stamps over crops of pictures, and return their boxes as a COCO file has them.

    Args:
        stamps: folder that `data.build_stamps` made; its training part is used.
        pictures: backgrounds.
        target: folder of the scenes.
        seed: which stamps, and where.
    """
    records = [json.loads(line) for line in (stamps / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    named = [(name, stamps / one["image"]) for one in records if (name := stamp_name(one["caption"]))]
    names = sorted({name for name, _ in named})
    images, annotations = [], []
    for number in range(SCENES):
        generator = random.Random(f"scene/{seed}/{number}")
        scene = _background(generator.choice(pictures), generator)
        chosen = {name: file for name, file in generator.sample(named, generator.randint(1, MOST_STAMPS))}
        for name, file in chosen.items():
            box = _paste(scene, file, generator)
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": names.index(name) + 1,
                                "bbox": box, "iscrowd": 0})  # fmt: skip
        file_name = f"scene_{number:05d}.jpg"
        scene.save(target / file_name, quality=90)
        images.append({"id": number, "file_name": file_name, "width": SCENE_SIDE, "height": SCENE_SIDE})
    categories = [{"id": place + 1, "name": name} for place, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _background(file: Path, generator: random.Random) -> Image.Image:
    with Image.open(file) as opened:
        whole = opened.convert("RGB")
    side = int(min(whole.size) * generator.uniform(0.3, 0.7))
    left, top = (generator.randint(0, edge - side) for edge in whole.size)
    return whole.crop((left, top, left + side, top + side)).resize((SCENE_SIDE, SCENE_SIDE))


def _paste(scene: Image.Image, file: Path, generator: random.Random) -> list[int]:
    """Paste a stamp somewhere, mirrored or not, and return its box (left, top, width, height) in pixels."""
    with Image.open(file) as opened:
        stamp = opened.convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    if generator.random() < 0.5:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = generator.uniform(SMALLEST, LARGEST) * SCENE_SIDE / max(stamp.size)
    stamp = stamp.resize([max(8, round(edge * scale)) for edge in stamp.size])
    place = tuple(generator.randint(0, SCENE_SIDE - edge) for edge in stamp.size)
    scene.paste(stamp, place, stamp)
    return [*place, *stamp.size]


def words_of(aokvqa: Path, textvqa: Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return the questions of both sets by part: half of A-OKVQA's validation questions, TextVQA's official split."""
    own = [one for one in load(aokvqa / "aokvqa_v1p0_val.json") if not one["difficult_direct_answer"]]
    random.Random(f"words/{seed}").shuffle(own)
    middle = len(own) // 2
    parts = {"train": own[middle:], "val": own[:middle]}
    found = {}
    for part, questions in parts.items():
        read = load(textvqa / f"TextVQA_0.5.1_{part}.json")["data"]
        both = [(AOKVQA, one["question"], one["direct_answers"]) for one in questions]
        both += [(TEXTVQA, one["question"], one["answers"]) for one in read]
        found[part] = [
            {"id": f"{source}/{part}/{number}", "question": question, "answers": list(answers),
             "question_type": " ".join([source, *question.lower().split()[:2]])}
            for number, (source, question, answers) in enumerate(both)
        ]  # fmt: skip
    return found


def build_excerpts(source: Path, stamps: Path, target: Path, seed: int) -> Path:
    """Lay out everything of one seed; a whole folder is kept.

    Args:
        source: folder of `coco`, `aokvqa` and `textvqa`.
        stamps: folder that `data.build` made.
        target: folder to make.
        seed: which pictures and questions are kept for scores.

    Raises:
        FileNotFoundError: a file of the sets is missing, or pictures are.
    """
    if (target / "words_val.jsonl").is_file():  # the last
        return target
    check_source(source)
    parts = halves(source / COCO, seed)
    write_coco(source / COCO, target, parts)
    for part in parts:
        present = shown(load(target / "annotations" / f"instances_{part}2017.json"))
        write(target / f"asked_{part}.jsonl", asked_of(present, "pictures", seed))
    (target / "scenes").mkdir(exist_ok=True)
    backgrounds = [target / "pictures" / one["file_name"] for one in parts["train"]]
    scenes = paste_scenes(stamps, backgrounds, target / "scenes", seed)
    (target / "scenes" / "instances_train.json").write_text(json.dumps(scenes), encoding="utf-8")
    write(target / "scenes" / "asked_train.jsonl", asked_of(shown(scenes), ".", seed))
    for part, records in words_of(source / AOKVQA, source / TEXTVQA, seed).items():
        write(target / f"words_{part}.jsonl", records)
    print(f"excerpts, seed {seed}: {len(parts['train'])} pictures to learn from, {len(parts['val'])} to score")
    return target
