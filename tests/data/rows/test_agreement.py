"""Processor and config must agree."""

from types import SimpleNamespace

import pytest

from hfvla.data.rows.agreement import check_agreement
from hfvla.errors import CheckpointError


def test_what_differs_is_named():
    processor, config = SimpleNamespace(size=2, views=["a"]), SimpleNamespace(size=2, views=["b"])
    check_agreement(processor, config, ("size",), "Collator")
    with pytest.raises(CheckpointError, match=r"Collator.*disagree about views.*\['b'\].*\['a'\]"):
        check_agreement(processor, config, ("size", "views"), "Collator")
