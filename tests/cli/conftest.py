import logging

import pytest


@pytest.fixture(autouse=True)
def _log_as_before():
    """Commands configure hfvla's logger; leave it as it was."""
    logger = logging.getLogger("hfvla")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]
