"""Saved LoRA: a stage's folder holds the merged model, and in `adapter/` what a later stage needs to take it apart.

    <stage>/model.safetensors               every weight, adapters merged: an ordinary checkpoint
    <stage>/adapter/adapter_config.json     the trained adapter in peft's format, to share or to load with peft
    <stage>/adapter/adapter_model.safetensors
    <stage>/adapter/below_1/...             adapters kept frozen below it (handover.lora: stack), the same format
    <stage>/adapter/base.safetensors        the weights of the adapted layers without any adapter
    <stage>/adapter/beside.safetensors      what else the stage trained: heads, buffers

Merged weights are what everybody can load; the base weights beside them let `continue`, `stack` and `none` start from
exactly what the adapters were trained against, which no subtraction would give back.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hfvla.errors import CheckpointError
from hfvla.loading import guarded, read_object
from hfvla.training.lora.injection import adapters_in, inject
from hfvla.training.lora.patterns import slow_pattern
from hfvla.training.stage.groups import TRAINED_ADAPTER, adapter_of, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ADAPTER_FOLDER",
    "SavedAdapters",
    "check_adapters",
    "file_name",
    "load_adapter",
    "merge_in_place",
    "merged_model",
    "put_adapter",
    "read_adapters",
    "read_beside",
    "share_adapter",
    "write_adapters",
]

ADAPTER_FOLDER = "adapter"
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE, _BESIDE = "base.safetensors", "beside.safetensors"
_PEFT_PREFIX = "base_model.model."


@dataclass
class SavedAdapters:
    """The adapters of a finished stage.

    Attributes:
        adapters: peft's config and the tensors, as they are named in its file, by adapter; the oldest first, the
            trained one last.
        base: weights of the adapted layers without any adapter, by plain name.
    """

    adapters: dict[str, tuple[Any, dict[str, Tensor]]] = field(default_factory=dict)
    base: dict[str, Tensor] = field(default_factory=dict)

    def parameters(self, name: str) -> int:
        """Return how many scalars an adapter has."""
        return sum(value.numel() for value in self.adapters[name][1].values())


def file_name(name: str, adapter: str) -> str:
    """Return a tensor's name in peft's file: without the adapter's name, and DoRA's magnitude without `.weight`."""
    short = name.replace(f".{adapter}.", ".", 1) if name.count(f".{adapter}.") == 1 else _drop_last(name, adapter)
    return _PEFT_PREFIX + short.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def _drop_last(name: str, adapter: str) -> str:
    head, _, tail = name.rpartition(f".{adapter}.")
    return f"{head}.{tail}"


def merged_model(model: PreTrainedModel, state: dict[str, Tensor]) -> Any:
    """Return a model without adapters, to be saved, that holds what `model` with them computes.

    It is built on the meta device from the state dict, so the model itself is not touched, and a model whose weights
    are spread over processes (ZeRO-3) needs only its gathered state. Buffers that are not saved stay on the meta
    device: load it before running it.

    Args:
        model: the model with adapters; a `PreTrainedModel`.
        state: its full state dict on the CPU, adapters included.

    Raises:
        CheckpointError: the state dict has other tensors than the model, or of other shapes.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # a run draws the same however often it saves
        plain = type(model)(copy.deepcopy(model.config))
        for name in adapters_in(model):
            inject(plain, copy.deepcopy(model.peft_config[name]), name)
    try:
        plain.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError("the trained weights do not fit the model", got=str(error).splitlines()[1:4]) from None
    plain.tie_weights()
    if getattr(model, "generation_config", None) is not None:
        plain.generation_config = model.generation_config
    return merge_in_place(plain)


def merge_in_place(model: PreTrainedModel) -> Any:
    """Replace a model's adapted layers by plain ones, adapters added into the weights; in place."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
    return model


def write_adapters(
    model: PreTrainedModel,
    state: dict[str, Tensor],
    folder: Path,
    beside: Iterable[str] = (),
    base_name: str | None = None,
    with_base: bool = True,
) -> None:
    """Write the adapters of a model, and the base weights below them.

    Args:
        model: the model with adapters.
        state: its full state dict on the CPU.
        folder: the checkpoint; they go to `adapter/` in it.
        beside: names of tensors that trained besides the adapters.
        base_name: checkpoint that the stage started from, written into the adapter's config.
        with_base: also write the weights that the adapters sit on.
    """
    root = folder / ADAPTER_FOLDER
    shutil.rmtree(root, ignore_errors=True)
    for adapter in adapters_in(model):
        place = root if adapter == TRAINED_ADAPTER else root / adapter
        place.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(model.peft_config[adapter])
        config.inference_mode, config.base_model_name_or_path = True, base_name
        config.save_pretrained(place)
        tensors = {file_name(name, adapter): value for name, value in state.items() if adapter_of(name) == adapter}
        _save(tensors, place / _WEIGHTS)
    if with_base:
        base = {plain_name(name): value for name, value in state.items() if ".base_layer." in name}
        _save(base, root / _BASE)
    _save({plain_name(name): state[name] for name in beside}, root / _BESIDE)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path, {"format": "pt"}
    )


def check_adapters(folder: str | Path, state: dict[str, Tensor]) -> None:
    """Compare the adapters and base weights beside a checkpoint with those in memory, to the bit.

    Args:
        folder: the checkpoint.
        state: full state dict of the model with adapters, on the CPU.

    Raises:
        CheckpointError: a tensor is missing or has another value.
    """
    wanted = {name: value for name, value in state.items() if adapter_of(name) or ".base_layer." in name}
    saved = read_adapters(folder)
    if saved is None and not wanted:
        return
    found: dict[str, Tensor] = dict(saved.base) if saved else {}
    for adapter, (_, tensors) in (saved.adapters if saved else {}).items():
        found.update({f"{adapter}:{name}": value for name, value in tensors.items()})
    wrong = []
    for name, value in wanted.items():
        of = adapter_of(name)
        read = found.pop(f"{of}:{file_name(name, of)}" if of else plain_name(name), None)
        if read is None or not torch.equal(read, value.cpu()):
            wrong.append(name)
    if wrong or found:
        raise CheckpointError(
            "the saved adapters are not those that were trained",
            where=str(Path(folder) / ADAPTER_FOLDER),
            got=[*wrong, *found][:4],
        )


def read_adapters(folder: str | Path) -> SavedAdapters | None:
    """Return the adapters that a stage left beside its checkpoint, or None where it trained none.

    Raises:
        CheckpointError: a file of theirs is missing or torn.
    """
    root = Path(folder) / ADAPTER_FOLDER
    if not root.is_dir():
        return None
    below = sorted((path.parent for path in root.glob(f"*/{_CONFIG}")), key=lambda path: (len(path.name), path.name))
    saved = SavedAdapters()
    for place in [*below, root]:
        name = TRAINED_ADAPTER if place == root else place.name
        saved.adapters[name] = _read_adapter(place)
    if (root / _BASE).is_file():  # not there in what `share_adapter` wrote
        saved.base = _tensors(root / _BASE)
    return saved


def read_beside(folder: str | Path) -> dict[str, Tensor]:
    """Return what trained besides the adapters of a checkpoint, by plain name.

    Raises:
        CheckpointError: the file is missing or torn.
    """
    return _tensors(Path(folder) / ADAPTER_FOLDER / _BESIDE)


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        "the adapters beside this checkpoint are incomplete or damaged", where=str(path), got=reason.splitlines()[0]
    )


def _read_adapter(place: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return peft's config and tensors of one adapter; nothing in the config is believed that the tensors do not say.

    Raises:
        CheckpointError: a file of it is missing, damaged or pickled; a rank that its tensors do not have; a pattern
            of module names that could take for ever to match.
    """
    from peft import LoraConfig

    path = place / _CONFIG
    if not path.is_file() or not (place / _WEIGHTS).is_file():  # peft would look for it on the hub
        raise _damaged(place, f"no {_CONFIG if not path.is_file() else _WEIGHTS}")
    read_object(path)
    config, tensors = guarded(path, lambda: LoraConfig.from_pretrained(str(place))), _tensors(place / _WEIGHTS)
    for key, value in vars(config).items():
        for text in _texts(value) if "pattern" in key or key in ("target_modules", "exclude_modules") else ():
            reason = slow_pattern(text)
            if reason is not None:
                raise CheckpointError(f"{key}: {reason}", where=str(path), got=text[:100])
    ranks = {value.shape[0] for name, value in tensors.items() if ".lora_A." in name and value.dim()}
    if ranks and (ranks != {config.r} or config.rank_pattern):
        raise CheckpointError("the adapter's rank is not that of its tensors", where=str(path), got=config.r)
    return config, tensors


def _texts(value: Any) -> list[str]:
    """Return the texts in a value: itself, or the keys and values of a list or mapping."""
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | set) else []
    return [part for part in parts if isinstance(part, str)]


def put_adapter(
    model: nn.Module, config: Any, tensors: dict[str, Tensor], adapter: str, dropout: float | None = None
) -> int:
    """Put a saved adapter into a model and return how many of its tensors were filled.

    Args:
        model: the model, changed in place.
        config: peft's config.
        tensors: its tensors, as they are named in peft's file.
        adapter: peft name that it gets here.
        dropout: dropout before it, in place of the config's.

    Raises:
        CheckpointError: the model has no place for a tensor, or none was saved for a place.
    """
    config = copy.deepcopy(config)
    config.inference_mode = False
    config.lora_dropout = config.lora_dropout if dropout is None else dropout
    inject(model, config, adapter)
    places = {name: value for name, value in model.state_dict().items() if adapter_of(name) == adapter}
    files = {name: file_name(name, adapter) for name in places}
    wrong = sorted(set(files.values()) ^ set(tensors))
    wrong += [n for n, file in files.items() if file in tensors and tensors[file].shape != places[n].shape]
    if wrong:
        raise CheckpointError(
            "a saved adapter does not fit this model",
            got=wrong[:4],
            expected="the layers that it was trained on",
            fix="Use handover.lora: merge when layers change their name or shape.",
        )
    for name, value in places.items():
        value.copy_(tensors[files[name]])
    return len(places)


def share_adapter(source: str | Path, final: str | Path) -> None:
    """Copy a stage's adapters to the final checkpoint in peft's format, without the base weights."""
    root, target = Path(source) / ADAPTER_FOLDER, Path(final) / ADAPTER_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    if root.is_dir():
        shutil.copytree(root, target, ignore=shutil.ignore_patterns(_BASE))


def load_adapter(model: PreTrainedModel, folder: str | Path) -> Any:
    """Return a plain model with shared adapters merged in and what was trained beside them filled in.

    Args:
        model: a `PreTrainedModel` with the weights that the adapters were trained on.
        folder: `<out>/final` or a stage's folder.

    Raises:
        CheckpointError: no adapters there, or they do not fit the model.
    """
    saved = read_adapters(folder)
    if saved is None:
        raise CheckpointError("no adapters in this folder", where=str(folder), expected=f"{ADAPTER_FOLDER}/{_CONFIG}")
    adapted = copy.deepcopy(model)
    for adapter, (config, tensors) in saved.adapters.items():
        put_adapter(adapted, config, tensors, adapter)
    state = adapted.state_dict()
    for name, value in _tensors(Path(folder) / ADAPTER_FOLDER / _BESIDE).items():
        wanted = name if name in state else next((n for n in state if plain_name(n) == name), None)
        if wanted is None or state[wanted].shape != value.shape:
            raise CheckpointError("what was trained beside the adapter does not fit this model", got=name)
        state[wanted].copy_(value)
    return merge_in_place(adapted)
