"""`hfvla compare --checkpoint A --checkpoint B`: the same rows, paired differences, and what cannot be compared."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hfvla.cli import main
from hfvla.errors import CheckpointError, DataError
from hfvla.evaluation import checkpoint_comparison
from hfvla.evaluation.checkpoint_comparison import compare_checkpoints
from hfvla.family import EvaluationResult

OLD = Path(__file__).parents[1] / "fixtures/checkpoints_0_1/ember_vlm"


def result(right, ids=None, **changes):
    rows = [
        {"id": f"r{n}", "group": f"g{n // 2}", "scores": {"exact_match": float(one), "extra": 1.0}}
        for n, one in enumerate(right)
    ]
    for row, row_id in zip(rows, ids or [row["id"] for row in rows], strict=True):
        row["id"] = row_id
    return EvaluationResult({"n": len(rows), "exact_match": sum(right) / len(right), **changes}, rows=rows)


@pytest.fixture
def scored(monkeypatch):
    """Give results in place of evaluations, in the order of the checkpoints."""

    def put(*results):
        waiting = list(results)
        monkeypatch.setattr(
            checkpoint_comparison, "evaluate_checkpoint", lambda *args, **more: {"held_out": waiting.pop(0)}
        )

    return put


def test_differences_are_paired(scored, tmp_path):
    scored(result([0, 0, 0, 0, 1, 1, 0, 0]), result([1, 1, 1, 1, 1, 1, 1, 1]))
    found = compare_checkpoints([OLD, OLD], {"x": {}}, tmp_path / "out", bootstrap_samples=200)
    assert found["reference"] == "ember_vlm" and list(found["checkpoints"]) == ["ember_vlm", "ember_vlm_2"]
    (entry,) = found["sets"]["held_out"]["metrics"]  # "extra" is reported by nobody
    own = entry["differences"]["ember_vlm_2"]
    assert own["value"] == 0.75 and own["relative"] == 3.0 and own["verdict"] == "better"
    assert 0 < own["interval"][0] <= 0.75 <= own["interval"][1] <= 1
    assert json.loads((tmp_path / "out/comparison.json").read_text())["sets"]["held_out"]["rows"] == 8
    table = (tmp_path / "out/comparison.md").read_text()
    assert "| exact match | 0.250" in table and "+300.0% | better |" in table


def test_an_interval_across_zero_is_no_verdict(scored, tmp_path):
    scored(result([1, 0, 1, 0, 1, 0]), result([0, 1, 0, 1, 1, 0]))
    found = compare_checkpoints([OLD, OLD], {"x": {}}, tmp_path / "out", bootstrap_samples=200)
    own = found["sets"]["held_out"]["metrics"][0]["differences"]["ember_vlm_2"]
    assert own["value"] == 0 and own["verdict"].startswith("no difference")


def test_every_checkpoint_is_looked_at_before_the_first_is_scored(scored, tmp_path):
    scored()
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint folder"):
        compare_checkpoints([OLD, tmp_path / "nowhere"], {"x": {}}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared(scored, tmp_path):
    scored(result([1, 0]), result([1, 0], ids=["r0", "other"]))
    with pytest.raises(DataError, match="different rows"):
        compare_checkpoints([OLD, OLD], {"x": {}}, tmp_path / "a")
    scored(result([1, 0]), result([1, 0], exact_match=0.9))
    with pytest.raises(DataError, match="no score in common"):
        compare_checkpoints([OLD, OLD], {"x": {}}, tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare a FILE of recipes, or two --checkpoint"),
        (["--checkpoint", "a", "--data", "fleet"], "--output"),
        (["--checkpoint", str(OLD), "--data", "fleet", "--output", "{out}"], "a comparison needs two checkpoints"),
        (["x.yaml", "--data", "fleet"], "--data and --option go with --checkpoint"),
    ],
)
def test_the_command_refuses(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compare", *(word.format(out=tmp_path / "out") for word in words)])
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_two_checkpoints_on_generated_rows(tmp_path, capsys):
    for name, factor in (("one", 1.0), ("two", -1.0)):
        shutil.copytree(OLD, tmp_path / name)
        weights = load_file(tmp_path / name / "model.safetensors")
        weights |= {key: factor * value for key, value in weights.items() if key.startswith("selection_head")}
        save_file(weights, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    words = [word for name in ("one", "two") for word in ("--checkpoint", str(tmp_path / name))]
    words += ["--data", "fleet:size=12,image_size=32", "--output", str(tmp_path / "out"), "--max-generate", "1"]
    with pytest.raises(SystemExit) as caught:
        main(["compare", *words, "--device", "cpu", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert not caught.value.code and found["sets"]["fleet"]["rows"] == 12
    named = {entry["metric"]: entry for entry in found["sets"]["fleet"]["metrics"]}
    assert named["top1_in_set"]["differences"]["two"]["value"] != 0
    assert (tmp_path / "out/two/report.html").is_file()
