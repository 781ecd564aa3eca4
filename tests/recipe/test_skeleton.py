"""`hfvla new-family`: what it writes is a family under its own name, and it trains."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hfvla.cli import app
from hfvla.errors import HfvlaError, RecipeError
from hfvla.recipe.skeleton import write_family


def test_nothing_of_the_example_is_left(tmp_path, repository):
    files = write_family("wave_reader", tmp_path / "new")
    example = repository / "examples/plugin_family"
    wanted = {
        path.relative_to(example).as_posix().replace("light_reader", "wave_reader") for path in example.rglob("*.py")
    }
    assert wanted | {"README.md", "pyproject.toml", "tiny.yaml", "test_wave_reader.py"} == set(files)
    for file in files:
        text = (tmp_path / "new" / file).read_text()
        assert "light_reader" not in text and "LightReader" not in text and "light-reader" not in text
        if file.endswith(".py"):
            compile(text, file, "exec")
    assert 'wave_reader = "wave_reader"' in (tmp_path / "new/pyproject.toml").read_text()


@pytest.mark.parametrize("name", ["Wave", "wave-reader", "9lives", "class", "_x", "a__b", ""])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(RecipeError, match="not a name of a family"):
        write_family(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_names_and_folders_that_are_taken(tmp_path):
    for name in ("json", "torch", "ours"):
        with pytest.raises(RecipeError, match=f"this name is taken; got '{name}'"):
            write_family(name, tmp_path / "new", taken=["ours"])
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(HfvlaError, match=r"new or empty folder; got 'mine.txt'"):
        write_family("wave_reader", tmp_path)
    with pytest.raises(HfvlaError, match="new or empty folder"):
        write_family("wave_reader", tmp_path / "mine.txt")


def test_the_command(tmp_path):
    done = CliRunner().invoke(app, ["new-family", "wave_reader", "--output", str(tmp_path / "x"), "--json"])
    assert done.exit_code == 0 and "tiny.yaml" in json.loads(done.stdout)["files"]
    again = CliRunner().invoke(app, ["new-family", "ember_vlm", "--output", str(tmp_path / "y")])
    assert again.exit_code == 2 and "this name is taken" in again.output


@pytest.mark.slow
def test_it_trains_as_it_is(tmp_path, repository):
    """Its own test, which trains its recipe in two stages and loads what came out."""
    write_family("wave_reader", tmp_path / "new")
    path = os.pathsep.join([str(repository / "src"), str(tmp_path / "new")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_wave_reader.py"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path / "new", env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]
