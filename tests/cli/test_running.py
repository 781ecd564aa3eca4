"""How the program ends when the world around it breaks: pipes, full disks, interrupts, odd terminals, -OO."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hfvla.cli import main
from hfvla.cli.output import to_json
from hfvla.errors import HfvlaError
from hfvla.nn.devices import checked_device

HFVLA = [sys.executable, "-m", "hfvla.cli"]


def run(*words, python=(), **options):
    command = [sys.executable, *python, "-m", "hfvla.cli", *words]
    given = {"capture_output": True, "timeout": 120, **options}
    return subprocess.run(command, **given)


@pytest.mark.distributed
@pytest.mark.parametrize("words", [["families"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(words):
    command = " ".join([*HFVLA, *words])
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, timeout=120
    )
    assert done.stderr == b"" and done.stdout.strip() in (b"141", b"0")


@pytest.mark.distributed
@pytest.mark.parametrize("words", [["families"], ["families", "--json"], ["--version"]])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(words):
    with open("/dev/full", "wb") as full:
        done = run(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and "No space left on device" in lines[0], done.stderr


@pytest.mark.distributed
def test_output_that_is_closed_is_one_line_or_none():
    done = subprocess.run(["bash", "-c", " ".join([*HFVLA, "families", ">&-"])], capture_output=True, timeout=120)
    assert b"Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 1


def test_an_interrupt_while_importing(capsys, monkeypatch):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "hfvla.cli.running":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "hfvla.cli.running", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    code, printed = ended(capsys, "families")
    assert code == 130 and printed.err == "interrupted\n"


@pytest.mark.distributed
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["schema"], ["families"]])
def test_without_docstrings(words):
    done = run(*words, python=("-OO",))
    assert done.returncode == 0 and done.stdout and not done.stderr, done.stderr.decode()


@pytest.mark.distributed
def test_an_ascii_terminal():
    options = {"env": {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}}
    done = run("families", "--json", **options)
    assert done.returncode == 0 and done.stdout.isascii() and json.loads(done.stdout)
    done = run("plan", "Rezept für Müller.yaml", **options)
    assert done.returncode == 2 and b"ller.yaml: no such recipe" in done.stderr and done.stderr.isascii()


@pytest.mark.distributed
def test_without_docstrings_that_transformers_needs():
    done = run("plan", "recipe.yaml", python=("-OO",))
    assert done.returncode == 2 and done.stdout == b"" and len(done.stderr.splitlines()) == 1
    assert b"without -OO" in done.stderr


def ended(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code or 0, capsys.readouterr()


@pytest.fixture
def interruptible():
    """Tests that a shell started in the background ignore interrupts."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


def test_an_interrupt_that_came_as_another_exception(capsys, monkeypatch, interruptible):
    """As from an import of a C extension that wraps whatever is raised in it."""

    def describe():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("numpy failed to import") from None

    monkeypatch.setattr("hfvla.cli.families.describe_families", describe)
    before = signal.getsignal(signal.SIGINT)
    code, printed = ended(capsys, "families")
    assert code == 130 and printed.err == "interrupted\n" and signal.getsignal(signal.SIGINT) is before


def test_other_exceptions_are_left_alone(monkeypatch):
    def describe():
        raise ZeroDivisionError

    monkeypatch.setattr("hfvla.cli.families.describe_families", describe)
    with pytest.raises(ZeroDivisionError):
        main(["families"])


@pytest.mark.parametrize("name", ["cuda:7", "cuda:99", "tpu", "", "cpu:1", "cuda:-1", "meta", "x y", "CPU"])
def test_devices_that_are_not_there(name):
    with pytest.raises(HfvlaError, match=r"--device: no such device; got '.*'; expected one of cpu"):
        checked_device(name)


def test_devices_that_are_there():
    assert checked_device("cpu") == "cpu" and checked_device("cpu:0") == "cpu:0"
    assert checked_device(None) in ("cpu", "cuda")


def test_errors_are_legible(capsys):
    code, printed = ended(capsys, "plan", "a\nb\x1b[31m\x07" + "x" * 5000)
    assert code == 2 and len(printed.err) < 2500 and "\x1b[31m" not in printed.err.replace("\x1b[0m", "")


def test_json_where_stdout_cannot_show_it(monkeypatch):
    class Ascii:
        encoding = "ascii"

    assert to_json({"a": "ü"}) == '{\n  "a": "ü"\n}'
    monkeypatch.setattr("sys.stdout", Ascii())
    assert to_json({"a": "ü"}) == '{\n  "a": "\\u00fc"\n}'


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("train", "r.yaml", "--learning-rate", "1e-4"), "hfvla train RECIPE args.learning_rate=..."),
        (("plan", "r.yaml", "--args.bf16=true"), "hfvla plan RECIPE args.bf16=..."),
        (("train", "r.yaml", "--seed", "3"), "hfvla train RECIPE seed=..."),
    ],
)
def test_values_given_as_options_are_told_how_they_are_given(capsys, words, meant):
    code, printed = ended(capsys, *words)
    assert code == 2 and meant in printed.err


def test_other_mistakes_get_no_such_hint(capsys):
    assert "without dashes" not in ended(capsys, "train", "no-such-recipe.yaml", "seed=3")[1].err
