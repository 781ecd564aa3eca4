"""Starting worker scripts on several processes, without the cost of a launcher."""

import os
import random
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).parents[2]


def free_port():
    """A port that nobody uses: below those that the system gives away, in a range of this worker of pytest."""
    first = 20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for port in random.sample(range(first, first + 1_000), 1_000):
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port from {first} on")


def launch(count, script, *arguments, timeout_s=900):
    """Run a script on `count` processes that find each other; return what each printed.

    Raises:
        AssertionError: one failed; with the end of what it said.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    shared |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    with ExitStack() as stack:  # into files: a full pipe would stop a process that the others wait for
        said = [[stack.enter_context(TemporaryFile("w+")) for _ in range(2)] for _ in range(count)]
        started = []
        for rank, (out, problems) in enumerate(said):
            own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(subprocess.Popen(command, env=own, stdout=out, stderr=problems, text=True))
            stack.callback(started[-1].kill)
        until = time.monotonic() + timeout_s
        while any(one.poll() is None for one in started) and not any(one.returncode for one in started):
            assert time.monotonic() < until, f"not done after {timeout_s} s: {[_text(part[1]) for part in said]}"
            time.sleep(0.1)
        for rank, process in enumerate(started):
            assert process.returncode in (0, None), f"process {rank}: {_text(said[rank][1])[-3000:]}"
        return [_text(out) for out, _ in said]


def _text(file):
    file.seek(0)
    return file.read()
