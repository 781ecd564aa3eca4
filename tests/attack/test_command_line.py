"""Wrong uses of the command line: exit code 1 or 2, something helpful on stderr, no traceback, no file changed."""

import logging

import pytest

from .command_line import prepare, problems, wrong_uses


@pytest.fixture
def _as_it_was():
    """Leave the log as it was."""
    logger = logging.getLogger("hfvla")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]


@pytest.mark.usefixtures("_as_it_was")
def test_wrong_uses_end_with_one_line_and_change_nothing(tmp_path, monkeypatch):
    place = prepare(tmp_path / "place")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    uses = wrong_uses(place)
    assert len(uses) >= 266
    wrong = [f"{use.name}: {problem}" for use, problem in problems(uses, place)]
    assert not wrong, f"{len(wrong)} of {len(uses)}:\n" + "\n".join(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["place"], "nothing in the working folder"
