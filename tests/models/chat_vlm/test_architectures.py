"""Every architecture of the zoo: what is taken for what, labels, loss, answers; all by its own processor class."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.errors import RecipeError
from hfvla.models.chat_vlm import FAMILY
from hfvla.models.chat_vlm.answering import prompt_batch, write_answers
from hfvla.models.chat_vlm.architectures import accepts, describe_parts, find_groups
from hfvla.training.stage.groups import expand_group

from .zoo import MAKERS, made

PARTS = {  # vision, layers of it, projector, language, layers of it
    "qwen2_5_vl": ("model.visual.patch_embed", "model.visual.blocks", "model.visual.merger", "model.language_model"),
    "qwen3_vl": ("model.visual.patch_embed", "model.visual.blocks", "model.visual.merger", "model.language_model"),
    "internvl": (
        "model.vision_tower", "model.vision_tower.encoder.layer", "model.multi_modal_projector",
        "model.language_model",
    ),
    "smolvlm": ("model.vision_model", "model.vision_model.encoder.layers", "model.connector", "model.text_model"),
    "idefics3": ("model.vision_model", "model.vision_model.encoder.layers", "model.connector", "model.text_model"),
    "llava": (
        "model.vision_tower", "model.vision_tower.encoder.layers", "model.multi_modal_projector",
        "model.language_model",
    ),
    "llava_onevision": (
        "model.vision_tower", "model.vision_tower.encoder.layers", "model.image_newline", "model.language_model",
    ),
    "gemma3": (
        "model.vision_tower", "model.vision_tower.encoder.layers", "model.multi_modal_projector",
        "model.language_model",
    ),
    "paligemma": (
        "model.vision_tower", "model.vision_tower.encoder.layers", "model.multi_modal_projector",
        "model.language_model",
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(MAKERS))
def kind(request):
    return request.param


@pytest.fixture
def samples(kind, sample, rows):
    """Several turns, several pictures, no picture; where the model has no chat, one question and two pictures."""
    other = ChatSample.from_row(rows[1])
    pair = (text_turn("user", "Compare.", images=2), text_turn("assistant", "yes"))
    two = replace(other, id="two", turns=pair, rejected=(), images=(*sample.images, *other.images))
    if kind == "paligemma":
        return [sample, two]
    more = (*sample.turns, text_turn("user", "Is it red?"), text_turn("assistant", "no"))
    words = (text_turn("system", "You see."), text_turn("user", "red?"), text_turn("assistant", "yes"))
    return [replace(sample, turns=more), two, replace(sample, id="words", turns=words, images=())]


def test_what_is_taken_for_what(kind):
    model, _ = made(kind)
    groups = find_groups(model)
    vision, vision_layers, projector, language = PARTS[kind]
    assert list(groups) == ["vision", "projector", "language", "embeddings"]
    assert groups["vision"].patterns[0] == f"{vision}.*" and groups["vision"].layers == vision_layers
    assert groups["projector"].patterns[0] in (f"{projector}.*", projector)
    assert groups["language"].patterns[0] == f"{language}.*" and groups["language"].layers == f"{language}.layers"
    members = {name: set(expand_group(model, groups, name)) for name in groups}
    everything = {name for name, _ in model.named_parameters()}
    assert members["vision"] | members["projector"] | members["language"] == everything
    assert not members["vision"] & members["projector"] and not members["vision"] & members["language"]
    assert members["embeddings"] < members["language"]
    assert any("embed_tokens" in name for name in members["embeddings"])
    assert len(expand_group(model, groups, "language.last(1)")) < len(members["language"])
    assert {row["group"]: row["parameters"] for row in describe_parts(model, groups)}["projector"] == sum(
        model.get_parameter(name).numel() for name in members["projector"]
    )


def test_labels_are_the_answers_and_the_loss_is_the_models_own(kind, samples):
    model, processor = made(kind)
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    batch = collator([sample.to_row() for sample in samples])
    end = processor.tokenizer.eos_token
    for number, sample in enumerate(samples):
        learned = batch["labels"][number][batch["labels"][number] >= 0]
        answers = [turn.text for turn in sample.turns if turn.role == "assistant"]
        assert processor.tokenizer.decode(learned) == "".join(f"{answer}{end}" for answer in answers)
    given = {name: value for name, value in batch.items() if name != "sequence_weights"}
    with torch.inference_mode():
        own = model(**given).loss
        ours = FAMILY.give_objective(copy.deepcopy(model), losses=("sft",))(**batch)
    torch.testing.assert_close(ours.loss, own, atol=1e-5, rtol=1e-5)
    assert set(ours.loss_terms) == {"sft"} and ours.predictions.shape == (len(samples), 2)


def test_answers_of_a_batch_are_those_of_each_alone(kind, samples):
    model, processor = made(kind)
    asked = [replace(sample, turns=sample.turns[:-1]) for sample in samples]
    together = write_answers(model, processor, asked, 4)
    assert together == [write_answers(model, processor, [sample], 4)[0] for sample in asked]


def test_the_types_that_are_taken():
    assert all(accepts(kind) for kind in MAKERS) and accepts("qwen2_vl") and accepts("glm4v")
    assert not accepts("bert") and not accepts("llama") and not accepts("clip")


def test_patterns_of_the_recipe_come_first():
    model, _ = made("llava")
    found = find_groups(model, {"groups": {"projector": ["model.multi_modal_projector.linear_2.*"]}})
    assert found["projector"].patterns == ("model.multi_modal_projector.linear_2.*",)
    found = find_groups(model, {"groups": {"top": ["model.language_model.layers.1.*", "lm_head.*"]}})
    assert found["top"].patterns[1] == "lm_head.*" and list(found)[-1] == "top"
    with pytest.raises(RecipeError, match=r"groups.vision: matches no parameter; got 'model.tower.*'.*lie below"):
        find_groups(model, {"groups": {"vision": ["model.tower.*"]}})


class Odd(nn.Module):
    """A model whose parts have names that nobody uses."""

    def __init__(self):
        super().__init__()
        self.eyes, self.mind, self.words = nn.Linear(2, 2), nn.Linear(2, 2), nn.Embedding(4, 2)

    def get_input_embeddings(self):
        return self.words

    def get_output_embeddings(self):
        return None


def test_an_unknown_architecture_asks_for_patterns():
    with pytest.raises(RecipeError, match=r"Odd: no language is found.*model.options.groups.language.*lie below eyes"):
        find_groups(Odd())
    found = find_groups(Odd(), {"groups": {"vision": ["eyes.*"], "language": ["mind.*", "words.*"]}})
    assert found["vision"].patterns == ("eyes.*",) and found["language"].patterns == ("mind.*", "words.*")


def test_packed_samples_are_those_of_padded_rows(kind, samples):
    """Lengths told from headers are those of the processor; loss, sums and counts do not depend on packing."""
    model, processor = made(kind)
    model = FAMILY.give_objective(copy.deepcopy(model), losses=("sft",))
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    rows = [replace(sample, weight=weight).to_row() for sample, weight in zip(samples, (1.0, 0.5, 2.0), strict=False)]
    assert collator.token_lengths(rows) == [int(collator([row])["attention_mask"].sum()) for row in rows]
    padded, packed = collator(rows), collator([{"pack": rows[:2]}, *([{"pack": rows[2:]}] if rows[2:] else [])])
    assert "attention_mask" not in packed and len(packed["sequence_weights"]) == len(rows)
    with torch.inference_mode():
        wanted, found = model(**padded), model(**packed)
    torch.testing.assert_close(found.loss, wanted.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.row_losses["sft"], wanted.row_losses["sft"], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.predictions, wanted.predictions)
    assert float(model.term_counts(packed)["sft"]) == float(model.term_counts(padded)["sft"])


def test_what_is_asked_is_what_training_showed_before_the_answer(kind, samples):
    """The ids of a prompt are those that stand before the last answer in a batch of training, and nothing else."""
    model, processor = made(kind)
    for one in samples:
        batch = FAMILY.load("collator")(processor, model.config, losses=("sft",))([one.to_row()])
        there = batch["attention_mask"][0].bool()
        ids, learned = batch["input_ids"][0][there].tolist(), (batch["labels"][0][there] >= 0).tolist()
        last = max(place for place, wanted in enumerate(learned) if wanted)
        while last and learned[last - 1]:
            last -= 1
        shown = prompt_batch(processor, model.config, [replace(one, turns=one.turns[:-1])], 1)
        asked = shown["input_ids"][0][shown["attention_mask"][0].bool()].tolist()
        assert asked == ids[:last], one.id
