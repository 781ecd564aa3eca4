"""The report holds every number, needs nothing from outside, and escapes what it shows."""

import base64
import io
import re

import pytest
from PIL import Image

from hfvla.evaluation import tables
from hfvla.evaluation.report import write_report
from hfvla.family import EvaluationResult, Figure

from .fakes import picture


def _result(**changes):
    values = {
        "metrics": {"n": 40, "exact_match": 0.61, "ece": 0.08, "f1/Drone": 0.7, "support/Drone": 12},
        "intervals": {
            "exact_match": (0.52, 0.69),
            "ece": (0.05, 0.12),
            "baselines/majority/exact_match": (0.1, 0.2),
            "difference/majority/exact_match": (0.31, 0.57),
            "difference/majority/ece": (0.01, 0.04),
        },
        "baselines": {"majority": {"n": 40, "exact_match": 0.17, "ece": 0.05}},
        "ablations": {"blank_image": {"n": 20, "exact_match": 0.33, "ece": 0.2}},
        "figures": [
            Figure("one", "bars", "Bars <here>", {"groups": ["a"], "series": {"x": [0.4]}}, "How to read it."),
            Figure(
                "two",
                "text_examples",
                "Examples",
                {
                    "examples": [
                        {
                            "title": "Fly <b>high</b>",
                            "badge": "right",
                            "image": "data:image/png;base64," + base64.b64encode(picture("red")).decode(),
                            "bars": {"Drone": 0.93},
                            "facts": [["Gold", "Drone"]],
                            "text": "Step 1: <script>alert(1)</script>",
                        }
                    ]
                    * 6
                },
            ),
            Figure("three", "table", "A table", {"columns": ["part", "count"], "rows": [["vision", 4717792]]}),
        ],
        "census": {
            "found": 41,
            "usable": 40,
            "sets": {"Drone": 3, "Robot with Legs": 1},
            "rejected": {"no output": {"count": 1, "first": "file.json:7"}},
        },
        "notes": ["A sentence that matters."],
    }
    return EvaluationResult(**{**values, **changes})


def _text(html):
    html = re.sub(r"<(script|style)>.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def _report(tmp_path, results, **options):
    return write_report(tmp_path / "report.html", "A title", results, **options).read_text("utf-8")


def test_report_shows_everything(tmp_path):
    stages = [{"name": "selection", "seconds": 12.5, "scores": {"eval_exact_match": 0.5}}]
    info = {
        "seed": 3,
        "commit": "abc1234",
        "versions": {"torch": "2.15"},
        "hardware": {"cores": 2, "gpus": []},
        "recipe": {"family": "x"},
    }
    text = _text(_report(tmp_path, {"held_out": _result()}, run_info=info, stages=stages))
    for part in (
        *("A title", "Results on held_out", "0.610", "0.52 – 0.69", "0.170", "+0.440", "+0.31 – +0.57"),
        *("Blank picture", "0.330", "A sentence that matters.", "How to read it.", "Fly &lt;b&gt;high", "0.93"),
        *(
            "4,717,792",
            "no output",
            "file.json:7",
            "Drone: 3; Robot with Legs: 1",
            "abc1234",
            "torch: 2.15",
            "cores: 2, gpus: none",
            "selection",
            "12.5",
            "2 more",
        ),
    ):
        assert part in text, part


def test_report_is_self_contained_and_escaped(tmp_path):
    html = _report(tmp_path, {"set": _result()})
    references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", html)
    assert references and all(ref.startswith(("data:", "#")) for ref in references)
    assert (
        "url(" not in html
        and "@import" not in html
        and html.count("<script") == 1
        and "http:" not in html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    )
    assert "&lt;script&gt;" in html and "Bars &lt;here&gt;" in html
    png = next(ref for ref in references if ref.startswith("data:image/png"))
    Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).verify()
    assert "prefers-color-scheme: dark" in html


def test_best_values_and_sure_differences():
    rows = dict(tables.headline_table(_result()).rows)
    assert [cell.best for cell in rows["This model"]] == [True, False]  # the baseline has the lower ECE
    assert [cell.best for cell in rows["Majority"]] == [False, True]
    # exact match is surely higher (good), ECE surely higher (bad)
    assert [cell.tone for cell in rows["Model − Majority"]] == ["good", "bad"]
    unsure = _result(intervals={"difference/majority/exact_match": (-0.1, 0.5)})
    assert dict(tables.headline_table(unsure).rows)["Model − Majority"][0].tone == ""


def test_parts_with_the_same_names_share_a_table():
    metrics = {"n": 9, "f1/Drone": 0.5, "support/Drone": 4.0, "plan/n": 3, "plan/subtask_accuracy": 0.25}
    robots, plan = tables.detail_tables(metrics)
    assert robots.columns == ["", "F1", "Support"]
    assert [(name, [cell.text for cell in cells]) for name, cells in robots.rows] == [("Drone", ["0.500", "4"])]
    assert [cell.text for cell in plan.rows[0][1]] == ["3", "0.250"]


@pytest.mark.parametrize(("metric", "lower"), [("ece", True), ("nll/x", False), ("exact_match", False), ("mce", True)])
def test_direction_of_a_metric(metric, lower):
    assert tables.lower_is_better(metric) is lower


def test_a_bare_result_makes_a_report(tmp_path):
    html = _report(tmp_path, {"set": EvaluationResult(metrics={"n": 5})})
    assert "Results on set" in html and "Ablations" not in html and "Training" not in _text(html)
