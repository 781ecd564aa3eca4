"""Which cut of a family a stage can use, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import FamilySpec, FeatureCut, ParameterGroup

__all__ = ["choose_cut", "matches", "prefix_names"]


def matches(name: str, cut: FeatureCut, groups: Mapping[str, ParameterGroup]) -> bool:
    """Tell whether a parameter or buffer lies before the cut; so does an adapter (peft) on a layer there."""
    plain = name.replace(".base_layer.", ".")
    return any(fnmatchcase(plain, pattern) for group in cut.groups for pattern in groups[group].patterns)


def prefix_names(names: Iterable[str], cut: FeatureCut, groups: Mapping[str, ParameterGroup]) -> list[str]:
    """Return those of the tensor names that lie before the cut, in order."""
    return [name for name in names if matches(name, cut, groups)]


def choose_cut(
    spec: FamilySpec, trained: Mapping[str, str], where: str, wanted: str | None = None, losses: Sequence[str] = ()
) -> tuple[str, FeatureCut]:
    """Return name and definition of the first of the family's cuts whose prefix never trains, and serves all losses.

    Args:
        spec: the family.
        trained: entry of the recipe by name of each parameter that trains at any time of the stage.
        where: what to name in errors, e.g. "stage 'select'".
        wanted: the only cut to consider; default: all, the deepest first.
        losses: loss terms of the stage.

    Raises:
        RecipeError: the family has no such cut, or each has a part before it that trains, or a loss that needs what
            lies before it; the entries are named.
    """
    if not spec.feature_cuts:
        raise RecipeError(
            f"{where}: family '{spec.name}' has no cut for the feature cache", fix="Leave `cache` out of the stage."
        )
    if wanted is not None and wanted not in spec.feature_cuts:
        raise RecipeError(f"{where}: no cut '{wanted}'. {did_you_mean(wanted, spec.feature_cuts)}")
    candidates = [wanted] if wanted is not None else list(spec.feature_cuts)
    blocked = {}
    for name in candidates:
        cut = spec.feature_cuts[name]
        entries = sorted({entry for key, entry in trained.items() if matches(key, cut, spec.groups)})
        if entries:
            blocked[name] = f"needs {', '.join(cut.groups)} frozen, but {', '.join(entries)} trains there"
        elif others := cut.other_losses(losses):
            blocked[name] = f"serves {', '.join(cut.losses)}, but {', '.join(others)} needs what lies before it"
        else:
            return name, cut
    raise RecipeError(
        f"{where}: the feature cache needs a part that stays frozen through the whole stage",
        got="; ".join(f"cut '{name}' {reason}" for name, reason in blocked.items()),
        fix="Take these out of `train`, `phases`, `lora` and `losses`, or leave `cache` out.",
    )
