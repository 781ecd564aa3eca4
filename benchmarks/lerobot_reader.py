"""Random access to a LeRobot data set: samples a second of our reader against the `lerobot` package's.

    PYTHONPATH=src python benchmarks/lerobot_reader.py

Run it in an environment that has `lerobot` (0.4.4 on Python 3.11), with `pip install pydantic wrapt rich` added to it.
The data set is written by `lerobot` itself: two cameras, state, action. Every way reads the same batches of 8 random
steps (both pictures, state, a chunk of 8 actions and its mask, the task) into the same tensors: float32 pictures
[8, 3, H, W] in 0..1. The ways take turns batch by batch, in an order shuffled each round; before that, each has read
once, its decoders are open, and its tensors were compared with the others'. A round's ratio is of the two times in it.

`lerobot` reads through torchcodec, its default, where that starts, and through PyAV. Ours uses all cores unless told
otherwise, torchcodec one: the row "one thread" is ours with one, and processor time stands next to passing time.
Without `lerobot` there is neither a data set nor a peer: the benchmark says so, and how to get it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from common import arguments, cores, cpu_name, versions, write_result
from rich.console import Console
from rich.table import Table

from hfvla.data.samples.actions import FrameRef
from hfvla.data.signals.frame_loader import FrameLoader
from hfvla.data.sources.lerobot import LeRobotOptions, build_lerobot
from hfvla.data.video import VideoReader, available_backends

Read = Callable[[Sequence[int]], dict[str, Any]]
BATCH, HORIZON, FPS, GOAL = 8, 8, 30, 1.5
CAMERAS = ("observation.images.front", "observation.images.wrist")
OURS, THEIRS = "hfvla", "lerobot, torchcodec"


def write_dataset(folder: Path, episodes: int, steps: int, height: int, width: int, codec: str) -> None:
    """Record moving textures with `lerobot`."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    picture = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features: dict[str, Any] = {camera: picture for camera in CAMERAS}
    features["observation.state"] = {"dtype": "float32", "shape": (14,), "names": None}
    features["action"] = {"dtype": "float32", "shape": (14,), "names": None}
    data = LeRobotDataset.create(
        "local/set", fps=FPS, features=features, root=folder, video_backend="pyav", vcodec=codec
    )
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (height // 8 + 40, width // 8 + 80, 3)).astype(np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)
    for episode in range(episodes):
        for step in range(steps):
            pictures = {}
            for number, camera in enumerate(CAMERAS):
                top, left = (3 * step + 40 * number) % 300, (5 * step + 70 * episode) % 600
                pictures[camera] = texture[top : top + height, left : left + width]
            numbers = {name: draw.normal(size=14).astype(np.float32) for name in ("observation.state", "action")}
            data.add_frame({**pictures, **numbers, "task": f"task {episode % 3}"})
        data.save_episode()
    data.finalize()


def lerobot_way(folder: Path, backend: str) -> Read:
    """Read as the package's data loader does: item by item, then collated."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    chunk = {"action": [step / FPS for step in range(HORIZON)]}
    data = LeRobotDataset("local/set", root=folder, delta_timestamps=chunk, video_backend=backend)

    def read(indices: Sequence[int]) -> dict[str, Any]:
        items = [data[index] for index in indices]
        batch = {camera: torch.stack([item[camera] for item in items]) for camera in CAMERAS}
        batch["state"] = torch.stack([item["observation.state"] for item in items])
        batch["actions"] = torch.stack([item["action"] for item in items])
        batch["action_mask"] = ~torch.stack([item["action_is_pad"] for item in items])
        return {**batch, "task": [item["task"] for item in items]}

    return read


def our_way(folder: Path, threads: int | None) -> Read:
    """Read rows by number, and all pictures of the batch together."""
    rows = build_lerobot(LeRobotOptions(path=str(folder), horizon=HORIZON)).dataset
    loader = FrameLoader(reader=VideoReader(open_files=32, threads=threads))

    def read(indices: Sequence[int]) -> dict[str, Any]:
        found = rows[list(indices)]
        refs = [
            FrameRef(**{key: value for key, value in view.items() if key != "name"})
            for views in found["views"]
            for view in views
        ]
        pictures = loader.load(refs)
        batch: dict[str, Any] = {}
        for number, camera in enumerate(CAMERAS):
            stacked = torch.from_numpy(np.stack(pictures[number :: len(CAMERAS)]))
            batch[camera] = stacked.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
        batch["state"] = torch.tensor(found["state"])
        batch["actions"] = torch.tensor(found["actions"])
        batch["action_mask"] = torch.tensor(found["action_mask"])
        return {**batch, "task": found["task"]}

    return read


def check_equal(ways: dict[str, Read], indices: Sequence[int]) -> None:
    """Stop unless every way returns the same batch (actions where they are valid; pictures to one level of 255)."""
    reference = ways[OURS](indices)
    for name, read in ways.items():
        batch = read(indices)
        mask = batch["action_mask"]
        same = torch.equal(mask, reference["action_mask"]) and batch["task"] == reference["task"]
        same &= torch.equal(batch["state"], reference["state"])
        same &= torch.equal(batch["actions"][mask], reference["actions"][mask])
        gaps = [float((batch[camera] - reference[camera]).abs().max()) for camera in CAMERAS]
        if not same or max(gaps) > 1.01 / 255:
            raise SystemExit(f"{name} returns another batch than {OURS}: pictures differ by {255 * max(gaps):.1f}")


def measure(ways: dict[str, Read], steps: int, rounds: int, seed: int) -> dict[str, list[tuple[float, float]]]:
    """Time every way on every batch, in turns: (seconds that passed, seconds of processor time)."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    shuffle = random.Random(seed)
    for _ in range(rounds):
        indices = [shuffle.randrange(steps) for _ in range(BATCH)]
        for name in shuffle.sample(list(ways), len(ways)):
            start = time.perf_counter(), time.process_time()
            ways[name](indices)
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return taken


def summarise(taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Return samples a second of passing and of processor time, and the medians of the rounds' ratios."""
    summary: dict[str, Any] = {}
    for column, kind in enumerate(("wall", "cpu")):
        seconds = {name: np.array([pair[column] for pair in pairs]) for name, pairs in taken.items()}
        summary[kind] = {
            "samples_per_s": {name: round(BATCH / float(np.median(values)), 2) for name, values in seconds.items()},
            "speedup_of_hfvla": {
                name: {
                    "median": round(float(np.median(values / seconds[OURS])), 3),
                    "p10": round(float(np.quantile(values / seconds[OURS], 0.1)), 3),
                    "p90": round(float(np.quantile(values / seconds[OURS], 0.9)), 3),
                }
                for name, values in seconds.items()
                if name != OURS
            },
        }
    return summary


def show(results: dict[str, dict[str, Any]], left_out: dict[str, str]) -> None:
    """Print one table, with a row for every way that was left out."""
    table = Table(title=f"samples/s, two cameras, batch {BATCH} (time that passed / processor time)")
    for name in ("videos", "way", "samples/s", "hfvla is faster by"):
        table.add_column(name, justify="left" if name in ("videos", "way") else "right")
    for codec, result in results.items():
        for name, rate in result["wall"]["samples_per_s"].items():
            ratios = [result[kind]["speedup_of_hfvla"].get(name, {}).get("median") for kind in ("wall", "cpu")]
            faster = "" if ratios[0] is None else f"{ratios[0]:.2f} / {ratios[1]:.2f}"
            table.add_row(codec, name, f"{rate:.1f} / {result['cpu']['samples_per_s'][name]:.1f}", faster)
        table.add_section()
    for name, why in left_out.items():
        table.add_row("", f"{name}: left out, {why}")
    console = Console(width=120)
    console.print(table)
    for codec, result in results.items():
        if THEIRS in result["wall"]["speedup_of_hfvla"]:
            ratio = result["wall"]["speedup_of_hfvla"][THEIRS]["median"]
            console.print(
                f"{codec}: {ratio:.2f} times lerobot's default (goal {GOAL}, {'met' if ratio >= GOAL else 'not met'})"
            )


def torchcodec_problem() -> str:
    """Return why torchcodec does not start, or ""."""
    return available_backends()["torchcodec"]


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__file__, __doc__)
    parser.add_argument(
        "--codecs", nargs="+", default=["libsvtav1", "h264"], help="of the videos; the first is lerobot's own"
    )
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=90, help="of an episode")
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    before, problem = os.getloadavg()[0], torchcodec_problem()
    results: dict[str, Any] = {}
    left_out = {THEIRS: problem} if problem else {}
    if find_spec("lerobot") is None:  # nor is there anything to read
        args.codecs, left_out = [], {"lerobot": "not installed (pip install lerobot)"}
    for codec in args.codecs:
        with tempfile.TemporaryDirectory(prefix="hfvla-lerobot-") as work:
            folder = Path(work) / "set"
            write_dataset(folder, args.episodes, args.steps, *args.size, codec)
            ways = {OURS: our_way(folder, None), "hfvla, one thread": our_way(folder, 1)}
            if not problem:
                ways[THEIRS] = lerobot_way(folder, "torchcodec")
            ways["lerobot, PyAV"] = lerobot_way(folder, "pyav")
            steps = args.episodes * args.steps
            check_equal(ways, [0, steps - 1, *random.Random(args.seed).sample(range(steps), BATCH - 2)])
            results[codec] = summarise(measure(ways, steps, args.rounds, args.seed))
    show(results, left_out)
    packages = ("lerobot", "torch", "torchcodec", "torchvision", "av", "datasets", "numpy")
    report = {
        "cpu": cpu_name(),
        "cores": cores(),
        "versions": versions(*packages),
        "torchcodec": problem or "starts",
        "left_out": left_out,
        "load_average": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "dataset": {"episodes": args.episodes, "steps": args.steps, "size": args.size, "cameras": len(CAMERAS)},
        "batch": BATCH,
        "horizon": HORIZON,
        "rounds": args.rounds,
        "goal": GOAL,
        "results": results,
    }
    write_result(args.output, report)


if __name__ == "__main__":
    main()
