"""Finished runs side by side: hand-made predictions, paired by row, and what cannot be paired."""

import json
import re
from pathlib import Path

import pytest

from hfvla.errors import DataError, RecipeError
from hfvla.evaluation.comparison import compare_runs, read_scored_run, samples_seen
from hfvla.evaluation.comparison_file import ComparedRecipe, Comparison, load_comparison
from hfvla.evaluation.comparison_report import comparison_markdown

STAGE = {"name": "one", "steps": 10, "epochs": 2.0, "rows": {"train": 36}, "seconds": 4.0, "parameters": 100,
         "trainable_parameters": 25, "best_step": 5}  # fmt: skip
RECIPE = {"args": {"per_device_train_batch_size": 4}, "stages": [{"name": "one", "args": {}}]}


def write_run(folder, rows, metrics=None, sets=("held_out",)):
    folder.mkdir(parents=True)
    record = {"recipe": RECIPE, "stages": [STAGE], "processes": 1, "evaluation": {name: {} for name in sets}}
    (folder / "run.json").write_text(json.dumps(record))
    scores = metrics or {}
    (folder / "metrics.json").write_text(json.dumps({**scores, "sets": {name: scores for name in sets}}))
    for name in sets:
        file = folder / (f"predictions_{name}.jsonl" if len(sets) > 1 else "predictions.jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def rows(hits, groups="aabbccdd", boxes=None):
    found = [
        {"id": f"r{n}", "group": group, "correct": bool(hit), "scores": {"hit": float(hit)}}
        for n, (hit, group) in enumerate(zip(hits, groups, strict=True))
    ]
    for row, values in zip(found, boxes or [], strict=False):
        row["scores"]["iou"] = values
    return found


@pytest.fixture
def scored(tmp_path):
    def build(name, seed=0, **given):
        folder = write_run(tmp_path / f"{name}_{seed}", **given)
        return read_scored_run(name, seed, folder)

    return build


def test_means_and_paired_differences(scored):
    boxes = [[0.2, 0.4], 0.6, None, 0.8]
    runs = [
        scored("new", rows=rows([1, 1, 1, 0, 1, 1, 0, 0], boxes=boxes), metrics={"hit": 5 / 8}),
        scored("old", rows=rows([1, 0, 1, 0, 0, 1, 0, 0], boxes=[[0.1, 0.3], 0.5, None, 0.7]), metrics={"hit": 3 / 8}),
    ]
    metrics = {"hit": "hit", "iou": "iou", "both": ["hit", "iou"], "correct": "correct"}
    hit, iou, both, correct = compare_runs(runs, metrics, "old", bootstrap_samples=200)
    assert hit["scores"]["new"]["value"] == 5 / 8 and hit["differences"]["new"]["value"] == pytest.approx(1 / 4)
    assert "old" not in hit["differences"] and hit["differences"]["new"]["relative"] == pytest.approx(
        (1 / 4) / (3 / 8)
    )
    # Over the groups the differences are 1/2, 0, 1/2, 0: a paired interval cannot reach below 0.
    low, high = hit["differences"]["new"]["interval"]
    assert 0.0 <= low < 0.25 < high <= 0.5
    wide = hit["scores"]["new"]["interval"]
    assert wide[1] - wide[0] > high - low, "unpaired, the rows themselves would blur it"
    assert iou["scores"]["new"]["value"] == pytest.approx((0.2 + 0.4 + 0.6 + 0.8) / 4), "the mean over boxes, not rows"
    assert iou["differences"]["new"]["interval"] == pytest.approx([0.1, 0.1])
    assert both["scores"]["old"]["value"] == pytest.approx((3 / 8 + 0.4) / 2)
    assert correct["scores"] == hit["scores"], "a field of the row itself serves as well"


def test_several_seeds_are_pooled(scored):
    given = {("new", 0): [1] * 8, ("old", 0): [0] * 8, ("new", 1): [1, 0] * 4, ("old", 1): [1, 0] * 4}
    runs = [scored(name, seed, rows=rows(hits)) for (name, seed), hits in given.items()]
    (found,) = compare_runs(runs, {"hit": "hit"}, "old", bootstrap_samples=10)
    assert found["scores"]["new"] == {"value": 0.75, "interval": [0.75, 0.75], "by_seed": {"0": 1.0, "1": 0.5}}
    assert found["differences"]["new"]["value"] == 0.5
    with pytest.raises(DataError, match="different seeds"):
        compare_runs(runs[:3], {"hit": "hit"}, "old")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rows": rows([1] * 7, "aabbccd")}, "scored on different rows.*got 'r7'"),
        ({"rows": rows([1] * 8, "aabbccda")}, "scored on different rows.*got 'r7'"),
        ({"rows": rows([1] * 8)}, "no row has the score 'miss'.*expected one of hit"),
        ({"rows": rows([1] * 8), "metrics": {"hit": 0.5}}, "do not add up to the reported 'hit'.*got 1.0"),
    ],
)
def test_what_cannot_be_compared(scored, other, message):
    runs = [scored("old", rows=rows([1, 0] * 4)), scored("new", **other)]
    with pytest.raises(DataError, match=message):
        compare_runs(runs, {"hit": ["hit", "miss"] if "miss" in message else "hit"}, "old")


def test_a_score_that_one_run_has_more_of(scored):
    runs = [scored(name, rows=rows([1] * 8, boxes=boxes)) for name, boxes in (("old", [0.1]), ("new", [[0.1, 0.2]]))]
    with pytest.raises(DataError, match="more values of 'iou'.*got '1 and 2'"):
        compare_runs(runs, {"iou": "iou"}, "old")


def test_a_score_that_is_no_number(scored):
    words = [{**row, "verdict": "good"} for row in rows([1] * 8)]
    with pytest.raises(DataError, match="row r0: 'verdict' is no number; got 'good'"):
        compare_runs([scored("old", rows=words), scored("new", rows=words)], {"verdict": "verdict"}, "old")


def test_folders_without_a_result(tmp_path):
    with pytest.raises(DataError, match="the run is not finished"):
        read_scored_run("new", 0, tmp_path)
    folder = write_run(tmp_path / "two", rows([1] * 8), {"hit": 1.0}, sets=("one", "two"))
    assert read_scored_run("new", 0, folder, "two").metrics == {"hit": 1.0}
    with pytest.raises(DataError, match="name one evaluation set.*one, two"):
        read_scored_run("new", 0, folder)
    with pytest.raises(DataError, match="no such evaluation set; got 'three'"):
        read_scored_run("new", 0, folder, "three")
    twice = write_run(tmp_path / "twice", [*rows([1] * 8), *rows([1] * 8)])
    with pytest.raises(DataError, match="two predictions have one id.*got 'r0'"):
        read_scored_run("new", 0, twice)


def test_samples_seen():
    # 10 steps of 4, but two epochs of 36 rows are more: 40 of 72.
    assert samples_seen({"recipe": RECIPE, "stages": [STAGE]}) == 40
    assert samples_seen({"recipe": RECIPE, "stages": [STAGE], "processes": 2}) == 72  # the last batches are smaller
    accumulated = {"args": {**RECIPE["args"], "gradient_accumulation_steps": 3}, "stages": RECIPE["stages"]}
    assert samples_seen({"recipe": accumulated, "stages": [{**STAGE, "steps": 5}] * 2}) == 120


FILE = """
runs:
  one: {recipe: one.yaml}
  two: {recipe: two.yaml, overrides: [seed=3]}
metrics: {accuracy: correct}
"""


@pytest.fixture
def file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text("family: any\n")

    def write(text):
        (tmp_path / "compare.yaml").write_text(text)
        return tmp_path / "compare.yaml"

    return write


def test_a_file_of_recipes(file, tmp_path):
    found = load_comparison(file(FILE))
    assert found.runs["one"].recipe == str(tmp_path / "one.yaml") and found.runs["two"].overrides == ["seed=3"]
    assert (found.reference, found.seeds, found.output_dir) == ("two", [0], "outputs/compare")
    assert load_comparison(file(FILE + "baseline: one\n")).reference == "one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE + "metric: {}\n", r"compare\.yaml:6.*metric"),
        (FILE.replace("two.yaml", "gone.yaml"), r"compare\.yaml:4.*no such recipe; got 'gone\.yaml'"),
        (FILE + "baseline: three\n", "one of the runs one, two; got 'three'"),
        (FILE + "seeds: [1, 1]\n", r"different seeds.*got \[1, 1\]"),
        ("runs: {one: {recipe: one.yaml}}\nmetrics: {a: b}\n", "runs"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(file, text, message):
    with pytest.raises(RecipeError, match=re.compile(message, re.DOTALL)):
        load_comparison(file(text))


def test_what_is_no_comparison_says_what_it_is(file, tmp_path):
    with pytest.raises(RecipeError, match="a folder is no file of recipes.*--checkpoint A --checkpoint B"):
        load_comparison(tmp_path)
    with pytest.raises(RecipeError, match=r"this is a recipe.*Write runs: {one: {recipe: compare\.yaml}"):
        load_comparison(file("family: ember_vlm\nstages: []\n"))


def test_markdown_has_every_number(scored):
    runs = [scored("new", rows=rows([1] * 6 + [0] * 2)), scored("old", rows=rows([1, 0] * 4))]
    result = {
        "reference": "old",
        "seeds": [0],
        "rows": {"new": 8},
        "budget": {"samples_seen": {"new": 40, "old": 40}},
        "runs": [{"run": "new", "seed": 0, "samples_seen": 40, "steps": 10, "seconds": 4.0, "stages": [
            {"name": "one", "epochs": 2.0, "seconds_per_epoch": 2.0, "best_epoch": None, "trainable_share": 0.25}]}],
        "metrics": compare_runs(runs, {"hit": "hit"}, "old", bootstrap_samples=20),
    }  # fmt: skip
    text = comparison_markdown(result)
    assert "| hit | 0.750 [" in text and "+0.250 [" in text and "25.0%" in text and "new − old" in text


def test_every_key_of_the_file_is_documented():
    page = (Path(__file__).parents[2] / "docs/recipes.md").read_text().split("## Compare")[1]
    keys = {*Comparison.model_json_schema()["properties"], *(f"runs.{key}" for key in ComparedRecipe.model_fields)}
    assert not [key for key in keys if f"| `{key}` |" not in page]
