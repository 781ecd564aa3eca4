"""What the phases of a stage must agree on: names that exist, parts that do not train yet, boundaries in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, parse_group
from hfvla.recipe.document import Problem, Steps, as_list, as_mapping

__all__ = ["phase_problems"]

_EPOCHS = 3.0  # TrainingArguments' own default

GroupCheck = Callable[[str, FamilySpec, Steps], Iterator[Problem]]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def phase_problems(
    tree: Mapping[str, Any], families: Mapping[str, FamilySpec], check_group: GroupCheck
) -> Iterator[Problem]:
    """Yield what is wrong with the phases of a recipe's stages.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
        check_group: yields what is wrong with an entry of `add`, as with one of `train`.
    """
    family = tree.get("family")
    spec = families.get(family) if isinstance(family, str) else None
    for index, stage in enumerate(as_list(tree.get("stages"))):
        stage = as_mapping(stage)
        phases = [as_mapping(phase) for phase in as_list(stage.get("phases"))]
        base: Steps = ("stages", index, "phases")
        yield from _boundary_problems(phases, {**as_mapping(tree.get("args")), **as_mapping(stage.get("args"))}, base)
        yield from _joining_problems(stage, phases, base)
        yield from _weight_problems(stage, phases, base)
        for number, phase in enumerate(phases if spec is not None else ()):
            yield from _name_problems(phase, spec, check_group, (*base, number))


def _boundary_problems(phases: list[dict[str, Any]], args: Mapping[str, Any], base: Steps) -> Iterator[Problem]:
    """Compare boundaries of the same unit; the trainer compares steps with epochs, when it knows how long one is."""
    max_steps = _number(args.get("max_steps")) or -1.0
    epochs = _number(args.get("num_train_epochs", _EPOCHS))
    ends = {"epoch": epochs if max_steps <= 0 else None, "step": max_steps if max_steps > 0 else None}
    for unit, end in ends.items():
        latest: float | None = None
        for number, phase in enumerate(phases):
            begin = _number(phase.get(unit))
            if begin is None:
                continue
            steps = (*base, number, unit)
            if latest is not None and begin <= latest:
                yield Problem(
                    steps, f"a phase before it begins at {unit} {latest:g}; got {begin:g}. Put them in order"
                )
            if end is not None and begin >= end:
                yield Problem(steps, f"the stage ends at {unit} {end:g}, so this phase never begins; got {begin:g}")
            latest = begin if latest is None else max(begin, latest)


def _joining_problems(stage: Mapping[str, Any], phases: list[dict[str, Any]], base: Steps) -> Iterator[Problem]:
    """Check that each entry of `add` joins once, and that learning rates name such entries."""
    training = {entry: "`train`" for entry in as_list(stage.get("train")) if isinstance(entry, str)}
    for number, phase in enumerate(phases):
        added = [entry for entry in as_list(phase.get("add")) if isinstance(entry, str)]
        for index, entry in enumerate(added):
            earlier = next((old for old in training if _covers(old, entry)), None)
            if earlier is not None:
                where = training[earlier]
                text = f"'{entry}' trains already: {where} has '{earlier}'"
                yield Problem((*base, number, "add", index), text)
            elif entry in added[:index]:
                yield Problem((*base, number, "add", index), f"named twice: {entry}")
        for entry in as_mapping(phase.get("learning_rates")):
            if entry not in added:
                hint = did_you_mean(entry, added) if added else "It adds nothing."
                text = f"'{entry}' is not in `add` of this phase. {hint}"
                yield Problem((*base, number, "learning_rates", entry), text)
        training.update({entry: f"`add` of phases[{number}]" for entry in added if entry not in training})


def _covers(earlier: str, entry: str) -> bool:
    """Tell whether all that `entry` names is surely named by `earlier`."""
    try:
        (name, end, count), (new_name, new_end, new_count) = parse_group(earlier), parse_group(entry)
    except RecipeError:
        return False
    return name == new_name and (end is None or (end == new_end and count >= new_count))


def _weight_problems(stage: Mapping[str, Any], phases: list[dict[str, Any]], base: Steps) -> Iterator[Problem]:
    """Check that no phase leaves every loss at 0."""
    weights = dict(as_mapping(stage.get("losses")))
    for number, phase in enumerate(phases):
        changed = as_mapping(phase.get("losses"))
        weights.update(changed)
        if changed and all(_number(weight) == 0 for weight in weights.values()):
            yield Problem((*base, number, "losses"), "every loss has weight 0 from here on; give one a weight > 0")


def _name_problems(
    phase: Mapping[str, Any], spec: FamilySpec | None, check_group: GroupCheck, base: Steps
) -> Iterator[Problem]:
    if spec is None:
        return
    for index, entry in enumerate(as_list(phase.get("add"))):
        if isinstance(entry, str):
            yield from check_group(entry, spec, (*base, "add", index))
    for term in as_mapping(phase.get("losses")):
        if term not in spec.losses:
            text = f"no loss term '{term}' in family '{spec.name}'. {did_you_mean(term, spec.losses)}"
            yield Problem((*base, "losses", term), text)
