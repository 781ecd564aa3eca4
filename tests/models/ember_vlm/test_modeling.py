"""Forward pass, losses and saving of EmberVLM."""

import copy

import pytest
import torch
from transformers import AutoModel

from hfvla.losses.contrastive import symmetric_infonce
from hfvla.losses.selection import bernoulli_consistency, multilabel_loss
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.models.ember_vlm.modeling_ember_vlm import TEXT_KINDS, EmberVLMForRobotSelection
from hfvla.nn.timm_tower import TimmTower

ALL_LOSSES = ("itc", "caption", "instruct", "selection", "reasoning", "consistency")
CLOSE = {"atol": 2e-6, "rtol": 1e-5}


@pytest.fixture(scope="module")
def lively(shared_model):
    """A copy whose language model and head are far from their small initial weights, so that inputs matter."""
    model = copy.deepcopy(shared_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in (model.language_model, model.fusion.mix, model.selection_head, model.projector):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@torch.inference_mode()
def logits(model, batch):
    return model(**batch).selection_logits


def hidden_states(model, batch) -> list[torch.Tensor]:
    """Return what the language model gives in one forward pass: for the prompts and, with captions, for these."""
    found = []
    hook = model.language_model.transformer.register_forward_hook(
        lambda module, inputs, output: found.append(output.last_hidden_state)
    )
    model(**batch)
    hook.remove()
    return found


def differs(first, second):
    return (first - second).abs().max().item() > 1e-3


# ---- what the head sees ------------------------------------------------------------------------------------------


def test_the_head_reads_the_task_but_not_the_chain(lively, collate, rows):
    row = rows[0]
    prompt = logits(lively, collate([row], "selection"))
    written = logits(lively, collate([row], "selection", "reasoning"))
    other = logits(
        lively, collate([{**row, "reasoning": "Humanoid: yes. " * 9, "plan": []}], "selection", "reasoning")
    )
    torch.testing.assert_close(written, prompt, **CLOSE)
    torch.testing.assert_close(other, prompt, **CLOSE)
    assert differs(prompt, logits(lively, collate([{**row, "task": "Paint the fence"}], "selection")))


def test_padding_and_companions_do_not_matter(lively, collate, rows):
    long = {**rows[1], "task": "Inspect every bridge along the river and report what is broken at once"}
    alone = logits(lively, collate([rows[0]], "selection"))
    for training in (True, False):  # right and left
        batch = collate([rows[0], long, rows[3]], "selection", training=training)
        assert (batch["attention_mask"][0] == 0).any()
        torch.testing.assert_close(logits(lively, batch)[:1], alone, **CLOSE)
    assert differs(logits(lively, collate([long], "selection")), alone)


def test_the_picture_alone_changes_the_choice(lively, collate, rows):
    batch = collate([rows[0]], "selection")
    other = {**batch, "pixel_values": batch["pixel_values"].flip(-1) * 0.5}
    assert differs(logits(lively, batch), logits(lively, other))


def test_a_learned_vector_stands_for_no_picture(lively, collate, rows):
    batch = collate(rows.select([0, 3]), "selection")  # with and without a picture
    changed = copy.deepcopy(lively)
    with torch.no_grad():
        changed.fusion.no_image[0] += 1.0
    before, after = logits(lively, batch), logits(changed, batch)
    assert torch.equal(before[0], after[0]) and differs(before[1], after[1])
    assert lively.fusion.no_image.std() > 0


def test_words_are_dropped_while_training_only(lively, collate, rows):
    batch = collate(rows, "selection")
    model = copy.deepcopy(lively)
    model.config.selection_dropout = model.selection_head.layers[2].p = 0.0
    for module in model.language_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = logits(model, batch)
    model.train()
    model.vision.eval()
    model.config.word_dropout = 0.0
    torch.testing.assert_close(logits(model, batch), expected, **CLOSE)
    model.config.word_dropout = 0.3
    assert differs(logits(model, batch), expected)
    # With seeds, a row's own words go: beside longer rows and alone, and whatever the process has drawn before.
    seeds = torch.arange(len(batch["input_ids"]))
    dropped = logits(model, {**batch, "noise_seeds": seeds})
    assert differs(dropped, expected)
    for number in range(len(seeds)):
        alone = {**collate([rows[number]], "selection"), "noise_seeds": seeds[number : number + 1]}
        torch.testing.assert_close(logits(model, alone), dropped[number : number + 1], **CLOSE)
    torch.testing.assert_close(logits(model.eval(), batch), expected, **CLOSE)


def test_pictures_go_to_their_own_rows(lively, collate, rows):
    mixed = logits(lively, collate(rows.select([3, 0, 7, 1]), "selection"))
    for position, index in enumerate([3, 0, 7, 1]):
        torch.testing.assert_close(mixed[position : position + 1], logits(lively, collate([rows[index]], "selection")))


@pytest.mark.parametrize("config", [EmberVLMConfig.tiny(), EmberVLMConfig()], ids=["tiny", "real size"])
def test_a_random_frozen_tower_still_tells_pictures_apart(config):
    with torch.device("meta"):
        whole = EmberVLMForRobotSelection(config)
    torch.manual_seed(0)
    vision = config.vision_config
    tower = TimmTower(vision.architecture, vision.model_args, config.vision_hidden_size).eval()
    for module in tower.modules():
        EmberVLMForRobotSelection._init_weights(whole, module)
    with torch.inference_mode():
        features = tower(torch.randn(4, 3, config.image_size, config.image_size))
    side = config.image_size // 32
    assert features.shape == (4, config.vision_hidden_size, side, side)
    assert features.std(0).mean() > 0.01  # between pictures


@pytest.mark.parametrize(("images", "match"), [(0, "0 images of 4"), (2, "2 images of 4")])
def test_placeholders_must_match_the_pictures(model, collate, rows, images, match):
    batch = collate([rows[0]], "selection")
    pixels = batch.pop("pixel_values").repeat(2, 1, 1, 1)[:images]
    with pytest.raises(ValueError, match=rf"4 <image> placeholders in input_ids but \d image features \({match}"):
        model(**batch, pixel_values=pixels if images else None)


# ---- losses ------------------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_sum_of_its_terms(model, collate, rows):
    batch = collate(rows, *ALL_LOSSES)
    model.config.loss_weights = {"selection": 2.0, "caption": 0.25, "itc": 0.0, "consistency": 3.0}
    output = model(**batch)
    terms = output.loss_terms
    assert set(terms) == set(ALL_LOSSES) and all(term.shape == () and term > 0 for term in terms.values())
    expected = 2 * terms["selection"] + 0.25 * terms["caption"] + 3 * terms["consistency"]
    torch.testing.assert_close(output.loss, expected)
    model.config.loss_weights = {"nothing": 1.0}
    assert model(**batch).loss is None


def test_selection_term_counts_rows_with_gold_only(model, collate, rows):
    batch = collate([rows[0], {**rows[1], "robots": []}], "selection")
    output = model(**batch)
    expected = multilabel_loss(
        output.selection_logits[:1], batch["robot_labels"][:1], label_smoothing=0.1, focal_gamma=2.0
    )
    torch.testing.assert_close(output.loss_terms["selection"], expected)
    model.config.selection_loss, model.config.label_smoothing = "bce", 0.0
    plain = multilabel_loss(output.selection_logits[:1], batch["robot_labels"][:1])
    torch.testing.assert_close(model(**batch).loss_terms["selection"], plain)
    assert model(**collate([{**rows[1], "robots": []}], "selection")).loss_terms is None


def test_text_terms_are_next_token_cross_entropy(model, collate, rows):
    batch = collate(rows.select([0, 1]), "caption", "reasoning")
    output = model(**batch)
    scores = model.language_model.lm_head(hidden_states(model, batch)[0])
    for index, name in enumerate(TEXT_KINDS):
        losses = [
            torch.nn.functional.cross_entropy(scores[row, :-1], batch["labels"][row, 1:])  # -100 is left out
            for row in range(len(scores))
            if batch["text_kind"][row] == index
        ]
        if losses:
            torch.testing.assert_close(output.loss_terms[name], torch.stack(losses).mean())
    assert set(output.loss_terms) == {"caption", "reasoning", "selection"}
    assert output.logits.shape == (int((batch["labels"] != -100).sum()), model.config.text_config.vocab_size)


def test_labels_need_their_kind(model, collate, rows):
    batch = collate([rows[0]], "reasoning")
    del batch["text_kind"]
    with pytest.raises(ValueError, match="labels need text_kind"):
        model(**batch)


@pytest.mark.parametrize("training", [True, False])
def test_written_verdicts_are_read_before_the_word(lively, collate, processor, rows, training):
    longer = {**rows[1], "task": rows[1]["task"] + " and then every other site"}
    batch = collate([rows[0], longer], "selection", "consistency", training=training)
    output = lively(**batch)
    scores = lively.language_model.lm_head(hidden_states(lively, batch)[0])
    for row in range(2):
        for robot, position in enumerate(batch["verdict_positions"][row].tolist()):
            before = scores[row, position - 1]
            expected = before[processor.yes_token_id] - before[processor.no_token_id]
            torch.testing.assert_close(output.verdict_logits[row, robot], expected, atol=1e-4, rtol=1e-4)
    valid = torch.ones(2, 5, dtype=torch.bool)
    expected = bernoulli_consistency(output.selection_logits, output.verdict_logits, valid)
    torch.testing.assert_close(output.loss_terms["consistency"], expected)


def test_contrastive_term_pairs_pictures_with_their_captions(lively, collate, rows):
    batch = collate(rows.select([0, 1, 3, 4]), "itc", "instruct")  # dialogue sequences bring pictures of their own
    assert len(batch["pixel_values"]) == 6 and len(batch["caption_input_ids"]) == 3
    found = lively(**batch).loss_terms["itc"]
    alone = collate(rows.select([0, 1, 4]), "itc")
    pictures = lively.get_image_features(alone["pixel_values"]).mean(1)
    mask = alone["caption_attention_mask"][..., None]
    texts = (hidden_states(lively, alone)[1] * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(found, symmetric_infonce(pictures, texts, 0.07), atol=1e-5, rtol=1e-4)
    assert lively.log_temperature.exp().item() == pytest.approx(0.07)


def test_a_batch_without_captions_has_no_contrastive_term(lively, collate, rows):
    batch = collate(rows.select([3, 7]), "itc", "instruct")  # rows without a picture
    assert len(batch["caption_input_ids"]) == 0
    assert set(lively(**batch).loss_terms) == {"instruct"}


def test_only_words_of_the_prompt_are_dropped(model, collate, rows):
    model.train().config.word_dropout = 0.7
    batch = collate(rows.select([0, 1, 4]), "caption", "instruct", "reasoning")
    embeddings = model.embed(batch["input_ids"], batch["pixel_values"])[0]
    seen = []
    model.run_language_model = lambda given, mask: seen.append(given) or torch.zeros_like(given)
    torch.manual_seed(0)
    model(**batch)
    changed = (seen[0] != embeddings).any(-1)
    assert changed.any() and not changed[batch["labels"] != -100].any()
    assert not changed[batch["input_ids"] == model.config.image_token_id].any()


# ---- saving ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(lively, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    lively.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("loader", [EmberVLMForRobotSelection, AutoModel])
def test_a_loaded_model_answers_bit_equal(lively, collate, rows, saved, loader):
    loaded = loader.from_pretrained(saved)
    assert type(loaded) is EmberVLMForRobotSelection and not loaded.training
    for training in (True, False):
        batch = collate(rows, *ALL_LOSSES, training=training)
        assert torch.equal(logits(loaded, batch), logits(lively, batch))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in [*loaded.parameters(), *loaded.buffers()])


def test_the_checkpoint_holds_safetensors_and_json_only(saved):
    files = {path.name for path in saved.iterdir()}
    assert "model.safetensors" in files
    assert {name for name in files if not name.endswith((".json", ".safetensors", ".jinja", ".txt"))} == set()


def test_the_output_layer_stays_tied(saved):
    from safetensors import safe_open

    loaded = EmberVLMForRobotSelection.from_pretrained(saved)
    assert loaded.language_model.lm_head.weight is loaded.language_model.transformer.wte.weight
    with safe_open(saved / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert sum("lm_head" in name or "wte" in name for name in names) == 1


def test_loading_finds_every_weight(saved):
    _, info = EmberVLMForRobotSelection.from_pretrained(saved, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


# ---- the cut after the vision tower ---------------------------------------------------------------------------------


def test_maps_of_the_tower_give_the_bits_of_the_pixels(model, collate, rows):
    batch = collate(rows, "itc", "caption", "selection", "reasoning")
    with torch.no_grad():
        expected = model(**batch)
        maps = model.encode_pixels(batch["pixel_values"])
        found = model(**{name: value for name, value in batch.items() if name != "pixel_values"}, image_features=maps)
    assert torch.equal(found.loss, expected.loss) and torch.equal(found.selection_logits, expected.selection_logits)
    assert all(torch.equal(found.loss_terms[name], term) for name, term in expected.loss_terms.items())


def test_pixels_and_maps_together_are_refused(model, collate, rows):
    batch = collate(rows, "selection")
    maps = model.encode_pixels(batch["pixel_values"])
    with pytest.raises(ValueError, match="both given"):
        model(**batch, image_features=maps)
    with pytest.raises(ValueError, match=r"20 image features \(5 images of 4 tokens\)"):
        model(batch["input_ids"], batch["attention_mask"], image_features=maps[1:])


def test_pooled_prompts_give_the_bits_of_their_tokens(model, collate, rows):
    """Pictures count where a prompt has one: rows with and without are read alike."""
    batch = collate([{**row, "image": None} if number % 2 else row for number, row in enumerate(rows)], "selection")
    with torch.no_grad():
        expected = model(**batch)
        inputs = {name: batch.pop(name) for name in ("input_ids", "attention_mask", "pixel_values")}
        read = model.read_prompts(**inputs)
        found = model(**batch, prompt_states=read.pooled, prompt_pictures=read.pictures)
    assert 0 < int(read.pictures.sum()) < len(rows)
    assert torch.equal(found.loss, expected.loss) and torch.equal(found.selection_logits, expected.selection_logits)


def test_pooled_prompts_serve_the_selection_alone(model, collate, rows):
    batch = collate(rows, "selection", "reasoning")
    states, pictures = torch.zeros(8, 3, model.config.text_config.hidden_size), torch.zeros(8)
    with pytest.raises(ValueError, match="both are given"):
        model(**batch, prompt_states=states, prompt_pictures=pictures)
    with pytest.raises(ValueError, match="prompt_states and prompt_pictures together"):
        model(prompt_states=states)
    labels, kinds = batch["labels"][:8], batch["text_kind"][:8]
    with pytest.raises(ValueError, match="serves the selection alone"):
        model(prompt_states=states, prompt_pictures=pictures, labels=labels, text_kind=kinds)


def test_losses_of_rows_average_to_the_terms_and_know_their_source(model, collate, rows):
    known = [{**row, "source": name} for row, name in zip(rows, ["made", "read"] * 4, strict=True)]
    batch = collate(known, "caption", "instruct", "reasoning")
    assert len(set(batch["source_ids"].tolist())) == 2
    with torch.inference_mode():
        found = model(**batch)
        plain = model(**{key: value for key, value in batch.items() if key != "source_ids"})
    assert plain.row_losses is None and set(found.row_losses) == {"caption", "instruct", "reasoning"}
    for name, (sums, counts) in found.row_losses.items():
        assert float(sums.sum() / counts.sum()) == pytest.approx(float(found.loss_terms[name]), abs=1e-5)
        assert torch.equal(counts > 0, batch["text_kind"] == TEXT_KINDS.index(name))
