"""Whether a stage that asks for the feature cache leaves a prefix of the model frozen, as far as names tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, parse_group
from hfvla.recipe.document import Problem, Steps

__all__ = ["cache_problems"]


def cache_problems(stage: Mapping[str, Any], spec: FamilySpec, base: Steps) -> Iterator[Problem]:
    """Yield what keeps a stage from using the cache it asks for.

    Args:
        stage: the stage as written.
        spec: its family.
        base: the stage's place in the recipe.
    """
    settings = stage.get("cache")
    if not isinstance(settings, dict) and settings is not True:
        return
    steps = (*base, "cache")
    wanted = settings.get("cut") if isinstance(settings, dict) else None
    if not spec.feature_cuts:
        yield Problem(steps, f"family '{spec.name}' has no cut for the feature cache; leave it out")
        return
    if isinstance(wanted, str) and wanted not in spec.feature_cuts:
        yield Problem((*steps, "cut"), f"no cut '{wanted}'. {did_you_mean(wanted, spec.feature_cuts)}")
        return
    reasons = []
    for name in [wanted] if isinstance(wanted, str) else spec.feature_cuts:
        cut = spec.feature_cuts[name]
        trained = [entry for entry in _trained(stage) if any(_share(entry, group, spec) for group in cut.groups)]
        others = cut.other_losses(stage["losses"]) if isinstance(stage.get("losses"), dict) else []
        if trained:
            named = ", ".join(f"'{entry}' trains" for entry in trained)
            reasons.append(f"cut '{name}' needs {', '.join(cut.groups)} frozen, but {named}")
        elif others:
            reasons.append(f"cut '{name}' serves {', '.join(cut.losses)}, not {', '.join(others)}")
        else:
            return
    yield Problem(steps, f"no part of the model stays frozen before a cut: {'; '.join(reasons)}")


def _trained(stage: Mapping[str, Any]) -> list[str]:
    """Return what trains at any time, LoRA targets by group included."""
    phases = stage.get("phases")
    lists = [stage.get("train")]
    lists += [phase.get("add") for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []
    lora = stage.get("lora")
    target = lora.get("target") if isinstance(lora, dict) else None
    lists.append([target] if isinstance(target, str) else target)
    entries = [entry for part in lists if isinstance(part, list) for entry in part if isinstance(entry, str)]
    return [*dict.fromkeys(entry for entry in entries if not entry.startswith("re:"))]


def _share(entry: str, group: str, spec: FamilySpec) -> bool:
    """Tell whether an entry of `train` and a group have parameters in common."""
    try:
        name = parse_group(entry)[0]
    except RecipeError:
        return False  # named by the check of the groups
    if name not in spec.groups or group not in spec.groups:
        return False
    pairs = [(one, two) for one in spec.groups[name].patterns for two in spec.groups[group].patterns]
    return any(fnmatchcase(one, two) or fnmatchcase(two, one) for one, two in pairs)
