"""Stages on cached features: same losses and weights, reuse across stages, what is refused, building ahead."""

import json
import logging

import pytest
import torch
import yaml
from typer.testing import CliRunner

from hfvla.cli.commands import app
from hfvla.errors import RecipeError
from hfvla.models.ember_vlm import FAMILY
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor
from hfvla.nn.timm_tower import TimmTower
from hfvla.recipe import check_recipe, resolved_dict
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.build_caches import build_caches
from hfvla.training.run.caching import ever_trained
from hfvla.training.run.run import run_recipe
from hfvla.training.stage.data import RecipeData

from ..recipes import build_recipe

PARTS = ["projector", "language", "fusion", "selection_head"]
SCENES = {"source": "fleet", "size": 24, "image_size": 64}


def align(**changes):
    losses = {"itc": 1.0, "caption": 1.0, "selection": 1.0}
    return {"name": "align", "train": [*PARTS, "temperature"], "losses": losses, **changes}


def select(**changes):
    return {"name": "select", "train": PARTS, "losses": {"selection": 1.0}, **changes}


def make(output, *stages, **changes):
    data = {"train": [SCENES], "validation": {"fraction": 0.25}}
    return build_recipe("", output, list(stages), **{"data": data, **changes})


def history(folder, stage="align"):
    return json.loads((folder / stage / "log_history.json").read_text())


def losses(folder, stage="align"):
    """Return every loss of training and validation, in order."""
    return [
        {name: value for name, value in line.items() if "loss" in name}
        for line in history(folder, stage)
        if "loss" in line or "eval_loss" in line
    ]


class Counter:
    """Counts what the vision tower and the picture decoder do."""

    def __init__(self, monkeypatch):
        self.encoded = self.decoded = 0
        forward, pixels = TimmTower.forward, EmberVLMProcessor.pixels

        def counted_forward(tower, pixel_values):
            self.encoded += len(pixel_values)
            return forward(tower, pixel_values)

        def counted_pixels(processor, images):
            self.decoded += sum(image is not None for image in images)
            return pixels(processor, images)

        monkeypatch.setattr(TimmTower, "forward", counted_forward)
        monkeypatch.setattr(EmberVLMProcessor, "pixels", counted_pixels)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of one run by type of its cache; None is the run without."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for dtype in (None, "float32", "float16", "bfloat16"):
        found[dtype] = folder / str(dtype)
        cache = {} if dtype is None else {"cache": {"dtype": dtype}}
        run_recipe(make(found[dtype], align(**cache), select(**cache)))
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("stage", ["align", "select"])
def test_losses_are_those_without_a_cache(runs, dtype, tolerance, stage):
    expected, found = losses(runs[None], stage), losses(runs[dtype], stage)
    assert len(expected) == len(found) >= 4
    for one, two in zip(expected, found, strict=True):
        assert set(one) == set(two)
        assert two == pytest.approx(one, abs=tolerance, rel=tolerance)


def test_a_kept_type_that_rounds_is_seen_in_the_losses(runs):
    """The features are really read back: bfloat16 changes the last digits."""
    assert losses(runs["bfloat16"]) != losses(runs["float32"])


def test_the_checkpoint_is_the_whole_model(runs):
    for stage in ("align", "select", "final"):
        expected, found = load_state(runs[None] / stage), load_state(runs["float32"] / stage)
        assert set(expected) == set(found) and any(name.startswith("vision.") for name in found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_census_is_saved_and_later_stages_hit(runs):
    record = json.loads((runs["float32"] / "run.json").read_text())
    first, second = (stage["cache"] for stage in record["stages"])
    assert first == json.loads((runs["float32"] / "align/stage.json").read_text())["cache"]
    assert first["misses"] == first["samples"] > 0 and first["hits"] == 0
    assert second["misses"] == 0 and second["hits"] == first["samples"]
    assert first["rows"] + first["empty"] == 24 and first["samples"] <= first["rows"]
    files = list((runs["float32"] / "cache" / first["fingerprint"]).glob("features-*.arrow"))
    assert first["bytes"] == second["bytes"] == sum(file.stat().st_size for file in files) > 0
    assert first["seconds"] > 0 and first["dtype"] == "float32"
    plain = json.loads((runs[None] / "run.json").read_text())
    assert not any("cache" in stage for stage in plain["stages"]) and not (runs[None] / "cache").exists()


def test_training_neither_decodes_nor_encodes(tmp_path, monkeypatch):
    recipe = make(tmp_path, align(cache={}))
    counter = Counter(monkeypatch)
    [census] = build_caches(recipe)
    assert counter.encoded == counter.decoded == census["samples"] == census["misses"]
    evaluated = []
    monkeypatch.setattr("hfvla.training.run.run.RecipeRun._finish", lambda *a: evaluated.append(1))
    monkeypatch.setattr("hfvla.training.run.run.RecipeRun._report", lambda *a: None)
    record = run_recipe(recipe)
    assert counter.encoded == counter.decoded == census["samples"]
    assert record["stages"][0]["cache"]["misses"] == 0 and evaluated == [1]


def test_a_changed_recipe_is_a_miss(tmp_path, caplog):
    folder = str(tmp_path / "shared")

    def build(name, **changes):
        cache = {"folder": folder, **changes.pop("cache", {})}
        return build_caches(make(tmp_path / name, align(cache=cache), **changes))[0]

    first = build("one")
    assert build("two")["misses"] == 0
    base = make(tmp_path, align()).model.model_dump()
    with caplog.at_level(logging.INFO, logger="hfvla.cache"):
        smaller = build("three", model={**base, "config": {**base["config"], "image_size": 32}})
        seed = build("four", seed=4, data={"train": [{**SCENES, "seed": 3}]})  # other random weights
        dtype = build("five", cache={"dtype": "float32"})
    for census in (smaller, seed, dtype):
        assert census["hits"] == 0 and census["misses"] == census["samples"] > 0
    assert len({c["fingerprint"] for c in (first, smaller, seed, dtype)}) == 4
    text = caplog.text
    assert "differs in: config, processor" in text and "differs in: weights" in text and "differs in: dtype" in text


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        (align(train=["vision", "projector", "temperature"], cache={}), "vision"),
        (align(phases=[{"epoch": 1, "add": ["vision"]}], cache={}), "vision"),
        (align(train=["projector", "lora"], lora={"target": "vision"}, cache={}), "lora on 'vision'"),
        (align(train=["projector", "lora"], lora={"target": r"re:vision\..*conv2\.c"}, cache={}), "lora on 're:"),
    ],
)
def test_a_trained_prefix_is_refused(tmp_path, stage, named):
    recipe = make(tmp_path, stage)
    with pytest.raises(RecipeError, match="stays frozen through the whole stage") as caught:
        build_caches(recipe)
    assert named in str(caught.value) and "cut 'vision' needs vision frozen" in str(caught.value)
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_loss_that_needs_what_lies_before_the_cut_is_found_when_the_recipe_is_read(tmp_path):
    cache = {"cut": "prompt_states"}
    fine = select(train=["fusion", "selection_head"], losses={"selection": 1.0}, cache=cache)
    check_recipe(make(tmp_path, align(), fine))
    with pytest.raises(RecipeError, match="cut 'prompt_states' serves selection, not reasoning"):
        check_recipe(make(tmp_path, align(), {**fine, "losses": {"selection": 1.0, "reasoning": 1.0}}))


def test_a_trained_prefix_is_found_when_the_recipe_is_read(tmp_path):
    stages = [align(cache={}), select(train=["vision", "fusion"], cache={})]
    stages.append({**select(phases=[{"epoch": 1, "add": ["vision"]}], cache={}), "name": "late"})
    recipe = make(tmp_path, *stages)
    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe)
    problems = [problem for problem in caught.value.problems if "cache" in problem]
    assert len(problems) == 2 and all("'vision' trains" in problem for problem in problems)
    with pytest.raises(RecipeError, match="no cut 'visio'. Did you mean 'vision'"):
        check_recipe(make(tmp_path, align(cache={"cut": "visio"})))


def test_views_without_augmentation_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="nothing augments.*views: 3"):
        build_caches(make(tmp_path, align(cache={"views": 3})))


def test_a_regex_of_lora_counts_where_it_matches(tmp_path):
    recipe = make(tmp_path, align(train=["projector"], lora={"target": [r"re:.*transformer\.h\.0\..*", "fusion"]}))
    rows = RecipeData(FAMILY, recipe).stage_rows(recipe.stages[0]).train
    model, _ = FAMILY.load("initialise")(recipe.model.model_dump(), rows, seed=0)
    found = ever_trained(model, FAMILY.groups, recipe.stages[0])
    heads = {name.split(".")[0] for name in found}
    assert heads == {"projector", "language_model", "fusion"}
    assert all(".h.0." in name for name in found if name.startswith("language_model"))


# ---- ahead ---------------------------------------------------------------------------------------------------------


def test_a_later_stage_is_built_ahead_where_nothing_before_it_trains_the_prefix(tmp_path):
    recipe = make(tmp_path, align(), select(cache={}))
    [census] = build_caches(recipe, stage="select")
    assert census["stage"] == "select" and census["misses"] > 0
    assert not (tmp_path / "recipe.json").exists()  # another recipe may still use the folder
    record = run_recipe(recipe)
    assert record["stages"][1]["cache"]["misses"] == 0
    assert build_caches(recipe)[0]["misses"] == 0  # now from the finished stage


def test_a_later_stage_waits_for_the_training_of_its_prefix(tmp_path):
    first = align(train=["vision", *PARTS, "temperature"])
    recipe = make(tmp_path, first, select(cache={}))
    with pytest.raises(RecipeError, match="depends on stage 'align', which is not finished.*--stop-after align"):
        build_caches(recipe)


def test_what_cannot_be_built(tmp_path):
    recipe = make(tmp_path, align(), select(cache={}))
    with pytest.raises(RecipeError, match="stage 'align' has no `cache`"):
        build_caches(recipe, stage="align")
    with pytest.raises(RecipeError, match="no stage 'selekt'. Did you mean 'select'"):
        build_caches(recipe, stage="selekt")
    with pytest.raises(RecipeError, match="no stage of this recipe has a `cache`"):
        build_caches(make(tmp_path, align()))


def test_the_command_prints_the_census(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(resolved_dict(make(tmp_path / "out", align(), select(cache={})))))
    done = CliRunner().invoke(app, ["cache", str(file), "--stage", "select", "--json"])
    assert done.exit_code == 0, done.output
    [census] = json.loads(done.stdout)["caches"]
    assert census["stage"] == "select" and census["misses"] == census["samples"] > 0
    done = CliRunner().invoke(app, ["cache", str(file)])
    assert done.exit_code == 0 and "select" in done.stdout and "hits" in done.stdout
