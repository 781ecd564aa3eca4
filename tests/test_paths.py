"""`~` is the home folder wherever a path may be written, and the whole of a run lies there."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfvla.cli.commands import app
from hfvla.family import resolve
from hfvla.paths import expand_user
from hfvla.recipe import Recipe, load_recipe
from hfvla.registry import available_families, load_checkpoint
from hfvla.training.run.run import RecipeRun

RECIPE = "recipes/ember_vlm/smoke.yaml"


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_only_a_leading_tilde_is_looked_at(home):
    assert expand_user("~") == str(home) and expand_user("~/a b/#c") == f"{home}/a b/#c"
    for path in ("a/~/b", "a~", "$HOME/a", "org/model", "", "~nobody-of-this-name/a"):
        assert expand_user(path) == path


@pytest.mark.parametrize("key", ["path", "root", "folder", "plan_path", "image_dir", "cache_folder"])
def test_sources_expand_their_paths(home, key):
    found = 0
    for spec in available_families().values():
        for name, source in spec.sources.items():
            kind = resolve(source.options)
            if key in kind.model_fields and "str" in str(kind.model_fields[key].annotation):
                options = kind.model_validate({**_required(kind), key: "~/data/x"})
                assert getattr(options, key) == f"{home}/data/x", f"{spec.name}.{name}.{key}"
                found += 1
    assert found


def _required(kind):
    return {name: "x" for name, field in kind.model_fields.items() if field.is_required()}


def test_a_recipe_expands_its_paths(home):
    (home / "zero.json").write_text("{}")
    recipe = load_recipe(
        RECIPE,
        [
            "output_dir=~/runs/a", "model.pretrained=~/base", "stages.instruct.cache={folder: ~/cache}",
            "args.deepspeed=~/zero.json", "args.max_grad_norm=0",
        ],
    )  # fmt: skip
    assert recipe.output_dir == f"{home}/runs/a" and recipe.model.pretrained == f"{home}/base"
    assert recipe.stage("instruct").cache.folder == f"{home}/cache" and recipe.args["deepspeed"] == f"{home}/zero.json"
    assert Recipe.model_validate({**recipe.model_dump(by_alias=True), "output_dir": "~/b"}).output_dir == f"{home}/b"
    assert RecipeRun(recipe, None, "~/c", None).output_dir == home / "c"


def test_recipes_and_checkpoints_are_found_at_home(home):
    (home / "r.yaml").write_text(Path(RECIPE).read_text(encoding="utf-8"))
    assert load_recipe("~/r.yaml").name == "r"
    with pytest.raises(Exception, match=f"{home}/model"):
        load_checkpoint("~/model")


@pytest.mark.parametrize(
    "words",
    [
        ["schema", "--output=~/out/schema.json"],
        ["schema", "--family", "ember_vlm", "--output", "~/out/schema.json"],
    ],
)
def test_the_command_line_expands_its_paths(home, words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads((home / "out" / "schema.json").read_text())["title"].startswith("hfvla recipe")


def test_every_path_of_the_command_line_is_expanded():
    text = "".join(path.read_text(encoding="utf-8") for path in Path("src/hfvla/cli").rglob("*.py"))
    places = re.findall(r'metavar="(?:DIR|FILE|RECIPE|CHECKPOINT|FOLDER|\[RECIPE\])"(, parser=expand_user)?', text)
    assert len(places) >= 25 and all(places)
