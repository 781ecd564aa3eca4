"""examples/plugin_family: a family in a package of its own, installed as anybody would and trained."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path("examples/plugin_family")


def test_the_page_shows_the_code(repository):
    page = (repository / "docs/add-a-family.md").read_text("utf-8")
    shown = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, flags=re.S | re.M))
    files = [path.relative_to(repository) for path in sorted((repository / EXAMPLE / "light_reader").glob("*.py"))]
    assert set(shown) == {str(path) for path in (*files, EXAMPLE / "pyproject.toml")}
    for path, code in shown.items():
        assert code == (repository / path).read_text("utf-8"), path


def test_a_family_fits_in_250_lines(repository):
    assert (
        sum(len(path.read_text().splitlines()) for path in (repository / EXAMPLE / "light_reader").glob("*.py")) < 250
    )


@pytest.mark.slow
def test_it_is_installed_trained_and_asked(repository, tmp_path):
    pytest.importorskip("setuptools")
    site = tmp_path / "site"
    install = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *install, str(repository / EXAMPLE)], check=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository / "src"), str(site)])}

    def hfvla(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "hfvla.cli", *map(str, arguments)],
            capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = tmp_path / "run"
    hfvla("train", repository / EXAMPLE / "tiny.yaml", f"output_dir={run}")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.9 > 0.5 > metrics["baselines"]["majority"]["accuracy"]
    assert "light_reader" in hfvla("families", "--json")
    assert "vision" in hfvla("plan", repository / EXAMPLE / "tiny.yaml")
    code = "import hfvla, transformers as t; print(type(t.AutoModel.from_pretrained('run/final')).__name__)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path
    )
    assert loaded.stdout.strip() == "LightReader", loaded.stderr
