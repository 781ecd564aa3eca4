"""Load a trained sensor VLA, give it what a robot sees, feels and is told, and print its next actions.

The backbone runs once on the pictures and words; as the hand moves on, only state and sensor are read again.

Run:  hfvla train recipes/sensor_vla/smoke.yaml
      python examples/sensor_vla.py --checkpoint outputs/sensor_vla_smoke/final
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModel, AutoProcessor

import hfvla  # noqa: F401  makes the Auto classes know hfvla's families
from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.worlds.reaching import draw_episode

SENSOR_HZ, FPS, STEPS = 400.0, 20.0, 12


def drawn_observations(seed: int) -> tuple[list[Observation], np.ndarray]:
    """Return what a robot knows at each step of a drawn episode, and the actions [STEPS, 4] that were taken."""
    task, drawn = draw_episode(seed, index=0, image_size=32, steps=STEPS)
    steps, found, felt = list(drawn), [], []
    for number, step in enumerate(steps):
        felt = [*felt, step.sensor][-4:]  # the last 0.2 s; never a sample from later on
        values, time_s = np.concatenate(felt), number / FPS
        times_s = time_s - np.arange(len(values) - 1, -1, -1) / SENSOR_HZ
        found.append(Observation(step.views, step.state, task, time_s, SensorSamples(times_s, values)))
    return found, np.stack([step.action for step in steps])


def main() -> None:
    """Predict for one moment, then for the following ones on the same features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="outputs/sensor_vla_smoke/final", help="folder, or a hub id")
    parser.add_argument("--seed", type=int, default=11, help="of the drawn episode")
    args = parser.parse_args()

    model = AutoModel.from_pretrained(args.checkpoint)
    processor = AutoProcessor.from_pretrained(args.checkpoint)
    observations, done = drawn_observations(args.seed)
    now = observations[0]

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(0)  # of flow and diffusion experts

    chunk = model.predict_actions(processor, [now], generator=noise())[0]  # [H, A] in the robot's units
    names = processor.action["names"] or [str(number) for number in range(processor.action_dim)]
    print(f"'{now.task}': {processor.horizon} actions, {processor.fps:g} a second")
    for step, action in enumerate(chunk):
        told = "  ".join(f"{name} {value:+.4f}" for name, value in zip(names, action, strict=True))
        print(f"  step {step}: {told}")

    deaf = model.predict_actions(processor, [replace(now, sensor=None)], generator=noise())[0]
    print(f"without the sensor the chunk differs by up to {np.abs(deaf - chunk).max():.5f}")

    features = model.encode_observations(processor, [now])  # the backbone, once
    for number in range(0, STEPS, 4):
        actions = model.predict_actions(processor, [observations[number]], features=features, generator=noise())[0]
        error = np.abs(actions[0] - done[number]).max()
        print(
            f"at {observations[number].time_s:.2f} s, on the first moment's features: first action off by {error:.4f}"
        )


if __name__ == "__main__":
    main()
