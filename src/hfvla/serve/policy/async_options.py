"""Options and counters of the asynchronous policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hfvla.errors import HfvlaError
from hfvla.serve.policy.policy import PolicyOptions

__all__ = ["AsyncOptions", "AsyncStatistics"]


@dataclass(frozen=True, kw_only=True)
class AsyncOptions(PolicyOptions):
    """How the asynchronous policy uses its model; `n_action_steps` are executed before the next plan is begun.

    Attributes:
        expert: "background" plans in a thread of its own while the last chunk is executed (real-time chunking, by
            default half a horizon apart); "inline" plans in the control call, on the newest features, state and sensor
            (by default at every step; for an expert much faster than a control step, and for ensembling).
        backbone_hz: at most so many encoded observations a second; None: as many as it can.
        max_features_age_s: features of an older observation stop the policy.
        deadline_s: seconds from one control call to the next after which the watchdog stops the policy; None for no
            watchdog.
        chunking: how a new chunk joins the old one. "prefix" gives the expert the actions that are fixed, "blend"
            leads over in a straight line, "auto" is "prefix" where the model supports it.
        blend_steps: length of the blend.
        delay_steps: actions that are fixed; None: as many as the slowest of the last ten plans took.
        wait_s: seconds that a control call may wait for a chunk that is late; None: one control step.
        start_timeout_s: seconds that the first call of an episode may wait for features and a chunk.
    """

    expert: Literal["background", "inline"] = "background"
    backbone_hz: float | None = None
    max_features_age_s: float = 1.0
    deadline_s: float | None = 0.5
    chunking: Literal["auto", "prefix", "blend"] = "auto"
    blend_steps: int = 2
    delay_steps: int | None = None
    wait_s: float | None = None
    start_timeout_s: float = 60.0

    def check(self, can_continue: bool) -> None:
        """Refuse options that are wrong or do not go together.

        Raises:
            HfvlaError: names the option.
        """
        for name, known in (("expert", ("background", "inline")), ("chunking", ("auto", "prefix", "blend"))):
            if getattr(self, name) not in known:
                raise HfvlaError(name, got=getattr(self, name), expected=" or ".join(known))
        for name in ("backbone_hz", "max_features_age_s", "wait_s", "start_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise HfvlaError(name, got=value, expected="more than 0")
        if self.blend_steps < 0:
            raise HfvlaError("blend_steps", got=self.blend_steps, expected="0 or more")
        if self.chunking == "prefix" and not can_continue:
            raise HfvlaError(
                "chunking: the model's expert takes no prefix", got="prefix", expected="auto or blend",
                fix="A flow expert that was trained with max_prefix takes one.",
            )  # fmt: skip
        if self.ensemble_decay is not None and self.expert == "background":
            raise HfvlaError("temporal ensembling needs a chunk each step", got="expert=background", expected="inline")


@dataclass
class AsyncStatistics:
    """What the asynchronous policy has done since the last reset.

    Attributes:
        steps: control calls answered.
        encoded: observations encoded by the backbone.
        planned: chunks predicted.
        reused: chunks predicted on features of an earlier observation than their state.
        late_chunks: chunks that came after the last of their fixed actions, so that the robot may have jumped.
        waits: control calls that waited for a late chunk.
        delay_steps: actions that the next chunk will have fixed.
        plan_s: the slowest of the last ten plans.
    """

    steps: int = 0
    encoded: int = 0
    planned: int = 0
    reused: int = 0
    late_chunks: int = 0
    waits: int = 0
    delay_steps: int = 1
    plan_s: float = 0.0

    def count_plan(self, reused: bool) -> None:
        """Count a chunk that was predicted."""
        self.planned += 1
        self.reused += reused
