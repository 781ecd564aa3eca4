"""Wrong uses of the command line: every command, every argument of it, and what people and scripts put there.

`wrong_uses(place)` lists them by name, with their words; `place` is a folder that `prepare` filled. The test beside
this file and `benchmarks/attack.py` run them in one process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from hfvla.outputs import mark_folder

__all__ = ["FAMILIES", "WrongUse", "prepare", "problems", "snapshot", "wrong_uses"]

FAMILIES = ("ember_vlm", "internvl_retrieval", "internvl_video_qa", "sensor_vla")

NEW = ("new", "out")  # named as output, and not there before
RECIPE = {
    "family": "ember_vlm",
    "name": "attacked",
    "seed": 1,
    "data": {"train": [{"source": "fleet", "size": 8, "image_size": 32}]},
    "stages": [{"name": "only", "train": ["selection_head"], "losses": {"selection": 1.0}}],
}


@dataclass(frozen=True)
class WrongUse:
    """A use that must end with one line and exit code 1 or 2.

    Attributes:
        name: command, argument and what is wrong.
        words: of the command line.
    """

    name: str
    words: tuple[str, ...]


def prepare(place: Path) -> Path:
    """Make a folder with files of every kind: what a user has, and what an argument may point at by mistake."""
    place.mkdir()
    recipe = yaml.safe_dump({**RECIPE, "output_dir": str(place / "out")})
    (place / "recipe.yaml").write_text(recipe)
    (place / "broken.yaml").write_text("family: [ember_vlm\n  name: {")
    (place / "list.yaml").write_text("- 1\n- 2\n")
    (place / "text.txt").write_text("notes of mine\n")
    (place / "binary.bin").write_bytes(bytes(range(256)) * 8)
    (place / "empty").touch()
    (place / "other.json").write_text('{"mine": [1, 2, 3]}')
    (place / "folder").mkdir()
    (place / "folder" / "thesis.tex").write_text("years of work")
    (place / "cooking").mkdir()
    (place / "cooking" / "recipe.json").write_text('{"title": "bread"}')
    (place / "cooking" / "photo.txt").write_text("mine")
    (place / "dead").symlink_to(place / "gone" / "target")
    (place / "loop").symlink_to(place / "loop")
    (place / "ünï cödé ☃").mkdir()
    (place / "nothing").mkdir()
    os.mkfifo(place / "fifo")
    for family in FAMILIES:
        (place / family).mkdir()
        (place / family / "config.json").write_text(json.dumps({"model_type": family}))
    for name, content in (("null", "null"), ("list", "[]"), ("cut", '{"model_type": "ember'), ("number", "3")):
        (place / f"config_{name}").mkdir()
        (place / f"config_{name}" / "config.json").write_text(content)
    (place / "foreign").mkdir()
    (place / "foreign" / "config.json").write_text('{"model_type": "bert"}')
    mark_folder(place / "run", "run")
    (place / "run" / "metrics.json").write_text('{"mine": 1}')
    (place / "pictures").mkdir()
    for name in ("pictures/a.png", "mine.png"):
        Image.new("RGB", (8, 8)).save(place / name)
    mark_folder(place / "index", "index")
    return place


def snapshot(place: Path) -> dict[str, Any]:
    """Return every file below a folder with its content, and every link and folder."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "a folder" if path.is_dir() else "something else"
    return found


def problems(uses: Iterable[WrongUse], place: Path) -> Iterator[tuple[WrongUse, str]]:
    """Run uses one by one in this process; yield those that end wrong, or change a file that was there."""
    before = snapshot(place)
    for use in uses:
        problem = _ends_wrong(use)
        now = {name: entry for name, entry in snapshot(place).items() if name.split("/")[0] not in NEW}
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if problem or changed:
            yield use, problem or "changed " + ", ".join(changed)
            before = now


def _ends_wrong(use: WrongUse) -> str | None:
    from hfvla.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = "nothing raised"
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(use.words))
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    said, told = err.getvalue(), [line for line in err.getvalue().splitlines() if line.strip()]
    if code not in (1, 2):
        return f"ended with {code!r}; {said[-300:]}"
    if "Traceback" in out.getvalue() + said:
        return f"a traceback: {said[-300:]}"
    if not any("rror" in line for line in told):
        return f"no error is said: {said[-300:]!r}"
    if len(told) > 20 or len(said) > 6000:
        return f"{len(told)} lines, {len(said)} characters"
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in said.replace("\x1b[", "")):
        return f"control characters: {said!r}"
    return None


# ---- what is put where something else is wanted -----------------------------------------------------------------

NUMBERS = ("x", "-1", "1e20", "nan", "", "0x10", "١٢x", "99999999999999999999999999")
SPECIAL = {
    "empty word": "",
    "nothing there": "{place}/none/at/all",
    "newline": "{place}/no\nsuch\x1b[31mthing",
    "too long": "{place}/" + "x" * 300,
    "far too long": "x/" * 3000,
    "not UTF-8": "{place}/\udcff\udcfe",
    "zero byte": "{place}/a\0b",
    "other scripts": "{place}/نموذج/模型",
    "dead link": "{place}/dead",
    "loop of links": "{place}/loop",
    "proc": "/proc/nothing/there",
}
NO_CHECKPOINT = {
    **SPECIAL,
    "a file": "{place}/text.txt",
    "a folder without config": "{place}/folder",
    "an empty folder": "{place}/nothing",
    "config null": "{place}/config_null",
    "config a list": "{place}/config_list",
    "config cut": "{place}/config_cut",
    "config a number": "{place}/config_number",
    "another model": "{place}/foreign",
    "weights missing": "{place}/{family}",
}
NO_RECIPE = {
    **SPECIAL,
    "a folder": "{place}/folder",
    "broken": "{place}/broken.yaml",
    "a list": "{place}/list.yaml",
    "empty": "{place}/empty",
    "binary": "{place}/binary.bin",
    "other JSON": "{place}/other.json",
}
NO_OUTPUT = {
    "a file": "{place}/text.txt",
    "below a file": "{place}/text.txt/deeper",
    "a folder of mine": "{place}/folder",
    "a cook's folder": "{place}/cooking",
    "too long": "{place}/" + "x" * 300,
    "zero byte": "{place}/a\0b",
    "loop of links": "{place}/loop/x",
    "proc": "/proc/nothing/there",
}
OVERRIDES = (
    "novalue",
    "=",
    "stages.none.train=x",
    "seed=abc",
    "stages=3",
    "a.b.c=1",
    "family=bert",
    "seed=[1",
    "..=1",
)


def wrong_uses(place: Path) -> list[WrongUse]:
    """Return all of them."""
    found = [
        WrongUse(name, tuple(word.replace("{place}", str(place)) for word in words)) for name, words in _all_uses()
    ]
    assert len({use.name for use in found}) == len(found), "two have one name"
    return found


def _all_uses() -> Iterator[tuple[str, list[str]]]:
    yield from _of_every_command()
    for command in ("train", "plan", "cache"):
        for what, word in NO_RECIPE.items():
            yield f"{command}: recipe is {what}", [command, word]
        for override in OVERRIDES:
            yield f"{command}: override {override}", [command, "{place}/recipe.yaml", override]
    recipe = ["train", "{place}/recipe.yaml"]
    for what, word in NO_OUTPUT.items():
        for flag in ([], ["--overwrite"]):
            yield f"train: output is {what} {' '.join(flag)}", [*recipe, "--output", word, *flag]
    yield "train: output is an index", [*recipe, "--output", "{place}/index"]
    for option in ("--start-at", "--stop-after"):
        yield f"train: {option} nowhere", [*recipe, "--output", "{place}/new", option, "nowhere"]
    yield "train: from without start", [*recipe, "--output", "{place}/new", "--from", "{place}/folder"]
    yield "cache: no stage has one", ["cache", "{place}/recipe.yaml"]
    yield "plan: nothing", ["plan", "--json"]
    yield "plan: recipe and shape", ["plan", "{place}/recipe.yaml", "--shape", "internvl3_1b"]
    yield "plan: no such shape", ["plan", "--shape", "internvl3_9000b"]
    yield "plan: no such GPU", ["plan", "--shape", "internvl3_1b", "--gpu", "a41"]
    for what in ("text.txt", "folder", "none", "other.json", "dead"):
        yield f"plan: measured is {what}", ["plan", "--shape", "internvl3_1b", "--measured", f"{{place}}/{what}"]
    for value in NUMBERS[:4]:
        yield f"plan: batch {value}", ["plan", "--shape", "internvl3_1b", "--batch", value]
    yield from _of_checkpoints()
    yield from _of_files()


def _of_every_command() -> Iterator[tuple[str, list[str]]]:
    needing = ("train", "plan", "cache", "eval", "predict", "index", "search", "serve", "report", "compare")
    needing += ("lora-targets", "merge")
    for command in needing:
        yield f"{command}: no words", [command]
    for command in (*needing, "schema", "doctor", "families"):
        yield f"{command}: unknown option", [command, "--no-such-option"]
    for command in ("schema", "doctor", "families"):
        yield f"{command}: a word too many", [command, "{place}/text.txt"]
    for word in ("trian", "", "--", "-x", "--help-me", "ｔｒａｉｎ", "train plan", "\udcff"):
        yield f"no command: {word!r}", [word]


def _of_checkpoints() -> Iterator[tuple[str, list[str]]]:
    data = ["--data", "fleet:size=4,image_size=32"]
    asked: dict[str, tuple[str, list[str], list[str]]] = {
        "eval": ("ember_vlm", ["eval", "--checkpoint"], [*data, "--output", "{place}/new"]),
        "predict": ("ember_vlm", ["predict", "--checkpoint"], ["--task", "Look", "--device", "cpu"]),
        "index": ("internvl_retrieval", ["index", "--checkpoint"], ["--gallery", "{place}/pictures", "--output",
                                                                    "{place}/new"]),
        "search": ("internvl_retrieval", ["search", "--checkpoint"], ["--text", "a", "--gallery", "{place}/pictures"]),
        "serve": ("sensor_vla", ["serve"], ["--port", "0"]),
        "lora-targets": ("ember_vlm", ["lora-targets"], []),
        "merge": ("ember_vlm", ["merge"], ["--output", "{place}/new"]),
    }  # fmt: skip
    for command, (family, before, after) in asked.items():
        for what, word in NO_CHECKPOINT.items():
            if (command, what) == ("lora-targets", "weights missing"):  # the config is all that it reads
                continue
            yield f"{command}: checkpoint is {what}", [*before, word.replace("{family}", family), *after]
        if command in ("predict", "index", "search", "serve"):
            for other in FAMILIES:
                if (command, other) not in (("predict", "ember_vlm"),) and other != family:
                    yield f"{command}: of family {other}", [*before, f"{{place}}/{other}", *after]
        if command in ("eval", "predict", "index", "search", "serve"):
            for device in ("cuda:7", "tpu", "", "cpu:9", "cuda:-1", "cuda:x"):
                words = [*before, f"{{place}}/{family}", *after, "--device", device]
                yield f"{command}: device {device!r}", words


def _of_files() -> Iterator[tuple[str, list[str]]]:
    ember, retrieval = "{place}/ember_vlm", "{place}/internvl_retrieval"
    evaluate = ["eval", "--checkpoint", ember, "--data"]
    for what, word in {**NO_OUTPUT, "a run": "{place}/run"}.items():
        yield f"eval: output is {what}", [*evaluate, "fleet:size=4", "--output", word]
        yield f"index: output is {what}", ["index", "--checkpoint", retrieval, "--gallery", "{place}/pictures",
                                           "--output", word]  # fmt: skip
        yield f"merge: output is {what}", ["merge", ember, "--output", word]
        yield f"report: output is {what}", ["report", "{place}/run", "--output", word]
    for word in ("", "nosource", "fleet:size", "fleet:size=x", "fleet:nothing=1", "fleet=", ":::", "fleet:size=-4"):
        yield f"eval: data {word!r}", [*evaluate, word, "--output", "{place}/new"]
    for value in NUMBERS:
        yield f"eval: batch {value!r}", [*evaluate, "fleet:size=4", "--output", "{place}/new", "--batch-size", value]
    for option in ("x", "=", "k_test", "nothing=1"):
        words = [*evaluate, "fleet:size=4", "--output", "{place}/new", "--option", option]
        yield f"eval: option {option}", words
    for what in ("text.txt", "other.json", "empty", "binary.bin"):
        yield f"schema: output is {what}", ["schema", "--output", f"{{place}}/{what}"]
    yield "schema: output is a folder", ["schema", "--output", "{place}/folder", "--overwrite"]
    yield "schema: no such family", ["schema", "--family", "bert"]
    predict = ["predict", "--checkpoint", ember]
    for what, words in {
        "nothing asked": [], "two asked": ["--task", "a", "--text", "b"],
        "no picture": ["--task", "a", "--image", "none"],
        "a folder as picture": ["--task", "a", "--image", "{place}/folder"], "no choices": ["--question", "a"],
        "one choice": ["--question", "a", "--choices", "b"], "csv alone": ["--csv", "{place}/new.csv"],
        "csv and task": ["--csv", "{place}/new.csv", "--data", "fleet:size=4", "--task", "a"],
        "no answer file": ["--csv", "{place}/new.csv", "--data", "fleet:size=4"],
        "no such video": ["--question", "a", "--choices", "b|c", "--video", "none.mp4"],
    }.items():  # fmt: skip
        yield f"predict: {what}", [*predict, *words]
    asked = ["--data", "road:size=4", "--csv"]
    for what, word in {"a folder": "{place}/folder", "proc": "/proc/x/y", "too long": "{place}/" + "x" * 300}.items():
        yield f"predict: csv is {what}", ["predict", "--checkpoint", "{place}/internvl_video_qa", *asked, word]
    search = ["search", "--checkpoint", retrieval, "--text", "a"]
    for what, words in {
        "neither": [], "both": ["--index", "a", "--gallery", "b"], "no index": ["--index", "{place}/folder"],
        "index a file": ["--index", "{place}/text.txt"], "no text": ["--gallery", "{place}/folder", "--text", " "],
        "sheet of mine": ["--gallery", "{place}/folder", "--sheet", "{place}/folder/thesis.tex"],
        "sheet there": ["--gallery", "{place}/folder", "--sheet", "{place}/mine.png"],
        "sheet without kind": ["--gallery", "{place}/folder", "--sheet", "{place}/new"],
        "no picture": ["--gallery", "{place}/folder"], "gallery gone": ["--gallery", "{place}/none"],
    }.items():  # fmt: skip
        yield f"search: {what}", [*search, *words]
    for what, words in {
        "port taken by a word": ["--port", "http"], "port too high": ["--port", "70000"],
        "host nowhere": ["--host", "x y"],
        "key alone": ["--tls-key", "{place}/text.txt"], "no certificate": ["--tls-cert", "{place}/none"],
        "certificate a text": ["--tls-cert", "{place}/text.txt"], "token of two words": ["--token", "a b"],
        "no time": ["--plan-timeout", "0"], "no connection": ["--max-connections", "0"],
        "age": ["--max-sensor-age", "-1"],
    }.items():  # fmt: skip
        yield f"serve: {what}", ["serve", "{place}/sensor_vla", *words]
    for what, word in {**NO_RECIPE, "a recipe": "{place}/recipe.yaml"}.items():
        yield f"compare: file is {what}", ["compare", word]
    for what in ("none", "text.txt", "folder", "run", "dead", "loop", "cooking"):
        yield f"report: folder is {what}", ["report", f"{{place}}/{what}"]
    for dtype in ("float3", "int8", ""):
        yield f"merge: dtype {dtype!r}", ["merge", ember, "--output", "{place}/new", "--dtype", dtype]
