"""Generated data sets: determinism, label balance, honest splits, consistent texts."""

import re
from collections import Counter, defaultdict
from functools import cache

import pytest
from pydantic import ValidationError

from hfvla.data.reasoning import parse_reasoning
from hfvla.data.rows.splits import grouped_split
from hfvla.data.samples.robots import ROBOTS, normalise_task
from hfvla.worlds.fleet import FleetOptions, build_fleet, generate_task
from hfvla.worlds.fleet.grammar import SCENE_TEMPLATES, TEMPLATES
from hfvla.worlds.fleet.holdout import held_out, held_out_templates, plain
from hfvla.worlds.fleet.kinds import unseen_actions, unseen_places
from hfvla.worlds.fleet.places import environments

SIZE = 2500


@cache
def tasks(split="train", images=False):
    options = FleetOptions(size=SIZE, split=split, images=images, image_size=16, scene_only_fraction=0.2)
    return tuple(generate_task(index, options, seed=0) for index in range(SIZE if not images else 400))


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    options = FleetOptions(size=12, image_size=24)
    first, other = build_fleet(options, seed=1).dataset, build_fleet(options, seed=2).dataset
    assert first.to_list() == [generate_task(index, options, 1).to_row() for index in range(12)]
    assert first["task"][:] != other["task"][:]


def test_the_options_seed_overrides_the_runs():
    options = FleetOptions(size=5, images=False, seed=4)
    assert build_fleet(options, seed=1).dataset["task"][:] == build_fleet(options, seed=9).dataset["task"][:]


def test_census_counts_label_sets_and_scene_only_tasks():
    data = build_fleet(FleetOptions(size=60, image_size=16, scene_only_fraction=0.5), seed=0)
    assert data.census["found"] == data.census["usable"] == len(data.dataset) == 60
    assert sum(data.census["label_sets"].values()) == 60
    assert data.census["scene_only"] == sum(data.dataset["needs_scene"]) and 15 <= data.census["scene_only"] <= 45


def test_label_sets_are_balanced_as_documented():
    sizes = Counter(min(len(task.robots), 3) for task in tasks())
    assert sizes[1] / SIZE == pytest.approx(0.60, abs=0.04)
    assert sizes[2] / SIZE == pytest.approx(0.28, abs=0.04)
    assert sizes[3] / SIZE == pytest.approx(0.12, abs=0.03)
    for robot in ROBOTS:
        assert sum(robot in task.robots for task in tasks()) / SIZE >= 0.12, robot


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_text_that_needs_no_picture_has_one_answer(split):
    answers = defaultdict(set)
    for task in tasks(split):
        assert not task.needs_scene
        answers[normalise_task(task.task)].add(frozenset(task.robots))
    assert len(answers) > 0.95 * SIZE
    assert not [text for text, sets in answers.items() if len(sets) > 1]


def test_the_test_split_uses_templates_and_words_that_train_never_does():
    train, test = tasks(), tasks("test")
    train_used, test_used = ({TEMPLATES[int(task.details["template"][1:])] for task in part} for part in (train, test))
    assert train_used.isdisjoint(test_used) and test_used <= held_out_templates()
    assert len(test_used) > 10
    assert all(task.details["unseen"] for task in test) and not any(task.details["unseen"] for task in train)
    assert set().union(*(task.details["unseen"].split("|") for task in test)) <= held_out()
    assert {normalise_task(task.task) for task in train}.isdisjoint(normalise_task(task.task) for task in test)


def test_no_held_out_place_name_occurs_in_a_training_text():
    names = {plain(name) for place in environments().values() for name in place.names} & held_out()
    pattern = re.compile(r"\b(" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + r")\b")
    hits = [(pattern.search(task.task.lower())[0], task.task) for task in tasks() if pattern.search(task.task.lower())]
    assert not hits


def test_scene_only_tasks_use_the_held_out_templates_in_test():
    pictured = [task for task in tasks("test", images=True) if task.needs_scene]
    assert pictured
    assert {SCENE_TEMPLATES[int(task.details["template"][1:])] for task in pictured} <= held_out_templates()


def test_scene_only_tasks_name_no_place_and_the_others_need_no_picture():
    names = [plain(name) for place in environments().values() for name in place.names]
    for task in tasks(images=True):
        if task.needs_scene:
            assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", task.task.lower())]
            assert task.group.endswith("@" + task.details["environment"])
        assert task.image.startswith(b"\x89PNG")


def test_without_images_no_task_needs_one():
    assert not any(task.needs_scene or task.image or task.caption for task in tasks())


def test_chains_agree_with_the_gold_set_and_stay_short():
    for task in tasks(images=True) + tasks()[:500]:
        parsed = parse_reasoning(task.reasoning)
        assert parsed.decision == task.robots and len(parsed.steps) == 4 and len(parsed.verdicts) == 5
        assert {robot for robot, yes in parsed.verdicts.items() if yes} == set(task.robots)
        assert len(task.reasoning.split()) <= 90


def test_a_chain_does_not_claim_a_place_that_neither_text_nor_picture_gives():
    hidden = [task for task in tasks() if "no place named" in task.reasoning]
    assert hidden
    for task in hidden:
        names = map(plain, environments()[task.details["environment"]].names)
        assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", task.task.lower())], task.task


def test_plans_use_the_chosen_robots_only_and_all_of_them():
    for task in tasks()[:800]:
        assert 2 <= len(task.plan) <= 4
        assert {step.robot for step in task.plan} == set(task.robots)
        orders = [step.order for step in task.plan]
        assert orders == sorted(orders) and orders[0] == 1
        assert not [step for step in task.plan if "{" in step.subtask]
    assert any(len({step.order for step in task.plan}) < len(task.plan) for task in tasks() if len(task.robots) == 3)


def test_captions_name_neither_robots_nor_the_task():
    for task in tasks(images=True):
        assert task.caption and not re.search("drone|robot|humanoid", task.caption.lower())
        assert 1 <= len(task.dialogue) <= 2


def test_texts_are_clean_english_sentences():
    for task in tasks() + tasks("test"):
        assert task.task[0].isupper() and "  " not in task.task and not re.search(r"[{}~*;]| [,.?!:]", task.task), (
            task.task
        )
        assert not re.search(r"\b(a|an|the) (a|an|the)\b", task.task.lower()), task.task


def test_groups_do_not_cross_a_split():
    groups = [task.group for task in tasks(images=True)]
    train, holdout = grouped_split(groups, 0.2, seed=0)
    assert {groups[i] for i in train}.isdisjoint(groups[i] for i in holdout)


def test_a_linear_model_learns_the_words_but_not_all_of_the_test_split():
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    def labels(part):
        return np.array([[robot in task.robots for robot in ROBOTS] for task in part], dtype=int)

    train, test = tasks(), tasks("test")[:600]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = OneVsRestClassifier(LogisticRegression(C=20, max_iter=200))
    model.fit(words.fit_transform([task.task for task in train]), labels(train))
    scores, gold = model.predict_proba(words.transform([task.task for task in test])), labels(test)
    top = gold[np.arange(len(gold)), scores.argmax(1)].mean()
    exact = ((scores >= 0.5) == gold).all(1).mean()
    assert 0.80 < top < 0.99, "the held-out words are too hard or too easy"
    assert 0.45 < exact < 0.95


@pytest.mark.parametrize("bad", [{"sizes": 3}, {"size": 0}, {"split": "dev"}, {"scene_only_fraction": 1.5}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        FleetOptions(**bad)


def test_kinds_left_out_are_left_out_whole_and_labels_keep_their_shares():
    assert 13 <= len(unseen_places()) <= 17 and 4 <= len(unseen_actions()) <= 8
    found = {}
    for kinds in ("seen", "unseen"):
        for images in (False, True):
            options = FleetOptions(size=400, images=images, image_size=16, scene_only_fraction=0.3, kinds=kinds)
            drawn = [generate_task(index, options, seed=0) for index in range(120 if images else 400)]
            for task in drawn:
                left_out = task.details["environment"] in unseen_places() or task.details["action"] in unseen_actions()
                assert left_out == (kinds == "unseen"), task.id
            found[kinds, images] = Counter(task.robots for task in drawn)
    for robots, count in found["seen", False].items():
        other = found["unseen", False][robots]
        assert not other or abs(other - count) < 60, robots
    assert len(found["unseen", False]) >= len(found["seen", False]) - 4


def test_no_other_kinds_are_known():
    with pytest.raises(ValidationError, match="kinds"):
        FleetOptions(kinds="new")
