"""What a recipe must agree on about LoRA: adapters that train, targets that exist, hand-overs that have something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, parse_group
from hfvla.recipe.document import Problem, Steps, as_list, as_mapping
from hfvla.recipe.patterns import compile_pattern

__all__ = ["LORA_GROUP", "lora_problems"]

LORA_GROUP = "lora"
"""The parameter group of a stage's adapters, in a stage that has `lora:`."""

_SAME = {"r": 16, "alpha": 32, "dora": False, "rslora": False}  # with their defaults; `continue` keeps them


def lora_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    """Yield what is wrong about LoRA in a recipe.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
    """
    family = tree.get("family")
    spec = families.get(family) if isinstance(family, str) else None
    if spec is not None and LORA_GROUP in spec.groups:
        return  # the family means something else by it
    stages = [as_mapping(stage) for stage in as_list(tree.get("stages"))]
    for index, stage in enumerate(stages):
        base: Steps = ("stages", index)
        yield from _training_problems(stage, base)
        lora = as_mapping(stage.get("lora"))
        if lora.get("dora") is True and lora.get("qlora") is True:
            text = "`dora` and `qlora` do not go together: DoRA needs the norms of the whole weights; switch one off"
            yield Problem((*base, "lora"), text)
        if spec is not None and isinstance(stage.get("lora"), dict):
            yield from _target_problems(stage["lora"].get("target"), spec, (*base, "lora", "target"))
        yield from _handover_problems(stage, _earlier(stages, index), base)


def _training_problems(stage: Mapping[str, Any], base: Steps) -> Iterator[Problem]:
    lists = [((*base, "train"), as_list(stage.get("train")))]
    for number, phase in enumerate(as_list(stage.get("phases"))):
        lists.append(((*base, "phases", number, "add"), as_list(as_mapping(phase).get("add"))))
    places = [(*steps, entries.index(LORA_GROUP)) for steps, entries in lists if LORA_GROUP in entries]
    if stage.get("lora") is None:
        for place in places:
            yield Problem(place, "'lora' is the group of a stage's adapters, and this stage has no `lora:`")
    elif not places and as_mapping(stage["lora"]).get("target"):  # without a target it is not well-formed
        yield Problem(
            (*base, "lora"), "its adapters never train; put the group 'lora' into `train` or a phase's `add`"
        )


def _target_problems(target: Any, spec: FamilySpec, steps: Steps) -> Iterator[Problem]:
    for entry in target if isinstance(target, list) else [target]:
        if not isinstance(entry, str):
            continue
        if entry.startswith("re:"):
            try:
                compile_pattern(entry.removeprefix("re:"))
            except RecipeError as error:
                yield Problem(steps, str(error))
            continue
        try:
            name, end, _ = parse_group(entry)
        except RecipeError:
            text = f"neither a parameter group nor `re:` and a regex of module names; got '{entry}'"
            yield Problem(steps, text)
            continue
        if name not in spec.groups:
            text = f"no parameter group '{name}' in family '{spec.name}'. {did_you_mean(name, spec.groups)}"
            yield Problem(steps, text)
        elif end and not spec.groups[name].layers:
            yield Problem(steps, f"'{entry}': group '{name}' has no layers to count")


def _earlier(stages: list[dict[str, Any]], index: int) -> dict[str, Any] | None:
    """Return the stage that is taken over from, or None where there is none (another check names a wrong one)."""
    source = as_mapping(stages[index].get("handover")).get("from")
    if isinstance(source, str):
        return next((stage for stage in stages[:index] if stage.get("name") == source), None)
    return stages[index - 1] if index else None


def _handover_problems(stage: Mapping[str, Any], earlier: dict[str, Any] | None, base: Steps) -> Iterator[Problem]:
    mode = as_mapping(stage.get("handover")).get("lora", "merge")
    if mode not in ("continue", "stack", "none"):
        return
    steps: Steps = (*base, "handover", "lora")
    old, new = as_mapping((earlier or {}).get("lora")), as_mapping(stage.get("lora"))
    if not old:
        whose = f"stage '{earlier.get('name')}'" if earlier else "there is no earlier stage, which"
        yield Problem(steps, f"'{mode}' needs an earlier stage with `lora:`; {whose} has none")
        return
    if mode in ("continue", "stack") and not new:
        role = "the same as before" if mode == "continue" else "the adapter that goes on top"
        yield Problem(steps, f"'{mode}' needs `lora:` in this stage too: {role}")
        return
    if mode == "continue":
        changed = [key for key, value in _SAME.items() if old.get(key, value) != new.get(key, value)]
        if changed:
            key = changed[0]
            was, now = old.get(key, _SAME[key]), new.get(key, _SAME[key])
            text = f"'continue' trains the same adapter on, and `lora.{key}` was {was!r} and is now {now!r}"
            yield Problem(steps, f"{text}; write the same, or use merge or stack")
    if mode == "stack" and (old.get("dora") or new.get("dora")):
        yield Problem(steps, "DoRA adapters do not stack: each rescales the whole weight; use merge, or dora: false")
