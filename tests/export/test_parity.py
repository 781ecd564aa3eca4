"""Two engines compared on the same rows, with numbers that can be checked by hand."""

import numpy as np
import pytest

from hfvla.errors import HfvlaError
from hfvla.export.parity import check_parity, compare_engines, parity_figure
from hfvla.family import Answers, ExportPlan


class Engine:
    """Adds `shift` to every row's number, and decides whether it is above zero."""

    def __init__(self, name, shift):
        self.name, self.shift, self.seconds = name, shift, {}

    def __call__(self, part, inputs):
        self.seconds.setdefault(part, []).append(0.25)
        return {"y": np.asarray(inputs["x"]) + self.shift}


def answer(run, rows):
    found = [float(run("add", {"x": row["x"]})["y"]) for row in rows]
    right = [float((value > 0) == row["gold"]) for value, row in zip(found, rows, strict=True)]
    return Answers({"y": found}, [value > 0 for value in found], {"accuracy": right})


PLAN = ExportPlan((), answer, {"y": 0.1})
ROWS = [{"x": x, "gold": x > 0} for x in (-2.0, -0.5, 0.5, 2.0)]


def compared(shift):
    return compare_engines(PLAN, Engine("torch", 0.0), Engine("other", shift), ROWS, sizes=(400, 100))


def test_numbers_decisions_scores_and_sizes():
    found = compared(1.0)  # -0.5 becomes 0.5: one of four is decided otherwise, and wrongly
    assert found["rows"] == 4 and found["decisions"] == 0.75 and found["differing"] == [1]
    assert found["values"]["y"] == {"max_difference": 1.0, "mean_difference": 1.0, "largest": 2.0}
    scores = {name: engine["scores"]["accuracy"] for name, engine in found["engines"].items()}
    assert scores["torch"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert scores["other"]["mean"] == 0.75 and scores["other"]["low"] < 0.75 <= scores["other"]["high"] <= 1.0
    assert [engine["bytes"] for engine in found["engines"].values()] == [400, 100]
    assert found["engines"]["other"]["row_ms"] == {"add": 250.0}


def test_an_export_that_decides_otherwise_fails(tmp_path):
    with pytest.raises(HfvlaError, match=r"got '75\.00% of 4 rows alike, with 8 bits'; expected 99\.50% or more"):
        check_parity(compared(1.0), PLAN, 8, 0.995, tmp_path)
    check_parity(compared(1.0), PLAN, 8, 0.75, tmp_path)


def test_with_32_bits_numbers_must_agree_too(tmp_path):
    check_parity(compared(0.2), PLAN, 16, 1.0, tmp_path)
    with pytest.raises(HfvlaError, match=r"y: the export computes something else.*2\.0e-01.*at most 1\.0e-01"):
        check_parity(compared(0.2), PLAN, 32, 1.0, tmp_path)


def test_numbers_that_are_not_finite_fail(tmp_path):
    with pytest.raises(HfvlaError, match="not finite; got 'y'"):
        check_parity(compared(float("nan")), PLAN, 8, 0.0, tmp_path)


def test_the_table_shows_both_engines():
    rows = parity_figure(compared(1.0)).data["rows"]
    assert rows[0][:2] == ["accuracy", "1.000 (1.000 – 1.000)"] and rows[0][2].startswith("0.750 (")
    assert ["decided alike", "", "75.00% of 4 rows"] in rows and ["add, ms", "250.0", "250.0"] in rows
