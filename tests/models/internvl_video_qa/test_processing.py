"""Prompts, letters and batches."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor

from hfvla.errors import CheckpointError, DataError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor
from hfvla.models.internvl_video_qa.wording import PromptItem

from .conftest import recipe

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_the_prompt_names_frames_and_only_the_questions_own_choices(processor):
    image = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
    two = "<img>" + "<IMG_CONTEXT>" * 8 + "</img>"
    text = processor.prompt(PromptItem(" Which light? ", ["Red", "Green"], (1, 2)))
    assert text == f"Frame1: {image}\nFrame2: {two}\nWhich light?\nA. Red\nB. Green\nAnswer:"


def test_with_a_chat_template_the_question_is_a_users_turn(built):
    model, plain = built
    parts = {"frames": plain.frames, "tiling": plain.tiling, "tokens_per_tile": 4}
    chat = InternVLVideoQAProcessor(plain.image_processor, plain.tokenizer, **parts, chat_template=CHAT)
    text = chat.prompt(PromptItem("Which light?", ["Red", "Green"], (1,)))
    assert text.startswith("<|user|>Frame1: <img><IMG_CONTEXT>") and "\nA. Red\nB. Green\nAnswer with the" in text
    assert text.endswith("\n<|assistant|>")


def test_prompts_are_the_configs(tmp_path, rows):
    """Chosen in the recipe, kept by the processor, and compared with the config when a checkpoint is loaded."""
    own = {
        "instruction": "Trả lời bằng một chữ cái.",
        "frame": "[{number}]",
        "answer": "Đáp án:",
        "system": "Be brief.",
    }
    model, processor = FAMILY.load("initialise")(recipe(prompts=own), rows, seed=0)
    item = PromptItem("Which light?", ["Red", "Green"], (1,))
    assert processor.prompt(item).startswith("[1] <img>") and processor.prompt(item).endswith("\nĐáp án:")
    processor.chat_template = CHAT
    text = processor.prompt(item)
    assert text.startswith("<|system|>Be brief.\n<|user|>[1] <img>") and own["instruction"] in text
    assert "Answer in a few words." in processor.prompt(replace(item, in_words=True))  # the default stays
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.prompt(item) == text
    again.check_config(model.config)
    model.config.prompts = {**model.config.prompts, "instruction": "Else."}
    with pytest.raises(CheckpointError, match="prompts"):
        again.check_config(model.config)
    with pytest.raises(CheckpointError, match="unknown key in prompts; got 'instructions'.*instruction"):
        FAMILY.load("config").tiny(prompts={"instructions": "x"})


def test_an_open_question_has_no_choices_and_no_instruction(processor):
    text = processor.open_prompt(" What happens? ", (1,))
    assert text.endswith("</img>\nWhat happens?\nAnswer:")
    for question, match in ((" ", "question is empty"), ("a <img> b", "special token")):
        with pytest.raises(DataError, match=match):
            processor.open_prompt(question, (1,))


@pytest.mark.parametrize(
    ("question", "choices", "message"),
    [
        (" ", ["a", "b"], "q1: the question is empty"),
        ("Who?", ["a"], "q1: wrong number of choices; got 1; expected 2 to 4"),
        ("Who?", list("abcde"), "q1: wrong number of choices; got 5"),
        ("Who <IMG_CONTEXT>?", ["a", "b"], "q1: a special token in the text; got '<IMG_CONTEXT>'"),
        ("Who?", ["a", "b</img>"], "q1: a special token in the text; got '</img>'"),
    ],
)
def test_what_is_no_question_is_refused(processor, question, choices, message):
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        processor.encode([PromptItem(question, choices, (1,), where="q1")])


def test_answers_are_one_letter_and_the_end(processor):
    items = [PromptItem("Who?", ["a", "b"], (1,), answer=1), PromptItem("Who is it then?", list("abc"), ())]
    batch = processor.encode(items, with_answer=True)
    tokenizer = processor.tokenizer
    assert batch["letter_mask"].tolist() == [[True, True, False, False], [True, True, True, False]]
    assert batch["letter_labels"].tolist() == [1, -1]
    place = int(batch["answer_positions"][0])
    assert tokenizer.decode(batch["input_ids"][0, : place + 1]).endswith("Answer:")
    wanted = [tokenizer.convert_tokens_to_ids("B"), tokenizer.eos_token_id]
    assert batch["labels"][0, place + 1 : place + 3].tolist() == wanted
    assert (batch["labels"] != IGNORE_INDEX).sum() == 2
    whole = tokenizer(processor.prompt(items[0]) + "B", add_special_tokens=False).input_ids
    assert whole == batch["input_ids"][0, : place + 2].tolist()  # written together or apart: the same tokens


def test_too_long_for_the_language_model(processor):
    with pytest.raises(DataError, match=r"q9: text and image tokens exceed .* expected at most 512"):
        processor.encode([PromptItem("Who?", ["a", "b"], (128,), where="q9")])


def test_call_makes_a_batch_for_the_model(processor, shared_model, rows):
    first = rows[0]
    batch = processor(first["video"], first["question"], first["choices"])
    assert shared_model(**batch).letter_logits.shape == (1, 4)
    several = processor(rows["video"][:3], rows["question"][:3], rows["choices"][:3])
    with torch.inference_mode():
        found = shared_model(**several).letter_logits
        torch.testing.assert_close(found[:1], shared_model(**batch).letter_logits, atol=1e-5, rtol=1e-5)
    assert len(processor(first["video"], first["question"], first["choices"], mode="middle")["tile_index"]) == 1


def test_saved_with_everything(processor, tmp_path, rows):
    processor.read_clip(rows[0]["video"])  # an open reader is not in the way
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is InternVLVideoQAProcessor
    for name in ("frames", "tiling", "tokens_per_tile", "max_length", "letter_token_ids"):
        assert getattr(again, name) == getattr(processor, name)
    item = PromptItem("Đèn nào?", ["Đỏ", "Xanh"], (1, 1))
    assert torch.equal(again.encode([item])["input_ids"], processor.encode([item])["input_ids"])
    assert "_reader" not in json.loads((tmp_path / "processor_config.json").read_text())


def test_letters_must_be_single_tokens(processor):
    class Splitting:
        def __call__(self, text, **_):
            return type("Found", (), {"input_ids": [1, 2]})

    broken = InternVLVideoQAProcessor.__new__(InternVLVideoQAProcessor)
    broken.tokenizer = Splitting()
    with pytest.raises(CheckpointError, match="a letter must be one token"):
        broken._letter_ids()
