"""Prompts, pictures and targets of EmberVLM, and back to words."""

import io

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor

from hfvla.data.samples.robots import ROBOTS, Subtask
from hfvla.errors import CheckpointError, DataError
from hfvla.models.ember_vlm import FAMILY
from hfvla.models.ember_vlm.configuration_ember_vlm import SPECIAL_TOKENS
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor, load_image

from .conftest import recipe

FLEET = ["Crane", "Truck", "Ferry"]
CAPABILITIES = {"Crane": "lifts twenty tons", "Ferry": "crosses the river"}


@pytest.fixture(scope="module")
def picture():
    values = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(picture, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def reloaded(rows, tmp_path_factory):
    """A processor with a fleet of its own, before and after saving."""
    wanted = recipe(robots=FLEET) | {"options": {"capabilities": CAPABILITIES}}
    _, processor = FAMILY.load("initialise")(wanted, rows, seed=0)
    folder = tmp_path_factory.mktemp("processor")
    processor.save_pretrained(folder)
    return processor, EmberVLMProcessor.from_pretrained(folder), folder


# ---- tokens and saving -------------------------------------------------------------------------------------------


def test_special_tokens_are_single_and_survive_saving(reloaded):
    before, after, _ = reloaded
    for token in SPECIAL_TOKENS.values():
        ids = before.tokenizer(f"robot{token}robot", add_special_tokens=False).input_ids
        assert ids.count(before.tokenizer.convert_tokens_to_ids(token)) == 1
        assert after.tokenizer(f"robot{token}robot", add_special_tokens=False).input_ids == ids
    assert len({*before.special_ids().values()}) == 7  # five tokens, yes and no
    assert after.special_ids() == before.special_ids()


def test_padding_is_not_the_end_token(reloaded):
    for processor in reloaded[:2]:
        assert processor.tokenizer.pad_token_id != processor.tokenizer.eos_token_id


def test_fleet_survives_saving(reloaded):
    before, after, folder = reloaded
    assert after.robots == FLEET and after.capabilities == CAPABILITIES
    assert (after.num_visual_tokens, after.max_length) == (before.num_visual_tokens, before.max_length) == (4, 512)
    auto = AutoProcessor.from_pretrained(folder)
    assert type(auto) is EmberVLMProcessor and auto.robots == FLEET


def test_pictures_are_prepared_alike_after_saving(reloaded, picture):
    before, after, _ = reloaded
    assert before.pixels([picture]).shape == (1, 3, 64, 64)
    assert (before.pixels([picture]) == after.pixels([picture])).all()


def test_verdict_words_are_one_token(processor):
    tokens = processor.tokenizer.convert_ids_to_tokens([processor.yes_token_id, processor.no_token_id])
    assert [token.removeprefix("Ġ") for token in tokens] == ["yes", "no"]
    for robot in ROBOTS:
        ids = processor.tokenizer(f"{robot}: yes, near; {robot}: no, far", add_special_tokens=False).input_ids
        assert ids.count(processor.yes_token_id) == ids.count(processor.no_token_id) == 1


def test_a_tokenizer_that_splits_the_verdicts_is_refused(processor):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    letters = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(CheckpointError, match="' yes' and ' no' must each be one token"):
        EmberVLMProcessor(processor.image_processor, PreTrainedTokenizerFast(tokenizer_object=letters))


def test_a_tokenizer_without_the_special_tokens_is_refused(processor, tmp_path):
    other = EmberVLMProcessor(processor.image_processor, processor.tokenizer)
    other.tokenizer = type("Plain", (), {"get_vocab": lambda self: {"<image>": 1}, "pad_token_id": 0})()
    with pytest.raises(CheckpointError, match="lacks special tokens; got .*'<plan>'"):
        other.special_ids()


# ---- prompts -----------------------------------------------------------------------------------------------------


def test_prompts_are_padded_on_the_left(processor, picture):
    batch = processor.prompts(["Task: go", "inspect every bridge along the river"], [None, picture])
    assert batch.pixel_values.shape == (1, 3, 64, 64)
    short, long = batch.attention_mask.tolist()
    assert short == sorted(short) and 0 in short and 0 not in long
    assert processor.tokenizer.decode(batch.input_ids[0], skip_special_tokens=True) == "Task: go\n"
    image = processor.special_ids()["image_token_id"]
    assert batch.input_ids[1].tolist().count(image) == processor.num_visual_tokens == 4
    assert "pixel_values" not in processor.prompts(["go"], [None])


def test_prompts_can_be_ready_for_reasoning(processor):
    start = processor.special_ids()["reasoning_start_token_id"]
    batch = processor.prompts(["go", "go there now"], [None, None], reasoning=True)
    assert batch.input_ids[:, -1].tolist() == [start, start]
    assert start not in processor.prompts(["go"], [None]).input_ids


def test_calling_the_processor_is_prompting(processor, picture):
    called = processor(images=picture, text="go")
    expected = processor.prompts(["go"], [picture])
    assert (called.input_ids == expected.input_ids).all() and (called.pixel_values == expected.pixel_values).all()
    many = processor(images=[None, picture], text=["go", "stay"], reasoning=True)
    assert (many.input_ids == processor.prompts(["go", "stay"], [None, picture], reasoning=True).input_ids).all()


@pytest.mark.parametrize("task", ["", "   ", "Task:", " task :  "])
def test_an_empty_task_is_refused(processor, task):
    with pytest.raises(DataError, match="the task is empty"):
        processor.prompts([task], [None])


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS.values(), "<pad>", "<|endoftext|>"])
def test_special_tokens_in_a_task_are_refused(processor, token):
    with pytest.raises(DataError, match=rf"special token.*{token}".replace("|", r"\|")):
        processor.prompts([f"look at {token} now"], [None])


def test_a_task_that_does_not_fit_is_refused(processor):
    with pytest.raises(DataError, match=r"got '\d{3,} tokens'; expected at most 512"):
        processor.prompts(["inspect the site " * 300], [None])


# ---- pictures ----------------------------------------------------------------------------------------------------


def test_pictures_from_bytes_path_and_pil_are_the_same(picture, tmp_path):
    (tmp_path / "scene.png").write_bytes(encoded(picture))
    for image in (picture, encoded(picture), tmp_path / "scene.png", str(tmp_path / "scene.png")):
        assert np.array_equal(np.asarray(load_image(image)), np.asarray(picture))
    assert load_image(picture.convert("L")).mode == "RGB"


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match="row 7: image file not found; got '.*absent.png'"):
        load_image(tmp_path / "absent.png", where="row 7")


def test_a_broken_picture_is_named(picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(encoded(picture)[:-400])
    with pytest.raises(DataError, match="image cannot be decoded .*broken.png"):
        load_image(tmp_path / "broken.png")
    with pytest.raises(DataError, match="row 7: image cannot be decoded .*got '9 bytes'"):
        load_image(b"no image!", where="row 7")


def test_a_picture_of_absurd_size_is_refused(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # the picture has 1,200
    with pytest.raises(DataError, match="cannot be decoded.*exceeds limit"):
        load_image(encoded(picture))


# ---- targets and back --------------------------------------------------------------------------------------------


def test_a_full_target_reads_back(processor, rows):
    row = {**rows[0], "plan": [{"subtask": "look around", "robot": "Drone", "order": 1}]}
    row["plan"] += [{"subtask": "dig, then lift", "robot": "Humanoid", "order": 2}]
    text = processor.reasoning_target(row)
    ids = processor.tokenizer(text.target, add_special_tokens=False).input_ids
    end, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    answer = processor.parse_answer([*ids, end, pad, pad])
    assert answer.reasoning == row["reasoning"]
    assert answer.robots == tuple(row["robots"]) and len(answer.robots) == 2
    assert answer.plan == (Subtask("look around", "Drone", 1), Subtask("dig, then lift", "Humanoid", 2))


def test_verdicts_of_a_target_are_where_it_says(processor, rows):
    text = processor.reasoning_target(rows[0])
    words = {robot: text.target[start:end] for robot, (start, end) in text.verdicts.items()}
    assert words == {robot: "yes" if robot in rows[0]["robots"] else "no" for robot in ROBOTS}


def test_what_was_not_written_is_empty(processor):
    def parse(text):
        return processor.parse_answer(processor.tokenizer(text, add_special_tokens=False).input_ids)

    cut_off = parse("Step 1: Task Analysis: it")
    assert cut_off.reasoning == "Step 1: Task Analysis: it" and cut_off.robots == () and cut_off.plan == ()
    unknown = parse(
        "<reasoning_end><robot> Submarine, drone<plan> 1. Submarine: dive; 2. DRONE: fly;; three. Drone: x"
    )
    assert unknown.robots == ("Drone",) and unknown.plan == (Subtask("fly", "Drone", 2),)


def test_dialogue_teaches_answers_only(processor, rows):
    row = {**rows[0], "dialogue": [{"question": "a?", "answer": "b."}, {"question": "c?", "answer": "d."}]}
    first, second = processor.dialogue_targets(row)
    assert (first.prompt, first.target) == ("<image>Question: a?\nAnswer:", " b.")
    assert (second.prompt, second.target) == ("<image>Question: a?\nAnswer: b.\nQuestion: c?\nAnswer:", " d.")
    assert processor.dialogue_targets({**row, "image": None})[0].prompt == "Question: a?\nAnswer:"
