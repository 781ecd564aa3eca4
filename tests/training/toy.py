"""A model small enough to follow by hand: `value` of each sample is the loss term "level"."""

from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

GROUPS = {
    "backbone": ParameterGroup(("backbone.*",)),
    "blocks": ParameterGroup(("blocks.*",), layers="blocks"),
    "head": ParameterGroup(("head.*",)),
    "body": ParameterGroup(("backbone.*", "blocks.*")),
}


class ToyConfig(PreTrainedConfig):
    model_type = "toy_for_tests"


@dataclass
class ToyOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_terms: dict | None = None
    logits: torch.Tensor | None = None


class ToyModel(PreTrainedModel):
    """Terms: "fit" (squared error of the head), "level" (mean of `value` times a parameter that starts at 1), and
    "rare" (as "level", only of samples marked `rare`; absent when the batch has none)."""

    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.head = nn.Linear(4, 1)
        self.head.scale = nn.Parameter(torch.ones(()))
        self.post_init()

    def forward(self, features, target=None, value=None, rare=None, **kwargs):
        hidden = self.backbone(features)
        for block in self.blocks:
            hidden = hidden + torch.tanh(block(hidden))
        found = self.head(hidden)[:, 0]
        terms = {"fit": ((found - target) ** 2).mean(), "level": value.mean() * self.head.scale}
        if rare is not None and rare.any():
            terms["rare"] = value[rare].mean() * self.head.scale
        return ToyOutput(loss=sum(terms.values()), loss_terms=terms, logits=found)


class CountedToy(ToyModel):
    """Says over how many rows "rare" is a mean."""

    def term_counts(self, batch):
        return {"rare": batch["rare"].sum()}


def build_model(seed: int = 0, kind: type = ToyModel) -> ToyModel:
    torch.manual_seed(seed)
    return kind(ToyConfig())


def build_rows(count: int = 8, rare: tuple[int, ...] = ()) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    return Dataset.from_dict(
        {
            "features": torch.randn(count, 3, generator=generator).tolist(),
            "target": torch.randn(count, generator=generator).tolist(),
            "value": [float(index) for index in range(count)],
            "rare": [index in rare for index in range(count)],
        }
    )


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def build_trainer(folder, model=None, rows=None, *, trainer=StagedTrainer, **options):
    """Build a trainer; `options` are the stage's fields, `args` its TrainingArguments and `extra` the Trainer's."""
    settings = {"output_dir": str(folder), "use_cpu": True, "report_to": "none", "max_steps": 2, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 4, "remove_unused_columns": False, "save_strategy": "no"}
    settings |= {"disable_tqdm": True, "label_names": ["target"], **options.pop("args", {})}
    extra = options.pop("extra", {})
    stage = Stage(**{"name": "first", "train": ["head"], "losses": {"fit": 1.0}, **options})
    return trainer(
        model=build_model() if model is None else model,
        args=TrainingArguments(**settings),
        stage=stage,
        groups=extra.pop("groups", GROUPS),
        data_collator=extra.pop("data_collator", collate),
        train_dataset=build_rows() if rows is None else rows,
        **extra,
    )


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model, before) -> set[str]:
    """Return the names of parameters and buffers that are no longer bit-equal."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
