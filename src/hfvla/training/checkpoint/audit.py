"""Save audit: what was saved is what was trained. Run after every checkpoint, so it reads each file at most once.

The trap it is there for: under ZeRO-3 a weight that was not gathered is saved with no elements, and with adapters on
it `from_pretrained` fills the hole with random values and says so only in a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import send_to_device
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hfvla.errors import CheckpointError
from hfvla.losses.gathering import one_process
from hfvla.training.checkpoint.finite import refuse_nonfinite
from hfvla.training.checkpoint.stored import load_through_class, may_be_absent
from hfvla.training.lora.injection import adapters_in
from hfvla.training.lora.quantized import is_quantized
from hfvla.training.stage.groups import adapter_of, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

__all__ = [
    "audit_checkpoint",
    "audit_outputs",
    "audit_reload",
    "audit_weights",
    "forward_outputs",
    "sample_batch",
    "weight_shapes",
]

logger = logging.getLogger(__name__)

_ROWS = 2
_HALF = (torch.float16, torch.bfloat16)
_TOLERANCE = {"same": 1e-4, "half": 5e-2, "device": 1e-2}
_SMALLEST_SCALE = 1e-2  # outputs smaller than this are compared as if they were this large
_SMALLEST_LOSS = 1.0  # and losses smaller than this: one near zero is a difference of numbers that are not
_SHOWN = 4


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the full shape of each saved tensor by name, also where ZeRO-3 left an empty one in its place."""
    whole = {
        name: tuple(parameter.ds_shape)
        for name, parameter in model.named_parameters()
        if hasattr(parameter, "ds_shape")
    }
    return {name: whole.get(name, tuple(value.shape)) for name, value in model.state_dict().items()}


def audit_weights(
    folder: str | Path,
    shapes: Mapping[str, Sequence[int]],
    *,
    tied: Sequence[str] = (),
    values: Mapping[str, Tensor] | None = None,
) -> int:
    """Compare a folder's safetensors with what a model holds.

    Args:
        folder: checkpoint folder, one file or shards.
        shapes: shape of each tensor by name.
        tied: names that need not be saved: another tensor's memory.
        values: what the tensors must be, to the bit. Optional.

    Returns:
        `int`: tensors found.

    Raises:
        CheckpointError: no weights; a tensor that is missing, unexpected, of another shape (an empty one too) or
            another value; a torn file.
    """
    found, different = _saved_shapes(folder, values or {})
    if not found:
        raise CheckpointError("no weights were saved", where=str(folder), expected=f"{len(shapes)} tensors")
    problems = {
        "missing": sorted(set(shapes) - set(found) - set(tied)),
        "unexpected": sorted(set(found) - set(shapes)),
        "empty": [name for name, size in found.items() if 0 in size and 0 not in shapes.get(name, ())],
        "of another shape": [
            f"{name} {size} for {list(shapes[name])}"
            for name, size in found.items()
            if name in shapes and 0 not in size and list(shapes[name]) != size
        ],
        "of another value": [name for name in different if found[name] == list(shapes.get(name, ()))],
    }
    _refuse(problems, folder)
    return len(found)


def _saved_shapes(folder: str | Path, values: Mapping[str, Tensor]) -> tuple[dict[str, list[int]], list[str]]:
    """Return the shape of each tensor in a folder's files by name, and the names of those that are not as in `values`.

    Only headers are read, and the tensors that `values` has.

    Raises:
        CheckpointError: a torn file.
    """
    found: dict[str, list[int]] = {}
    different = []
    for file in sorted(Path(folder).glob("model*.safetensors")):
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    found[name] = tensors.get_slice(name).get_shape()
                    if name in values and not _equal(tensors.get_tensor(name), values[name]):
                        different.append(name)
        except SafetensorError as error:
            raise CheckpointError("the saved weights are torn", where=str(file), got=str(error)) from None
    return found, different


def _equal(saved: Tensor, wanted: Tensor) -> bool:
    """Tell whether two tensors are the same to the bit; not-a-number counts as equal to itself."""
    wanted = wanted.detach().cpu()
    return (
        saved.dtype == wanted.dtype
        and saved.shape == wanted.shape
        and bool(((saved == wanted) | (saved != saved)).all())
    )


def _refuse(problems: Mapping[str, Sequence[str]], folder: str | Path) -> None:
    shown = [
        f"{kind}: {', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for kind, names in problems.items()
        if names
    ]
    if shown:
        raise CheckpointError(
            "the checkpoint does not hold what was trained",
            where=str(folder),
            got="; ".join(shown),
            expected="the tensors in memory",
            fix="Do not use it. Under ZeRO-3 set stage3_gather_16bit_weights_on_model_save; check the disk otherwise.",
        )


def audit_reload(model: PreTrainedModel, folder: str | Path, values: Mapping[str, Tensor]) -> Any:
    """Load a folder through its class on the CPU, compare it with the tensors it must hold, and return the model.

    The names in the files are the class's business: transformers writes some models by those of their first release.

    Args:
        model: a model of the class that the folder is of.
        folder: what was saved.
        values: the tensors it must hold, to the bit, by their names in memory.

    Raises:
        CheckpointError: no weights, or a torn file; a tensor that `from_pretrained` does not find, does not place,
            or gives another shape or value.
    """
    shapes, _ = _saved_shapes(folder, {})
    if not shapes:
        raise CheckpointError("no weights were saved", where=str(folder), expected=f"{len(values)} tensors")
    _refuse(
        {"empty": [n for n, size in shapes.items() if 0 in size and (n not in values or values[n].numel())]}, folder
    )
    loaded, problems = load_through_class(model, folder)
    _refuse(problems, folder)
    found, ignored = loaded.state_dict(), may_be_absent(model, values)
    # A class may load all weights in one type: what it made of those of other types cannot tell what the file holds.
    cast = {n: value for n, value in values.items() if n in found and n in shapes and found[n].dtype != value.dtype}
    different = _saved_shapes(folder, cast)[1] if cast else []
    different += [n for n, value in values.items() if n in found and n not in cast and not _equal(found[n], value)]
    problems = {
        "missing": sorted(name for name in values if name not in found and name not in ignored),
        "of another value": [name for name in different if name not in _left_out(model)],
    }
    _refuse(problems, folder)
    return loaded.eval()


def _left_out(model: PreTrainedModel) -> tuple[str, ...]:
    return tuple(getattr(model, "_keys_to_ignore_on_save", None) or ())


def sample_batch(trainer: Trainer) -> dict[str, Any]:
    """Return a batch of the first validation (or training) rows, as the stage collates them."""
    dataset = trainer.eval_dataset if trainer.eval_dataset is not None else trainer.train_dataset
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()))
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        rows = [dataset[index] for index in range(min(_ROWS, len(dataset)))]
    else:
        rows = list(islice(dataset, _ROWS))
    return trainer._prepare_inputs(trainer.data_collator(rows))


def forward_outputs(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every floating-point tensor of a model's output by name, computed in eval mode and without gradients.

    Random numbers are drawn from a fixed seed, so that a loss with noise in it compares too; the streams of the run
    are left where they were. Losses do not gather over processes: only the main one runs the reloaded model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.random.fork_rng(), torch.no_grad(), one_process():
        torch.manual_seed(0)
        outputs = model(**batch)
    for module, training in modes:
        module.training = training
    return {name: value.float().cpu() for name, value in _tensors("", outputs) if value.is_floating_point()}


def _tensors(name: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [found for key, item in value.items() for found in _tensors(f"{name}.{key}".lstrip("."), item)]
    if isinstance(value, tuple | list):
        return [found for key, item in enumerate(value) for found in _tensors(f"{name}.{key}".lstrip("."), item)]
    return []


def audit_outputs(
    trainer: Trainer, loaded: Any, batch: Mapping[str, Any], reference: Mapping[str, Tensor], folder: str | Path
) -> float:
    """Compare a reloaded model's outputs with those of the model in memory, and return the largest difference.

    Args:
        trainer: the trainer, for device and precision.
        loaded: the reloaded model, on the CPU.
        batch: the batch, on the trainer's device.
        reference: `forward_outputs` of the model in memory.
        folder: what was reloaded, for the message.

    Raises:
        CheckpointError: an output that is not there, or that differs by more than rounding.
    """
    device = trainer.args.device if _fits(loaded, trainer.args.device) else torch.device("cpu")
    with _precision(trainer, device):
        found = forward_outputs(loaded.to(device), send_to_device(dict(batch), device))
    half = trainer.args.bf16 or trainer.args.fp16 or any(p.dtype in _HALF for p in loaded.parameters())
    half = half or is_quantized(trainer.accelerator.unwrap_model(trainer.model))
    kind = "half" if half else "same" if device == trainer.args.device else "device"
    worst, place = 0.0, ""
    for name, value in reference.items():
        if name not in found or found[name].shape != value.shape:
            _refuse({"output missing or of another shape": [name]}, folder)
        if value.numel():
            gap = _difference(value, found[name], _SMALLEST_LOSS if _is_loss(name) else _SMALLEST_SCALE)
            worst, place = (gap, name) if gap >= worst else (worst, place)
    if not worst <= _TOLERANCE[kind]:
        raise CheckpointError(
            "the reloaded checkpoint does not compute what the trained model does",
            where=str(folder),
            got=f"'{place}' differs by {worst:.3g}",
            expected=f"at most {_TOLERANCE[kind]:g} of its largest value",
            fix="Do not use it. Something that takes part in the computation is not saved, or changes while loading.",
        )
    return worst


def _is_loss(name: str) -> bool:
    return name.partition(".")[0] in ("loss", "loss_terms", "row_losses")


def _difference(wanted: Tensor, found: Tensor, smallest: float) -> float:
    """Return the largest difference as a share of the largest value; infinite where only one of them is a number."""
    numbers = torch.isfinite(wanted)
    if not torch.equal(numbers, torch.isfinite(found)):
        return float("inf")
    if not numbers.any():
        return 0.0
    scale = wanted[numbers].abs().max().clamp_min(smallest)
    return float((wanted - found)[numbers].abs().max() / scale)


def _fits(model: nn.Module, device: torch.device) -> bool:
    """Tell whether a second copy of the model finds room on the device, with as much again for the batch."""
    if device.type != "cuda":
        return device.type == "cpu"
    needed = 2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return needed < torch.cuda.mem_get_info(device)[0]


def _precision(trainer: Trainer, device: torch.device) -> AbstractContextManager[Any]:
    return trainer.accelerator.autocast() if device == trainer.args.device else nullcontext()


def audit_checkpoint(trainer: Trainer, folder: str | Path) -> None:
    """Check a checkpoint inside a stage before it counts: no tensor missing, empty or of another shape (main process).

    Args:
        trainer: the trainer that wrote it.
        folder: where; shards of FSDP and DeepSpeed, which only resuming reads, are not looked into.

    Raises:
        CheckpointError: see `audit_weights`; also trained weights that are no numbers.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    trained = getattr(trainer, "trained", {})
    refuse_nonfinite({name: value.detach() for name, value in model.named_parameters() if name in trained}, folder)
    if trainer.is_fsdp_enabled or not any(Path(folder).glob("model*.safetensors")):
        return
    shapes = {plain_name(name): size for name, size in weight_shapes(model).items() if adapter_of(name) is None}
    absent = {plain_name(name) for name in may_be_absent(model, model.state_dict())}
    if set(_saved_shapes(folder, {})[0]) <= set(shapes) or adapters_in(model):
        audit_weights(folder, shapes, tied=sorted(absent))
    else:  # saved by a method of the model's own, by names that only its class knows
        _refuse(load_through_class(model, folder)[1], folder)
