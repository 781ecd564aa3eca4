"""From rows to batches."""

import copy

import pytest
import torch

from hfvla.data.reasoning import STEP_TITLES, build_chain, parse_reasoning
from hfvla.data.rows.epoch import EpochRows
from hfvla.data.rows.learned_terms import LEARNED_TERMS
from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import DataError
from hfvla.models.ember_vlm.batches import EmberVLMCollator, build_tokenizer, training_texts
from hfvla.models.ember_vlm.modeling_ember_vlm import TEXT_KINDS

ALL_LOSSES = ("itc", "caption", "instruct", "selection", "reasoning", "consistency")


def test_prompt_is_masked_and_the_end_is_learned(collate, processor, rows):
    batch = collate([rows[0]], "selection", "reasoning")
    text = processor.reasoning_target(rows[0])
    prompt = processor.tokenizer(processor.expand(text.prompt), add_special_tokens=False).input_ids
    target = processor.tokenizer(text.target, add_special_tokens=False).input_ids
    assert batch["input_ids"][0].tolist() == [*prompt, *target, processor.tokenizer.eos_token_id]
    assert batch["labels"][0].tolist() == [-100] * len(prompt) + [*target, processor.tokenizer.eos_token_id]


def test_training_tasks_are_put_in_other_words_by_row_and_epoch(processor, shared_model, rows):
    """Only rows with a seed of their own, and the chain says the task in the same words."""
    task = "Inspect the damaged roof near the small bridge."
    row = {**rows[0], "task": task, "reasoning": f"Step 1: Task Analysis: {task}"}
    config = copy.deepcopy(shared_model.config)
    config.task_paraphrase = 1.0
    collator = EmberVLMCollator(processor, config, losses=("selection", "reasoning"))
    plain = collator([row])["input_ids"]
    assert processor.tokenizer.decode(plain[0]).count(task) == 2
    seen = EpochRows([row] * 8, seed=0)
    texts = [processor.tokenizer.decode(ids) for ids in collator([seen[index] for index in range(8)])["input_ids"]]
    assert len(set(texts)) > 3 and any(task not in text for text in texts)
    again = [processor.tokenizer.decode(ids) for ids in collator([seen[index] for index in range(8)])["input_ids"]]
    seen.set_epoch(1)
    later = [processor.tokenizer.decode(ids) for ids in collator([seen[index] for index in range(8)])["input_ids"]]
    assert texts == again != later


def test_a_counterfactual_chain_keeps_its_task_and_argues_as_told(processor, shared_model, rows, monkeypatch):
    """The head learns the row's own robots all the while, and verdicts on others are no verdicts of its own."""
    monkeypatch.setattr(processor, "explain_decision", True)
    config = copy.deepcopy(shared_model.config)
    config.explain_decision, config.counterfactual_decisions = True, 1.0
    losses = ("selection", "reasoning", "consistency")
    seen = EpochRows([rows[0], rows[1]], seed=0)
    given = [seen[0], seen[1]]
    assert set(given[0]["robots"]) != set(given[1]["robots"])
    batch = EmberVLMCollator(processor, config, losses=losses)(given)
    for ids, labels, own, other in zip(batch["input_ids"], batch["labels"], given, given[::-1], strict=True):
        text, learned = (processor.tokenizer.decode(one) for one in (ids, labels[labels >= 0]))
        assert own["task"] in text and f"<reasoning_start>{processor.told(other['robots'])}Step 1" in text
        chain = parse_reasoning(learned, ROBOTS)
        wanted, argued = parse_reasoning(own["reasoning"]), parse_reasoning(other["reasoning"])
        assert [chain.steps[title] for title in STEP_TITLES[:2]] == [wanted.steps[title] for title in STEP_TITLES[:2]]
        assert chain.verdicts == argued.verdicts and set(chain.decision) == set(other["robots"])
    plain = EmberVLMCollator(processor, shared_model.config, losses=losses)(given)
    assert torch.equal(batch["robot_labels"], plain["robot_labels"]) and batch["robot_mask"].all()
    assert (batch["verdict_positions"] == -1).all() and (plain["verdict_positions"] >= 0).any()


def test_a_counterfactual_chain_is_told_as_many_robots_as_its_own_has(processor, shared_model, rows, monkeypatch):
    """Of another number, how many are told would be enough to tell the two apart."""
    monkeypatch.setattr(processor, "explain_decision", True)
    config = copy.deepcopy(shared_model.config)
    config.explain_decision, config.counterfactual_decisions = True, 1.0
    sets = [["Drone"], ["Humanoid"], ["Drone", "Humanoid"], ["Robot with Legs", "Humanoid"], ["Robot with Wheels"]]
    given = [{**rows[0], "robots": one, "reasoning": build_chain("Look at it.", one)} for one in sets] * 4
    seen = EpochRows(given, seed=0)
    batch = EmberVLMCollator(processor, config, losses=("reasoning",))([seen[index] for index in range(len(given))])
    for row, labels in zip(given, batch["labels"], strict=True):
        chain = processor.tokenizer.decode(labels[labels >= 0]).partition("<reasoning_end>")[0]
        told = parse_reasoning(chain).decision
        assert len(told) == len(row["robots"]) and set(told) != set(row["robots"])


@pytest.mark.parametrize("change", ["evaluation", "rows without a seed", "one set of robots", "share"])
def test_chains_are_their_own_where_nothing_asks_for_others(processor, shared_model, rows, monkeypatch, change):
    monkeypatch.setattr(processor, "explain_decision", True)
    config = copy.deepcopy(shared_model.config)
    config.explain_decision = True
    config.counterfactual_decisions = 0.0 if change == "share" else 1.0
    given = [rows[0], rows[0]] if change == "one set of robots" else [rows[0], rows[1]]
    seen = EpochRows(given, seed=0)
    given = given if change == "rows without a seed" else [seen[0], seen[1]]
    collator = EmberVLMCollator(processor, config, losses=("reasoning",), training=change != "evaluation")
    chains = [processor.tokenizer.decode(labels[labels >= 0]) for labels in collator(given)["labels"]]
    assert all(row["reasoning"] in chain for row, chain in zip(given, chains, strict=True))


def test_a_share_of_chains_is_counterfactual_anew_in_each_epoch(processor, shared_model, rows, monkeypatch):
    monkeypatch.setattr(processor, "explain_decision", True)
    config = copy.deepcopy(shared_model.config)
    config.explain_decision, config.counterfactual_decisions = True, 0.5
    collator = EmberVLMCollator(processor, config, losses=("reasoning",))
    seen, drawn = EpochRows([rows[0], rows[1]] * 20, seed=0), []
    for epoch in (0, 0, 1):
        seen.set_epoch(epoch)
        given = [seen[index] for index in range(40)]
        chains = [processor.tokenizer.decode(labels[labels >= 0]) for labels in collator(given)["labels"]]
        drawn.append([row["reasoning"] not in chain for row, chain in zip(given, chains, strict=True)])
    assert drawn[0] == drawn[1] != drawn[2] and all(5 <= sum(one) <= 35 for one in drawn)


@pytest.mark.parametrize("training", [True, False])
def test_padding_goes_to_one_side_and_is_never_learned(collate, processor, rows, training):
    longer = {**rows[1], "task": rows[1]["task"] + " and then every other site on the island"}
    batch = collate([rows[0], longer, rows[3]], "selection", "reasoning", "consistency", training=training)
    padding = batch["attention_mask"] == 0
    assert padding.any(1).tolist() == [True, False, True]
    assert (batch["input_ids"][padding] == processor.tokenizer.pad_token_id).all()
    assert (batch["labels"][padding] == -100).all()
    assert padding[0, -1].item() is training and padding[0, 0].item() is not training


@pytest.mark.parametrize("training", [True, False])
def test_verdict_positions_point_at_the_words(collate, processor, rows, training):
    longer = {**rows[1], "task": rows[1]["task"] + " and then every other site"}
    given = [rows[0], longer, rows[3]]
    batch = collate(given, "selection", "consistency", training=training)
    for row, ids, positions in zip(given, batch["input_ids"], batch["verdict_positions"], strict=True):
        words = [processor.yes_token_id if robot in row["robots"] else processor.no_token_id for robot in ROBOTS]
        assert ids[positions].tolist() == words


def test_robots_without_a_verdict_have_no_position(collate, rows):
    row = {**rows[0], "reasoning": "Step 3: Robot Capability Matching: Humanoid: no, it cannot."}
    positions = collate([row], "consistency")["verdict_positions"][0]
    assert (positions >= 0).tolist() == [False, False, True, False, False]


def test_gold_sets(collate, rows):
    batch = collate([{**rows[0], "robots": ["Humanoid", "Drone"]}, {**rows[1], "robots": []}], "selection")
    assert batch["robot_labels"].tolist() == [[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert batch["robot_mask"].tolist() == [True, False]


def test_an_unknown_robot_is_named_with_the_nearest(collate, rows):
    with pytest.raises(DataError, match="got 'Robot with Weels'. Did you mean 'Robot with Wheels'"):
        collate([{**rows[0], "robots": ["Robot with Weels"]}], "selection")


def test_rows_without_a_chain_are_prompts(collate, processor, rows):
    given = [{**rows[0], "reasoning": ""}, rows[1]]
    batch = collate(given, "selection", "reasoning")
    length = int(batch["attention_mask"][0].sum())
    prompt = processor.expand(processor.task_prompt(rows[0]["task"], with_image=True))
    assert processor.tokenizer.decode(batch["input_ids"][0, :length]) == prompt
    assert (batch["labels"][0] == -100).all() and (batch["labels"][1] != -100).any()
    assert "labels" not in collate(given[:1], "selection", "reasoning")


def test_selection_alone_reads_prompts_only(collate, processor, rows):
    batch = collate(rows.select([0, 1]), "selection")
    assert "labels" not in batch and "verdict_positions" not in batch
    assert processor.special_ids()["reasoning_start_token_id"] not in batch["input_ids"]


def test_pictures_and_no_pictures_mix(collate, rows):
    given = rows.select([3, 0, 7, 1])
    assert [row["image"] is None for row in given] == [True, False, True, False]
    batch = collate(given, "selection")
    images = (batch["input_ids"] == 1).sum(1)  # <image> placeholders
    assert images.tolist() == [0, 4, 0, 4] and batch["pixel_values"].shape == (2, 3, 64, 64)
    assert "pixel_values" not in collate(rows.select([3, 7]), "selection")


def test_every_sequence_kind_in_one_batch(collate, rows):
    batch = collate(rows.select([0, 3]), *ALL_LOSSES)
    kinds = [TEXT_KINDS[kind] for kind in batch["text_kind"]]
    assert kinds == ["caption", "instruct", "reasoning", "instruct", "reasoning"]  # row 3 has no picture to caption
    assert batch["robot_mask"].tolist() == [False, False, True, False, True]
    assert len(batch["caption_input_ids"]) == 1 and len(batch["pixel_values"]) == 3
    assert len({len(batch[name]) for name in ("input_ids", "labels", "robot_labels", "verdict_positions")}) == 1


def test_captions_stand_alone_beside_their_pictures(collate, processor, rows):
    batch = collate(rows.select([0, 1]), "itc")
    texts = processor.tokenizer.batch_decode(batch["caption_input_ids"], skip_special_tokens=True)
    assert texts == [rows[0]["caption"], rows[1]["caption"]]
    assert "robot_labels" not in batch


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        ("caption", {"caption": ""}),
        ("caption", {"image": None}),
        ("itc", {"image": None}),
        ("instruct", {"dialogue": []}),
    ],
)
def test_rows_that_can_train_nothing_are_a_batch_without_a_term(collate, rows, shared_model, loss, change):
    batch = collate([{**rows[0], **change}], loss)
    assert shared_model(**batch).loss_terms is None
    assert len(collate([{**rows[0], **change}, rows[1]], loss)["input_ids"]) == 1  # left out of that term


def test_a_sequence_that_does_not_fit_names_its_row(collate, rows):
    with pytest.raises(DataError, match="fake:0:1: text and image tokens exceed"):
        collate([rows[0], {**rows[1], "reasoning": "it is far away " * 300}], "reasoning")


def test_tokenizer_is_the_same_for_the_same_texts(rows):
    first, second = (build_tokenizer(training_texts(rows), 420) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) <= 420
    text = 'Strange words: "Zürich" 漢字\n'
    assert first.decode(first(text, add_special_tokens=False).input_ids) == text  # bytes, so nothing is unknown


def test_tokenizer_learns_the_texts_of_a_row_but_not_words_defined_in_dialogue(rows):
    row = {**rows[0], "plan": [{"subtask": "plan words", "robot": "Drone", "order": 1}]}
    texts = "\n".join(training_texts([row]))
    for part in (
        row["task"],
        row["reasoning"],
        row["caption"],
        "1. Drone: plan words",
    ):
        assert part in texts
    assert "What is shown?" not in texts


def test_sequences_have_seeds_where_rows_have(collate, rows):
    given = EpochRows([rows[0], rows[0], rows[1]], seed=3)
    found = collate([given[0], given[1], given[2]], "caption", "selection", "reasoning")["noise_seeds"]
    assert len(found.unique()) == len(found) == 6
    alone = collate([given[1]], "caption", "selection", "reasoning")["noise_seeds"]
    assert alone.tolist() == found[2:4].tolist()  # of a row's sequences, whatever stands beside it
    assert "noise_seeds" not in collate([rows[0]], "selection")


def test_a_row_teaches_only_the_terms_that_its_source_names(collate, rows):
    """A caption seen again in a later stage is no chain to write, and a task no caption."""
    full = rows[0]
    assert full["caption"] and full["dialogue"] and full["robots"]
    again = {**full, LEARNED_TERMS: "itc caption"}
    task = {**full, LEARNED_TERMS: "selection reasoning consistency"}
    batch = collate([again, task], *ALL_LOSSES)
    assert batch["text_kind"].tolist() == [TEXT_KINDS.index("caption"), TEXT_KINDS.index("reasoning")]
    assert batch["robot_mask"].tolist() == [False, True] and len(batch["caption_input_ids"]) == 1
    everything = collate([full], *ALL_LOSSES)
    assert len(everything["text_kind"]) == 2 + len(full["dialogue"])


def test_the_head_and_the_chain_are_learned_apart(collate, rows):
    head, chain = ({**rows[0], LEARNED_TERMS: terms} for terms in ("selection", "reasoning"))
    batch = collate([head, chain], "selection", "reasoning")
    assert batch["robot_mask"].tolist() == [True, False]
    assert (batch["labels"] != -100).any(1).tolist() == [False, True]


def test_a_conversation_keeps_its_terms(collate):
    sample = ChatSample("a", (text_turn("user", "What colour?"), text_turn("assistant", "red")), source="shapes")
    row = {**sample.to_row(), LEARNED_TERMS: "instruct"}
    assert collate([row], "instruct", "reasoning")["text_kind"].tolist() == [TEXT_KINDS.index("instruct")]
    assert "labels" not in collate([{**row, LEARNED_TERMS: "reasoning"}], "instruct", "reasoning")
