"""Cached features of the frozen backbone: hits, misses where anything changed, equal losses and gradients."""

from copy import deepcopy

import pytest
import torch
from accelerate import PartialState
from datasets import Dataset
from PIL import Image

from hfvla.cache import CachedCollator, FeatureCache, Split
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES, CutContext
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.build import prompt_backbone
from hfvla.recipe import CacheRecipe
from hfvla.worlds.reaching import draw_episode

CUT = FAMILY.feature_cuts["backbone"]


def open_cache(built, folder, **settings):
    model, processor = built
    return FeatureCache(
        FAMILY, "backbone", model, processor, CacheRecipe(**{"dtype": "float32", **settings}), folder,
        PartialState(cpu=True), losses=("action",),
    )  # fmt: skip


def fill(built, folder, rows, **settings):
    splits, census = open_cache(built, folder, **settings).build({"train": Split(rows)})
    return splits["train"], census


@pytest.fixture
def filed(rows, tmp_path):
    """Four rows whose pictures are files of their own."""
    found = []
    for number, row in enumerate(rows.select(range(4))):
        step = next(iter(draw_episode(7, number, 32, 2)[1]))
        views = []
        for name, pixels in step.views.items():
            path = tmp_path / f"{number}_{name}.png"
            Image.fromarray(pixels).save(path)
            views.append({"name": name, "path": str(path), "time_s": None, "column": "", "row": -1})
        found.append({**row, "views": views})
    return Dataset.from_list(found, features=rows.features)


def test_hits_are_hits(build, filed, tmp_path):
    first = fill(build(), tmp_path / "cache", filed)[1]
    again = fill(build(), tmp_path / "cache", filed.select([3, 1, 0, 2]))[1]
    assert (first.misses, first.hits) == (4, 0) and (again.misses, again.hits) == (0, 4)


def test_a_changed_picture_is_a_miss(build, filed, tmp_path):
    """The original never noticed. Same path, same size, other pixels: only that step is encoded anew."""
    before, _ = fill(build(), tmp_path / "cache", filed)
    path = filed[2]["views"][0]["path"]
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    after, census = fill(build(), tmp_path / "cache", filed)
    assert (census.misses, census.hits) == (1, 3)
    same = [
        torch.equal(before[n][CACHED_FEATURES]["features"], after[n][CACHED_FEATURES]["features"]) for n in range(4)
    ]
    assert same == [True, True, False, True]


def test_words_view_and_moment_are_part_of_the_key(build, rows, tmp_path):
    model, processor = build()
    context, row = CutContext(processor, model.config, ()), rows[0]
    known = prompt_backbone(context, row)
    views = row["views"]
    assert prompt_backbone(context, {**row, "views": views[::-1]}) == known
    unread = [*views, {**views[0], "name": "ceiling"}]
    assert prompt_backbone(context, {**row, "views": unread}) == known
    other_frame = [{**views[0], "row": views[0]["row"] + 1}, views[1]]
    other_time = [{**views[0], "time_s": 0.5}, views[1]]
    exchanged = [{**views[0], "name": "wrist"}, {**views[1], "name": "front"}]
    others = (other_frame, other_time, exchanged, views[:1])
    changed = [{**row, "task": "wait"}, *({**row, "views": found} for found in others)]
    keys = {prompt_backbone(context, one) for one in changed}
    assert len(keys) == 5 and known not in keys
    gone = [{**views[0], "path": str(tmp_path / "gone.parquet")}]
    with pytest.raises(DataError, match="gone.parquet: file of a view cannot be read"):
        prompt_backbone(context, {**row, "views": gone})


def test_whatever_else_changes_the_features_is_another_cache(build, tmp_path):
    """Prompt, chat template, tokenizer, picture size, weights; but not the expert or the sensor."""
    known = open_cache(build(), tmp_path).store.fingerprint.value
    for name, value in (
        ("chat_template", "{{ messages }}"), ("prompt", "Now: {task}"), ("image_size", [16, 16]), ("views", ["front"]),
    ):  # fmt: skip
        processor = deepcopy(build()[1])
        setattr(processor, name, value)
        assert open_cache((build()[0], processor), tmp_path).store.fingerprint.value != known, name
    words = deepcopy(build()[1])
    words.tokenizer.add_tokens(["insertion"])
    assert open_cache((build()[0], words), tmp_path).store.fingerprint.value != known
    model = deepcopy(build()[0])
    with torch.no_grad():
        model.expert.queries.add_(1.0)
        model.sensor_encoder.no_sensor.add_(1.0)
    assert open_cache((model, build()[1]), tmp_path).store.fingerprint.value == known
    with torch.no_grad():
        model.backbone.language_model.norm.weight.add_(0.1)
    assert open_cache((model, build()[1]), tmp_path).store.fingerprint.value != known


@pytest.mark.parametrize("pooling", ["tokens", "mean"])
@pytest.mark.parametrize("kind", ["regression", "flow"])
def test_losses_and_gradients_are_those_without_a_cache(build, rows, collate, tmp_path, kind, pooling):
    built = build(expert={"kind": kind}, feature_pooling=pooling)
    cached, _ = fill(built, tmp_path, rows)
    collator = CachedCollator(FAMILY.load("collator")(built[1], built[0].config), CUT)
    batches = collate(*built, rows), collator([cached[number] for number in range(8)])
    assert "pixel_values" in batches[0] and not set(CUT.replaces) & set(batches[1])
    outcomes = []
    for batch in batches:
        model = deepcopy(built[0]).train()
        model.backbone.requires_grad_(False)
        torch.manual_seed(11)
        loss = model(**batch).loss
        loss.backward()
        outcomes.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], atol=1e-6, rtol=1e-6)
    assert set(outcomes[0][1]) == set(outcomes[1][1])
    assert {name.partition(".")[0] for name in outcomes[0][1]} == {
        "sensor_encoder",
        "state_encoder",
        "fusion",
        "expert",
    }
    for name, gradient in outcomes[0][1].items():
        torch.testing.assert_close(outcomes[1][1][name], gradient, atol=1e-6, rtol=1e-4)


def test_dropped_views_are_kept_in_several_versions(build, rows, tmp_path):
    built = build(view_dropout=0.5)
    with pytest.raises(RecipeError, match="one version of inputs that are augmented.*views above 1"):
        open_cache(built, tmp_path)
    cached, census = fill(built, tmp_path, rows, views=3)
    assert census.misses == 8 * 3
    seen = []
    for epoch in (0, 1, 2, 3, 0):
        cached.set_epoch(epoch)
        seen.append([len(cached[number][CACHED_FEATURES]["features"]) for number in range(8)])
    assert seen[0] == seen[4] and len(set(map(tuple, seen))) > 1
    whole = len(fill(build(), tmp_path, rows)[0][0][CACHED_FEATURES]["features"])
    assert max(map(max, seen)) == whole > min(map(min, seen))  # some with both views, some with one
    with pytest.raises(RecipeError, match="nothing augments"):
        open_cache(build(), tmp_path, views=3)
