"""Chain scores by hand."""

import pytest

from hfvla.data.samples.robots import ROBOTS
from hfvla.metrics.reasoning import chain_scores, content_words, reasoning_scores

TASK = "Inspect the bridge cables and the towers"
GOOD = (
    "Step 1: Task Analysis: inspect bridge cables.\n"
    "Step 2: Environment Assessment: outdoor, high.\n"
    "Step 3: Robot Capability Matching: Drone: yes, flies; Underwater Robot: no, dry; Humanoid: no, cannot climb; "
    "Robot with Wheels: no, no road; Robot with Legs: no, too low.\n"
    "Step 4: Decision Justification: reach from the air. Decision: Drone."
)


def test_a_good_chain():
    scores = chain_scores(GOOD, TASK, ["Drone"], ROBOTS)
    # content words: inspect, bridge, cable, tower; the chain has the first three
    assert content_words(TASK) == {"inspect", "bridge", "cable", "tower"}
    assert scores["four_steps"] == scores["consistency"] == scores["contradiction_free"] == 1.0
    assert scores["relevance"] == 3 / 4
    assert scores["contradictions"] == 0.0


def test_contradictions_count_both_directions():
    chain = GOOD.replace("Drone: yes", "Drone: no").replace("Humanoid: no", "Humanoid: yes")
    assert chain_scores(chain, TASK, ["Drone"], ROBOTS)["contradictions"] == 2.0


def test_consistency_is_with_the_head_and_needs_the_whole_set():
    assert chain_scores(GOOD, TASK, ["Drone", "Humanoid"], ROBOTS)["consistency"] == 0.0
    assert chain_scores(GOOD, TASK, ["Humanoid"], ROBOTS)["consistency"] == 0.0


def test_a_missing_step_and_an_empty_chain():
    without = "\n".join(line for line in GOOD.split("\n") if not line.startswith("Step 2"))
    assert chain_scores(without, TASK, ["Drone"], ROBOTS)["four_steps"] == 0.0
    empty = chain_scores("", TASK, ["Drone"], ROBOTS)
    assert set(empty.values()) == {0.0}  # what decides nothing is not free of contradictions


def test_means_and_share_without_contradiction():
    bad = GOOD.replace("Drone: yes", "Drone: no")
    scores = reasoning_scores([GOOD, bad, ""], [TASK] * 3, [["Drone"]] * 3, ROBOTS)
    assert scores["contradictions"] == pytest.approx(1 / 3)
    assert scores["contradiction_free"] == pytest.approx(1 / 3)
    assert scores["relevance"] == pytest.approx((0.75 + 0.75 + 0) / 3)


def test_length_mismatch_is_refused():
    with pytest.raises(ValueError, match="got 1, 2, 1"):
        reasoning_scores(["a"], ["b", "c"], [["Drone"]], ROBOTS)
