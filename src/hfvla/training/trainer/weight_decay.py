"""Which parameters weight decay acts on: matrices, and of those not what a model says it must not pull to zero."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from hfvla.family import as_names
from hfvla.nn.loading import TOKENS_AND_POSITIONS
from hfvla.training.stage.groups import adapter_of, plain_name

__all__ = ["decayed_parameters", "undecayed_parameters"]

_MAGNITUDE = "lora_magnitude_vector"


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay must leave alone.

    Vectors and scalars: biases, scales of norms under any name, layer scales, temperatures; DoRA's magnitudes, which
    are as large as the weights they stand for; and what modules state themselves by a method `no_weight_decay()`, as
    timm's do: names or glob patterns of their own parameters, e.g. {"cls_token", "*.position_embeddings"}. Of a model
    that states nothing, the learned tokens and positions of backbones (`TOKENS_AND_POSITIONS`).

    Args:
        model: may be on the meta device, and partitioned by ZeRO-3.
    """
    own_words = callable(getattr(model, "no_weight_decay", None))
    stated = [] if own_words else list(TOKENS_AND_POSITIONS)  # a model of transformers as it is says nothing
    for prefix, module in model.named_modules():
        if callable(getattr(module, "no_weight_decay", None)):
            stated += [f"{prefix}.{pattern}" if prefix else pattern for pattern in as_names(module.no_weight_decay())]
    stated = [plain_name(pattern) for pattern in stated]
    found = set()
    for name, parameter in model.named_parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)  # a partition of ZeRO-3 has lost its shape
        plain = plain_name(name)
        own = adapter_of(name) is None and any(fnmatchcase(plain, pattern) for pattern in stated)
        if len(shape) <= 1 or own or _MAGNITUDE in name.split("."):
            found.add(name)
    return found


def decayed_parameters(model: nn.Module, candidates: Iterable[str]) -> list[str]:
    """Return the candidates that weight decay acts on, in their order; see `undecayed_parameters`."""
    kept = undecayed_parameters(model)
    return [name for name in candidates if name not in kept]
