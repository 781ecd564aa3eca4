"""The rule: each convention by hand-written facts, independent of the vocabulary."""

import pytest

from hfvla.data.samples.robots import ROBOTS
from hfvla.worlds.fleet.facts import Facts
from hfvla.worlds.fleet.rule import CLAUSES, decide, deciding_clause, explain
from hfvla.worlds.fleet.situations import situations

D, U, H, W, L = ROBOTS


@pytest.mark.parametrize(
    ("facts", "robots"),
    [
        (Facts(medium="water"), (U,)),
        (Facts(medium="water", activity="take"), (U,)),
        (Facts(medium="water and air"), (D, U)),
        (Facts(medium="water and air", vantage="below"), (U,)),
        (Facts(medium="water and air", vantage="above"), (D,)),
        (Facts(terrain="field", vantage="above"), (D,)),
        (Facts(height_m=40), (D,)),
        (Facts(wide=True, terrain="open ground"), (D,)),
        (Facts(terrain="rough"), (D, L)),
        (Facts(terrain="rough", activity="explore"), (D, L)),
        (Facts(terrain="rough", activity="carry", payload_kg=4), (L,)),
        (Facts(terrain="rough", activity="carry", payload_kg=90), (L,)),
        (Facts(terrain="rough", activity="climb"), (L,)),
        (Facts(terrain="stairs", height_m=8), (L,)),
        (Facts(terrain="underground"), (L,)),
        (Facts(terrain="sand"), (W,)),
        (Facts(terrain="paved", activity="carry", payload_kg=4), (W,)),
        (Facts(terrain="field"), (D, L, W)),
        (Facts(terrain="field", focus="system"), (D, L, W)),
        (Facts(terrain="field", focus="living"), (D, L)),
        (Facts(terrain="field", focus="soil", activity="take"), (L, W)),
        (Facts(terrain="field", focus="contact"), (L,)),
        (Facts(terrain="field", focus="growth"), (D,)),
        (Facts(terrain="field", activity="fieldwork"), (W,)),
        (Facts(terrain="field", activity="hands", hands=True, walking=True), (H, L)),
        (Facts(terrain="floor", indoor=True, activity="carry", payload_kg=4), (L, W)),
        (Facts(terrain="floor", indoor=True, activity="carry", payload_kg=90), (W,)),
        (Facts(terrain="floor", indoor=True, focus="equipment"), (L, H)),
        (Facts(terrain="floor", indoor=True, activity="hands", hands=True), (H,)),
        (Facts(terrain="floor", indoor=True, activity="hands", hands=True, walking=True), (H, L)),
        (Facts(terrain="floor", people="crowd", activity="carry", payload_kg=4), (L,)),
        (Facts(terrain="logistics floor", activity="carry", payload_kg=4), (W,)),
        (Facts(terrain="logistics floor"), (W, L)),
        (Facts(terrain="unfinished floor"), (L, W, H)),
        (Facts(terrain="soft ground"), (D, L, H)),
        (Facts(medium="bank", terrain="rough"), (L, D, U)),
    ],
)
def test_conventions(facts, robots):
    assert decide(facts) == robots


def test_every_clause_is_reached_by_the_vocabulary():
    assert {item.clause.name for item in situations()} == {clause.name for clause in CLAUSES}


def test_explanations_agree_with_the_decision_for_every_situation():
    for item in situations():
        verdicts = explain(item.facts)
        assert list(verdicts) == list(ROBOTS)
        assert {robot for robot, (yes, _) in verdicts.items() if yes} == set(item.robots)
        assert all(1 <= len(reason.split()) <= 5 for _, reason in verdicts.values())


def test_facts_that_no_clause_covers_are_an_error():
    with pytest.raises(ValueError, match="no clause covers.*terrain='none'"):
        deciding_clause(Facts())
