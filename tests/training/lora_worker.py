"""Two stages with LoRA, the second going on with the first one's adapters, on one process or many; a script.

`python -m torch.distributed.run --nproc_per_node 2 lora_worker.py FOLDER deepspeed.json` trains, saves and audits.
"""

import json
import os
import sys
from pathlib import Path

import torch
from phases_worker import BATCH, GROUPS, Tower, TowerConfig, build_rows, build_tower, collate
from transformers import TrainingArguments

from hfvla.recipe import Stage
from hfvla.training.checkpoint.handover import hand_over, load_state
from hfvla.training.checkpoint.lora_handover import earlier_adapters, place_adapters
from hfvla.training.run.saving import save_and_audit
from hfvla.training.trainer.trainer import StagedTrainer

WORLD, RANK = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
STAGES = {"one": {}, "two": {"lora": "continue"}}
SETTINGS = {
    **{"use_cpu": True, "report_to": "none", "disable_tqdm": True, "remove_unused_columns": False, "seed": 1},
    **{"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "label_names": ["target"]},
    **{"learning_rate": 1e-2, "lr_scheduler_type": "constant", "optim": "adamw_torch", "adam_epsilon": 1e-4},
}


def take_over(folder: Path, stage: Stage) -> Tower:
    """Build a stage's model: a fresh one, or with the weights and adapters of the stage before."""
    if stage.handover.lora == "merge":
        model = build_tower()
        torch.manual_seed(3)  # of the new adapter
        return model
    model, state = Tower(TowerConfig()), load_state(folder / "one")
    saved = earlier_adapters(stage, folder / "one", state)
    place_adapters(model, GROUPS, stage, saved, hand_over(model, state, stage.handover, GROUPS, "one"))
    return model


def main(folder: Path, deepspeed: str | None) -> None:
    """Train, save and audit both stages, and write what the audits found."""
    reports = {"world": WORLD}
    for name, handover in STAGES.items():
        lora = {"target": "blocks", "r": 2, "alpha": 4, "dora": False}
        stage = Stage(name=name, train=["lora", "head"], losses={"fit": 1.0}, lora=lora, handover=handover)
        own = {"output_dir": str(folder / f"{name}_checkpoints"), "per_device_train_batch_size": BATCH // WORLD}
        trainer = StagedTrainer(
            take_over(folder, stage),
            TrainingArguments(**SETTINGS, **own, deepspeed=deepspeed),
            stage=stage,
            groups=GROUPS,
            data_collator=collate,
            train_dataset=build_rows(),
        )
        trainer.train()
        split = [p for n, p in trainer.model.named_parameters() if hasattr(p, "ds_shape") and "lora_A" in n]
        reports[name] = {**save_and_audit(trainer, folder / name), "partitioned": len(split)}
        trainer.accelerator.wait_for_everyone()
    if RANK == 0:
        (folder / "report.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
