"""Commands, Python and YAML on the pages fit the program as it is: options, imports, keywords, recipe keys.

What is fenced is checked here without being run, each block in milliseconds. Blocks that are also run are named in
`RUN` (slow); for every other Python block, `NOT_RUN` says why not.
"""

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from hfvla.cli import app, asking
from hfvla.recipe import Recipe, Stage, check_recipe, load_recipe
from hfvla.recipe.document import read_document
from hfvla.registry import available_families

ROOT = Path(__file__).parents[1]
READMES = [*sorted((ROOT / "recipes").glob("*/README.md")), *sorted((ROOT / "src/hfvla/models").glob("*/README.md"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/families").glob("*.md"))]
PAGES += READMES
FENCE = re.compile(r"^( *)```([a-z]+)( title=\S+)?\n(.*?)^ *```$", flags=re.S | re.M)

RUN = {"docs/sources.md:1", "docs/sources.md:0", "docs/evaluation.md:0", "docs/add-a-family.md:0"}
"""Python blocks, by page and number, that run as they stand, in this order, in one folder."""

NOT_RUN = {
    "docs/from-other-trainers.md": "the same run in TRL, on weights of a hub",
    "docs/from-trainer.md": "a script's own model and rows; examples/own_model_stages.py is run",
    "docs/http.md": "asks a server; tests/serve do",
    "docs/hub.md": "a name on a hub",
    "docs/insertion.md": "records in a simulator; tests/worlds do",
    "docs/plan.md": "a model of the reader's own; tests/training/estimate",
    "docs/resume.md": "a piece of a collator; tests/training/resuming.py has one",
    "docs/scoring.md": "VLMEvalKit, which is not installed here",
    "docs/serving.md": "a robot; tests/serve/policy have a scripted one",
    "docs/sources.md": "the reader's own episodes; tests/data/sources write such",
    "docs/add-a-family.md": "pieces of a family; the whole one is run by tests/test_plugin_family.py",
    "README.md": "a checkpoint of `make demo`; tests/first_hour run one", "docs/quickstart.md": "likewise",
    "docs/families": "a checkpoint that a recipe wrote; tests/models and examples/ do the same on tiny ones",
}  # fmt: skip

NO_RECIPE = {"model_name_or_path", "runs"}
"""A key by which a YAML block is another program's, or a comparison's."""


def blocks(*languages):
    """Return (page, number, text) of every fenced block in these languages."""
    found = []
    for page in PAGES:
        name, count = page.relative_to(ROOT).as_posix(), 0
        for match in FENCE.finditer(page.read_text("utf-8")):
            if match[2] in languages and not match[3]:
                found.append((name, count, "\n".join(line.removeprefix(match[1]) for line in match[4].splitlines())))
                count += 1
    return found


def as_parameters(found):
    return [pytest.param(name, text, id=f"{name}:{count}") for name, count, text in found]


# ---- commands -------------------------------------------------------------------------------------------------------


def commands():
    """Return (place, words, whole) of every `hfvla ...`: in blocks, in spans of the text, at the top of recipes."""
    found = []
    for name, _, text in blocks("bash"):
        for line in text.replace("\\\n", " ").splitlines():
            found += [(name, words, True) for words in _commands_in(line)]
    for page in PAGES:
        name, text = page.relative_to(ROOT).as_posix(), FENCE.sub("", page.read_text("utf-8"))
        for span in re.findall(r"`(hfvla [a-z][^`]*)`", text):
            if "..." not in span:
                found += [(name, words, False) for words in _commands_in(" ".join(span.split()))]
    for recipe in sorted((ROOT / "recipes").glob("*/*.yaml")):
        for line in re.findall(r"^# Run: .*?(hfvla [a-z].*)$", recipe.read_text("utf-8"), flags=re.M):
            found += [(recipe.relative_to(ROOT).as_posix(), words, False) for words in _commands_in(line)]
    return found


def _commands_in(line):
    line = line.partition("`")[0]
    words = shlex.split(line, comments=True)
    parts, current = [], []
    for word in [*words, "&&"]:
        if word in ("&&", ";", "|"):
            parts, current = [*parts, current], []
        else:
            current.append(word)
    return [part[1:] for part in parts if part[:1] == ["hfvla"] and len(part) > 1]


@pytest.fixture(scope="module")
def parse():
    """Return a function that parses a command line as the program does, without running it."""
    root = typer.main.get_command(app)

    def parsed(words):
        command, path = root, []
        while hasattr(command, "commands"):
            if not words:
                return None  # a group's name
            if words[0] not in command.commands:
                raise click.UsageError(f"no command '{' '.join([*path, words[0]])}'")
            command, path, words = command.commands[words[0]], [*path, words[0]], words[1:]
        return command.make_context(" ".join(path), list(words))

    def parsed_for_a_family(words):  # what `predict` takes is the checkpoint's family to say; here any may say it
        problems = []
        for spec in available_families().values():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asking, "_family", lambda checkpoint, as_json, spec=spec: spec)
                try:
                    return parsed(words)
                except BaseException as error:
                    problems.append(error)
        raise problems[0]

    return lambda words: parsed_for_a_family(words) if words[0] == "predict" else parsed(words)


def test_every_command_on_the_pages_has_these_options(parse):
    found, wrong = commands(), []
    assert len(found) > 100
    for place, words, whole in found:
        try:
            parse(words)
        except (Exception, SystemExit) as error:
            kind = type(error).__name__
            if kind == "Exit" and "--help" in words or kind == "MissingParameter" and not whole:
                continue
            wrong.append(f"{place}: hfvla {' '.join(words)}: {kind} {getattr(error, 'message', error)}")
    assert not wrong, "\n".join(wrong)


def test_recipes_on_the_command_line_exist_and_take_what_is_changed():
    wrong, loaded = [], 0
    for place, words, _ in commands():
        recipes = [word for word in words if re.fullmatch(r"(recipes|examples)/\S+\.ya?ml", word)]
        for recipe in recipes:
            if not (ROOT / recipe).is_file():
                wrong.append(f"{place}: {recipe} is not there")
            elif words[0] in ("train", "plan") and "plugin_family" not in recipe:
                changes = [word for word in words if re.fullmatch(r"[\w.]+=[^<>]*", word)]
                load_recipe(ROOT / recipe, changes)
                loaded += 1
    assert not wrong, "\n".join(wrong)
    assert loaded > 10


# ---- Python ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), as_parameters(blocks("python")))
def test_python_names_what_there_is(name, text):
    """It compiles; what it imports is there, and takes the keywords that it is called with."""
    tree, known = ast.parse(text), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("hfvla", "transformers"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
                known[alias.asname or alias.name] = getattr(module, alias.name)
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known:
            wrong += [
                f"{node.func.id}({one.arg}=...)" for one in node.keywords if not _takes(known[node.func.id], one.arg)
            ]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            if owner is not None and not hasattr(owner, node.attr):
                wrong.append(f"{node.value.id}.{node.attr}")
    assert not wrong, wrong


def _takes(called, keyword):
    if keyword is None:
        return True
    parameters = inspect.signature(called).parameters
    return keyword in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def test_every_python_block_is_run_or_says_why_not():
    left = []
    for name, count, _ in blocks("python"):
        told = name in NOT_RUN or any(name.startswith(f"{folder}/") for folder in NOT_RUN)
        if f"{name}:{count}" not in RUN and not told:
            left.append(f"{name}:{count}")
    assert not left
    assert {f"{name}:{count}" for name, count, _ in blocks("python")} >= RUN


@pytest.mark.slow
def test_blocks_that_stand_alone_run(tmp_path):
    pytest.importorskip("av")
    texts = {f"{name}:{count}": text for name, count, text in blocks("python")}
    order = ["docs/sources.md:1", "docs/sources.md:0", "docs/evaluation.md:0", "docs/add-a-family.md:0"]
    assert set(order) == RUN
    code = "\n\n".join(texts[name] for name in order)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(8, 4)" in done.stdout  # the actions of a chunk


# ---- YAML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), as_parameters(blocks("yaml")))
def test_yaml_is_of_a_recipe(tmp_path, name, text):
    """A whole recipe passes its checks; a piece of one has keys and values that a recipe takes."""
    (tmp_path / "block.yaml").write_text(text if "\n- " not in f"\n{text.strip()}" else f"stages:\n{text}")
    found = read_document(tmp_path / "block.yaml").data
    if isinstance(found, dict) and NO_RECIPE & set(found):
        return
    if set(found) <= set(Stage.model_fields) and not set(found) & {"model", "data", "args"}:
        found = {"stages": [found]}
    whole = {"family", "stages"} <= set(found)
    for stage in found.get("stages", []):
        for key, value in {"name": "some", "train": ["some"], "losses": {"some": 1.0}}.items():
            stage.setdefault(key, value)
    some = {"name": "some", "train": ["some"], "losses": {"some": 1.0}}
    recipe = Recipe.model_validate({"family": "ember_vlm", "stages": [some], **found})
    if whole:
        check_recipe(recipe)
