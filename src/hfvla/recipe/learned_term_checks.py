"""What a recipe must agree on about the loss terms that learn from a source's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfvla.errors import did_you_mean
from hfvla.family import FamilySpec
from hfvla.recipe.document import Problem, Steps, as_list, as_mapping

__all__ = ["learned_term_problems"]


def learned_term_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    """Yield what is wrong about `losses` of training sources.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
    """
    name = tree.get("family")
    spec = families.get(name) if isinstance(name, str) else None
    if spec is None:
        return
    stages = [as_mapping(stage) for stage in as_list(tree.get("stages"))]
    shared, using = as_list(as_mapping(tree.get("data")).get("train")), []
    for index, stage in enumerate(stages):
        own = as_list(as_mapping(stage.get("data")).get("train"))
        if own:
            yield from _entry_problems(own, ("stages", index, "data", "train"), [stage], spec)
        else:
            using.append(stage)
    yield from _entry_problems(shared, ("data", "train"), using, spec)


def _entry_problems(
    entries: Sequence[Any], base: Steps, stages: Sequence[Mapping[str, Any]], spec: FamilySpec
) -> Iterator[Problem]:
    for index, entry in enumerate(entries):
        named = as_mapping(entry).get("losses")
        if isinstance(named, list) and all(isinstance(term, str) for term in named):
            yield from _term_problems(named, (*base, index, "losses"), stages, spec)


def _term_problems(
    named: list[str], steps: Steps, stages: Sequence[Mapping[str, Any]], spec: FamilySpec
) -> Iterator[Problem]:
    if not spec.separable:
        yield Problem(steps, f"family '{spec.name}' learns every loss term from every row; leave `losses` out")
        return
    unknown = [term for term in named if term not in spec.losses]
    for term in unknown:
        text = f"no loss term '{term}' in family '{spec.name}'. {did_you_mean(term, spec.losses)}"
        yield Problem((*steps, named.index(term)), text)
    if unknown:
        return
    for stage in stages:
        asked = _terms(stage)
        if not set(named) & asked:
            yield Problem(steps, f"stage '{stage.get('name')}' has none of these terms; its `losses`: {_list(asked)}")
        for together in spec.separable:
            missing = [term for term in together if term in asked and term not in named]
            if missing and set(named) & set(together) & asked:
                text = f"{_list(together)} learn from one sequence of a row; stage '{stage.get('name')}' has "
                yield Problem(steps, f"{text}{_list(missing)}, too: name all of them")


def _terms(stage: Mapping[str, Any]) -> set[str]:
    """Return the loss terms that a stage has at any time."""
    parts = [stage, *(as_mapping(phase) for phase in as_list(stage.get("phases")))]
    return {str(term) for part in parts for term in as_mapping(part.get("losses"))}


def _list(terms: Any) -> str:
    return ", ".join(f"'{term}'" for term in sorted(terms))
