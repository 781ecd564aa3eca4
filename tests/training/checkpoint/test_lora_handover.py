"""What the next stage's weights are, for each way of handing LoRA over."""

import json
import shutil

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from hfvla.errors import CheckpointError, RecipeError
from hfvla.recipe import Stage
from hfvla.recipe.checks import all_problems
from hfvla.registry import get_family
from hfvla.training.checkpoint.adapters import read_adapters
from hfvla.training.checkpoint.handover import hand_over, load_state
from hfvla.training.checkpoint.lora_handover import earlier_adapters, place_adapters
from hfvla.training.run.run import run_recipe
from hfvla.training.run.saving import save_and_audit
from hfvla.training.trainer.trainer import StagedTrainer

from ..lora.test_injection import KINDS, LORA, outputs, randomise
from ..recipes import build_recipe, selection_stage, tasks, write_tasks
from ..toy import GROUPS, build_model, build_trainer, changed, snapshot

NEXT = {"name": "second", "train": ["lora", "head"], "losses": {"fit": 1.0}}


@pytest.fixture
def first(tmp_path):
    """Train a first stage with LoRA of a kind; return its folder, its model, and its base weights."""

    def build(kind: str = "plain", **options):
        model = build_model()
        settings = {"train": ["lora", "head"], "lora": {**LORA, **KINDS[kind]}, **options}
        trainer = build_trainer(tmp_path / "out", model, **settings)
        trainer.train()
        randomise(model)
        save_and_audit(trainer, tmp_path / "first")
        base = {name.replace(".base_layer", ""): v for name, v in snapshot(model).items() if ".lora_" not in name}
        return tmp_path / "first", model, base

    return build


def take_over(folder, seed: int = 9, **stage):
    """Do what a run does between two stages, on the toy; return the new model, the report and the stage."""
    stage = Stage(**{**NEXT, **stage})
    model, state = build_model(seed), load_state(folder)
    saved = earlier_adapters(stage, folder, state)
    report = hand_over(model, state, stage.handover, GROUPS, "first")
    place_adapters(model, GROUPS, stage, saved, report)
    return model, report, stage


def train(folder, model, stage, steps: int = 3):
    options = stage.model_dump(exclude_defaults=True, by_alias=True)
    trainer = build_trainer(folder, model, **options, args={"max_steps": steps, "learning_rate": 1e-2})
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", ["plain", "dora", "rslora"])
def test_merge_puts_the_adapter_into_the_weight(first, kind):
    folder, old, base = first(kind)
    model, report, _ = take_over(folder, train=["head"])
    assert set(model.state_dict()) == set(base) and not any(isinstance(m, LoraLayer) for m in model.modules())
    a, b = (old.blocks[0].get_parameter(f"lora_{part}.default.weight") for part in "AB")
    added = base["blocks.0.weight"] + (3 / 2**0.5 if kind == "rslora" else 3 / 2) * b @ a
    if kind == "dora":
        added = added * (old.blocks[0].lora_magnitude_vector.default.weight / added.norm(dim=1))[:, None]
    torch.testing.assert_close(model.blocks[0].weight, added, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs(model), outputs(old), rtol=0, atol=1e-6)
    assert torch.equal(model.head.weight, old.head.weight)
    statuses = {tensor.name: tensor.status for tensor in report.tensors}
    assert statuses["blocks.0.weight"] == "merged" and statuses["head.weight"] == "carried"


def test_merge_below_a_new_adapter(first, tmp_path):
    folder, old, base = first()
    model, report, stage = take_over(folder, lora={**LORA, "r": 4})
    torch.testing.assert_close(outputs(model), outputs(old), rtol=0, atol=1e-6)  # the new one starts as zero
    assert model.blocks[0].lora_A.default.weight.shape == (4, 4)
    assert report.counts() == {"carried": 10, "merged": 6, "new": 6}
    before = snapshot(model)
    train(tmp_path / "second", model, stage)
    moved = changed(model, before)
    assert "blocks.0.lora_B.default.weight" in moved and "blocks.0.base_layer.weight" not in moved


@pytest.mark.parametrize("kind", ["plain", "dora"])
def test_continue_trains_the_same_adapter_on(first, tmp_path, kind):
    folder, old, base = first(kind)
    handover = {"lora": "continue"}
    model, report, stage = take_over(folder, lora={**LORA, **KINDS[kind]}, handover=handover)
    assert not changed(model, old.state_dict())  # weights and adapters, to the bit
    assert torch.equal(model.blocks[0].base_layer.weight, base["blocks.0.weight"])
    assert torch.equal(outputs(model), outputs(old))
    assert report.counts()["continued"] == sum(".lora_" in name for name in old.state_dict())
    before = snapshot(model)
    train(tmp_path / "second", model, stage)
    moved = changed(model, before)
    assert {"blocks.0.lora_A.default.weight", "blocks.0.lora_B.default.weight"} <= moved
    assert "blocks.0.base_layer.weight" not in moved


def test_continue_may_change_the_dropout(first):
    folder, old, _ = first("dropout")
    model, _, _ = take_over(folder, lora={**LORA, "dropout": 0.25}, handover={"lora": "continue"})
    assert model.blocks[0].lora_dropout.default.p == 0.25
    model, _, _ = take_over(folder, lora=LORA, handover={"lora": "continue"})
    assert isinstance(model.blocks[0].lora_dropout.default, torch.nn.Identity)


def test_stack_keeps_the_old_adapter_frozen_and_acting(first, tmp_path):
    folder, old, base = first("dropout")
    new = {"target": "blocks.last(2)", "r": 3, "alpha": 6}
    model, report, stage = take_over(folder, lora=new, handover={"lora": "stack"})
    torch.testing.assert_close(outputs(model), outputs(old), rtol=0, atol=1e-6)
    assert torch.equal(model.blocks[0].base_layer.weight, base["blocks.0.weight"])
    assert report.counts() == {"carried": 16, "stacked": 6, "new": 4}
    before = snapshot(model)
    second = train(tmp_path / "second", model, stage)
    moved = changed(model, before)
    assert {name for name in moved if "below_1" in name} == set() and "blocks.1.base_layer.weight" not in moved
    assert "blocks.1.lora_B.default.weight" in moved and "blocks.0.lora_B.default.weight" not in model.state_dict()
    # frozen, so without dropout also while training
    assert isinstance(model.blocks[0].lora_dropout.below_1, torch.nn.Identity)

    # both are saved, each by itself, and the checkpoint computes their sum
    save_and_audit(second, tmp_path / "two")
    saved = read_adapters(tmp_path / "two")
    assert list(saved.adapters) == ["below_1", "default"]
    assert (saved.adapters["below_1"][0].r, saved.adapters["default"][0].r) == (2, 3)
    assert torch.equal(saved.base["blocks.1.weight"], base["blocks.1.weight"])
    a1, b1, a2, b2 = (
        model.blocks[1].get_parameter(f"lora_{part}.{adapter}.weight")
        for adapter in ("below_1", "default")
        for part in "AB"
    )
    merged = load_state(tmp_path / "two")["blocks.1.weight"]
    torch.testing.assert_close(merged, base["blocks.1.weight"] + 1.5 * b1 @ a1 + 2 * b2 @ a2, rtol=0, atol=1e-6)

    # a third stage stacks on both, goes on with the upper one, or drops both
    third, report, _ = take_over(tmp_path / "two", lora=new, handover={"lora": "stack"})
    assert {"below_1", "below_2", "default"} == {*third.blocks[1].lora_A}
    assert torch.equal(third.blocks[1].lora_B.below_2.weight, model.blocks[1].lora_B.default.weight)
    torch.testing.assert_close(outputs(third), outputs(model), rtol=0, atol=1e-6)
    on, report, _ = take_over(tmp_path / "two", lora=new, handover={"lora": "continue"})
    assert report.counts() == {"carried": 16, "stacked": 6, "continued": 4} and not changed(on, model.state_dict())
    bare, report, _ = take_over(tmp_path / "two", train=["head"], handover={"lora": "none"})
    assert torch.equal(bare.blocks[1].weight, base["blocks.1.weight"]) and report.counts()["dropped"] == 10


def test_none_drops_the_adapter_and_carries_the_base(first):
    folder, old, base = first()
    model, report, _ = take_over(folder, train=["head"], handover={"lora": "none"})
    assert not changed(model, base)
    assert (outputs(model) - outputs(old)).abs().max() > 1e-3
    dropped = [tensor.name for tensor in report.tensors if tensor.status == "dropped"]
    assert len(dropped) == 6 and dropped[0] == "blocks.0.lora_A.weight"
    assert report.counts() == {"carried": 16, "dropped": 6}
    fresh, _, _ = take_over(folder, lora=LORA, handover={"lora": "none"})
    assert not fresh.blocks[0].lora_B.default.weight.any()


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"r": 4}, "r changed"),
        ({"alpha": 4}, "alpha changed"),
        ({"target": "head"}, "target changed"),
        ({"dora": True}, "dora changed"),
    ],  # fmt: skip  # noqa: E501
)
def test_continue_with_another_adapter_is_an_error(first, change, named):
    folder, _, _ = first()
    with pytest.raises(RecipeError, match=f"'continue' trains the same adapter on.*{named}"):
        take_over(folder, lora={**LORA, **change}, handover={"lora": "continue"})


def test_dora_does_not_stack(first):
    folder, _, _ = first("dora")
    with pytest.raises(RecipeError, match="DoRA adapters do not stack"):
        take_over(folder, lora=LORA, handover={"lora": "stack"})


@pytest.mark.parametrize("mode", ["continue", "stack", "none"])
def test_a_checkpoint_without_adapters(tmp_path, mode):
    build_model().save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=f"handover.lora is '{mode}', and the earlier checkpoint has no LoRA"):
        take_over(tmp_path / "plain", lora=LORA, handover={"lora": mode})


def test_torn_adapters_are_named(first):
    folder, _, _ = first()
    path = folder / "adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="adapters beside this checkpoint are incomplete or damaged"):
        take_over(folder, lora=LORA, handover={"lora": "continue"})


def test_an_adapter_of_other_layers_does_not_fit(first):
    folder, _, _ = first()
    shutil.rmtree(folder / "adapter/below_1", ignore_errors=True)
    saved = read_adapters(folder)
    config, tensors = saved.adapters["default"]
    tensors.pop("base_model.model.blocks.0.lora_A.weight")
    from hfvla.training.checkpoint.adapters import put_adapter

    with pytest.raises(CheckpointError, match="does not fit this model.*blocks.0.lora_A.weight"):
        put_adapter(build_model(), config, tensors, "default")


# ---- in a recipe -------------------------------------------------------------------------------------------------


def problems(*stages) -> list[str]:
    """Problems of a recipe whose stages are given by what differs from a plain one."""
    tree = {
        "family": "ember_vlm",
        "data": {"train": [{"source": "fleet"}]},
        "stages": [
            {"name": f"s{number}", "train": ["lora"], "losses": {"selection": 1.0}, **stage}
            for number, stage in enumerate(stages)
        ],
    }
    return [problem.text for problem in all_problems(tree, {"ember_vlm": get_family("ember_vlm")}, check_args=False)]


ON = {"lora": {"target": "language"}}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{}], "'lora' is the group of a stage's adapters, and this stage has no `lora:`"),
        ([{**ON, "train": ["fusion"]}], "its adapters never train"),
        ([{"lora": {"target": "langauge"}}], "no parameter group 'langauge' in family 'ember_vlm'. Did you mean"),
        ([{"lora": {"target": "fusion.last(1)"}}], "group 'fusion' has no layers to count"),
        ([{"lora": {"target": "language.*"}}], "neither a parameter group nor `re:` and a regex"),
        ([{**ON, "handover": {"lora": "continue"}}], "'continue' needs an earlier stage with `lora:`; there is no"),
        (
            [{"train": ["fusion"]}, {**ON, "handover": {"lora": "none"}}],
            "'none' needs an earlier stage with `lora:`; stage 's0' has none",
        ),  # noqa: E501
        ([ON, {"train": ["fusion"], "handover": {"lora": "stack"}}], "'stack' needs `lora:` in this stage too"),
        (
            [ON, {"lora": {"target": "language", "r": 8}, "handover": {"lora": "continue"}}],
            "`lora.r` was 16 and is now 8",
        ),  # noqa: E501
        (
            [ON, {"lora": {"target": "language", "dora": True}, "handover": {"lora": "stack"}}],
            "DoRA adapters do not stack",
        ),  # noqa: E501
        ([{"lora": {"target": "language", "dora": True, "qlora": True}}], "`dora` and `qlora` do not go together"),
        ([ON, {"train": ["fusion"]}, {**ON, "handover": {"from": "s1", "lora": "continue"}}], "stage 's1' has none"),
    ],
)
def test_recipe_checks(stages, message):
    found = problems(*stages)
    assert len(found) == 1 and message in found[0], found


@pytest.mark.parametrize("mode", ["merge", "continue", "stack", "none"])
def test_recipes_that_are_right(mode):
    assert problems(ON, {**ON, "handover": {"lora": mode}}) == []
    assert problems(ON, {"train": ["fusion"]}, {**ON, "handover": {"from": "s0", "lora": mode}}) == []
    phases = [{"step": 1, "add": ["lora"]}]
    assert (
        problems({"lora": {"target": ["language.last(1)", "re:fusion.*"]}, "train": ["fusion"], "phases": phases})
        == []
    )  # noqa: E501


# ---- a whole run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four stages on the small family model: LoRA, then continue, then stack, then merge under a head."""
    folder = tmp_path_factory.mktemp("lora")
    path = write_tasks(folder / "tasks.json", tasks(24))
    lora = {"target": ["language", "fusion"], "r": 2, "alpha": 4}
    train = ["lora", "selection_head"]
    stages = [
        selection_stage(name="one", train=train, lora=lora),
        selection_stage(name="two", train=train, lora=lora, handover={"lora": "continue"}),
        selection_stage(
            name="three",
            train=["lora"],
            lora={**lora, "target": "language.last(1)", "r": 3},
            handover={"lora": "stack"},
        ),  # fmt: skip  # noqa: E501
        selection_stage(name="four", train=["selection_head"]),
        selection_stage(name="five", train=train, lora=lora),
    ]
    args = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "learning_rate": 5e-3, "disable_tqdm": True}
    recipe = build_recipe(path, folder / "out", stages, args={**args, "save_strategy": "steps", "save_steps": 1})
    return folder / "out", run_recipe(recipe), recipe


def test_stages_hand_adapters_on(run):
    folder, record, _ = run
    counts = {stage["name"]: stage["handover"] for stage in record["stages"]}
    layers = 2 * 4 + 1
    assert counts["one"]["new"] == 2 * layers and counts["two"]["continued"] == 2 * layers
    assert counts["three"]["stacked"] == 2 * layers and counts["three"]["new"] == 2 * 4
    assert counts["four"]["merged"] > layers and "new" not in counts["four"]
    one, two, three, four = (load_state(folder / name) for name in ("one", "two", "three", "four"))
    base = [read_adapters(folder / name).base for name in ("one", "two", "three")]
    name = "language_model.transformer.h.1.attn.c_attn.weight"
    assert torch.equal(base[0][name], base[1][name]) and torch.equal(base[0][name], base[2][name])
    assert not torch.equal(one[name], two[name]) and not torch.equal(two[name], three[name])
    assert torch.equal(three[name], four[name])  # merged, and frozen since
    assert all(set(state) == set(one) for state in (two, three, four))


def test_each_stage_was_audited(run):
    _, record, _ = run
    for stage in record["stages"]:
        assert stage["audit"]["tensors"] > 50 and "selection_logits" in stage["audit"]["outputs"]
        assert stage["audit"]["largest_difference"] < 1e-5


def test_the_final_checkpoint_is_plain_with_the_adapter_beside(run):
    from transformers import AutoModel

    folder, _, _ = run
    model, info = AutoModel.from_pretrained(folder / "final", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    assert {path.name for path in (folder / "final/adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "beside.safetensors",
    }
    table = {row["group"]: row for row in json.loads((folder / "five/trainable.json").read_text())}
    assert table["lora"]["trainable"] == table["lora"]["parameters"] > 0


def test_a_run_that_was_cut_off_ends_bit_equal(run, tmp_path, monkeypatch):
    folder, _, recipe = run
    step = StagedTrainer.training_step

    def power_cut(trainer, *args, **kwargs):
        if (trainer.stage.name, trainer.state.global_step) == ("two", 2):
            raise KeyboardInterrupt
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(StagedTrainer, "training_step", power_cut)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, output_dir=tmp_path, stop_after="two")
    monkeypatch.setattr(StagedTrainer, "training_step", step)
    assert (tmp_path / "two/checkpoints/checkpoint-2").is_dir() and not (tmp_path / "two/model.safetensors").exists()
    run_recipe(recipe, output_dir=tmp_path, stop_after="two")
    for name in ("model", "adapter/adapter_model", "adapter/base"):
        one, two = (load_file(root / f"two/{name}.safetensors") for root in (folder, tmp_path))
        assert set(one) == set(two) and all(torch.equal(two[key], value) for key, value in one.items())
