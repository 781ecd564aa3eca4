import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hfvla.errors import DataError
from hfvla.worlds.insertion import InsertionEnv
from hfvla.worlds.insertion.environment import ACTION_LIMIT_M, DIRECTIONS, OFFSET_M
from hfvla.worlds.insertion.simulator import choose_drawing

from .insertion_checks import demonstrate, needs_pictures, needs_simulator

pytestmark = needs_simulator
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plain():
    with InsertionEnv("plain") as env:
        yield env


@pytest.fixture(scope="module")
def hidden():
    with InsertionEnv("hidden_offset") as env:
        yield env


def test_the_same_seed_gives_the_same_episode_to_the_byte(hidden):
    def episode(env):
        steps = demonstrate(env, 11)
        return [(o.state.tobytes(), o.sensor.values.tobytes(), a.tobytes()) for o, a, _ in steps]

    first = episode(hidden)
    demonstrate(hidden, 5)  # what happened in between does not matter
    again = episode(hidden)
    with InsertionEnv("hidden_offset") as other:
        assert episode(other) == first == again
    assert [step[0] for step in first] != [o.state.tobytes() for o, _, _ in demonstrate(hidden, 12)]


def test_sensor_has_400_samples_a_second_and_none_later_than_the_state(plain):
    for now, _, _ in demonstrate(plain, 0):
        times_s = now.sensor.times_s
        assert times_s.dtype == np.float64 and len(times_s) == 80 and now.sensor.values.shape == (80, 6)
        np.testing.assert_allclose(np.diff(times_s), 1 / 400, rtol=0, atol=1e-12)
        assert times_s[-1] == now.time_s
    assert plain.time_s == plain.steps / 20


@needs_pictures
def test_nothing_tells_the_hidden_offset_before_contact(hidden):
    runs = {}
    for direction in DIRECTIONS:
        before = []
        demonstrate_until_contact(hidden, direction, before)
        runs[direction] = before
    first = runs.pop("+y")
    assert len(first) > 8
    for other in runs.values():
        assert len(other) == len(first)
        for (state, sensor, pictures), (state_, sensor_, pictures_) in zip(first, other, strict=True):
            assert (state == state_).all() and (sensor == sensor_).all() and (pictures == pictures_).all()


def demonstrate_until_contact(env, direction, before):
    """Fly at the hole that is seen, and note everything a policy sees up to the step before the first contact."""
    now = env.reset(3, direction=direction)
    for _ in range(60):
        before.append((now.state, now.sensor.values, np.stack([now.views[name] for name in now.views])))
        from_seen = env.situation.tip - env.situation.seen_hole
        aligned = np.abs(from_seen[1:]).max() < 0.003
        forward = -0.006 if aligned else 0.3 * (0.04 - from_seen[0])
        now, _, info = env.step([forward, *(-0.3 * from_seen[1:]), 0.6])
        if info["contact"]:
            assert info["peak_force_n"] > 5
            return
    pytest.fail("no contact in 60 steps")


def test_the_torque_after_contact_tells_the_direction(hidden):
    for seed in (1, 2):
        for direction, (_, y, z) in DIRECTIONS.items():
            steps = demonstrate(hidden, seed, blind=True, direction=direction, touches=5)
            # Four steps of contact fill the window. The face pushes back along +x at (y, z) from the peg's middle:
            # torque (., z F, -y F). The hole lies on the other side.
            fx, _, _, _, ty, tz = steps[-1][0].sensor.values[40:].mean(axis=0)
            assert fx > 20
            centre = np.array([-tz, ty]) / fx
            told = -np.sign(centre) * (np.abs(centre) == np.abs(centre).max())
            assert told.tolist() == [y, z], (seed, direction, centre)


def test_the_felt_hole_lies_where_it_is_said_to(hidden, plain):
    for direction, unit in DIRECTIONS.items():
        hidden.reset(4, direction=direction)
        now = hidden.situation
        np.testing.assert_allclose(now.true_hole - now.seen_hole, OFFSET_M * np.array(unit), atol=1e-12)
    plain.reset(4)
    assert (plain.situation.true_hole == plain.situation.seen_hole).all() and plain.direction == ""
    drawn = set()
    for seed in range(12):
        hidden.reset(seed)
        drawn.add(hidden.direction)
    assert drawn == set(DIRECTIONS)


@pytest.mark.parametrize(("variant", "start"), [("plain", "grasped"), ("hidden_offset", "grasped"),
                                                ("plain", "table"), ("hidden_offset", "table")])  # fmt: skip
def test_demonstrations_succeed(variant, start):
    with InsertionEnv(variant, start) as env:
        for seed in range(4):
            steps = demonstrate(env, seed)
            assert steps[-1][2]["success"] and len(steps) < 90
            touched = [info["contact"] for _, _, info in steps]
            assert variant == "plain" or any(touched)
            if start == "grasped":
                assert steps[0][0].state[3] < 0.4
            else:
                assert steps[0][0].state[3] > 0.9
            peaks = [info["peak_force_n"] for _, _, info in steps]
            assert max(peaks) < 100


def test_without_the_force_the_hidden_hole_is_not_found():
    with InsertionEnv("hidden_offset", max_steps=60) as env:
        assert not any(demonstrate(env, seed, blind=True)[-1][2]["success"] for seed in range(3))


def test_actions_are_metres_and_clipped(plain):
    plain.reset(0)
    plain.step([0, 0, 0, 0.6])
    before = plain.situation.hand
    for _ in range(4):
        plain.step([0, 0, 0.01, 0.6])
    for _ in range(3):
        plain.step([0, 0, 0, 0.6])
    assert plain.situation.hand[2] - before[2] == pytest.approx(0.04, abs=0.004)

    def places(action):
        plain.reset(0)
        return plain.step(action)[0].state.tolist()

    assert places([1.0, 0, 0, 9]) == places([ACTION_LIMIT_M, 0, 0, 1])
    assert places([0.02, 0, 0, 1]) != places([ACTION_LIMIT_M, 0, 0, 1])


def test_bad_actions_are_refused(plain):
    plain.reset(0)
    with pytest.raises(DataError, match=r"another shape; got \(3,\); expected \(4,\)"):
        plain.step(np.zeros(3))
    with pytest.raises(DataError, match="action is not finite; got .*nan"):
        plain.step([0, float("nan"), 0, 0])
    with pytest.raises(DataError, match="not finite; got .*inf"):
        plain.step([0, 0, float("inf"), 0])
    assert plain.steps == 0
    with InsertionEnv("plain", max_steps=2) as short:
        short.reset(0)
        assert not short.step(np.zeros(4))[1]
        _, done, info = short.step(np.zeros(4))
        assert done and not info["success"]
        with pytest.raises(DataError, match="the episode is over"):
            short.step(np.zeros(4))


def test_bad_choices_are_refused(plain):
    with pytest.raises(DataError, match="no such variant; got 'hiden'"):
        InsertionEnv("hiden")
    with pytest.raises(DataError, match="no such start; got 'air'"):
        InsertionEnv("plain", "air")
    with pytest.raises(DataError, match="no such view; got 'wirst'. Did you mean 'wrist'"):
        InsertionEnv("plain", views=("wirst",))
    with pytest.raises(DataError, match=r"no such direction; got '\+y'"):
        plain.reset(0, direction="+y")


@needs_pictures
def test_views_are_drawn_when_looked_at_and_refuse_another_moment(plain):
    first = plain.reset(0)
    assert set(first.views) == {"corner", "wrist"} and "front" not in first.views
    kept = first.views["corner"]
    assert kept.shape == (96, 96, 3) and kept.dtype == np.uint8
    second, _, _ = plain.step([-0.02, 0, 0, 0.6])
    assert first.views["corner"] is kept  # drawn in time
    with pytest.raises(DataError, match=r"at 0.00 s: view 'wrist': the simulation has moved on"):
        first.views["wrist"]
    assert (second.views["corner"] != kept).any()


@needs_pictures
def test_pictures_show_five_millimetres(plain):
    """The hand's camera sees the hole move by more than a pixel when the hand moves 5 mm aside."""

    def hole(picture):
        black = np.argwhere(picture[25:55, 20:60].max(axis=2) < 30)
        assert 50 < len(black) < 400
        return black[:, 1].mean()

    plain.reset(0)
    for _ in range(40):
        from_hole = plain.situation.tip - plain.situation.seen_hole
        now, _, _ = plain.step([*(0.3 * (np.array([0.06, 0, 0]) - from_hole)), 0.6])
    before = hole(now.views["wrist"])
    for _ in range(20):
        from_hole = plain.situation.tip - plain.situation.seen_hole
        now, _, _ = plain.step([*(0.3 * (np.array([0.06, 0.005, 0]) - from_hole)), 0.6])
    assert abs(hole(now.views["wrist"]) - before) > 1


def test_drawing_library_is_chosen_and_its_absence_explained():
    assert choose_drawing({}, lambda name: f"lib{name}.so") == "osmesa"
    assert choose_drawing({}, lambda name: "libEGL.so" if name == "EGL" else None) == "egl"
    assert choose_drawing({}, lambda name: None) == "disabled"
    assert choose_drawing({"MUJOCO_GL": "egl"}, lambda name: f"lib{name}.so") == "egl"
    code = (
        "from hfvla.worlds.insertion import InsertionEnv\n"
        "from hfvla.errors import HfvlaError\n"
        "now = InsertionEnv('plain').reset(0)\n"  # physics needs no such library
        "try: now.views['wrist']\n"
        "except HfvlaError as error: print(error)\n"
    )
    env = {**os.environ, "MUJOCO_GL": "disabled", "PYTHONPATH": str(ROOT / "src")}
    seen = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "MUJOCO_GL=disabled: pictures of the simulated robot cannot be drawn" in seen.stdout
    assert "make system-libs" in seen.stdout and "libosmesa6" in seen.stdout


def test_what_draws_is_freed_before_its_library_ends():
    """Without a library that draws: one that ends itself at exit, as EGL does, made after somebody's finalizer."""
    code = (
        "import atexit, weakref\n"
        "from hfvla.worlds.insertion import cameras\n"
        "somebody = weakref.finalize(cameras.Cameras, print, 'a finalizer')\n"  # takes its place in the order of exit
        "class Renderer:\n"
        "    def __init__(self, name): self.name = name; atexit.register(print, name, 'library ends')\n"
        "    def close(self): print(self.name, 'freed')\n"
        "def draw(name):\n"
        "    made = cameras.Cameras(None, 8, ())\n"
        "    made._renderer = Renderer(name)\n"
        "    cameras._close_at_exit(made)\n"
        "    return made\n"
        "first, second = draw('first'), draw('second')\n"
        "first.close()\n"
        "first.close()\n"
        "print('end')\n"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = ["first freed", "end", "second freed", "second library ends", "first library ends", "a finalizer"]
    assert seen.stdout.splitlines() == lines and seen.stderr == ""


@pytest.mark.parametrize("library", ["egl", "glfw"])
def test_a_library_without_a_screen_is_explained_and_nothing_else_is_printed(library):
    """Half-made renderers and contexts used to complain from their destructors."""
    code = (
        "from hfvla.worlds.insertion import InsertionEnv\n"
        "from hfvla.errors import HfvlaError\n"
        "now = InsertionEnv('plain').reset(0)\n"
        "try: now.views['wrist']\n"
        "except HfvlaError as error: print(error)\n"
    )
    env = {**os.environ, "MUJOCO_GL": library, "MUJOCO_EGL_DEVICE_ID": "99", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    seen = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    told = seen.stdout + seen.stderr  # without libEGL it is refused where the simulator is imported
    assert f"MUJOCO_GL={library}: pictures of the simulated robot cannot be drawn" in told
    assert "Exception ignored" not in seen.stderr


@needs_pictures
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_torch_trains_in_the_process_that_draws():
    """Mesa's LLVM before Triton's ended the process at the first optimizer."""
    code = (
        "import torch\n"
        "from hfvla.worlds.insertion import InsertionEnv\n"
        "env = InsertionEnv('plain')\n"  # not closed: the end of the process frees it quietly
        "env.reset(0).views['wrist']\n"
        "weight = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = torch.optim.AdamW([weight])\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "import triton\n"
        "print('trained', float(weight[0]) < 1)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    seen = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout == "trained True\n" and "Exception ignored" not in seen.stderr
