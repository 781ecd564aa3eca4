"""The real recipes' shapes and what `make real` sets beside them, on tiny random parts: nothing is downloaded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from tests.recipes.real_parts import write_language, write_parts, write_stamps

from hfvla import InternVLForRetrieval
from hfvla.data.samples.robots import ROBOTS
from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe

ROOT = Path(__file__).parents[2]
REAL = ROOT / "examples" / "real"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    return write_parts(folder / "parts"), write_stamps(folder / "stamps")


@pytest.fixture(scope="module")
def retrieval_run(made, tmp_path_factory):
    parts, stamps = made
    sets = {"train.captions": "train", "eval.stamps": "test", "eval.themes": "test_themes"}
    overrides = [f"data.{key}.path={stamps / f'{name}.jsonl'}" for key, name in sets.items()]
    overrides += [f"model.options.vision=local-dir:{parts / 'efficientnet-lite0'}"]
    overrides += [f"model.options.language={parts / 'minilm'}", "model.config.backbone_config.image_size=64"]
    overrides += [
        "stages.alignment.args.max_steps=2",
        "evaluation.bootstrap_samples=20",
        f"stages.alignment.cache.folder={parts.parent / 'cache'}",
    ]
    recipe = load_recipe(ROOT / "recipes/internvl_retrieval/real.yaml", overrides)
    folder = tmp_path_factory.mktemp("run")
    run_recipe(recipe, output_dir=folder)
    return folder


def test_retrieval_trains_from_parts_and_is_scored_on_both_sets(retrieval_run, made, scripts):
    import run

    for name, count in (("stamps", 12), ("themes", 8)):  # of another size, so that one is not taken for the other
        metrics = run.scores_of(retrieval_run, name)
        assert metrics["gallery/images"] == count and 0 <= metrics["t2i_r1"] <= metrics["t2i_r10"] <= 1
    model = InternVLForRetrieval.from_pretrained(retrieval_run / "final")
    tower = timm.create_model(f"local-dir:{made[0] / 'efficientnet-lite0'}", pretrained=True, num_classes=0)
    for name, value in model.backbone.vision_tower.backbone.state_dict().items():
        assert torch.equal(value, tower.state_dict()[name]), name


def test_what_the_cache_saved_is_counted(retrieval_run, scripts, tmp_path):
    import run
    from rich.console import Console

    work = run.Work(tmp_path, [7], Console())
    work._count_saved("internvl_retrieval", retrieval_run)
    stage = json.loads((retrieval_run / "alignment" / "stage.json").read_text())
    samples, seconds = work.saved["internvl_retrieval"]
    assert stage["cache"]["samples"] == stage["cache"]["misses"] == 12
    assert samples == 12 and seconds > 0  # two steps of a batch of 12: the second found all pictures kept


def test_baselines_and_languages_are_scored(retrieval_run, made, scripts):
    import retrieval

    parts, stamps = made
    seen = retrieval.Parts(parts)
    train, test = (seen.show(stamps / f"{name}.jsonl") for name in ("train", "test"))
    found = retrieval.baselines(seen, train, {"test": test})["test"]
    ridge = next(scores for name, scores in found.items() if name.startswith("ridge"))
    assert found["chance"]["t2i_r10"] == pytest.approx(10 / 12)
    assert ridge["t2i_r1"] >= 0.25  # the colours of a random tower tell the caption's colour
    assert set(found) > {"class names, untrained"}
    told = retrieval.languages(retrieval_run / "final", stamps / "test.jsonl", fewest=12)
    assert list(told) == ["en", "vi"] and told["vi"]["n"] == 12
    assert not retrieval.languages(retrieval_run / "final", stamps / "test.jsonl", fewest=13)


def test_random_parts_keep_the_layout_and_nothing_else(made, scripts, tmp_path):
    import parts as building
    from transformers import AutoModel, AutoTokenizer

    source = made[0]
    tower = building.randomise(source / "efficientnet-lite0", tmp_path / "efficientnet-lite0", seed=1)
    both = [
        timm.create_model(f"local-dir:{one}", pretrained=True).state_dict() for one in (source / tower.name, tower)
    ]
    assert all(both[0][name].shape == both[1][name].shape for name in both[0])
    assert not torch.equal(both[0]["conv_stem.weight"], both[1]["conv_stem.weight"])
    text = building.randomise(source / "minilm", tmp_path / "minilm", seed=1)
    encoders = [AutoModel.from_pretrained(one) for one in (source / "minilm", text)]
    assert encoders[0].config.hidden_size == encoders[1].config.hidden_size
    word = "a red square"
    assert AutoTokenizer.from_pretrained(text)(word) == AutoTokenizer.from_pretrained(source / "minilm")(word)
    assert not torch.equal(
        encoders[0].embeddings.word_embeddings.weight, encoders[1].embeddings.word_embeddings.weight
    )


@pytest.mark.slow
def test_the_sentence_encoder_is_scored_on_the_folds_of_crossval(scripts, tmp_path):
    import selection

    names = ("north", "south", "east", "west", "upper", "lower", "old", "new")
    places = ("reef", "roof", "stairs", "road", "hall")
    rows = [
        {"input": f"Task: Inspect the {names[i // 5]} {places[i % 5]}.", "output": ROBOTS[i % 5]} for i in range(40)
    ]
    (tmp_path / "single_robot_selection.json").write_text(json.dumps(rows))

    def encode(texts):
        return np.array([[place in text.lower() for place in places] for text in texts], dtype=float)

    found = selection.crossval(selection.main_file(tmp_path), encode, size=10, seed=0, folds=2)
    assert all(len(folds) == 2 for folds in found.values())
    mean = {name: np.mean([fold["exact_match"] for fold in folds]) for name, folds in found.items()}
    assert mean["sentence encoder + logistic regression, real"] == 1.0 > mean["majority"]
    with pytest.raises(FileNotFoundError, match="single_robot_selection"):
        selection.main_file(tmp_path / "nowhere")


@pytest.mark.slow
def test_selection_starts_from_a_language_model_and_is_scored_on_kinds_left_out(made, scripts, tmp_path):
    import run

    parts = made[0]
    language = write_language(tmp_path / "language", layers=1)
    options = [f"model.options.language={language}", f"model.options.vision=local-dir:{parts / 'efficientnet-lite0'}"]
    options += ["data.train.fleet.size=60", "stages.selection.args.max_steps=2", "evaluation.bootstrap_samples=20"]
    options += [f"data.eval.{name}.size={size}" for name, size in (("seen", 20), ("unseen", 12))]
    run_recipe(load_recipe(ROOT / "recipes/ember_vlm/real.yaml", options), output_dir=tmp_path / "run")
    for name, size in (("seen", 20), ("unseen", 12)):
        metrics = run.scores_of(tmp_path / "run", name)
        assert metrics["n"] == size and 0 <= metrics["exact_match"] <= metrics["jaccard"] <= 1
        assert "tfidf_logreg" in metrics["baselines"]
    read = json.loads((tmp_path / "run" / "final" / "config.json").read_text())
    assert read["text_config"]["model_type"] == "llama" and read["text_config"]["num_hidden_layers"] == 1


@pytest.mark.slow
def test_what_cannot_be_had_is_said_and_fails_nothing(tmp_path):
    """Without a package index nothing can be built: the script says so, and what it has no recipe for."""
    words = [sys.executable, str(REAL / "run.py"), "--output", str(tmp_path), "--seeds", "7"]
    environment = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "skipped: internvl_retrieval: " in done.stdout and "skipped: ember_vlm: " in done.stdout
    assert "skipped: sensor_vla: " in done.stdout
