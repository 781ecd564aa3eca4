"""Hostile recipes, checkpoints, data, command lines and requests, many more than the tests try, from any seed.

    python benchmarks/attack.py             # what the tests do, with another seed: minutes
    python benchmarks/attack.py --full      # 10,000 recipes, 616 checkpoints, 2,137 data items, 5,000 requests
    python benchmarks/attack.py --part recipes --seed 7000 --full

Every attack lies in tests/attack, where the tests run the first of them. An attack is lost where it ends in a
traceback, a hang, a silent repair or a lost file. The seeds of those are printed, and the exit code is 1. CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/attack.json"
COUNTS = {"recipes": (2_000, 10_000), "checkpoints": (200, 616), "data": (500, 2_137), "command_line": (0, 0),
          "policy_server": (2_000, 5_000)}  # fmt: skip
_REQUESTS_A_RUN = 500


def attacks(name: str) -> Any:
    """Import a module of tests/attack."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"tests.attack.{name}")


def _judged(outcomes: Iterable[Any], label: Callable[[Any], str]) -> tuple[Counter[str], list[str]]:
    verdicts: Counter[str] = Counter()
    lost = []
    for one in outcomes:
        verdicts[one.verdict] += 1
        if one.bad:
            lost.append(f"{label(one)}: {one.verdict}: {one.detail}")
    return verdicts, lost


def recipes(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Read mutated recipes."""
    attack = attacks("recipes").attack_recipe
    found = (attack(number, folder) for number in range(seed, seed + count))
    return _judged(found, lambda one: f"recipe {one.seed} ({one.mutation})")


def checkpoints(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Load harmed checkpoints of every family."""
    module, base = attacks("checkpoints"), {}
    each = -(-count // len(module.FAMILIES))
    found = (
        module.attack_checkpoint(family, number, folder, base)
        for family in module.FAMILIES
        for number in range(seed, seed + each)
    )
    return _judged(found, lambda one: f"checkpoint of {one.family} {one.seed} ({one.harm})")


def data(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Read harmed inputs of every source."""
    module = attacks("data")
    valid, work = folder / "valid", folder / "work"
    valid.mkdir()
    work.mkdir()
    rows, each = module.prepare(valid), -(-count // len(module.INPUTS))
    found = (
        module.attack_data(name, number, valid, work, rows[name])
        for name in module.INPUTS
        for number in range(seed, seed + each)
    )
    return _judged(found, lambda one: f"data of {one.source} {one.seed} ({one.mutation})")


def command_line(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Use the command line wrongly, in every way listed; neither count nor seed change it."""
    module = attacks("command_line")
    place = module.prepare(folder / "place")
    uses = module.wrong_uses(place)
    problems = [f"{use.name}: {problem}" for use, problem in module.problems(uses, place)]
    return Counter(refused=len(uses) - len(problems), wrong=len(problems)), problems


def policy_server(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Send requests to a policy server while a robot is at work."""
    answers: Counter[str] = Counter()
    lost = []
    for number in range(seed, seed + -(-count // _REQUESTS_A_RUN)):
        found = attacks("policy_server").attack_server(_REQUESTS_A_RUN, number)
        answers += found.answers
        lost += [f"server, seed {number}: {one}" for one in (*found.crashes, *found.wrong, *found.threads)]
    return answers, lost


PARTS: dict[str, Callable[[int, int, Path], tuple[Counter[str], list[str]]]] = {
    "recipes": recipes,
    "checkpoints": checkpoints,
    "data": data,
    "command_line": command_line,
    "policy_server": policy_server,
}


def main() -> None:
    """Attack, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; repeat for more")
    parser.add_argument("--full", action="store_true", help="as many as the first attack had")
    parser.add_argument("--count", type=int, help="another number of attacks a part")
    parser.add_argument("--seed", type=int, default=100_000, help="first seed; the tests begin at 0")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"seed": args.seed, "parts": {}}
    console, lost = Console(width=140), []
    for name in args.part or PARTS:
        count, start = args.count or COUNTS[name][args.full], time.perf_counter()
        logging.disable(logging.NOTSET if name in ("policy_server", "command_line") else logging.CRITICAL)
        with tempfile.TemporaryDirectory() as folder:
            verdicts, bad = PARTS[name](count, args.seed, Path(folder))
        lost += bad
        result["parts"][name] = {"verdicts": dict(verdicts), "lost": bad, "seconds": time.perf_counter() - start}
    table = Table("part", "attacks", "lost", "seconds", "verdicts", title=f"attacks from seed {args.seed}")
    for name, one in result["parts"].items():
        seen = ", ".join(f"{count} {verdict}" for verdict, count in one["verdicts"].items())
        total = sum(one["verdicts"].values())
        table.add_row(name, str(total), str(len(one["lost"])), f"{one['seconds']:.0f}", seen)
    console.print(table)
    for line in lost[:40]:
        console.print(line, markup=False, highlight=False)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    if lost:
        sys.exit(1)


if __name__ == "__main__":
    main()
