"""What a recipe says about how this machine computes: the attention kernels of its model, the decoder of its clips."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from hfvla.data.video.backends import use_backend
from hfvla.errors import RecipeError
from hfvla.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["set_attention", "use_machine"]

logger = logging.getLogger(__name__)

_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def use_machine(recipe: Recipe) -> None:
    """Check what a recipe asks of this machine, and let clips be decoded as it says; before any work.

    Raises:
        RecipeError: attention kernels that are not here, or that do not run at the recipe's precision.
        DataError: no such video backend.
    """
    if recipe.data.video_backend != "auto":
        use_backend(recipe.data.video_backend)
    package = _PACKAGES.get(str(recipe.model.attention))
    if package is None:
        return
    import torch

    where, fix = "model.attention", "Take sdpa, which uses flash kernels of torch's own where they fit."
    if importlib.util.find_spec(package) is None:
        raise RecipeError(
            f"the package {package} is not installed", where=where, got=recipe.model.attention,
            fix=f"pip install {package.replace('_', '-')}, or: {fix}",
        )  # fmt: skip
    if not torch.cuda.is_available() or recipe.args.get("use_cpu"):
        raise RecipeError("these attention kernels need a GPU", where=where, got=recipe.model.attention, fix=fix)
    if not any(recipe.stage_args(stage).get(name) for stage in recipe.stages for name in ("bf16", "fp16")):
        raise RecipeError(
            "these attention kernels need half precision", where=where, got="float32", fix="args.bf16: true"
        )


def set_attention(model: PreTrainedModel, name: str | None) -> None:
    """Give the models of transformers inside a model other attention kernels; None leaves what they chose.

    Raises:
        RecipeError: one of them does not take these.
    """
    if name is None:
        return
    for part in _parts(model):
        try:
            part.set_attn_implementation(name)
        except (ValueError, ImportError, RuntimeError) as error:
            raise RecipeError(
                f"{type(part).__name__} does not take these attention kernels", where="model.attention", got=name,
                fix=str(error).splitlines()[0],
            ) from None  # fmt: skip
        if part.config._attn_implementation != name:
            logger.warning("model.attention: %s stays at %s", type(part).__name__, part.config._attn_implementation)


def _parts(module: Any) -> list[Any]:
    """Return the topmost models of transformers' own classes in a model: itself, or those that it wraps."""
    from transformers import PreTrainedModel

    if isinstance(module, PreTrainedModel) and type(module).__module__.startswith("transformers."):
        return [module]
    return [part for child in module.children() for part in _parts(child)]
