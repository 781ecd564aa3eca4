"""What `hfvla serve` bears, and what answering together brings: `python benchmarks/serve_load.py`.

A tiny EmberVLM behind the real command, in a process of its own, on this machine only. Two measurements:

- **hostile**: `--requests` requests, `--at-once` at a time, 30 % of them malformed in twelve ways: wrong types,
  unknown fields, no JSON, other content types, broken forms, pictures of 400 megapixels in a few kilobytes, cut JPEGs,
  bodies that are too large, clients that drip, clients that leave before the answer or in the middle of their request,
  and no HTTP at all. Right answers are compared with what the server said before; every status is one that its kind
  allows; nothing is 5xx; memory is read after a fifth of the requests and at the end. Segments without malformed
  requests take turns with those that have them, so that what the right ones notice is a ratio within one run.
- **together**: right requests against two servers, `--max-batch 32` and `--max-batch 1`, in turns.

Client and servers share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "serve_load.json"
TASKS = (
    "Survey the flooded valley",
    "Carry a beam up the stairs",
    "Look for leaks under the pier",
    "Plough the field",
)
MALFORMED = 0.3
MOST = 200_000  # requests: this is no tool to flood anything with
_PATIENCE_S = 600.0  # of this client; a loaded machine answers late, and late is no wrong answer
HERE = "127.0.0.1"


def build_checkpoint(folder: Path) -> None:
    """Save a tiny EmberVLM with random weights."""
    from hfvla.registry import get_family

    spec = get_family("ember_vlm")
    recipe = {"config": spec.load("config").tiny().to_dict(), "options": {}}
    model, processor = spec.load("initialise")(recipe, spec.load("examples")(8, 0), seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@contextlib.contextmanager
def served(checkpoint: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """Run `hfvla serve` in a process; yield its port and the process, and end it with SIGTERM."""
    command = [sys.executable, "-m", "hfvla.cli", "serve", str(checkpoint), "--port", "0", "--device", "cpu", *options]
    with (
        tempfile.NamedTemporaryFile("r", suffix=".log") as log,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(log.name, "w")) as server,  # noqa: SIM115
    ):
        try:
            found, end = None, time.monotonic() + 1200
            while found is None:
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the server did not start: {Path(log.name).read_text()[-2000:]}")
                time.sleep(0.1)
                found = re.search(rf"http://{HERE}:(\d+)", Path(log.name).read_text())
            port = int(found[1])
            while not reachable(port):
                time.sleep(0.05)
            yield port, psutil.Process(server.pid)
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:  # it had not come as far as to hear it
                server.kill()


def reachable(port: int) -> bool:
    """Tell whether somebody listens."""
    with contextlib.suppress(OSError), socket.create_connection((HERE, port), timeout=1):
        return True
    return False


# ---- one request ----------------------------------------------------------------------------------------------------


def as_request(body: bytes, kind: str = "application/json", length: int | None = None) -> bytes:
    """Return a whole POST."""
    size = len(body) if length is None else length
    head = f"POST /select HTTP/1.1\r\nhost: {HERE}\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of an answer; status 0 where the connection ends without one."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b""
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head.split()[1]), body


class Line:
    """A connection that is kept for right requests."""

    def __init__(self, port: int) -> None:
        self.port, self.streams = port, None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the answer to a request; connects anew where the server has closed."""
        kept = self.streams is not None
        if self.streams is None:
            self.streams = await asyncio.open_connection(HERE, self.port)
        reader, writer = self.streams
        found = 0, b""
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
            found = await answer_of(reader)
        if found[0] == 0:
            self.close()
            if kept:  # the server lets idle connections go after 15 s; whoever keeps one must expect it
                return await self.ask(request)
        return found

    def close(self) -> None:
        """Close it."""
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


Way = Callable[[int, "Pieces"], Awaitable[int]]


@dataclass
class Pieces:
    """What requests are made of."""

    right: list[bytes] = field(default_factory=list)
    bomb: str = ""
    cut: str = ""

    @classmethod
    def make(cls) -> Pieces:
        """Draw pictures and put requests together."""
        draw = np.random.default_rng(0)
        right = []
        for number, task in enumerate(TASKS):
            file = io.BytesIO()
            noise = draw.integers(0, 255, (96, 128, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file, "JPEG", quality=85)
            body: dict[str, Any] = {"task": task, "reasoning": False}
            if number % 2:
                body["image"] = base64.b64encode(file.getvalue()).decode()
            right.append(as_request(json.dumps(body).encode()))
        cut = base64.b64encode(file.getvalue()[: len(file.getvalue()) // 2]).decode()
        bomb = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
        return cls(right, base64.b64encode(bomb.getvalue()).decode(), cut)


async def once(port: int, request: bytes) -> int:
    """Return the status of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        return (await answer_of(reader))[0]
    finally:
        writer.close()


async def left(port: int, request: bytes, wait_s: float) -> int:
    """Send something, then leave."""
    _, writer = await asyncio.open_connection(HERE, port)
    writer.write(request)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    await asyncio.sleep(wait_s)
    writer.transport.abort()
    return 0


async def dripped(port: int, request: bytes) -> int:
    """Send a right request in twenty pieces over two seconds."""
    reader, writer = await asyncio.open_connection(HERE, port)
    step = max(1, len(request) // 20)
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(request), step):
            writer.write(request[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.1)
    status = (await answer_of(reader))[0]
    writer.close()
    return status


def as_json(**body: Any) -> bytes:
    """Return a POST with a body in JSON."""
    return as_request(json.dumps(body).encode())


MULTIPART = "multipart/form-data; boundary=b"
WAYS: dict[str, tuple[Way, set[int]]] = {
    "wrong types": (lambda port, p: once(port, as_json(task=3, top_k="many", image=[1])), {422}),
    "unknown field": (lambda port, p: once(port, as_json(tsak="go")), {422}),
    "no JSON": (lambda port, p: once(port, as_request(b'{"task": ')), {400}),
    "other content type": (lambda port, p: once(port, as_request(b"task=go", "text/plain")), {415}),
    "broken form": (lambda port, p: once(port, as_request(b"--b\r\nnonsense", MULTIPART)), {400, 422}),
    "huge picture": (lambda port, p: once(port, as_json(task="go", image=p.bomb)), {413, 422}),
    "truncated JPEG": (lambda port, p: once(port, as_json(task="go", image=p.cut, reasoning=False)), {422}),
    "huge body": (lambda port, p: once(port, as_request(b"x" * 1000, length=10**9)), {413}),
    "drips": (lambda port, p: dripped(port, p.right[0]), {200, 429}),
    "leaves before the answer": (lambda port, p: left(port, p.right[1], 0.0), {0}),
    "leaves in the middle": (lambda port, p: left(port, p.right[1][:-50], 0.05), {0}),
    "no HTTP": (lambda port, p: once(port, b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), {0, 400}),
}


# ---- many requests --------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    retried: int = 0


async def segment(
    port: int, count: int, at_once: int, malformed: float, pieces: Pieces, truth: list[Any], draw: random.Random
) -> Seen:
    """Send requests, so many at a time; check every answer."""
    seen = Seen()
    kinds = list(WAYS)
    plan = iter([draw.choice(kinds) if draw.random() < malformed else "right" for _ in range(count)])

    async def worker() -> None:
        line = Line(port)
        for number, kind in enumerate(plan):
            if kind == "right":
                await right(line, number)
                continue
            way, allowed = WAYS[kind]
            try:
                status = await asyncio.wait_for(way(port, pieces), _PATIENCE_S)
            except ConnectionError:
                status = 0
            seen.statuses[f"{kind}: {status}"] += 1
            if status not in allowed and status != 429:
                seen.wrong.append(f"{kind}: {status}")
        line.close()

    async def right(line: Line, number: int) -> None:
        which = (number + id(line)) % len(pieces.right)
        start = time.perf_counter()
        status, body = await asyncio.wait_for(line.ask(pieces.right[which]), _PATIENCE_S)
        while status == 429:
            seen.retried += 1
            await asyncio.sleep(0.05)
            status, body = await asyncio.wait_for(line.ask(pieces.right[which]), _PATIENCE_S)
        seen.seconds.append(time.perf_counter() - start)
        seen.statuses[f"right: {status}"] += 1
        if status != 200 or not alike(json.loads(body), truth[which]):
            seen.wrong.append(f"right: {status} {body[:200]!r}")

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return seen


def alike(found: Any, wanted: Any) -> bool:
    """Tell whether two answers agree; a sum over another batch differs in its last digits."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    return abs(found - wanted) < 1e-4 if isinstance(wanted, float) else found == wanted


async def truths(port: int, pieces: Pieces) -> list[Any]:
    """Return what the server answers to each right request when it has nothing else to do."""
    line = Line(port)
    found = [json.loads((await line.ask(request))[1]) for request in pieces.right]
    line.close()
    return found


async def hostile(port: int, process: psutil.Process, args: argparse.Namespace) -> dict[str, Any]:
    """Return statuses, what was wrong, latencies alone and attacked, and memory."""
    pieces, draw = Pieces.make(), random.Random(0)
    truth = await truths(port, pieces)
    rounds = max(2, min(10, args.requests // 200))
    share = args.requests // rounds
    all_seen, quiet, attacked, memory = Seen(), [], [], []
    for _ in range(rounds):
        calm = await segment(port, max(share // 5, args.at_once), args.at_once, 0.0, pieces, truth, draw)
        found = await segment(port, share, args.at_once, MALFORMED, pieces, truth, draw)
        memory.append(process.memory_info().rss / 2**20)
        quiet += calm.seconds
        attacked += found.seconds
        all_seen.statuses += found.statuses
        all_seen.wrong += calm.wrong + found.wrong
        all_seen.retried += found.retried
    warm = memory[max(1, rounds // 5) - 1]
    by_time = {"alone": quiet, "attacked": attacked}
    return {
        "requests": sum(all_seen.statuses.values()),
        "malformed": sum(n for kind, n in all_seen.statuses.items() if not kind.startswith("right")),
        "statuses": dict(sorted(all_seen.statuses.items())),
        "server_errors": sum(n for kind, n in all_seen.statuses.items() if kind.split(": ")[1].startswith("5")),
        "wrong": all_seen.wrong[:20],
        "retried": all_seen.retried,
        "alive": process.is_running() and reachable(port),
        "memory_mib": [round(one, 1) for one in memory],
        "memory_growth_mib": round(memory[-1] - warm, 1),
        **{way: {f"p{q}_ms": float(np.percentile(s, q) * 1000) for q in (50, 95)} for way, s in by_time.items()},
    }


async def together(ports: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Return requests a second of each server, asked in turns."""
    pieces, draw = Pieces.make(), random.Random(1)
    truth = await truths(ports["one by one"], pieces)
    rates: dict[str, list[float]] = {way: [] for way in ports}
    for turn in range(args.turns + 1):
        for way, port in ports.items():
            start = time.perf_counter()
            seen = await segment(port, args.batch_requests, args.at_once, 0.0, pieces, truth, draw)
            if seen.wrong:
                raise SystemExit(f"{way}: {seen.wrong[0]}")
            if turn:  # the first warms up
                rates[way].append(args.batch_requests / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["together"], rates["one by one"], strict=True)]
    medians = {way: float(np.median(rate)) for way, rate in rates.items()}
    return {"requests_per_s": medians, "ratio": float(np.median(ratios)), "ratios": [round(one, 2) for one in ratios]}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    found = result["hostile"]
    table = Table(title=f"{found['requests']} requests, {found['malformed']} of them malformed")
    for heading in ("kind: status", "times"):
        table.add_column(heading, justify="left" if heading.startswith("kind") else "right")
    for kind, count in found["statuses"].items():
        table.add_row(kind, str(count))
    out = Console(width=110)
    out.print(table)
    out.print(f"5xx: {found['server_errors']}; wrong answers: {len(found['wrong'])}; alive: {found['alive']}")
    out.print(f"memory {found['memory_mib']} MiB, growth after warm-up {found['memory_growth_mib']} MiB")
    for way in ("alone", "attacked"):
        out.print(f"right requests {way}: p50 {found[way]['p50_ms']:.0f} ms, p95 {found[way]['p95_ms']:.0f} ms")
    if "together" not in result:
        return
    rates = result["together"]["requests_per_s"]
    out.print(f"{rates['together']:.0f} requests/s together, {rates['one by one']:.0f} one by one: "
              f"{result['together']['ratio']:.1f}x (goal 3x)")  # fmt: skip


def write(path: Path, result: dict[str, Any]) -> None:
    """Write what is known so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help=f"at most {MOST}")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--batch-requests", type=int, default=512, help="of one turn of the second measurement")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not 1 <= args.requests <= MOST or not 1 <= args.at_once <= 256:
        parser.error(f"1 to {MOST} requests, 1 to 256 at once")
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_average": os.getloadavg(), "at_once": args.at_once}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "final"
        build_checkpoint(checkpoint)
        with served(checkpoint, "--max-batch", "32") as (port, process):
            result["hostile"] = asyncio.run(hostile(port, process, args))
        show(result)
        write(args.output, result)
        with served(checkpoint, "--max-batch", "32") as (one, _), served(checkpoint, "--max-batch", "1") as (two, _):
            result["together"] = asyncio.run(together({"together": one, "one by one": two}, args))
    show(result)
    write(args.output, result)
    if result["hostile"]["server_errors"] or result["hostile"]["wrong"] or not result["hostile"]["alive"]:
        raise SystemExit(f"not borne: {result['hostile']['wrong'][:3]}")


if __name__ == "__main__":
    main()
