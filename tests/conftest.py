"""What every test runs under: offline, one thread a process, no files outside the test's own folders."""

import gc
import importlib.util
import logging
import os
import shutil
import socket
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Read when torch, transformers and matplotlib are first imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HFVLA_ENERGY"] = "0"  # measured in its own tests only
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_EVALUATE_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hfvla-tests-hub-")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))

_connect = socket.socket.connect


def _connect_locally(self, address):
    """Refuse connections that leave the machine: a test that needs them would fail on another day."""
    host = address[0] if isinstance(address, tuple) else "localhost"
    if str(host) not in {"localhost", "127.0.0.1", "::1", "0.0.0.0"} and host != socket.gethostname():
        raise OSError(f"tests are offline, and something connects to {address!r}")
    return _connect(self, address)


socket.socket.connect = _connect_locally


@lru_cache(maxsize=1)
def _no_pictures() -> str:
    """Return why the simulator cannot draw here, or ""; a library may be there and still find no display or device."""
    from hfvla.errors import HfvlaError
    from hfvla.worlds.insertion.simulator import choose_drawing, import_simulator

    if any(importlib.util.find_spec(name) is None for name in ("metaworld", "mujoco")):
        return 'the extra "sim" is not installed'
    if choose_drawing(os.environ) == "disabled":
        return "neither OSMesa nor EGL (make system-libs)"
    try:
        import_simulator()[0].GLContext(8, 8).free()
    except (HfvlaError, ImportError, AttributeError, RuntimeError, OSError, NameError) as error:
        return f"{choose_drawing(os.environ)} does not draw: {error}"
    return ""


def _no_torchcodec() -> str:
    from hfvla.data.video import available_backends

    return available_backends()["torchcodec"]


_SYSTEM = {"pictures": _no_pictures, "torchcodec": _no_torchcodec}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before any fixture: skip a test marked `system(what)` where that is missing; `make test-system` fails it."""
    for mark in item.iter_markers("system"):
        problem = _SYSTEM[mark.args[0]]()
        if problem:
            (pytest.fail if os.environ.get("HFVLA_TESTS_SYSTEM") else pytest.skip)(f"{mark.args[0]}: {problem}")


# Imports make a million objects that stay. Looking through them for garbage takes two fifths of the time they take.
gc.disable()


def pytest_collection_finish(session):
    """All tests are imported: search for garbage from here on, in what they make."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    gc.enable()


def pytest_unconfigure(config):
    """Remove the temporary hub folder of this process, and let the interpreter end as it would have."""
    import shutil

    gc.unfreeze()
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _nothing_old_is_looked_at_again():
    """Take what is there out of the garbage collector's sight, and remember which packages there are.

    The `Trainer` collects around every training; going through all that torch and transformers keep for ever was two
    thirds of what a tiny training costs. What the tests of the module make is collected as ever. Accelerate reads the
    metadata of thirty packages anew for every `Trainer`, a tenth of what was left.
    """
    gc.collect()
    gc.freeze()
    imports = sys.modules.get("accelerate.utils.imports")
    look = getattr(imports, "_is_package_available", None)
    if look is not None and not hasattr(look, "cache_info"):
        imports._is_package_available = lru_cache(maxsize=None)(look)


@pytest.fixture(autouse=True)
def _quiet_log():
    """Commands configure hfvla's logger; each test starts and ends with a plain one that hands on to the root.

    The root itself is the user's: nothing of ours may leave it deaf.
    """
    _reset_log()
    before = logging.root.level, logging.root.disabled
    yield
    _reset_log()
    assert (logging.root.level, logging.root.disabled) == before, "the test left the root logger at another level"


def _reset_log():
    logger = logging.getLogger("hfvla")
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.handlers = True, []
    logging.disable(logging.NOTSET)
    for name, other in logging.root.manager.loggerDict.items():  # what configures logging anew switches off the others
        if name.startswith("hfvla.") and isinstance(other, logging.Logger):
            other.disabled, other.propagate = False, True


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root folder of the checkout: recipes, docs and settings live there."""
    return ROOT


@pytest.fixture
def browser():
    """A page of a real browser, where Playwright and Chromium are there."""
    sync = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(90_000)
        yield page
        chromium.close()
