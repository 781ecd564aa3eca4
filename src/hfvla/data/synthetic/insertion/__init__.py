"""Peg insertion in simulation: an environment, demonstrations as a LeRobot data set, and closed-loop evaluation.

    from hfvla.data.synthetic.insertion import InsertionOptions, build_insertion
    data = build_insertion(InsertionOptions(episodes=200, variant="hidden_offset"), seed=0)

`physics` moves the robot and reads forces, `cameras` draws, `environment` puts both into observations, `expert` holds
the demonstrators, `recording` and `source` make data of them, `rollout` and `film` evaluate a policy, `evidence`
measures the task itself.
Needs the extra `sim`.
"""

from hfvla.data.synthetic.insertion.environment import InsertionEnv, SensorNoise
from hfvla.data.synthetic.insertion.expert import Demonstrator
from hfvla.data.synthetic.insertion.film import write_film
from hfvla.data.synthetic.insertion.recording import Recording, evaluation_seeds, record
from hfvla.data.synthetic.insertion.rollout import Rollout, run_episodes, summarise, wilson_interval
from hfvla.data.synthetic.insertion.source import InsertionOptions, build_insertion, count_insertion

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
