"""What a script passes wrongly to `StagedTrainer`, `Stage` or `run_recipe`: one error of hfvla each."""

import inspect
from pathlib import Path

import pytest
from transformers import TrainingArguments

import hfvla
from hfvla import Lora, ParameterGroup, Phase, Recipe, RecipeError, Stage, load_recipe, run_recipe
from hfvla.errors import DataError, TrainingError
from hfvla.training.trainer.trainer import StagedTrainer

from ..toy import GROUPS, ToyModel, build_model, build_rows, build_trainer

SMOKE = Path(__file__).parents[3] / "recipes/ember_vlm/smoke.yaml"
STAGE = Stage(name="first", train=["head"], losses={"fit": 1.0})


def trainer(tmp_path, **changes):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    given = {
        "model": build_model(),
        "args": arguments,
        "stage": STAGE,
        "groups": GROUPS,
        "train_dataset": build_rows(),
    }
    given |= changes
    return StagedTrainer(**{name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": None}, r"a stage is missing.*Stage\(name="),
        ({"stage": STAGE.model_dump()}, r"stage=.*<class 'dict'>.*Write Stage\(\*\*stage\)"),
        ({"stage": "first"}, r"got 'first'.*load_recipe\(file\)\.stages\[0\]"),
        ({"model": "org/some-model"}, "got 'org/some-model'.*not its name.*from_pretrained"),
        ({"model": ToyModel}, "a class is no model; got 'ToyModel'"),
        ({"model": None, "model_init": build_model}, "pass model=model_init"),
        ({"args": {"learning_rate": 1e-3}}, r"Write TrainingArguments\(\*\*args\)"),
        ({"groups": None}, "parameter groups by name"),
        ({"groups": {"head": "head.*"}}, r"group 'head' is no ParameterGroup.*Write ParameterGroup\(\('head.\*',\)\)"),
        ({"groups": {"head": ["head.*"]}}, r"Write ParameterGroup\(\('head.\*',\)\)"),
        ({"groups": {"head": 3}}, "group 'head' is no ParameterGroup; got 3"),
        ({"train_datset": []}, "no argument 'train_datset'. Did you mean 'train_dataset'"),
        ({"tokenizer": "x"}, "no argument 'tokenizer'. It is called processing_class now"),
        ({"train_dataset": "imdb"}, "a name is no data; got 'imdb'"),
        ({"train_dataset": {"features": [1.0]}}, "a mapping is no rows; got 'features'.*Dataset.from_dict"),
        ({"train_dataset": iter([1])}, "an iterator is used up after one epoch; got 'list_iterator'"),
        ({"stage": [STAGE, STAGE]}, "One trainer trains one stage; run_recipe trains a recipe's"),
        ({"stage": load_recipe(SMOKE)}, r"A stage of a recipe: recipe\.stages\[0\]"),
        (
            {"data_collator": "default"},
            "no data_collator; got 'default'; expected a function. It takes a list of rows",
        ),
        ({"compute_metrics": {"accuracy": 1}}, "no compute_metrics.*returns {name: number}"),
    ],
)
def test_wrong_arguments_say_what_to_write(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        trainer(tmp_path, **changes)


@pytest.mark.parametrize(
    ("name", "nearest"), [("StageTrainer", "StagedTrainer"), ("EmberVLMForRobotSelecton", "EmberVLMForRobotSelection")]
)
def test_names_that_are_nearly_right(name, nearest):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'. Did you mean '{nearest}'"):
        getattr(hfvla, name)
    assert not hasattr(hfvla, "__wrapped__")


def test_data_without_a_row(tmp_path):
    for rows in ([], build_rows().select([])):
        with pytest.raises(DataError, match="the training data has no row"):
            trainer(tmp_path, train_dataset=rows)


def test_one_string_is_one_pattern(tmp_path):
    assert trainer(tmp_path, groups={"head": ParameterGroup("head.*")}).trained


OUTPUTS = [
    (lambda output: (output["loss"],), "forward returns a mapping; got 'tuple'"),
    (lambda output: {"logits": output["logits"]}, "neither `loss` nor `loss_terms`; got 'logits'"),
    (lambda output: {"loss_terms": [output["loss"]]}, "`loss_terms` is a mapping; got 'list'"),
    (lambda output: {"loss_terms": {"fit": 0.5}}, "'fit' is no single number; got 'float'.*Leave it a tensor"),
    (lambda output: {"loss_terms": {"fit": output["logits"]}}, r"'fit' is no single number; got 'shape \[4\]'"),
    (lambda output: {"loss": output["loss"]}, "no loss term 'fit': its output has no `loss_terms`"),
]


@pytest.mark.parametrize(("change", "message"), OUTPUTS)
def test_outputs_that_no_loss_can_be_made_of(tmp_path, change, message):
    class Changed(ToyModel):
        def forward(self, **batch):
            return change(super().forward(**batch))

    with pytest.raises(TrainingError, match=message):
        build_trainer(tmp_path, model=build_model(kind=Changed)).train()


@pytest.mark.parametrize("found", [None, 0.5])
def test_metrics_that_have_no_name(tmp_path, found):
    extra = {"eval_dataset": build_rows(), "compute_metrics": lambda prediction: found}
    with pytest.raises(TrainingError, match=r"compute_metrics returns {name: number}"):
        build_trainer(tmp_path, extra=extra).evaluate()


def test_a_loss_that_reaches_nothing(tmp_path):
    model = build_model()
    model.head.scale.requires_grad_(False)
    staged = build_trainer(tmp_path, model=model, train=["backbone"], losses={"level": 1.0})
    with pytest.raises(TrainingError, match=r"stage 'first': the loss reaches nothing.*losses level; train backbone"):
        staged.train()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("haed.*", r"The model has \.\.\.: backbone, blocks, head\. Did you mean 'head'\?"),
        ("blocks.first.*", r"The model has blocks\.\.\.\.: 0, 1, 2\."),
        ("scale.*", r"'scale' is at head\.scale"),
    ],
)
def test_patterns_that_match_nothing_show_what_is_there(tmp_path, pattern, message):
    with pytest.raises(RecipeError, match=message):
        trainer(tmp_path, groups={"head": ParameterGroup(pattern)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Stage(name="s", train=["a"], loses={"x": 1}),
            "Stage: loses: unknown key 'loses'. Did you mean 'losses'",
        ),
        (lambda: Stage(name="s", train="a", losses={"x": 1}), "Stage: train: expected a list; got 'a'"),
        (lambda: Stage(name="s", train=["a"], losses={"x": -1}), r"Stage: losses\.x: expected a number >= 0"),
        (lambda: Stage("s"), r"Stage takes its fields by name; got 's'\. Write Stage\(name=\.\.\.\)"),
        (lambda: setattr(STAGE, "train", "b"), r"a Stage does not change.*Build another: Stage\(\*\*"),
        (lambda: setattr(STAGE, "trian", ["b"]), "does not change.*Did you mean 'train'"),
        (lambda: ParameterGroup(3), "a parameter group has patterns; got 3"),
        (lambda: Stage(name="s", train=["a"], losses=["x"]), "Stage: losses: expected a mapping"),
        (lambda: Phase(add=["a"]), "Phase: a phase needs either `epoch` or `step`"),
        (
            lambda: Stage(name="s", train=["a"], losses={"x": 1}, phases=[{"epoch": 1}]),
            r"Stage: phases\[0\]: the phase",
        ),
        (lambda: Lora(target="x", lora_alpha=8), "Lora: lora_alpha: unknown key 'lora_alpha'. Say `alpha`."),
        (lambda: Recipe(famly="x"), "unknown key 'famly'. Did you mean 'family'"),
    ],
)
def test_sections_speak_plainly(build, message):
    with pytest.raises(RecipeError, match=message):
        build()


def test_recipes_are_files_or_recipes(tmp_path):
    with pytest.raises(RecipeError, match="nothing.yaml: no such recipe"):
        run_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(RecipeError, match="unknown key 'sed'. Did you mean 'seed'"):
        run_recipe(str(SMOKE), ["sed=3"])
    with pytest.raises(RecipeError, match=r"no recipe; got .*dict.*Write Recipe\(\*\*recipe\)"):
        run_recipe({"family": "x"})
    with pytest.raises(RecipeError, match="this recipe is loaded"):
        run_recipe(load_recipe(SMOKE), ["seed=3"])
    with pytest.raises(RecipeError, match="overrides are a list; got 'seed=3'"):
        load_recipe(SMOKE, "seed=3")
    with pytest.raises(RecipeError, match=r"overrides are a list; got .*'seed', 3"):
        load_recipe(SMOKE, [("seed", 3)])
    with pytest.raises(RecipeError, match="a family has a name; got 3; expected .*ember_vlm"):
        hfvla.get_family(3)
    with pytest.raises(RecipeError, match=r"no text; got 1; expected a name") as caught:
        run_recipe(SMOKE, start_at=1)
    assert "run_recipe(start_at=...)" in str(caught.value)
    assert load_recipe(SMOKE, None).seed == load_recipe(SMOKE).seed
    with pytest.raises(RecipeError, match="overrides are a list; got 'seed=3'"):
        run_recipe(SMOKE, "seed=3")
    with pytest.raises(RecipeError, match="no recipe's file"):
        load_recipe({"family": "x"})


def test_help_says_what_each_field_means():
    assert hfvla.Phase is Phase
    told = inspect.getdoc(Stage)
    for name, field in Stage.model_fields.items():
        assert f"    {name} (" in told and field.description in told
    assert "losses (dict[str, Weight | LossSchedule])" in told
    assert Recipe.model_json_schema()["$defs"]["Stage"]["description"] == told.partition("\n")[0]
