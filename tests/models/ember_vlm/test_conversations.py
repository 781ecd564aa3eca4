"""Conversations about pictures as EmberVLM's first two stages learn and answer them."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from hfvla.cache.content import sample_keys
from hfvla.data.rows.mixing import mix
from hfvla.data.samples.chat import ChatSample, ImageRef, Part, Turn, chat_features, text_turn
from hfvla.errors import DataError
from hfvla.family import CACHED_FEATURES, CutContext, EvaluationContext, resolve
from hfvla.losses.text import IGNORE_INDEX
from hfvla.metrics.chat.tasks import asked
from hfvla.models.ember_vlm import FAMILY
from hfvla.models.ember_vlm.conversations import as_task, only_conversations
from hfvla.models.ember_vlm.conversing import chat_system
from hfvla.recipe import build_options


@pytest.fixture(scope="module")
def mine(built):
    """A model of these tests' own, in eval mode, and the processor."""
    return copy.deepcopy(built[0]).eval(), built[1]


PICTURE = ImageRef("x.png")


def chat(name="a", turns=None, images=(PICTURE,), kind="", **more):
    turns = turns or (text_turn("user", "What is it?", images=len(images)), text_turn("assistant", "A cat."))
    return ChatSample(id=name, turns=turns, images=images, kind=kind, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """LLaVA conversations on two pictures, one of them with two pictures at once."""
    path = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path / name)
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A pattern."}]
    both = [{"from": "human", "value": "<image>\n<image>\nSame?"}, {"from": "gpt", "value": "No."}]
    records = [{"id": str(n), "image": name, "conversations": talk} for n, name in enumerate(["one.png", "two.png"])]
    records.append({"id": "both", "image": ["one.png", "two.png"], "conversations": both})
    (path / "llava.json").write_text(json.dumps(records))
    return path


@pytest.fixture(scope="module")
def data(folder, tmp_path_factory):
    options = build_options(
        FAMILY, "folder", {"path": str(folder), "cache_dir": str(tmp_path_factory.mktemp("cache"))}, where="test"
    )
    return resolve(FAMILY.source("folder").build)(options, seed=0)


def test_a_conversation_of_several_pictures_is_counted(data):
    assert list(data.dataset["id"]) == ["0", "1"]
    assert data.census["rejected"]["more than one picture"]["count"] == 1
    assert data.rejected["both"] == "more than one picture"


def test_rows_become_captions_or_dialogues():
    row = as_task(chat(kind="caption").to_row())
    assert row["caption"] == "A cat." and row["dialogue"] == []
    turns = (
        Turn("system", (Part("text", "Be brief."),)),
        text_turn("user", "What?", images=1),
        text_turn("assistant", "A cat.", train=False),
        text_turn("user", "Colour?"),
        text_turn("assistant", "Black."),
    )
    row = as_task(chat(turns=turns).to_row())
    assert row["caption"] == "" and [turn["train"] for turn in row["dialogue"]] == [False, True]
    assert row["dialogue"][0]["question"] == "Be brief.\nWhat?"
    with pytest.raises(DataError, match="a: more than one picture"):
        as_task(chat(images=(ImageRef("x.png"), ImageRef("y.png"))).to_row())


def test_only_the_answers_are_learned(mine, data):
    model, processor = mine
    collator = FAMILY.load("collator")(processor, model.config, losses=("instruct",))
    batch = collator([data.dataset[0], data.dataset[1]])
    learned = batch["input_ids"][0][batch["labels"][0] != IGNORE_INDEX]
    assert processor.tokenizer.decode(learned) == " A pattern.<|endoftext|>"
    assert batch["pixel_values"].shape[0] == 2
    output = model(**batch)
    assert set(output.loss_terms) == {"instruct"} and torch.isfinite(output.loss_terms["instruct"])


def test_a_mixture_with_tasks_trains_both(mine, data, rows):
    model, processor = mine
    mixed = mix([data.dataset, rows], [1.0, 1.0], seed=0)
    collator = FAMILY.load("collator")(processor, model.config, losses=("instruct", "selection"))
    output = model(**collator(list(mixed)))
    assert set(output.loss_terms) == {"instruct", "selection"}
    assert len(only_conversations(mixed)) == len(data.dataset)
    assert only_conversations(rows) is None


def test_the_cache_takes_pictures_of_both_kinds(mine, data, rows):
    model, processor = mine
    cut, context = FAMILY.feature_cuts["vision"], CutContext(processor, model.config)
    keys = sample_keys(data.dataset, cut, context)
    assert len(set(keys)) == 2 and None not in keys
    assert sample_keys(rows, cut, context)[3] is None  # has no picture
    batch = cut.load("prepare")(context, [data.dataset[0]])
    features = cut.load("encode")(model, batch)[0]
    cached = {**data.dataset[0], CACHED_FEATURES: features}
    collator = FAMILY.load("collator")(processor, model.config, losses=("instruct",))
    with torch.no_grad():
        same = torch.equal(model(**collator([cached])).logits, model(**collator([data.dataset[0]])).logits)
    assert same


def test_the_part_of_a_shard_is_what_a_feature_belongs_to(mine, tmp_path):
    from datasets import Dataset

    model, processor = mine
    one, two = (tmp_path / "one.tar", tmp_path / "two.tar")
    one.write_bytes(b"xxPICTURE-A" + b"PICTURE-B")
    two.write_bytes(b"PICTURE-A")
    places = [(one, 2, 9), (two, 0, 9), (one, 11, 9)]
    samples = [chat(images=(ImageRef(str(path), offset=start, size=size),)).to_row() for path, start, size in places]
    rows = Dataset.from_list(samples, features=chat_features())
    first, same, other = sample_keys(rows, FAMILY.feature_cuts["vision"], CutContext(processor, model.config))
    assert first == same != other


def test_answers_are_written_and_their_losses_are_those_of_training(mine, data):
    model, processor = mine
    system = chat_system(model, processor)
    samples = [ChatSample.from_row(row) for row in data.dataset]
    alone = [system.write([sample], 5)[0] for sample in samples]
    assert system.write(samples, 5) == alone
    torch.manual_seed(0)
    assert system.write(samples, 5, temperature=50.0) != alone  # far above 1 all words are alike
    assert system.write(samples, 5, temperature=1e-9) == alone
    found = system.answer_losses(samples)
    collator = FAMILY.load("collator")(processor, model.config, losses=("instruct",))
    with torch.no_grad():
        wanted = model(**collator([data.dataset[0]])).loss_terms["instruct"]
    assert np.mean(found[0].losses) == pytest.approx(float(wanted), rel=1e-5)
    assert list(system.answer_ids(samples[0])) == list(found[0].tokens)


def test_evaluation_scores_conversations_beside_baselines(mine, data):
    model, processor = mine
    context = EvaluationContext(train_rows=data.dataset, seed=0, bootstrap_samples=20, max_generate=8)
    result = FAMILY.load("evaluate")(model, processor, data.dataset, context)
    assert result.metrics["n"] == 2 and "perplexity" in result.metrics
    assert "unigram" in " ".join([*result.metrics, *result.baselines])


def test_pictures_and_captions_in_one_space(mine, tmp_path):
    rng = np.random.default_rng(1)
    samples = []
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        turns = (text_turn("user", "Describe it.", images=1), text_turn("assistant", "words " * (number + 1)))
        picture = ImageRef(str(tmp_path / f"{number}.png"))
        samples.append(chat(str(number), turns, images=(picture,), kind="caption", group=str(number)))
    system = chat_system(*mine)
    images, texts = system.embed_pairs(samples)
    assert images.shape == texts.shape and np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    alone = system.embed_pairs(samples[:1])
    assert np.allclose(images[0], alone[0][0], atol=1e-5) and np.allclose(texts[0], alone[1][0], atol=1e-5)
    rows = [sample.to_row() for sample in samples]
    result = resolve(FAMILY.path("evaluate"))(*mine, rows, EvaluationContext(bootstrap_samples=0, ablations=False))
    assert 0 <= result.metrics["mean_recall"] <= 1 and "t2i_r1" in result.baselines["chance"]


@pytest.mark.parametrize(("kind", "loss"), [("caption", "caption"), ("qa", "instruct")])
def test_what_is_written_follows_the_prompt_that_training_showed(mine, folder, monkeypatch, kind, loss):
    """Evaluation asks without the answer; a caption was then asked for in the words of a question."""
    model, processor = mine
    sample = chat(images=(ImageRef(str(folder / "one.png")),), kind=kind)
    batch = FAMILY.load("collator")(processor, model.config, losses=(loss,))([sample.to_row()])
    learned = batch["labels"][0] != IGNORE_INDEX
    shown = []
    monkeypatch.setattr(model, "generate_reasoning", lambda ids, *_, **__: shown.append(ids[0]) or ids)
    chat_system(model, processor).write([asked(sample)], 5)
    assert shown[0].tolist() == batch["input_ids"][0][~learned].tolist()
