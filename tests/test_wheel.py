"""The wheel, built and installed into an environment of its own: recipes inside, and commands that work from there."""

import os
import subprocess
import sys
import zipfile

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def call(*words, cwd):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    words = ("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", folder)
    built = tmp_path_factory.mktemp("source") / "hfvla"
    call("git", "clone", "-q", repository, built, cwd=folder)
    call(sys.executable, *words, cwd=built)
    [path] = folder.glob("*.whl")
    return path


def test_what_is_inside(wheel, repository):
    names = zipfile.ZipFile(wheel).namelist()
    recipes = [path.relative_to(repository).as_posix() for path in (repository / "recipes").rglob("*.yaml")]
    assert not [name for name in recipes if f"hfvla/shipped/{name}" not in names]
    assert {"hfvla/shipped/plugin_family/light_reader/__init__.py", "hfvla/shipped/plugin_family/tiny.yaml"} <= set(
        names
    )
    assert {"hfvla/hub/card.md.j2", "hfvla/py.typed", "hfvla/evaluation/report.html.j2"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "recipes/")) or "__pycache__" in name]


def test_a_newcomer_installs_it_and_works_in_an_empty_folder(wheel, repository, tmp_path):
    call(sys.executable, "-m", "venv", "--system-site-packages", tmp_path / "fresh", cwd=tmp_path)
    python = tmp_path / "fresh" / "bin" / "python"
    here = call(sys.executable, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    there = call(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    with open(os.path.join(there, "dependencies.pth"), "w", encoding="utf-8") as file:
        file.write(here + "\n")  # the packages of this environment, without its checkout of hfvla
    call(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", "--no-index", wheel, cwd=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    place = call(python, "-c", "import hfvla; print(hfvla.__file__)", cwd=work).strip()
    assert place.startswith(str(tmp_path)), place
    call(repository / "docker" / "try_wheel", tmp_path / "fresh" / "bin" / "hfvla", cwd=work)
    assert (work / "run" / "final" / "README.md").is_file() and (work / "int8" / "parity.json").is_file()
