"""What a recipe must agree on: with its family, with TrainingArguments, and between its stages.

The checks read the recipe as written, not the typed one, so that they still find a wrong group name in a recipe
that also has a wrong type elsewhere. Values of a wrong type are skipped here: `hfvla.recipe.schema` names those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, parse_group, resolve
from hfvla.recipe.argument_clashes import clash_problems
from hfvla.recipe.arguments import argument_problems
from hfvla.recipe.balance_checks import balance_problems
from hfvla.recipe.batch_checks import batch_problems
from hfvla.recipe.cache_checks import cache_problems
from hfvla.recipe.config_checks import config_problems
from hfvla.recipe.document import Problem, Steps, as_list, as_mapping, format_steps
from hfvla.recipe.hub_checks import hub_problems
from hfvla.recipe.learned_term_checks import learned_term_problems
from hfvla.recipe.lora_checks import LORA_GROUP, lora_problems
from hfvla.recipe.option_values import evaluation_option_problems
from hfvla.recipe.phase_checks import phase_problems
from hfvla.recipe.schema import Recipe
from hfvla.recipe.sizes import size_problems
from hfvla.recipe.words import plain_problems, validate_strictly
from hfvla.recipe.zero_checks import zero_problems

__all__ = ["all_problems", "build_options", "source_entries", "structure_problems"]

_MIXTURE_KEYS = ("source", "name", "weight", "losses")


def _stages(tree: Mapping[str, Any]) -> Iterator[tuple[Steps, dict[str, Any]]]:
    for index, stage in enumerate(as_list(tree.get("stages"))):
        yield ("stages", index), as_mapping(stage)


def _mixtures(tree: Mapping[str, Any]) -> Iterator[tuple[Steps, list[Any]]]:
    """Yield every list of training sources with its place."""
    yield ("data", "train"), as_list(as_mapping(tree.get("data")).get("train"))
    for base, stage in _stages(tree):
        yield (*base, "data", "train"), as_list(as_mapping(stage.get("data")).get("train"))


def source_entries(tree: Mapping[str, Any]) -> Iterator[tuple[Steps, dict[str, Any], dict[str, Any]]]:
    """Yield place, entry and options of every source in a recipe, trained or evaluated on."""
    for base, mixture in _mixtures(tree):
        for index, entry in enumerate(mixture):
            if isinstance(entry, dict):
                yield (*base, index), entry, {k: v for k, v in entry.items() if k not in _MIXTURE_KEYS}
    for name, entry in as_mapping(as_mapping(tree.get("data")).get("eval")).items():
        if isinstance(entry, dict):
            yield ("data", "eval", name), entry, {k: v for k, v in entry.items() if k != "source"}


def all_problems(tree: Any, families: Mapping[str, FamilySpec], check_args: bool = True) -> list[Problem]:
    """Return everything that is wrong with a recipe as plain data.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
        check_args: False skips TrainingArguments, whose import takes seconds.
    """
    problems: list[Problem] = []
    try:
        Recipe.model_validate(tree)
    except ValidationError as error:
        problems += plain_problems(error, Recipe)
    tree = as_mapping(tree)
    problems += structure_problems(tree)
    problems += _args_problems(tree) if check_args else ()
    problems += _family_problems(tree, families)
    problems += config_problems(tree, families)
    problems += _evaluation_problems(tree, families)
    problems += lora_problems(tree, families)
    problems += balance_problems(tree, families)
    problems += batch_problems(tree)
    problems += learned_term_problems(tree, families)
    problems += phase_problems(tree, families, _group_problems)
    problems += zero_problems(tree)
    problems += hub_problems(tree, families)
    return problems


def structure_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what does not fit together inside a recipe, whatever its family."""
    model = as_mapping(tree.get("model"))
    if model.get("revision") and not model.get("pretrained"):
        yield Problem(("model", "revision"), f"needs `pretrained`; got revision {model['revision']!r} alone")
    for base, mixture in _mixtures(tree):
        yield from _mixture_problems(mixture, base)
    validation = as_mapping(as_mapping(tree.get("data")).get("validation"))
    seen: list[str] = []
    for base, stage in _stages(tree):
        yield from _stage_name_problems(stage, base, seen)
        yield from _stage_problems(stage, base, validation)
        if not (as_mapping(tree.get("data")).get("train") or as_mapping(stage.get("data")).get("train")):
            yield Problem(base, "the stage has no training data; fill `data.train` of the recipe or of the stage")


def _stage_name_problems(stage: Mapping[str, Any], base: Steps, seen: list[str]) -> Iterator[Problem]:
    """Check name and `handover.from` against the stages before; adds the name to `seen`."""
    source = as_mapping(stage.get("handover")).get("from")
    if isinstance(source, str) and source not in seen:
        steps = (*base, "handover", "from")
        if seen:
            yield Problem(steps, f"no earlier stage '{source}'. {did_you_mean(source, seen)}")
        else:
            yield Problem(steps, f"no stage before this one; got '{source}'. Leave it out, or use model.pretrained")
    name = stage.get("name")
    if isinstance(name, str):
        if name in seen:
            yield Problem((*base, "name"), f"two stages are called '{name}'")
        seen.append(name)


def _stage_problems(stage: Mapping[str, Any], base: Steps, validation: Mapping[str, Any]) -> Iterator[Problem]:
    groups = [group for group in as_list(stage.get("train")) if isinstance(group, str)]
    for group in as_mapping(stage.get("learning_rates")):
        if groups and group not in groups:
            text = f"'{group}' is not in `train` of this stage. {did_you_mean(group, groups)}"
            yield Problem((*base, "learning_rates", group), text)
    if stage.get("keep_best") and validation.get("fraction") == 0:
        text = f"'{stage['keep_best']}' needs validation rows, and data.validation.fraction is 0"
        yield Problem((*base, "keep_best"), text)
    if stage.get("patience") and not stage.get("keep_best"):
        yield Problem(
            (*base, "patience"), f"needs `keep_best`, the metric to wait for; got {stage['patience']!r} alone"
        )


def _mixture_problems(mixture: list[Any], base: Steps) -> Iterator[Problem]:
    labels: dict[str, int] = {}
    for index, entry in enumerate(mixture):
        label = as_mapping(entry).get("name") or as_mapping(entry).get("source")
        if isinstance(label, str) and label in labels:
            yield Problem((*base, index), f"two sources are called '{label}'; give each a `name` of its own")
        elif isinstance(label, str):
            labels[label] = index
    weights = [as_mapping(entry).get("weight", 1.0) for entry in mixture]
    if weights and all(isinstance(weight, int | float) and weight == 0 for weight in weights):
        yield Problem(base, "every source has weight 0; give at least one a weight > 0")


def _args_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    shared = as_mapping(tree.get("args"))
    validation = as_mapping(as_mapping(tree.get("data")).get("validation")).get("fraction") != 0
    yield from argument_problems(shared, ("args",))
    for base, stage in _stages(tree):
        own = as_mapping(stage.get("args"))
        yield from argument_problems(own, (*base, "args"))
        yield from clash_problems({**shared, **own}, stage, base, validation)


def _evaluation_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    spec = families.get(tree.get("family") or "") if isinstance(tree.get("family"), str) else None
    if spec is None:
        return
    data = as_mapping(tree.get("data"))
    known = [*as_mapping(data.get("eval")), *(["test"] if as_mapping(data.get("test")).get("fraction") else [])]
    for place, name in enumerate(as_list(as_mapping(tree.get("evaluation")).get("stages"))):
        if name not in known:
            hint = did_you_mean(str(name), known)
            yield Problem(("evaluation", "stages", place), f"no set '{name}' in data.eval. {hint}")
    options = as_mapping(as_mapping(tree.get("evaluation")).get("options"))
    yield from evaluation_option_problems(options, spec, ("evaluation", "options"))


def _family_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    name = tree.get("family")
    if not isinstance(name, str):
        return
    if name not in families:
        yield Problem(("family",), f"no model family '{name}'. {did_you_mean(name, families)}")
        return
    spec = families[name]
    for base, stage in _stages(tree):
        for index, group in enumerate(as_list(stage.get("train"))):
            if isinstance(group, str):
                yield from _group_problems(group, spec, (*base, "train", index))
        for term in as_mapping(stage.get("losses")):
            if term not in spec.losses:
                text = f"no loss term '{term}' in family '{name}'. {did_you_mean(term, spec.losses)}"
                yield Problem((*base, "losses", term), text)
        yield from _keep_best_problems(stage.get("keep_best"), spec, (*base, "keep_best"))
        yield from cache_problems(stage, spec, base)
    for steps, entry, options in source_entries(tree):
        if isinstance(entry.get("source"), str):
            yield from _source_problems(spec, entry["source"], options, steps)


def _group_problems(expression: str, spec: FamilySpec, steps: Steps) -> Iterator[Problem]:
    try:
        name, end, _ = parse_group(expression)
    except RecipeError as error:
        yield Problem(steps, str(error))
        return
    if name == LORA_GROUP and not end and name not in spec.groups:
        return  # a stage's adapters: `lora_problems` looks whether it has any
    if name not in spec.groups:
        text = f"no parameter group '{name}' in family '{spec.name}'. {did_you_mean(name, spec.groups)}"
        yield Problem(steps, text)
    elif end and not spec.groups[name].layers:
        layered = [group for group, parts in spec.groups.items() if parts.layers]
        having = f"groups with layers: {', '.join(layered)}" if layered else "no group of this family has layers"
        yield Problem(steps, f"'{expression}': group '{name}' has no layers to count; {having}")


def _keep_best_problems(metric: Any, spec: FamilySpec, steps: Steps) -> Iterator[Problem]:
    if not isinstance(metric, str):
        return
    known = [f"eval_{name}" for name in spec.metric_names] + ["eval_loss"]
    known += [f"eval_loss_{term}" for term in spec.losses]
    if metric not in known:
        yield Problem(steps, f"no metric '{metric}' in family '{spec.name}'. {did_you_mean(metric, known)}")


def _source_problems(spec: FamilySpec, source: str, options: dict[str, Any], steps: Steps) -> Iterator[Problem]:
    if source not in spec.sources:
        text = f"no data source '{source}' in family '{spec.name}'. {did_you_mean(source, spec.sources)}"
        yield Problem((*steps, "source"), text)
        return
    model: type[BaseModel] = resolve(spec.sources[source].options)
    try:
        validate_strictly(model, options)
    except ValidationError as error:
        for problem in plain_problems(error, model, steps):
            yield Problem(problem.steps, problem.text.replace("unknown key", f"source '{source}' has no option", 1))
    else:
        yield from size_problems(options, steps)


def build_options(spec: FamilySpec, source: str, options: Mapping[str, Any], where: str = "") -> BaseModel:
    """Return a source's options model, built from plain options.

    Args:
        spec: the family.
        source: name of one of its sources.
        options: the options as written, without `source`, `name` and `weight`.
        where: what to name in errors, e.g. "data.eval.held_out".

    Raises:
        RecipeError: no such source, or options it refuses; all of them at once.
    """
    problems = list(_source_problems(spec, source, dict(options), ()))
    if problems:
        parts = ((where, format_steps(problem.steps), problem.text) for problem in problems)
        raise RecipeError([": ".join(part for part in line if part) for line in parts])
    model: type[BaseModel] = resolve(spec.sources[source].options)
    return validate_strictly(model, options)
