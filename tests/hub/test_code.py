"""Code of a family made flat: what is rewritten in a module, and what is refused."""

import ast
import textwrap

import pytest

from hfvla.errors import CheckpointError
from hfvla.hub.code import _rewritten, write_code
from hfvla.registry import available_families

FAMILIES = available_families()
OWN = ("hfvla",)

MODULE = '''
"""What it is."""
from typing import TYPE_CHECKING

import torch

from hfvla.errors import CheckpointError, HfvlaError as Base
from hfvla.losses import weighing
if TYPE_CHECKING:
    from hfvla.family import FamilySpec
    _Model = FamilySpec
else:
    _Model = object


def call() -> "FamilySpec":
    import timm
    from hfvla.losses.text import (
        IGNORE_INDEX,
    )
    return timm, IGNORE_INDEX
'''

FLAT = '''
"""What it is."""
from typing import TYPE_CHECKING

import torch

from .hfvla_errors import CheckpointError
from .hfvla_errors import HfvlaError as Base
from .hfvla_losses_weighing import __name__ as _
from . import hfvla_losses_weighing as weighing
if True:
    _Model = object


def call() -> "FamilySpec":
    try:
        import timm
    except ImportError:
        raise
    from .hfvla_losses_text import IGNORE_INDEX
    return timm, IGNORE_INDEX
'''


def test_imports_are_flat_and_those_inside_functions_may_be_missing():
    text, needed = _rewritten(MODULE, "hfvla.models.ember_vlm.any", FAMILIES["ember_vlm"], OWN)
    assert text == FLAT
    assert set(needed) == {"hfvla.errors", "hfvla.losses.weighing", "hfvla.losses.text"}


@pytest.mark.parametrize("family", sorted(name for name, spec in FAMILIES.items() if not spec.plain))
def test_every_file_that_is_imported_is_there_and_none_needs_hfvla(tmp_path, family):
    maps = write_code(FAMILIES[family], tmp_path)
    names = {path.stem for path in tmp_path.iterdir()}
    assert {value.partition(".")[0] for one in maps.values() for value in one.values()} <= names
    for path in tmp_path.iterdir():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and (node.module or node.names[0].name) in names, path.name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                assert not ast.unparse(node).split()[1].startswith("hfvla"), path.name


def test_what_has_no_code_of_its_own_or_cannot_be_flat(tmp_path):
    with pytest.raises(CheckpointError, match="transformers' own: they need no code; got 'chat_vlm'"):
        write_code(FAMILIES["chat_vlm"], tmp_path)
    source = textwrap.dedent("import hfvla.errors\n")
    with pytest.raises(CheckpointError, match=r"any, line 1: only `from \.\.\. import` can be made flat"):
        _rewritten(source, "hfvla.any", FAMILIES["ember_vlm"], OWN)
