"""Packed batches: literal tensors, pictures in the order of their samples."""

import pytest
import torch
from transformers.masking_utils import find_packed_sequence_indices
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from hfvla.data.packing import SEQUENCE_IDS, layout_for, pack_batch
from hfvla.errors import DataError

PAD = 9


def sample(*ids: int, labels: tuple[int, ...] = (), **more):
    found = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
    return {**found, "labels": torch.tensor([labels or ids]), **more}


def test_literal_batch_of_two_sequences():
    batch = pack_batch([[sample(1, 2, 3), sample(4, 5)], [sample(6, 7)]], PAD)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, PAD, PAD, PAD]]
    # The first token of a sample is no label: the last token of the sample before would have to predict it.
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5], [-100, 7, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch[SEQUENCE_IDS].tolist() == [[0, 0, 0, 1, 1], [2, 2, -1, -1, -1]]
    assert "attention_mask" not in batch


def test_flat_layout_is_one_row_whose_borders_flash_attention_finds():
    batch = pack_batch([[sample(1, 2, 3), sample(4, 5)], [sample(6, 7)]], PAD, layout=layout_for("flash_attention_2"))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    (borders, _), (longest, _) = prepare_fa_kwargs_from_position_ids(batch["position_ids"])
    assert borders.tolist() == [0, 3, 5, 7] and int(longest) == 3
    assert layout_for("sdpa") == layout_for(None) == "rows"


def test_transformers_finds_the_same_sequences():
    batch = pack_batch([[sample(1), sample(2), sample(3, 4)], [sample(5, 6)]], PAD, first_position=1)
    assert find_packed_sequence_indices(batch["position_ids"]).tolist() == [[0, 1, 2, 2], [0, 0, 1, 1]]


def test_pictures_follow_their_samples_and_are_filled_up_where_sizes_differ():
    packs = [
        [sample(1, pixel_values=torch.full((1, 3, 2, 2), 1.0)), sample(2)],
        [sample(3, pixel_values=torch.full((2, 3, 2, 3), 2.0))],
    ]
    pixels = pack_batch(packs, PAD)["pixel_values"]
    assert pixels.shape == (3, 3, 2, 3)
    assert pixels[0, 0].tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    assert (pixels[1:] == 2).all()


def pictures(count: int, value: float) -> torch.Tensor:
    return torch.full((1, count, 3, 2, 2), value)


def test_pictures_along_the_second_axis_are_filled_up_to_the_row_with_most():
    packs = [
        [sample(1, pixel_values=pictures(1, 1.0)), sample(2, pixel_values=pictures(2, 2.0))],
        [sample(3)],
        [sample(4, pixel_values=pictures(1, 3.0))],
    ]
    pixels = pack_batch(packs, PAD, picture_axes={"pixel_values": 1})["pixel_values"]
    assert pixels.shape == (3, 3, 3, 2, 2)
    assert pixels[:, :, 0, 0, 0].tolist() == [[1, 2, 2], [0, 0, 0], [3, 0, 0]]


def test_no_key_without_a_picture_and_further_token_keys():
    batch = pack_batch([[sample(1, 2, kind=torch.tensor([[7, 8]])), sample(3)]], PAD, token_keys=("kind",))
    assert batch["kind"].tolist() == [[7, 8, 0]]
    assert set(batch) == {"input_ids", "labels", "position_ids", SEQUENCE_IDS, "kind"}


@pytest.mark.parametrize(
    ("packs", "named"),
    [
        ([], "no sample"),
        ([[]], "no sample"),
        ([[{"pixel_values": torch.ones(1)}]], "pixel_values"),
        ([[sample(1, 2, labels=(1,))]], "'labels': 1"),
    ],
)
def test_what_cannot_be_packed_is_named(packs, named):
    with pytest.raises(DataError, match=named):
        pack_batch(packs, PAD)
