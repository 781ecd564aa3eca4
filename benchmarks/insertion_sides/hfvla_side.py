"""Our side of `benchmarks/insertion_vs_lerobot.py`: trains a stage of a recipe within a budget and runs the policy.

Run by that script. One stage, which trains everything, takes the whole budget in place of the recipe's stages; all
else is the recipe's and the library's own: data, collator, trainer, checkpoint and closed loop.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from accelerate import PartialState
from budget import Budget
from transformers import TrainerCallback

from hfvla.models.sensor_vla.evaluation.closed_loop import ChunkedPolicy
from hfvla.recipe import load_recipe
from hfvla.registry import get_family, load_checkpoint
from hfvla.training.run.stage_run import StageRun
from hfvla.training.stage.data import RecipeData
from hfvla.worlds.insertion import run_episodes, summarise

STAGE = """{name: see, train: [vision, projector, language, state, sensor, fusion, expert], losses: {action: 1.0},
            args: {num_train_epochs: 10000}}"""


class BudgetCallback(TrainerCallback):
    """Counts the steps' processor time, lays the learning rate to it, and stops where it is spent.

    Args:
        budget: what may be spent.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._rates: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Set the rates; batches were read before."""
        groups = optimizer.param_groups
        self._rates = self._rates or [group["lr"] for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * self.budget.factor("cosine")
        self.budget.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count."""
        self.budget.stop()
        control.should_training_stop = self.budget.over


class BudgetedStage(StageRun):
    """A stage that ends with its budget.

    Args:
        budget: of the stage.
        args: as for `StageRun`.
    """

    def __init__(self, budget: Budget, *args: Any) -> None:
        super().__init__(*args)
        self._budget = budget

    def _trainer(self, *args: Any) -> Any:
        trainer = super()._trainer(*args)
        trainer.add_callback(BudgetCallback(self._budget))
        return trainer


def main() -> None:
    """Train one policy, run it, and write what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--recordings", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--variant", required=True)
    parser.add_argument("--episodes", type=int, required=True, help="of the recording")
    parser.add_argument("--action-steps", type=int, required=True)
    parser.add_argument("--budget", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = "data.train.insertion"
    recipe = load_recipe(
        args.recipe,
        [
            f"{source}.variant={args.variant}",
            f"{source}.episodes={args.episodes}",
            f"{source}.folder={args.recordings}",
            "data.validation.fraction=0",
            "args.lr_scheduler_type=constant",
            "args.warmup_steps=0",
            "args.save_strategy=no",
            "args.logging_steps=100",
            "args.disable_tqdm=true",
            "args.use_cpu=true",
            f"stages=[{STAGE}]",
        ],
    )
    spec, stage = get_family(recipe.family), recipe.stages[0]
    budget = Budget(args.budget)
    with tempfile.TemporaryDirectory(prefix="hfvla-insertion-") as work:
        run = BudgetedStage(budget, recipe, spec, stage, Path(work) / stage.name, PartialState(cpu=True))
        summary = run.train(RecipeData(spec, recipe, [stage]), {})
        _, model, processor = load_checkpoint(run.folder)
        policy = ChunkedPolicy(model, processor, action_steps=args.action_steps)
        rollouts = run_episodes(policy, args.seeds, variant=args.variant, views=tuple(processor.views), progress=False)
    found = {
        **summarise(rollouts),
        "training": {**budget.facts(summary["batch_size"]), "rows": summary["rows"]["train"]},
        "parameters": summary["parameters"],
        "versions": {name: version(name) for name in ("torch", "transformers", "mujoco", "metaworld")},
    }
    args.output.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
