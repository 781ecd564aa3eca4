"""What one look at the machine returns, and how a look that may crash is taken in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["MARK", "Answer", "Check", "first_line", "guarded", "probe"]

MARK = "hfvla-probe:"
"""What the line with a probe's answer begins with; imported packages may print lines of their own."""

PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: what was looked at.
        status: "ok", "info" (good to know), "warn" (something will not work as wished) or "fail" (hfvla cannot work).
        found: what is there.
        fix: what to do about it; "" when ok.
    """

    name: str
    status: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Answer:
    """What a probe found, or why it found nothing.

    Args:
        values: its findings; empty when it failed.
        problem: "" or what went wrong, one line.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def first_line(error: BaseException) -> str:
    """Return "ValueError: its message's first line"."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def probe(name: str, *words: str, data: bytes = b"", timeout_s: float = PROBE_TIMEOUT_S) -> Answer:
    """Run one probe of `probes.py` in a process of its own, so that a crash or a hang there ends nothing here.

    Args:
        name: the probe.
        words: its arguments.
        data: what it reads on stdin.
        timeout_s: seconds after which it is given up.
    """
    command = [sys.executable, "-P", str(Path(__file__).with_name("probes.py")), name, *words]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Answer(problem=f"no answer in {timeout_s:g} s")
    if done.returncode < 0:
        return Answer(problem=f"the process was killed by {signal.Signals(-done.returncode).name}")
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith(MARK):
            values = json.loads(line.removeprefix(MARK))
            return Answer(problem=values["problem"]) if "problem" in values else Answer(values)
    last = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    return Answer(problem=f"exit code {done.returncode}: {last[-1]}")


def guarded(name: str, look: Callable[[], Check | Iterable[Check]]) -> list[Check]:
    """Take one look; an error in the look itself is a finding and does not hide the others."""
    try:
        found = look()
        return [found] if isinstance(found, Check) else list(found)
    except Exception as error:
        fix = "the other findings hold; please report this one"
        return [Check(name, "warn", f"this look itself failed: {first_line(error)}", fix)]
