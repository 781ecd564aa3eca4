"""The examples run as they stand, those for a trained checkpoint on an untrained one."""

import re
import runpy
import sys

import pytest
import torch


def test_a_model_of_ones_own_in_two_stages(repository, tmp_path, monkeypatch, capsys):
    script = repository / "examples/own_model_stages.py"
    assert len(script.read_text().splitlines()) < 90
    monkeypatch.setattr(sys, "argv", [str(script), "--output", str(tmp_path)])
    example = runpy.run_path(str(script))
    example["main"]()
    printed = capsys.readouterr().out
    align = re.search(r"^align: 2% of the weights train; (\d+)%", printed, re.MULTILINE)
    tune = re.search(r"^tune: 2% then 57% of the weights train; (\d+)%", printed, re.MULTILINE)
    assert align and tune, printed
    assert 11 < int(align[1]) < int(tune[1]) and int(tune[1]) >= 40  # chance is 11 %
    torch.manual_seed(0)
    start = example["PictureText"](example["PreTrainedConfig"]())
    final = example["PictureText"].from_pretrained(tmp_path / "final")
    moved = {name for name, value in final.state_dict().items() if not torch.equal(value, start.state_dict()[name])}
    assert {name.split(".")[0] for name in moved} >= {"vision", "text", "to_joint", "to_colour"}
    assert not [name for name in moved if name.startswith("text.") and ".layer.1." not in name]


def test_a_sensor_vla_predicts_and_reuses_features(repository, tmp_path, monkeypatch, capsys):
    from hfvla.models.sensor_vla import FAMILY

    script = repository / "examples/sensor_vla.py"
    assert len(script.read_text().splitlines()) < 80
    tiny = FAMILY.load("config").tiny(
        expert={"kind": "flow", "width": 32, "layers": 1, "heads": 2, "feed_forward": 64}
    )
    rows = FAMILY.load("examples")(8, 0)
    model, processor = FAMILY.load("initialise")({"config": tiny.to_dict(), "options": {}}, rows, seed=0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--checkpoint", str(tmp_path)])
    example = runpy.run_path(str(script))
    encoded, encode = [], type(model).encode

    def counted(self, **batch):
        encoded.append(len(batch["input_ids"]))
        return encode(self, **batch)

    monkeypatch.setattr(type(model), "encode", counted)
    example["main"]()
    printed = capsys.readouterr().out
    assert "4 actions, 10 a second" in printed and printed.count("step ") == 4
    assert float(re.search(r"differs by up to (\S+)", printed)[1]) > 0
    later = re.findall(r"at (\S+) s, on the first moment's features: first action off by \S+", printed)
    assert later == ["0.00", "0.20", "0.40"] and len(encoded) == 3  # two single predictions, and once for all of these
    observations, done = example["drawn_observations"](11)
    for observation in observations:
        processor.check_observation(observation)
    assert done.shape == (12, 4)


@pytest.mark.slow
def test_a_chat_vlm_goes_on_with_grpo(repository, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    from hfvla.models.chat_vlm import FAMILY
    from hfvla.registry import load_checkpoint

    rows = FAMILY.load("examples")(8, 0)
    model, processor = FAMILY.load("initialise")({"config": FAMILY.tiny_config().to_dict(), "options": {}}, rows, 0)
    model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    script, out = repository / "examples/chat_vlm_grpo.py", tmp_path / "out"
    words = [str(script), str(tmp_path / "start"), str(out), "--steps", "2", "--questions", "4", "--answers", "4"]
    monkeypatch.setattr(sys, "argv", words)
    example = runpy.run_path(str(script))
    right, seen = example["right"], []
    assert right([[{"content": "The red."}], [{"content": "blue"}]], ["red", "red"]) == [1.0, 0.0]

    def longer(completions, answer, **more):
        seen.extend(right(completions, answer, **more))
        return [float(len(one[0]["content"])) for one in completions]  # a random model is right by chance alone

    example["main"].__globals__["right"] = longer
    example["main"]()
    spec, trained, _ = load_checkpoint(out)
    assert spec.name == "chat_vlm" and len(seen) == 8
    moved = {n for n, p in trained.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert any("language_model" in name for name in moved)
