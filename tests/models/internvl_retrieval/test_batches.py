"""From rows to batches: labels always, sentences and seeds only for the terms that need them."""

import pytest
import torch

from hfvla.data.rows.epoch import AUGMENTATION_SEED, EpochRows
from hfvla.errors import CheckpointError, DataError
from hfvla.models.internvl_retrieval import FAMILY

LABELS = {"group_ids", "image_ids", "boxes", "box_mask"}
ALWAYS = {"input_ids", "attention_mask", "pixel_values", *LABELS}


@pytest.mark.parametrize(
    ("losses", "more"),
    [
        (("itc",), set()),
        (("itc", "itm"), {"negative_seeds"}),
        (("bbox",), {"sentence_input_ids", "sentence_attention_mask"}),
        (("spatial", "itc"), {"sentence_input_ids", "sentence_attention_mask"}),
    ],
)
def test_a_batch_has_what_its_terms_need(collate, rows, losses, more):
    batch = collate(rows, *losses)
    assert set(batch) == ALWAYS | more
    assert all(len(value) == len(rows) for value in batch.values())  # every tensor can be cut into chunks of rows


def test_ids_are_the_same_in_every_batch(collate, rows):
    whole, part = collate(rows), collate(rows.select([5, 2]))
    for name in ("group_ids", "image_ids"):
        assert part[name].tolist() == [whole[name][5], whole[name][2]]
    names = [row["group"] for row in rows]
    same = whole["group_ids"][:, None] == whole["group_ids"]
    assert same.tolist() == [[one == two for one in names] for two in names]
    assert len(set(whole["image_ids"].tolist())) == len({row["image_id"] for row in rows})
    query = {**rows[0], "group": "", "image_id": ""}
    assert collate([query])["group_ids"].item() == -1


def test_slots_without_a_sentence_are_masked(collate, rows):
    few = [{**rows[0], "sentences": ["A pool."], "boxes": [[0.25, 0.5, 0.125, 0.75]]}, rows[1]]
    batch = collate(few)
    assert batch["box_mask"][0].tolist() == [True, False, False]
    assert batch["boxes"][0].tolist() == [[0.25, 0.5, 0.125, 0.75], [0.0] * 4, [0.0] * 4]
    assert batch["sentence_attention_mask"].sum(-1).min() >= 1  # never a text of nothing


def test_negatives_change_with_the_epoch_and_not_with_a_resume(collate, rows):
    training = EpochRows(rows, seed=3)
    seeds = []
    for epoch in (0, 1, 1):
        training.set_epoch(epoch)
        picked = [training[index] for index in range(8)]
        assert all(AUGMENTATION_SEED in row for row in picked)
        seeds.append(collate(picked)["negative_seeds"])
    assert not torch.equal(seeds[0], seeds[1]) and torch.equal(seeds[1], seeds[2])
    assert torch.equal(collate(rows)["negative_seeds"], collate(rows)["negative_seeds"])


def test_cached_features_take_the_place_of_pixels(collate, rows):
    cached = [{**row, "cached_features": {"image_pooled": torch.full((32,), float(i))}} for i, row in enumerate(rows)]
    batch = collate(cached)
    assert "pixel_values" not in batch and batch["image_pooled"][:, 0].tolist() == [float(i) for i in range(8)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"caption": " "}, "caption"),
        ({"boxes": [[0.5, 0.5, 0.1, 0.1]], "sentences": []}, "0 sentences, 1 boxes"),
        ({"boxes": [[0.5] * 4] * 4, "sentences": ["A pool."] * 4}, "4 sentences, 4 boxes.*at most 3"),
        ({"image": "/none/such.jpeg"}, "such.jpeg"),
        ({"sentences": ["", "A pool."], "boxes": [[0.5] * 4] * 2}, "sentence 1"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(collate, rows, change, named):
    named = "text is empty" if named == "caption" else named
    with pytest.raises(DataError, match=f"bad row.*{named}"):
        collate([rows[0], {**rows[1], "id": "bad row", **change}])


def test_processor_and_config_must_agree(processor, shared_model):
    config = type(shared_model.config).tiny(max_text_tokens=40)
    with pytest.raises(CheckpointError, match="max_text_tokens; got 40; expected 96"):
        FAMILY.load("collator")(processor, config)
