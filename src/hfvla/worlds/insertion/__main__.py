"""The insertion task from the command line.

python -m hfvla.worlds.insertion record out/peg --episodes 200 --variant hidden_offset
python -m hfvla.worlds.insertion check --episodes 50
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import Any, get_args

from hfvla.errors import HfvlaError
from hfvla.worlds.insertion.cameras import VIEWS
from hfvla.worlds.insertion.environment import IMAGE_SIZE, Start, Variant
from hfvla.worlds.insertion.evidence import demonstrator_success, direction_accuracy
from hfvla.worlds.insertion.recording import ACTION_NOISE_M, Split, record

_PROBE_EPISODES = 6  # for each episode of a check, as a probe learns from them


def main(arguments: list[str] | None = None) -> int:
    """Record a data set, or measure the task; returns the exit code."""
    chosen = vars(_parser().parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger = logging.getLogger("hfvla")
    logger.setLevel(logging.INFO)
    try:
        if chosen.pop("command") == "record":
            record(chosen.pop("path"), chosen.pop("episodes"), views=tuple(chosen.pop("views")), **chosen)
        else:
            logger.info("%s", json.dumps(_check(**chosen), indent=1))
    except HfvlaError as error:
        logger.error("%s", error)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hfvla.worlds.insertion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="record demonstrations as a LeRobot v3.0 data set")
    recorder.add_argument("path", help="folder that must not exist yet")
    recorder.add_argument("--episodes", type=int, default=200)
    recorder.add_argument("--variant", choices=get_args(Variant), default="plain")
    recorder.add_argument("--start", choices=get_args(Start), default="grasped")
    recorder.add_argument("--split", choices=get_args(Split), default="train")
    recorder.add_argument("--seed", type=int, default=0)
    recorder.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="pixels a side; even")
    recorder.add_argument("--views", nargs="+", choices=tuple(VIEWS), default=list(VIEWS))
    recorder.add_argument("--action-noise-m", type=float, default=ACTION_NOISE_M)
    check = commands.add_parser("check", help="who solves the task, and what tells the hidden offset")
    check.add_argument("--episodes", type=int, default=50)
    return parser


def _check(episodes: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{variant}, {start}": demonstrator_success(episodes, variant, start)
        for variant in get_args(Variant)
        for start in get_args(Start)
    }
    found["hidden_offset, grasped, blind"] = demonstrator_success(episodes, blind=True)
    found["accuracy of the direction"] = direction_accuracy(_PROBE_EPISODES * episodes)
    return found


if __name__ == "__main__":
    sys.exit(main())
