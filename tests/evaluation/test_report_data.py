"""Scores do not depend on the report, and a report can be made later from what was saved."""

import json

import numpy as np
import pytest

from hfvla.cli import main
from hfvla.errors import DataError, HfvlaError
from hfvla.evaluation import output as output_module
from hfvla.evaluation.report_data import load_report_data
from hfvla.evaluation.run import remake_report, write_evaluation
from hfvla.family import EvaluationResult, Figure
from hfvla.outputs import claim_folder, purpose_of

BARS = {"groups": ["$5 or $10"], "series": {"x": np.array([0.4, np.nan])[:1]}}


def result(**changes):
    values = {
        "metrics": {"n": 4, "exact_match": 0.5, "undefined": float("nan")},
        "intervals": {"exact_match": (0.1, 0.9), "baselines/majority/exact_match": (0.0, 0.3)},
        "baselines": {"majority": {"n": 4, "exact_match": 0.25}},
        "ablations": {"blank": {"exact_match": 0.25}},
        "rows": [{"id": "a", "task": "lone \ud800 half"}],
        "figures": [Figure("bars", "bars", "Bars <x>", BARS)],
        "files": {"film.mp4": b"moving"},
        "notes": ["what matters"],
    }
    return EvaluationResult(**{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    return claim_folder(tmp_path / "out", "evaluation")


@pytest.mark.parametrize("sets", [1, 2])
def test_the_same_report_is_made_again(folder, sets):
    results = {name: result() for name in ("one", "two")[:sets]}
    assert write_evaluation(results, folder, {"title": "A title", "seed": 3}) is None
    before = (folder / "report.html").read_text("utf-8")
    (folder / "report.html").unlink()
    for path in (folder / "plots").iterdir():
        path.unlink()
    assert remake_report(folder) == folder / "report.html"
    assert (folder / "report.html").read_text("utf-8") == before
    assert len(list((folder / "plots").iterdir())) == sets


@pytest.mark.parametrize("error", [RuntimeError("bad $ formula"), RecursionError(), MemoryError()])
def test_a_report_that_fails_costs_no_score(folder, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(output_module, "write_report", fail)
        reason = write_evaluation({"one": result()}, folder, {})
        assert reason.startswith(type(error).__name__)
        with pytest.raises(HfvlaError, match="the report cannot be made"):
            remake_report(folder)
    assert f"hfvla report {folder}" in caplog.text
    assert json.loads((folder / "metrics.json").read_text())["exact_match"] == 0.5
    assert (folder / "predictions.jsonl").is_file() and not (folder / "report.html").exists()
    assert "Bars &lt;x&gt;" in remake_report(folder).read_text("utf-8")


def test_a_plot_that_fails_costs_no_other(folder):
    broken = Figure("broken", "bars", "Broken", {"groups": ["a"], "series": {"x": [1, 2, 3]}})
    assert (
        write_evaluation({"one": result(figures=[broken, Figure("good", "bars", "Good", BARS)])}, folder, {}) is None
    )
    html = (folder / "report.html").read_text("utf-8")
    assert "This plot could not be drawn" in html and html.count("<svg class") == 1
    assert [path.name for path in (folder / "plots").iterdir()] == ["good.svg"]


def test_predictions_with_half_a_pair_are_written_and_read(folder):
    write_evaluation({"one": result()}, folder, {})
    (line,) = (folder / "predictions.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["task"] == "lone \ud800 half"


def test_an_older_evaluation_has_its_scores_in_the_report(folder, tmp_path):
    write_evaluation({"one": result(), "two": result()}, folder, {})
    (folder / "report.json").unlink()
    html = remake_report(folder, tmp_path / "new").read_text("utf-8")
    assert "0.500" in html and "0.250" in html and "from before report.json" in html and "Results on two" in html
    assert purpose_of(tmp_path / "new") == "evaluation"
    found, _ = load_report_data(folder)
    assert found["one"].intervals["baselines/majority/exact_match"] == (0.0, 0.3)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"results": 3}', '{"results": {"a": []}}', "\udcff"])
@pytest.mark.parametrize("name", ["report.json", "metrics.json"])
def test_damaged_files_are_one_line(folder, name, content):
    (folder / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=name):
        remake_report(folder)


def test_the_command(folder, tmp_path, capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["report", *map(str, words)])
        return caught.value.code or 0, capsys.readouterr()

    write_evaluation({"one": result()}, folder, {})
    code, printed = call(folder, "--json")
    assert code == 0 and json.loads(printed.out) == {"report": str(folder / "report.html")}
    assert "is replaced" in printed.err
    code, printed = call(tmp_path)
    assert code == 2 and "nothing was evaluated here" in printed.err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "metrics.json").write_bytes((folder / "metrics.json").read_bytes())
    (mine / "report.html").write_text("mine")
    code, printed = call(mine)
    assert code == 2 and "no mark" in printed.err and (mine / "report.html").read_text() == "mine"
