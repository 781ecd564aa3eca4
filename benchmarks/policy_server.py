"""What a policy on another machine costs beside the policy itself: `python benchmarks/policy_server.py`.

A robot and its policy server run in two processes of this machine, both held on one core, joined by a websocket over
the loopback interface. The policy answers at once with a chunk of 8 actions, so the whole round trip is overhead:
encoding, copying, decoding, twice. Two views of 640x360, a state of 12 numbers, and a sensor window of 65 samples of
1,026 channels or none. The ways take turns call by call. Pictures are drawn shapes with noise (standard deviation 4,
as of a camera in a lit room): a JPEG's size and time depend on what it shows. A network adds its own time for the
bytes named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.serve.policy import PolicyFacts, PolicyServer, RemotePolicy
from hfvla.serve.policy.arrays import pack
from hfvla.serve.policy.messages import observation_to_message

RESULTS = Path(__file__).parent / "results" / "policy_server.json"
FACTS = PolicyFacts(horizon=8, action_dim=7, window_s=0.1, fps=10.0)
WAYS: dict[str, int | None] = {"raw": None, "JPEG 95": 95, "JPEG 80": 80}


class Instant:
    """A policy that does not think; it looks at every picture's corner, so that none is left unread."""

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self.chunk = np.random.default_rng(seed).normal(size=(FACTS.horizon, FACTS.action_dim))

    def plan(self, observation: Observation) -> np.ndarray:
        """Return the same chunk."""
        return self.chunk + 0.0 * sum(int(picture[-1, -1, 0]) for picture in observation.views.values())


def serve() -> None:
    """Serve until the other process closes this one's input; say the port first."""
    with PolicyServer(Instant(), FACTS, port=0) as server:
        Console().print(server.url, highlight=False)
        sys.stdin.read()


def draw_picture(draw: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return [H, W, 3] uint8: 40 boxes on a slope of light, with noise."""
    picture = np.broadcast_to(np.linspace(60, 180, width)[None, :, None], (height, width, 3)).copy()
    for _ in range(40):
        top, left = int(draw.integers(height)), int(draw.integers(width))
        picture[top : top + height // 6, left : left + width // 8] = draw.integers(0, 256, 3)
    return (picture + draw.normal(0.0, 4.0, picture.shape)).clip(0, 255).astype(np.uint8)


def build_observations(count: int, height: int, width: int, sensor: bool) -> list[Observation]:
    """Return observations with two views each."""
    draw, found = np.random.default_rng(0), []
    for number in range(count):
        times = number / 10 - np.arange(64, -1, -1) / 650
        samples = SensorSamples(times, draw.normal(size=(65, 1026)).astype(np.float32)) if sensor else None
        views = {name: draw_picture(draw, height, width) for name in ("front", "wrist")}
        state = draw.normal(size=12).astype(np.float32)
        found.append(Observation(views, state, "Perform peg insertion task", number / 10, samples))
    return found


def measure(remote: RemotePolicy, sets: dict[str, list[Observation]], calls: int, warm_up: int) -> dict[str, Any]:
    """Call in turns with all sets of observations in all ways; return times by set and way."""
    kinds = [(name, way) for name in sets for way in WAYS]
    seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    thinking: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
    for call in range(warm_up + calls):
        for name, way in kinds:
            remote.jpeg_quality = WAYS[way]
            start = time.perf_counter()
            actions = remote.plan(sets[name][call % len(sets[name])])
            taken = time.perf_counter() - start
            assert actions.shape == (FACTS.horizon, FACTS.action_dim)
            if call >= warm_up:
                seconds[name, way].append(taken)
                thinking[name, way].append(remote.server_s)
    found: dict[str, Any] = {name: {} for name in sets}
    for name, way in kinds:
        messages = [{"type": "plan", "observation": observation_to_message(one, WAYS[way])} for one in sets[name]]
        p50, p95 = np.percentile(seconds[name, way], [50, 95]) * 1000
        found[name][way] = {
            "calls": len(seconds[name, way]),
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "bytes": int(np.mean([len(pack(message)) for message in messages])),
            "policy_p50_ms": float(np.median(thinking[name, way]) * 1000),
        }
    return found


def cpu_name() -> str:
    """Return the processor's model name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    size = result["settings"]
    table = Table(title=f"round trip to a policy that answers at once, 2 views of {size['width']}x{size['height']}")
    for heading in ("", "sensor", "p50", "p95", "message"):
        table.add_column(heading, justify="right" if heading in {"p50", "p95", "message"} else "left")
    for sensor, ways in result["sensor"].items():
        for way, one in ways.items():
            table.add_row(
                way, sensor, f"{one['p50_ms']:.2f} ms", f"{one['p95_ms']:.2f} ms", f"{one['bytes'] / 1000:.0f} kB"
            )
    Console(width=110).print(table)
    Console().print(f"a ping: {result['ping_p50_ms']:.2f} ms (p50); one core for both processes: {result['one_core']}")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--quick", action="store_true", help="five calls with small pictures")
    parser.add_argument("--serve", action="store_true", help="be the server; used by this script itself")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.serve:
        return serve()
    if args.quick:
        args.calls, args.height, args.width = 5, 36, 64
    before = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    if before:
        os.sched_setaffinity(0, {min(before)})  # the server inherits it
    command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
    result: dict[str, Any] = {
        "hardware": {"cpu": cpu_name(), "cores": len(before) if before else os.cpu_count()},
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "one_core": before is not None,
        "versions": {name: version(name) for name in ("websockets", "msgpack", "numpy", "pillow")},
        "settings": {"calls": args.calls, "height": args.height, "width": args.width},
    }
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            with RemotePolicy(server.stdout.readline().strip()) as remote:
                remote.reset(0)
                pings = [remote.ping()["seconds"] for _ in range(args.calls)]
                result["ping_p50_ms"] = float(np.median(pings) * 1000)
                sets = {
                    name: build_observations(10, args.height, args.width, sensor)
                    for name, sensor in (("none", False), ("65 x 1026", True))
                }
                result["sensor"] = measure(remote, sets, args.calls, warm_up=5)
            server.stdin.close()
    finally:
        if before:
            os.sched_setaffinity(0, before)
    show(result)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
