"""What commands take from the garbage collector while they import, they give back."""

import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hfvla.cli import running
from hfvla.cli.output import importing
from hfvla.cli.running import run


@pytest.fixture
def _thawed(monkeypatch):
    """As a program starts: with nothing taken from the collector."""
    monkeypatch.setattr(running, "_caller_freezes", False)
    gc.unfreeze()
    yield
    gc.enable()
    gc.freeze()


@pytest.mark.usefixtures("_thawed")
def test_what_was_imported_is_out_of_the_collectors_sight_and_what_comes_later_is_not():
    with importing():
        assert not gc.isenabled()
        kept = SimpleNamespace()
    assert gc.isenabled() and gc.get_freeze_count() > 0
    later = SimpleNamespace()
    tracked = {id(one) for one in gc.get_objects()}
    assert id(later) in tracked and id(kept) not in tracked


@pytest.mark.usefixtures("_thawed")
def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), importing():
        import hfvla.no_such_room  # noqa: F401
    assert gc.isenabled()


@pytest.mark.usefixtures("_thawed")
def test_who_works_without_a_collector_keeps_it_off():
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled() and gc.get_freeze_count() == 0


@pytest.mark.usefixtures("_thawed")
def test_a_command_gives_all_back(capsys):
    with pytest.raises(SystemExit):
        run(["plan", "no-such-recipe.yaml"])
    assert "no-such-recipe.yaml" in capsys.readouterr().err
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_a_command_leaves_what_its_caller_froze_and_counts_it_once(capsys, monkeypatch):
    gc.freeze()
    count, counted = gc.get_freeze_count, []
    monkeypatch.setattr(running, "_caller_freezes", False)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: counted.append(count()) or counted[-1])
    for _ in range(2):
        with pytest.raises(SystemExit):
            run(["plan", "no-such-recipe.yaml"])
    assert count() > 0 and len(counted) == 1 and capsys.readouterr().err


HEAVY = "datasets pandas pyarrow transformers.trainer matplotlib sklearn diffusers deepspeed tensorboard codecarbon"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["chat_vlm/tiny.yaml", "sensor_vla/full.yaml"])
def test_a_plan_imports_nothing_that_only_training_needs(recipe):
    """With generated data, and with data that is not on this disk; what makes the model is imported, of course."""
    path = Path(__file__).parents[2] / "recipes" / recipe
    code = f"""
import sys
from hfvla.cli import main
try:
    main(["plan", {str(path)!r}])
except SystemExit as end:
    print("code", end.code or 0)
print("modules", *(name for name in {HEAVY!r}.split() if name in sys.modules))
print("ours", *(name for name in sys.modules if name.startswith(("hfvla.training.trainer.trainer", "hfvla.export"))))
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-4:] == ["code 0", "modules", "ours", "True"], done.stdout + done.stderr
