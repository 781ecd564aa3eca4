"""500 hostile inputs of the data sources: an error of hfvla or a counted record, never a traceback, a hang, silence.

`benchmarks/attack.py` does more of the same. To see one again: `attack_data(name, seed, ...)`, as the message says.
"""

from collections import Counter

import pytest

from .data import INPUTS, attack_data, prepare
from .judging import check_outcomes, quiet

SEEDS = 63  # of each of the eight inputs

for package in ("av", "h5py"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    return folder, prepare(folder)


def run(name, seeds, valid, work):
    folder, rows = valid
    with quiet():
        return [attack_data(name, seed, folder, work, rows[name]) for seed in seeds]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", INPUTS)
def test_hostile_data_is_refused_or_counted(name, valid, tmp_path):
    outcomes = run(name, range(SEEDS), valid, tmp_path)
    check_outcomes(outcomes)
    verdicts = Counter(one.verdict for one in outcomes)
    assert verdicts["refused"] + verdicts["counted"] > SEEDS // 4, f"harm that hardly harms: {verdicts}"


def test_the_judge_sees_silence(valid, tmp_path, monkeypatch):
    """A reader that drops a bad record and says nothing is found out."""
    from hfvla.data.sources.census import Census

    monkeypatch.setattr(Census, "reject", lambda self, *args: None)
    outcomes = run("geotext", range(20), valid, tmp_path)
    assert any(one.verdict == "silent" for one in outcomes)
