"""Two towers and a head on their features, which take part in `grad_cache`, for one process or many.

As a script it trains on two processes and saves the first step's gradients and what each rank ends with:
`python -m torch.distributed.run --nproc_per_node 2 pair_model.py FOLDER`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.family import ParameterGroup
from hfvla.losses.contrastive import group_infonce
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

GROUPS = {
    "towers": ParameterGroup(("image_tower.*", "text_tower.*")),
    "text": ParameterGroup(("text_tower.*",)),
    "head": ParameterGroup(("head.*", "log_temperature")),
}


class PairConfig(PreTrainedConfig):
    model_type = "pair_for_tests"


@dataclass
class PairOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_terms: dict | None = None
    features: dict | None = None


class Tower(nn.Module):
    """Linear layers on `tokens` copies of a row, so that its activations are large beside its feature."""

    def __init__(self, tokens, dropout):
        super().__init__()
        self.places = nn.Parameter(torch.randn(tokens, 6))
        self.up, self.down, self.dropout = nn.Linear(6, 8), nn.Linear(8, 5), nn.Dropout(dropout)

    def forward(self, given):
        hidden = self.dropout(self.up(given[:, None] * self.places)).relu()
        return torch.tanh(self.down(hidden)).mean(1)


class Pair(PreTrainedModel):
    """Terms: "itc", InfoNCE with groups; "odd", a head's squared output on marked samples, absent without any."""

    config_class = PairConfig

    def __init__(self, config):
        super().__init__(config)
        tokens, dropout = getattr(config, "tokens", 3), getattr(config, "dropout", 0.0)
        self.image_tower, self.text_tower = Tower(tokens, dropout), Tower(tokens, dropout)
        self.head, self.log_temperature = nn.Linear(5, 1), nn.Parameter(torch.tensor(-1.0))
        self.encoded = []  # rows of each call of the towers
        self.post_init()

    def forward(self, image, text, groups, odd, encode_only=False, features=None, **kwargs):
        if features is None:
            self.encoded.append(len(image))
            features = {"image": self.image_tower(image), "text": self.text_tower(text), "none": None}
        if encode_only:
            return PairOutput(features=features)
        first, second = features["image"], features["text"]
        terms = {"itc": group_infonce(first, second, self.log_temperature.exp(), groups)}
        if odd.any():
            terms["odd"] = self.head(first * second)[odd].square().mean()
        return PairOutput(loss=sum(terms.values()), loss_terms=terms, features=features)


class Keep(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    gradients: dict

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0:
            found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
            self.gradients = {name: gradient.detach().clone() for name, gradient in found.items()}


def build_pair(**config) -> Pair:
    torch.manual_seed(0)
    model = Pair(PairConfig(**config))
    for parameter in model.parameters():  # transformers starts with weights that hardly do anything
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.5)
    return model


def build_rows(count=32, odd=(1, 9, 10)):
    generator = torch.Generator().manual_seed(1)
    columns = {name: torch.randn(count, 6, generator=generator).tolist() for name in ("image", "text")}
    return Dataset.from_dict(
        {**columns, "groups": [i // 3 for i in range(count)], "odd": [i in odd for i in range(count)]}
    )


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def build_pairs(folder, *, model=None, rows=None, evaluated=None, collator=collate, **options):
    """Build a trainer and what keeps its gradients; `options` are the stage's fields, `args` its TrainingArguments."""
    settings = {"output_dir": str(folder), "use_cpu": True, "report_to": "none", "max_steps": 2, "logging_steps": 1}
    settings |= {"per_device_train_batch_size": 16, "remove_unused_columns": False, "save_strategy": "no"}
    settings |= {"train_sampling_strategy": "sequential", "learning_rate": 1e-2, "adam_epsilon": 1e-3}
    settings |= {"disable_tqdm": True, "label_names": ["groups"], "max_grad_norm": 0, "optim": "adamw_torch"}
    settings |= {"lr_scheduler_type": "constant", "weight_decay": 0.0, **options.pop("args", {})}
    stage = {"name": "pair", "train": ["towers", "head"], "losses": {"itc": 1.0, "odd": 0.5}, **options}
    keep = Keep()
    trainer = StagedTrainer(
        model=build_pair() if model is None else model,
        args=TrainingArguments(**settings),
        stage=Stage(**stage),
        groups=GROUPS,
        data_collator=collator,
        train_dataset=build_rows() if rows is None else rows,
        eval_dataset=evaluated,
        callbacks=[keep],
    )
    return trainer, keep


def train_distributed(folder, batch, grad_cache, odd_weight):
    """Train two steps of two batches of 8 rows over all processes; of two, only the first ever has an odd sample."""
    args = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 2, "max_steps": 2}
    args |= {"ddp_find_unused_parameters": True}
    trainer, keep = build_pairs(
        folder,
        args=args,
        rows=build_rows(32, odd=(1, 9, 17, 25)),
        losses={"itc": 1.0, "odd": odd_weight},
        grad_cache=grad_cache,
    )
    trainer.train()
    return trainer, keep


def main(folder: Path) -> None:
    trainer, keep = train_distributed(folder / "run", batch=4, grad_cache=3, odd_weight=0.5)
    rank = trainer.args.process_index
    weights = {name: value.detach().contiguous() for name, value in trainer.model.named_parameters()}
    save_file(weights, folder / f"weights-{rank}.safetensors", metadata={"world": str(trainer.args.world_size)})
    save_file(
        {name: value.contiguous() for name, value in keep.gradients.items()}, folder / f"grads-{rank}.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
