"""What a checkpoint is, without loading it: family, parts, adapters, the run it came from, its scores and files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError, HfvlaError
from hfvla.family import FamilySpec
from hfvla.fetching import local_checkpoint
from hfvla.loading import read_object, weight_files
from hfvla.registry import family_of_checkpoint, load_checkpoint
from hfvla.sealing import MANIFEST, check_contents

__all__ = ["inspect_checkpoint"]

_OTHER = "(other)"
_ADAPTER = ("peft_type", "r", "lora_alpha", "target_modules", "use_dora", "use_rslora", "base_model_name_or_path")


def inspect_checkpoint(checkpoint: str | Path, *, load: bool = False) -> dict[str, Any]:
    """Describe a checkpoint from its files; the tensors themselves are not read.

    Args:
        checkpoint: folder of a run (`final`, or a stage's), any folder of `save_pretrained`, or a hub id.
        load: also load it as `load_checkpoint` does, which names missing and unfitting weights.

    Returns:
        `dict`: "checkpoint", "family", "summary", "classes", "weights" (parameters, bytes, dtypes), "parts" (scalars
        by part of the model), "adapters", "contents" (what the seal says), "run" (recipe, seed, versions and stages,
        where the run's folder is there), "scores" (by evaluation set), "files" (bytes by name), with `load` "loads".

    Raises:
        CheckpointError: no checkpoint of a family, or its weights cannot be read at all.
    """
    folder = Path(local_checkpoint(checkpoint))
    spec = family_of_checkpoint(folder)
    tensors = _tensors(folder)
    run = _run_of(folder)
    found: dict[str, Any] = {
        "checkpoint": str(folder),
        "family": spec.name,
        "summary": spec.summary,
        "classes": {"model": spec.model, "config": spec.config, "processor": spec.processor},
        "weights": _weights(folder, tensors),
        "parts": _parts(spec, tensors),
        "adapters": _adapters(folder),
        "contents": _contents(folder),
        "run": _told(run, folder),
        "scores": _scores(run, spec, folder),
        "files": {
            str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
        },
    }
    return {**found, "loads": _loads(folder)} if load else found


def _tensors(folder: Path) -> dict[str, tuple[int, str]]:
    """Return scalars and dtype by name, from the headers of the weights."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for file in weight_files(folder):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    part = tensors.get_slice(name)
                    found[name] = (math.prod(part.get_shape()), str(part.get_dtype()))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError("damaged weights", where=str(file), got=str(error).splitlines()[0]) from None
    return found


def _weights(folder: Path, tensors: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    dtypes: Counter[str] = Counter()
    for scalars, kind in tensors.values():
        dtypes[kind] += scalars
    size = sum(file.stat().st_size for file in weight_files(folder))
    return {"parameters": dtypes.total(), "tensors": len(tensors), "bytes": size, "dtypes": dict(dtypes)}


def _parts(spec: FamilySpec, tensors: Mapping[str, tuple[int, str]]) -> dict[str, int]:
    """Return scalars by part of the family's table; names on disk may lack the model's prefix."""
    parts: Counter[str] = Counter()
    for name, (scalars, _) in tensors.items():
        fits = (part for part, patterns in spec.parameter_table.items() if any(fnmatchcase(name, p) for p in patterns))
        parts[next(fits, _OTHER)] += scalars
    return {part: parts[part] for part in (*spec.parameter_table, _OTHER) if parts[part]}


def _adapters(folder: Path) -> list[dict[str, Any]]:
    """Return what the adapters beside the merged weights are, by their config as peft writes it."""
    found = []
    for path in sorted(folder.rglob("adapter_config.json")):
        config = read_object(path)
        size = sum(file.stat().st_size for file in path.parent.glob("*.safetensors"))
        told = {key: config[key] for key in _ADAPTER if config.get(key) not in (None, False)}
        found.append({"folder": str(path.parent.relative_to(folder)), "bytes": size, **told})
    return found


def _contents(folder: Path) -> str:
    if not (folder / MANIFEST).is_file():
        return "not sealed: nothing says what the files were when they were written"
    try:
        check_contents(folder)
    except CheckpointError as error:
        return f"changed: {error}"
    return "as they were written"


def _run_of(folder: Path) -> dict[str, Any]:
    """Return the record of the run that a checkpoint lies in; {} where there is none."""
    record = folder.parent / "run.json"
    try:
        return read_object(record) if record.is_file() else {}
    except CheckpointError:
        return {}


def _told(run: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    recipe = run.get("recipe")
    if not isinstance(recipe, Mapping) and (folder / "recipe.json").is_file():
        recipe = read_object(folder / "recipe.json")  # a checkpoint that was copied out of its run
    if not isinstance(recipe, Mapping):
        return {}
    done = {stage["name"]: stage for stage in run.get("stages", ())}
    stages = [
        {
            "name": stage["name"],
            "train": ", ".join(stage["train"]),
            "losses": ", ".join(stage["losses"]),
            **{
                key: done.get(stage["name"], {}).get(key)
                for key in ("steps", "epochs", "train_loss", "best_metric", "best_step", "trainable_parameters")
            },
        }
        for stage in recipe.get("stages", ())
    ]
    versions = run.get("versions") or {}
    return {
        "recipe": recipe.get("name"), "seed": recipe.get("seed"),
        "base": (recipe.get("model") or {}).get("pretrained"),
        "hfvla": versions.get("hfvla"), "transformers": versions.get("transformers"), "commit": run.get("commit"),
        "calibration": run.get("calibration"), "stages": stages,
    }  # fmt: skip


def _scores(run: Mapping[str, Any], spec: FamilySpec, folder: Path) -> dict[str, dict[str, float]]:
    """Return the headline scores by evaluation set at the run's end; those of a stage are in its line of "run"."""
    if folder.name != "final":
        return {}

    def shown(metric: str) -> bool:
        return "/" not in metric and (metric == "n" or spec.metric(metric).headline)

    return {
        name: {metric: value for metric, value in scores.get("metrics", {}).items() if shown(metric)}
        for name, scores in (run.get("evaluation") or {}).items()
    }


def _loads(folder: Path) -> str:
    try:
        load_checkpoint(folder)
    except HfvlaError as error:
        return f"no: {error}"
    return "yes"
