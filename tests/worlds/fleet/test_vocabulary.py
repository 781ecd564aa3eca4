"""The vocabulary: width, well-formedness, and what the test split keeps for itself."""

import random
import re

from hfvla.worlds.fleet import capability_text, glossary
from hfvla.worlds.fleet.actions import ACTIONS, JOBS
from hfvla.worlds.fleet.facts import ZONES, phrases
from hfvla.worlds.fleet.holdout import held_out, held_out_templates, plain
from hfvla.worlds.fleet.inflect import gerund, participle, plural, with_article
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.pools import ADJECTIVES, FACT_SENTENCES
from hfvla.worlds.fleet.scene import PAINTERS
from hfvla.worlds.fleet.situations import SCENE_ACTIONS, ZONE_ACTIONS, draw_scene_situation
from hfvla.worlds.fleet.templates import SCENE_TEMPLATES, TEMPLATES
from hfvla.worlds.fleet.texts import CAPTIONS


def test_the_vocabulary_is_wide():
    places = environments().values()
    assert len(places) >= 60
    assert all(6 <= len(place.names) <= 20 for place in places), [p.key for p in places if not 6 <= len(p.names) <= 20]
    objects = {part for place in places for parts in place.parts.values() for part in parts}
    assert len(objects) >= 300
    assert len(ACTIONS) >= 25
    assert all(6 <= len(action.verbs) <= 20 for action in ACTIONS.values() if action.verbs)
    assert len(TEMPLATES) >= 60 and len(set(TEMPLATES)) == len(TEMPLATES)


def test_every_place_has_what_writing_and_drawing_need():
    for place in environments().values():
        assert place.scene in PAINTERS and place.scene in CAPTIONS
        assert place.zone in ADJECTIVES and place.zone in FACT_SENTENCES
        assert place.gloss and place.signs
        assert len(set(place.names)) == len(place.names), place.key
    assert set(ZONE_ACTIONS) == set(ZONES)
    assert {name for names in ZONE_ACTIONS.values() for name in names} <= set(ACTIONS)
    assert set(JOBS) <= set(ACTIONS) and set(SCENE_ACTIONS) <= set(ACTIONS)


def test_about_fifteen_per_cent_of_phrases_and_a_fifth_of_templates_are_held_out():
    names = {plain(name) for place in environments().values() for name in place.names}
    assert 0.10 <= len(names & held_out()) / len(names) <= 0.20
    verbs = {plain(verb) for action in ACTIONS.values() for verb in action.verbs}
    assert 0.08 <= len(verbs & held_out()) / len(verbs) <= 0.20
    assert 0.15 <= len(held_out_templates()) / (len(TEMPLATES) + len(SCENE_TEMPLATES)) <= 0.25


def test_every_pool_keeps_words_for_training():
    for place in environments().values():
        for pool in (place.names, place.signs, *place.parts.values(), *place.jobs.values()):
            kept = [phrase for phrase in pool if plain(phrase) not in held_out()]
            assert len(kept) >= 0.5 * len(pool), (place.key, pool)


def test_a_picture_and_an_action_give_one_answer():
    answers, generator = {}, random.Random(0)
    for _ in range(5000):
        item = draw_scene_situation(generator)
        answers.setdefault((item.environment.scene, item.action.key), set()).add(item.robots)
    assert all(len(sets) == 1 for sets in answers.values()), [key for key, sets in answers.items() if len(sets) > 1]
    for action in SCENE_ACTIONS:
        sets = [next(iter(value)) for (_, name), value in answers.items() if name == action]
        assert len(set(sets)) >= (2 if action == "haul" else 3), action
        assert max(map(sets.count, sets)) <= 0.65 * len(sets), f"{action} alone nearly gives the answer"


def test_the_glossary_covers_every_noun_phrase_and_no_robot():
    text = "\n".join(glossary()).lower()
    for place in environments().values():
        for phrase in (*place.names, *place.signs, *(part for parts in place.parts.values() for part in parts)):
            assert plain(phrase) in text, phrase
    assert not re.search("drone:|humanoid|underwater robot|robot with", text)
    assert len(set(glossary())) == len(glossary()) > 2000


def test_every_robot_is_described():
    assert list(capability_text()) == ["Drone", "Underwater Robot", "Humanoid", "Robot with Wheels", "Robot with Legs"]
    assert all(len(text.split()) > 20 for text in capability_text().values())


def test_inflection():
    assert gerund("take a look at") == "taking a look at"
    assert gerund("visually inspect") == "visually inspecting"
    assert gerund("pick up and carry") == "picking up and carrying"
    assert participle("map out") == "mapped out" and participle("carry") == "carried"
    assert participle("re-inspect") == "re-inspected" and participle("overfly") == "overflown"
    assert with_article("office", "a") == "an office" and with_article("unit", "a") == "a unit"
    assert with_article("university", "a") == "a university" and with_article("~dunes", "a") == "dunes"
    assert (
        with_article("barracks yards", "a") == "barracks yards" and with_article("glass house", "a") == "a glass house"
    )
    assert (
        plural("dairy") == "~dairies"
        and plural("beach") == "~beaches"
        and plural("roof of the mill") == "roof of the mill"
    )


def test_phrases_split_at_semicolons():
    assert phrases(" a b;  c ;; ") == ("a b", "c")
