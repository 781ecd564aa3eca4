"""A newcomer's machine: the command line alone, files of one's own, and only keys that the pages name."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.recipe_keys import keys_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/families").glob("*.md"))]


class Newcomer:
    """Runs commands in a folder and writes recipes; refuses a key that no page names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = "\n".join(page.read_text("utf-8") for page in PAGES)
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self.env = {**os.environ, "PYTHONPATH": path, "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        self.env["HFVLA_ENERGY"] = "0"

    def hfvla(self, *words, code=0):
        """Run a command and return what it printed; with `--json`, the document."""
        self.check_words(words)
        done = self._run("-m", "hfvla.cli", *words)
        assert done.returncode == code, (
            f"hfvla {' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
        return json.loads(done.stdout) if "--json" in words else done.stdout

    def python(self, *words):
        """Run a script and return what it printed."""
        done = self._run(*words)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    def _run(self, *words):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=500)

    def kill_when(self, there: Path, *words):
        """Run a command and send SIGKILL as soon as a path is there."""
        command = [sys.executable, "-m", "hfvla.cli", *map(str, words)]
        log = (self.folder / "killed.log").open("w")
        running = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log)
        until = time.monotonic() + 500
        while not there.exists() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
        assert running.wait(timeout=30) == -signal.SIGKILL, (self.folder / "killed.log").read_text()[-3000:]

    def recipe(self, name: str, **changes) -> Path:
        """Copy a recipe that comes along, put sections of one's own into it, and check every key."""
        path = self.folder / f"{name.replace('/', '_')}.yaml"
        self.hfvla("recipes", name, "--output", path)
        tree = {**yaml.safe_load(path.read_text()), **changes}
        for key in keys_of(tree):
            assert re.search(rf"\b{re.escape(key)}\b", self.words), f"no page names the key {key}"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path

    def check_words(self, words):
        for word in map(str, words):
            if word.startswith("--"):
                assert word.partition("=")[0] in self.words or word in ("--json", "--help"), f"no page names {word}"
            elif match := re.match(r"([a-z_.0-9]+)=", word):
                for key in match[1].split("."):
                    assert key.isdigit() or re.search(rf"\b{re.escape(key)}\b", self.words), f"no page names {key}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An example of every format, written as docs/formats.md says."""
    for package in ("av", "h5py"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("data")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, ROOT / "examples/formats.py", folder / "examples"], check=True, env=env, timeout=300
    )
    return folder / "examples"


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    return Newcomer(tmp_path_factory.mktemp("hour"))
