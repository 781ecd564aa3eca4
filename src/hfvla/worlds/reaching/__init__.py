"""Drawn episodes of a hand that goes to a square named in words and presses it: small, fast, no simulator.

For smoke recipes, contract tests and first steps; `hfvla.worlds.insertion` is the real task.
"""

from hfvla.worlds.reaching.episodes import Step, draw_episode
from hfvla.worlds.reaching.source import ReachingOptions, build_reaching, count_reaching

__all__ = ["ReachingOptions", "Step", "build_reaching", "count_reaching", "draw_episode"]
