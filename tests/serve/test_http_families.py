"""What servers ask of each family: one pass for several requests, facts, and the endpoint of its description."""

import numpy as np
import pytest

from hfvla.errors import DataError
from hfvla.registry import available_families
from hfvla.serve.http import HttpLimits, Service
from hfvla.serve.http.engine import TorchEngine

from .http_fakes import as_text, client, parts, picture

OWN = sorted(name for name, spec in available_families().items() if spec.package.startswith("hfvla."))


def served(family):
    spec, model, processor = parts(family)
    facts = spec.load("facts")(model, processor) if spec.has("facts") else {}
    return Service(family, family, engine=TorchEngine(spec, model, processor), request=spec.request, facts=facts)


def close(one, other):
    """Whether two answers agree; sums of another order differ in the last digits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return np.isclose(one, other, atol=1e-5) if isinstance(one, float) else one == other


def requests_of(family):
    from PIL import Image

    reds = [Image.new("RGB", (30 + 9 * n, 40), (60 * n, 30, 30)) for n in range(4)]
    if family == "ember_vlm":
        texts = ["survey the valley", "carry a long and heavy beam over rough ground", "dive", "look"]
        return [{"task": t, "image": None if n == 2 else reds[n], "top_k": n + 1, "reasoning": n == 3}
                for n, t in enumerate(texts)]  # fmt: skip
    if family == "internvl_retrieval":
        return [{"text": "red " * (n + 1), "images": reds[: n + 1], "top_k": 2} for n in range(4)]
    _, _, processor = parts("sensor_vla")
    sensor = {"times_s": [0.0, 0.1], "values": [[0.5] * processor.sensor["channels"]] * 2}
    more = [{}, {"sensor": sensor}, {}, {"sensor": sensor, "time_s": 0.1}]
    views = list(processor.views)
    state = [0.1] * processor.state_dim
    return [{"task": f"insert {n}", "views": dict.fromkeys(views, reds[n]), "state": state, **m}
            for n, m in enumerate(more)]  # fmt: skip


@pytest.mark.parametrize("family", ["ember_vlm", "internvl_retrieval", "sensor_vla"])
def test_several_requests_in_one_pass_are_answered_as_one_by_one(family, monkeypatch):
    import torch

    spec, model, processor = parts(family)
    if family == "ember_vlm":
        few = type(model).generate_reasoning
        short = lambda self, *, max_new_tokens, **batch: few(self, **batch, max_new_tokens=4)  # noqa: E731
        monkeypatch.setattr(type(model), "generate_reasoning", short)
    asked = requests_of(family)
    alone = []
    for one in asked:
        torch.manual_seed(0)
        alone.append(spec.load("predict")(model, processor, one))
    torch.manual_seed(0)
    together = spec.load("predict_batch")(model, processor, asked)
    for one, other in zip(alone, together, strict=True):
        assert close(one, other), (one, other)


@pytest.mark.parametrize(
    ("family", "spoilt", "told"),
    [
        ("ember_vlm", {"task": "word " * 3000}, "exceed the language model's positions"),
        ("ember_vlm", {"task": "a <image> b"}, "special token"),
        ("ember_vlm", {"image": b"no picture"}, "image cannot be decoded"),
        ("internvl_retrieval", {"images": [b"no picture"]}, "a picture cannot be read"),
        ("sensor_vla", {"state": [0.0]}, "state"),
        ("sensor_vla", {"sensor": {"times_s": [0.0]}}, "no values"),
    ],
)
def test_one_that_cannot_be_answered_does_not_spoil_the_others(family, spoilt, told):
    spec, model, processor = parts(family)
    asked = requests_of(family)[:3]
    asked[1] = asked[1] | spoilt
    engine = TorchEngine(spec, model, processor)
    answers = engine.answer(asked)
    assert isinstance(answers[1], DataError) and told in str(answers[1])
    assert all(isinstance(one, dict) for n, one in enumerate(answers) if n != 1)


def test_scores_that_are_not_finite_fail_their_own_request():
    from hfvla.errors import PredictionError

    spec, model, processor = parts("ember_vlm")
    asked = requests_of("ember_vlm")[:3]
    original = type(model).forward

    def broken(self, *arguments, **named):
        output = original(self, *arguments, **named)
        output.selection_logits[1] = float("nan")
        return output

    model.forward = broken.__get__(model)
    try:
        one, two, three = spec.load("predict_batch")(model, processor, asked)
    finally:
        del model.forward
    assert isinstance(two, PredictionError) and isinstance(one, dict) and isinstance(three, dict)


@pytest.mark.parametrize("family", OWN)
def test_each_family_describes_its_endpoint_and_itself(family):
    spec = available_families()[family]
    if spec.request is None or not spec.has("predict"):
        pytest.skip("answers no requests of its own")
    with client(served(family)) as http:
        assert f"/{spec.request.path}" in http.get("/openapi.json").json()["paths"]
        for name, fact in http.get("/model_info").json().items():
            if name in served(family).facts:
                assert http.get(f"/{name}").json() == {name: fact}


def test_select_over_http():
    with client(served("ember_vlm")) as http:
        body = {"task": "survey the valley", "image": as_text(picture()), "reasoning": False, "top_k": 2}
        one = http.post("/select", json=body).json()
        form = {"task": "survey the valley", "reasoning": "false", "top_k": "2"}
        two = http.post("/select", data=form, files={"image": picture()}).json()
        names = [robot["name"] for robot in http.get("/robots").json()["robots"]]
    assert one == two and len(one["choices"]) == 2 and set(one["probabilities"]) == set(names)


def test_act_over_http_in_the_robot_s_units():
    spec, model, processor = parts("sensor_vla")
    views = {name: as_text(picture()) for name in processor.views}
    with client(served("sensor_vla")) as http:
        answer = http.post("/act", json={"task": "insert", "views": views, "state": [0.0] * processor.state_dim})
        assert np.shape(answer.json()["actions"]) == (processor.horizon, processor.action_dim)
        lacking = http.post("/act", json={"task": "insert", "views": {"roof": as_text(picture())}})
    assert lacking.status_code == 422


def test_answer_over_http(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level * 10, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with client(served("internvl_video_qa")) as http:
        form = {"question": "How bright?", "choices": "dark|bright"}
        answer = http.post("/answer", data=form, files={"video": path.read_bytes()})
        assert answer.status_code == 200, answer.text
        assert answer.json()["letter"] in ("A", "B") and len(answer.json()["probabilities"]) == 2
        broken = http.post("/answer", data=form, files={"video": path.read_bytes()[:200]})
    assert broken.status_code == 422 and str(tmp_path) not in broken.text


def test_search_in_an_index(tmp_path):
    from functools import partial

    from hfvla.serve.http.loading import _search_of
    from hfvla.serve.index import build_index, write_index

    spec, model, processor = parts("internvl_retrieval")
    (tmp_path / "g").mkdir()
    for number in range(3):
        (tmp_path / "g" / f"{number}.png").write_bytes(picture((80 * number, 0, 0)))
    index = build_index(partial(spec.load("embed_images"), model, processor, batch_size=2), tmp_path / "g")
    write_index(index, tmp_path / "i", faiss=False)
    search = _search_of(spec, model, processor, str(tmp_path / "i"))
    service = Service("r", spec.name, engine=TorchEngine(spec, model, processor), request=spec.request, search=search)
    with client(service, HttpLimits()) as http:
        found = http.post("/search", json={"text": "a red wall", "top_k": 2}).json()
        assert [one["rank"] for one in found["results"]] == [1, 2] and found["searched"] == 3
        assert found["results"][0]["score"] >= found["results"][1]["score"]
        assert str(tmp_path) not in str(found)
        for body in ({}, {"text": " "}, {"text": "a", "top_k": 0}, {"text": "a", "k": 1}):
            assert http.post("/search", json=body).status_code == 422
    vectors = spec.load("embed_texts")(model, processor, ["a red wall"], batch_size=1)
    scores = index.vectors @ vectors[0]
    assert found["results"][0]["id"] == index.pictures[int(scores.argmax())].id
