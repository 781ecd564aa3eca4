"""Finds the families, here and in plug-ins, and imports what registers them with transformers' Auto classes."""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hfvla.models
from hfvla.errors import CheckpointError, RecipeError, did_you_mean
from hfvla.family import FamilySpec, resolve
from hfvla.fetching import local_checkpoint
from hfvla.loading import check_folder, check_room, check_size, guarded, read_object
from hfvla.metrics.catalog import Metric, describe
from hfvla.noise import without_bars
from hfvla.plugins import Offers, offers

__all__ = [
    "available_families",
    "describe_metric",
    "family_of_checkpoint",
    "get_family",
    "import_classes",
    "load_checkpoint",
]


logger = logging.getLogger(__name__)


@functools.cache
def _own_families() -> dict[str, FamilySpec]:
    families = {}
    for module in pkgutil.iter_modules(hfvla.models.__path__):
        spec = importlib.import_module(f"hfvla.models.{module.name}").FAMILY
        families[spec.name] = spec
    return families


def available_families() -> dict[str, FamilySpec]:
    """Return every family by name, with the sources, loss terms and metrics that plug-ins add to it (torch-free).

    A folder under `hfvla/models/` that defines `FAMILY` is one, and so is what plug-ins offer (`hfvla.plugins`); a
    plug-in cannot replace a family of ours.
    """
    return _extended(offers())


@functools.lru_cache(maxsize=2)
def _extended(found: Offers) -> dict[str, FamilySpec]:
    families = {**found.families, **_own_families()}
    return {name: _with_offers(spec, found) for name, spec in families.items()}


def _with_offers(spec: FamilySpec, found: Offers) -> FamilySpec:
    def fitting(offered: Mapping[str, Any], own: Any) -> dict[str, Any]:
        fits = {name: one for name, one in offered.items() if not one.families or spec.name in one.families}
        return {name: one for name, one in fits.items() if name not in own}

    def quick(name: str, metric: Metric) -> Metric:
        return replace(metric, name=name, quick=metric.compute is not None)

    losses = fitting(found.losses, spec.losses)
    metrics = fitting(found.metrics, {metric.name for metric in spec.metrics})
    sources = fitting(found.sources, spec.sources)
    if not (losses or metrics or sources):
        return spec
    return replace(
        spec,
        losses={**spec.losses, **{name: one.description for name, one in losses.items()}},
        loss_functions={**spec.loss_functions, **{name: one.compute for name, one in losses.items()}},
        metrics=(*spec.metrics, *(quick(name, one) for name, one in metrics.items())),
        sources={**spec.sources, **sources},
    )


def describe_metric(name: str) -> Metric:
    """Return label, direction and importance of a metric of any family, of all of them, or of a plug-in."""
    own = {metric.name: metric for spec in available_families().values() for metric in spec.metrics}
    return describe(name, {**own, **offers().metrics})


def get_family(name: str) -> FamilySpec:
    """Return a family by name.

    Raises:
        RecipeError: no such family; the message suggests the nearest.
    """
    families = available_families()
    if not isinstance(name, str):
        raise RecipeError("a family has a name", got=name, expected=", ".join(families))
    if name not in families:
        raise RecipeError(f"no family '{name}'. {did_you_mean(name, families)}")
    return families[name]


def import_classes(kind: str) -> None:
    """Import one kind of class of every family; each module registers its class with transformers in its last line.

    Registration lives in the families' modules because they may be imported first, and then load the Auto modules
    half way through.

    Args:
        kind: "config", "model" or "processor".
    """
    own = _own_families()
    for name, spec in available_families().items():
        path = spec.path(kind)
        try:
            if path is not None:
                importlib.import_module(path.partition(":")[0])
        except Exception as error:
            if name in own:
                raise
            # Raised from the import of transformers' Auto modules, it would break them for the whole process.
            logger.warning("the plug-in family '%s' is not registered: %s: %s", name, type(error).__name__, error)


def family_of_checkpoint(path: str | Path, revision: str | None = None) -> FamilySpec:
    """Return the family of a checkpoint, from its config's `model_type`.

    Args:
        path: local folder, or a hub id (`hfvla.fetching.local_checkpoint`), of which only the config is downloaded.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: no such checkpoint, no config in it, or a model type that is not one of ours.
    """
    model_type = _local_model_type(local_checkpoint(path, revision, weights=False))
    families = available_families()
    found = _family_of_type(model_type, families) if isinstance(model_type, str) else None
    if found is None:
        raise CheckpointError(
            "the checkpoint belongs to another model type",
            where=str(path),
            got=model_type,
            expected=f"one of {', '.join(families)}",
        )
    return found


def _family_of_type(model_type: str, families: Mapping[str, FamilySpec]) -> FamilySpec | None:
    """Return the family of that name, else the first that trains such models of transformers as they are."""
    if model_type in families and not families[model_type].plain:
        return families[model_type]
    plain = (spec for spec in families.values() if spec.accepts is not None)
    return next((spec for spec in plain if resolve(str(spec.accepts))(model_type)), None)


def _local_model_type(folder: Path) -> Any:
    """Return what config.json says.

    Raises:
        CheckpointError: there is none, or it is no object in JSON.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            "not a checkpoint: no config.json in this folder",
            where=str(folder),
            fix="Pass the folder that save_pretrained wrote, e.g. outputs/<run>/final.",
        )
    return read_object(file).get("model_type")


def load_checkpoint(
    path: str | Path, *, family: str | None = None, revision: str | None = None
) -> tuple[FamilySpec, Any, Any]:
    """Load (family, model in eval mode, processor) from a checkpoint.

    Args:
        path: local folder, or a hub id (`hfvla.fetching.local_checkpoint`).
        family: name the checkpoint must belong to, if it matters.
        revision: branch, tag or commit on the hub.

    Raises:
        CheckpointError: see `family_of_checkpoint`; also another family than asked, an incomplete folder, or
            weights that do not fit the config, pickled weights, a processor that does not fit (see `hfvla.loading`).
    """
    spec = family_of_checkpoint(path, revision)
    if family is not None and spec.name != family:
        raise CheckpointError("the checkpoint is of another family", where=str(path), got=spec.name, expected=family)
    folder = str(local_checkpoint(path, revision))
    scalars = check_folder(folder)
    check_room(folder)
    config = guarded(path, lambda: spec.load("config").from_pretrained(folder))
    check_size(spec.new_model, config, scalars, path)
    # Mismatched sizes are named below, with what else is missing.
    loading = {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
    with without_bars():
        model, info = guarded(path, lambda: spec.load("model").from_pretrained(folder, **loading))
    problems = {key: sorted(map(str, info[key])) for key in ("missing_keys", "mismatched_keys") if info.get(key)}
    if problems:
        raise CheckpointError("weights are missing or do not fit", where=str(path), got=problems)
    processor = guarded(path, lambda: spec.load("processor").from_pretrained(folder))
    if hasattr(processor, "check_config"):
        guarded(path, lambda: processor.check_config(model.config))
    return spec, model.eval(), processor
