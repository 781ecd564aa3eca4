"""Kept features in place of a frozen tower, in every architecture: the same batch but pixels, losses and gradients."""

import copy
from dataclasses import replace

import pytest
import torch

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES, CutContext
from hfvla.models.chat_vlm import FAMILY
from hfvla.models.chat_vlm.tower import IMAGES, read_tower
from hfvla.worlds.shapes import ShapesOptions, build_shapes

from .zoo import MAKERS, made

CUT = FAMILY.feature_cuts["vision"]
LOSSES = ("sft", "dpo", "distill")


@pytest.fixture(params=sorted(MAKERS))
def kind(request):
    return request.param


@pytest.fixture
def given(kind, rows):
    """A picture; two pictures, one of another size, with a worse answer; no picture."""
    first, other = (ChatSample.from_row(row) for row in rows.select(range(2)))
    wide = ChatSample.from_row(build_shapes(ShapesOptions(size=1, seed=5, image_size=48), seed=0).dataset[0])
    pair = (text_turn("user", "Compare.", images=2), text_turn("assistant", "yes"))
    worse = (*pair[:1], text_turn("assistant", "no"))
    two = replace(other, id="two", turns=pair, rejected=worse, images=(*wide.images, *other.images))
    if kind == "paligemma":  # neither a chat nor a row without pictures
        return [replace(first, rejected=()).to_row(), two.to_row()]
    words = (text_turn("user", "red?"), text_turn("assistant", "yes"))
    alone = replace(first, id="words", turns=words, rejected=(), images=())
    return [one.to_row() for one in (replace(first, rejected=()), two, alone)]


def kept(model, processor, rows):
    """Return the rows with what is kept of their pictures."""
    seen = [row for row in rows if CUT.encodes(row)]
    batch = CUT.load("prepare")(CutContext(processor, model.config), seen)
    with torch.no_grad():
        found = iter(CUT.load("encode")(model, batch))
    return [{**row, CACHED_FEATURES: next(found) if CUT.encodes(row) else None} for row in rows]


def trained(model, batch):
    """Return the terms of a batch, and the projector's gradients."""
    groups = FAMILY.of_model(model).groups
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    members = tuple(name.removesuffix("*") for name in groups["projector"].patterns)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None and n.startswith(members)}
    return {name: float(value.detach()) for name, value in output.loss_terms.items()}, grads


def test_kept_features_train_as_pictures_do(kind, given):
    model, processor = copy.deepcopy(made(kind)[0]), made(kind)[1]
    FAMILY.give_objective(model, losses=LOSSES)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.1)  # away from where dpo and distill began
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("model.vision", "model.visual.patch", "model.visual.blocks")))
    collator = FAMILY.load("collator")(processor, model.config, losses=LOSSES)
    plain, cached = collator(given), collator(kept(model, processor, given))
    assert not {"pixel_values", "pixel_attention_mask"} & set(cached)
    same = set(plain) - {"pixel_values", "pixel_attention_mask"}
    assert {name for name in cached if not name.startswith("tower_")} == same
    assert all(torch.equal(plain[name], cached[name]) for name in same)
    (wanted, gradients), (found, grads) = trained(model, plain), trained(model, cached)
    assert found == pytest.approx(wanted, abs=1e-6) and set(found) == set(LOSSES)
    assert grads and set(grads) == set(gradients)
    for name, value in grads.items():
        torch.testing.assert_close(value, gradients[name], atol=1e-6, rtol=1e-4)
    again, _ = trained(model, plain)  # the tower sees again
    assert again == wanted


def test_kept_features_are_packed(kind, given):
    model, processor = copy.deepcopy(made(kind)[0]), made(kind)[1]
    FAMILY.give_objective(model, losses=("sft",))
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    rows = kept(model, processor, given)
    packed = collator([{"pack": rows[:2]}, *([{"pack": rows[2:]}] if rows[2:] else [])])
    assert IMAGES.tiles in packed and "attention_mask" not in packed
    with torch.inference_mode():
        torch.testing.assert_close(model(**packed).loss, model(**collator(given)).loss, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_kept(model, rows, processor, tmp_path):
    inner = copy.deepcopy(made("qwen2_5_vl")[0])
    inner.model.visual.downsample = torch.nn.Linear(1, 1)  # as GLM-4V has it: what goes into its merger is trained too
    with pytest.raises(RecipeError, match=r"what its vision tower gives cannot be kept.*merger, downsample inside"):
        read_tower(inner, {})
    pictures = kept(model, processor, [dict(rows[0], rejected=[])])
    pictures.append({**pictures[0], CACHED_FEATURES: {**pictures[0][CACHED_FEATURES]}})
    pictures[1][CACHED_FEATURES]["tower_0"] = pictures[1][CACHED_FEATURES]["tower_0"][:, 1:]
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    with pytest.raises(DataError, match=r"kept features of rows of one batch have different sizes"):
        collator(pictures)
    model.save_pretrained(tmp_path)
    FAMILY.give_objective(model, {"distill": {"teacher": str(tmp_path)}}, ("distill",))
    with pytest.raises(RecipeError, match=r"a teacher has a tower of its own"):
        model(**collator(pictures[:1]))
