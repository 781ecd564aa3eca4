"""What a recipe's `hub` asks for, against what its run can give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.family import FamilySpec
from hfvla.recipe.document import Problem

__all__ = ["hub_problems"]


def hub_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    """Yield forms of the weights that this run does not have in the end.

    Args:
        tree: the recipe as written.
        families: known families by name.
    """
    hub = tree.get("hub")
    if not isinstance(hub, Mapping):
        return
    what, name = hub.get("what"), tree.get("family")
    spec = families.get(name) if isinstance(name, str) else None
    if hub.get("code") is True and what in ("adapter", "merged"):
        yield Problem(("hub", "code"), f"'{what}' needs no code: transformers and peft load it as it is")
    if hub.get("code") is True and spec is not None and spec.plain:
        yield Problem(("hub", "code"), f"models of '{name}' are transformers' own and need no code")
    if what not in ("adapter", "merged"):
        return
    if spec is not None and spec.path("plain_backbone") is None:
        yield Problem(("hub", "what"), f"models of '{name}' have no backbone that stands alone; say final")
        return
    stages = tree.get("stages") if isinstance(tree.get("stages"), list) else []
    last = stages[-1] if stages and isinstance(stages[-1], Mapping) else {}
    if what == "adapter" and not last.get("lora"):
        yield Problem(("hub", "what"), "the last stage trains no adapters (`lora`); say final or merged")
    elif what == "adapter" and isinstance(last["lora"], Mapping) and last["lora"].get("qlora") is True:
        yield Problem(
            ("hub", "what"), "the last stage's adapters train on four-bit weights (`lora.qlora`), and would be put on "
            "whole ones; say final or merged",
        )  # fmt: skip
