"""The examples that need no trained checkpoint run as they stand."""

import re
import runpy
import sys

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
