"""The endpoints over a service without a model: bodies, refusals, limits, who gets in."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from hfvla.errors import DataError, PredictionError
from hfvla.serve.http import HttpLimits

from .http_fakes import HERE, Engine, as_text, client, picture, service

PNG = picture()


def test_a_request_in_json_and_as_a_form_is_the_same_request():
    asked = []
    engine = Engine(lambda one: asked.append(one) or {"ok": True})
    body = {
        "task": "go",
        "image": as_text(PNG),
        "views": {"front": "data:image/png;base64," + as_text(PNG)},
        "more": [as_text(PNG), as_text(PNG)],
        "state": [1.5, -2],
        "sensor": {"times_s": [0.1]},
        "top_k": 2,
        "words": ["a", "b"],
        "slow": True,
    }
    form = {
        "task": "go",
        "state": "1.5, -2",
        "sensor": '{"times_s": [0.1]}',
        "top_k": "2",
        "words": "a|b",
        "slow": "true",
    }
    files = [
        ("image", ("a.png", PNG)),
        ("views[front]", ("b.png", PNG)),
        ("more", ("c.png", PNG)),
        ("more", ("d", PNG)),
    ]
    with client(service(engine)) as http:
        for answer in (http.post("/ask", json=body), http.post("/predict", data=form, files=files)):
            assert answer.status_code == 200 and answer.json() == {"ok": True}, answer.text
    for one in asked:
        pictures = [one.pop("image"), one["views"].pop("front"), *one.pop("more")]
        assert all(isinstance(p, Image.Image) and p.getpixel((0, 0)) == (200, 30, 30) for p in pictures)
    assert asked[0] == asked[1]
    assert asked[0] == {"task": "go", "views": {}, "state": [1.5, -2], "sensor": {"times_s": [0.1]}, "top_k": 2,
                        "words": ["a", "b"], "slow": True}  # fmt: skip


def test_a_clip_lies_in_a_file_until_the_answer():
    seen = []

    def answer(one):
        seen.append((one["clip"], Path(one["clip"]).read_bytes()))
        return {}

    with client(service(Engine(answer))) as http:
        assert http.post("/ask", json={"task": "t", "clip": as_text(b"a clip")}).status_code == 200
        assert http.post("/ask", data={"task": "t"}, files={"clip": b"another"}).status_code == 200
    assert [content for _, content in seen] == [b"a clip", b"another"]
    assert not any(Path(path).exists() for path, _ in seen)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 422, "the request lacks 'task'"),
        ({"task": " "}, 422, "task: not a text"),
        ({"task": 3}, 422, "task: not a text"),
        ({"task": "t", "tsak": 1}, 422, "no field 'tsak'. Did you mean 'task'?"),
        ({"task": "t", "top_k": "3"}, 422, "top_k: not an integer"),
        ({"task": "t", "top_k": 0}, 422, "expected 1 or more"),
        ({"task": "t", "slow": 1}, 422, "slow: not a switch"),
        ({"task": "t", "image": "/etc/passwd"}, 400, "image: not base64"),
        ({"task": "t", "image": "https://a.org/x.png"}, 400, "addresses are not fetched"),
        ({"task": "t", "image": "data:image/png,abc"}, 400, "a data URI in another form"),
        ({"task": "t", "image": as_text(b"no picture")}, 422, "image: picture cannot be read"),
        ({"task": "t", "image": as_text(picture(kind="JPEG")[:400])}, 422, "image: picture cannot be read"),
        ({"task": "t", "image": 7}, 422, "image: not a picture"),
        ({"task": "t", "views": {"a": 7}}, 422, "views a: not a picture"),
        ({"task": "t", "more": "x"}, 400, "more: not base64"),
        ({"task": "t", "state": [1, "a"]}, 422, "state: not numbers"),
        ({"task": "t", "folder": "/tmp"}, 422, "no field 'folder'"),
        ({"task": "t", "sheet": "x.png"}, 422, "no field 'sheet'"),
        ({"task": "t" * 20_001}, 413, "task: the text is too long"),
        ({"task": "t", "sensor": {"a": ["b" * 20_001]}}, 413, "sensor: the text is too long"),
        ({"task": "t", "more": [as_text(PNG)] * 17}, 413, "too many pictures"),
        ({"task": "t", "state": [0] * 1_000_001}, 413, "too many values"),
        ({"task": "t", "image": as_text(picture(1, (9000, 8000), mode="1"))}, 413, "9000 x 8000 pixels"),
    ],
)
def test_what_cannot_be_asked_is_told_where_and_why(body, status, told):
    engine = Engine()
    with client(service(engine)) as http:
        answer = http.post("/ask", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, engine.batches) == (status, []), answer.text
    assert told in error["message"] and error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "told"),
    [
        (b"{", "application/json", 400, "the body is not JSON"),
        (b"[1]", "application/json", 400, "the body is no object; got 'list'"),
        (b'{"task": "a", "task": "b"}', "application/json", 400, "a key stands twice"),
        (b'{"state": [NaN]}', "application/json", 400, "NaN is no number"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "application/json", 400, "the body is not JSON"),
        (b'{"top_k": ' + b"9" * 5000 + b"}", "application/json", 400, "the body is not JSON"),
        (b"\xff\xfe", "application/json", 400, "the body is not JSON"),
        (b"task=go", "application/x-www-form-urlencoded", 415, "no such content type"),
        (b"{}", "", 415, "got 'none'"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "the form cannot be read"),
        (b"nonsense", "multipart/form-data", 400, "the form cannot be read"),
    ],
)
def test_a_body_that_is_none(content, kind, status, told):
    with client(service()) as http:
        answer = http.post("/ask", content=content, headers={"content-type": kind})
    assert answer.status_code == status and told in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize("field", ["state", "sensor"])
def test_a_text_of_a_form_is_never_the_name_of_a_file(field, tmp_path):
    (tmp_path / "secret.json").write_text("[1, 2]")
    engine = Engine()
    with client(service(engine)) as http:
        answer = http.post("/ask", files={"task": (None, "t"), field: (None, str(tmp_path / "secret.json"))})
    assert answer.status_code == 400 and "the body is not JSON" in answer.text and not engine.batches


def test_a_file_in_place_of_a_value():
    with client(service()) as http:
        answer = http.post("/ask", files={"task": ("a.txt", b"go")})
    assert answer.status_code == 400 and "task: a file in place of a value" in answer.text


def test_errors_of_a_family_and_of_ours():
    def answer(one):
        found = {"data": DataError("no such lane"), "scores": PredictionError("not finite", got=[float("nan")])}
        return found.get(one["task"]) or (
            ZeroDivisionError("secret path") if one["task"] == "bug" else {"x": float("nan")}
        )

    with client(service(Engine(answer))) as http:
        told = {task: http.post("/ask", json={"task": task}) for task in ("data", "scores", "bug", "nan")}
    assert {task: one.status_code for task, one in told.items()} == {
        "data": 422,
        "scores": 500,
        "bug": 500,
        "nan": 500,
    }
    assert "secret" not in told["bug"].text and "its log says why" in told["bug"].text
    assert told["scores"].json()["error"]["type"] == "PredictionError"
    assert "not finite" in told["nan"].text


def test_a_body_that_is_too_large_is_not_read_to_its_end():
    limits = HttpLimits(body_bytes=1000)

    with client(service(), limits) as http:
        told = http.post("/ask", content=b"x" * 1001, headers={"content-type": "application/json"})
        streamed = http.post("/ask", content=iter([b"x" * 600] * 3), headers={"content-type": "application/json"})
    for answer in (told, streamed):
        assert answer.status_code == 413 and answer.headers["connection"] == "close"
        assert "expected at most 1000 bytes" in answer.text


def test_all_bodies_and_all_pixels_together_are_limited():
    with client(service(), HttpLimits(all_body_bytes=100)) as http:
        answer = http.post("/ask", json={"task": "t" * 200})
        assert (
            answer.status_code == 429 and "bytes of requests" in answer.text and answer.headers["retry-after"] == "1"
        )
    with client(service(), HttpLimits(all_pixels=1000)) as http:
        answer = http.post("/ask", json={"task": "t", "image": as_text(PNG)})
        assert answer.status_code == 429 and "too many pixels" in answer.text
        assert http.post("/ask", json={"task": "t"}).status_code == 200


def test_what_was_held_is_given_back_after_right_and_wrong_answers():
    with client(service(), HttpLimits(all_pixels=1100, requests=1, all_body_bytes=2000)) as http:
        for _ in range(3):
            assert http.post("/ask", json={"task": "t", "image": as_text(PNG)}).status_code == 200
            assert http.post("/ask", json={"task": "", "image": as_text(PNG)}).status_code == 422


def test_the_key():
    with client(service(), key="a-word") as http:
        assert http.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer other"}, {"x-api-key": ""}, {"authorization": "a-word"}):
            answer = http.post("/ask", json={"task": "t"}, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        for path in ("/metrics", "/model_info", "/openapi.json"):
            assert http.get(path).status_code == 401
        for headers in (
            {"authorization": "Bearer a-word"},
            {"x-api-key": "a-word"},
            {"authorization": "bearer a-word"},
        ):
            assert http.post("/ask", json={"task": "t"}, headers=headers).status_code == 200


def test_pages_of_other_origins_and_made_up_names_are_refused():
    with client(service(), origins=["https://friend.org"]) as http:
        ask = {"json": {"task": "t"}}
        assert http.post("/ask", **ask, headers={"origin": HERE}).status_code == 200
        friend = http.post("/ask", **ask, headers={"origin": "https://friend.org"})
        assert friend.status_code == 200 and friend.headers["access-control-allow-origin"] == "https://friend.org"
        stranger = http.post("/ask", **ask, headers={"origin": "https://evil.org"})
        assert stranger.status_code == 403 and "access-control-allow-origin" not in stranger.headers
        assert http.get("/health", headers={"host": "evil.org"}).status_code == 403
        assert http.get("/health", headers={"host": "localhost:9"}).status_code == 200
    with client(service(), loopback=False) as http:
        assert http.get("/health", headers={"host": "any.name"}).status_code == 200
        assert "access-control-allow-origin" not in http.post("/ask", **ask, headers={"origin": HERE}).headers


def test_no_place_and_no_method():
    with client(service()) as http:
        assert http.get("/nowhere").json()["error"]["got"] == "GET /nowhere"
        answer = http.get("/ask")
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_what_the_server_says_of_itself():
    with client(service(facts={"robots": [{"name": "Drone"}]}, info={"checkpoint": "c"})) as http:
        health = http.get("/health").json()
        assert health["status"] == "ok" and http.get("/healthz").status_code == 200
        info = http.get("/model_info").json()
        assert (info["model"], info["family"], info["engine"], info["checkpoint"]) == ("tiny", "made", "test", "c")
        assert info["limits"]["pixels"] == 64_000_000
        assert http.get("/robots").json() == {"robots": [{"name": "Drone"}]}
        assert http.get("/schema").json()["required"] == ["task"]
        assert http.get("/v1/models").status_code == 404 and http.post("/search", json={}).status_code == 404


def test_openapi_says_how_to_ask_and_its_example_is_answered():
    with client(service()) as http:
        page = http.get("/openapi.json").json()
        body = page["paths"]["/ask"]["post"]["requestBody"]["content"]
        assert set(body) == {"application/json", "multipart/form-data"}
        properties = body["application/json"]["schema"]["properties"]
        assert "folder" not in properties and properties["image"]["contentEncoding"] == "base64"
        assert properties["views"]["additionalProperties"]["contentEncoding"] == "base64"
        assert body["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
        example = body["application/json"]["examples"]["a request"]["value"]
        assert example["task"] == "go" and http.post("/ask", json=example).status_code == 200


def test_metrics_count_by_known_paths_only():
    with client(service()) as http:
        http.post("/ask", json={"task": "t"})
        http.post("/ask", json={})
        http.get("/made-up-by-a-client")
        text = http.get("/metrics").text
    assert 'hfvla_requests_total{path="/ask",status="200"} 1.0' in text
    assert 'hfvla_requests_total{path="/ask",status="422"} 1.0' in text
    assert 'hfvla_requests_total{path="other",status="404"} 1.0' in text and "made-up" not in text
    assert "hfvla_batch_size_count 1.0" in text and "process_resident_memory_bytes" in text


def test_one_line_a_request_in_json(caplog):
    from hfvla.serve.http.logs import JsonFormatter

    with client(service()) as http, caplog.at_level(logging.INFO, "hfvla.serve.http.access"):
        http.post("/ask", json={"task": "t"}, headers={"x-request-id": "my-id.1"})
        http.get("/a%0Ab", headers={"x-request-id": "not\x7fan id"})
    one, two = (json.loads(JsonFormatter().format(record)) for record in caplog.records)
    assert (one["request_id"], one["path"], one["status"], one["batch"]) == ("my-id.1", "/ask", 200, 1)
    assert one["ms"] >= one["queue_ms"] >= 0 and one["level"] == "INFO" and "T" in one["time"]
    assert two["path"] == "/a\nb" and len(two["request_id"]) == 32
    assert "\n" not in JsonFormatter().format(caplog.records[1])


def test_limits_must_be_limits():
    from hfvla.errors import HfvlaError
    from hfvla.serve.http.limits import given_key

    with pytest.raises(HfvlaError, match="limit 'batch' of a server; got 0"):
        HttpLimits(batch=0)
    with pytest.raises(HfvlaError, match="the API key; got '5 characters'"):
        given_key("a b c")


def test_the_key_of_the_environment(monkeypatch):
    from hfvla.serve.http.limits import given_key

    monkeypatch.setenv("HFVLA_API_KEY", "from-there")
    assert given_key(None) == "from-there" and given_key("mine") == "mine"
