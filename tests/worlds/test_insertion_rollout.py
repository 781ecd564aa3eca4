import numpy as np
import pytest

from hfvla.data.video import probe
from hfvla.errors import DataError
from hfvla.worlds.insertion import evaluation_seeds, run_episodes, summarise, wilson_interval, write_film
from hfvla.worlds.insertion.evidence import demonstrator_success, direction_accuracy
from hfvla.worlds.insertion.rollout import Rollout

from .insertion_checks import Shadow, needs_pictures, needs_simulator

pytestmark = needs_simulator


class Fixed:
    """Plans the same every time."""

    def __init__(self, plan) -> None:
        self.answer, self.seeds = plan, []

    def reset(self, seed):
        self.seeds.append(seed)

    def plan(self, observation):
        return self.answer


@needs_pictures
def test_a_policy_drives_the_robot_and_is_counted(tmp_path):
    policy, seeds = Shadow("hidden_offset", chunk=4), evaluation_seeds(3)
    rollouts = run_episodes(policy, seeds, variant="hidden_offset", image_size=48, record_frames_for=2, progress=False)
    assert policy.seeds == seeds == [one.seed for one in rollouts]
    assert all(one.success and one.plans == -(-one.steps // 4) for one in rollouts)
    assert len(policy.shown) == sum(one.plans for one in rollouts)
    assert [len(one.frames) for one in rollouts] == [rollouts[0].steps + 1, rollouts[1].steps + 1, 0]
    assert rollouts[0].frames[0].shape == (48, 96, 3)
    assert max(rollouts[0].forces_n) == rollouts[0].peak_force_n > 20
    summary = summarise(rollouts)
    assert summary["success_rate"] == 1.0 and summary["successes"] == 3 and summary["within_budget"] == 1.0
    assert summary["success_steps"] == np.mean([one.steps for one in rollouts])
    assert sum(n for _, n in summary["by_direction"].values()) == 3

    film = write_film(tmp_path / "film" / "peg.mp4", rollouts)
    info = probe(str(film))
    # Two tiles of 2 x 96 by 2 x 48 + 40 pixels, each in a frame of 4.
    assert (info.width, info.height) == (2 * (192 + 8), 96 + 40 + 8)
    assert info.frames == max(one.steps for one in rollouts) + 1 + 12
    with pytest.raises(DataError, match="no episode has frames"):
        write_film(tmp_path / "none.mp4", rollouts[2:])


def test_a_policy_that_stands_still_fails_without_touching_anything():
    policy = Fixed(np.tile([0, 0, 0, 0.6], (5, 1)))
    (one,) = run_episodes(policy, [7], max_steps=12, progress=False)
    assert (one.success, one.steps, one.plans, one.frames) == (False, 12, 3, [])
    assert one.peak_force_n == one.mean_contact_force_n == 0.0
    assert summarise([one])["success_steps"] is None


@needs_pictures
def test_evidence_force_tells_and_pictures_do_not():
    sighted, blind = demonstrator_success(3), demonstrator_success(2, blind=True)
    assert sighted["success_rate"] == 1.0 and blind["success_rate"] == 0.0
    told = direction_accuracy(40)
    # 16 held-out episodes, chance 4: at least 13 by force, at most 9 otherwise.
    assert told["force"] > 0.8 and max(told["state"], told["pictures"]) < 0.6


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (np.zeros(4), r"plan of another shape; got \(4,\); expected \(n, 4\)"),
        (np.zeros((2, 3)), r"got \(2, 3\)"),
        (np.zeros((0, 4)), r"got \(0, 4\)"),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]), "action 1 of the plan: a planned action is not finite"),
    ],
)
def test_bad_plans_are_refused(plan, message):
    with pytest.raises(DataError, match=message) as caught:
        run_episodes(Fixed(plan), [3], progress=False)
    assert "seed 3 at 0.00 s" in str(caught.value)


def test_wilson_interval_by_hand():
    # p = 0.8, n = 10, z = 1.96: centre (0.8 + 0.19207) / 1.38415 = 0.71674,
    # half 1.96 sqrt(0.016 + 0.0096036) / 1.38415 = 0.22658
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(0.49016, abs=1e-4) and high == pytest.approx(0.94331, abs=1e-4)
    assert wilson_interval(0, 5)[0] == 0.0 and wilson_interval(5, 5)[1] == 1.0
    narrow = wilson_interval(8, 10, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    for bad in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no interval"):
            wilson_interval(*bad)


def test_summary_by_hand():
    rollouts = [
        Rollout(0, True, 30, 4, 50.0, 20.0, "+y"),
        Rollout(1, False, 90, 12, 150.0, 60.0, "+y"),
        Rollout(2, True, 40, 5, 70.0, 0.0, "-z"),
    ]
    summary = summarise(rollouts)
    assert summary["success_rate"] == pytest.approx(2 / 3) and summary["success_steps"] == 35.0
    assert summary["peak_force_n"] == {"median": 70.0, "p95": pytest.approx(142.0)}
    assert summary["within_budget"] == pytest.approx(2 / 3) and summary["mean_contact_force_n"] == 40.0
    assert summary["by_direction"] == {"+y": [1, 2], "-z": [1, 1]}
    with pytest.raises(ValueError, match="no episode"):
        summarise([])
