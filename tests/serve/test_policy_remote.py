"""A robot and its policy server on one machine: the same actions, one robot at a time, and every way to part."""

import base64
import hashlib
import http.client
import logging
import socket
import threading
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy import (
    ChunkPolicy,
    PolicyConnectionError,
    PolicyOptions,
    PolicyServer,
    PolicyServerError,
    PolicyStopped,
    ProtocolError,
    RemotePolicy,
)
from hfvla.serve.policy.arrays import pack, unpack

from .policy_fakes import ACTIONS, Gate, Model, Processor, observe, wait_until


def build(model=None, **options):
    return ChunkPolicy(model or Model(), Processor(), PolicyOptions(n_action_steps=4, **options))


@pytest.fixture
def serve():
    """Start servers on free ports; all are closed in the end."""
    servers = []

    def start(policy=None, **options):
        policy = policy or build()
        options = {"port": 0, "busy_wait_s": 0.05} | options
        servers.append(PolicyServer(policy, policy.facts, **options).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "hfvla-policy-server"]


def episode(policy, seed):
    policy.reset(seed)
    seen = [observe(state=float(number), brightness=3 * number, size=(90, 160)) for number in range(3)]
    return np.stack([policy.plan(one) for one in seen])


def test_remote_equals_local_to_the_bit(serve):
    server = serve()
    with RemotePolicy(server.url) as remote:
        assert remote.facts == build().facts
        for seed in (3, 4):
            far, near = episode(remote, seed), episode(build(), seed)
            assert far.dtype == near.dtype and far.tobytes() == near.tobytes()
        assert remote.server_s > 0
        answer = remote.ping()
    assert answer["plans"] == 6 and answer["uptime_s"] > 0 and answer["seconds"] > 0


def test_jpeg_comes_close(serve):
    model = Model()
    with RemotePolicy(serve(build(model)).url, jpeg_quality=95) as remote:
        remote.reset(0)
        remote.plan(observe(brightness=100, size=(90, 160)))
    picture = model.predicted[0].seen.views["front"]
    assert picture.shape == (90, 160, 3) and np.abs(picture.astype(int) - 100).max() <= 2
    with pytest.raises(HfvlaError, match="jpeg_quality; got 0"):
        RemotePolicy("ws://localhost:1", jpeg_quality=0)


def test_two_robots_one_after_the_other(serve):
    server = serve()
    with RemotePolicy(server.url) as first:
        episode(first, 1)
        with pytest.raises(PolicyServerError, match="busy with another robot"):
            RemotePolicy(server.url)
        first.plan(observe())  # and the first is not disturbed
    with RemotePolicy(server.url) as second:
        with pytest.raises(HfvlaError, match="plan before reset"):
            second.plan(observe())  # the first one's episode is not the second one's
        assert episode(second, 3).tobytes() == episode(build(), 3).tobytes()
    assert server.clients == 2


def test_errors_of_the_policy_arrive_and_the_session_goes_on(serve):
    with RemotePolicy(serve(build(safe_action=[0.0, 0.0, 1.0])).url) as remote:
        remote.reset(0)
        short = observe()
        object.__setattr__(short, "state", np.zeros(5, dtype=np.float32))
        with pytest.raises(DataError, match="state; got 5; expected 2") as refused:
            remote.plan(short)
        assert (refused.value.what, refused.value.got, refused.value.expected) == ("state", 5, 2)
        with pytest.raises(PolicyStopped, match="the sensor is stale") as stopped:
            remote.plan(observe(sensor_age_s=1.0))
        assert stopped.value.safe_action.tolist() == [0, 0, 1] and stopped.value.where == "sensor at 100.000 s"
        with pytest.raises(PolicyStopped, match="the sensor is stale"):
            remote.plan(observe())
        assert remote.connected
        remote.reset(0)
        assert remote.plan(observe()).shape == (4, ACTIONS)


def test_other_errors_on_the_server(serve, caplog):
    model = Model()
    with RemotePolicy(serve(build(model)).url) as remote, caplog.at_level(logging.ERROR, "hfvla"):
        remote.reset(0)

        def fail():
            raise RuntimeError("CUDA out of memory")

        model.before_predict = fail
        with pytest.raises(PolicyServerError, match="RuntimeError: CUDA out of memory"):
            remote.plan(observe())
        assert "Traceback" in caplog.text
        model.before_predict = lambda: None
        with pytest.raises(HfvlaError, match="plan before reset"):  # the episode is no longer known to be whole
            remote.plan(observe())
        remote.reset(0)
        remote.plan(observe())


def test_a_killed_server_is_an_error_and_never_an_old_plan(serve):
    server = serve()
    remote = RemotePolicy(server.url, timeout_s=2.0)
    remote.reset(0)
    remote.plan(observe())
    server.close()
    with pytest.raises(PolicyConnectionError, match=f"{server.url}: the policy server is gone.*Start it again"):
        remote.plan(observe())
    assert not remote.connected
    with pytest.raises(PolicyConnectionError, match="the connection is lost.*Call reset"):
        remote.plan(observe())
    with pytest.raises(PolicyConnectionError, match="no policy server.*hfvla serve"):
        remote.reset(0)
    serve(port=server.port)
    remote.reset(3)
    assert remote.plan(observe()).tobytes() == _first_plan(3)
    remote.close()
    remote.close()


def _first_plan(seed):
    policy = build()
    policy.reset(seed)
    return policy.plan(observe()).tobytes()


def test_a_server_started_anew_between_episodes_is_found(serve):
    server = serve()
    with RemotePolicy(server.url) as remote:
        remote.reset(0)
        server.close()
        wait_until(lambda: remote._connection.protocol.state.name != "OPEN")
        serve(port=server.port)
        remote.reset(3)
        assert remote.plan(observe()).tobytes() == _first_plan(3)


def test_a_pulled_cable_is_an_error(serve):
    server = serve()
    with RemotePolicy(server.url, timeout_s=2.0) as remote:
        remote.reset(0)
        server._connection.socket.shutdown(socket.SHUT_RDWR)  # without a word
        with pytest.raises(PolicyConnectionError, match="the policy server is gone"):
            remote.plan(observe())
        wait_until(lambda: server._connection is None)  # and the server is free again
        remote.reset(0)
        remote.plan(observe())


def test_an_answer_that_is_late_is_never_used(serve):
    model, gate = Model(), Gate()
    server = serve(build(model), busy_wait_s=5.0)
    with RemotePolicy(server.url, timeout_s=0.1) as remote:
        remote.reset(0)
        model.before_predict = gate
        start = time.monotonic()
        with pytest.raises(PolicyConnectionError, match="no answer in time; got 'nothing in 0.1 s'"):
            remote.plan(observe(state=1.0))
        assert 0.09 < time.monotonic() - start < 2.0
        with pytest.raises(PolicyConnectionError, match="the connection is lost"):
            remote.plan(observe(state=2.0))
        gate.opened.set()
        model.before_predict = lambda: None
        remote.timeout_s = 5.0
        remote.reset(0)
        assert remote.plan(observe(state=3.0))[0, 0] == 3.0


def test_a_server_that_stops_reading_does_not_hold_the_robot():
    """It shakes hands, says welcome, and never reads again: the message does not fit into the sockets' buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def pretend():
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(4096).decode()
                key = next(
                    line.split(": ")[1]
                    for line in request.split("\r\n")
                    if line.lower().startswith("sec-websocket-key")
                )
                digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
                )
                facts = {"horizon": 8, "action_dim": 3, "window_s": 0.1, "fps": 10.0}
                welcome = pack({"type": "welcome", "protocol": 1, "facts": facts, "max_message_bytes": 2**25})
                connection.sendall(bytes([0x82, 126]) + len(welcome).to_bytes(2, "big") + welcome)
                assert done.wait(10)

        thread = threading.Thread(target=pretend)
        thread.start()
        try:
            remote = RemotePolicy(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.15)
            start = time.monotonic()
            with pytest.raises(PolicyConnectionError, match="no answer in time"):
                remote._ask({"type": "plan", "much": np.zeros(20_000_000, np.uint8)}, "actions")
            assert time.monotonic() - start < 3.0
        finally:
            done.set()
            thread.join()


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PolicyConnectionError, match=f"ws://127.0.0.1:{port}: no policy server"):
        RemotePolicy(f"ws://127.0.0.1:{port}")
    with pytest.raises(PolicyConnectionError, match="no policy server"):
        RemotePolicy("not an address")


def test_a_taken_port_is_named(serve):
    server = serve()
    with pytest.raises(HfvlaError, match=f"127.0.0.1:{server.port}: cannot listen"):
        PolicyServer(build(), build().facts, port=server.port)


def test_other_versions_are_refused_by_both_sides(serve, monkeypatch):
    server = serve()
    monkeypatch.setattr("hfvla.serve.policy.client.PROTOCOL", 2)
    with pytest.raises(ProtocolError, match="server: protocol version; got 2; expected 1. Install the same version"):
        RemotePolicy(server.url)
    monkeypatch.undo()
    monkeypatch.setattr(PolicyServer, "_check_hello", staticmethod(lambda connection: connection.recv(timeout=5)))
    monkeypatch.setattr("hfvla.serve.policy.server.PROTOCOL", 2)  # a server that lets everybody in
    with pytest.raises(ProtocolError, match=r"answer to hello; got \('welcome', 2\); expected \('welcome', 1\)"):
        RemotePolicy(server.url)


def hello(url, message=None):
    """Open a connection by hand; return it after the welcome."""
    connection = connect(url, compression=None, proxy=None, max_size=None).__enter__()
    connection.send(pack(message or {"type": "hello", "protocol": 1}))
    return connection, unpack(connection.recv(timeout=5))


def closed_with(connection):
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(timeout=5)
    return closed.value.rcvd.code


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\xc1", "message"),
        ("text", "message"),
        (pack({"type": "plan"}), "'id' of message 'plan'"),
        (pack({"type": "dance", "id": 1}), "reset, plan or ping"),
        (pack({"type": "plan", "id": 1, "observation": {"views": 3}}), "'views'"),
        (pack({"type": "reset", "id": 1, "seed": "x"}), "'seed'"),
    ],
)
def test_malformed_messages_end_the_session(serve, message, problem):
    server = serve()
    connection, welcome = hello(server.url)
    assert welcome["type"] == "welcome"
    connection.send(message)
    answer = unpack(connection.recv(timeout=5))
    assert answer["type"] == "error" and answer["error"]["class"] == "ProtocolError"
    assert problem in answer["error"]["what"] + str(answer["error"]["expected"])
    assert closed_with(connection) == 1002
    with RemotePolicy(server.url) as remote:  # and the server lives on
        remote.reset(0)


def test_oversize_messages_are_refused_on_both_sides(serve):
    server = serve(max_message_bytes=10_000)
    with RemotePolicy(server.url) as remote:
        remote.reset(0)
        with pytest.raises(ProtocolError, match=r"size of the message; got '\d+ bytes'; expected at most 10000 bytes"):
            remote.plan(observe(size=(90, 160)))
        remote.plan(observe())  # nothing was sent, and the session goes on
    connection, _ = hello(server.url)
    connection.send(b"\0" * 20_000)
    assert closed_with(connection) == 1009


def test_a_first_message_that_is_no_hello(serve):
    _, answer = hello(serve().url, {"type": "reset", "id": 1, "seed": 0})
    assert answer["error"]["what"] == "first message" and answer["error"]["got"] == {"value": "reset"}


def test_pages_in_a_browser_may_not_connect_and_health_needs_no_session(serve):
    server = serve()
    with pytest.raises(InvalidStatus, match="403"):
        connect(server.url, origin="http://elsewhere", proxy=None).__enter__()
    with RemotePolicy(server.url) as remote:
        remote.reset(0)
        remote.plan(observe())
        answer = http.client.HTTPConnection(server.host, server.port, timeout=5)
        answer.request("GET", "/healthz")
        response = answer.getresponse()
        assert response.status == 200 and response.read() == b"ok busy, 1 plans\n"


def test_answers_that_break_the_protocol_are_refused(serve, monkeypatch):
    policy = build()
    server = serve(policy)
    for plan, problem in (
        (np.full((2, ACTIONS), np.nan), "expected finite numbers"),
        (np.zeros((2, 7)), r"got \(2, 7\)"),
        (np.zeros((0, ACTIONS)), r"got \(0, 3\)"),
    ):
        monkeypatch.setattr(policy, "plan", lambda observation, plan=plan: plan)
        with RemotePolicy(server.url) as remote:
            remote.reset(0)
            with pytest.raises(ProtocolError, match=problem):
                remote.plan(observe())
            assert not remote.connected


def test_an_answer_to_another_question_is_refused(serve, monkeypatch):
    server = serve()
    with RemotePolicy(server.url) as remote:
        remote.reset(0)
        monkeypatch.setattr("hfvla.serve.policy.server.pack", lambda message: pack(message | {"id": 99}))
        with pytest.raises(ProtocolError, match="id of the answer; got 99; expected 2"):
            remote.plan(observe())
        assert not remote.connected


def test_a_robot_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; from hfvla.serve.policy import RemotePolicy; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "False"
