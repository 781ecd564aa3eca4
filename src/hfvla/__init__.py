"""hfvla: vision-language(-action) model families and staged-training recipes for the HuggingFace Trainer.

`import hfvla` makes `AutoConfig`, `AutoModel` and `AutoProcessor` know the families. It imports neither torch nor
transformers itself: the classes are registered at the moment transformers' Auto modules are imported, before or after.
"""

from __future__ import annotations

import importlib
from typing import Any

import wrapt

from hfvla import _moved

__version__ = "0.2.0"

_PUBLIC = {
    "CheckpointError": "hfvla.errors",
    "DataError": "hfvla.errors",
    "HfvlaError": "hfvla.errors",
    "RecipeError": "hfvla.errors",
    "FamilySpec": "hfvla.family",
    "ParameterGroup": "hfvla.family",
    "available_families": "hfvla.registry",
    "get_family": "hfvla.registry",
    "load_checkpoint": "hfvla.registry",
    "Lora": "hfvla.recipe",
    "Phase": "hfvla.recipe",
    "Recipe": "hfvla.recipe",
    "Stage": "hfvla.recipe",
    "load_recipe": "hfvla.recipe",
    "StagedTrainer": "hfvla.training.trainer.trainer",
    "run_recipe": "hfvla.training.run.run",
    "ChunkPolicy": "hfvla.serve.policy",
    "AsyncChunkPolicy": "hfvla.serve.policy",
    "RemotePolicy": "hfvla.serve.policy",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name, or a family's config, model, processor or policy class, when it is first used."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    from hfvla.registry import available_families

    for spec in available_families().values():
        for hook in () if spec.plain else ("config", "model", "processor"):
            if getattr(spec, hook) == name:
                return spec.load(hook)
        if name in spec.policies:
            return getattr(importlib.import_module("hfvla.serve.policy"), spec.policies[name])
    from hfvla.errors import did_you_mean

    hint = did_you_mean(name, __dir__()) if not name.startswith("_") else ""
    hint = hint if hint.startswith("Did") else ""
    raise AttributeError(f"module 'hfvla' has no attribute '{name}'. {hint}".removesuffix(". "), name=name)


def __dir__() -> list[str]:
    """List the public names, those of the families' classes too."""
    from hfvla.registry import available_families

    families = available_families().values()
    own = [spec for spec in families if not spec.plain]
    classes = {name for spec in own for name in (spec.config, spec.model, spec.processor, *spec.policies)}
    return sorted({*__all__, *classes})


def _register_when_imported(module: str, kind: str) -> None:
    def hook(_: Any) -> None:
        from hfvla.registry import import_classes

        import_classes(kind)

    wrapt.register_post_import_hook(hook, module)


_register_when_imported("transformers.models.auto.configuration_auto", "config")
_register_when_imported("transformers.models.auto.modeling_auto", "model")
_register_when_imported("transformers.models.auto.processing_auto", "processor")
_moved.install()
