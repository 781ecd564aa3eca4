"""One batch through every stage and phase, and nothing left behind."""

import tempfile

import pytest

from hfvla.errors import CheckpointError, RecipeError
from hfvla.training.run.dry_run import dry_run

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("dry") / "tasks.json", tasks(32))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_stage_and_phase_takes_one_step(source, tmp_path, temporary):
    ramp = {"kind": "linear", "start": 0.0, "end": 0.5, "epochs": [0, 1]}
    phases = [{"epoch": 1, "add": ["language.last(1)"], "losses": {"selection": 2.0}}]
    first = selection_stage(train=["fusion", "selection_head"], phases=phases, keep_best="eval_jaccard")
    stages = [first, reasoning_stage(losses={"selection": 1.0, "reasoning": ramp})]
    found = dry_run(build_recipe(source, tmp_path / "out", stages))
    assert found["problems"] == [] and [stage["name"] for stage in found["stages"]] == ["selection", "reasoning"]
    start, second = found["stages"][0]["phases"]
    assert (start["begins"], second["begins"]) == ("start", "epoch 1")
    assert [row["entry"] for row in start["gradients"]] == ["fusion", "selection_head"]
    assert [row["entry"] for row in second["gradients"]] == ["fusion", "selection_head", "language.last(1)"]
    for row in second["gradients"]:
        assert row["with_gradient"] == row["tensors"] > 0 and row["norm"] > 0
    assert second["losses"]["total"] == pytest.approx(2 * second["losses"]["selection"], rel=1e-3)
    (reasoning,) = found["stages"][1]["phases"]
    weighted = reasoning["losses"]["selection"] + 0.5 * reasoning["losses"]["reasoning"]  # the ramp's end
    assert reasoning["losses"]["total"] == pytest.approx(weighted, rel=1e-3)
    assert found["stages"][1]["handover"]["carried"] > 0 and reasoning["peak_bytes"] > 1e6
    assert not (tmp_path / "out").exists() and not list(temporary.glob("hfvla*"))


def test_a_part_without_gradient_is_a_problem(source, tmp_path):
    stage = selection_stage(train=["temperature", "selection_head"])
    found = dry_run(build_recipe(source, tmp_path / "out", [stage]))
    (problem,) = found["problems"]
    assert "stage 'selection', start: 'temperature' trains and gets no gradient" in problem


def test_a_part_without_gradient_until_a_later_phase_is_a_problem(source, tmp_path):
    """A loss that only a later phase weights must not hide that a part has none before."""
    stage = selection_stage(
        train=["language.last(1)", "selection_head"],
        losses={"reasoning": 1.0},
        phases=[{"epoch": 1, "losses": {"selection": 1.0}}],
    )
    found = dry_run(build_recipe(source, tmp_path / "out", [stage]))
    assert (
        len(found["problems"]) == 1 and "start: 'selection_head' trains and gets no gradient" in found["problems"][0]
    )


def test_a_loss_that_is_no_number_is_a_problem(source, tmp_path, monkeypatch):
    import hfvla.models.ember_vlm.losses as losses

    monkeypatch.setattr(losses, "multilabel_loss", lambda logits, targets, **_: logits.sum() * float("nan"))
    found = dry_run(build_recipe(source, tmp_path / "out", [selection_stage(train=["selection_head"])]))
    assert any("step 1: 'selection' is nan" in problem for problem in found["problems"])


def test_errors_are_those_of_a_run(source, tmp_path, temporary):
    wider = reasoning_stage(model={"selection_hidden_size": 24})
    with pytest.raises(CheckpointError, match="does not announce"):
        dry_run(build_recipe(source, tmp_path / "out", [selection_stage(), wider]))
    with pytest.raises(RecipeError, match="never begins|no parameter group"):
        dry_run(build_recipe(source, tmp_path / "out", [selection_stage(train=["wings"])]))
    assert not list(temporary.glob("hfvla*"))


def test_a_part_of_a_plan(source, tmp_path):
    recipe = build_recipe(source, tmp_path / "out", [selection_stage(), reasoning_stage()])
    found = dry_run(recipe, stop_after="selection")
    assert [stage["name"] for stage in found["stages"]] == ["selection"]
