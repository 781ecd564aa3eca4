"""The robot-selection reader on small files of both real formats."""

import io
import json
import logging
import unicodedata

import pytest
from PIL import Image
from pydantic import ValidationError

from hfvla.data.reasoning import parse_reasoning
from hfvla.data.rows.splits import grouped_split
from hfvla.data.sources import RobotSelectionOptions, build_robot_selection
from hfvla.errors import DataError
from hfvla.worlds.fleet.places import environments
from hfvla.worlds.fleet.words import place_in

INSTRUCTION = "Robots: Drone, ... What is the most suited robot for the task?"


def single(task, output="Drone", **extra):
    return {"instruction": INSTRUCTION, "input": f"Task: {task}", "output": output, **extra}


def multi(task, output="Drone", steps=(("Fly there", "Drone", 1), ("Walk there", "Robot with Legs", 1))):
    subtasks = [{"subtask": s, "assigned_robot": r, "execution_order": o} for s, r, o in steps]
    return {
        "instruction": INSTRUCTION,
        "input": f"Task: {task}",
        "subtasks": subtasks,
        "original_single_robot_output": output,
    }


def write(folder, records, name="data.json"):
    path = folder / name
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


def read(path, **options):
    return build_robot_selection(RobotSelectionOptions(path=path, **options), seed=0)


def test_single_format_gives_task_without_prefix_and_ordered_robots(tmp_path):
    data = read(write(tmp_path, [single("Mow the lawn.", "Robot with Legs, Drone")]))
    row = data.dataset[0]
    assert row["task"] == "Mow the lawn." and row["robots"] == ["Robot with Legs", "Drone"]
    assert parse_reasoning(row["reasoning"]).decision == ("Robot with Legs", "Drone")
    assert row["group"] == "mowthelawn" and row["id"] == "data.json:0" and row["plan"] == []
    assert data.census == {"found": 1, "usable": 1, "rejected": {}, "duplicates": 0}


def test_multi_format_alone_gives_robots_and_plan(tmp_path):
    row = read(write(tmp_path, [multi("Watch the bay.", "Underwater Robot")])).dataset[0]
    assert row["robots"] == ["Underwater Robot"]
    assert row["plan"][1] == {"subtask": "Walk there", "robot": "Robot with Legs", "order": 1}


def test_a_plan_record_without_an_output_has_the_robots_of_its_subtasks(tmp_path):
    steps = (("Land", "Drone", 2), ("Walk there", "Robot with Legs", 1), ("Fly home", "Drone", 3))
    record = multi("Watch the bay.", None, steps)
    del record["original_single_robot_output"]
    data = read(write(tmp_path, [record]))
    assert data.dataset[0]["robots"] == ["Robot with Legs", "Drone"] and len(data.dataset[0]["plan"]) == 3
    assert parse_reasoning(data.dataset[0]["reasoning"]).decision == ("Robot with Legs", "Drone")


def test_scenes_are_of_the_words_and_never_of_the_answer(tmp_path):
    names = [name.removeprefix("~") for place in environments().values() for name in place.names]
    tasks = [f"Inspect the {next(name for name in names if place_in(f'the {name}'))}.", "Think about it."]
    one = read(write(tmp_path, [single(task, "Drone") for task in tasks]), scenes=True, scene_size=32)
    two = read(write(tmp_path, [single(task, "Underwater Robot") for task in tasks]), scenes=True, scene_size=32)
    pictures = [data.dataset["image"][:] for data in (one, two)]
    assert pictures[0] == pictures[1] and pictures[0][0] is not None and pictures[0][1] is None
    assert one.census["with_picture"] == 1
    plain = read(write(tmp_path, [single(tasks[0])]))
    assert plain.dataset[0]["image"] is None and "with_picture" not in plain.census


def test_the_lists_and_spellings_of_the_real_plan_file_are_read(tmp_path):
    records = [multi("A b.", ["Drone", "Robot with Legs"]), multi("C d.", "Underwater robot")]
    assert read(write(tmp_path, records)).dataset["robots"][:] == [["Drone", "Robot with Legs"], ["Underwater Robot"]]


def test_plans_are_joined_by_letters_only(tmp_path):
    main = write(tmp_path, [single("Watch a tower’s top."), single("No plan here.")])
    plan = write(tmp_path, [multi("watch a towers TOP", "Humanoid")], "plans.json")
    data = read(main, plan_path=plan)
    assert [len(steps) for steps in data.dataset["plan"][:]] == [2, 0]
    assert data.dataset[0]["robots"] == ["Drone"], "the plan file must not change the gold set"
    assert data.census["without_plan"] == 1 and data.census["found"] == 3


def test_jsonl_reads_like_json(tmp_path):
    path = tmp_path / "data.anything"
    path.write_text("\n".join(json.dumps(single(task)) for task in ("A a.", "B b.")) + "\n\n")
    assert read(str(path)).dataset["task"][:] == ["A a.", "B b."]


def test_a_repeated_task_stays_in_one_group(tmp_path):
    data = read(write(tmp_path, [single("Go up."), single("Go up!")]))
    assert len(data.dataset) == 2 and len(set(data.dataset["group"])) == 1 and data.census["duplicates"] == 1


@pytest.mark.parametrize("maker", [single, multi])
def test_no_group_crosses_a_split_of_either_format(tmp_path, maker):
    tasks = [f"Inspect object {chr(97 + index % 20)}." for index in range(50)]
    groups = read(write(tmp_path, [maker(task) for task in tasks])).dataset["group"][:]
    train, holdout = grouped_split(groups, 0.2, seed=0)
    assert {groups[i] for i in train}.isdisjoint(groups[i] for i in holdout) and len(holdout) >= 5


@pytest.mark.parametrize(
    ("record", "reason", "first"),
    [
        (single("X y.", ""), "no output", "data.json:1"),
        ({"instruction": "", "input": "Task: X y."}, "no output", "got None"),
        (single("   "), "empty task", "data.json:1"),
        (single("X y.", "Dron"), "unknown robot name", "'Dron'. Did you mean 'Drone'"),
        ({"instruction": "", "output": "Drone"}, "no input key", "instruction"),
        (single("X y.", "Drone, Drone"), "robot named twice", "Drone, Drone"),
        ("text", "not an object", "str"),
        (multi("X y.", steps=(("a", "Boat", 1),)), "unknown robot name", "'Boat'"),
        ({**multi("X y."), "subtasks": [{"subtask": "a"}]}, "broken subtasks", "lacks assigned_robot"),
        (multi("X y.", steps=(("a", "Drone", "first"),)), "broken subtasks", "'first'"),
        (single("X y.", image="none.png"), "missing image", "none.png"),
    ],
)
def test_unusable_records_are_counted_with_the_first_named(tmp_path, record, reason, first):
    data = read(write(tmp_path, [single("Good one."), record, record]), max_bad_fraction=0.9)
    assert len(data.dataset) == 1
    assert list(data.census["rejected"]) == [reason]
    assert data.census["rejected"][reason]["count"] == 2
    assert "data.json:1" in data.census["rejected"][reason]["first"]
    assert first in data.census["rejected"][reason]["first"]


def test_too_many_unusable_records_fail_with_counts_first_offender_and_fix(tmp_path):
    path = write(tmp_path, [single("Good one."), single("", "Drone"), single("B b.", "Boat")])
    with pytest.raises(
        DataError, match=r"2 of 3 .*1 empty task, 1 unknown robot name.*data\.json:1.*max_bad_fraction"
    ):
        read(path)


def test_the_census_is_logged_as_one_table(tmp_path, caplog):
    path = write(tmp_path, [single("Good one."), single("")])
    with caplog.at_level(logging.INFO, "hfvla"):
        read(path, max_bad_fraction=0.5)
    (record,) = caplog.records
    assert "rejected: empty task" in record.getMessage() and record.levelno == logging.WARNING


def png(colour=(10, 20, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_are_read_from_beside_the_file_or_from_image_dir(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png((200, 0, 0)))
    path = write(tmp_path, [single("See it.", image="a.png"), single("No picture.")])
    assert read(path).dataset["image"][:] == [png(), None]
    assert read(path, image_dir=str(tmp_path / "pictures")).dataset[0]["image"] == png((200, 0, 0))


def test_a_corrupted_image_rejects_its_record(tmp_path):
    (tmp_path / "a.png").write_bytes(png()[:40])
    data = read(write(tmp_path, [single("See it.", image="a.png")]), max_bad_fraction=1.0)
    assert "a.png" in data.census["rejected"]["corrupted image"]["first"] and len(data.dataset) == 0


def test_broken_json_names_file_line_and_column(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('[\n {"input": "Task: a",\n  "output" "Drone"}\n]')
    with pytest.raises(DataError, match=r"bad\.json:3:12: broken JSON"):
        read(str(path))


def test_broken_jsonl_names_its_own_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(single("A a.")) + '\n{"input": }\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2:11: broken JSON"):
        read(str(path))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DataError, match="'question'"):
        read(write(tmp_path, [{"question": "?"}]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json"):
        read(str(tmp_path / "nothing.json"))


def test_unknown_options_are_refused():
    with pytest.raises(ValidationError, match="pathh"):
        RobotSelectionOptions(path="a", pathh="b")


def test_reasoning_can_be_left_out_and_a_users_fleet_is_accepted(tmp_path):
    path = write(tmp_path, [single("Mow.", "Mower")])
    row = read(path, robots=("Mower", "Boat"), reasoning=False).dataset[0]
    assert row["robots"] == ["Mower"] and row["reasoning"] == ""
    assert "Boat: no" in read(path, robots=("Mower", "Boat")).dataset[0]["reasoning"]


# ---- texts of the world ------------------------------------------------------------------------------------------


def test_tasks_in_any_script_have_groups_of_their_own_and_keep_their_plans(tmp_path):
    tasks = ["Trồng cây", "Tưới cây", "橋を検査する", "Проверить мост"]
    steps = {task: ((f"plan of {task}", "Drone", 1),) for task in tasks}
    plan = write(tmp_path, [multi(task, steps=steps[task]) for task in tasks], "plans.json")
    written = [unicodedata.normalize("NFD", task.upper()) for task in tasks]
    data = read(write(tmp_path, [single(task) for task in written]), plan_path=plan)
    assert len(set(data.dataset["group"])) == 4 and data.census["duplicates"] == 0
    assert [row["plan"][0]["subtask"] for row in data.dataset] == [f"plan of {task}" for task in tasks]


def test_tasks_that_differ_in_a_number_share_a_group_and_no_plan(tmp_path):
    plan = write(tmp_path, [multi("Inspect tower 3.")], "plans.json")
    data = read(write(tmp_path, [single("Inspect tower 3."), single("Inspect tower 4.")]), plan_path=plan)
    assert [len(steps) for steps in data.dataset["plan"][:]] == [2, 0] and data.census["without_plan"] == 1
    assert len(set(data.dataset["group"])) == 1


@pytest.mark.parametrize("name", ["robot with legs", "Robot-with-Legs", "ROBOT_WITH_LEGS", " Robot  with\u00a0Legs "])
def test_spellings_of_a_robot_by_case_blanks_and_hyphens(tmp_path, name):
    assert read(write(tmp_path, [single("X y.", name)])).dataset[0]["robots"] == ["Robot with Legs"]


def test_other_names_of_a_robot_are_not_guessed(tmp_path):
    data = read(write(tmp_path, [single("X y.", "Legged Robot")]), max_bad_fraction=1.0)
    assert list(data.census["rejected"]) == ["unknown robot name"]


def test_lines_of_jsonl_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    tasks = ["Inspect the dam\u2028and its gate", "Go\u0085up", "Climb\u2029down"]
    text = "\r\n".join(json.dumps(single(task), ensure_ascii=False) for task in tasks)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(str(path)).dataset["task"][:] == tasks


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (single("Go \ud83d up."), "input is not text"),
        (single("Go up. " * 400), "task is too long"),
        (single("X y.", image="../a.png"), "image path outside the data root"),
        (single("X y.", image="/etc/passwd"), "image path outside the data root"),
        (single("X y.", image="x" * 100_000), "no such image path"),
        (single("X y.", image=7), "no image path"),
        (multi("X y.", steps=((7, "Drone", 1),)), "subtask is not text"),
        (single("X y.", reasoning=7), "reasoning is not text"),
        (single("X y.", subtasks=False), "broken subtasks"),
        (multi("X y.", steps=(("a", "Drone", 10**400),)), "broken subtasks"),
        (single("X y.", reasoning=["Step 1", None]), "reasoning is not text"),
    ],
)
def test_texts_and_paths_that_cannot_be_used_are_counted(tmp_path, record, reason):
    data = read(write(tmp_path, [single("Good one."), record]), max_bad_fraction=0.9)
    assert list(data.census["rejected"]) == [reason] and len(data.census["rejected"][reason]["first"]) < 500


def test_a_limit_of_letters_can_be_set(tmp_path):
    data = read(write(tmp_path, [single("Go up. " * 400)]), max_task_letters=3000)
    assert len(data.dataset[0]["task"]) == 400 * 7 - 1


# ---- a record's own chain ----------------------------------------------------------------------------------------

OWN = (
    "Step 1: Task Analysis: look.\nStep 2: Environment Assessment: sea.\nStep 3: Robot Capability Matching: "
    "Drone: yes, flies; Humanoid: no, sinks.\nStep 4: Decision Justification: best. Decision: Drone."
)


@pytest.mark.parametrize("reasoning", [True, False])
def test_a_records_own_reasoning_is_used_as_it_is_given(tmp_path, reasoning):
    records = [single("A b.", reasoning=OWN), single("C d.", reasoning=OWN.split("\n")), single("E f.")]
    data = read(write(tmp_path, records), reasoning=reasoning)
    assert data.dataset["reasoning"][:2] == [OWN, OWN]
    assert bool(data.dataset["reasoning"][2]) == reasoning
    assert data.census["reasoning_given"] == 2 and data.census["reasoning_kept_as_given"] == {}


def test_own_reasoning_that_does_not_parse_or_contradicts_is_kept_and_counted(tmp_path, caplog):
    records = [single("A b.", reasoning="Because."), single("C d.", "Humanoid", reasoning=OWN)]
    data = read(write(tmp_path, records))
    assert data.dataset["reasoning"][:] == ["Because.", OWN] and data.census["usable"] == 2
    kept = data.census["reasoning_kept_as_given"]
    assert (
        kept["reasoning does not parse"]["count"] == 1 and "data.json:0" in kept["reasoning does not parse"]["first"]
    )
    assert "Drone; output Humanoid" in kept["reasoning decides for other robots"]["first"]
    assert "records with reasoning" in caplog.text


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)


def test_files_that_claim_to_be_enormous_are_not_read(tmp_path):
    sparse(tmp_path / "data.json", 1 << 40)
    with pytest.raises(DataError, match=r"data.json: robot-selection file cannot be read; got '1099511627776 bytes'"):
        read(str(tmp_path / "data.json"))
    sparse(tmp_path / "a.png", 1 << 40)
    data = read(write(tmp_path, [single("See it.", image="a.png")], "b.json"), max_bad_fraction=1.0)
    assert list(data.census["rejected"]) == ["image file is too large"]
