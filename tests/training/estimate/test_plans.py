"""Plans of shipped shapes and of recipes."""

import dataclasses
from fnmatch import fnmatchcase

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from hfvla.errors import HfvlaError, RecipeError
from hfvla.recipe import Lora, Recipe
from hfvla.registry import get_family
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.estimate import (
    GPU_COUNTS,
    SETTINGS,
    EstimateError,
    ModelBytes,
    ShapeRun,
    Throughput,
    find_gpu,
    plan_recipe,
    plan_shape,
    profile_step,
    shape_batch,
    shape_model,
    shape_names,
)
from hfvla.training.estimate.costs import memory_row
from hfvla.training.estimate.counting import Counter, term_shares
from hfvla.training.estimate.recipe import base_config, meta_model
from hfvla.training.estimate.tools import add_adapters
from hfvla.training.run.run import run_recipe

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks

PUBLISHED = {
    "internvl3_1b": 938_193_024,
    "internvl3_8b": 7_944_373_760,
    "qwen2_5_vl_3b": 3_754_622_976,
    "qwen2_5_vl_7b": 8_292_166_656,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_are_the_real_ones(name):
    assert set(shape_names()) == set(PUBLISHED)
    model, groups = shape_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]
    covered = [n for n, _ in model.named_parameters() if sum(_in(n, group) for group in groups.values()) == 1]
    assert len(covered) == len(list(model.parameters()))  # every parameter is in one group
    assert all(parameter.device.type == "meta" for parameter in model.parameters())


def _in(name, group):
    return any(fnmatchcase(name, pattern) for pattern in group.patterns)


def test_flops_of_a_shape_are_six_a_parameter_and_token():
    model, _ = shape_model("internvl3_1b")
    batch = shape_batch(model.config, 1, 512, images=0)
    language = [name for name, _ in model.named_parameters() if "language_model" in name or "lm_head" in name]
    found = profile_step(model, batch, trainable=language, dtype=torch.bfloat16)
    counted = sum(p.numel() for name, p in model.named_parameters() if name in language and "embed_tokens" not in name)
    attention = 24 * 3 * 4 * 512 * 512 * 896  # layers x (forward and twice backward) x QK and PV x tokens^2 x width
    expected = 6 * counted * 512 + attention
    assert found.flops == pytest.approx(expected, rel=0.03)  # flash attention's backward pass computes QK again


@pytest.fixture(scope="module")
def full():
    return plan_shape("internvl3_1b", ShapeRun(train=("projector", "language"), tokens=320, samples=1000))


def test_plan_of_a_shape(full):
    stage = full["stages"][0]
    costs = stage["costs"]
    switches = {row["checkpointing"] for row in costs["settings"]}
    keys = {(row["setting"], row["gpus"], row["checkpointing"]) for row in costs["settings"]}
    assert switches == {True, False} and len(keys) == len(costs["settings"]) == len(SETTINGS) * len(GPU_COUNTS) * 2
    count = stage["trainable_parameters"]
    plain = next(r for r in costs["settings"] if (r["setting"], r["gpus"], r["checkpointing"]) == ("plain", 1, False))
    assert (plain["gradients"], plain["optimizer"]) == (4 * count, 8 * count)
    assert plain["weights"] == pytest.approx(4 * 938_193_024, rel=1e-4)
    best = costs["cheapest"][0]
    assert best["total"] <= find_gpu(best["gpu"]).memory_bytes
    assert best["price_per_sample"] == min(option["price_per_sample"] for option in costs["cheapest"])
    assert best["hours"] == pytest.approx(best["steps"] * best["step_seconds"] / 3600)
    assert stage["checkpoint_bytes"] == pytest.approx(4 * 938_193_024, rel=1e-4) and stage["adapter_bytes"] == 0


def test_adapters_on_a_shape():
    sizes = {}
    for four_bit in (False, True):
        model, groups = shape_model("internvl3_1b")
        packed = add_adapters(model, groups, Lora(target="language", r=8, qlora=four_bit))
        trained = [name for name, _ in model.named_parameters() if ".lora_" in name]
        sizes[four_bit] = ModelBytes.of(model, trained, four_bit=packed)
    adapted = 24 * (2 * 896 * 896 + 2 * 128 * 896 + 3 * 896 * 4864)  # q, o; k, v; gate, up, down
    saved = 4 * adapted - (adapted // 2 + adapted // 64 + adapted // 4096)
    assert sizes[False].weights - sizes[True].weights == saved
    count = 24 * 8 * (2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864))
    assert {size.trainable for size in sizes.values()} == {count}
    assert {size.optimizer.state for size in sizes.values()} == {8 * count}


def test_measured_speed_and_chosen_gpus():
    run = ShapeRun(train=("projector",), tokens=320)
    plan = plan_shape("internvl3_1b", run, Throughput({"a40-48": 1.0}), [find_gpu("a40-48")])
    costs = plan["stages"][0]["costs"]
    assert {option["gpu"] for option in costs["cheapest"]} == {"a40-48"}
    one = next(o for o in costs["cheapest"] if o["gpus"] == 1)
    assert one["measured"] and one["step_seconds"] == pytest.approx(costs["flops_per_sample"] / 1e12, rel=0.01)


def test_bad_shapes():
    with pytest.raises(HfvlaError, match="no shape 'internvl3_2b' is shipped. Did you mean 'internvl3_"):
        plan_shape("internvl3_2b")
    with pytest.raises(HfvlaError, match="no room for its images.*200 tokens.*1 x 258"):
        plan_shape("internvl3_1b", ShapeRun(tokens=200))
    with pytest.raises(RecipeError, match="no parameter group 'langage'. Did you mean 'language'"):
        plan_shape("internvl3_1b", ShapeRun(train=("langage",)))
    with pytest.raises(RecipeError, match="nothing trains"):
        plan_shape("internvl3_1b", ShapeRun(train=()))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("plan") / "tasks.json", tasks(48))


def test_phases_of_a_recipe(source, tmp_path):
    phases = [
        {"epoch": 1, "add": ["language.last(1)"], "losses": {"selection": 2.0}},
        {"step": 9, "add": ["projector"]},
    ]
    ramp = {"kind": "linear", "start": 0.0, "end": 1.0, "epochs": [0, 2]}
    stages = [
        selection_stage(train=["fusion", "selection_head"], phases=phases, args={"num_train_epochs": 3}),
        reasoning_stage(losses={"selection": 1.0, "reasoning": ramp}, args={"max_steps": 7}),
    ]
    plan = plan_recipe(build_recipe(source, tmp_path, stages))
    first, second = plan["stages"]
    assert (first["samples"], first["steps"]) == (36, 15)  # 3/4 of 48 rows, batches of 8
    assert [(p["begins"], p["step"], p["steps"]) for p in first["phases"]] == [
        ("start", 0, 5), ("epoch 1", 5, 4), ("step 9", 9, 6)
    ]  # fmt: skip
    trainable = [phase["trainable_parameters"] for phase in first["phases"]]
    assert trainable[0] < trainable[1] < trainable[2] == first["trainable_parameters"]
    assert [phase["losses"]["selection"] for phase in first["phases"]] == [1.0, 2.0, 2.0]
    assert first["phases"][1]["learning_rates"] == {"language.last(1)": 5e-3}
    assert second["steps"] == 7 and second["losses"]["reasoning"]["end"] == 1.0
    assert {option["steps"] for option in second["costs"]["cheapest"]} == {7}
    for stage in plan["stages"]:
        assert not stage["notes"] and stage["costs"]["flops_per_sample"] > 0


def test_a_cached_stage_runs_its_prefix_once(source, tmp_path):
    def planned(throughput=None, **changes):
        stages = [selection_stage(train=["fusion", "selection_head"], args={"num_train_epochs": 10}, **changes)]
        return plan_recipe(build_recipe(source, tmp_path, stages), throughput)["stages"][0]

    plain, cached = planned(), planned(cache={"dtype": "bfloat16", "views": 2})
    model = meta_model(get_family("ember_vlm"), base_config(build_recipe(source, tmp_path), get_family("ember_vlm")))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = model.eval().encode_pixels(torch.empty(1, 3, 64, 64, device="meta"))
    saved = plain["costs"]["flops_per_sample"] - cached["costs"]["flops_per_sample"]
    assert saved == counter.get_total_flops() > 0  # a frozen prefix has no backward pass
    assert f"{maps.numel() * 2 / 1e3:.3g} kB a sample" in cached["notes"][0] and not plain["notes"]
    activations = [stage["costs"]["activation_bytes"]["plain"] for stage in (plain, cached)]
    assert activations[1] < activations[0]
    slow, speed = Throughput({}, mfu=1e-6), 1e-6 * find_gpu("a100-80").peak_tflops_float32 * 1e12
    hours = [
        next(option["hours"] for option in stage["costs"]["cheapest"] if option["gpu"] == "a100-80")
        for stage in (planned(slow, cache={"views": views}) for views in (1, 2))
    ]
    assert hours[1] - hours[0] == pytest.approx(36 * saved / speed / 3600, rel=1e-6)  # 36 samples


def test_grad_cache_holds_the_activations_of_a_chunk(source, tmp_path):
    plans = [
        plan_recipe(build_recipe(source, tmp_path, [selection_stage(args=sizes, **changes)]))["stages"][0]
        for sizes, changes in (
            ({"per_device_train_batch_size": 8}, {"grad_cache": 2}),
            ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, {}),
            ({"per_device_train_batch_size": 8}, {}),
        )
    ]
    cached, small, whole = (stage["costs"]["activation_bytes"]["plain"] for stage in plans)
    assert cached == small < whole
    assert [stage["batch_size"] for stage in plans] == [8, 8, 8] and plans[0]["steps"] == plans[2]["steps"]
    assert "chunks of 2 rows" in plans[0]["notes"][0] and not plans[2]["notes"]


def test_balancing_by_gradients_is_counted(source, tmp_path):
    losses = {"selection": 1.0, "reasoning": 1.0}
    plans = [
        plan_recipe(build_recipe(source, tmp_path, [selection_stage(losses=losses, loss_weighting=way)]))["stages"][0]
        for way in ("fixed", "pcgrad")
    ]
    held = [stage["costs"]["settings"][0]["gradients"] for stage in plans]
    assert held[1] - held[0] == 2 * 4 * plans[0]["trainable_parameters"]  # a float32 gradient a term


def test_a_checkpoint_has_the_planned_bytes(source, tmp_path):
    lora = {"target": "language", "r": 2}
    stages = [selection_stage(train=["selection_head", "lora"], lora=lora, args={"max_steps": 1})]
    recipe = build_recipe(source, tmp_path / "run", stages, evaluation={"bootstrap_samples": 0})
    planned = plan_recipe(recipe)["stages"][0]
    run_recipe(recipe)
    folder = tmp_path / "run" / "selection"
    beside = [load_file(path) for path in folder.glob("adapter/*.safetensors")]
    assert sum(map(tensor_bytes, beside)) == planned["adapter_bytes"]
    assert tensor_bytes(load_state(folder)) == planned["checkpoint_bytes"]


def tensor_bytes(state):
    return sum(value.numel() * value.element_size() for value in state.values())


def test_a_gradient_report_is_counted(source, tmp_path):
    losses, report = {"selection": 1.0, "reasoning": 0.5}, {"every": 5, "groups": ["selection_head"]}
    plain, reported = (
        plan_recipe(build_recipe(source, tmp_path, [selection_stage(losses=losses, **more)]))["stages"][0]
        for more in ({}, {"gradient_report": report})
    )
    held = [stage["costs"]["settings"][0]["gradients"] for stage in (plain, reported)]
    head = next(row for row in plain["groups"] if row["group"] == "selection_head")["trainable"]
    assert held[1] - held[0] == 2 * 4 * head  # a float32 gradient a term


def test_what_trains_of_a_bf16_backbone_is_planned_in_float32():
    config = get_family("internvl_video_qa").load("config").tiny().to_dict()
    config = {name: config[name] for name in ("backbone_config", "frames", "tiling")}
    section = {"config": {**config, "backbone_config": {**config["backbone_config"], "dtype": "bfloat16"}}}
    data = {"train": [{"source": "road", "size": 8}]}
    stages = [
        {"name": "first", "train": ["projector"], "losses": {"letters": 1.0}},
        {"name": "second", "train": ["lora"], "lora": {"target": "language", "r": 8}, "losses": {"letters": 1.0}},
    ]
    recipe = Recipe(family="internvl_video_qa", model=section, data=data, stages=stages, args={"bf16": True})
    first, second = plan_recipe(recipe)["stages"]
    types = [{row["group"]: row["dtype"] for row in stage["groups"]} for stage in (first, second)]
    assert types[0] == {"vision": "bfloat16", "projector": "float32", "language": "bfloat16"}
    # The projector stays as it was trained; a second stage takes it over without rounding.
    assert types[1] == {"vision": "bfloat16", "projector": "float32", "language": "bfloat16", "lora": "float32"}
    for stage in (first, second):
        plain = stage["costs"]["settings"][0]
        assert (plain["setting"], plain["gradients"]) == ("plain", 4 * stage["trainable_parameters"])
        assert plain["optimizer"] == 8 * stage["trainable_parameters"]


def test_settings_as_written(source, tmp_path):
    zero = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}, "gradient_clipping": "auto"}
    stage = selection_stage(args={"bf16": True, "deepspeed": zero, "gradient_checkpointing": True})
    found = plan_recipe(build_recipe(source, tmp_path, [stage]))["stages"][0]
    assert found["as_written"] == {"setting": "zero2+optimizer", "checkpointing": True}
    assert found["precision"] == "bf16-mixed"
    assert found["as_written"]["setting"] in {setting.name for setting in SETTINGS}


def test_a_family_without_a_batch_says_so(source, tmp_path, monkeypatch):
    spec = get_family("ember_vlm")
    without = dataclasses.replace(spec, hooks={"plan_batch": "hfvla.errors:no_such_function"})
    monkeypatch.setattr("hfvla.training.estimate.recipe.get_family", lambda name: without)
    stage = plan_recipe(build_recipe(source, tmp_path, [selection_stage()]))["stages"][0]
    assert stage["costs"] is None and "gives no `plan_batch`" in stage["notes"][0]
    assert stage["trainable_parameters"] > 0


def test_a_step_that_cannot_be_followed_is_noted(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise EstimateError("the step branches")

    monkeypatch.setattr("hfvla.training.estimate.recipe.training_costs", refuse)
    stage = plan_recipe(build_recipe(source, tmp_path, [selection_stage()]))["stages"][0]
    assert stage["costs"] is None and stage["notes"] == ["no memory and time: the step branches"]


@pytest.mark.parametrize("losses", [("selection",), ("reasoning", "consistency"), ("itc", "caption"), ("instruct",)])
def test_the_planned_batch_has_what_the_collator_makes(losses):
    spec = get_family("ember_vlm")
    recipe = {"config": spec.load("config").tiny().to_dict(), "options": {"tokenizer_vocab_size": 400}}
    recipe["config"] = {k: v for k, v in recipe["config"].items() if not k.endswith("_token_id")}
    rows = [row for row in spec.load("examples")(8, 0) if row["image"] is not None]
    model, processor = spec.load("initialise")(recipe, rows, 0)
    real = spec.load("collator")(processor, model.config, losses=losses, training=True)(rows)
    planned = spec.load("plan_batch")(model.config, len(rows), losses)
    real.pop("source_ids", None)  # says where a row comes from, for the log
    assert set(planned) == set(real)
    for name, value in real.items():
        assert planned[name].dim() == value.dim() and planned[name].is_floating_point() == value.is_floating_point()
    assert planned["pixel_values"].shape[1:] == real["pixel_values"].shape[1:]


def test_a_planned_batch_has_the_shares_of_the_sources(tmp_path):
    """A sixth of captions beside tasks is no batch of as many captions as tasks."""
    tasks = {"source": "fleet", "size": 100, "images": False, "weight": 5, "losses": ["reasoning"]}
    captions = {"source": "shapes", "size": 100, "weight": 1, "losses": ["caption"]}
    stage = {**selection_stage(), "losses": {"reasoning": 1.0, "caption": 0.5}}
    stage["data"] = {"train": [tasks, captions], "mixture": {"kind": "fixed", "rows": 60}}
    recipe = build_recipe("", tmp_path, [stage])
    spec = get_family("ember_vlm")
    shares = term_shares(recipe, recipe.stages[0], Counter(recipe, spec).mixture(recipe.stages[0]))
    assert shares == pytest.approx({"reasoning": 5 / 6, "caption": 1 / 6})
    config = spec.load("config").tiny()
    kinds = spec.load("plan_batch")(config, 12, ("reasoning", "caption"), shares=shares)["text_kind"].tolist()
    assert len(kinds) == 12 and len(set(kinds)) == 2 and sorted(map(kinds.count, set(kinds))) == [2, 10]
    assert len(spec.load("plan_batch")(config, 12, ("reasoning", "caption"))["text_kind"]) == 24
    recipe = build_recipe("", tmp_path, [{**stage, "data": {"train": [{"source": "shapes", "size": 9}]}}])
    assert not term_shares(recipe, recipe.stages[0], [{"share": 1.0}])


def test_memory_row_is_plain():
    from hfvla.training.estimate import MemoryEstimate

    row = memory_row(MemoryEstimate("plain", 1, False, 1, 2, 3, 4, 5, 10, 6, 0), [find_gpu("a40-48")])
    assert row["total"] == 16 and row["fits"] == {"a40-48": True}
