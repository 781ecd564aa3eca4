"""The `lerobot` side of `benchmarks/insertion_vs_lerobot.py`: trains ACT or Diffusion Policy and runs it.

Run by that script in an environment that has `lerobot` and the simulator. The policy, its losses, its optimizer, its
normalisation and its `select_action` are the package's own, as is the reading of the recording; the batches are drawn
here, from memory, and were compared with the package's own. `select_action` is called at every control step.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import av.logging
import numpy as np
import torch
from budget import Budget
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.modeling_act import ACTConfig, ACTPolicy
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConfig, DiffusionPolicy
from lerobot.policies.factory import make_pre_post_processors

from hfvla.data.samples.actions import SensorRef
from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorLoader
from hfvla.data.sources.lerobot import LeRobotOptions, SensorOptions, build_lerobot
from hfvla.worlds.insertion import run_episodes, summarise

POLICIES: dict[str, tuple[Any, Any]] = {"act": (ACTConfig, ACTPolicy), "diffusion": (DiffusionConfig, DiffusionPolicy)}
WRENCHES = ("newest", "mean")
"""What of the force and torque stands beside the state: its newest sample, or the mean of the last 0.05 s."""
MEAN_SAMPLES, CLIP_NORM = 20, 10.0
PICTURE = "observation.images."


def read_wrench(values: np.ndarray, kind: str) -> np.ndarray:
    """Return six numbers of a window [T, 6]."""
    return values[-1] if kind == "newest" else values[-MEAN_SAMPLES:].mean(axis=0)


def read_wrenches(folder: Path) -> dict[str, np.ndarray]:
    """Return the state of every step [N, 4], and each kind of wrench [N, 6]."""
    sensor = SensorOptions(name="wrench", window_s=0.2)
    rows = build_lerobot(LeRobotOptions(path=str(folder), horizon=1, sensor=sensor)).dataset
    loader = SensorLoader()
    windows = [loader.load(SensorRef(**found)).values for found in rows["sensor"]]
    arrays = {kind: np.stack([read_wrench(values, kind) for values in windows]).astype(np.float32)
              for kind in WRENCHES}  # fmt: skip
    return {**arrays, "state": np.asarray(rows["state"], np.float32)}


class Recording:
    """A recording in memory, read by `lerobot`; kept as one file beside it for the next policy.

    Args:
        folder: LeRobot v3.0 data set.
        cache: file for the arrays.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.data = LeRobotDataset("local/insertion", root=folder, video_backend="pyav")
        self.views = [name for name in self.data.meta.features if name.startswith(PICTURE)]
        if not cache.exists():
            arrays = read_wrenches(folder)
            state = arrays.pop("state")
            arrays |= self._read()
            if not np.array_equal(state, arrays["state"]):
                raise SystemExit(f"{folder}: the rows of the sensor are not those of the pictures")
            work = cache.with_suffix(".part.npz")
            np.savez(work, **arrays)
            work.rename(cache)
        with np.load(cache) as found:
            self.arrays = {name: found[name] for name in found.files}
        episode = self.arrays["episode"]
        self.first = np.searchsorted(episode, episode, side="left")
        self.last = np.searchsorted(episode, episode, side="right") - 1

    def _read(self) -> dict[str, np.ndarray]:
        items = [self.data[number] for number in range(len(self.data))]
        arrays = {
            view: np.stack([(item[view] * 255).round().to(torch.uint8).numpy() for item in items])
            for view in self.views
        }
        arrays["state"] = np.stack([item["observation.state"].numpy() for item in items])
        arrays["action"] = np.stack([item["action"].numpy() for item in items])
        arrays["episode"] = np.array([int(item["episode_index"]) for item in items])
        return arrays

    def batch(self, chosen: np.ndarray, config: Any, wrench: str | None, side: int) -> dict[str, torch.Tensor]:
        """Return what the package's data loader returns for `config`'s steps, with `wrench` beside the state."""
        seen, done = config.observation_delta_indices, np.array(config.action_delta_indices)
        at = chosen if seen is None else self._clipped(chosen, np.array(seen))
        batch = {view: pictures(self.arrays[view][at], side) for view in self.views}
        state = self.arrays["state"][at]
        if wrench:
            state = np.concatenate([state, self.arrays[wrench][at]], axis=-1)
        batch["observation.state"] = torch.from_numpy(state)
        wanted = chosen[:, None] + done
        batch["action"] = torch.from_numpy(self.arrays["action"][self._clipped(chosen, done)])
        outside = (wanted < self.first[chosen][:, None]) | (wanted > self.last[chosen][:, None])
        batch["action_is_pad"] = torch.from_numpy(outside)
        return batch

    def _clipped(self, chosen: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return np.clip(chosen[:, None] + steps, self.first[chosen][:, None], self.last[chosen][:, None])

    def check(self, folder: Path, config: Any, chosen: np.ndarray) -> None:
        """Stop unless `batch` equals what the package's own reading returns."""
        steps = {"action": [step / self.data.fps for step in config.action_delta_indices]}
        if config.observation_delta_indices is not None:
            seen = [step / self.data.fps for step in config.observation_delta_indices]
            steps |= {name: seen for name in (*self.views, "observation.state")}
        theirs = LeRobotDataset("local/insertion", root=folder, video_backend="pyav", delta_timestamps=steps)
        size = self.arrays[self.views[0]].shape[-1]
        ours = self.batch(chosen, config, None, size)
        for place, number in enumerate(chosen):
            item = theirs[int(number)]
            for name, value in ours.items():
                if not torch.allclose(item[name].float(), value[place].float(), atol=1e-6):
                    raise SystemExit(f"{folder}: {name} of step {number} differs from the package's own")

    def statistics(self, wrench: str | None) -> dict[str, Any]:
        """Return the recording's own statistics, with those of `wrench` beside the state's."""
        stats = {name: dict(values) for name, values in self.data.meta.stats.items()}
        if wrench:
            values = self.arrays[wrench]
            more = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0), "max": values.max(0)}
            stats["observation.state"] = {
                name: np.concatenate([np.asarray(stats["observation.state"][name]), more[name]]) for name in more
            }
        return stats


def pictures(found: np.ndarray, side: int) -> torch.Tensor:
    """Return [..., 3, side, side] float32 in 0..1 of [..., 3, H, W] uint8, averaged down where `side` is smaller."""
    values = torch.from_numpy(found).to(torch.float32) / 255
    if values.shape[-1] == side:
        return values
    flat = values.reshape(-1, *values.shape[-3:])
    flat = torch.nn.functional.interpolate(flat, size=(side, side), mode="area")
    return flat.reshape(*values.shape[:-2], side, side)


def build_policy(name: str, settings: dict[str, Any], recording: Recording, wrench: str | None, side: int) -> Any:
    """Return the policy and its processors, with random weights."""
    config_class, policy_class = POLICIES[name]
    state = 4 + (6 if wrench else 0)
    config = config_class(
        input_features={
            **{view: PolicyFeature(FeatureType.VISUAL, (3, side, side)) for view in recording.views},
            "observation.state": PolicyFeature(FeatureType.STATE, (state,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
        device="cpu",
        push_to_hub=False,
        pretrained_backbone_weights=None,
        **settings,
    )
    before, after = make_pre_post_processors(config, dataset_stats=recording.statistics(wrench))
    return policy_class(config), before, after


def batches(recording: Recording, size: int, drop_last_steps: int, seed: int) -> Any:
    """Yield steps of shuffled epochs, without the last steps of each episode where the policy wants that."""
    draw = np.random.default_rng(seed)
    usable = np.flatnonzero(np.arange(len(recording.last)) <= recording.last - drop_last_steps)
    size = min(size, len(usable))
    while True:
        order = draw.permutation(usable)
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def train(args: Any, policy: Any, before: Any, recording: Recording, training: dict[str, Any]) -> Budget:
    """Train until the budget is spent."""
    config, budget = policy.config, Budget(args.budget)
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    rates = [group["lr"] for group in optimizer.param_groups]
    dropped = int(training.get("drop_last_steps", 0))
    policy.train()
    for chosen in batches(recording, training["batch"], dropped, args.seed):
        batch = before(recording.batch(chosen, config, args.wrench, training["side"]))
        budget.start()
        factor = budget.factor(training["schedule"])
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        budget.stop()
        if budget.steps % 100 == 0:
            print(f"{budget.spent:.0f} s, step {budget.steps}, loss {loss.item():.4f}", flush=True)
        if budget.over:
            break
    return budget


@torch.inference_mode()
def action_error_mm(args: Any, policy: Any, before: Any, after: Any, training: dict[str, Any]) -> float:
    """Return the mean absolute error of the motions that would be executed, over steps of other demonstrations."""
    held_out = Recording(args.held_out, args.output.parent / f"{args.held_out.name}.npz")
    config, errors = policy.config, []
    first = 0 if config.observation_delta_indices is None else config.n_obs_steps - 1
    for chosen in np.array_split(np.arange(len(held_out.last)), max(1, len(held_out.last) // 16)):
        raw = held_out.batch(chosen, config, args.wrench, training["side"])
        batch = before(dict(raw))
        if isinstance(policy, DiffusionPolicy):
            batch["observation.images"] = torch.stack([batch[name] for name in config.image_features], dim=-4)
            actions = policy.diffusion.generate_actions(batch)
        else:
            actions = policy.predict_action_chunk(batch)[:, : config.n_action_steps]
        steps = slice(first, first + config.n_action_steps)
        gap = (after(actions) - raw["action"][:, steps])[..., :3].abs() * 1000
        errors.append(gap[~raw["action_is_pad"][:, steps]])
    return float(torch.cat(errors).mean())


class Driver:
    """A `lerobot` policy that drives the simulator step by step.

    Args:
        policy: with `select_action`.
        before: its preprocessor.
        after: its postprocessor.
        wrench: what stands beside the state.
        side: of the pictures.
    """

    def __init__(self, policy: Any, before: Any, after: Any, wrench: str | None, side: int) -> None:
        self.policy, self.before, self.after, self.wrench, self.side = policy, before, after, wrench, side

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        torch.manual_seed(seed)
        self.policy.reset()

    def plan(self, observation: Observation) -> np.ndarray:
        """Return one action."""
        state = np.asarray(observation.state, np.float32)
        if self.wrench:
            state = np.concatenate([state, read_wrench(observation.sensor.values, self.wrench)]).astype(np.float32)
        item = {PICTURE + name: pictures(np.asarray(picture).transpose(2, 0, 1), self.side)
                for name, picture in observation.views.items()}  # fmt: skip
        item["observation.state"] = torch.from_numpy(state)
        with torch.inference_mode():
            return self.after(self.policy.select_action(self.before(item))).numpy().astype(np.float64)


def main() -> None:
    """Train one policy, run it, and write what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--variant", required=True)
    parser.add_argument("--policy", choices=list(POLICIES), required=True)
    parser.add_argument("--config", default="{}", help="settings of the policy's config, as JSON")
    parser.add_argument("--training", default="{}", help="batch, schedule, side, drop_last_steps, as JSON")
    parser.add_argument("--wrench", choices=WRENCHES)
    parser.add_argument("--held-out", type=Path, help="another recording, for the error of action")
    parser.add_argument("--budget", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    av.logging.set_level(
        None
    )  # with PyAV 15, a decoder thread that logs and a file that is closed wait for each other
    training = {"batch": 8, "schedule": "cosine", "side": 96, **json.loads(args.training)}
    recording = Recording(args.recording, args.output.parent / f"{args.recording.name}.npz")
    policy, before, after = build_policy(
        args.policy, json.loads(args.config), recording, args.wrench, training["side"]
    )
    steps = len(recording.last)
    recording.check(args.recording, policy.config, np.array([0, 1, steps // 2, steps - 1]))
    budget = train(args, policy, before, recording, training)
    policy.eval()
    error = (
        {"held_out_action_error_mm": action_error_mm(args, policy, before, after, training)} if args.held_out else {}
    )
    driver = Driver(policy, before, after, args.wrench, training["side"])
    rollouts = run_episodes(driver, args.seeds, variant=args.variant, progress=False)
    found = {
        **summarise(rollouts),
        **error,
        "training": budget.facts(training["batch"]),
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "versions": {name: version(name) for name in ("lerobot", "torch", "torchvision", "mujoco", "metaworld")},
    }
    args.output.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
