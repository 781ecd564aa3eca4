"""What a recipe must agree on about balancing loss terms: two terms, gradients that can be had, parts that exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, parse_group
from hfvla.recipe.document import Problem, Steps, as_list, as_mapping
from hfvla.recipe.lora_checks import LORA_GROUP

__all__ = ["balance_problems"]

_BY_GRADIENT = ("gradnorm", "pcgrad")


def balance_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    """Yield what is wrong about `loss_weighting` and `gradient_report` in a recipe.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
    """
    family = tree.get("family")
    spec = families.get(family) if isinstance(family, str) else None
    for index, entry in enumerate(as_list(tree.get("stages"))):
        stage, base = as_mapping(entry), ("stages", index)
        args = {**as_mapping(tree.get("args")), **as_mapping(stage.get("args"))}
        weighting, report = stage.get("loss_weighting", "fixed"), stage.get("gradient_report")
        if weighting in ("uncertainty", *_BY_GRADIENT):
            yield from _term_problems(stage, (*base, "loss_weighting"), f"'{weighting}' balances loss terms")
        if weighting in _BY_GRADIENT:
            yield from _engine_problems(args, f"'{weighting}' needs", (*base, "loss_weighting"))
        if isinstance(report, dict):
            yield from _term_problems(stage, (*base, "gradient_report"), "it compares the gradients of loss terms")
            yield from _engine_problems(args, "it needs", (*base, "gradient_report"))
            for number, group in enumerate(as_list(report.get("groups"))):
                if spec is not None and isinstance(group, str):
                    yield from _group_problems(group, spec, stage, (*base, "gradient_report", "groups", number))


def _term_problems(stage: Mapping[str, Any], steps: Steps, purpose: str) -> Iterator[Problem]:
    """Ask for two terms that ever have a weight, in the stage or one of its phases."""
    terms: dict[str, None] = {}
    for losses in (stage.get("losses"), *(as_mapping(phase).get("losses") for phase in as_list(stage.get("phases")))):
        terms.update({name: None for name, weight in as_mapping(losses).items() if weight != 0})
    if len(terms) == 1:
        yield Problem(steps, f"{purpose}, and this stage has one: '{next(iter(terms))}'")


def _engine_problems(args: Mapping[str, Any], needs: str, steps: Steps) -> Iterator[Problem]:
    engine = next((key for key in ("deepspeed", "fsdp", "torch_compile") if args.get(key)), None)
    if engine:
        yield Problem(steps, f"{needs} the gradient of each loss term by itself; there is none under args.{engine}")


def _group_problems(expression: str, spec: FamilySpec, stage: Mapping[str, Any], steps: Steps) -> Iterator[Problem]:
    try:
        name, end, _ = parse_group(expression)
    except RecipeError as error:
        yield Problem(steps, str(error))
        return
    known = [*spec.groups, *([LORA_GROUP] if stage.get("lora") else [])]
    if name not in known:
        yield Problem(steps, f"no parameter group '{name}' in family '{spec.name}'. {did_you_mean(name, known)}")
    elif end and not (name in spec.groups and spec.groups[name].layers):
        yield Problem(steps, f"'{expression}': group '{name}' has no layers to count")
