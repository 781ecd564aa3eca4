"""Whole exports of tiny models: graphs that compute the same, fewer bits, and refusals that leave nothing."""

import dataclasses
import json

import numpy as np
import pytest

from hfvla.cli import main
from hfvla.errors import HfvlaError
from hfvla.export.engines import TorchEngine, load_engine
from hfvla.export.run import FORMATS, export_checkpoint
from hfvla.registry import load_checkpoint

from ..contract.conftest import build

GRAPHS = {"ember_vlm": ["vision", "select", "decoder"], "internvl_retrieval": ["image", "text"],
          "internvl_video_qa": ["tiles", "letters"], "sensor_vla": ["act"]}  # fmt: skip


def saved(family, folder):
    built = build(family)
    built.model.save_pretrained(folder)
    built.processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(GRAPHS))
def test_graphs_compute_what_the_model_does(family, tmp_path):
    pytest.importorskip("onnxruntime")
    folder = saved(family, tmp_path / "checkpoint")
    found = export_checkpoint(folder, tmp_path / "onnx", rows=8, least=1.0)
    assert found["parts"] == GRAPHS[family] and found["decisions"] == 1.0 and found["rows"] == 8
    assert all(entry["max_difference"] < 1e-3 * max(1, entry["largest"]) for entry in found["values"].values())
    assert set(found["engines"]) == {"torch", "onnxruntime"} and found["engines"]["onnxruntime"]["bytes"] > 0
    written = json.loads((tmp_path / "onnx" / "parity.json").read_text())
    assert written["decisions"] == 1.0 and (tmp_path / "onnx" / "report.html").is_file()
    # Another number of rows than the example's, from the folder alone.
    spec, model, processor = load_checkpoint(folder)
    plan = spec.load("export")(model, processor)
    part = plan.parts[0]
    one = {name: value[:1] for name, value in part.inputs.items()}
    first, second = load_engine(tmp_path / "onnx")(part.name, one), TorchEngine(plan.parts)(part.name, one)
    for name in part.outputs:
        np.testing.assert_allclose(first[name], second[name], atol=1e-4)


@pytest.mark.slow
def test_eight_bits_reach_every_weight(tmp_path):
    pytest.importorskip("onnxruntime")
    folder = saved("ember_vlm", tmp_path / "checkpoint")
    for method in ("dynamic", "static", "blocks", "mixed"):
        found = export_checkpoint(folder, tmp_path / method, bits=8, method=method, rows=8, least=0.0)
        assert found["left_whole"] == {"vision": [], "select": [], "decoder": []}
        assert 0 < found["values"]["selection_logits"]["max_difference"] < 0.5


@pytest.mark.slow
def test_openvino_runs_it(tmp_path):
    pytest.importorskip("openvino")
    found = export_checkpoint(saved("sensor_vla", tmp_path / "c"), tmp_path / "ov", format="openvino", rows=4)
    assert found["decisions"] == 1.0 and found["values"]["actions"]["max_difference"] < 1e-3
    assert {path.name for path in (tmp_path / "ov").iterdir()} >= {"act.xml", "act.bin", "parity.json"}


def test_refusals_come_before_anything_is_loaded(tmp_path):
    for given, message in (
        ({"format": "tflite"}, "no such format or bits; got '--format tflite --bits 32'"),
        ({"format": "openvino", "bits": 4}, "--format openvino --bits 4"),
        ({"method": "magic"}, "no such method; got 'magic'"),
        ({"least": 2.0}, "not a share of rows; got 2.0"),
    ):
        with pytest.raises(HfvlaError, match=message):
            export_checkpoint(tmp_path / "absent", tmp_path / "out", **given)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(HfvlaError, match="the output folder is not empty"):
        export_checkpoint(tmp_path / "absent", tmp_path / "full")
    with pytest.raises(HfvlaError, match="no such checkpoint folder"):
        export_checkpoint(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_family_without_graphs(tmp_path, monkeypatch):
    folder = saved("internvl_video_qa", tmp_path / "checkpoint")
    spec = load_checkpoint(folder)[0]
    without = dataclasses.replace(spec, hooks={**spec.hooks, "export": "hfvla.models.internvl_video_qa.build:absent"})
    monkeypatch.setattr("hfvla.export.run.load_checkpoint", lambda path: (without, None, None))
    with pytest.raises(HfvlaError, match=r"this family has no graphs; got 'internvl_video_qa'"):
        export_checkpoint(folder, tmp_path / "out")


def test_a_damaged_or_pickled_checkpoint_is_refused(tmp_path):
    folder = saved("sensor_vla", tmp_path / "checkpoint")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(HfvlaError, match="pickled weights are not read"):
        export_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_can(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["export", str(tmp_path), "--output", str(tmp_path / "o"), "--bits", "3"])
    assert caught.value.code == 2 and "onnx: 32, 16, 8, 4" in capsys.readouterr().err
    assert set(FORMATS) == {"onnx", "openvino", "merged"}


@pytest.mark.slow
@pytest.mark.parametrize("bits", [16, 8])
def test_a_merged_backbone_answers_inside_the_model(tmp_path, bits):
    if bits == 8:
        pytest.importorskip("torchao")
    folder = saved("internvl_video_qa", tmp_path / "checkpoint")
    found = export_checkpoint(folder, tmp_path / "merged", format="merged", bits=bits, rows=4, least=0.0)
    assert 0 < found["values"]["log_likelihoods"]["max_difference"] < 0.05
    assert found["engines"]["merged"]["bytes"] < 0.6 * found["engines"]["torch"]["bytes"]
    left = found["left_whole"]["backbone"]
    assert not [name for name in left if "layers." in name or "layer." in name]  # every block was reached


@pytest.mark.slow
def test_a_backbone_without_linear_layers_is_not_called_quantised(tmp_path):
    pytest.importorskip("torchao")
    with pytest.raises(HfvlaError, match=r"no layer of this backbone could be given 8 bits; got 'GPT2LMHeadModel'"):
        export_checkpoint(saved("ember_vlm", tmp_path / "c"), tmp_path / "out", format="merged", bits=8, rows=2)
    assert not (tmp_path / "out").exists()


def test_four_bits_are_loaded_again_and_compute_nearly_the_same(tmp_path):
    pytest.importorskip("torchao")
    pytest.importorskip("bitsandbytes")  # torchao's kernel is not on every machine
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hfvla.export.merged import _left_whole, _quantised

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=256)).eval()  # bitsandbytes takes no narrower one
    model.save_pretrained(tmp_path / "whole")
    small = _quantised(LlamaForCausalLM, tmp_path / "whole", 4)
    assert _left_whole(small, tmp_path, 4) == ["model.embed_tokens.weight", "lm_head.weight"]
    small.save_pretrained(tmp_path / "small")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "small", use_safetensors=True, dtype="auto").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted, found = model(ids).logits, again(ids).logits.float()
    assert 0 < (found - wanted).abs().mean() < 0.3 * wanted.abs().mean()
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.3 * sizes[0]


def test_four_bits_are_made_by_what_the_machine_has(tmp_path, monkeypatch):
    pytest.importorskip("torchao")
    from hfvla.export import merged

    asked = []

    class Backbone:
        @staticmethod
        def from_pretrained(folder, *, quantization_config, **_):
            asked.append(quantization_config)
            if quantization_config != "nf4":
                raise ImportError("no kernel")
            return "quantised"

    monkeypatch.setattr(merged, "_nf4", lambda: "nf4")
    monkeypatch.setattr(merged, "find_spec", lambda name: name == "bitsandbytes")
    assert merged._quantised(Backbone, tmp_path, 4) == "quantised" and len(asked) == 2
    with pytest.raises(HfvlaError, match=r"8 bits cannot be made on this machine.*ImportError: no kernel"):
        merged._quantised(Backbone, tmp_path, 8)
    monkeypatch.setattr(merged, "find_spec", lambda name: None)
    with pytest.raises(HfvlaError, match=r"4 bits cannot be made.*hfvla\[qlora\]"):
        merged._quantised(Backbone, tmp_path, 4)


@pytest.mark.slow
def test_a_graph_with_its_weights_beside_it_is_exported_moved_and_run(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("hfvla.export.storing.MOST_BYTES", 20_000)
    folder = saved("sensor_vla", tmp_path / "checkpoint")
    for bits in (32, 8):
        found = export_checkpoint(folder, tmp_path / "onnx", bits=bits, method="blocks", rows=4, least=0.0)
        assert (tmp_path / "onnx" / "act.onnx.data").is_file()
        beside = (tmp_path / "onnx" / "act.onnx.data").stat().st_size
        assert beside < found["engines"]["onnxruntime"]["bytes"]
        (tmp_path / "onnx").rename(tmp_path / f"moved{bits}")
        spec, model, processor = load_checkpoint(folder)
        part = spec.load("export")(model, processor).parts[0]
        again = load_engine(tmp_path / f"moved{bits}")("act", part.inputs)["actions"]
        wanted = TorchEngine([part])("act", part.inputs)["actions"]
        np.testing.assert_allclose(again, wanted, atol=1e-4 if bits == 32 else 0.2)
