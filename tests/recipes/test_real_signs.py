"""Drives past traffic signs as `make real` lays them out, and what stands beside the model: on drawn tracks."""

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests.recipes.real_parts import write_language
from transformers import LlamaForCausalLM

from hfvla.data.sources.road_videos import RoadVideosOptions, build_road_videos
from hfvla.models.internvl_video_qa.build import initialise
from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe

ROOT = Path(__file__).parents[2]
SIGNS, EACH = 9, 3
pytestmark = pytest.mark.usefixtures("scripts")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Nine signs, each of a colour of its own, in tracks of ten frames: more than are used."""
    path = tmp_path_factory.mktemp("tracks") / "tracks.zip"
    colours = np.random.default_rng(0).integers(0, 255, (SIGNS, 3))
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("readme.txt", "tracks")
        for sign in range(SIGNS):
            for track in range(EACH):
                for frame in range(10):
                    stored = io.BytesIO()
                    Image.new("RGB", (20 + frame, 20), tuple(map(int, colours[sign]))).save(stored, "PPM")
                    opened.writestr(f"Images/{sign:05d}/{track:05d}_{frame:05d}.ppm", stored.getvalue())
    return path


@pytest.fixture(scope="module")
def folder(archive, tmp_path_factory):
    import signs

    return signs.build_signs(archive, tmp_path_factory.mktemp("data") / "signs", {"train": 4, "test": 3})


def test_no_track_is_on_both_sides_and_the_reader_takes_the_files(archive, folder):
    import signs
    import video_qa

    shown = {}
    for part, drives in (("train", 4), ("test", 3)):
        records = video_qa.load(folder / f"{part}.json")
        shown[part] = {key for one in records for key in zip(one["signs"], one["tracks"], strict=True)}
        of_each = len(signs.KINDS) if part == "test" else 3 + 2 * signs.TRACKS
        assert len({one["id"] for one in records}) == len(records) == drives * of_each
        assert {one["kind"] for one in records} == set(signs.KINDS)
        rows = build_road_videos(RoadVideosOptions(path=str(folder / f"{part}.json"))).dataset
        assert set(rows["language"]) == {"en", "vi"} and rows["duration"][0] == pytest.approx(signs.TRACKS, abs=0.2)
        assert [choices[answer] for choices, answer in zip(rows["choices"], rows["answer"], strict=True)] == [
            one["answer"].partition(". ")[2] for one in records
        ]
        asked = Counter((one["video_path"], one["place"]) for one in records if one["kind"] in signs.TIMED)
        assert part == "test" or set(asked.values()) == {2}  # in training each second of a drive, by either question
    assert shown["train"] and shown["test"] and not shown["train"] & shown["test"]
    names = build_road_videos(RoadVideosOptions(path=str(folder / "names.json"))).dataset
    assert len(names) == SIGNS * 2 * len(signs.LANGUAGES) and names["duration"][0] == pytest.approx(1.0, abs=0.2)
    alone = {
        key for one in video_qa.load(folder / "names.json") for key in zip(one["signs"], one["tracks"], strict=True)
    }
    assert len(alone) == SIGNS * 2 and not alone & shown["test"]  # every training track, and no other
    orders = build_road_videos(RoadVideosOptions(path=str(folder / "orders.json"))).dataset
    assert len(orders) == 4 * len(signs.LANGUAGES)
    for row, record in zip(orders, video_qa.load(folder / "orders.json"), strict=True):
        column = signs.LANGUAGES.index(row["language"])
        names = [video_qa.SIGNS[sign][column] for sign in record["signs"]]
        assert row["choices"][row["answer"]] == ", ".join(names) and len(set(row["choices"])) == signs.TRACKS
    with zipfile.ZipFile(archive) as opened:
        parts = signs.split_tracks(signs.tracks_of(opened))
    assert {part: len(tracks) for part, tracks in parts.items()} == {"train": SIGNS * 2, "test": SIGNS}
    with pytest.raises(ValueError, match="7 different signs; got 6"):
        signs.drives_of([track for track in parts["train"] if track.sign < 6], 1, "train")


def test_who_knows_the_signs_answers_everything_and_who_does_not_guesses(folder):
    import video_qa

    records = video_qa.load(folder / "train.json")
    tracks = {key for one in records for key in zip(one["signs"], one["tracks"], strict=True)}
    known = {key: np.eye(len(video_qa.SIGNS))[key[0]] for key in tracks}
    answers = [video_qa.ridge_answer(one, known) for one in records]
    assert set(video_qa.by_kind(records, answers).values()) == {1.0}
    blind = {key: np.zeros(len(video_qa.SIGNS)) for key in tracks}
    assert video_qa.by_kind(records, [video_qa.ridge_answer(one, blind) for one in records])["all"] < 0.7


def test_a_ridge_reads_the_towers_maps(archive, folder, tmp_path):
    import video_qa

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_efficientnet"), str(tmp_path / "tower"), safe_serialization=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_qa, "_FOLDS", 2)
        found = video_qa.baselines(archive, tmp_path / "tower", folder)
    ridge, words, chance = found.values()
    assert ridge["all"] >= 0.5 > chance["all"] and set(words) == set(chance) == set(ridge)


def test_parts_are_shortened_and_joined_to_one_backbone(tmp_path, folder):
    import parts

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_efficientnet"), str(tmp_path / "tower"), safe_serialization=True)
    first = parts.shorten(write_language(tmp_path / "language", layers=3), tmp_path / "first", 2)
    whole = LlamaForCausalLM.from_pretrained(tmp_path / "language")
    joined = parts.join(tmp_path / "tower", first, tmp_path / "joined", 64)
    config = {"frames": {"fewest": 4, "most": 4}, "tiling": {"most_tiles": 1, "token_budget": 16}}
    rows = build_road_videos(RoadVideosOptions(path=str(folder / "test.json"))).dataset
    model, processor = initialise({"config": config, "options": {"backbone": str(joined)}}, rows, 0)
    assert model.config.tokens_per_tile == 4 and len(model.backbone.model.language_model.layers) == 2
    kept = model.backbone.model.language_model.layers[1].mlp.up_proj.weight
    assert torch.equal(kept, whole.model.layers[1].mlp.up_proj.weight)
    answer = model.answer(processor, rows[0]["video"], rows[0]["question"], rows[0]["choices"])
    assert answer.letter in "ABCD"


@pytest.mark.slow
def test_the_real_recipe_trains_on_cached_maps_and_is_scored_by_kind(tmp_path, folder):
    import parts
    import video_qa

    timm.models.save_for_hf(timm.create_model("test_efficientnet"), str(tmp_path / "tower"), safe_serialization=True)
    joined = parts.join(tmp_path / "tower", write_language(tmp_path / "language", layers=4), tmp_path / "joined", 64)
    options = [f"model.options.backbone={joined}", f"data.train.road_videos.path={folder / 'train.json'}"]
    options += [f"data.eval.signs.path={folder / 'test.json'}", "evaluation.bootstrap_samples=20"]
    for stage, file in (("see", "names"), ("follow", "orders")):
        options.append(f"stages.{stage}.data.train.road_videos.path={folder / file}.json")
    options.append("model.config.tile_pool=2")
    options += [
        f"stages.{stage}.{key}"
        for stage in ("see", "follow", "tell")
        for key in ("args.max_steps=2", f"cache.folder={tmp_path / 'cache'}")
    ]
    run_recipe(load_recipe(ROOT / "recipes/internvl_video_qa/real.yaml", options), output_dir=tmp_path / "run")
    found = video_qa.of_runs([tmp_path / "run"])
    assert set(found[""]) == {"all", *video_qa.signs.KINDS} == set(found[", no frame"])
    assert all(0 <= score <= 1 for scores in found.values() for values in scores.values() for score in values)
    caches = [
        json.loads((tmp_path / "run" / stage / "stage.json").read_text())["cache"] for stage in ("see", "follow")
    ]
    assert [cache["samples"] for cache in caches] == [SIGNS, 4]  # clips of a sign are alike here; then the drives
    last = json.loads((tmp_path / "run" / "tell" / "stage.json").read_text())["cache"]
    assert last["misses"] == 0 < last["samples"]
