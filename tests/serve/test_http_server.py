"""The server on a real socket: slow and silent clients, those who leave, the end, and what does not fit."""

import json
import socket
import threading
import time

import pytest

from hfvla.errors import CheckpointError, HfvlaError, OutOfMemoryError
from hfvla.serve.http import HttpLimits, HttpServer, bind, load_service
from hfvla.serve.http.loading import check_room

from .http_fakes import Engine, as_text, parts, picture, service

httpx = pytest.importorskip("httpx")


def serve(served=None, limits=None, **options):
    return HttpServer(served or service(), limits or HttpLimits(drain_s=2.0), bind("127.0.0.1", 0), **options)


def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=5)


def read_all(connection):
    found = b""
    while part := connection.recv(4096):
        found += part
    return found


def test_a_request_over_the_wire():
    with serve() as server:
        answer = httpx.post(server.url + "/ask", json={"task": "go"})
        assert answer.json() == {"task": "go"} and "server" not in answer.headers
        for _ in range(100):  # it is counted when all of it is sent
            if server.answered:
                break
            time.sleep(0.05)
        for _ in range(100):  # it is counted when all of it is sent
            if server.answered:
                break
            time.sleep(0.05)
        assert server.answered == 1


def test_who_says_nothing_or_half_of_it_is_let_go():
    limits = HttpLimits(header_s=0.3, body_s=0.3, drain_s=1.0)
    with serve(limits=limits) as server:
        silent, half, body = connect(server), connect(server), connect(server)
        half.sendall(b"POST /ask HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        body.sendall(b"POST /ask HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n{")
        assert httpx.post(server.url + "/ask", json={"task": "go"}).status_code == 200  # others are not disturbed
        assert read_all(silent) == b"" and read_all(half) == b""
        told = read_all(body)
        assert b" 408 " in told and b"the request came too slowly" in told
        # The second request of a connection, half of which comes.
        again = connect(server)
        again.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        answer = b""
        while b"}" not in answer:
            answer += again.recv(4096)
        again.sendall(b"GET /health HTTP/1.1\r\n")
        assert read_all(again) == b""


def test_more_connections_than_places_are_told():
    with serve(limits=HttpLimits(connections=2, drain_s=1.0)) as server:
        held = [connect(server) for _ in range(2)]
        time.sleep(0.1)
        told = read_all(connect(server))
        assert b" 429 " in told and b"retry-after: 1" in told
        held[0].close()
        time.sleep(0.1)
        assert httpx.get(server.url + "/health").status_code == 200


def test_no_request_at_all_is_answered_and_forgotten():
    with serve() as server:
        with connect(server) as nonsense:
            nonsense.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert b" 400 " in read_all(nonsense)
        with connect(server) as endless:
            endless.sendall(b"GET /" + b"a" * 70_000)
            assert b" 400 " in read_all(endless)
        assert httpx.get(server.url + "/health").json()["status"] == "ok"


def test_the_answer_of_one_who_left_is_not_sent_and_does_not_stay():
    begun, released = threading.Event(), threading.Event()

    def answer(asked):
        begun.set()
        released.wait(5)
        return {}

    with serve(service(Engine(answer)), HttpLimits(batch=1, drain_s=2.0)) as server:
        body = json.dumps({"task": "go", "image": as_text(picture())}).encode()
        head = b"POST /ask HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        first, second = connect(server), connect(server)
        first.sendall(head % len(body) + body)
        assert begun.wait(5)
        second.sendall(head % len(body) + body)
        time.sleep(0.1)
        first.close()
        second.close()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            text = httpx.get(server.url + "/metrics").text
            if "hfvla_dropped_total 2.0" in text:
                break
            time.sleep(0.02)
        assert "hfvla_dropped_total 2.0" in text
        released.set()
        assert httpx.post(server.url + "/ask", json={"task": "go"}).status_code == 200
        assert 'status="500"' not in httpx.get(server.url + "/metrics").text


def test_the_end_waits_for_answers():
    begun, found = threading.Event(), []

    def answer(asked):
        begun.set()
        time.sleep(0.3)
        return {"late": True}

    with serve(service(Engine(answer))) as server:
        asker = threading.Thread(target=lambda: found.append(httpx.post(server.url + "/ask", json={"task": "go"})))
        asker.start()
        assert begun.wait(5)
    asker.join()
    assert found[0].json() == {"late": True}
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/health")


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(HfvlaError, match="cannot listen.*another"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(HfvlaError, match="300.300.1.1:1: cannot listen"):
        bind("300.300.1.1", 1)


def test_it_warns_of_strangers(caplog):
    server = serve(host="0.0.0.0", key="short")
    server._socket.close()
    assert "the API key is short" in caplog.text and "without encryption" in caplog.text
    caplog.clear()
    serve(host="0.0.0.0")._socket.close()
    assert "without an API key" in caplog.text
    caplog.clear()
    serve()._socket.close()
    assert not caplog.text


def test_a_model_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    _, model, _ = parts("ember_vlm")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("hfvla.serve.http.loading._free_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemoryError, match="too large for the device.*free on cpu.*another --device"):
        check_room(str(tmp_path), "cpu")
    with pytest.raises(OutOfMemoryError, match=r"GiB of weights"):
        load_service(str(tmp_path), "cpu")
    monkeypatch.undo()
    check_room(str(tmp_path), "cpu")


def test_a_plain_model_of_transformers_chats(tmp_path):
    from .test_http_chat import plain

    model, processor = plain()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    served = load_service(str(tmp_path), "cpu", name="mine")
    assert served.family == "chat_vlm" and served.chat is not None
    with serve(served) as server:
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "model": "mine"}
        assert httpx.post(server.url + "/v1/chat/completions", json=body).status_code == 200
        assert httpx.post(server.url + "/predict", json={}).status_code == 422  # what the family needs is missing
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        load_service(str(tmp_path), "cpu")


def test_a_family_that_answers_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="another model type; got 'bert'"):
        load_service(str(tmp_path), "cpu")
