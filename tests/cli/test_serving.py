"""`hfvla serve`: what it loads, what it serves, what it refuses."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from hfvla.cli import main
from hfvla.data.signals.observation import Observation
from hfvla.serve.policy import PolicyServer, RemotePolicy


class Policy:
    """A model class that predicts actions: zeros, one more at each call."""

    calls = 0

    def predict_actions(self, processor, observations, *, features=None, prefix=None, steps=None, generator=None):
        Policy.calls += 1
        return np.full((1, 4, 2), float(steps or 0), dtype=np.float32)

    def to(self, device):
        self.device = device
        return self


@pytest.fixture
def family(monkeypatch):
    """A family of policies whose processor can make an observation up."""
    example = Observation({"front": np.zeros((4, 4, 3), np.uint8)}, np.zeros(1, np.float32), "go")
    processor = SimpleNamespace(
        horizon=4, action_dim=2, window_s=0.0, fps=10.0, check_observation=lambda observation: None,
        example_observation=lambda: example,
    )  # fmt: skip
    loaded, model = [], Policy()
    spec = SimpleNamespace(name="made", load={"model": Policy}.__getitem__)
    monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: spec)
    monkeypatch.setattr("hfvla.registry.load_checkpoint", lambda path: loaded.append(path) or (spec, model, processor))
    Policy.calls = 0
    return SimpleNamespace(spec=spec, loaded=loaded, model=model, example=example)


@pytest.fixture
def serve(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["serve", *words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err)

    return call


def test_a_checkpoint_is_served_until_it_is_interrupted(serve, family, monkeypatch):
    plans = []

    def robot(server, timeout_s=None):
        with RemotePolicy(server.url) as policy:
            policy.reset(0)
            plans.append(policy.plan(family.example))
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not interrupted")

    monkeypatch.setattr(PolicyServer, "wait", robot)
    before = signal.getsignal(signal.SIGTERM)
    words = ["c", "--port", "0", "--n-action-steps", "2", "--denoising-steps", "7", "--device", "cpu"]
    done = serve(*words, "--json")
    assert done.code == 0 and json.loads(done.out) == {"clients": 1, "plans": 1}
    assert plans[0].tolist() == [[7.0, 7.0]] * 2 and family.model.device == "cpu"
    assert "serving c on ws://127.0.0.1:" in done.err and "a plan takes" in done.err
    assert Policy.calls == 3  # two to warm up
    assert signal.getsignal(signal.SIGTERM) == before
    assert "Served 1 plans to 1 clients." in serve(*words).out


def test_a_family_without_actions_is_refused_before_its_weights_are_read(serve, family):
    family.spec.load = {"model": object}.__getitem__
    done = serve("c", "--protocol", "websocket")
    assert done.code == 2 and "c: this family predicts no actions; got 'made'" in done.err and not family.loaded


def test_a_port_that_is_taken(serve, family):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve("c", "--port", str(taken.getsockname()[1]))
    assert done.code == 2 and "cannot listen" in done.err


@pytest.mark.parametrize("name", ["ember_vlm"])
def test_real_families_without_actions(serve, name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    done = serve(str(tmp_path), "--protocol", "websocket")
    assert done.code == 2 and f"got '{name}'" in done.err and "hfvla predict" in done.err


def test_over_http_a_port_that_is_taken_is_said_before_weights_are_read(serve, family):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve("c", "--protocol", "http", "--port", str(taken.getsockname()[1]))
    assert done.code == 2 and "cannot listen" in done.err and "another --port" in done.err and not family.loaded


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "which checkpoint?; got 'none'"),
        (["c", "--checkpoint", "d"], "which checkpoint?; got 'two'"),
        (["c", "--protocol", "grpc"], "--protocol: no such protocol; got 'grpc'"),
        (["c", "--max-batch", "4"], "--max-batch does nothing over websocket"),
        (["c", "--api-key", "word"], "--api-key does nothing over websocket"),
        (["c", "--protocol", "http", "--n-action-steps", "4"], "--n-action-steps does nothing over http"),
        (["c", "--protocol", "http", "--log-format", "xml"], "--log-format: no such log; got 'xml'"),
        (["c", "--protocol", "http", "--api-key", "a b"], "the API key"),
        (["c", "--protocol", "http", "--host", "no.such.host.invalid"], "cannot listen"),
        (["c", "--protocol", "http", "--tls-key", "k.pem"], "a key without a certificate"),
    ],
)
def test_words_that_do_not_go_together(serve, family, words, told):
    done = serve(*words)
    assert done.code == 2 and told in done.err and not family.loaded


@pytest.mark.parametrize(
    "name", ["nowhere/at-all", "../../etc", "/dev/null", "a" * 5000, "with\nbreak", "\x00", "user/name/more", " "]
)
def test_names_of_checkpoints_that_are_none(serve, name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = serve(name, "--port", "0")
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code == 2 and lines[-1].startswith("error: ") and "Traceback" not in done.err
    assert max(map(len, lines)) < 2500


def test_a_checkpoint_is_served_over_http_until_it_is_interrupted(serve, monkeypatch, tmp_path):

    from ..serve.http_fakes import parts

    _, model, processor = parts("ember_vlm")
    model.save_pretrained(tmp_path / "run" / "final")
    processor.save_pretrained(tmp_path / "run" / "final")
    seen = []

    def ask(server):
        import httpx

        with httpx.Client(base_url=server.url) as http:
            seen.append(http.get("/model_info").json())
            seen.append(http.post("/select", json={"task": "look", "reasoning": False}).json())
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not interrupted")

    def run(server):
        with server:
            ask(server)

    monkeypatch.setattr("hfvla.cli.serving_http._serve_here", run)
    before = signal.getsignal(signal.SIGTERM)
    done = serve("--checkpoint", str(tmp_path / "run" / "final"), "--port", "0", "--device", "cpu", "--json")
    told = done.out[done.out.index("{") :]  # DeepSpeed may say a line when it is imported
    assert done.code == 0 and json.loads(told) == {"answered": 2}
    assert seen[0]["model"] == "run-final" and len(seen[1]["choices"]) == 3
    logged = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert any("serving run-final on http://127.0.0.1:" in line["message"] for line in logged)
    assert any(line.get("path") == "/select" and line["status"] == 200 for line in logged)
    assert signal.getsignal(signal.SIGTERM) == before
