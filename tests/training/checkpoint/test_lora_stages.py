"""LoRA in a script: what `StagedTrainer` saves can be loaded, and a second stage finds the first one's adapters."""

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from hfvla.errors import CheckpointError, RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.checkpoint.merging import merge_checkpoint
from hfvla.training.checkpoint.stored import fill_exactly, stored_state
from hfvla.training.stage.groups import adapter_of

from ..lora.test_injection import KINDS, LORA, outputs, randomise
from ..toy import ToyModel, build_model, build_trainer, changed, snapshot

SAVED = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}


def adapted(model) -> bool:
    return any(isinstance(module, LoraLayer) for module in model.modules())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["checkpoint-2", "final"])
def test_what_the_trainer_saves_is_an_ordinary_checkpoint(tmp_path, kind, where):
    start = build_model()
    trainer = build_trainer(tmp_path, train=["lora", "head"], lora={**LORA, **KINDS[kind]}, args=SAVED)
    trainer.train()
    trainer.save_model(tmp_path / "final")
    loaded, info = ToyModel.from_pretrained(tmp_path / where, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not adapted(loaded)
    torch.testing.assert_close(outputs(loaded), outputs(trainer.model), rtol=0, atol=1e-6)
    assert changed(loaded, snapshot(start)) >= {"blocks.0.weight", "head.weight"}
    start.head.load_state_dict(trainer.model.head.state_dict())  # and peft loads the adapter on what it was trained on
    start.backbone.load_state_dict(trainer.model.backbone.state_dict())
    assert torch.equal(outputs(PeftModel.from_pretrained(start, tmp_path / where / "adapter")), outputs(trainer.model))
    fresh = build_trainer(tmp_path / "b", build_model(3), train=["lora", "head"], lora={**LORA, **KINDS[kind]}).model
    fill_exactly(fresh, tmp_path / where)
    assert not changed(fresh, trainer.model.state_dict())


def test_a_language_model_reloads_to_the_loss_it_had(tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=20, num_hidden_layers=1, **sizes))
    tokens = torch.arange(8)
    rows = [{"input_ids": tokens, "labels": tokens}] * 4
    groups = {"language": ParameterGroup(("model.*",))}
    trainer = build_trainer(
        tmp_path,
        model,
        rows,
        train=["lora"],
        lora={"target": "language", "r": 2},
        losses={"loss": 1.0},
        args={"label_names": ["labels"], "learning_rate": 1e-1, "max_steps": 3},
        extra={"groups": groups, "data_collator": None},
    )
    trainer.train()
    trainer.save_model(tmp_path / "final")
    losses = [
        each.eval()(input_ids=tokens[None], labels=tokens[None]).loss.item()
        for each in (trainer.model, LlamaForCausalLM.from_pretrained(tmp_path / "final"))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0] < 2.9  # log 20 = 3.0 at the start


def test_weights_with_adapters_among_them_are_not_called_merged(tmp_path):
    trainer = build_trainer(tmp_path / "out", train=["lora"], lora=LORA)
    trainer.model.save_pretrained(tmp_path / "raw")  # as transformers writes injected adapters
    with pytest.raises(
        CheckpointError, match=r"unmerged adapters among the weights.*'blocks.0.lora_A.default.weight'"
    ):
        merge_checkpoint(tmp_path / "raw", tmp_path / "merged")
    fresh = build_trainer(tmp_path / "out", build_model(3), train=["lora"], lora=LORA).model
    fill_exactly(fresh, tmp_path / "raw")  # an earlier version's checkpoint can be gone on from
    assert not changed(fresh, trainer.model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "head.bias"}, "missing: head.bias"),
        (lambda s: {**s, "head.bias": torch.ones(3)}, r"head.bias \[3\] for \[1\]"),
        (lambda s: {**s, "tail.bias": torch.ones(3)}, "unexpected: tail.bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, message):
    from safetensors.torch import save_file

    trainer = build_trainer(tmp_path, train=["lora"], lora=LORA)
    trainer.save_model(tmp_path / "final")
    path = tmp_path / "final/model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        fill_exactly(trainer.model, tmp_path / "final")


# ---- the next stage ----------------------------------------------------------------------------------------------


@pytest.fixture
def first(tmp_path):
    """Train a first stage with LoRA; return the model with adapters that are not zero, and its outputs."""
    trainer = build_trainer(tmp_path / "one", train=["lora", "head"], lora=LORA)
    trainer.train()
    randomise(trainer.model)
    return trainer.model, outputs(trainer.model)


def second(tmp_path, model, **options):
    return build_trainer(tmp_path / "two", model, **{"name": "second", "train": ["lora", "head"], **options})


def test_another_rank_sits_on_merged_weights(first, tmp_path):
    model, before = first
    trainer = second(tmp_path, model, lora={**LORA, "r": 3})
    assert model.blocks[0].lora_A.default.weight.shape == (3, 4) and not model.blocks[0].lora_B.default.weight.any()
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-6)
    trainer.train()
    assert model.blocks[0].lora_B.default.weight.any()


def test_a_stage_without_lora_has_no_adapters(first, tmp_path):
    model, before = first
    trainer = second(tmp_path, model, train=["blocks"])
    assert not adapted(model) and not hasattr(model, "peft_config")
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-6)
    weights = snapshot(model)
    trainer.train()
    assert "blocks.0.weight" in changed(model, weights)


def test_continue_stack_and_none(first, tmp_path):
    model, before = first
    state = snapshot(model)
    second(tmp_path, model, lora=LORA, handover={"lora": "continue"})
    assert not changed(model, state)
    second(tmp_path, model, name="third", lora={**LORA, "r": 3}, handover={"lora": "stack"})
    assert {*model.blocks[0].lora_A} == {"below_1", "default"}
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-6)
    second(tmp_path, model, name="fourth", train=["head"], handover={"lora": "none"})
    assert not adapted(model) and torch.equal(model.blocks[0].weight, state["blocks.0.base_layer.weight"])
    model, _ = first
    second(tmp_path, model, lora=LORA)
    with pytest.raises(RecipeError, match="'continue' trains the same adapter on.*r changed since 'second'"):
        second(tmp_path, model, name="third", lora={**LORA, "r": 3}, handover={"lora": "continue"})


def test_the_same_stage_trains_the_same_adapters_on(first, tmp_path):
    model, _ = first
    state = snapshot(model)
    trainer = build_trainer(tmp_path / "one", model, train=["lora", "head"], lora=LORA)
    assert not changed(model, state) and trainer.stage == Stage(name="first", train=["lora", "head"], losses={"fit": 1.0}, lora=LORA)  # fmt: skip  # noqa: E501


def test_adapters_on_partitioned_weights_are_refused(first, tmp_path):
    model, _ = first
    model.head.weight.ds_shape = torch.Size([1, 4])
    with pytest.raises(RecipeError, match=r"stage 'second'.*spread by ZeRO-3\. Save that stage"):
        second(tmp_path, model, lora={**LORA, "r": 3})


def test_saving_draws_no_random_numbers(tmp_path):
    trainer = build_trainer(tmp_path, train=["lora"], lora=LORA)
    before = torch.get_rng_state()
    trainer.save_model(tmp_path / "final")
    assert torch.equal(torch.get_rng_state(), before)
    assert any(adapter_of(name) for name in stored_state(trainer.model, tmp_path / "final"))
