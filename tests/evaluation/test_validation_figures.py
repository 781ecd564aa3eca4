"""What was drawn at each validation stands in the report, by stage and step."""

import re

from hfvla.evaluation.output import write_plot
from hfvla.evaluation.report import write_report
from hfvla.evaluation.validation_figures import read_validations
from hfvla.family import Figure


def draw_steps(plots, stage, steps):
    for step in steps:
        bars = {"groups": ["a"], "series": {"x": [step / 1000]}}
        write_plot(Figure("bars", "bars", f"F1 & more at {step}", bars), plots / stage / f"step-{step}")


def test_figures_by_stage_and_step(tmp_path):
    draw_steps(tmp_path, "one", [100, 20, 3])
    (tmp_path / "one/step-x").mkdir()
    (tmp_path / "one/step-7").mkdir()
    (tmp_path / "one/step-7/other.svg").write_text("<svg onload='alert(1)'></svg>")
    (found,) = read_validations(tmp_path, ["one", "none"])
    assert found.stage == "one" and [step for step, _ in found.steps] == [3, 20, 100]
    assert [title for _, drawn in found.steps for title, _ in drawn] == [f"F1 & more at {n}" for n in (3, 20, 100)]


def test_of_many_validations_some_are_shown_the_last_among_them(tmp_path):
    draw_steps(tmp_path, "one", range(1, 31))
    (found,) = read_validations(tmp_path, ["one"])
    steps = [step for step, _ in found.steps]
    assert steps == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30] and found.left_out == 20
    text = write_report(
        tmp_path / "report.html", "A run", {}, stages=[{"name": "one"}], validations=[found]
    ).read_text()
    assert "Figures at each validation of stage one" in text and "20 more validations are in plots/one/" in text
    assert re.findall(r"<h4>Step (\d+)</h4>", text) == [str(step) for step in steps]
    assert text.count("<h3>F1 &amp; more at ") == 10
