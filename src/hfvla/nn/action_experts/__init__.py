"""Action experts: from feature tokens to a chunk of normalised actions, behind one interface.

`loss(features, actions, mask)` gives one loss a sample; `sample(features)` gives a chunk. See `ActionExpert`.
"""

from __future__ import annotations

from typing import Any

from hfvla.errors import did_you_mean
from hfvla.nn.action_experts.base import ActionExpert
from hfvla.nn.action_experts.diffusion import DiffusionExpert
from hfvla.nn.action_experts.flow import FlowExpert
from hfvla.nn.action_experts.regression import RegressionExpert

__all__ = [
    "ACTION_EXPERTS",
    "ActionExpert",
    "DiffusionExpert",
    "FlowExpert",
    "RegressionExpert",
    "build_action_expert",
]

ACTION_EXPERTS: dict[str, type[ActionExpert]] = {
    "regression": RegressionExpert,
    "diffusion": DiffusionExpert,
    "flow": FlowExpert,
}


def build_action_expert(kind: str, **options: Any) -> ActionExpert:
    """Build an expert by name.

    Args:
        kind (`str`): a key of `ACTION_EXPERTS`.
        **options: arguments of its class.

    Raises:
        ValueError: the name is unknown.
        MissingExtraError: "diffusion" without the package diffusers.
    """
    if kind not in ACTION_EXPERTS:
        raise ValueError(f"unknown action expert '{kind}'. {did_you_mean(kind, ACTION_EXPERTS)}")
    return ACTION_EXPERTS[kind](**options)
