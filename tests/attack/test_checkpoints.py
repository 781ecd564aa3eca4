"""200 hostile checkpoints: each is refused in one line or loads as what it was; no traceback, no hang, no silence."""

from collections import Counter

import pytest

from . import checkpoints
from .checkpoints import FAMILIES, attack_checkpoint
from .judging import check_outcomes, quiet

SEEDS = 50  # of each of the four families


@pytest.fixture(scope="module")
def base():
    return {}


def run(family, seeds, folder, base):
    with quiet():
        return [attack_checkpoint(family, seed, folder, base) for seed in seeds]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_checkpoints_are_refused(family, tmp_path, base):
    outcomes = run(family, range(SEEDS), tmp_path, base)
    check_outcomes(outcomes)
    verdicts = Counter(one.verdict for one in outcomes)
    assert verdicts["refused"] > 0.8 * SEEDS, f"harm that hardly harms: {verdicts}"


def test_the_judge_sees_silence(tmp_path, base, monkeypatch):
    """A processor that checks nothing is found out."""
    from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor

    monkeypatch.delattr(EmberVLMProcessor, "check_config")

    monkeypatch.setattr(checkpoints, "harms", lambda family: [checkpoints._processor])
    found = attack_checkpoint("ember_vlm", 1, tmp_path, base)
    assert found.verdict == "silent", found
