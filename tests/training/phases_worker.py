"""A stage with three phases on a model without randomness, for one process or many.

As a script it trains, resumes from a checkpoint before, at and past a boundary, and saves what each rank ends with:
`python -m torch.distributed.run --nproc_per_node 2 phases_worker.py FOLDER [deepspeed.json | fsdp2]`.
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

sys.path.insert(0, str(Path(__file__).parent))  # as a script it has no package
import fsdp_on_cpu  # noqa: E402

FSDP2 = "fsdp2"
MEASURED = {"samples_per_second", "data_s", "peak_memory_gb", "energy_kwh", "co2_kg"}
"""Keys of a log line, behind the stage's name, that differ from run to run."""

WIDTH, BATCH, STEPS, SAVE_STEPS = 16, 4, 12, 3  # 16 rows: 4 steps an epoch
GROUPS = {
    "embed": ParameterGroup(("embed.*",)),
    "blocks": ParameterGroup(("blocks.*",), layers="blocks"),
    "head": ParameterGroup(("head.*",)),
}
STAGE = {
    "name": "tower",
    "train": ["head"],
    "losses": {"fit": 1.0, "size": {"kind": "linear", "start": 0.0, "end": 0.5, "epochs": [0.0, 2.0]}},
    "phases": [
        {"epoch": 1.0, "add": ["blocks.last(1)"], "losses": {"fit": 2.0}},
        {"step": 6, "add": ["embed"], "learning_rates": {"embed": 2e-3}},
    ],
}
JOINS = {"head": 0, "blocks.1": 4, "embed": 6}
"""Optimizer steps done when each part joins; `blocks.0` never does."""


class TowerConfig(PreTrainedConfig):
    model_type = "tower_for_tests"
    hidden_size = WIDTH

    def __init__(self, scalar: bool = True, **kwargs):
        self.scalar = scalar
        super().__init__(**kwargs)


@dataclass
class TowerOutput(ModelOutput):
    loss: torch.Tensor | None = None
    loss_terms: dict | None = None
    logits: torch.Tensor | None = None


class Block(nn.Linear):
    """What FSDP2 splits one by one."""


class Tower(PreTrainedModel):
    """Terms: "fit", the squared error, and "size", the mean square of the last hidden state."""

    config_class = TowerConfig
    _no_split_modules = ["Block", "AbsentLayer"]

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Linear(3, WIDTH)
        self.blocks = nn.ModuleList([Block(WIDTH, WIDTH) for _ in range(2)])
        self.head = nn.Linear(WIDTH, 1)
        self.head.scale = nn.Parameter(torch.ones(() if config.scalar else (1,)))  # as temperatures are
        self.post_init()

    def get_input_embeddings(self):  # Accelerate asks, and transformers has an answer for language models only
        return None

    def forward(self, features, target=None, **kwargs):
        hidden = torch.tanh(self.embed(features))
        for block in self.blocks:
            hidden = hidden + torch.tanh(block(hidden))
        found = self.head(hidden)[:, 0] * self.head.scale
        terms = {"fit": ((found - target) ** 2).mean(), "size": (hidden**2).mean()}
        return TowerOutput(loss=sum(terms.values()), loss_terms=terms, logits=found)


def build_tower(scalar: bool = True) -> Tower:
    torch.manual_seed(0)
    model = Tower(TowerConfig(scalar=scalar))
    for parameter in model.parameters():
        if parameter.numel() > 1 or parameter is model.head.bias:
            nn.init.normal_(parameter, std=0.3)
    return model


def build_rows() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(16, 3, generator=generator)
    return Dataset.from_dict({"features": features.tolist(), "target": features.sum(1).tolist()})


def collate(rows):
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def build_trainer(folder, *, processes=1, stage=None, scalar=True, **args) -> StagedTrainer:
    """Build a trainer with the same global batch for any number of processes; `args` are TrainingArguments."""
    settings = {
        **{"output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True},
        **{"per_device_train_batch_size": BATCH // processes, "max_steps": STEPS, "logging_steps": 1},
        **{"save_strategy": "steps", "save_steps": SAVE_STEPS, "remove_unused_columns": False, "seed": 5},
        **{"learning_rate": 1e-2, "adam_epsilon": 1e-4, "weight_decay": 0.1, "max_grad_norm": 1.0},
        **{"lr_scheduler_type": "cosine", "label_names": ["target"], "optim": "adamw_torch", **args},
    }
    return StagedTrainer(
        model=build_tower(scalar),
        args=TrainingArguments(**settings),
        stage=Stage(**{**STAGE, **(stage or {})}),
        groups=GROUPS,
        data_collator=collate,
        train_dataset=build_rows(),
        eval_dataset=build_rows(),
    )


def launch(folder: Path, repository: Path, deepspeed: str | None = None) -> Path:
    """Run this file as two processes on the CPU and return the folder they wrote."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(repository / "src")
    if deepspeed == FSDP2:
        environment |= fsdp_on_cpu.ENVIRONMENT
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    split = [] if deepspeed is None else [deepspeed if deepspeed == FSDP2 else str(repository / deepspeed)]
    command += [str(Path(__file__)), str(folder), *split]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def weights(trainer: StagedTrainer) -> dict[str, torch.Tensor]:
    """Return the whole weights as this rank has them."""
    gathered = nullcontext()
    if trainer.is_deepspeed_enabled:
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(trainer.model.parameters()))
    with gathered:
        whole = {n: v.full_tensor() if hasattr(v, "full_tensor") else v for n, v in trainer.model.named_parameters()}
        return {name: value.detach().float().cpu().clone() for name, value in whole.items()}


def main(folder: Path, deepspeed: str | None) -> None:
    if deepspeed == FSDP2:
        fsdp_on_cpu.allow()
        args = {"scalar": False}
    else:
        args = {"deepspeed": deepspeed} if deepspeed else {}
    runs = {"whole": None, "before": 3, "at": 6, "past": 9}
    for name, step in runs.items():
        saving = {} if step is None else {"save_strategy": "no"}
        trainer = build_trainer(folder / "checkpoints", processes=2, **args, **saving)
        trainer.train(resume_from_checkpoint=str(folder / f"checkpoints/checkpoint-{step}") if step else None)
        rank, world = trainer.args.process_index, trainer.args.world_size
        save_file(weights(trainer), folder / f"{name}_{rank}.safetensors")
        if name == "whole":
            trainer.save_model(str(folder / "saved"))
            record = {"world": world, "type": str(trainer.accelerator.distributed_type), "eval": trainer.evaluate()}
            if trainer.is_fsdp_enabled:
                record["held"] = trainer.model.blocks[0].weight.to_local().numel()
            elif deepspeed:
                record["zero"] = trainer.deepspeed.zero_optimization_stage()
                weight = trainer.model.blocks[0].weight
                record["held"] = weight.ds_tensor.numel() if hasattr(weight, "ds_tensor") else weight.numel()
            record["steps"] = [line for line in trainer.state.log_history if "loss" in line]
            (folder / f"record_{rank}.json").write_text(json.dumps(record))
        trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
