"""`hfvla serve`: a policy for a robot on another machine."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Annotated, Any

import typer

from hfvla.cli.output import chosen_device, run_command

__all__ = ["serve"]

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "HFVLA_POLICY_TOKEN"  # as in hfvla.serve.policy.limits, which help need not import


def serve(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder, or a hub id.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8765,
    n_action_steps: Annotated[int | None, typer.Option(min=1, help="Actions of a plan; default: all of it.")] = None,
    ensemble_decay: Annotated[
        float | None, typer.Option(help="Temporal ensembling with this decay (0.01 in ACT); one action a plan.")
    ] = None,
    denoising_steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; default: the model's own number.")
    ] = None,
    max_sensor_age: Annotated[
        float, typer.Option(min=0, help="Seconds the newest sensor sample may lie behind; 0 = no limit.")
    ] = 0.1,
    require_sensor: Annotated[bool, typer.Option("--require-sensor", help="Stop without a sensor.")] = False,
    max_message_mib: Annotated[int, typer.Option(min=1, help="Size that a message may have.")] = 32,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE, show_envvar=True, help="Word that robots must know; better in the environment."
        ),
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(metavar="FILE", help="Certificate (PEM), to encrypt.")] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="The certificate's key (PEM).")] = None,
    plan_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a plan may take.")] = 30.0,
    idle_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds until a silent robot loses the server.")
    ] = 60.0,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections open at once.")] = 16,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Serve a policy's actions over a websocket until it is interrupted; one robot at a time."""

    def work() -> Any:
        from hfvla.serve.policy import ChunkPolicy, PolicyOptions, PolicyServer, ServerLimits
        from hfvla.serve.policy.limits import server_tls
        from hfvla.serve.policy.loading import load_acting_model

        server_tls(tls_cert, tls_key)  # a wrong file is said before a model is loaded
        limits = ServerLimits(
            message_bytes=max_message_mib * 2**20,
            plan_s=plan_timeout,
            idle_s=idle_timeout,
            connections=max_connections,
        )
        model, processor = load_acting_model(checkpoint, chosen_device(device))
        options = PolicyOptions(
            n_action_steps=n_action_steps, ensemble_decay=ensemble_decay, denoising_steps=denoising_steps,
            max_sensor_age_s=max_sensor_age or None, require_sensor=require_sensor,
        )  # fmt: skip
        policy = ChunkPolicy(model, processor, options)
        server = PolicyServer(
            policy, policy.facts, host=host, port=port, limits=limits, token=token, certificate=tls_cert, key=tls_key
        )
        with server:
            _warm_up(policy, processor)
            logger.info("serving %s on %s; end with Ctrl-C", checkpoint, server.url)
            _wait(server)
        return {"clients": server.clients, "plans": server.plans}

    def show(summary: Any) -> None:
        typer.echo(f"Served {summary['plans']} plans to {summary['clients']} clients.")

    run_command(work, show, as_json)


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
