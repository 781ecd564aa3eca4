"""Peg insertion from scratch on a CPU, closed loop: `sensor_vla` against ACT and Diffusion Policy of `lerobot`.

    PYTHONPATH=src python benchmarks/insertion_vs_lerobot.py --lerobot-python ENVIRONMENT/bin/python

The other environment has `lerobot` (0.4.4 on Python 3.11) and, for the simulator, `metaworld mujoco packaging`.
Without one, only our side runs. Each policy trains and drives in a process of its own, on one thread.

Same for all: one recording a variant (200 demonstrations, LeRobot v3.0, the same folder), 180 processor seconds of
training (forward, backward, clipping, optimizer; reading, normalising and evaluating are not counted, nor is the time
that other work on the machine takes), the same 50 evaluation seeds, on which nothing was chosen, and as many actions
executed of each chunk. All start from random weights. A short warm-up and, but for one setting tried, a cosine are
laid to the budget on both sides.

Ours: `recipes/sensor_vla/tiny.yaml`, `tiny_diffusion.yaml` and `tiny_flow.yaml` with one stage in place of three.
Theirs: the settings in `TRIED`, each trained on the plain task and scored on 20 validation seeds; the best (then the
smallest error of action on other demonstrations) makes the table. Their policies read pictures and state; on
`hidden_offset` also with the force and torque beside the state: the newest sample, or the mean of the last 0.05 s.

On a busy machine a step takes more processor time too (shared caches and cores): compare the samples seen, which the
table names, and run it where little else runs.

Results are saved after each policy; `--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from hfvla.worlds.insertion import InsertionOptions, evaluation_seeds
from hfvla.worlds.insertion.source import ensure_recording

HERE = Path(__file__).resolve().parent
SIDES = HERE / "insertion_sides"
RESULTS = HERE / "results" / "insertion_vs_lerobot.json"
RECIPES = {"regression": "tiny.yaml", "diffusion": "tiny_diffusion.yaml", "flow": "tiny_flow.yaml"}
ACTION_STEPS = {"plain": 8, "hidden_offset": 4}
"""Actions executed of a chunk."""
RECORDING_SEED, FIRST_SEED, FIRST_VALIDATION = 7, 5000, 1000
FORMS = {"plain": (None,), "hidden_offset": (None, "newest", "mean")}
INPUTS = {None: "pictures, state", "newest": "+ newest force", "mean": "+ mean force of 0.05 s"}

_ACT = {"chunk_size": 8, "n_heads": 4, "optimizer_lr": 1e-4, "optimizer_lr_backbone": 1e-4}
_SMALL = {"dim_model": 128, "dim_feedforward": 512, "n_encoder_layers": 2, "n_vae_encoder_layers": 2}
_DIFFUSION = {"horizon": 16, "noise_scheduler_type": "DDIM", "num_inference_steps": 10, "down_dims": [64, 128, 256]}
_MASKED = {"do_mask_loss_for_padding": True, "crop_is_random": False}
TRIED: dict[str, dict[str, dict[str, Any]]] = {
    "act": {
        "48 pixels, 128 wide": {"config": {**_ACT, **_SMALL}, "training": {"batch": 8, "side": 48}},
        "48 pixels, 128 wide, no VAE, rate 3e-4": {
            "config": {**_ACT, **_SMALL, "use_vae": False, "optimizer_lr": 3e-4, "optimizer_lr_backbone": 3e-4},
            "training": {"batch": 8, "side": 48},
        },
        "96 pixels, 256 wide, constant rate": {
            "config": {**_ACT, "dim_model": 256, "dim_feedforward": 1024},
            "training": {"batch": 8, "side": 96, "schedule": "constant"},
        },
    },
    "diffusion": {
        "48 pixels, one observation, rate 3e-4": {
            "config": {**_DIFFUSION, **_MASKED, "n_obs_steps": 1, "optimizer_lr": 3e-4},
            "training": {"batch": 8, "side": 48},
        },
        "48 pixels, crop 42, two observations, rate 3e-4": {
            "config": {**_DIFFUSION, "do_mask_loss_for_padding": True, "crop_shape": [42, 42], "optimizer_lr": 3e-4},
            "training": {"batch": 8, "side": 48},
        },
        "96 pixels, crop 84, as published but narrower": {
            "config": {**_DIFFUSION, "crop_shape": [84, 84]},
            "training": {"batch": 8, "side": 96, "drop_last_steps": 7},
        },
    },
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot-python", help="interpreter of an environment with lerobot; default: this one's")
    parser.add_argument("--budget", type=float, default=180.0, help="processor seconds of training")
    parser.add_argument("--episodes", type=int, default=200, help="of a recording")
    parser.add_argument("--evaluations", type=int, default=50, help="seeds of the closed loop")
    parser.add_argument("--validations", type=int, default=20, help="seeds that their settings are chosen on")
    parser.add_argument("--variants", nargs="+", default=list(ACTION_STEPS), choices=list(ACTION_STEPS))
    parser.add_argument("--experts", nargs="+", default=list(RECIPES), choices=list(RECIPES), help="of our side")
    parser.add_argument("--no-search", action="store_true", help="take the first of their settings")
    parser.add_argument("--work", type=Path, help="folder for recordings and logs, kept; default: a temporary one")
    parser.add_argument("--resume", action="store_true", help="keep what the output holds already")
    parser.add_argument("--quick", action="store_true", help="seconds: two demonstrations, two seeds, one variant")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.budget, args.episodes, args.evaluations, args.no_search = 1.5, 2, 2, True
        args.variants, args.experts = ["hidden_offset"], ["regression"]
    if args.lerobot_python is None and find_spec("lerobot") is not None:
        args.lerobot_python = sys.executable
    return args


class Comparison:
    """Runs every policy in a process of its own and keeps the report.

    Args:
        args: of the command line.
        work: folder for recordings, what they were read into, and logs.
    """

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work = args, work
        self.settings = {
            "budget_processor_s": args.budget,
            "episodes": args.episodes,
            "recording_seed": RECORDING_SEED,
            "evaluation_seeds": [FIRST_SEED, args.evaluations],
            "validation_seeds": [FIRST_VALIDATION, args.validations],
            "action_steps": ACTION_STEPS,
        }
        self.report: dict[str, Any] = {
            "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": 1},
            "load_average": [],
            "settings": self.settings,
            "tried": {},
            "chosen": {},
            "rows": [],
        }
        if args.resume and args.output.exists():
            found = json.loads(args.output.read_text())
            if found["settings"] != self.settings:
                raise SystemExit(f"{args.output} was made with other settings: {found['settings']}")
            self.report |= {name: found[name] for name in ("load_average", "tried", "chosen", "rows")}

    def recording(self, variant: str, split: str = "train", episodes: int | None = None) -> Path:
        """Return the folder of a recording, made now unless it is there."""
        options = InsertionOptions(variant=variant, episodes=episodes or self.args.episodes, split=split,
                                   seed=RECORDING_SEED, folder=str(self.work))  # fmt: skip
        return ensure_recording(options)

    def run(self, python: str, script: str, name: str, arguments: list[str]) -> dict[str, Any]:
        """Run one side's script; its log stands in the work folder."""
        output, log = self.work / "result.json", self.work / f"{name}.log"
        output.unlink(missing_ok=True)
        command = [python, str(SIDES / script), *arguments, "--output", str(output)]
        source = str(HERE.parent / "src")
        # OpenMP's and torch's threads are one; a library that brings others is held to it too.
        threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
        environment = {**os.environ, **threads, "PYTHONPATH": source, "CUDA_VISIBLE_DEVICES": ""}
        with log.open("w") as file:
            code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
        if code:
            raise SystemExit(f"{name} failed with {code}; the end of {log}:\n{log.read_text()[-3000:]}")
        self.report["load_average"].append(round(os.getloadavg()[0], 1))
        return json.loads(output.read_text())

    def common(self, variant: str, first: int, count: int) -> list[str]:
        """Return the arguments that both sides take."""
        seeds = [str(seed) for seed in evaluation_seeds(count, first)]
        return ["--variant", variant, "--budget", str(self.args.budget), "--seeds", *seeds]

    def run_ours(self, variant: str, expert: str) -> None:
        """Train and run `sensor_vla` with one expert."""
        if self._has(variant, "hfvla", expert, None):
            return
        self.recording(variant)
        found = self.run(
            sys.executable, "hfvla_side.py", f"{variant}-{expert}",
            [
                "--recipe", str(HERE.parent / "recipes" / "sensor_vla" / RECIPES[expert]),
                "--recordings", str(self.work),
                "--episodes", str(self.args.episodes),
                "--action-steps", str(ACTION_STEPS[variant]),
                *self.common(variant, FIRST_SEED, self.args.evaluations),
            ],
        )  # fmt: skip
        self._add({"variant": variant, "side": "hfvla", "policy": expert, "wrench": None,
                   "input": "pictures, state, force series", **found})  # fmt: skip

    def run_theirs(self, variant: str, policy: str, wrench: str | None) -> None:
        """Train and run a policy of `lerobot` with the settings chosen for it."""
        if self._has(variant, "lerobot", policy, wrench):
            return
        chosen = self.choose(policy)
        found = self.theirs(variant, policy, chosen, wrench, FIRST_SEED, self.args.evaluations)
        row = {"variant": variant, "side": "lerobot", "policy": policy, "wrench": wrench, "input": INPUTS[wrench]}
        self._add({**row, "settings": chosen, **found})

    def theirs(
        self, variant: str, policy: str, name: str, wrench: str | None, first: int, count: int, held_out: bool = False
    ) -> dict[str, Any]:
        """Train and run a policy of `lerobot` with settings by name."""
        settings = TRIED[policy][name]
        arguments = [
            "--recording", str(self.recording(variant)),
            "--policy", policy,
            "--config", json.dumps({**settings["config"], "n_action_steps": ACTION_STEPS[variant]}),
            "--training", json.dumps(settings["training"]),
            *(["--wrench", wrench] if wrench else []),
            *(["--held-out", str(self.recording(variant, "test", 10))] if held_out else []),
            *self.common(variant, first, count),
        ]  # fmt: skip
        return self.run(self.args.lerobot_python, "lerobot_side.py", f"{variant}-{policy}-{wrench}", arguments)

    def choose(self, policy: str) -> str:
        """Return the name of the settings that did best on the validation seeds of the plain task."""
        if self.args.no_search:
            return next(iter(TRIED[policy]))
        tried = self.report["tried"].setdefault(policy, {})
        for name in TRIED[policy]:
            if name not in tried:
                found = self.theirs("plain", policy, name, None, FIRST_VALIDATION, self.args.validations, True)
                tried[name] = {**TRIED[policy][name], **found}
                self.save()
        best = max(tried, key=lambda name: (tried[name]["successes"], -tried[name]["held_out_action_error_mm"]))
        self.report["chosen"][policy] = best
        return best

    def _has(self, variant: str, side: str, policy: str, wrench: str | None) -> bool:
        names = ("variant", "side", "policy", "wrench")
        return any(
            tuple(row[name] for name in names) == (variant, side, policy, wrench) for row in self.report["rows"]
        )

    def _add(self, row: dict[str, Any]) -> None:
        self.report["rows"].append(row)
        self.save()

    def save(self) -> None:
        """Write the report."""
        self.args.output.parent.mkdir(parents=True, exist_ok=True)
        self.args.output.write_text(json.dumps(self.report, indent=2) + "\n")

    def execute(self) -> None:
        """Run all; what answers most comes first."""
        args = self.args
        for variant in args.variants:
            self.run_ours(variant, args.experts[0])
        if args.lerobot_python:
            for policy in TRIED:
                for variant in args.variants:
                    for wrench in FORMS[variant][-1:] if args.quick else FORMS[variant]:
                        self.run_theirs(variant, policy, wrench)
        for expert in args.experts[1:]:
            for variant in args.variants:
                self.run_ours(variant, expert)


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    settings = report["settings"]
    if report["tried"]:
        count = settings["validation_seeds"][1]
        table = Table(title=f"their settings, plain, {count} validation seeds")
        for name in ("policy", "settings", "successes", "error of action", "samples"):
            table.add_column(name, justify="left" if name in ("policy", "settings") else "right")
        for policy, tried in report["tried"].items():
            for name, one in tried.items():
                error = f"{one['held_out_action_error_mm']:.2f} mm"
                table.add_row(policy, name, str(one["successes"]), error, str(one["training"]["samples"]))
        Console(width=119).print(table)
    budget, count = settings["budget_processor_s"], settings["evaluation_seeds"][1]
    table = Table(title=f"insertion, {budget:.0f} processor seconds of training, {count} episodes")
    headings = ("variant", "policy", "input", "in", "95 % interval", "peak force (95 %)", "steps", "samples")
    for name in headings:
        table.add_column(name, justify="left" if name in headings[:3] else "right")
    for row in sorted(report["rows"], key=lambda row: list(ACTION_STEPS).index(row["variant"])):
        low, high = row["interval"]
        peak, steps = row["peak_force_n"], row["success_steps"]
        table.add_row(
            row["variant"], f"{row['side']} {row['policy']}", row["input"], f"{row['successes']}/{row['episodes']}",
            f"{low:.2f} to {high:.2f}", f"{peak['median']:.0f} ({peak['p95']:.0f}) N",
            "" if steps is None else f"{steps:.0f}", str(row["training"]["samples"]),
        )  # fmt: skip
    Console(width=119).print(table)


def cpu_name() -> str:
    """Return the processor's model name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run the comparison, print and write."""
    args = parse_arguments()
    with TemporaryDirectory(prefix="hfvla-insertion-") as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        comparison = Comparison(args, work)
        comparison.execute()
        comparison.save()
    show(comparison.report)


if __name__ == "__main__":
    main()
