"""Files of an evaluation, and the evaluation of a checkpoint from its folder."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from hfvla.errors import CheckpointError, DataError, HfvlaError
from hfvla.evaluation.run import evaluate_checkpoint, evaluate_model, metrics_json, results_tables, write_evaluation
from hfvla.family import EvaluationContext, EvaluationResult, Figure, SourceData
from hfvla.models.ember_vlm import FAMILY
from hfvla.outputs import claim_folder

from .fakes import FakeCollator, FakeModel, dataset, task_row

PLACES = ["roof", "reef", "valve", "parcel", "hill"]
BARS = {"groups": ["a"], "series": {"x": [0.4]}}


def _result(exact=0.5):
    return EvaluationResult(
        metrics={"n": 4, "exact_match": exact, "undefined": float("nan")},
        intervals={
            "exact_match": (0.1, 0.9),
            "baselines/majority/f1/Drone": (0.0, 0.2),
            "difference/majority/exact_match": (0.1, 0.3),
        },
        baselines={"majority": {"n": 4, "exact_match": 0.25}},
        rows=[{"id": "a", "prediction": ["Drone"]}, {"id": "b", "prediction": ["Humanoid"]}],
        figures=[Figure("bars", "bars", "Bars", BARS)],
    )


def test_metrics_json_is_flat_and_valid_json():
    content = metrics_json(_result())
    assert content["exact_match"] == 0.5 and content["undefined"] is None
    assert content["intervals"] == {"exact_match": [0.1, 0.9]}
    assert content["baseline_intervals"] == {"majority": {"f1/Drone": [0.0, 0.2]}}
    assert content["difference_intervals"] == {"majority": {"exact_match": [0.1, 0.3]}}
    json.dumps(content, allow_nan=False)


def test_one_set_is_written(tmp_path):
    write_evaluation({"held_out": _result()}, tmp_path, {"seed": 1})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["exact_match"] == 0.5 and "sets" not in content
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert (tmp_path / "plots" / "bars.svg").read_text("utf-8").startswith("<svg")
    assert "Results on held_out" in (tmp_path / "report.html").read_text("utf-8")


def test_several_sets_are_written_apart(tmp_path):
    write_evaluation({"one": _result(), "two": _result(0.75)}, tmp_path, {})
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["exact_match"] == 0.5  # the first set's
    assert {name: found["exact_match"] for name, found in content["sets"].items()} == {"one": 0.5, "two": 0.75}
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"predictions_one.jsonl", "predictions_two.jsonl"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"one_bars.svg", "two_bars.svg"}


def test_a_run_folder_adds_its_training(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"commit": "abc1234", "stages": [{"name": "only"}]}))
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "log_history.json").write_text(json.dumps([{"step": 1, "loss": 2.0}]))
    write_evaluation({"one": _result()}, tmp_path, {})
    assert (tmp_path / "plots" / "curves_only.svg").is_file()
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "Training curves: stage only" in html and "abc1234" in html


def test_nothing_to_write_is_refused(tmp_path):
    with pytest.raises(DataError, match="no evaluation results"):
        write_evaluation({}, tmp_path, {})


def test_results_table_shows_systems_and_marks_the_best():
    console = Console(width=200, record=True, file=io.StringIO())
    (table,) = results_tables({"held_out": _result()})
    console.print(table)
    text = console.export_text()
    assert "this model" in text and "Majority" in text and "0.250" in text
    assert [(cell.plain, str(cell.style)) for cell in table.columns[3].cells] == [("0.500", "bold"), ("0.250", "")]


def test_sets_that_are_scored_alike_share_a_table():
    captions = replace(_result(), metrics={"n": 4, "cider": 1.0, "loss": 2.0}, baselines={})
    first, second = results_tables({"one": _result(), "other": captions, "two": _result()})
    assert list(first.columns[0].cells).count("one") == list(first.columns[0].cells).count("two") > 0
    assert set(second.columns[0].cells) == {"other"}


@pytest.fixture()
def _fake_family(monkeypatch, tmp_path):
    """A checkpoint folder whose model and sources are the fakes'."""
    built = []

    def build(options, *, seed):
        built.append((options.path, seed))
        if options.path == "gone.json":
            raise DataError("no such file", where="gone.json")
        first, count = (0, 10) if options.path == "eval.json" else (26, 20)
        rows = [task_row(first + i, PLACES[i % 5]) for i in range(count)]
        return SourceData(dataset(rows), {"found": count, "usable": count, "rejected": {}})

    monkeypatch.setattr("hfvla.models.ember_vlm.batches.EmberVLMCollator", FakeCollator)
    monkeypatch.setattr("hfvla.data.sources.robot_selection.build_robot_selection", build)
    monkeypatch.setattr("hfvla.registry.load_checkpoint", lambda path: (FAMILY, FakeModel(), None))
    return built


def _recipe(folder, *paths):
    train = [{"source": "robot_selection", "path": path} for path in paths]
    stages = [{"name": "only", "train": ["selection_head"], "losses": {"selection": 1.0}}]
    recipe = {"family": "ember_vlm", "name": "demo", "seed": 7, "output_dir": "out", "stages": stages}
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(recipe | {"data": {"train": train}}))


def test_a_checkpoint_is_evaluated_beside_baselines_on_its_training_rows(_fake_family, tmp_path):
    _recipe(tmp_path / "final", "train.json", "gone.json")
    sets = {"held_out": {"source": "robot_selection", "path": "eval.json"}}
    results = evaluate_checkpoint(
        tmp_path / "final", sets, tmp_path / "out", seed=3, device="cpu", max_generate=2, bootstrap_samples=20
    )
    assert _fake_family == [("eval.json", 3), ("train.json", 7), ("gone.json", 7)]
    result = results["held_out"]
    assert result.metrics["exact_match"] == 1.0
    assert result.baselines["tfidf_logreg"]["n"] == 10
    assert result.census["found"] == 10
    assert any("robot_selection cannot be rebuilt" in note and "gone.json" in note for note in result.notes)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["baselines"]["majority"]["exact_match"] == 0.2
    html = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Evaluation of final" in html and "torch" in html


def test_without_a_recipe_the_baselines_are_left_out_and_said_so(_fake_family, tmp_path):
    sets = {"robot_selection": {"path": "eval.json"}}
    results = evaluate_checkpoint(tmp_path, sets, tmp_path / "out", device="cpu", max_generate=0, bootstrap_samples=5)
    result = results["robot_selection"]
    assert not result.baselines
    assert any("no recipe.json" in note for note in result.notes)


def test_no_set_and_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(DataError, match="no evaluation set"):
        evaluate_checkpoint(tmp_path, {}, tmp_path / "out")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        evaluate_checkpoint(tmp_path, {"robot_selection": {"path": "x"}}, tmp_path / "out")


def test_evaluate_model_calls_the_familys_evaluator(monkeypatch, tmp_path):
    monkeypatch.setattr("hfvla.models.ember_vlm.batches.EmberVLMCollator", FakeCollator)
    rows = dataset([task_row(i, PLACES[i % 5]) for i in range(5)])
    context = EvaluationContext(bootstrap_samples=5, max_generate=0)
    result = evaluate_model(FakeModel(), None, FAMILY, rows, context)
    assert result.metrics["n"] == 5
    write_evaluation({"one": result, "two": result}, tmp_path, {})
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<summary>Parameters</summary>") == 1  # the model's, told once for both sets


def test_a_place_that_cannot_take_the_scores_is_found_before_any_scoring(_fake_family, monkeypatch, tmp_path):
    _recipe(tmp_path / "final", "train.json")
    (tmp_path / "file").write_text("mine")
    claim_folder(tmp_path / "run", "run")
    (tmp_path / "run" / "metrics.json").write_text("the run's own")
    monkeypatch.setattr("hfvla.registry.load_checkpoint", None)
    sets = {"robot_selection": {"path": "eval.json"}}
    for output, problem in (
        ("file/scores", "Not a directory"),
        ("run", "holds a run"),
        ("final", "holds other files"),
    ):
        with pytest.raises(HfvlaError, match=problem):
            evaluate_checkpoint(tmp_path / "final", sets, tmp_path / output, device="cpu")
    assert (tmp_path / "run" / "metrics.json").read_text() == "the run's own" and not _fake_family


def test_an_evaluation_is_replaced_by_the_next_and_named(_fake_family, tmp_path, caplog):
    sets, given = {"robot_selection": {"path": "eval.json"}}, {"device": "cpu", "max_generate": 0}
    for _ in range(2):
        evaluate_checkpoint(tmp_path, sets, tmp_path / "out", **given, bootstrap_samples=5)
    (message,) = [message for message in caplog.messages if "is replaced" in message]
    assert "metrics.json" in message and "report.html" in message
