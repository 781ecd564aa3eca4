"""What a policy on another machine costs beside the policy itself: `python benchmarks/policy_server.py`.

A robot and its policy server run in two processes of this machine, both held on one core, joined by a websocket over
the loopback interface. The policy answers at once with a chunk of 8 actions, so the whole round trip is overhead:
encoding, copying, decoding, twice. Two views of 640x360, a state of 12 numbers, and a sensor window of 65 samples of
1,026 channels or none. The ways take turns call by call. Pictures are drawn shapes with noise (standard deviation 4,
as of a camera in a lit room): a JPEG's size and time depend on what it shows. A network adds its own time for the
bytes named.

`--hostile` measures something else: what is left for the robot while eight clients send first messages of 31 MiB,
pictures of 36 megapixels in a kilobyte a thousand, wrong versions, half messages and no websocket at all, as fast as
they can. The robot and the hostile clients are processes of their own. Its calls are timed alone and attacked in turns
of half a second, and the server's memory before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.serve.policy import PolicyFacts, PolicyServer, RemotePolicy
from hfvla.serve.policy.arrays import Jpeg, pack
from hfvla.serve.policy.messages import observation_to_message

RESULTS = Path(__file__).parent / "results" / "policy_server.json"
HOSTILE_RESULTS = RESULTS.with_name("policy_server_hostile.json")
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
    logging.disable(logging.WARNING)
    with PolicyServer(Instant(), FACTS, port=0) as server:
        Console().print(server.url, highlight=False)
        sys.stdin.read()


def hello_of(kind: int) -> bytes:
    """Return a first message: large, a bomb, of another version, cut, or none at all."""
    if kind == 0:
        return pack({"type": "hello", "protocol": 1, "more": np.zeros(31 * 2**20, np.uint8)})
    if kind == 1:
        side = np.zeros((6000, 6000, 3), np.uint8)
        return pack({"type": "hello", "protocol": 1, "views": {"a": Jpeg(side, 30), "b": Jpeg(side, 30)}})
    messages = [{"type": "hello", "protocol": 99}, {"type": "plan"}, {"type": "hello", "protocol": np.zeros(7)}, {}]
    data = pack(messages[kind % len(messages)])
    return data if kind % 2 else data[: len(data) // 2] + b"\xc1"


def attack(url: str, number: int) -> None:
    """Send malformed first messages until the other process closes this one's input; stop while it says so."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    os.nice(15)  # what they do themselves would be done by other machines
    messages = [hello_of(kind) for kind in ((0, 0, 1, 1)[number % 4], *range(2, 18))]
    allowed, sent = threading.Event(), 0

    def send() -> None:
        nonlocal sent
        while True:
            allowed.wait()
            options = {"compression": None, "proxy": None, "max_size": None, "close_timeout": 0.1}
            with contextlib.suppress(OSError, WebSocketException), connect(url, **options) as connection:
                connection.send(messages[0 if sent % 2 else 1 + sent % 16])
                connection.recv(timeout=1.0)
            sent += 1

    threading.Thread(target=send, daemon=True).start()
    for line in sys.stdin:
        (allowed.set if line.strip() == "go" else allowed.clear)()
    Console().print(sent)


def hostile(seconds: float, clients: int) -> dict[str, Any]:
    """Return the robot's round trips alone and attacked, in turns, and the server's memory."""
    here = [sys.executable, str(Path(__file__).resolve())]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    times: dict[str, list[float]] = {"alone": [], "attacked": []}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen([*here, "--serve"], **pipes))
        stack.callback(server.stdin.close)
        url, process = server.stdout.readline().strip(), psutil.Process(server.pid)
        robot = stack.enter_context(RemotePolicy(url, jpeg_quality=95, timeout_s=30.0))
        robot.reset(0)
        seen = build_observations(10, 360, 640, sensor=False)
        enemies = [subprocess.Popen([*here, "--attack", url, str(n)], **pipes) for n in range(clients)]
        time.sleep(4.0)  # their imports are not part of it
        for call in range(20):
            robot.plan(seen[call % 10])
        before = process.memory_info().rss
        peak, end = before, time.monotonic() + seconds
        while time.monotonic() < end:
            for way, word in (("alone", "stop\n"), ("attacked", "go\n")):
                for enemy in enemies:
                    enemy.stdin.write(word)
                    enemy.stdin.flush()
                time.sleep(0.2)
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    start = time.perf_counter()
                    robot.plan(seen[len(times[way]) % 10])
                    times[way].append(time.perf_counter() - start)
                    time.sleep(0.02)  # a robot asks at a rate
                peak = max(peak, process.memory_info().rss)
        sent = [int(enemy.communicate()[0].split()[-1]) for enemy in enemies]
        result: dict[str, Any] = {"clients": clients, "attacks": sum(sent), "memory_mib": before / 2**20}
        result["memory_peak_mib"] = peak / 2**20
    for way, found in times.items():
        p50, p95 = np.percentile(found, [50, 95]) * 1000
        result[way] = {"calls": len(found), "p50_ms": float(p50), "p95_ms": float(p95)}
    result["p95_ratio"] = result["attacked"]["p95_ms"] / result["alone"]["p95_ms"]
    return result


def show_hostile(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"round trip of a robot while {result['clients']} clients attack ({result['attacks']} times)")
    for heading in ("", "calls", "p50", "p95"):
        table.add_column(heading, justify="right" if heading else "left")
    for way in ("alone", "attacked"):
        one = result[way]
        table.add_row(way, str(one["calls"]), f"{one['p50_ms']:.2f} ms", f"{one['p95_ms']:.2f} ms")
    Console(width=110).print(table)
    memory = f"{result['memory_mib']:.0f} MiB before, {result['memory_peak_mib']:.0f} MiB at most"
    Console().print(f"p95 {result['p95_ratio']:.2f} times; memory of the server {memory}")


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
    parser.add_argument("--hostile", action="store_true", help="measure while eight clients attack")
    parser.add_argument("--seconds", type=float, default=30.0, help="of --hostile")
    parser.add_argument("--attack", nargs=2, metavar=("URL", "NUMBER"), help="be a client that attacks; as --serve")
    parser.add_argument("--output", type=Path, default=None)
    args = parser.parse_args()
    if args.serve:
        return serve()
    if args.attack:
        return attack(args.attack[0], int(args.attack[1]))
    if args.hostile:
        result = {"hardware": {"cpu": cpu_name(), "cores": os.cpu_count()}, "load_average": os.getloadavg()}
        result |= hostile(4.0 if args.quick else args.seconds, clients=8)
        show_hostile(result)
        return write(result, args.output or HOSTILE_RESULTS)
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
    write(result, args.output or RESULTS)


def write(result: dict[str, Any], path: Path) -> None:
    """Write the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
