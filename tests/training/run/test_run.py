"""Whole runs: folders, files, resuming, refusals and the best epoch."""

import json
import shutil
from itertools import chain, repeat

import pytest
import torch
from transformers import AutoModel

from hfvla.errors import CheckpointError, DataError, RecipeError
from hfvla.recipe import load_resolved
from hfvla.registry import load_checkpoint
from hfvla.sealing import unsealed
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe
from hfvla.training.trainer.trainer import StagedTrainer

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks

STAGE_FILES = {
    "complete.json",
    "config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
STAGE_RECORDS = {"handover.json", "trainable.json", "log_history.json", "stage.json"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("data") / "tasks.json", tasks())


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory):
    """A finished run of two stages with an evaluation set: folder, recipe and record."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    unseen = write_tasks(
        folder.parent / "unseen.json", [(task.replace("Film", "Guard"), r) for task, r in tasks()[36:]]
    )
    section = {
        "train": [{"source": "robot_selection", "path": file}],
        "validation": {"fraction": 0.25},
        "eval": {"real": {"source": "robot_selection", "path": unseen}},
    }
    evaluation = {"bootstrap_samples": 10, "max_generate": 0, "ablations": False}
    recipe = build_recipe(file, folder, data=section, evaluation=evaluation)
    return folder, recipe, run_recipe(recipe)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, free to be changed."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy", finished[1]


def read(path):
    return json.loads(path.read_text())


def assert_same_weights(first, second):
    first, second = load_state(first), load_state(second)
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


class Steps(list):
    """Counts training steps as (stage, step), and fails where it is told to."""

    def __init__(self, monkeypatch, fail_at=None):
        super().__init__()
        original = StagedTrainer.training_step

        def training_step(trainer, *args, **kwargs):
            here = (trainer.stage.name, trainer.state.global_step)
            if here == fail_at:
                raise KeyboardInterrupt("power cut")
            self.append(here)
            return original(trainer, *args, **kwargs)

        monkeypatch.setattr(StagedTrainer, "training_step", training_step)


# ---- what a run leaves -------------------------------------------------------------------------------------------


def test_folders_and_files(finished):
    folder, _, _ = finished
    for stage in ("selection", "reasoning"):
        assert {path.name for path in (folder / stage).iterdir()} == STAGE_FILES | STAGE_RECORDS
    assert {path.name for path in (folder / "final").iterdir()} == STAGE_FILES | {"recipe.json", "README.md"}
    assert {"recipe.json", "run.json", "metrics.json", "report.html"} <= {path.name for path in folder.iterdir()}
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".tmp")]


def test_the_card_of_the_final_checkpoint_has_the_run_s_scores_and_may_be_corrected(finished, copied):
    folder, _, record = finished
    card = (folder / "final" / "README.md").read_text()
    model, baseline = record["metrics"]["exact_match"], record["baselines"]["majority"]["exact_match"]
    line = next(row for row in card.splitlines() if row.startswith("| Exact match |"))
    assert f"{model:.3f}" in line and f"{baseline:.3f}" in line
    assert "| selection | language, fusion, selection_head |" in card and "| reasoning | language.last(1)," in card
    assert "README.md" not in read(folder / "final" / "complete.json")["files"]
    (copied[0] / "final" / "README.md").write_text("# Mine\n")
    load_checkpoint(copied[0] / "final")


def test_the_final_checkpoint_loads(finished):
    folder, _, record = finished
    model = AutoModel.from_pretrained(folder / "final")
    assert type(model).__name__ == "EmberVLMForRobotSelection"
    assert model.config.calibration["temperature"] == pytest.approx(record["calibration"]["temperature"])
    assert model.config.calibration != {"temperature": 1.0, "threshold": 0.5}
    assert_same_weights(folder / "final", folder / "reasoning")
    spec, _, processor = load_checkpoint(folder / "final", family="ember_vlm")
    assert spec.name == "ember_vlm" and processor.robots == model.config.robots


def test_the_recipe_is_saved_resolved(finished):
    folder, recipe, _ = finished
    for path in (folder / "recipe.json", folder / "final/recipe.json"):
        assert load_resolved(path) == recipe
    assert read(folder / "recipe.json")["data"]["max_bad_fraction"] == 0.01  # a default that the recipe does not name


def test_the_record_of_a_run(finished):
    folder, _, record = finished
    saved = read(folder / "run.json")
    assert saved == json.loads(json.dumps(record, default=str))
    assert saved["seed"] == 3 and saved["processes"] == 1 and saved["output_dir"] == str(folder)
    assert saved["versions"]["torch"] == torch.__version__.split("+")[0] and "transformers" in saved["versions"]
    assert "commit" in saved and saved["hardware"]["cores"] >= 1 and saved["seconds"] > 0
    assert saved["census"]["robot_selection"] | {"duplicates": 0} == {
        "found": 48,
        "usable": 48,
        "rejected": {},
        "duplicates": 0,
    }
    first, second = saved["stages"]
    assert (first["name"], second["name"]) == ("selection", "reasoning")
    assert first["steps"] == second["steps"] == 10 and first["rows"] == {"train": 36, "validation": 12}
    assert first["trainable_parameters"] > second["trainable_parameters"] > 0
    assert {"eval_loss", "eval_loss_selection", "eval_jaccard"} <= set(first["scores"])
    assert saved["metrics"]["n"] == 12 and saved["baselines"]["majority"]["n"] == 12


def test_each_stage_says_what_it_trained_and_took_over(finished):
    folder, _, _ = finished
    rows = {row["group"]: row for row in read(folder / "reasoning/trainable.json")}
    assert rows["vision"]["trainable"] == 0 and rows["selection_head"]["share"] == 1.0
    assert rows["selection_head"]["learning_rate"] == 1e-3 and rows["language"]["learning_rate"] == 2e-3
    assert 0 < rows["language"]["share"] < 1
    assert read(folder / "selection/handover.json")["source"] == "new"
    second = read(folder / "reasoning/handover.json")
    assert second["source"] == "selection" and set(second["counts"]) == {"carried"}
    assert unsealed(read(folder / "reasoning/stage.json")) == read(folder / "run.json")["stages"][1]


def test_each_stage_logs_its_terms(finished):
    folder, _, _ = finished
    history = read(folder / "reasoning/log_history.json")
    steps = [line for line in history if "loss" in line]
    assert len(steps) == 10
    for line in steps:
        terms = {name: line[f"reasoning/loss_{name}"] for name in ("selection", "reasoning", "consistency")}
        assert line["loss"] == pytest.approx(
            terms["selection"] + terms["reasoning"] + 0.4 * terms["consistency"], abs=1e-3
        )
        assert line["reasoning/weight_consistency"] == 0.4
    assert steps[-1]["reasoning/loss_reasoning"] < steps[0]["reasoning/loss_reasoning"]


def test_stages_move_their_own_parameters(finished):
    folder, _, _ = finished
    first, second = load_state(folder / "selection"), load_state(folder / "reasoning")
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved == {n for n in first if n.startswith(("language_model.transformer.h.1.", "selection_head."))}


# ---- the same folder again ---------------------------------------------------------------------------------------


def test_running_again_trains_nothing(copied, monkeypatch):
    folder, recipe = copied
    steps = Steps(monkeypatch)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*.safetensors")}
    record = run_recipe(recipe, output_dir=folder)
    assert steps == []
    for path, (modified, content) in before.items():
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == modified or path.parent.name == "final"
    assert [stage["steps"] for stage in record["stages"]] == [10, 10] and record["metrics"]["n"] == 12


def test_another_recipe_in_the_same_folder_is_refused(copied, file):
    folder, recipe = copied
    other = build_recipe(file, folder, [selection_stage(losses={"selection": 0.5}), reasoning_stage()])
    other = other.model_copy(update={"data": recipe.data, "evaluation": recipe.evaluation})
    with pytest.raises(RecipeError, match=r"run of another recipe.*stages.selection.losses.selection: 1.0 -> 0.5"):
        run_recipe(other)
    assert load_resolved(folder / "recipe.json") == recipe  # untouched


def test_overwrite_starts_anew(copied, file, monkeypatch):
    folder, _ = copied
    (folder / "selection/old.txt").write_text("from before")
    steps = Steps(monkeypatch)
    other = build_recipe(file, folder, [selection_stage(args={"max_steps": 1})])
    run_recipe(other, overwrite=True)
    assert steps == [("selection", 0)]
    assert not (folder / "selection/old.txt").exists() and not (folder / "reasoning").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path, file, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(RecipeError, match=r"thesis: .*not a run of hfvla"):
        run_recipe(build_recipe(file, tmp_path / "thesis"), overwrite=overwrite)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_a_run_that_stopped_before_its_first_stage_starts(tmp_path, file):
    recipe = build_recipe(str(tmp_path / "absent.json"), tmp_path / "run", [selection_stage(args={"max_steps": 1})])
    with pytest.raises(DataError, match="absent.json"):
        run_recipe(recipe)
    shutil.copy(file, tmp_path / "absent.json")
    assert run_recipe(recipe)["stages"][0]["steps"] == 1


# ---- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail_at", "again"),
    [
        (("reasoning", 7), [("reasoning", step) for step in range(5, 10)]),  # after its first checkpoint, at step 5
        (("reasoning", 2), [("reasoning", step) for step in range(10)]),  # before it
    ],
)
def test_a_stopped_run_goes_on_and_ends_bit_equal(finished, tmp_path, file, fail_at, again):
    folder, recipe = finished[0], build_recipe(file, tmp_path / "run")  # without evaluation sets, which train nothing
    with pytest.MonkeyPatch.context() as patch:
        Steps(patch, fail_at)
        with pytest.raises(KeyboardInterrupt, match="power cut"):
            run_recipe(recipe)
    assert (tmp_path / "run/selection/stage.json").is_file() and not (tmp_path / "run/reasoning/stage.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(patch)
        run_recipe(recipe)
    assert steps == again
    for stage in ("selection", "reasoning", "final"):
        assert_same_weights(tmp_path / "run" / stage, folder / stage)

    def losses(run):
        return [line["loss"] for line in read(run / "reasoning/log_history.json") if "loss" in line]

    assert losses(tmp_path / "run") == losses(folder)
    assert not (tmp_path / "run/reasoning/checkpoints").exists()


# ---- the best epoch ----------------------------------------------------------------------------------------------


def scripted(monkeypatch, values):
    """Let the validation metric take these values, one an evaluation."""
    left = chain(values, repeat(values[-1]))  # a run without data.eval looks at its validation rows once more
    monkeypatch.setattr("hfvla.models.ember_vlm.build.quick_figures", lambda prediction, config: [])
    path = "hfvla.models.ember_vlm.build.compute_metrics"
    monkeypatch.setattr(path, lambda prediction, config: {"jaccard": next(left)})


def test_keep_best_keeps_the_best_epochs_weights(tmp_path, file, monkeypatch):
    args = {"num_train_epochs": 3, "lr_scheduler_type": "constant"}
    scripted(monkeypatch, [0.2, 0.9, 0.4])
    best = run_recipe(build_recipe(file, tmp_path / "best", [selection_stage(keep_best="eval_jaccard", args=args)]))
    assert best["stages"][0]["best_metric"] == 0.9 and best["stages"][0]["best_step"] == 10
    assert best["stages"][0]["steps"] == 15 and best["stages"][0]["scores"]["eval_jaccard"] == 0.9
    scripted(monkeypatch, [0.2, 0.9])
    run_recipe(build_recipe(file, tmp_path / "two", [selection_stage(args={**args, "num_train_epochs": 2})]))
    assert_same_weights(tmp_path / "best/selection", tmp_path / "two/selection")  # not the third epoch's


def test_patience_ends_the_stage(tmp_path, file, monkeypatch):
    scripted(monkeypatch, [0.9, 0.2, 0.1, 0.1, 0.1])
    stage = selection_stage(keep_best="eval_jaccard", patience=2, args={"num_train_epochs": 5})
    record = run_recipe(build_recipe(file, tmp_path / "run", [stage]))
    assert record["stages"][0]["steps"] == 15 and record["stages"][0]["best_step"] == 5


def test_keep_best_by_the_loss_of_one_term(tmp_path, file):
    stage = selection_stage(keep_best="eval_loss_selection")
    (summary,) = run_recipe(build_recipe(file, tmp_path / "run", [stage]))["stages"]
    assert summary["best_metric"] == pytest.approx(summary["scores"]["eval_loss_selection"])


# ---- changes between stages --------------------------------------------------------------------------------------


def test_a_change_of_the_model_must_be_announced(tmp_path, file):
    second = reasoning_stage(model={"selection_hidden_size": 12}, args={"max_steps": 1})
    stages = [selection_stage(args={"max_steps": 1}), second]
    with pytest.raises(CheckpointError, match=r"reshape: selection_head.layers.3.weight \[16, 32\] to \[12, 32\]"):
        run_recipe(build_recipe(file, tmp_path / "run", stages))
    stages[1]["handover"] = {"new": ["selection_head"]}
    run_recipe(build_recipe(file, tmp_path / "run", stages), overwrite=True)
    counts = read(tmp_path / "run/reasoning/handover.json")["counts"]
    assert counts["new"] == 6 and AutoModel.from_pretrained(tmp_path / "run/final").config.selection_hidden_size == 12


def test_a_run_starts_from_a_pretrained_checkpoint(finished, tmp_path, file):
    folder, _, _ = finished
    stage = selection_stage(train=["temperature", "selection_head"], args={"max_steps": 1})
    recipe = build_recipe(file, tmp_path / "run", [stage], model={"pretrained": str(folder / "final")})
    run_recipe(recipe)
    before, after = load_state(folder / "final"), load_state(tmp_path / "run/selection")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("selection_head.") for name in moved)
    assert read(tmp_path / "run/selection/handover.json")["source"] == str(folder / "final")


def test_a_later_stage_alone(finished, tmp_path, file):
    """Stage 2 from another run's stage 1 is the same stage 2."""
    folder, recipe = finished[0], build_recipe(file, tmp_path / "run")
    record = run_recipe(recipe, start_at="reasoning", from_checkpoint=folder / "selection")
    assert [stage["name"] for stage in record["stages"]] == ["reasoning"]
    assert_same_weights(tmp_path / "run/reasoning", folder / "reasoning")


def test_stopping_after_a_stage(tmp_path, file, monkeypatch):
    steps = Steps(monkeypatch)
    stages = [selection_stage(args={"max_steps": 1}), reasoning_stage(args={"max_steps": 1})]
    run_recipe(build_recipe(file, tmp_path / "run", stages), stop_after="selection")
    assert steps == [("selection", 0)] and (tmp_path / "run/final/config.json").is_file()
    run_recipe(build_recipe(file, tmp_path / "run", stages))
    assert steps == [("selection", 0), ("reasoning", 0)]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"start_at": "reasonning", "from_checkpoint": "x"},
            "start_at: no stage 'reasonning'. Did you mean 'reasoning'",
        ),
        ({"stop_after": "last"}, "stop_after: no stage 'last'"),
        ({"start_at": "reasoning"}, "stage 'reasoning' starts from the stage before it"),
        ({"from_checkpoint": "x"}, "needs a later stage to start at"),
        (
            {"start_at": "reasoning", "stop_after": "selection", "from_checkpoint": "x"},
            "start_at comes after stop_after",
        ),
    ],
)
def test_parts_of_a_plan_that_cannot_run(tmp_path, file, options, match):
    with pytest.raises(RecipeError, match=match):
        run_recipe(build_recipe(file, tmp_path / "run"), **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("first", [True, False])
def test_a_stage_changes_the_config_whether_it_is_the_first_or_not(file, tmp_path, first):
    changed = {"selection_hidden_size": 12, "loss_weights": {"selection": 0.5}}
    stage = selection_stage(model=changed, args={"max_steps": 1})
    stages = [stage] if first else [selection_stage(name="before", args={"max_steps": 1}), stage]
    if not first:
        stage["handover"] = {"new": ["selection_head"]}
    folder = tmp_path / "run"
    run_recipe(build_recipe(file, folder, stages))
    assert read(folder / stage["name"] / "config.json")["selection_hidden_size"] == 12
    assert len(load_state(folder / stage["name"])["selection_head.layers.3.weight"]) == 12
    if not first:
        assert read(folder / "before" / "config.json")["selection_hidden_size"] != 12
