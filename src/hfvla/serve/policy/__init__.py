"""Policies for robots: a trained model in the control loop, in this process or behind a websocket.

Nothing here imports torch before a policy is built, so that a robot's own computer needs it only for local policies.
"""

from __future__ import annotations

from hfvla.serve.policy.async_options import AsyncOptions, AsyncStatistics
from hfvla.serve.policy.asynchronous import AsyncChunkPolicy
from hfvla.serve.policy.client import RemotePolicy
from hfvla.serve.policy.ensembling import TemporalEnsemble, ensemble_weights
from hfvla.serve.policy.errors import PolicyConnectionError, PolicyServerError, PolicyStopped, ProtocolError
from hfvla.serve.policy.limits import ServerLimits
from hfvla.serve.policy.policy import ChunkPolicy, PolicyOptions
from hfvla.serve.policy.runner import ModelRunner, PolicyFacts, can_act
from hfvla.serve.policy.sensor_buffer import SensorBuffer
from hfvla.serve.policy.server import PolicyServer
from hfvla.serve.policy.watchdog import Watchdog

__all__ = [
    "AsyncChunkPolicy",
    "AsyncOptions",
    "AsyncStatistics",
    "ChunkPolicy",
    "ModelRunner",
    "PolicyConnectionError",
    "PolicyFacts",
    "PolicyOptions",
    "PolicyServer",
    "PolicyServerError",
    "PolicyStopped",
    "ProtocolError",
    "RemotePolicy",
    "SensorBuffer",
    "ServerLimits",
    "TemporalEnsemble",
    "Watchdog",
    "can_act",
    "ensemble_weights",
]
