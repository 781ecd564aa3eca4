"""Choosing robots and writing answers."""

import io
import json

import pytest
import torch
from PIL import Image

from hfvla.data.samples.robots import ROBOTS, Subtask
from hfvla.errors import DataError
from hfvla.models.ember_vlm import FAMILY

from .conftest import recipe

LOGITS = torch.tensor([[2.0, -1.0, 0.5, -3.0, 1.0]])  # sigmoid: 0.8808 0.2689 0.6225 0.0474 0.7311
TASK = "Inspect site 1"


@pytest.fixture(scope="module")
def image():
    return Image.new("RGB", (20, 20), (200, 30, 30))


@pytest.fixture
def decided(model):
    """A model whose head always gives LOGITS."""
    with torch.no_grad():
        model.selection_head.layers[-1].weight.zero_()
        model.selection_head.layers[-1].bias.copy_(LOGITS[0])
    return model


def select(model, processor, **options):
    options = {"task_description": TASK, "return_reasoning": False, **options}
    return model.select_robots(processor=processor, **options)


def test_choices_are_ranked_and_cut_to_top_k(decided, processor, image):
    choices = select(decided, processor, image=image, top_k=3)
    assert [choice["robot_type"] for choice in choices] == ["Drone", "Robot with Legs", "Humanoid"]
    assert [choice["confidence"] for choice in choices] == pytest.approx([0.8808, 0.7311, 0.6225], abs=1e-4)
    assert len(select(decided, processor, top_k=1)) == 1 and len(select(decided, processor, top_k=99)) == 5


def test_the_set_respects_the_threshold_and_keeps_the_best(decided, processor):
    assert select(decided, processor, top_k=1).robots == ("Drone", "Robot with Legs", "Humanoid")
    decided.config.calibration = {"temperature": 1.0, "threshold": 0.7}
    assert select(decided, processor).robots == ("Drone", "Robot with Legs")
    decided.config.calibration = {"temperature": 1.0, "threshold": 0.99}
    assert select(decided, processor).robots == ("Drone",)


def test_probabilities_are_calibrated_by_the_temperature(decided, processor):
    decided.config.calibration = {"temperature": 2.0, "threshold": 0.5}
    found = select(decided, processor).probabilities
    assert list(found) == list(ROBOTS)
    # sigmoid(2 / 2) = 0.7311, sigmoid(-1 / 2) = 0.3775
    assert found["Drone"] == pytest.approx(0.7311, abs=1e-4)
    assert found["Underwater Robot"] == pytest.approx(0.3775, abs=1e-4)
    torch.testing.assert_close(decided.probabilities(LOGITS), torch.sigmoid(LOGITS / 2))


def test_chosen_on_a_batch(decided):
    probabilities = torch.tensor([[0.6, 0.5, 0.4], [0.1, 0.2, 0.3]])
    assert decided.chosen(probabilities).tolist() == [[True, True, False], [False, False, True]]


def test_reasoning_is_written_only_when_asked(decided, processor, image, monkeypatch):
    quiet = select(decided, processor, image=image)
    assert quiet.reasoning == "" and quiet.plan == () and quiet[0]["reasoning"] == ""
    target = "<reasoning_start>it flies<reasoning_end><robot> Drone<plan> 1. Drone: look"
    ids = torch.tensor([processor.tokenizer(target, add_special_tokens=False).input_ids])
    seen = {}

    def generate(**kwargs):
        seen.update(kwargs)
        return ids

    monkeypatch.setattr(decided.language_model, "generate", generate)
    spoken = select(decided, processor, image=image, return_reasoning=True, max_new_tokens=33)
    assert spoken.reasoning == "it flies" and spoken.plan == (Subtask("look", "Drone", 1),)
    assert [choice["reasoning"] for choice in spoken] == ["it flies"] * 3
    assert seen["max_new_tokens"] == 33 and not seen["do_sample"]


def test_a_chain_is_told_what_was_picked(rows, image, monkeypatch, tmp_path):
    model, processor = FAMILY.load("initialise")(recipe(explain_decision=True), rows, seed=0)
    with torch.no_grad():
        model.selection_head.layers[-1].weight.zero_()
        model.selection_head.layers[-1].bias.copy_(LOGITS[0])
    collator = FAMILY.load("collator")(processor, model.config, losses=("reasoning", "consistency"))
    batch = collator([rows[0]])
    chain = processor.reasoning_target(rows[0])
    told = "<reasoning_start><robot> Drone, Robot with Legs\n"  # in the fleet's order: which of them is first is left
    assert rows[0]["robots"] == ["Robot with Legs", "Drone"]
    assert chain.target.startswith(told + "Step 1")
    learned = batch["labels"][0][batch["labels"][0] >= 0]
    assert processor.tokenizer.decode(learned).startswith("Step 1")  # what is told is not learned
    verdicts = batch["input_ids"][0, batch["verdict_positions"][0]].tolist()
    yes = [robot in rows[0]["robots"] for robot in ROBOTS]
    assert verdicts == [processor.yes_token_id if one else processor.no_token_id for one in yes]

    seen = {}
    monkeypatch.setattr(model, "generate_reasoning", lambda **kwargs: seen.update(kwargs) or kwargs["input_ids"])
    model.generate_answers(processor, [TASK], [image])
    written = processor.tokenizer.decode(seen["input_ids"][0])
    assert written.endswith("<reasoning_start><robot> Drone, Humanoid, Robot with Legs\n")  # over 0.5, in fleet order
    selection = model.select_robots(processor=processor, image=image, task_description=TASK)
    assert processor.tokenizer.decode(seen["input_ids"][0]) == written and len(selection.robots) == 3
    with pytest.raises(DataError, match="explains a choice, and none is given"):
        processor.prompts([TASK], [None], reasoning=True)
    processor.save_pretrained(tmp_path)
    assert FAMILY.load("processor").from_pretrained(tmp_path).explain_decision


def test_dropout_is_off_while_choosing(model, processor):
    model.train()
    model.selection_head.layers[2].p = 0.9
    first, second = (select(model, processor).probabilities for _ in range(2))
    assert first == second


def test_generate_reasoning_keeps_shape_and_budget(model, processor, image):
    batch = processor.prompts([TASK, "Go there and then come back again"], [image, None], reasoning=True)
    out = model.generate_reasoning(**batch, max_new_tokens=7)
    assert out.shape[0] == 2 and 1 <= out.shape[1] <= 7
    room = model.config.text_config.n_positions - batch.input_ids.shape[1]
    free = model.generate_reasoning(**batch, max_new_tokens=10_000, eos_token_id=None)
    assert free.shape == (2, room)


def test_a_loaded_model_stops_at_the_end_token(model, processor, tmp_path):
    language, end = model.language_model.transformer, processor.tokenizer.eos_token_id
    with torch.no_grad():  # the last layer norm always gives the end token's own embedding
        language.ln_f.weight.zero_()
        language.ln_f.bias.copy_(language.wte.weight[end] * 100)
    model.save_pretrained(tmp_path)
    loaded = FAMILY.load("model").from_pretrained(tmp_path)
    batch = processor.prompts([TASK], [None], reasoning=True)
    assert loaded.generate_reasoning(**batch, max_new_tokens=9).tolist() == [[end]]


def test_answers_do_not_depend_on_companions(model, processor, image):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    tasks, images = [TASK, "Go there and then come back along the other side of the river"], [image, None]
    together = model.generate_answers(processor, tasks, images, max_new_tokens=12)
    alone = [
        model.generate_answers(processor, [task], [picture], max_new_tokens=12)[0]
        for task, picture in zip(tasks, images, strict=True)
    ]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert together[0].text != together[1].text


def test_a_fleet_of_ones_own_from_end_to_end(rows, image, tmp_path):
    fleet = ["Crane", "Truck", "Ferry"]
    model, processor = FAMILY.load("initialise")(recipe(robots=fleet), rows, seed=0)
    own = {**rows[0], "robots": ["Ferry"], "reasoning": "Crane: no, far; Truck: no, water; Ferry: yes, it swims."}
    losses = ("selection", "reasoning", "consistency")
    batch = FAMILY.load("collator")(processor, model.config, losses=losses, training=True)([own])
    assert batch["robot_labels"].tolist() == [[0, 0, 1]]
    model(**batch).loss.backward()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, processor = (FAMILY.load(part).from_pretrained(tmp_path) for part in ("model", "processor"))
    selection = select(model, processor, image=image, top_k=5, return_reasoning=True, max_new_tokens=4)
    assert {choice["robot_type"] for choice in selection} == set(selection.probabilities) == set(fleet)


# ---- predict -----------------------------------------------------------------------------------------------------


def test_predict_is_json(decided, processor, image, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    (tmp_path / "scene.png").write_bytes(buffer.getvalue())
    target = "it flies<reasoning_end><robot> Drone<plan> 1. Drone: look"
    ids = torch.tensor([processor.tokenizer(target, add_special_tokens=False).input_ids])
    monkeypatch.setattr(decided.language_model, "generate", lambda **_: ids)
    request = {"task": TASK, "image": str(tmp_path / "scene.png"), "top_k": 2}
    reply = json.loads(json.dumps(FAMILY.ask(decided, processor, request), allow_nan=False))
    assert [choice["robot_type"] for choice in reply["choices"]] == ["Drone", "Robot with Legs"]
    assert reply["robots"] == ["Drone", "Robot with Legs", "Humanoid"] and reply["task"] == TASK
    assert reply["plan"] == [{"subtask": "look", "robot": "Drone", "order": 1}] and reply["reasoning"] == "it flies"
    quiet = FAMILY.ask(decided, processor, {"task": TASK, "reasoning": False})
    assert quiet["reasoning"] == "" and len(quiet["choices"]) == 3


def test_a_request_says_how_the_reasoning_is_written(decided, processor, monkeypatch):
    """Requests that want it written alike go in one pass; each with its own length and temperature."""
    seen = []

    def generate(**given):
        seen.append(
            (len(given["inputs_embeds"]), given["max_new_tokens"], given["do_sample"], given.get("temperature"))
        )
        return torch.full((len(given["inputs_embeds"]), 1), processor.tokenizer.eos_token_id)

    monkeypatch.setattr(decided.language_model, "generate", generate)
    FAMILY.ask(decided, processor, {"task": TASK, "max_new_tokens": 5, "temperature": 0.7})
    assert seen == [(1, 5, True, 0.7)]
    seen.clear()
    asked = [{}, {"temperature": 0}, {"max_new_tokens": 9}, {"reasoning": False}, {"temperature": 1}]
    replies = FAMILY.load("predict_batch")(decided, processor, [{"task": TASK, **one} for one in asked])
    assert [reply["task"] for reply in replies] == [TASK] * 5
    assert sorted(seen, key=str) == sorted([(2, 256, False, None), (1, 9, False, None), (1, 256, True, 1.0)], key=str)


def test_predict_names_what_is_wrong(decided, processor, tmp_path):
    predict = FAMILY.ask
    with pytest.raises(DataError, match="the request lacks 'task'"):
        predict(decided, processor, {"reasoning": False})
    with pytest.raises(DataError, match="image: no such picture; got .*absent.png"):
        predict(decided, processor, {"task": TASK, "image": str(tmp_path / "absent.png")})
