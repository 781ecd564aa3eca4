"""EmberVLM's answer to look at: confidences, the chain of thought, the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfvla.family import Shown

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["show"]


def show(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, request: Mapping[str, Any], reply: Mapping[str, Any]
) -> Shown:
    """Return an answer of `predict` as a person looks at it."""
    steps = [line.strip() for line in reply["reasoning"].replace(" Step ", "\nStep ").splitlines() if line.strip()]
    chain = "\n".join(f"- {_plain(step)}" for step in steps)
    text = f"**Chosen:** {', '.join(reply['robots'])}" + (f"\n\n**Reasoning**\n\n{chain}" if chain else "")
    plan = sorted(reply["plan"], key=lambda step: step["order"])
    rows = [[step["order"], step["robot"], step["subtask"]] for step in plan]
    return Shown(text, reply["probabilities"], ("order", "robot", "subtask") if rows else (), rows)


def _plain(text: str) -> str:
    """Return a model's text as it is, whatever signs of Markdown are in it."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()#+!<>|~$" else letter for letter in text)
