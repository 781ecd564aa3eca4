"""Two towers in transformers' convention: the right token pooled, same buildings masked, chunks equal the batch."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hfvla.errors import CheckpointError
from hfvla.losses.contrastive import group_infonce
from hfvla.losses.spatial import spatial_labels


@pytest.fixture
def batch(collate, rows):
    return collate(rows)


# ---- towers ------------------------------------------------------------------------------------------------------


def test_features_in_transformers_convention(model, batch):
    image = model.get_image_features(batch["pixel_values"])
    text = model.get_text_features(batch["input_ids"], batch["attention_mask"])
    assert isinstance(image, BaseModelOutputWithPooling) and isinstance(text, BaseModelOutputWithPooling)
    assert image.last_hidden_state.shape == (8, 1 + 16, 32) and image.pooler_output.shape == (8, 32)
    assert text.last_hidden_state.shape == (*batch["input_ids"].shape, 32) and text.pooler_output.shape == (8, 32)
    output = model(**batch)
    for found, unit in ((image, output.image_embeds), (text, output.text_embeds)):
        torch.testing.assert_close(F.normalize(found.pooler_output, dim=-1), unit, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(8))
    expected = output.image_embeds @ output.text_embeds.T / 0.07
    torch.testing.assert_close(output.logits_per_image, expected)


def test_pooled_image_is_the_mean_of_the_patches(model, batch):
    states = model.encode_pixels(batch["pixel_values"])
    tower = model.backbone.vision_tower(pixel_values=batch["pixel_values"]).last_hidden_state
    torch.testing.assert_close(states.pooled, tower[:, 1:].mean(1))  # the class token is the first
    torch.testing.assert_close(states.tokens, model.backbone.get_image_features(batch["pixel_values"]).pooler_output)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_on_either_side_pools_the_same_token(model, processor, pooling):
    model.config.text_pooling = pooling
    short, long = "A red building.", "There is a long blue building with a helipad and a pool on the upper left."
    together, alone = processor.texts([short, long]), processor.texts([short])
    count = alone["input_ids"].shape[1]
    ids, mask = together["input_ids"], together["attention_mask"]
    assert mask[0].tolist() == [0] * (ids.shape[1] - count) + [1] * count  # padded on the left
    right_ids, right_mask = ids.clone(), mask.clone()
    right_ids[0], right_mask[0] = ids[0].roll(count), mask[0].roll(count)
    expected = model.get_text_features(**alone).pooler_output[0]
    for one, two in ((ids, mask), (right_ids, right_mask)):
        found = model.get_text_features(one, two).pooler_output[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    hidden, pooled = model.encode_text(ids, mask)
    states = hidden[0, -count:]
    torch.testing.assert_close(pooled[0], states[-1] if pooling == "last" else states.mean(0), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(pooled[0], hidden[0, 0], atol=1e-3)  # index 0 is padding


def test_what_stands_in_the_padding_does_not_matter_and_the_last_token_does(model, processor):
    encoded = processor.texts(["A red building.", "There is a long blue building with a helipad on the left."])
    expected = model.get_text_features(**encoded).pooler_output
    noise = encoded["input_ids"].clone()
    noise[encoded["attention_mask"] == 0] = 77
    found = model.get_text_features(noise, encoded["attention_mask"]).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    other = encoded["input_ids"].clone()
    other[:, -1] = 77
    assert not torch.allclose(model.get_text_features(other, encoded["attention_mask"]).pooler_output, expected)


def test_images_through_the_language_model(other_model, processor, batch):
    """Equal to transformers' own forward on the prompt with placeholders, at the last token."""
    model = other_model(image_from="language")
    prompt = model.config.image_prompt
    assert prompt["before"] and prompt["after"][-1] == processor.tokenizer.eos_token_id
    text = processor.tokenizer.decode([*prompt["before"], *prompt["after"]])
    assert text == "The place in this picture, in one word: <img></img><|endoftext|>"
    token = model.config.backbone_config.image_token_id
    ids = torch.tensor([[*prompt["before"], *[token] * 4, *prompt["after"]]] * 8)
    own = model.backbone(input_ids=ids, pixel_values=batch["pixel_values"]).last_hidden_state[:, -1]
    found = model.get_image_features(batch["pixel_values"]).pooler_output
    torch.testing.assert_close(found, model.image_adapter(own), atol=1e-5, rtol=1e-5)
    model(**batch).loss_terms["itc"].backward()
    assert model.backbone.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


def test_language_images_differ_from_vision_images(other_model, batch):
    losses = {name: other_model(image_from=name)(**batch).loss_terms["itc"].item() for name in ("vision", "language")}
    assert losses["vision"] != pytest.approx(losses["language"], abs=1e-4)


def test_pixels_and_features_of_the_same_images_are_refused(model, batch):
    states = model.encode_pixels(batch["pixel_values"])
    cached = {**batch, "image_pooled": states.pooled, "image_tokens": states.tokens}
    with pytest.raises(ValueError, match="both given"):
        model(**cached)
    del cached["pixel_values"]
    torch.testing.assert_close(model(**cached).loss, model(**batch).loss)
    del cached["image_tokens"]
    with pytest.raises(ValueError, match="image_tokens missing: image_from vision, heads grid"):
        model(**cached)


# ---- loss terms --------------------------------------------------------------------------------------------------


def test_chunks_of_features_give_the_whole_batch(model, batch):
    """What a gradient cache does: towers in chunks, losses on all features."""
    expected = model(**batch)
    chunks = [{name: value[start : start + 3] for name, value in batch.items()} for start in (0, 3, 6)]
    parts = [model(**chunk, encode_only=True).features for chunk in chunks]
    assert set(parts[0]) == {"image_embed", "text_embed", "grid", "sentence_embed"}
    features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    assert all(len(value) == 8 for value in features.values())
    labels = {name: batch[name] for name in ("boxes", "box_mask", "group_ids", "negative_seeds")}
    found = model(features=features, **labels)
    assert set(found.loss_terms) == set(expected.loss_terms) == {"itc", "itm", "bbox", "spatial"}
    for name, term in expected.loss_terms.items():
        torch.testing.assert_close(found.loss_terms[name], term, atol=1e-6, rtol=1e-5)


def test_one_buildings_pairs_are_no_negatives(model, batch):
    assert len(set(batch["group_ids"].tolist())) == 4  # two rows a building
    output = model(**batch)
    expected = group_infonce(output.image_embeds, output.text_embeds, 0.07, batch["group_ids"])
    torch.testing.assert_close(output.loss_terms["itc"], expected)
    blind = model(**{**batch, "group_ids": torch.arange(8)})
    assert not torch.allclose(blind.loss_terms["itc"], expected)
    # Only one building: nothing to tell apart, and nothing to learn from.
    single = model(**{**batch, "group_ids": torch.zeros(8, dtype=torch.long)})
    assert single.loss_terms["itc"].item() == 0.0


@pytest.mark.parametrize("gather", [False, True])
def test_hard_negatives_are_of_another_building_and_drawn_from_the_rows_seeds(model, batch, gather):
    model.config.negatives["gather"] = gather
    features, groups = model(**batch).features, batch["group_ids"]
    own = torch.arange(8)

    def draw(seeds):
        return model._negatives(features["image_embed"], features["text_embed"], own, groups, groups, seeds)

    seen = set()
    for number in range(30):
        found = draw(torch.arange(8) + number)
        assert found.valid.all()
        assert (groups[found.text_index] != groups).all() and (groups[found.image_index] != groups).all()
        seen.add(tuple(found.text_index.tolist()))
    assert len(seen) > 10
    again = [draw(batch["negative_seeds"]).text_index for _ in range(2)]
    assert torch.equal(*again)
    terms = [model(**batch).loss_terms["itm"] for _ in range(2)]
    assert torch.equal(*terms)
    model.config.negatives["seed"] = 5
    assert not torch.equal(model(**batch).loss_terms["itm"], terms[0])


def test_matching_by_hand(model, batch):
    """B positives, and for each image a wrong text and for each text a wrong image, all averaged."""
    features = model(**batch).features
    image, text, grid = (features[name] for name in ("image_embed", "text_embed", "grid"))
    groups = batch["group_ids"]
    drawn = model._negatives(image, text, torch.arange(8), groups, groups, batch["negative_seeds"])
    costs = []
    for row in range(8):
        for picture, caption, label in (
            (row, row, 1),
            (row, int(drawn.text_index[row]), 0),
            (int(drawn.image_index[row]), row, 0),
        ):
            logits = model.match_logits(image[[picture]], grid[[picture]], text[[caption]][None])[0, 0]
            costs.append(-logits.log_softmax(0)[label])
    torch.testing.assert_close(model(**batch).loss_terms["itm"], torch.stack(costs).mean())


@pytest.mark.parametrize("heads", ["pooled", "grid"])
def test_the_matching_head_by_hand(other_model, batch, heads):
    """It sees what the text finds, and the product of the unit vectors times D; several texts an image at once."""
    model = other_model(heads=heads)
    features = model(**batch).features
    image, text, grid = features["image_embed"], features["text_embed"], features.get("grid")
    together = model.match_logits(image[:2], None if grid is None else grid[:2], text[None, :3].expand(2, -1, -1))
    assert together.shape == (2, 3, 2)
    fused = image[1] + text[2] if grid is None else model.grid_attention(text[None, [2]], grid[[1]])[0, 0]
    product = 32 * (image[1] / image[1].norm()) * (text[2] / text[2].norm())
    torch.testing.assert_close(together[1, 2], model.itm_head(torch.cat([fused, product])), atol=1e-4, rtol=1e-4)


def test_boxes_and_relations_by_hand(model, batch):
    output = model(**batch)
    mask, boxes = batch["box_mask"], batch["boxes"]
    pred, target = output.box_predictions[mask], boxes[mask]
    assert output.box_predictions.shape == (8, 3, 4) and 0 < len(pred) <= 24
    low, high = pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2
    left, right = target[:, :2] - target[:, 2:] / 2, target[:, :2] + target[:, 2:] / 2
    overlap = (torch.minimum(high, right) - torch.maximum(low, left)).clamp_min(0).prod(1)
    union = pred[:, 2:].prod(1) + target[:, 2:].prod(1) - overlap
    hull = (torch.maximum(high, right) - torch.minimum(low, left)).prod(1)
    giou = overlap / union - (hull - union) / hull
    expected = (pred - target).abs().sum(1).mean() + (1 - giou).mean()
    torch.testing.assert_close(output.loss_terms["bbox"], expected, atol=1e-5, rtol=1e-5)
    labels = spatial_labels(boxes, mask)
    pairs = labels[..., 0] >= 0
    logits = output.spatial_logits[pairs]
    halves = (
        F.cross_entropy(logits[:, part], labels[pairs][:, axis]) for axis, part in ((0, slice(3)), (1, slice(3, 6)))
    )
    torch.testing.assert_close(output.loss_terms["spatial"], sum(halves))


@pytest.mark.parametrize("heads", ["pooled", "grid"])
def test_relations_are_of_ordered_pairs(other_model, batch, heads):
    model = other_model(heads=heads)
    features = model(**batch).features
    fused = model.fuse(features["image_embed"], features.get("grid"), features["sentence_embed"])
    if heads == "pooled":
        torch.testing.assert_close(fused, features["image_embed"][:, None] + features["sentence_embed"])
    logits = model(**batch).spatial_logits
    by_hand = model.spatial_head(torch.cat([fused[2, 0], fused[2, 1]]))
    torch.testing.assert_close(logits[2, 0, 1], by_hand, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits[2, 0, 1], logits[2, 1, 0])


def test_pooled_heads_do_not_see_where_things_are_and_the_grid_does(other_model, batch):
    """Patches in another order: the pooled image is the same."""
    for heads, same in (("pooled", True), ("grid", False)):
        model = other_model(heads=heads)
        features = model(**batch).features
        turned = {**features, **({"grid": features["grid"].flip(1)} if heads == "grid" else {})}
        assert torch.equal(model.locate(features)[0], model.locate(turned)[0]) == same


def test_terms_without_material_are_left_out(model, collate, rows):
    bare = [{**row, "sentences": [], "boxes": []} for row in rows]
    output = model(**collate(bare))
    assert set(output.loss_terms) == {"itc", "itm"} and torch.isfinite(output.loss)
    single = [{**row, "sentences": row["sentences"][:1], "boxes": row["boxes"][:1]} for row in rows]
    assert set(model(**collate(single)).loss_terms) == {"itc", "itm", "bbox"}
    assert set(model(**collate(rows, "itc")).loss_terms) == {"itc"}
    assert model(**{key: collate(rows)[key] for key in ("input_ids", "attention_mask")}).loss_terms is None


def test_unused_slots_do_not_count(model, collate, rows):
    """A sentence slot that is masked may hold anything."""
    few = [{**row, "sentences": row["sentences"][:2], "boxes": row["boxes"][:2]} for row in rows]
    batch = collate(few)
    other = {**batch, "boxes": batch["boxes"].masked_fill(~batch["box_mask"][..., None], float("nan"))}
    other["sentence_input_ids"] = batch["sentence_input_ids"].masked_fill(~batch["box_mask"][..., None], 9)
    found, expected = model(**other).loss_terms, model(**batch).loss_terms
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term, atol=1e-6, rtol=1e-5)


def test_the_queue_adds_negatives_and_is_saved(other_model, batch, tmp_path):
    model = other_model(negatives={"queue": 12}).train()
    plain = model(**batch).loss_terms["itc"].item()
    assert len(model.queue) == 8
    more = model(**{**batch, "group_ids": batch["group_ids"] + 1}).loss_terms["itc"].item()
    assert len(model.queue) == 12 and more > plain
    model.eval()(**batch)
    assert len(model.queue) == 12
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert len(again.queue) == 12 and torch.equal(again.queue.first, model.queue.first)


def test_the_temperature_is_learned_and_bounded(model, batch):
    assert model.temperature.item() == pytest.approx(0.07)
    model(**batch).loss.backward()
    assert model.log_temperature.grad.abs() > 0
    for value, bound in ((-9.0, 0.01), (9.0, 1.0)):
        model.log_temperature.data.fill_(value)
        assert model.temperature.item() == pytest.approx(bound)
        model.zero_grad()
        model(**batch).loss_terms["itc"].backward()
        assert model.log_temperature.grad.abs() > 0  # so that it can come back


def test_half_precision_leaves_similarities_whole(model, batch):
    features = model(**batch, encode_only=True).features
    expected = model(**batch, features=features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**batch, features=features)
    assert torch.equal(found.logits_per_image, expected.logits_per_image)
    assert torch.equal(found.loss_terms["itc"], expected.loss_terms["itc"])


def test_gradient_checkpointing_changes_nothing(model, batch):
    model.train()
    model(**batch).loss.backward()
    expected = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert model.backbone.language_model.layers[0].gradient_checkpointing
    model(**batch).loss.backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_weights_are_saved_by_the_names_they_have(model, tmp_path):
    """Hand-over and audit read the file by name; an old layout of InternVL's names would be all missing."""
    model.save_pretrained(tmp_path)
    saved = set(load_file(tmp_path / "model.safetensors"))
    assert saved == {name for name, _ in model.named_parameters()}
    assert "backbone.language_model.layers.0.mlp.up_proj.weight" in saved


# ---- heads ---------------------------------------------------------------------------------------------------------


def test_dropout_inside_the_heads_acts_in_training_alone_and_renames_nothing(model):
    config = type(model.config).tiny(head_dropout=0.5)
    torch.manual_seed(0)
    dropped = type(model)(config)
    assert list(dropped.state_dict()) == list(model.state_dict())
    inner = torch.randn(4, 2 * config.embed_dim)
    dropped.train()
    assert not torch.equal(dropped.itm_head(inner), dropped.itm_head(inner))
    dropped.eval()
    assert torch.equal(dropped.itm_head(inner), dropped.itm_head(inner))
    with pytest.raises(CheckpointError, match="head_dropout is no share; got 1.0"):
        type(model.config).tiny(head_dropout=1.0)
