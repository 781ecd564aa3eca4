"""Plans for well-known backbones from their shipped shapes: no recipe, no data, no download."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch

from hfvla.errors import HfvlaError, RecipeError, did_you_mean
from hfvla.family import ParameterGroup
from hfvla.nn.mixed_precision import cast_together
from hfvla.recipe import Lora
from hfvla.recipe.other_names import meant_value
from hfvla.training.estimate.costs import ASSUMPTIONS, Workload, training_costs
from hfvla.training.estimate.devices import GPUS, Gpu
from hfvla.training.estimate.sizes import find_precision
from hfvla.training.estimate.timing import Throughput
from hfvla.training.estimate.tools import add_adapters, checkpoint_bytes, device_statements, part_rows, phase_row
from hfvla.training.stage.groups import assign_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["ShapeRun", "plan_shape", "shape_batch", "shape_model", "shape_names"]

_LEARNING_RATE = 1e-5  # for the table only
_TEXT_TOKEN = 5


@dataclass(frozen=True)
class ShapeRun:
    """What a plan of a shape is made for.

    Attributes:
        train: parameter groups; "lora" comes with `lora`.
        lora: adapters.
        batch_size: samples a GPU and batch.
        tokens: tokens a sample, its images' included.
        images: images a sample.
        image_size: pixels of the side of an image, where the model takes any size.
        precision: a name of `hfvla.training.estimate.PRECISIONS`.
        optim: name as in `TrainingArguments.optim`.
        accumulation: batches an optimizer step.
        samples: samples of the data.
        epochs: passes over them.
    """

    train: Sequence[str] = ("projector", "language")
    lora: Lora | None = None
    batch_size: int = 1
    tokens: int = 1024
    images: int = 1
    image_size: int = 448
    precision: str = "bf16-mixed"
    optim: str = "adamw_torch_fused"
    accumulation: int = 1
    samples: int = 100_000
    epochs: float = 1.0


def shape_names() -> list[str]:
    """Return the names of the shipped shapes."""
    folder = files("hfvla.training.estimate") / "shape_configs"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def _read(name: str) -> dict[str, Any]:
    known = shape_names()
    if name not in known:
        raise HfvlaError(f"no shape '{name}' is shipped. {did_you_mean(name, known)}")
    return json.loads(
        (files("hfvla.training.estimate") / "shape_configs" / f"{name}.json").read_text(encoding="utf-8")
    )


def shape_model(name: str) -> tuple[Any, dict[str, ParameterGroup]]:
    """Return a shipped backbone on the meta device, and its parameter groups.

    Args:
        name: one of `shape_names()`.

    Raises:
        HfvlaError: unknown; the message suggests the nearest.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    shape = _read(name)
    settings = dict(shape["config"])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    groups = {key: ParameterGroup(tuple(g["patterns"]), g["layers"]) for key, g in shape["groups"].items()}
    return model, groups


def shape_batch(
    config: PreTrainedConfig, batch_size: int, tokens: int, images: int, image_size: int = 448
) -> dict[str, Any]:
    """Return a batch for `forward` without padding; all text tokens are labelled.

    Args:
        config: of a model by `shape_model`, or of another vision-language model with the same inputs.
        batch_size: samples.
        tokens: tokens a sample.
        images: images a sample.
        image_size: pixels of the side, where the model takes any size.

    Raises:
        HfvlaError: the images alone have more tokens than a sample.
    """
    vision = config.vision_config
    if getattr(config, "image_seq_length", None):
        each, side = config.image_seq_length, vision.image_size[0]
        inputs = {"pixel_values": torch.empty(batch_size * images, 3, side, side, device="meta")}
    else:
        merge = vision.spatial_merge_size
        side = max(merge, round(image_size / vision.patch_size / merge) * merge)  # patches, a multiple of the merge
        each = (side // merge) ** 2
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        inputs = {
            "pixel_values": torch.empty(batch_size * images * side**2, patch, device="meta"),
            "image_grid_thw": torch.tensor([[1, side, side]] * (batch_size * images)),
        }
    if images * (each + 2) >= tokens:
        raise HfvlaError(
            "a sample has no room for its images",
            got=f"{tokens} tokens",
            expected=f"more than {images} x {each + 2}",
            fix="Give more --tokens, fewer --images or a smaller --image-size.",
        )
    ids = torch.full((batch_size, tokens), _TEXT_TOKEN)
    for image in range(images):
        start = image * (each + 2) + 1
        ids[:, start - 1] = getattr(config, "vision_start_token_id", None) or _TEXT_TOKEN
        ids[:, start : start + each] = config.image_token_id
    is_image = ids == config.image_token_id
    labels = ids.masked_fill(is_image, -100)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, **(inputs if images else {})}
    return batch | ({"mm_token_type_ids": is_image.long()} if hasattr(vision, "spatial_merge_size") else {})


def plan_shape(
    name: str,
    run: ShapeRun | None = None,
    throughput: Throughput | None = None,
    gpus: Sequence[Gpu] = GPUS,
    cpu: Gpu | None = None,
    brief: bool = False,
) -> dict[str, Any]:
    """Return a plan of one stage for a shipped backbone, in the form of `plan_recipe`.

    Args:
        name: one of `shape_names()`.
        run: what it is made for.
        throughput: measured speeds.
        gpus: GPUs to plan for.
        cpu: this machine's CPU, to estimate its time too.
        brief: follow the plain setting alone; others only where it fits no GPU.

    Raises:
        HfvlaError: unknown shape, precision or optimizer, or images that do not fit the tokens.
        RecipeError: a group or LoRA target that matches nothing.
    """
    run = run or ShapeRun()
    precision = find_precision(run.precision)
    _check_optimizer(run.optim)
    if not run.train and run.lora is None:
        raise RecipeError("nothing trains", got=list(run.train), fix="Give --train, --lora-target or both.")
    model, groups = shape_model(name)
    parts = part_rows(model, {key: group.patterns for key, group in groups.items()})
    total = sum(parameter.numel() for parameter in model.parameters())
    if precision.dtype is not None:
        model.to(precision.dtype)
        precision = replace(precision, dtype=None, autocast=precision.dtype)  # what trains is float32 beside it
    four_bit = add_adapters(model, groups, run.lora)
    entries = [*run.train, *(["lora"] if run.lora is not None and "lora" not in run.train else [])]
    trained = assign_parameters(model, groups, entries)
    cast_together(model, trained)
    work = Workload(
        model=model,
        batch=shape_batch(model.config, run.batch_size, run.tokens, run.images, run.image_size),
        batch_size=run.batch_size,
        phases=[(trained, run.samples * run.epochs)],
        precision=precision,
        optim=run.optim,
        accumulation=run.accumulation,
        four_bit=four_bit,
        gpus=gpus,
        cpu=cpu,
        brief=brief,
    )
    phase = phase_row(model, groups, trained, dict.fromkeys(entries, _LEARNING_RATE), {"add": entries})
    return {
        "family": "shape",
        "recipe": name,
        "parameters": parts,
        "total_parameters": total,
        "stages": [_stage(name, run, phase, training_costs(work, throughput), checkpoint_bytes(model, trained))],
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes, "like": gpu.like} for gpu in gpus],
        "assumptions": [*device_statements(gpus, cpu), *ASSUMPTIONS],
    }


def _stage(
    name: str, run: ShapeRun, phase: dict[str, Any], costs: dict[str, Any], saved: dict[str, int]
) -> dict[str, Any]:
    """Return the one stage of a plan of a shape."""
    return {
        "name": name,
        "samples": run.samples,
        "steps": math.ceil(run.samples * run.epochs / run.batch_size / run.accumulation),
        "epochs": run.epochs,
        "batch_size": run.batch_size * run.accumulation,
        "groups": phase["groups"],
        "trainable_parameters": phase["trainable_parameters"],
        "losses": {"language_modelling": 1.0},
        "phases": [phase],
        "precision": run.precision,
        "optim": run.optim,
        "as_written": {"setting": "plain", "checkpointing": False},
        "costs": costs,
        "notes": [],
        **saved,
    }


def _check_optimizer(name: str) -> None:
    from transformers.training_args import OptimizerNames

    known = [str(one.value) for one in OptimizerNames]
    if name not in known:
        raise HfvlaError(f"no optimizer '{name}'. {meant_value('optim', name, known)}", where="--optim")
