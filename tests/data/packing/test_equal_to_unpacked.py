"""Loss and gradients of packed sequences are those of the samples alone, in real architectures with random weights.

Float64, so that the agreement asked for (1e-5) is not one of luck.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AttentionInterface,
    AutoModelForImageTextToText,
    InternVLConfig,
    LlavaConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from hfvla.data.packing import layout_for, pack, pack_batch
from hfvla.nn.packed_positions import packed_position_ids

IMAGE, PAD, WORDS = 7, 0, 64
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 1, 2]}


def qwen_pictures(heights: list[int], sides: int) -> dict:
    grids = [(1, height, 4) for height in heights]
    patches = sum(height * 4 for height in heights)
    return {"pixel_values": torch.randn(patches, sides), "image_grid_thw": torch.tensor(grids)}


@dataclass
class Kind:
    """An architecture: how it is built, and what `count` pictures look like to it."""

    config: Callable[[], PreTrainedConfig]
    pictures: Callable[[int], tuple[dict, list[int]]]  # tensors, and image tokens of each picture
    axes: dict[str, int] = field(default_factory=dict)
    mrope: bool = False


def qwen2_5() -> PreTrainedConfig:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    vision |= {"patch_size": 2, "fullatt_block_indexes": [1], "window_size": 8}
    return Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": ROPE}, vision_config=vision, image_token_id=IMAGE,
        vision_start_token_id=5, vision_end_token_id=6, video_token_id=8,
    )  # fmt: skip


def qwen3() -> PreTrainedConfig:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    vision |= {"patch_size": 2, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    return Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 8, "rope_parameters": ROPE}, vision_config=vision, image_token_id=IMAGE,
        vision_start_token_id=5, vision_end_token_id=6, video_token_id=8,
    )  # fmt: skip


def qwen_kind(config: Callable[[], PreTrainedConfig]) -> Kind:
    def pictures(count: int) -> tuple[dict, list[int]]:
        heights = [4 + 2 * number for number in range(count)]
        return qwen_pictures(heights, 3 * 2 * 2 * 2), [height * 4 // 4 for height in heights]

    return Kind(config, pictures, mrope=True)


def internvl() -> PreTrainedConfig:
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": [16, 16], "patch_size": [4, 4]}
    text = {**TEXT, "model_type": "qwen2"}
    return InternVLConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, image_seq_length=4)


def llava() -> PreTrainedConfig:
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": 8, "patch_size": 4, "model_type": "clip_vision_model", "projection_dim": 16}
    text = {**TEXT, "model_type": "llama"}
    return LlavaConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, image_seq_length=4)


def smolvlm() -> PreTrainedConfig:
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": 16, "patch_size": 4}
    text = {**TEXT, "model_type": "llama"}
    return SmolVLMConfig(text_config=text, vision_config=vision, image_token_id=IMAGE, scale_factor=2)


def square(side: int, batched: bool = False) -> Callable[[int], tuple[dict, list[int]]]:
    def pictures(count: int) -> tuple[dict, list[int]]:
        pixels = torch.randn(count, 3, side, side)
        return {"pixel_values": pixels[None] if batched else pixels}, [4] * count

    return pictures


KINDS = {
    "qwen2_5_vl": qwen_kind(qwen2_5),
    "qwen3_vl": qwen_kind(qwen3),
    "internvl": Kind(internvl, square(16)),
    "llava": Kind(llava, square(8)),
    "smolvlm": Kind(smolvlm, square(16, batched=True), {"pixel_values": 1}),
}


def encoded(kind: Kind, pictures: int, words: int, answer: int) -> dict:
    """Return one conversation as a processor does: pictures, a question, an answer that is learned."""
    tensors, counts = kind.pictures(pictures) if pictures else ({}, [])
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in tensors.items()}
    ids, types = [], []
    for count in counts:
        ids += [5, *[IMAGE] * count, 6]
        types += [0, *[1] * count, 0]
    text = torch.randint(10, WORDS, (words + answer,)).tolist()
    ids, types = [*ids, *text], [*types, *[0] * len(text)]
    labels = [-100] * (len(ids) - answer) + ids[len(ids) - answer :]
    found = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
    if kind.mrope:
        found["mm_token_type_ids"] = torch.tensor([types])
    return {**found, **tensors}


def build(kind: Kind, attention: str = "sdpa") -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(kind.config(), attn_implementation=attention).double()
    for parameter in model.parameters():  # so that what a token sees changes what it says
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.train()


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100)


def forward(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    given = {key: value for key, value in batch.items() if key not in ("labels", "sequence_ids")}
    return model(**given, use_cache=False).logits


def loss_and_gradients(model: torch.nn.Module, batches: list[dict]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = token_losses(forward(model, batch), batch["labels"]) / count
        loss.backward()
        total += loss.item()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return total, found


def samples(kind: Kind) -> list[dict]:
    torch.manual_seed(1)
    shapes = [(1, 4, 5), (0, 6, 3), (2, 3, 4), (1, 8, 2), (0, 1, 1), (1, 2, 7)]
    return [encoded(kind, *shape) for shape in shapes]


def packed(model: torch.nn.Module, kind: Kind, found: list[dict], layout: str) -> dict:
    bins = pack([sample["input_ids"].numel() for sample in found], 40)
    assert 1 < len(bins) < len(found)
    batch = pack_batch([[found[i] for i in members] for members in bins], PAD, layout, kind.axes)
    return {**batch, "position_ids": packed_position_ids(model, batch)}


@pytest.mark.parametrize("layout", ["rows", "flat"])
@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradients_are_those_of_the_samples_alone(name, layout):
    kind = KINDS[name]
    model, found = build(kind), samples(kind)
    alone, gradients = loss_and_gradients(model, [{**sample} for sample in found])
    together, packed_gradients = loss_and_gradients(model, [packed(model, kind, found, layout)])
    assert together == pytest.approx(alone, abs=1e-5)
    assert set(gradients) == set(packed_gradients)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[parameter], gradient, atol=1e-5, rtol=1e-5, msg=parameter)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava"])
def test_eager_attention_too(name):
    kind = KINDS[name]
    model, found = build(kind, "eager"), samples(kind)
    alone, _ = loss_and_gradients(model, [{**sample} for sample in found])
    assert loss_and_gradients(model, [packed(model, kind, found, "rows")])[0] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_a_sample_sees_no_other_and_would_without_its_positions(name):
    kind = KINDS[name]
    model, found = build(kind), samples(kind)
    batch = packed(model, kind, found, "flat")
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    last = batch["sequence_ids"] == batch["sequence_ids"].max()
    first = batch["sequence_ids"] == 0
    changed["input_ids"][first & (batch["input_ids"] >= 10)] = 9
    with torch.no_grad():
        before, after = forward(model, batch), forward(model, changed)
        assert torch.equal(before[last], after[last]) and not torch.equal(before[first], after[first])
        run_on = torch.arange(batch["input_ids"].shape[1])[None]
        plain = {**batch, "position_ids": run_on.expand(4, 1, -1) if kind.mrope else run_on}
        assert not torch.allclose(forward(model, plain)[last], before[last], atol=1e-3)


def between_borders(module, query, key, value, attention_mask, scaling=None, position_ids=None, **kwargs):
    """Attend as flash attention's varlen kernel does: inside borders that transformers takes from the positions."""
    assert attention_mask is None and query.shape[0] == 1
    (borders, _), _ = prepare_fa_kwargs_from_position_ids(position_ids)
    assert len(borders) == 7  # of six samples
    parts = []
    for start, end in pairwise(borders.tolist()):
        one, two, three = (states[:, :, start:end] for states in (query, key, value))
        parts.append(F.scaled_dot_product_attention(one, two, three, is_causal=True, scale=scaling, enable_gqa=True))
    return torch.cat(parts, dim=2).transpose(1, 2), None


@pytest.mark.parametrize("name", KINDS)
def test_kernels_without_a_mask_get_the_borders_of_samples(name):
    AttentionInterface.register("between_borders", between_borders)
    kind = KINDS[name]
    assert layout_for("flash_attention_3") == "flat" and layout_for("flex_attention") == "rows"
    model, found = build(kind), samples(kind)
    alone, gradients = loss_and_gradients(model, [{**sample} for sample in found])
    model.set_attn_implementation({"text_config": "between_borders"})
    together, packed_gradients = loss_and_gradients(model, [packed(model, kind, found, "flat")])
    assert together == pytest.approx(alone, abs=1e-5)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[parameter], gradient, atol=1e-5, rtol=1e-5, msg=parameter)


@pytest.mark.slow
def test_flex_attention_sees_what_sdpa_sees():
    kind = KINDS["llava"]
    found = [{k: v.float() if v.is_floating_point() else v for k, v in one.items()} for one in samples(kind)]
    masked, flexible = build(kind).float(), build(kind, "flex_attention").float()
    with torch.no_grad():  # its way backward needs a GPU
        batch = packed(masked, kind, found, layout_for("flex_attention"))
        real = batch["sequence_ids"] >= 0
        torch.testing.assert_close(forward(flexible, batch)[real], forward(masked, batch)[real], atol=1e-4, rtol=1e-4)
