"""Wrong uses of the command line: exit code 1 or 2, something helpful on stderr, no traceback, no file changed."""

import logging

import pytest
from PIL import Image

from hfvla.cli import main
from hfvla.outputs import mark_folder

from .command_line import prepare, snapshot, wrong_uses

ALLOWED = {"new", "out"}  # named as output, and not there before


@pytest.fixture
def quiet():
    """Leave the log as it was."""
    logger = logging.getLogger("hfvla")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]


def ends_wrong(use, capsys):
    """Run a use; return what is wrong with how it ends, or None."""
    try:
        main(list(use.words))
        code = "nothing raised"
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    out, err = capsys.readouterr()
    if code not in (1, 2):
        return f"ended with {code!r}; {err[-300:]}"
    if "Traceback" in out + err:
        return f"a traceback: {err[-300:]}"
    told = [line for line in err.splitlines() if line.strip()]
    if not told or not any("rror" in line for line in told):
        return f"no error is said: {err[-300:]!r}"
    if len(told) > 20 or len(err) > 6000:
        return f"{len(told)} lines, {len(err)} characters"
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in err.replace("\x1b[", "")):
        return f"control characters: {err!r}"
    return None


def test_wrong_uses_end_with_one_line_and_change_nothing(tmp_path, capsys, monkeypatch, quiet):
    place = tmp_path / "place"
    place.mkdir()
    prepare(place)
    (place / "pictures").mkdir()
    for path in ("pictures/a.png", "mine.png"):
        Image.new("RGB", (8, 8)).save(place / path)
    mark_folder(place / "index", "index")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    uses, before, problems = wrong_uses(place), snapshot(place), []
    for use in uses:
        problem = ends_wrong(use, capsys)
        now = {name: entry for name, entry in snapshot(place).items() if name.split("/")[0] not in ALLOWED}
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if problem or changed:
            problems.append(f"{use.name}: {problem or 'changed ' + ', '.join(changed)}")
            before = now
    assert len(uses) >= 266
    assert not problems, f"{len(problems)} of {len(uses)}:\n" + "\n".join(problems)
    assert [path.name for path in tmp_path.iterdir()] == ["place"], "nothing in the working folder"
