"""A local checkpoint that may be anything, looked through before a weight is read or a byte allocated.

What is refused, each in one line with the file's name: contents that are not what was sealed, pickled weights, JSON
that is no object or not UTF-8, a shard index that leads out of the folder, a damaged header, sizes that no model has,
a config that describes far more weights than the files hold, and a processor that does not fit the config.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.errors import CheckpointError, HfvlaError
from hfvla.sealing import check_contents

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["check_folder", "check_room", "check_same", "check_size", "guarded", "read_object", "weight_files"]

_COPY = "Copy the whole folder that save_pretrained wrote."
_PACKED = {"U8", "I8", "I32", "F8_E4M3", "F8_E5M2"}  # what quantised weights are stored as
_LAYERS = ("layers", "n_layer", "depth", "num_blocks")
_MOST_LAYERS, _MOST = 2_000, 2**40
_MOST_TOKENS, _MOST_SIDE = 2**24, 2**16
_JSON_BYTES = 256 * 2**20
_SLACK = 64 * 2**20  # scalars that a config may describe beyond what the files hold: ties and buffers


def guarded(where: str | Path, call: Callable[[], Any]) -> Any:
    """Return what a call of a library makes of an untrusted folder; whatever it raises is one line.

    Raises:
        CheckpointError: the call failed, with the library's reason.
    """
    try:
        return call()
    except HfvlaError:
        raise
    except BaseException as error:  # a panic of tokenizers, which is written in Rust, is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise CheckpointError(
            "the checkpoint is incomplete or damaged",
            where=str(where),
            got=f"{type(error).__name__}: {reason}"[:300],
            fix=_COPY,
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        CheckpointError: it is too large, not UTF-8, not JSON, or no object.
    """
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise CheckpointError(
                "this JSON file is too large", where=str(path), expected=f"at most {_JSON_BYTES} bytes"
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path.name} is not valid JSON ({reason})", where=str(path)) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object", where=str(path), got=type(content).__name__)
    return content


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder's weights, as its index says or as they lie there.

    Raises:
        CheckpointError: only pickled weights, none at all, or an index that leads out of the folder or to no file.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "adapter" / "frozen.json").is_file():
        raise CheckpointError(
            "this checkpoint holds adapters and what trained beside them, not the frozen weights below",
            where=str(folder),
            fix="Write a whole one: hfvla merge CHECKPOINT --output DIR.",
        )
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise CheckpointError("the shard index has no weight_map", where=str(index))
        shards = sorted(set(names.values()))
        outside = [name for name in shards if name != os.path.basename(name) or name in ("", "..")]
        if outside:
            raise CheckpointError(
                "the shard index leads out of the folder",
                where=str(index),
                got=outside[0],
                expected="names of files in it",
            )
        missing = [name for name in shards if not (folder / name).is_file() or not name.endswith(".safetensors")]
        if missing:
            raise CheckpointError("a shard is missing or is no safetensors file", where=str(index), got=missing[0])
        return [folder / name for name in shards]
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    raise CheckpointError(
        "pickled weights are not read: they can run code"
        if pickled
        else "the checkpoint is incomplete or damaged: no safetensors weights in this folder",
        where=str(folder),
        got=pickled[0] if pickled else None,
        expected="model.safetensors",
        fix="Load them where you trust them, and save with save_pretrained." if pickled else _COPY,
    )


def check_folder(folder: str | Path) -> int:
    """Look through a local checkpoint; return how many scalars its weights hold.

    Raises:
        CheckpointError: see the module.
    """
    folder = Path(folder)
    check_contents(folder)
    for path in sorted(folder.glob("*.json")):
        if path.name != "vocab.json" and not path.name.endswith((".index.json", "log_history.json", "trainable.json")):
            content = read_object(path)
            if path.name == "config.json":
                _check_numbers(content, path, ())
    scalars = sum(_scalars(file) for file in weight_files(folder))
    _check_quantisation(Path(folder))
    return scalars


def check_room(folder: str | Path) -> None:
    """Refuse weights that do not fit into this machine's free memory, before it begins to swap; nothing is read.

    Raises:
        CheckpointError: they do not.
    """
    size, free = sum(file.stat().st_size for file in weight_files(Path(folder))), _free_bytes()
    if free is not None and size > free:
        raise CheckpointError(
            "the weights do not fit into this machine's memory",
            where=str(folder),
            got=f"{size / 2**30:,.1f} GiB of weights",
            expected=f"at most {free / 2**30:,.1f} GiB, which are free",
            fix="End other programs, or take a machine with more.",
        )


def _free_bytes() -> int | None:
    """Return what the system can still give, or None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split() for line in text.splitlines() if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _check_numbers(value: Any, path: Path, keys: tuple[str, ...]) -> None:
    """Refuse sizes in a config that no model has, before one is built from them."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            _check_numbers(part, path, (*keys, str(key)))
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, path, keys)
    elif isinstance(value, int) and not isinstance(value, bool):
        name = keys[-1] if keys else ""
        most = _MOST_LAYERS if any(part in name for part in _LAYERS) else _MOST
        most = _MOST_TOKENS if name in ("vocab_size", "max_position_embeddings", "n_positions") else most
        most = _MOST_SIDE if name in ("image_size", "patch_size", "num_experts") else most
        if abs(value) > most:
            raise CheckpointError(
                "a size in the config that no model has",
                where=f"{path}: {'.'.join(keys)}",
                got=value if abs(value) < 10**30 else f"{len(str(abs(value)))} digits",
                expected=f"at most {most}",
            )


def _check_quantisation(folder: Path) -> None:
    """Refuse a quantisation that the weights do not have: transformers loads such weights as they are."""
    path = folder / "config.json"
    settings = read_object(path).get("quantization_config") if path.is_file() else None
    if settings is None:
        return
    if not isinstance(settings.get("quant_method") if isinstance(settings, dict) else 0, str):
        raise CheckpointError("quantization_config names no quant_method", where=str(path), got=str(settings)[:100])
    kinds = {kind for file in weight_files(folder) for kind in _kinds(file)}
    if not kinds & _PACKED:
        raise CheckpointError(
            "quantization_config, and no weight is quantised",
            where=str(path),
            got=f"{settings['quant_method']!r} beside weights of {', '.join(sorted(kinds))}",
            fix="Take quantization_config out of the config.",
        )


def _kinds(file: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as tensors:
        return {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118


def _scalars(file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (OSError, ValueError, OverflowError, SafetensorError) as error:
        raise CheckpointError(
            "incomplete or damaged weights", where=str(file), got=str(error).splitlines()[0]
        ) from None


def check_size(model_class: Any, config: PreTrainedConfig, scalars: int, folder: str | Path) -> None:
    """Refuse a config that describes far more weights than the files hold; nothing is allocated to find out.

    Args:
        model_class: class of the model, or what else makes one of a config.
        config: its config, from the folder.
        scalars: scalars that the files hold.
        folder: where, for the message.

    Raises:
        CheckpointError: it does, or it describes no model.
    """
    import copy

    import torch

    def build() -> Any:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return model_class(copy.deepcopy(config))

    described = sum(parameter.numel() for parameter in guarded(f"{folder}: config.json", build).parameters())
    if described > 2 * scalars + _SLACK:
        raise CheckpointError(
            "config.json describes another model than the weights",
            where=str(folder),
            got=f"{described:,} parameters",
            expected=f"about {scalars:,}, which the files hold",
        )


def check_same(what: str, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse a processor that says something else than the config it is used with.

    Args:
        what: the processor's class, for the message.
        pairs: by name, what the processor says and what the config says; lists and tuples compare equal.

    Raises:
        CheckpointError: naming the first that differs.
    """
    for name, (found, wanted) in pairs.items():
        if _plain(found) != _plain(wanted):
            raise CheckpointError(
                f"the processor does not fit the config: {name}",
                where=what,
                got=_short(found),
                expected=_short(wanted),
                fix="Use the processor that was saved with this model.",
            )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda part: list(part) if hasattr(part, "__iter__") else str(part)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
