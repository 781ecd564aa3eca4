"""`hfvla serve`: a policy for a robot on another machine."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Annotated, Any

import typer

from hfvla.cli.output import chosen_device, run_command
from hfvla.paths import expand_user

__all__ = ["serve"]

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "HFVLA_POLICY_TOKEN"  # as in hfvla.serve.policy.limits, which help need not import


def _limit(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel="Limits", **more)


def _secret(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel="Who gets in", **more)


Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")]
ActionSteps = Annotated[int | None, typer.Option(min=1, help="Actions of a plan; default: all of it.")]
Decay = Annotated[
    float | None, typer.Option(help="Temporal ensembling with this decay (0.01 in ACT); one action a plan.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Denoising steps; default: the model's own number.")]
SensorAge = Annotated[
    float, typer.Option(min=0, help="Seconds the newest sensor sample may lie behind; 0 = no limit.")
]
RequireSensor = Annotated[bool, typer.Option("--require-sensor", help="Stop without a sensor.")]
Token = Annotated[
    str | None,
    _secret("Word that robots must know; better in the environment.", envvar=TOKEN_VARIABLE, show_envvar=True),
]
Certificate = Annotated[str | None, _secret("Certificate (PEM), to encrypt.", metavar="FILE", parser=expand_user)]
Key = Annotated[str | None, _secret("The certificate's key (PEM).", metavar="FILE", parser=expand_user)]
MessageSize = Annotated[int, _limit("Size that a message may have.", min=1)]
PlanTimeout = Annotated[float, _limit("Seconds that a plan may take.", min=0.001)]
IdleTimeout = Annotated[float, _limit("Seconds until a silent robot loses the server.", min=0.001)]
Connections = Annotated[int, _limit("Connections open at once; others wait outside.", min=1)]
Device = Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def serve(
    checkpoint: Checkpoint,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    n_action_steps: ActionSteps = None,
    ensemble_decay: Decay = None,
    denoising_steps: Steps = None,
    max_sensor_age: SensorAge = 0.1,
    require_sensor: RequireSensor = False,
    token: Token = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    max_message_mib: MessageSize = 32,
    plan_timeout: PlanTimeout = 30.0,
    idle_timeout: IdleTimeout = 60.0,
    max_connections: Connections = 16,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Serve a policy's actions over a websocket until it is interrupted; one robot at a time."""
    options = {"n_action_steps": n_action_steps, "ensemble_decay": ensemble_decay, "denoising_steps": denoising_steps}
    options |= {"max_sensor_age_s": max_sensor_age or None, "require_sensor": require_sensor}
    limits = {"message_bytes": max_message_mib * 2**20, "plan_s": plan_timeout, "idle_s": idle_timeout}
    limits |= {"connections": max_connections}
    place = {"host": host, "port": port, "token": token, "certificate": tls_cert, "key": tls_key}

    def show(summary: Any) -> None:
        typer.echo(f"Served {summary['plans']} plans to {summary['clients']} clients.")

    run_command(lambda: _serve(checkpoint, device, options, limits, place), show, as_json)


def _serve(
    checkpoint: str, device: str | None, options: dict[str, Any], limits: dict[str, Any], place: dict[str, Any]
) -> dict[str, int]:
    from hfvla.serve.policy import ChunkPolicy, PolicyOptions, PolicyServer, ServerLimits
    from hfvla.serve.policy.limits import given_token, server_tls
    from hfvla.serve.policy.loading import load_acting_model

    given_token(place["token"])  # a wrong word or file is said before a model is loaded
    server_tls(place["certificate"], place["key"])
    model, processor = load_acting_model(checkpoint, chosen_device(device))
    policy = ChunkPolicy(model, processor, PolicyOptions(**options))
    server = PolicyServer(policy, policy.facts, limits=ServerLimits(**limits), **place)
    with server:
        _warm_up(policy, processor)
        logger.info("serving %s on %s; end with Ctrl-C", checkpoint, server.url)
        _wait(server)
    return {"clients": server.clients, "plans": server.plans}


def _warm_up(policy: Any, processor: Any) -> None:
    """Run the model once where the processor can make an observation up; else the first plan is the slow one."""
    example = getattr(processor, "example_observation", None)
    if example is None:
        logger.info("no example observation: the first plan will be slower than the others")
        return
    seconds = policy.warm_up(example())
    logger.info("a plan takes %.0f ms", 1000 * seconds[-1])


def _wait(server: Any) -> None:
    """Wait for Ctrl-C or SIGTERM."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        server.wait()
    except KeyboardInterrupt:
        logger.info("ending")
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
