"""Peg insertion in simulation: an environment, demonstrations as a LeRobot data set, and closed-loop evaluation.

    from hfvla.worlds.insertion import InsertionOptions, build_insertion
    data = build_insertion(InsertionOptions(episodes=200, variant="hidden_offset"), seed=0)

`physics` moves the robot and reads forces, `cameras` draws, `environment` puts both into observations, `expert` holds
the demonstrators, `recording` and `source` make data of them, `rollout` and `film` evaluate a policy, `evidence`
measures the task itself.
Needs the extra `sim`.
"""

from hfvla.worlds.insertion.environment import InsertionEnv, SensorNoise
from hfvla.worlds.insertion.expert import Demonstrator
from hfvla.worlds.insertion.film import write_film
from hfvla.worlds.insertion.recording import Recording, evaluation_seeds, record
from hfvla.worlds.insertion.rollout import Rollout, run_episodes, summarise, wilson_interval
from hfvla.worlds.insertion.source import InsertionOptions, build_insertion, count_insertion

__all__ = [
    "Demonstrator",
    "InsertionEnv",
    "InsertionOptions",
    "Recording",
    "Rollout",
    "SensorNoise",
    "build_insertion",
    "count_insertion",
    "evaluation_seeds",
    "record",
    "run_episodes",
    "summarise",
    "wilson_interval",
    "write_film",
]
