"""Folders of `hfvla export` behind the server: the model's own endpoints and answers, from graphs."""

import json
import shutil

import numpy as np
import pytest
import torch

from hfvla.errors import CheckpointError, DataError, HfvlaError
from hfvla.export.engines import TorchEngine as PartsEngine
from hfvla.serve.http import load_service
from hfvla.serve.http.engine import TorchEngine
from hfvla.serve.http.exported import chosen_engine

from .http_fakes import as_text, client, parts, picture
from .test_http_families import close, requests_of


def of_parts(family):
    """Return the stand-in of a family's model around its parts in torch, as an engine."""
    spec, model, processor = parts(family)
    run = PartsEngine(spec.load("export")(model, processor).parts)
    return spec.load("exported")(run, model.config), run


def saved(family, folder):
    _, model, processor = parts(family)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["ember_vlm", "internvl_retrieval"])
def test_the_parts_answer_as_the_model_does(family, monkeypatch):
    spec, model, processor = parts(family)
    alone, _ = of_parts(family)
    if family == "ember_vlm":
        few = type(model).generate_reasoning
        short = lambda self, *, max_new_tokens, **batch: few(self, **batch, max_new_tokens=6)  # noqa: E731
        for kind in (type(model), type(alone)):
            monkeypatch.setattr(kind, "generate_reasoning", short)
    asked = [*requests_of(family), {**requests_of(family)[0], "reasoning": True}][: 5 if family == "ember_vlm" else 4]
    for work in ("predict", "predict_batch"):
        answer = spec.load(work)
        ours, theirs = (
            [answer(one, processor, row) for row in asked] if work == "predict" else answer(one, processor, asked)
            for one in (model, alone)
        )
        assert all(map(close, ours, theirs))
    assert close(spec.load("facts")(model, processor), spec.load("facts")(alone, processor))


def test_a_batch_of_prompts_of_different_lengths_is_written_as_by_the_model():
    _, model, processor = parts("ember_vlm")
    alone, _ = of_parts("ember_vlm")
    batch = processor.prompts(["go", "survey the flooded valley from above"], [None, picture()], reasoning=True)
    ours, theirs = (one.generate_reasoning(**batch, max_new_tokens=5) for one in (model, alone))
    assert ours.shape[1] >= 1 and torch.equal(ours, theirs)


def test_a_conversation_is_written_and_sampled_as_by_the_model():
    from hfvla.data.samples.chat import Part, Turn
    from hfvla.serve.http.openai import ChatSettings
    from hfvla.serve.http.writing import written

    spec, model, processor = parts("ember_vlm")
    alone, _ = of_parts("ember_vlm")
    turns = [Turn("user", (Part("text", "what is there?"),))]
    for settings in (ChatSettings(max_tokens=5), ChatSettings(max_tokens=5, temperature=0.9, top_p=0.8, seed=3)):
        ours, theirs = (written(spec.load("chat")(one, processor, turns, []), settings)
                        for one in (model, alone))  # fmt: skip
        assert ours == theirs


def test_scores_by_letter_and_by_words_are_the_model_s():
    from hfvla.models.internvl_video_qa.exported import exported_model
    from hfvla.models.internvl_video_qa.wording import PromptItem

    spec, model, processor = parts("internvl_video_qa")
    tiles = torch.randn(3, 3, model.config.tile_size, model.config.tile_size)
    items = [
        PromptItem("which way?", ["left", "right and on"], (2,)),
        PromptItem("a car?", ["yes", "no", "two"], (1,)),
    ]
    before = model.config.answer_by
    try:
        for way in ("letters", "words"):
            model.config.answer_by = way
            run = PartsEngine(spec.load("export")(model, processor).parts)
            alone = exported_model(run, model.config)
            with torch.inference_mode():
                ours = model.choice_logits(processor, items, model.get_image_features(tiles))
                theirs = alone.choice_logits(processor, items, alone.get_image_features(tiles))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
            assert set(run.seconds) == {"tiles", way}
    finally:
        model.config.answer_by = before
    with pytest.raises(DataError, match=r"does not write.*Serve the checkpoint itself"):
        spec.load("predict")(alone, processor, {"video": "x.mp4", "question": "why?"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "form"), [("ember_vlm", "onnx"), ("internvl_retrieval", "onnx"), ("ember_vlm", "openvino")]
)
def test_an_exported_folder_has_the_endpoints_and_answers_of_its_checkpoint(family, form, tmp_path):
    pytest.importorskip("onnxruntime" if form == "onnx" else "openvino")
    from hfvla.export.run import export_checkpoint

    folder = saved(family, tmp_path / "checkpoint")
    export_checkpoint(folder, tmp_path / "graphs", format=form, rows=4, least=1.0)
    shutil.rmtree(folder)  # nothing but the export is needed
    spec, model, processor = parts(family)
    facts = spec.load("facts")(model, processor)
    from hfvla.serve.http.loading import _service

    whole = _service(spec, model, processor, "m", TorchEngine(spec, model, processor), None, None, {})
    if family == "ember_vlm":
        body = {"task": "survey the valley", "image": as_text(picture()), "reasoning": False, "top_k": 2}
    else:
        body = {"text": "red", "images": [as_text(picture()), as_text(picture((0, 0, 255)))], "top_k": 2}
    exported = load_service(str(tmp_path / "graphs"), "cpu", engine=form, name="m")
    answers = []
    for one in (whole, exported):
        with client(one) as http:
            found = http.post(f"/{spec.request.path}", json=body)
            answers.append((found.status_code, found.json()))
            assert http.post(f"/{spec.request.path}", json={**body, "tsak": 1}).status_code == 422
            told = http.get("/model_info").json()
            for name in facts:
                assert http.get(f"/{name}").status_code == 200
    assert answers[0][0] == answers[1][0] == 200 and close_to(*[found for _, found in answers])
    assert told["engine"] == {"onnx": "onnxruntime", "openvino": "openvino"}[form] and told["bits"] == 32
    (tmp_path / "graphs" / f"{told['graphs'][0]}.{'onnx' if form == 'onnx' else 'xml'}").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="not a (graph|model) that"):
        load_service(str(tmp_path / "graphs"), "cpu")


def close_to(one, other):
    """Whether two answers agree to what engines of 32 bits do."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close_to(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close_to, one, other))
    return abs(one - other) < 1e-3 if isinstance(one, float) else one == other


def record(folder, **content):
    folder.mkdir(exist_ok=True)
    (folder / "export.json").write_text(json.dumps(content))
    return str(folder)


def test_which_engine(tmp_path):
    folder = record(tmp_path / "a", format="onnx")
    assert chosen_engine(folder, "auto") == chosen_engine(folder, "onnx") == "onnx"
    assert chosen_engine(str(tmp_path), "auto") == chosen_engine("user/name", "pytorch") == "pytorch"
    assert chosen_engine(record(tmp_path / "m", format="merged"), "auto") == "pytorch"
    with pytest.raises(HfvlaError, match=r"no such engine.*Did you mean 'onnx'"):
        chosen_engine(folder, "onxn")
    with pytest.raises(CheckpointError, match=r"for another engine.*got 'onnx'.*expected.*openvino"):
        chosen_engine(folder, "openvino")
    with pytest.raises(CheckpointError, match=r"not a folder of `hfvla export`.*hfvla export .* --format onnx"):
        chosen_engine(str(tmp_path), "onnx")


def test_what_is_no_export_is_refused_before_it_is_run(tmp_path):
    pytest.importorskip("onnxruntime")
    folder = saved("sensor_vla", tmp_path / "c")
    record(folder, format="onnx", parts=["act"], checkpoint="outputs/run/final")
    with pytest.raises(HfvlaError, match=r"a part of the model.*Serve the checkpoint itself: outputs/run/final"):
        load_service(str(folder), "cpu")
    folder = saved("ember_vlm", tmp_path / "e")
    for parts_of in (["../vision"], "vision", None):
        record(folder, format="onnx", parts=parts_of)
        with pytest.raises(CheckpointError, match="not a list of graphs"):
            load_service(str(folder), "cpu")
    record(folder, format="onnx", parts=["vision"])
    with pytest.raises(CheckpointError, match="no such part in this export"):
        load_service(str(folder), "cpu")
    with pytest.raises(HfvlaError, match=r"run on the CPU here; got 'cuda'|run on the CPU here.*cuda"):
        load_service(str(folder), "cuda")
