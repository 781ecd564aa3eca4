"""The chain of thought: format, round trip, tolerance, word boundaries."""

import pytest

from hfvla.data.reasoning import (
    ACTION_WORDS,
    ENVIRONMENT_WORDS,
    STEP_TITLES,
    build_chain,
    find_keywords,
    graft_chain,
    parse_reasoning,
    verdict_spans,
    write_chain,
)
from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import DataError

GOLD = ("Robot with Legs", "Drone")


def test_a_built_chain_reads_back_as_its_gold_set_in_order():
    parsed = parse_reasoning(build_chain("Map the rocky gorge.", GOLD))
    assert tuple(parsed.steps) == STEP_TITLES
    assert parsed.decision == GOLD
    assert list(parsed.verdicts) == list(ROBOTS)
    assert {robot for robot, yes in parsed.verdicts.items() if yes} == set(GOLD)


def test_verdict_spans_cut_out_exactly_the_word():
    text = build_chain("Dive to the wreck.", ["Underwater Robot"])
    words = {robot: text[start:end] for robot, (start, end) in verdict_spans(text, ROBOTS).items()}
    assert words == {robot: "yes" if robot == "Underwater Robot" else "no" for robot in ROBOTS}


def test_verdicts_are_read_from_step_three_only():
    text = "Step 1: Task Analysis: Drone: no, said someone.\nStep 3: Robot Capability Matching: Drone: yes, flies."
    assert parse_reasoning(text, ROBOTS).verdicts == {"Drone": True}


@pytest.mark.parametrize("text", ["", "garbage", "Step 2: Environment", "Decision Justification: none"])
def test_missing_parts_are_left_out_and_not_guessed(text):
    parsed = parse_reasoning(text, ROBOTS)
    assert parsed.decision == () and parsed.verdicts == {}


def test_a_chain_cut_off_in_step_three_keeps_what_is_there():
    text = build_chain("Inspect the dune.", ["Robot with Wheels"])
    parsed = parse_reasoning(text[: text.index("Humanoid: no")], ROBOTS)
    assert parsed.verdicts == {"Drone": False, "Underwater Robot": False}
    assert parsed.decision == () and STEP_TITLES[3] not in parsed.steps


def test_decision_names_each_robot_once_and_longest_name_first():
    fleet = ("Drone", "Drone XL")
    text = "Step 3: Robot Capability Matching: Drone: no, small; Drone XL: yes, big.\nDecision: drone xl, Drone XL."
    parsed = parse_reasoning(text, fleet)
    assert parsed.decision == ("Drone XL",)
    assert parsed.verdicts == {"Drone": False, "Drone XL": True}


@pytest.mark.parametrize(
    ("task", "table", "absent"),
    [
        ("Do research on the data.", ENVIRONMENT_WORDS, "underwater"),
        ("Carry it up the stairs.", ENVIRONMENT_WORDS, "aerial"),
        ("Walk through the hall.", ENVIRONMENT_WORDS, "rough terrain"),
        ("Remap nothing, roadmap only.", ACTION_WORDS, "survey"),
    ],
)
def test_keywords_need_word_boundaries(task, table, absent):
    assert absent not in find_keywords(task, table)


@pytest.mark.parametrize(
    ("task", "table", "present"),
    [
        ("Search the sea.", ENVIRONMENT_WORDS, "underwater"),
        ("Look from the air.", ENVIRONMENT_WORDS, "aerial"),
        ("Cross rough ground.", ENVIRONMENT_WORDS, "rough terrain"),
        ("Mapping the town", ACTION_WORDS, "survey"),
    ],
)
def test_keywords_are_found_as_whole_words(task, table, present):
    assert present in find_keywords(task, table)


def test_chains_stay_short():
    task = "Inspect and map the rocky underwater cave below the tower and carry heavy samples to the crowded office."
    assert len(build_chain(task, ROBOTS).split()) <= 85


def test_a_users_own_fleet_gets_a_verdict_each():
    parsed = parse_reasoning(build_chain("Mow the lawn.", ["Mower"], ["Mower", "Boat"]), ["Mower", "Boat"])
    assert parsed.verdicts == {"Mower": True, "Boat": False} and parsed.decision == ("Mower",)


def test_unknown_gold_robot_is_refused_with_a_suggestion():
    with pytest.raises(DataError, match="'Dron'.*Did you mean 'Drone'"):
        build_chain("Fly.", ["Dron"])


def test_empty_gold_set_is_refused():
    with pytest.raises(DataError, match="without a gold robot"):
        build_chain("Fly.", [])


def test_a_chain_whose_verdicts_contradict_its_decision_is_refused():
    with pytest.raises(DataError, match="contradicts itself"):
        write_chain("a", "b", {"Drone": (False, "x")}, "c", ["Drone"])


def test_a_grafted_chain_has_the_task_of_one_and_the_robots_of_the_other():
    own, other = build_chain("Inspect the reef.", ["Underwater Robot"]), build_chain("Film the roof.", ["Drone"])
    grafted = parse_reasoning(graft_chain(own, other))
    first, last = parse_reasoning(own), parse_reasoning(other)
    assert grafted.decision == ("Drone",) and grafted.verdicts == last.verdicts
    assert [grafted.steps[title] for title in STEP_TITLES] == [
        *(first.steps[title] for title in STEP_TITLES[:2]),
        *(last.steps[title] for title in STEP_TITLES[2:]),
    ]


@pytest.mark.parametrize("own", ["", "It flies.", "Step 1: Task Analysis: film. Step 3: Robot Capability Matching: x"])
def test_nothing_is_grafted_where_a_step_is_missing(own):
    whole = build_chain("Film the roof.", ["Drone"])
    assert graft_chain(own, whole) is None and graft_chain(whole, "Decision: Drone.") is None
