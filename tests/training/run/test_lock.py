"""One run at a time in a folder, seen from two processes."""

import subprocess
import sys

import pytest

from hfvla.errors import RecipeError
from hfvla.training.run import run_folder
from hfvla.training.run.lock import FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from hfvla.training.run.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
print("released", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path, holder):
    with pytest.raises(RecipeError, match="another run is still writing here") as caught:
        FolderLock(tmp_path, patience_s=0.3).acquire()
    assert f"process {holder.pid}" in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_run_is_refused_before_it_touches_its_folder(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(run_folder, "FolderLock", lambda folder: FolderLock(folder, patience_s=0.3))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="another run is still writing here"):
        run_folder.lock_run_folder(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_killed_process_leaves_no_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    lock = FolderLock(tmp_path, patience_s=5)
    lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_released_lock_lets_the_next_one_in(tmp_path, holder):
    holder.stdin.close()
    assert holder.stdout.readline() == "released\n"
    lock = FolderLock(tmp_path, patience_s=0.3)
    lock.acquire()
    with pytest.raises(RecipeError, match="still writing"):
        FolderLock(tmp_path, patience_s=0.3).acquire()  # also inside one process
    lock.release()
