"""A model whose two loss terms pull a shared layer apart, for one process or many.

As a script it trains with one way of balancing and saves what each rank ends with:
`python -m torch.distributed.run --nproc_per_node 2 two_terms.py FOLDER [deepspeed.json]`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

GROUPS = {
    "shared": ParameterGroup(("shared.*",)),
    "heads": ParameterGroup(("up_head.*", "down_head.*")),
    "spare": ParameterGroup(("spare.*",)),
}
REPORT = {"every": 2, "groups": ["shared"]}


class PullConfig(PreTrainedConfig):
    model_type = "pull_for_tests"


@dataclass
class PullOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_terms: dict | None = None


class Pull(PreTrainedModel):
    """Terms: "up" wants the target, "down" minus three times the target, each through a head of its own; "odd" is the
    size of the hidden state of samples marked `odd`, and absent where a batch has none. `spare` is used by nothing."""

    config_class = PullConfig

    def __init__(self, config):
        super().__init__(config)
        self.shared, self.dropout = nn.Linear(3, 4), nn.Dropout(getattr(config, "dropout", 0.0))
        self.up_head, self.down_head, self.spare = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(2, 2)
        self.post_init()

    def forward(self, features, target, odd, **kwargs):
        hidden = self.dropout(torch.tanh(self.shared(features)))
        terms = {
            "up": ((self.up_head(hidden)[:, 0] - target) ** 2).mean(),
            "down": ((self.down_head(hidden)[:, 0] + 3 * target) ** 2).mean(),
        }
        if odd.any():
            terms["odd"] = hidden[odd].square().mean()
        return PullOutput(loss=sum(terms.values()), loss_terms=terms)


def build_pull(dropout: float = 0.0) -> Pull:
    torch.manual_seed(0)
    model = Pull(PullConfig(dropout=dropout))
    with torch.no_grad():  # heads that agree about the hidden state, so that the terms do not
        model.down_head.weight.copy_(model.up_head.weight)
    return model


def build_rows(count: int = 32, odd: tuple[int, ...] = ()) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    columns = {
        "features": torch.randn(count, 3, generator=generator).tolist(),
        "target": (2 + torch.randn(count, generator=generator)).tolist(),
        "odd": [index in odd for index in range(count)],
    }
    return Dataset.from_dict(columns)


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def build_puller(folder, *, model=None, rows=None, evaluated=None, callbacks=None, **options) -> StagedTrainer:
    """Build a trainer; `options` are the stage's fields, and `args` its TrainingArguments."""
    settings = {"output_dir": str(folder), "use_cpu": True, "report_to": "none", "max_steps": 6, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 8, "remove_unused_columns": False, "save_strategy": "no"}
    settings |= {"learning_rate": 1e-2, "adam_epsilon": 1e-4, "disable_tqdm": True, "label_names": ["target"]}
    settings |= {"ddp_find_unused_parameters": True, **options.pop("args", {})}
    stage = {"name": "pull", "train": ["shared", "heads"], "losses": {"up": 1.0, "down": 0.5}, **options}
    return StagedTrainer(
        model=build_pull() if model is None else model,
        args=TrainingArguments(**settings),
        stage=Stage(**stage),
        groups=GROUPS,
        data_collator=collate,
        train_dataset=build_rows() if rows is None else rows,
        eval_dataset=evaluated,
        callbacks=callbacks,
    )


DISTRIBUTED = {
    "pcgrad": {"loss_weighting": "pcgrad", "gradient_report": REPORT},
    "gradnorm": {"loss_weighting": "gradnorm"},
    "uncertainty": {"loss_weighting": "uncertainty"},
    "report": {"loss_weighting": "uncertainty", "gradient_report": REPORT},
    "absent": {"loss_weighting": "pcgrad", "losses": {"up": 1.0, "down": 0.5, "odd": 1.0}, "gradient_report": REPORT},
}
"""Stages that one process with batches of 8 and two with batches of 4 train; in "absent", one rank lacks a term."""


def train_distributed(folder: Path, name: str, batch: int, **args) -> StagedTrainer:
    odd = tuple(range(0, 32, 8)) if name == "absent" else ()  # the first of each 8: only rank 0 sees them
    args |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 2, "max_steps": 4}
    args |= {"train_sampling_strategy": "sequential", "optim": "adamw_torch"}
    trainer = build_puller(folder / name, rows=build_rows(32, odd), args=args, **DISTRIBUTED[name])
    trainer.train()
    return trainer


def save(trainer: StagedTrainer, path: Path) -> None:
    found = {key: value.detach().contiguous() for key, value in trainer.model.named_parameters()}
    state = {f"balancer.{key}": value.detach().contiguous() for key, value in trainer.balancer.state().items()}
    facts = {"world": str(trainer.args.world_size), "history": json.dumps(trainer.state.log_history)}
    save_file({**found, **state}, path, metadata=facts)


def main(folder: Path, deepspeed: str | None) -> None:
    refused = {}
    for name in DISTRIBUTED:
        if deepspeed and name != "uncertainty":
            try:
                train_distributed(folder, name, batch=4, deepspeed=deepspeed)
            except RecipeError as error:
                refused[name] = str(error)
            continue
        trainer = train_distributed(folder, name, batch=4, deepspeed=deepspeed)
        save(trainer, folder / f"{name}-{trainer.args.process_index}.safetensors")
    (folder / "refused.json").write_text(json.dumps(refused))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
