import dataclasses
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from pydantic import BaseModel

from hfvla.cli.output import configure_logging, is_main_process, run_command, to_json
from hfvla.errors import DataError, HfvlaError, RecipeError


@dataclasses.dataclass
class Finding:
    name: str
    share: float


class Options(BaseModel):
    size: int = 3


def test_json_is_strict():
    value = {
        "nan": float("nan"),
        "infinite": [float("inf"), 1.5],
        "path": Path("a/b"),
        "finding": Finding("x", float("-inf")),
        "array": np.array([[1, 2]]),
        "scalar": np.float32("nan"),
        "model": Options(),
        3: (True, None),
    }
    assert json.loads(to_json(value)) == {
        "nan": None,
        "infinite": [None, 1.5],
        "path": "a/b",
        "finding": {"name": "x", "share": None},
        "array": [[1, 2]],
        "scalar": None,
        "model": {"size": 3},
        "3": [True, None],
    }
    with pytest.raises(TypeError, match="object"):
        to_json(object())


@pytest.mark.parametrize(
    ("environment", "main"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "-1"}, True),
        ({"RANK": "none"}, True),
    ],
)
def test_the_main_process_is_rank_zero(monkeypatch, environment, main):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_main_process() is main


def fail(error):
    def work():
        raise error

    return work


def test_json_output_is_alone_on_stdout(capsys):
    def work():
        print("a library talks")
        logging.getLogger("hfvla.training").info("step 1")
        return {"a": 1}

    run_command(work, fail(AssertionError("not for people")), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert "a library talks" in err and "step 1" in err


def test_an_error_is_one_message_with_markup_as_written(capsys):
    with pytest.raises(typer.Exit) as caught:
        run_command(fail(DataError("no such file", got="[bold]x[/bold]")), print, as_json=False)
    out, err = capsys.readouterr()
    assert caught.value.exit_code == 2
    assert out == "" and err == "error: no such file; got '[bold]x[/bold]'\n"


def test_an_error_is_json_too(capsys):
    with pytest.raises(typer.Exit):
        run_command(fail(RecipeError(["r.yaml:1: a", "r.yaml:2: b"])), print, as_json=True)
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["type"] == "RecipeError" and error["problems"] == ["r.yaml:1: a", "r.yaml:2: b"]
    assert "r.yaml:2: b" in error["message"] and "r.yaml:2: b" in err


def test_an_interrupt_is_130(capsys):
    with pytest.raises(typer.Exit) as caught:
        run_command(fail(KeyboardInterrupt()), print, as_json=False)
    assert caught.value.exit_code == 130 and capsys.readouterr().err == "interrupted\n"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0, print, as_json=True)
    assert sys.stdout is not sys.stderr


def test_other_ranks_are_silent_but_for_their_errors(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    run_command(lambda: {"a": 1}, print, as_json=True)
    run_command(lambda: {"a": 1}, print, as_json=False)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(typer.Exit):
        run_command(fail(DataError("broken row")), print, as_json=True)
    assert capsys.readouterr() == ("", "[rank 3] error: broken row\n")


def test_the_log_level_follows_rank_and_environment(monkeypatch, capsys):
    logger = logging.getLogger("hfvla")
    monkeypatch.delenv("RANK", raising=False)
    configure_logging()
    configure_logging()
    logger.info("once")
    assert capsys.readouterr().err.count("once") == 1
    monkeypatch.setenv("RANK", "1")
    configure_logging()
    logger.warning("not here")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("HFVLA_LOG_LEVEL", "debug")
    configure_logging()
    logger.debug("here")
    assert "DEBUG here" in capsys.readouterr().err
    monkeypatch.setenv("HFVLA_LOG_LEVEL", "loud")
    with pytest.raises(HfvlaError, match="LOUD"):
        configure_logging()
