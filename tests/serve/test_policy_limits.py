"""What a policy server lets in, for how long, and what is left of it for the robot that is there."""

import http.client
import io
import logging
import shutil
import socket
import subprocess
import threading
import time

import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy import (
    ChunkPolicy,
    PolicyConnectionError,
    PolicyOptions,
    PolicyServer,
    PolicyServerError,
    ProtocolError,
    RemotePolicy,
    ServerLimits,
)
from hfvla.serve.policy import arrays as arrays_module
from hfvla.serve.policy.arrays import pack, unpack
from hfvla.serve.policy.limits import TOKEN_VARIABLE, check_token, server_tls

from .policy_fakes import Gate, Model, Processor, observe, wait_until

TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def serve():
    servers = []

    def start(model=None, **limits):
        more = {name: limits.pop(name) for name in ("token", "certificate", "key") if name in limits}
        policy = ChunkPolicy(model or Model(), Processor(), PolicyOptions(n_action_steps=4))
        limits = ServerLimits(**{"penalty_s": 0.0, **limits})
        server = PolicyServer(policy, policy.facts, port=0, busy_wait_s=0.05, limits=limits, **more)
        servers.append(server.__enter__())
        return server

    yield start
    for server in servers:
        server.close()


def raw(url):
    return connect(url, compression=None, proxy=None, max_size=None).__enter__()


def outcome(connection, data):
    """Send and return (error message or None, close code)."""
    answer = None
    with pytest.raises(ConnectionClosed) as closed:
        connection.send(data)
        while True:
            answer = unpack(connection.recv(timeout=10))
    return answer and answer["error"], closed.value.rcvd.code if closed.value.rcvd else None


def jpeg(width, height, **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 10, 10)).save(file, "JPEG", **options)
    return file.getvalue()


# ---- before a session ----------------------------------------------------------------------------------------------


def test_a_large_hello_is_refused_by_its_header_and_disturbs_nobody(serve):
    server = serve()
    with RemotePolicy(server.url) as robot:
        robot.reset(0)
        for data in (b"\0" * 5000, pack({"type": "hello", "protocol": 1, "more": np.zeros(31 * 2**20, np.uint8)})):
            _, code = outcome(raw(server.url), data)
            assert code in (1009, None)  # None: cut while the rest was still being sent
            robot.plan(observe())
    assert server.plans == 2


def test_a_picture_in_a_hello_is_not_decoded(serve, monkeypatch):
    monkeypatch.setattr(arrays_module, "_picture", None)
    hello = msgpack.packb({"type": "hello", "protocol": 1, "x": msgpack.ExtType(2, jpeg(64, 64))})
    error, code = outcome(raw(serve().url), hello)
    assert error["what"] == "JPEG pictures in a message" and error["expected"]["value"] == "at most 0" and code == 1002


def test_who_says_nothing_loses_its_place(serve):
    server = serve(hello_s=0.1, connections=1)
    silent = raw(server.url)
    with RemotePolicy(server.url) as robot:  # let in once the silent one is out
        robot.reset(0)
    with pytest.raises(ConnectionClosed):
        while True:
            silent.recv(timeout=5)


def test_only_so_many_connections_are_open(serve):
    server = serve(connections=2, hello_s=30.0)
    first, second = raw(server.url), raw(server.url)
    with pytest.raises(PolicyConnectionError, match="no policy server"):
        RemotePolicy(server.url, connect_timeout_s=0.3)
    first.close()
    with RemotePolicy(server.url) as robot:
        robot.reset(0)
    second.close()


def test_who_is_refused_keeps_its_place_for_a_while(serve):
    server = serve(connections=1, penalty_s=0.3)
    start = time.monotonic()
    outcome(raw(server.url), b"\xc1")
    with RemotePolicy(server.url) as robot:
        robot.reset(0)
    assert time.monotonic() - start > 0.25


# ---- in a session --------------------------------------------------------------------------------------------------


def plan_message(**changes):
    views = {name: np.zeros((4, 6, 3), np.uint8) for name in Processor.views}
    seen = {"views": views, "state": np.zeros(2, np.float32), "task": "go", "time_s": 100.0, "sensor": None}
    return {"type": "plan", "id": 2, "observation": {**seen, **changes}}


def in_session(server, data):
    connection = raw(server.url)
    connection.send(pack({"type": "hello", "protocol": 1}))
    connection.recv(timeout=5)
    connection.send(pack({"type": "reset", "id": 1, "seed": 0}))
    connection.recv(timeout=5)
    return outcome(connection, data)


def pictures(*files):
    views = {f"v{number}": msgpack.ExtType(2, file) for number, file in enumerate(files)}
    message = plan_message()
    message["observation"] |= {"views": views, "state": None}
    return msgpack.packb(message)


def test_pixels_are_summed_from_headers_before_one_is_decoded(serve, monkeypatch):
    monkeypatch.setattr(arrays_module, "_picture", None)
    server, bomb = serve(), jpeg(4000, 3900)
    for data, problem in (
        (pictures(bomb, bomb), "4000 x 3900 after 15600000 pixels of others"),
        (pictures(jpeg(8000, 8000)), "8000 x 8000"),
    ):
        error, code = in_session(server, data)
        assert error["what"] == "size of a JPEG picture" and error["got"]["value"] == problem and code == 1002


@pytest.mark.parametrize("count", [17, 355])
def test_only_so_many_pictures(serve, monkeypatch, count):
    monkeypatch.setattr(arrays_module, "_picture", None)
    error, _ = in_session(serve(), pictures(*[jpeg(16, 16)] * count))
    assert error["what"] == "JPEG pictures in a message" and error["got"]["value"] == 17
    raws = {f"v{number}": np.zeros((1, 1, 3), np.uint8) for number in range(count)}
    error, _ = in_session(serve(), pack(plan_message(views=raws)))
    assert error["what"] == "views of an observation"


def test_a_picture_of_many_scans_is_refused():
    whole = jpeg(64, 64, progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    data = msgpack.packb({"type": "x", "a": msgpack.ExtType(2, whole[:-2] + scan * 80 + whole[-2:])})
    with pytest.raises(ProtocolError, match="scans of a JPEG picture; got [0-9]+; expected at most 64"):
        unpack(data)
    assert unpack(msgpack.packb({"type": "x", "a": msgpack.ExtType(2, whole)}))["a"].shape == (64, 64, 3)


@pytest.mark.parametrize("one", [b"\x80", b"\x90", b"\xc0", b"\xcd\x10\x00"])
def test_values_that_are_larger_in_memory_than_on_the_wire_are_counted(one):
    inner = b"\xdc" + (9000).to_bytes(2, "big") + one * 9000
    data = b"\x82" + msgpack.packb("type") + msgpack.packb("x") + msgpack.packb("a")
    data += b"\xdc" + (2000).to_bytes(2, "big") + inner * 2000
    with pytest.raises(ProtocolError, match="values in a message; got '2[0-9]{4} so far'; expected at most 20000"):
        unpack(data)


@pytest.mark.parametrize("depth", [400, 900, 1020])
def test_lists_in_lists_are_refused_or_read(depth):
    data = b"\x82" + msgpack.packb("type") + msgpack.packb("x") + msgpack.packb("a") + b"\x91" * depth + b"\xc0"
    try:
        unpack(data)
    except ProtocolError as error:
        assert "message" in str(error)


@pytest.mark.parametrize(
    ("task", "got"), [("go " * 257, "257 words"), ("x" * 5000, "5000 characters"), ("a " * 10_000, "20000 characters")]
)
def test_a_long_task_is_refused_and_the_session_goes_on(serve, task, got):
    model = Model()
    with RemotePolicy(serve(model).url) as robot:
        robot.reset(0)
        with pytest.raises(DataError, match=f"task: the task is too long; got '{got}'; expected at most 256 words"):
            robot.plan(observe(task=task))
        assert not model.predicted
        robot.plan(observe(task="go " * 256))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"time_s": float("nan")}, "time of an observation"),
        ({"time_s": float("inf")}, "time of an observation"),
        ({"sensor": {"times_s": np.array([1.0, np.nan]), "values": np.zeros((2, 1))}}, "times of a sensor"),
        ({"views": {"v" * 101: np.zeros((1, 1, 3), np.uint8)}}, "name of a view"),
    ],
)
def test_numbers_and_names_that_would_pass_every_check_are_refused(serve, changes, problem):
    error, _ = in_session(serve(), pack(plan_message(**changes)))
    assert error["class"] == "ProtocolError" and error["what"] == problem


def test_a_seed_is_a_number_of_64_bits_and_a_type_a_short_word(serve):
    error, _ = in_session(serve(), pack({"type": "reset", "id": 2, "seed": 2**64 - 1}))
    assert "'seed'" in error["what"]
    error, _ = in_session(serve(), pack({"type": "x\n" * 1000, "id": 2}))
    assert error["what"] == "type of a message" and error["got"]["value"] == "2000 letters"


def test_a_plan_that_takes_too_long_is_told_and_frees_the_server_when_it_ends(serve):
    model, gate = Model(), Gate()
    server = serve(model, plan_s=0.1)
    with RemotePolicy(server.url, timeout_s=5.0) as robot:
        robot.reset(0)
        model.before_predict = gate
        with pytest.raises(
            PolicyServerError, match="the plan takes too long; got '0.1 s so far'; expected at most 0.1 s"
        ):
            robot.plan(observe())
        assert not robot.connected
        with pytest.raises(PolicyServerError, match="busy"):
            RemotePolicy(server.url)
        model.before_predict = lambda: None
        gate.opened.set()
        wait_until(lambda: not server._session.locked())
        robot.reset(0)
        robot.plan(observe())


def test_a_silent_robot_loses_the_server_and_pings_do_not_help(serve):
    server = serve(idle_s=0.3)
    with RemotePolicy(server.url) as first:
        first.reset(0)
        start = time.monotonic()
        with pytest.raises((PolicyServerError, PolicyConnectionError, ProtocolError)):
            while time.monotonic() - start < 5.0:
                first.ping()
                time.sleep(0.05)
        assert 0.2 < time.monotonic() - start < 2.0
        with RemotePolicy(server.url) as second:
            second.reset(0)
        first.reset(0)  # and it comes back as after any lost connection
        first.plan(observe())


def test_one_that_never_asks_does_not_hold_the_robot(serve):
    server = serve(idle_s=0.2)
    holder = raw(server.url)
    holder.send(pack({"type": "hello", "protocol": 1}))
    holder.recv(timeout=5)
    with pytest.raises(PolicyServerError, match="busy"):
        RemotePolicy(server.url)
    answer = unpack(holder.recv(timeout=5))
    assert "silent" in answer["error"]["what"]
    with RemotePolicy(server.url) as robot:
        robot.reset(0)


# ---- token and certificate -----------------------------------------------------------------------------------------


def test_without_the_token_nobody_gets_in(serve, monkeypatch):
    server = serve(token=TOKEN)
    with pytest.raises(PolicyConnectionError, match=f"the server wants a token.*{TOKEN_VARIABLE}"):
        RemotePolicy(server.url)
    for wrong in (TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        with pytest.raises(PolicyConnectionError, match="the server wants another token"):
            RemotePolicy(server.url, token=wrong)
    with RemotePolicy(server.url, token=TOKEN) as robot:
        robot.reset(0)
        assert len(robot.plan(observe())) == 4
        robot.close()
        robot.reset(1)  # it connects anew with the token
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with RemotePolicy(server.url) as robot:
        robot.reset(0)
    health = http.client.HTTPConnection(server.host, server.port, timeout=5)
    health.request("GET", "/healthz")
    assert health.getresponse().status == 200
    assert server.clients == 3


def test_a_server_without_a_token_takes_any(serve):
    server = serve()
    with RemotePolicy(server.url, token="whatever-it-is") as robot:
        robot.reset(0)
        assert len(robot.plan(observe())) > 0
    assert server.clients == 1


@pytest.mark.parametrize("token", ["", "two words", "ключ", "a\nb"])
def test_tokens_that_cannot_travel_are_refused(serve, token):
    with pytest.raises(HfvlaError, match="the token; got"):
        serve(token=token)
    with pytest.raises(HfvlaError, match="the token; got"):
        RemotePolicy("ws://127.0.0.1:1", token=token)


@pytest.mark.parametrize(
    "header", [None, "", TOKEN, f"bearer {TOKEN}", f"Bearer {TOKEN} ", "Bearer \udcff", "Basic x"]
)
def test_headers_that_are_not_the_token(header):
    assert not check_token(header, TOKEN) and check_token(header, None) and check_token(f"Bearer {TOKEN}", TOKEN)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_with_a_certificate_the_connection_is_encrypted_and_checked(serve, certificate):
    server = serve(certificate=certificate[0], key=certificate[1], token=TOKEN)
    assert server.url.startswith("wss://127.0.0.1:")
    with RemotePolicy(server.url, token=TOKEN, authority=certificate[0]) as robot:
        robot.reset(0)
        robot.plan(observe())
    with pytest.raises(PolicyConnectionError, match="certificate"):
        RemotePolicy(server.url, token=TOKEN)
    with pytest.raises(PolicyConnectionError):
        RemotePolicy(server.url.replace("wss", "ws"), token=TOKEN, connect_timeout_s=2.0)


def test_certificates_that_cannot_be_used(tmp_path):
    (tmp_path / "empty.pem").touch()
    for given, problem in (
        ((tmp_path / "none.pem", None), "No such file"),
        ((tmp_path / "empty.pem", None), "cannot be used"),
        ((tmp_path, None), "cannot be used"),
        ((None, tmp_path / "empty.pem"), "a key without a certificate"),
    ):
        with pytest.raises(HfvlaError, match=problem):
            server_tls(*given)
    with pytest.raises(HfvlaError, match="cannot be used"):
        RemotePolicy("wss://127.0.0.1:1", authority=tmp_path / "empty.pem")


@pytest.mark.parametrize(
    ("host", "token", "warnings"),
    [("127.0.0.1", None, 0), ("0.0.0.0", None, 2), ("0.0.0.0", TOKEN, 1), ("127.0.0.1", "short", 1), ("", None, 2)],
)
def test_listening_to_others_is_warned_of(host, token, warnings, caplog):
    policy = ChunkPolicy(Model(), Processor())
    with caplog.at_level(logging.WARNING, "hfvla"):
        server = PolicyServer(policy, policy.facts, host=host, port=0, token=token)
        server.close()
    assert len(caplog.records) == warnings, caplog.text


@pytest.mark.parametrize("name", ["plan_s", "idle_s", "connections", "message_bytes"])
def test_limits_that_are_none(name):
    with pytest.raises(HfvlaError, match=f"limit '{name}'.*got 0"):
        ServerLimits(**{name: 0})


def test_closing_does_not_wait_for_those_outside():
    policy = ChunkPolicy(Model(), Processor())
    limits = ServerLimits(connections=1, penalty_s=30.0, hello_s=30.0)
    with PolicyServer(policy, policy.facts, port=0, limits=limits) as server:
        outcome(raw(server.url), b"\xc1")
        waiting = socket.create_connection((server.host, server.port))
        start = time.monotonic()
    assert time.monotonic() - start < 5.0
    waiting.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "hfvla-policy-server"]
