"""What trains is float32, in whatever type its model was loaded, and stays so through checkpoint and hand-over."""

import pytest
import torch

from hfvla.nn.mixed_precision import accept_mixed_types
from hfvla.recipe import Lora, Stage
from hfvla.registry import available_families
from hfvla.training.checkpoint.audit import forward_outputs
from hfvla.training.checkpoint.handover import hand_over, load_state
from hfvla.training.lora.injection import inject_lora
from hfvla.training.run.tables import trainable_text
from hfvla.training.stage.groups import adapter_parameters, assign_parameters, expand_group, trainable_table

from ..toy import GROUPS, build_model, build_trainer

LOSSES = {"fit": 1.0, "level": 1.0}


def types(model, names):
    return {model.get_parameter(name).dtype for name in names}


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_adapters_of_a_half_precision_model_are_float32(half):
    model = build_model().to(half)
    inject_lora(model, GROUPS, Lora(target="blocks", r=2, alpha=4))
    assert types(model, adapter_parameters(model)) == {torch.float32}
    assert model.blocks[0].base_layer.weight.dtype == half


@pytest.mark.parametrize("autocast", [True, False])
def test_a_bf16_model_trains_in_float32(tmp_path, autocast):
    model = build_model().bfloat16()
    args = {"bf16": autocast, "learning_rate": 1e-6}
    trainer = build_trainer(tmp_path, model, train=["head", "blocks.last(1)"], losses=LOSSES, args=args)
    trained = {*expand_group(model, GROUPS, "head"), *expand_group(model, GROUPS, "blocks.last(1)")}
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer.train()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == trained  # 1e-6 is below what bfloat16 tells from 1
    assert types(model, trained) == {torch.float32}
    assert types(model, set(before) - trained) == {torch.bfloat16}
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in states} == {torch.float32}


def test_parts_that_join_later_are_float32_from_the_start(tmp_path):
    model = build_model().bfloat16()
    phases = [{"step": 1, "add": ["blocks.last(1)"]}]
    trainer = build_trainer(tmp_path, model, phases=phases, losses=LOSSES, args={"bf16": True})
    assert types(model, expand_group(model, GROUPS, "blocks.last(1)")) == {torch.float32}
    trainer.train()


def test_the_table_says_the_types():
    model = build_model()
    model.backbone.bfloat16(), model.blocks[0].bfloat16(), model.head.bfloat16()
    trained = assign_parameters(model, GROUPS, ["blocks.last(1)"])
    rates = {"blocks.last(1)": 1e-3, "head": 1e-3}
    rows = trainable_table(model, GROUPS, trained, rates)
    assert {row.group: row.dtype for row in rows} == {
        "backbone": "bfloat16",
        "blocks": "float32; frozen bfloat16, float32",
        "head": "bfloat16",
        "total": "float32; frozen bfloat16, float32",
    }
    rows = trainable_table(model, GROUPS, assign_parameters(model, GROUPS, ["head"]), rates, engine=torch.bfloat16)
    assert {row.group: row.dtype for row in rows} == {
        "backbone": "bfloat16",
        "blocks": "bfloat16",
        "head": "bfloat16, float32 master weights",
        "total": "bfloat16, float32 master weights",
    }
    stage = Stage(name="one", train=["head"], losses=LOSSES)
    assert "float32 master weights" in " ".join(trainable_text(stage, rows).split())


def test_deepspeed_in_bf16_keeps_master_weights_itself(tmp_path, monkeypatch):
    from hfvla.training.trainer import master_weights

    monkeypatch.setattr(master_weights, "engine_type", lambda trainer: torch.bfloat16)
    model = build_model().bfloat16()
    build_trainer(tmp_path, model, losses=LOSSES)
    assert types(model, [name for name, _ in model.named_parameters()]) == {torch.bfloat16}


# ---- checkpoints of families --------------------------------------------------------------------------------------


def mixed_model(family):
    """Return a tiny bf16 model of a family of which the last part of the language model is float32, and its spec."""
    spec = available_families()[family]
    torch.manual_seed(0)
    model = spec.new_model(spec.tiny_config()).eval()
    spec = spec.of_model(model)
    for parameter in model.parameters():  # not the buffers: angles of positions are float32 in a loaded model too
        parameter.data = parameter.data.bfloat16()
    names = expand_group(model, spec.groups, "language.last(1)")
    for name in names:
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.float() + 1e-4  # not a bfloat16 number
    accept_mixed_types(model)
    return spec, model, names


@pytest.mark.parametrize("family", sorted(name for name, spec in available_families().items() if not spec.plain))
def test_a_checkpoint_keeps_the_types_of_its_parts(family, tmp_path):
    spec, model, names = mixed_model(family)
    model.save_pretrained(tmp_path)
    again = spec.load("model").from_pretrained(tmp_path)
    values, wanted = again.state_dict(), model.state_dict()
    assert {name: value.dtype for name, value in values.items()} == {n: v.dtype for n, v in wanted.items()}
    assert [name for name, value in values.items() if not torch.equal(value, wanted[name])] == []
    assert again.dtype == torch.bfloat16 and again.config.float32_parts
    # The next stage builds its model from the config, here in bfloat16, and takes the weights over: none is rounded.
    torch.set_default_dtype(torch.bfloat16)
    try:
        after = spec.load("model")(spec.load("config").from_pretrained(tmp_path))
    finally:
        torch.set_default_dtype(torch.float32)
    hand_over(after, load_state(tmp_path), Stage(name="two", train=["language"], losses=LOSSES).handover, {}, "one")
    assert types(after, names) == {torch.float32} and after.dtype == torch.bfloat16
    assert all(torch.equal(after.get_parameter(name), model.get_parameter(name)) for name in names)


def test_a_stage_of_a_bf16_backbone_reloads_as_it_was(tmp_path):
    """The save audit compares what the saved stage computes; autocast in training, none after."""
    _, model, _ = mixed_model("internvl_video_qa")
    batch = {"input_ids": torch.arange(40, 52).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = forward_outputs(model, batch)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    here, there = forward_outputs(model, batch), forward_outputs(again, batch)
    assert here and all(torch.equal(here[name], there[name]) for name in here)
    for name, value in trained.items():
        torch.testing.assert_close(here[name], value, atol=5e-2, rtol=5e-2)
