"""Positions of packed sequences: as each sample has them alone, in time, height and width."""

import torch
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from hfvla.data.packing import pack_batch
from hfvla.nn.packed_positions import packed_position_ids

IMAGE = 7


class Plain:
    """A model whose tokens have one position each."""


class Core:
    """Only what positions need of Qwen2.5-VL, whose own function computes them."""

    config = Qwen2_5_VLConfig(image_token_id=IMAGE)
    get_rope_index = Qwen2_5_VLModel.get_rope_index
    get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids


def sample(grid: tuple[int, int, int] | None, words: int) -> dict:
    pictures = grid[1] * grid[2] // 4 if grid else 0
    found = {
        "input_ids": torch.tensor([[1] * 2 + [IMAGE] * pictures + [2] * words]),
        "mm_token_type_ids": torch.tensor([[0] * 2 + [1] * pictures + [0] * words]),
    }
    return {**found, "image_grid_thw": torch.tensor([grid])} if grid else found


def test_one_position_a_token_stays_as_it_is():
    batch = pack_batch([[sample(None, 2), sample(None, 1)]], 0)
    assert packed_position_ids(Plain(), batch).tolist() == [[0, 1, 2, 3, 0, 1, 2]]


def test_text_alone_still_says_where_sequences_begin():
    batch = pack_batch([[sample(None, 1), sample(None, 0)]], 0)
    assert packed_position_ids(Core(), batch).tolist() == [[[0, 1, 2, 0, 1]]] * 4


def test_each_sample_has_the_positions_it_has_alone():
    samples = [sample((1, 4, 4), 3), sample(None, 2), sample((1, 2, 6), 1), sample((1, 4, 2), 5)]
    batch = pack_batch([samples[:2], samples[2:3], samples[3:]], 0)
    found = packed_position_ids(Core(), batch)
    assert found.shape == (4, 3, batch["input_ids"].shape[1])
    assert torch.equal(found[0], batch["position_ids"])
    place = {0: (0, 0), 1: (0, samples[0]["input_ids"].numel()), 2: (1, 0), 3: (2, 0)}
    for number, one in enumerate(samples):
        row, start = place[number]
        length = one["input_ids"].numel()
        if "image_grid_thw" in one:
            alone, _ = Core().get_rope_index(**one)
        else:
            alone = torch.arange(length).expand(3, 1, -1)
        assert torch.equal(found[1:, row, start : start + length], alone[:, 0]), number


def test_a_batch_of_several_models_heads_is_looked_into():
    holder = type("Head", (), {"model": Core()})()
    batch = pack_batch([[sample((1, 4, 4), 1)]], 0)
    # Two words, then a picture of 2 x 2 tokens, all at time 2, then the word at 2 + 2.
    assert packed_position_ids(holder, batch)[1:, 0].tolist() == [
        [0, 1, 2, 2, 2, 2, 4], [0, 1, 2, 2, 3, 3, 4], [0, 1, 2, 3, 2, 3, 4],
    ]  # fmt: skip
