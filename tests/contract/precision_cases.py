"""What the precision contract runs: families with their optional switches, and the precisions of a run.

`run_case` builds a case's model and trains two steps of it, in this process or as one of several: a worker that is
started by torchrun may call it as it is.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments, set_seed

from hfvla.data.rows.epoch import EpochRows
from hfvla.recipe import Stage
from hfvla.registry import get_family
from hfvla.training.trainer.trainer import StagedTrainer

ROWS, BATCH, STEPS = 8, 4, 2


@dataclass(frozen=True)
class Case:
    """A family with one switch thrown.

    Attributes:
        family: its name.
        switch: what the case is about.
        config: values over the tiny config's.
        stage: fields of the stage.
        args: TrainingArguments.
        still: names of parameters that train and that the example rows give no gradient.
    """

    family: str
    switch: str
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    stage: dict[str, Any] = field(default_factory=dict, hash=False)
    args: dict[str, Any] = field(default_factory=dict, hash=False)
    still: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.family}-{self.switch}"


@dataclass(frozen=True)
class Precision:
    """How a model is loaded and run.

    Attributes:
        weights: dtype of all weights before the stage casts what trains.
        args: TrainingArguments.
        tolerance: how far a loss term may be from float32's, as a share of the larger of it and 1.
    """

    weights: torch.dtype = torch.float32
    args: dict[str, Any] = field(default_factory=dict, hash=False)
    tolerance: float = 0.0


# bfloat16 keeps 8 bits: 2^-9 a rounding, of which a tiny model has a few dozen in a row.
PRECISIONS = {
    "float32": Precision(tolerance=1e-6),
    "bf16 autocast": Precision(args={"bf16": True}, tolerance=4e-2),
    "bf16 weights": Precision(torch.bfloat16, {"bf16": True}, tolerance=6e-2),
    "bf16 weights, no autocast": Precision(torch.bfloat16, tolerance=6e-2),
}

# Without dropout: runs are compared, and types change what is drawn.
_QUIET = {
    "ember_vlm": {
        "selection_dropout": 0.0,
        "word_dropout": 0.0,
        "text_config": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    },
    "internvl_video_qa": {"shuffle_choices": False},
}
_CONFIGS = {
    "ember_vlm": {
        "plain": {},
        "ngrams": {"ngram_buckets": 64},
        "bce": {"selection_loss": "bce"},
        "grid": {"visual_grid": [1, 2]},
    },
    "chat_vlm": {"plain": {}},
    "internvl_retrieval": {
        "plain": {},
        "image_from_language": {"image_from": "language"},
        "mean_pooling": {"text_pooling": "mean"},
        "pooled_heads": {"heads": "pooled"},
        "adapter_skip": {"adapter": {"dropout": 0.0, "skip": True, "layer_norm": True}},
        "queue": {"negatives": {"queue": 8}},
    },
    "internvl_video_qa": {"plain": {}, "words": {"answer_by": "words"}},
    "sensor_vla": {
        "plain": {},
        **{f"fusion_{kind}": {"fusion": kind} for kind in ("cross_attention", "gated", "none")},
        **{f"expert_{kind}": {"expert": {"kind": kind}} for kind in ("diffusion", "flow")},
        "mean_features": {"feature_pooling": "mean"},
        "group_norm": {"sensor_encoder": {"norm": "group", "groups": 4}},
        "branches": {"sensor_encoder": {"branches": [2, 4]}},
    },
}
_STILL = {"branches": ("sensor_encoder.no_branch",)}  # the vector of a branch that a row lacks; all rows have all
_ENGINE: dict[str, dict[str, Any]] = {
    "lora": {"stage": {"lora": {"target": "language", "r": 2, "alpha": 4}}},
    "dora": {"stage": {"lora": {"target": "language", "r": 2, "alpha": 4, "dora": True}}},
    "rslora": {"stage": {"lora": {"target": "language", "r": 2, "alpha": 4, "rslora": True}}},
    "checkpointing": {
        "args": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    },
    "accumulation": {"args": {"gradient_accumulation_steps": 2}},
    **{kind: {"stage": {"loss_weighting": kind}} for kind in ("uncertainty", "gradnorm", "pcgrad")},
    "gradient_report": {"stage": {"gradient_report": {"every": 1, "groups": ["language.last(1)"]}}},
    "joins": {"stage": {"phases": [{"step": 1, "add": ["language.first(1)"]}]}},
}
_NEEDS_SEVERAL_LOSSES = ("uncertainty", "gradnorm", "pcgrad", "gradient_report")


def cases() -> list[Case]:
    """Return every family with every switch of its own and of the engine, one at a time."""
    found = []
    for family, configs in _CONFIGS.items():
        found += [Case(family, switch, config, still=_STILL.get(switch, ())) for switch, config in configs.items()]
        several = len(get_family(family).losses) > 1
        engine = {k: v for k, v in _ENGINE.items() if several or k not in _NEEDS_SEVERAL_LOSSES}
        found += [Case(family, switch, **settings) for switch, settings in engine.items()]
    contrastive = {"losses": {"itc": 1.0}, "train": ["language.last(1)", "adapters", "temperature"]}
    found.append(Case("internvl_retrieval", "grad_cache", stage={"grad_cache": 2, **contrastive}))
    return found


@dataclass
class Outcome:
    """What a run leaves to compare.

    Attributes:
        terms: loss terms of each step.
        moved: names of the parameters that changed.
        trained: names of those that the stage trains.
        types: dtypes of what trains, of its gradients and of the optimizer's state.
    """

    terms: list[dict[str, float]]
    moved: set[str]
    trained: set[str]
    types: set[torch.dtype]


def build(case: Case) -> tuple[Any, Any, Any]:
    """Return model, processor and rows of a case."""
    spec = get_family(case.family)
    config = merged(spec.tiny_config().to_dict(), merged(_QUIET.get(case.family, {}), case.config))
    rows = spec.load("examples")(ROWS, 0)
    model, processor = spec.load("initialise")({"config": config, "options": {}}, rows, seed=0)
    return model, processor, rows


def merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}
    return copy.deepcopy(new)


def stage_of(case: Case) -> Stage:
    """Return the case's stage: the last layer of the language model and all small parts train, the rest is frozen."""
    spec = get_family(case.family)
    small = [name for name, group in spec.groups.items() if group.layers is None and name not in ("vision", "heads")]
    small = [name for name in small if name != "embeddings"]  # inside the language model
    if case.config.get("fusion") == "none":  # no sensor is read
        small = [name for name in small if name not in ("sensor", "fusion")]
    if case.config.get("heads") == "pooled":  # nothing reads the tokens of the grid
        small = [name for name in small if name not in ("grid", "projector")]
    train = ["lora", *small] if "lora" in case.stage else ["language.last(1)", *small]
    losses = dict.fromkeys(spec.losses, 1.0)
    return Stage(**{"name": "check", "train": train, "losses": losses, **case.stage})


def run_case(
    case: Case, precision: Precision, built: tuple[Any, Any, Any], folder: Any, processes: int = 1
) -> Outcome:
    """Train two steps of a case.

    Args:
        case: the case.
        precision: how.
        built: `build(case)`; left as it is.
        folder: for what the Trainer writes.
        processes: that this one is one of; they share each batch.
    """
    spec, stage = get_family(case.family), stage_of(case)
    model, processor, rows = copy.deepcopy(built[0]), built[1], built[2]
    saved = set(model.state_dict())  # not the angles of positions, which are float32 in a loaded model too
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in saved and tensor.is_floating_point():
            tensor.data = tensor.data.to(precision.weights)
    settings = {"per_device_train_batch_size": BATCH // processes, "max_steps": STEPS}
    settings |= {"learning_rate": 1e-4, "adam_epsilon": 1e-12}
    settings |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "remove_unused_columns": False}
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        logging_steps=1,
        label_names=list(spec.label_names),
        **{**settings, **precision.args, **case.args},
    )
    set_seed(0)
    collator = spec.load("collator")(processor, model.config, losses=tuple(stage.losses), training=True)
    spec = spec.of_model(model)
    spec.give_objective(model, losses=tuple(stage.losses))
    trainer = (spec.load("trainer") if spec.has("trainer") else StagedTrainer)(
        model=model,
        args=arguments,
        stage=stage,
        groups=spec.groups,
        data_collator=collator,
        train_dataset=EpochRows(rows, seed=0),  # as a run does: what is drawn is a function of the row
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    types = set()
    trained = [parameter for name, parameter in model.named_parameters() if name in trainer.trained]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: types.update({p.dtype, p.grad.dtype})) for p in trained]
    trainer.train()
    for hook in hooks:
        hook.remove()
    for state in trainer.optimizer.state.values():
        types |= {value.dtype for value in state.values() if isinstance(value, torch.Tensor)}
    prefix = "check/loss_"
    lines = [line for line in trainer.state.log_history if any(key.startswith(prefix) for key in line)]
    terms = [{k.removeprefix(prefix): v for k, v in line.items() if k.startswith(prefix)} for line in lines]
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    return Outcome(terms, moved, set(trainer.trained), types)
