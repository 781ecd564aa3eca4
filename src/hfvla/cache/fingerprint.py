"""What decides a cached feature besides the sample: weights, config, processor, types, versions."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.cache.cut import matches, prefix_names
from hfvla.errors import CheckpointError
from hfvla.family import CutContext, FeatureCut, ParameterGroup

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import ProcessorMixin

__all__ = ["CACHE_VERSION", "Fingerprint", "build_fingerprint"]

CACHE_VERSION = 1
"""Raised when the meaning of what is stored changes; old caches are then misses."""

_LIBRARIES = ("torch", "torchvision", "transformers", "timm", "pillow")
# What a saved config or processor says about the library and the folder it came from, not about what it computes.
_VOLATILE = {"transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "dtype", "torch_dtype"}
_VOLATILE |= {"architectures", "processor_class", "_processor_class", "padding", "truncation"}
_VOLATILE |= {"is_local", "local_files_only", "model_specific_special_tokens"}  # of tokenizers that were loaded
# What a tokenizer that was saved after a padded call says of that call when it is loaded and saved again.
_LAST_CALL = {"max_length", "pad_to_multiple_of", "pad_token_type_id", "padding_side"}
_LAST_CALL |= {"stride", "truncation_side", "truncation_strategy"}
_HASH_LENGTH = 40


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides a feature besides the sample.

    Attributes:
        parts: readable values and hashes by name, saved beside the features.
    """

    parts: Mapping[str, Any]

    @property
    def value(self) -> str:
        """Folder name: a hash of all parts."""
        return hashlib.sha256(_canonical_json(self.parts).encode()).hexdigest()[:24]

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return the names of parts in which another fingerprint's parts differ."""
        names = sorted({*self.parts, *other})
        return [name for name in names if _canonical_json(self.parts.get(name)) != _canonical_json(other.get(name))]


def build_fingerprint(
    family: str,
    name: str,
    cut: FeatureCut,
    model: nn.Module,
    groups: Mapping[str, ParameterGroup],
    context: CutContext,
    settings: Mapping[str, Any],
) -> Fingerprint:
    """Return the fingerprint of one cut of a model.

    Args:
        family: the family's name.
        name: the cut's name.
        cut: the cut.
        model: the model whose prefix encodes.
        groups: the family's parameter groups.
        context: processor, config and losses.
        settings: dtype, views and whatever else of the recipe counts.

    Raises:
        CheckpointError: the prefix' weights are not in memory (meta device, or spread by ZeRO-3).
    """
    parts = {
        "cache_version": CACHE_VERSION,
        "family": family,
        "cut": name,
        "cut_version": cut.version,
        "groups": list(cut.groups),
        "fields": list(cut.fields),
        "weights": _weights_hash(model, cut, groups),
        "config": {key: _plain(getattr(context.config, key, None)) for key in cut.config},
        "processor": _processor_state(context.processor, cut.processor),
        "losses": sorted(context.losses),
        "libraries": {library: _version(library) for library in _LIBRARIES},
        **settings,
    }
    return Fingerprint(json.loads(_canonical_json(parts)))


def _weights_hash(model: nn.Module, cut: FeatureCut, groups: Mapping[str, ParameterGroup]) -> str:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = prefix_names(sorted(state), cut, groups)
    digest = hashlib.sha256()
    for name in names:
        tensor = state[name]
        if tensor.is_meta or getattr(tensor, "ds_id", None) is not None:
            raise CheckpointError(
                "the weights before the cut are not whole on this process",
                where=name,
                got="meta device" if tensor.is_meta else "a ZeRO-3 partition",
                fix="Build the cache ahead in one process with `hfvla cache`, or leave `cache` out.",
            )
        digest.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        digest.update(_raw(tensor))
    for name, module in sorted(model.named_modules()):  # what adapters (peft) kept frozen in the prefix are scaled by
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict) and matches(f"{name}.weight", cut, groups):
            digest.update(f"{name}|{sorted(scaling.items())}|".encode())
    return digest.hexdigest()[:_HASH_LENGTH]


def _raw(tensor: Tensor) -> Any:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """Return a config value as JSON-ready data, without what does not decide an output."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items() if key not in _VOLATILE}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _processor_state(processor: ProcessorMixin, names: Sequence[str]) -> dict[str, str]:
    """Return a hash by processor part, of the files it saves or of its plain value."""
    parts = {name: getattr(processor, name) for name in names} if names else {"all": processor}
    return {name: _state_hash(part) for name, part in parts.items()}


def _state_hash(part: Any) -> str:
    digest = hashlib.sha256()
    if not hasattr(part, "save_pretrained"):
        digest.update(_canonical_json(_plain(part)).encode())
        return digest.hexdigest()[:_HASH_LENGTH]
    with tempfile.TemporaryDirectory() as folder:
        part.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                if path.suffix == ".json":
                    told = _plain(json.loads(content))
                    if path.name == "tokenizer_config.json":
                        told = {key: value for key, value in told.items() if key not in _LAST_CALL}
                    content = _canonical_json(told).encode()
                digest.update(f"{path.relative_to(folder)}|{len(content)}|".encode())
                digest.update(content)
    return digest.hexdigest()[:_HASH_LENGTH]


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=True)
