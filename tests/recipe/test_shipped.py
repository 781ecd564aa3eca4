"""The recipes that come with the package, listed and copied."""

import json

import pytest

from hfvla.cli import main
from hfvla.errors import HfvlaError, RecipeError
from hfvla.recipe.shipped import copy_recipe, shipped_recipes


def test_every_recipe_of_the_checkout_is_there(repository):
    wanted = {path.relative_to(repository / "recipes").with_suffix("").as_posix()
              for path in (repository / "recipes").glob("*/*.yaml")
              if "\nstages:" in path.read_text()}  # fmt: skip
    assert set(shipped_recipes()) == wanted and "ember_vlm/tiny" in wanted
    assert not [name for name in wanted if name.startswith(("accelerate", "deepspeed"))]


def test_a_copy_is_the_file(tmp_path):
    path = copy_recipe("ember_vlm/smoke", tmp_path / "mine.yaml")
    assert path.read_text() == shipped_recipes()["ember_vlm/smoke"].read_text()
    with pytest.raises(HfvlaError, match="there is a file already"):
        copy_recipe("ember_vlm/tiny", tmp_path / "mine.yaml")
    copy_recipe("ember_vlm/tiny", tmp_path / "mine.yaml", overwrite=True)
    with pytest.raises(RecipeError, match=r"no recipe 'ember_vlm/smke'\. Did you mean 'ember_vlm/smoke'"):
        copy_recipe("ember_vlm/smke", tmp_path / "other.yaml")


def test_the_command(tmp_path, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["recipes", *words])
        return caught.value.code or 0, capsys.readouterr()

    code, out = call("--json")
    assert code == 0 and "robots" in json.loads(out.out)["ember_vlm/tiny"]
    code, out = call("ember_vlm/smoke")
    assert code == 0 and out.out == shipped_recipes()["ember_vlm/smoke"].read_text()
    code, out = call("ember_vlm/smoke", "--output", str(tmp_path / "mine.yaml"))
    assert code == 0 and (tmp_path / "mine.yaml").is_file()
    assert call("--output", str(tmp_path / "x.yaml"))[0] == 2 and call("nothing")[0] == 2
