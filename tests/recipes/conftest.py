"""What several of these tests import: the scripts behind `make real`."""

from pathlib import Path

import pytest

REAL = Path(__file__).parents[2] / "examples" / "real"


@pytest.fixture(scope="module")
def scripts():
    """Let a module import the scripts by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REAL))
        yield
