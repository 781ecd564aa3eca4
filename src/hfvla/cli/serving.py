"""`hfvla serve`: a checkpoint over HTTP, or a policy for a robot over a websocket."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfvla.cli.output import chosen_device, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["serve"]

logger = logging.getLogger(__name__)

# As in hfvla.serve.policy.limits and hfvla.serve.http.limits, which help need not import.
TOKEN_VARIABLE, KEY_VARIABLE = "HFVLA_POLICY_TOKEN", "HFVLA_API_KEY"


def _limit(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel="Limits", **more)


def _secret(text: str, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel="Who gets in", **more)


def _http(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel="HTTP", **more)


# Options that mean something over one protocol only.
_HTTP = (
    "api_key index model_name engine threads max_batch max_wait_ms max_queue max_body_mib max_megapixels "
    "request_timeout cors_origin fetch_from log_format"
)
_WEBSOCKET = (
    "n_action_steps ensemble_decay denoising_steps max_sensor_age require_sensor token max_message_mib "
    "plan_timeout idle_timeout"
)
_PORTS = {"http": 8000, "websocket": 8765}

Checkpoint = Annotated[
    str | None, typer.Argument(metavar="CHECKPOINT", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="The same, as an option.")
]
ProtocolName = Annotated[
    str,
    typer.Option(metavar="auto|http|websocket", help="auto: a websocket for policies, which keep a robot's episode; "
                 "else HTTP."),
]  # fmt: skip
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]
Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port to listen on, 0 for any free one; default 8000 (HTTP), 8765 (websocket)."
    ),
]
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
Connections = Annotated[
    int | None, _limit("Connections open at once; default 512 (HTTP), 16 (websocket: others wait outside).", min=1)
]
ApiKey = Annotated[
    str | None,
    _secret("Word that HTTP clients must know; better in the environment.", envvar=KEY_VARIABLE, show_envvar=True),
]
Index = Annotated[
    str | None, _http("Index of `hfvla index` that /search looks in.", metavar="DIR", parser=expand_user)
]
ModelName = Annotated[str | None, _http("Name of the model for clients; default: the folder's.")]
EngineName = Annotated[
    str,
    _http("What computes; auto: graphs for a folder of `hfvla export`, else PyTorch.",
          metavar="auto|pytorch|onnx|openvino"),
]  # fmt: skip
Threads = Annotated[int, _http("Threads of exported graphs; 0 for all cores.", min=0)]
Batch = Annotated[int, _http("Most requests that are answered in one pass.", min=1)]
Wait = Annotated[float, _http("Milliseconds that a request waits for others.", min=0)]
Queue = Annotated[int, _http("Requests that wait for the model; more are told to come back.", min=1)]
Body = Annotated[int, _http("Size that a request may have.", min=1)]
Megapixels = Annotated[float, _http("Of all pictures of a request together.", min=0.001)]
RequestTimeout = Annotated[float, _http("Seconds that an answer may take, the queue included.", min=0.001)]
Origins = Annotated[list[str] | None, _http("Page in a browser that may ask, e.g. https://a.org; repeat.")]
Hosts = Annotated[list[str] | None, _http("Host from which pictures of conversations may be fetched (https); repeat.")]
LogFormat = Annotated[str, _http("One JSON object a line, or text.", metavar="json|text")]
Device = Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def serve(
    ctx: typer.Context,
    checkpoint: Checkpoint = None,
    checkpoint_option: CheckpointOption = None,
    protocol: ProtocolName = "auto",
    host: Host = "127.0.0.1",
    port: Port = None,
    api_key: ApiKey = None,
    token: Token = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    index: Index = None,
    model_name: ModelName = None,
    engine: EngineName = "auto",
    threads: Threads = 0,
    max_batch: Batch = 16,
    max_wait_ms: Wait = 5.0,
    max_queue: Queue = 128,
    max_body_mib: Body = 32,
    max_megapixels: Megapixels = 64.0,
    request_timeout: RequestTimeout = 120.0,
    cors_origin: Origins = None,
    fetch_from: Hosts = None,
    log_format: LogFormat = "json",
    n_action_steps: ActionSteps = None,
    ensemble_decay: Decay = None,
    denoising_steps: Steps = None,
    max_sensor_age: SensorAge = 0.1,
    require_sensor: RequireSensor = False,
    max_message_mib: MessageSize = 32,
    plan_timeout: PlanTimeout = 30.0,
    idle_timeout: IdleTimeout = 60.0,
    max_connections: Connections = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Serve a checkpoint until it is interrupted: over HTTP, or a policy's actions over a websocket to one robot."""
    run_command(lambda: _work(ctx), _show, as_json)


def _show(summary: dict[str, Any]) -> None:
    if "plans" in summary:
        typer.echo(f"Served {summary['plans']} plans to {summary['clients']} clients.")
    else:
        typer.echo(f"Answered {summary['answered']} requests.")


def _work(ctx: typer.Context) -> dict[str, Any]:
    """Serve by the options of a command; return what was done."""
    given = ctx.params
    path = _given_checkpoint(given["checkpoint"], given["checkpoint_option"])
    protocol = _chosen_protocol(given["protocol"], path)
    _check_options(ctx, protocol)
    place = {"host": given["host"], "port": _PORTS[protocol] if given["port"] is None else given["port"]}
    if protocol == "websocket":
        options = {name: given[name] for name in ("n_action_steps", "ensemble_decay", "denoising_steps")}
        options |= {"max_sensor_age_s": given["max_sensor_age"] or None, "require_sensor": given["require_sensor"]}
        limits = {"message_bytes": given["max_message_mib"] * 2**20, "plan_s": given["plan_timeout"]}
        limits |= {"idle_s": given["idle_timeout"], "connections": given["max_connections"] or 16}
        place |= {"token": given["token"], "certificate": given["tls_cert"], "key": given["tls_key"]}
        return _serve(path, given["device"], options, limits, place)
    from hfvla.cli.serving_http import serve_http

    place |= {"key": given["api_key"], "certificate": given["tls_cert"], "certificate_key": given["tls_key"]}
    place |= {"origins": given["cors_origin"] or (), "hosts": given["fetch_from"] or ()}
    limits = {"batch": given["max_batch"], "wait_s": given["max_wait_ms"] / 1000, "queue": given["max_queue"]}
    limits |= {"body_bytes": given["max_body_mib"] * 2**20, "pixels": int(given["max_megapixels"] * 1e6)}
    limits |= {"request_s": given["request_timeout"], "connections": given["max_connections"] or 512}
    _choose_log(given["log_format"])
    served = {"name": given["model_name"], **{name: given[name] for name in ("index", "engine", "threads")}}
    return serve_http(path, given["device"], limits, place, served)


def _given_checkpoint(argument: str | None, option: str | None) -> str:
    """Return the checkpoint, given as the argument or as the option.

    Raises:
        HfvlaError: neither or both, or a name that none can have.
    """
    if (argument is None) == (option is None):
        raise HfvlaError(
            "which checkpoint?", got="two" if argument is not None else "none",
            expected="a folder or a hub id, once: hfvla serve CHECKPOINT",
        )  # fmt: skip
    return str(argument if argument is not None else option)


def _chosen_protocol(protocol: str, checkpoint: str) -> str:
    """Return "http" or "websocket".

    A policy keeps a robot's episode from plan to plan, and stops when its sensor does, which needs a connection of its
    own; everything else is one request and one answer.

    Raises:
        HfvlaError: no such protocol.
    """
    if protocol not in ("auto", *_PORTS):
        raise HfvlaError("no such protocol", where="--protocol", got=protocol, expected="auto, http or websocket")
    if protocol != "auto":
        return protocol
    from hfvla.errors import CheckpointError
    from hfvla.registry import family_of_checkpoint
    from hfvla.serve.policy.runner import can_act

    try:
        spec = family_of_checkpoint(checkpoint)
    except CheckpointError:
        return "http"  # a plain model of transformers, or nothing: then this is said again when it is loaded
    return "websocket" if can_act(spec.load("model")) else "http"


def _check_options(ctx: typer.Context, protocol: str) -> None:
    """Refuse options of the other protocol, which would do nothing."""
    for name in (_WEBSOCKET if protocol == "http" else _HTTP).split():
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            raise HfvlaError(
                f"{flag} does nothing over {protocol}", fix="Leave it away, or choose another --protocol."
            )


def _choose_log(log_format: str) -> None:
    if log_format not in ("json", "text"):
        raise HfvlaError("no such log", where="--log-format", got=log_format, expected="json or text")
    if log_format == "json":
        from hfvla.serve.http.logs import log_as_json

        log_as_json()


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


def _warm_up(policy: Any, processor: ProcessorMixin) -> None:
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
