"""Building from a recipe's `model` section, quick metrics and example rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import RecipeError
from hfvla.models.ember_vlm import FAMILY
from hfvla.models.ember_vlm.build import build_config, compute_metrics, initialise, quick_figures

from .conftest import recipe


def test_unknown_options_are_refused_all_at_once():
    with pytest.raises(RecipeError, match=r"(?s)model\.options\.tokeniser_vocab_size.*model\.options\.langauge"):
        build_config({"options": {"tokeniser_vocab_size": 10, "langauge": "x"}})


def test_the_same_seed_gives_the_same_weights(rows, built):
    again, _ = initialise(recipe(), rows, seed=0)
    other, _ = initialise(recipe(), rows, seed=1)
    first = built[0].state_dict()
    assert all(torch.equal(value, first[name]) for name, value in again.state_dict().items())
    assert not torch.equal(other.selection_head.layers[0].weight, built[0].selection_head.layers[0].weight)


def test_the_model_fits_its_tokenizer(built):
    model, processor = built
    assert (
        model.config.text_config.vocab_size == len(processor.tokenizer) == model.get_input_embeddings().num_embeddings
    )
    assert model.config.text_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.config.text_config.pad_token_id == processor.tokenizer.pad_token_id
    for name, value in processor.special_ids().items():
        assert getattr(model.config, name) == value


def test_a_plan_counts_the_tokenizer_that_will_be_learned():
    assert build_config({}).text_config.vocab_size == 4096
    assert build_config({"options": {"tokenizer_vocab_size": 700}}).text_config.vocab_size == 700
    assert build_config({"options": {"language": "some/model"}}).text_config.vocab_size == 50_263


def test_starting_from_a_language_model(rows, tmp_path, processor):
    from transformers import GPT2Config, GPT2LMHeadModel

    from hfvla.models.ember_vlm.batches import build_tokenizer

    # A tokenizer without our tokens: they are added, and their embeddings start at the mean of the others.
    plain = build_tokenizer(["robots at work"], 300)
    text = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_inner": 16, "n_positions": 256}
    source = GPT2LMHeadModel(GPT2Config(vocab_size=len(plain) - 2, bos_token_id=0, eos_token_id=0, **text))
    folder = tmp_path / "language"
    source.save_pretrained(folder)
    plain.save_pretrained(folder)
    wanted = recipe(text_config=text) | {"options": {"language": str(folder)}}
    model, ours = initialise(wanted, rows, seed=0)
    known, embeddings = len(plain) - 2, model.get_input_embeddings().weight
    assert len(embeddings) == len(ours.tokenizer) == len(plain)
    assert torch.equal(embeddings[:known], source.transformer.wte.weight)
    torch.testing.assert_close(embeddings[known:], source.transformer.wte.weight.mean(0).expand(2, -1))
    for name, value in source.transformer.h.state_dict().items():
        assert torch.equal(model.language_model.transformer.h.state_dict()[name], value)


def prediction(logits, labels, mask):
    return SimpleNamespace(
        predictions=np.array(logits, dtype=np.float32), label_ids=(np.array(labels), np.array(mask))
    )


def test_quick_metrics_by_hand(built):
    config = built[0].config
    logits = [[2, -2, -2, -2, -2], [-1, 2, 1, -2, -2], [-3, -2, -3, -3, -3], [9, 9, 9, 9, 9]]
    labels = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    scores = compute_metrics(prediction(logits, labels, [1, 1, 1, 0]), config)
    assert tuple(scores)[:4] == FAMILY.metric_names
    # chosen {0}, {1, 2}, {1} (always the best one); gold {0}, {1}, {0}; the last row has no gold set
    assert scores["top1_in_set"] == pytest.approx(2 / 3)
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert scores["jaccard"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    # robot 0: gold twice, chosen once and rightly; robot 1: gold once, chosen twice; robot 2: chosen once, never gold
    first, second, third = ROBOTS[:3]
    assert (scores[f"precision/{first}"], scores[f"recall/{first}"]) == (1.0, 0.5)
    assert (scores[f"precision/{second}"], scores[f"recall/{second}"]) == (0.5, 1.0)
    assert scores["macro_precision"] == pytest.approx(1.5 / len(ROBOTS)) == scores["macro_recall"]
    assert scores[f"f1/{third}"] == 0 and 0 <= scores["ece"] <= scores["mce"] <= 1
    assert "multi_robot_exact_match" not in scores  # no row has several
    several = compute_metrics(prediction(logits[:2], [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]], [1, 1]), config)
    assert several["multi_robot_exact_match"] == several["multi_robot_jaccard"] == 1
    assert compute_metrics(prediction(logits, labels, [0, 0, 0, 0]), config) == {}


def test_quick_figures_show_the_same(built):
    config = built[0].config
    given = prediction([[2, -2, -2, -2, -2], [-1, 2, 1, -2, -2]], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], [1, 1])
    figures = {figure.name: figure for figure in quick_figures(given, config)}
    assert set(figures) == {"confusion", "reliability", "per_robot_radar"}
    assert figures["confusion"].data["matrix"][0][0] == figures["confusion"].data["matrix"][1][1] == 1
    assert quick_figures(prediction([[1, 0, 0, 0, 0]], [[0, 0, 0, 0, 0]], [0]), config) == []


def test_quick_metrics_use_the_calibration(built):
    config = SimpleNamespace(calibration={"temperature": 4.0, "threshold": 0.6}, robots=list(ROBOTS))
    # sigmoid(2 / 4) = 0.622 is over 0.6, sigmoid(1 / 4) = 0.562 is not
    scores = compute_metrics(prediction([[2, 2, 1, -2, -2]], [[1, 1, 0, 0, 0]], [1]), config)
    assert scores["exact_match"] == 1.0


def test_example_rows_have_all_that_the_losses_need(rows):
    assert [row["image"] is None for row in rows] == [False, False, False, True] * 2
    assert len({row["id"] for row in rows}) == 8 and len({row["group"] for row in rows}) > 1
    assert all(
        row["robots"] and row["reasoning"] and row["plan"] and row["caption"] and row["dialogue"] for row in rows
    )
    again, other = (list(FAMILY.load("examples")(8, seed)["image"]) for seed in (0, 1))
    assert again == list(rows["image"]) != other
