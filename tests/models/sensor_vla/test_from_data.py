"""`from_data`: what a LeRobot data set's meta/ says fills what the recipe leaves open; nothing else is touched."""

import numpy as np
import pytest

from hfvla.data.sources.lerobot import LeRobotWriter
from hfvla.errors import RecipeError
from hfvla.models.sensor_vla.from_data import config_from_data
from hfvla.recipe import build_options, load_recipe
from hfvla.registry import get_family

SPEC = get_family("sensor_vla")


def write(folder, names=("x", "y"), fps=20, action=2):
    features = {
        "observation.images.front": {"dtype": "image", "shape": (16, 16, 3)},
        "observation.images.wrist": {"dtype": "image", "shape": (16, 16, 3)},
        "observation.state": {"dtype": "float32", "shape": (3,)},
        "touch": {"dtype": "float32", "shape": (5, 6)},
        "action": {"dtype": "float32", "shape": (action,), "names": {"motors": list(names)}},
    }
    with LeRobotWriter(folder, fps=fps, features=features) as writer:
        for _ in range(2):
            for _ in range(4):
                picture = np.zeros((16, 16, 3), np.uint8)
                writer.add_frame(
                    {"observation.images.front": picture, "observation.images.wrist": picture,
                     "observation.state": np.zeros(3, np.float32), "touch": np.zeros((5, 6), np.float32),
                     "action": np.zeros(action, np.float32)}, task="push",
                )  # fmt: skip
            writer.add_sensor("force", np.arange(101) / 400, np.zeros((101, 3), np.float32))
            writer.save_episode()
    return str(folder)


def facts(path, from_data=True, **options):
    built = build_options(SPEC, "lerobot", {"path": path, **options})
    return config_from_data({"from_data": from_data}, [("lerobot", built)])


def test_the_facts_are_those_of_meta(tmp_path):
    path = write(tmp_path / "peg")
    found = facts(path, horizon=5)
    assert found == {
        "views": ["front", "wrist"], "state_dim": 3, "sensor": None,
        "action": {"dim": 2, "horizon": 5, "fps": 20.0, "names": ["x", "y"]},
    }  # fmt: skip
    assert facts(path, views=["wrist"], state=[])["views"] == ["wrist"]
    assert facts(path, state=[])["state_dim"] == 0
    assert facts(path, from_data=False) == {}
    assert facts(str(tmp_path / "later")) == {"state_dim": 7}  # for a plan


def test_sensors_of_both_kinds(tmp_path):
    path = write(tmp_path / "peg")
    feature = facts(path, sensor={"name": "touch", "window_s": 0.1})["sensor"]
    assert feature == {"channels": 6, "points": 10, "rate_hz": 100.0, "names": None}
    table = facts(path, sensor={"name": "force", "window_s": 0.1})["sensor"]
    assert table == {"channels": 3, "points": 40, "rate_hz": 400.0, "names": None}


def test_sources_must_agree_and_must_be_lerobot(tmp_path):
    sets = [write(tmp_path / "a"), write(tmp_path / "b", names=("u", "v"))]
    built = [("lerobot", build_options(SPEC, "lerobot", {"path": path})) for path in sets]
    with pytest.raises(RecipeError, match=r"the sources differ in action.*Write model.config.action out"):
        config_from_data({"from_data": True}, built)
    with pytest.raises(RecipeError, match="only LeRobot data sets say what they hold.*got 'reaching'"):
        config_from_data({"from_data": True}, [("reaching", None)])


def test_the_recipe_takes_them_and_its_own_values_stay(tmp_path, repository):
    path = write(tmp_path / "peg")
    file = repository / "recipes/sensor_vla/lerobot.yaml"
    recipe = load_recipe(file, [f"data.train.lerobot.path={path}", "model.config.action.names=[a, b]"])
    config = SPEC.load("build_config")(recipe.model.model_dump())
    assert (config.views, config.state_dim, config.sensor) == (["front", "wrist"], 3, None)
    assert config.action == {"dim": 2, "horizon": 8, "fps": 20.0, "names": ["a", "b"]}
    again = load_recipe(file)  # without the data: the config's defaults
    assert "views" not in again.model.config and again.model.config["state_dim"] == 7
