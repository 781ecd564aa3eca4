"""Pictures for real tasks come from their words alone."""

import inspect

from hfvla.worlds.fleet import words
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.words import place_in, scene_of_task


def test_every_name_leads_to_its_place_or_to_none():
    missed, wrong = 0, []
    for key, place in environments().items():
        for name in place.names:
            bare = name.removeprefix("~")
            found = place_in(f"Inspect the {bare} and report")
            missed += found is None
            if found not in (key, None):
                wrong.append((bare, found, key))
    assert not wrong
    assert missed < 0.2 * sum(len(place.names) for place in environments().values())


def test_words_inside_words_are_no_places():
    assert place_in("Abridge the report of the reefer") is None
    assert place_in("") is None


def test_the_picture_is_of_the_task_alone():
    """The label cannot be in it: it is not an argument."""
    assert list(inspect.signature(scene_of_task).parameters) == ["task", "size"]
    named = next(name for place in environments().values() for name in place.names if place_in(f"See the {name}"))
    task = f"See the {named}"
    one, two = scene_of_task(task, 32), scene_of_task(f"{task}", 32)
    assert one == two and one.startswith(b"\x89PNG")
    assert scene_of_task(task.upper() + "!", 32) == one  # the same task in another spelling
    assert scene_of_task("Think it over", 32) is None
    assert words.place_in(task) in environments()
