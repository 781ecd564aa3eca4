"""The save audit: a checkpoint that is not what was trained is never taken for one that is."""

from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hfvla.errors import CheckpointError
from hfvla.training.checkpoint import checkpoints
from hfvla.training.checkpoint.adapters import check_adapters
from hfvla.training.checkpoint.audit import (
    _difference,
    audit_outputs,
    audit_reload,
    audit_weights,
    forward_outputs,
    sample_batch,
    weight_shapes,
)
from hfvla.training.run import saving
from hfvla.training.run.saving import save_and_audit

from ..lora.test_injection import LORA, randomise
from ..toy import ToyModel, build_model, build_trainer, snapshot


@pytest.fixture
def saved(tmp_path):
    model = build_model()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def damage(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file(change(state), path, {"format": "pt"})


DAMAGES = {
    "empty": (lambda s: {**s, "head.weight": torch.empty(0)}, r"empty: head\.weight"),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "blocks.1.bias"}, r"missing: blocks\.1\.bias"),
    "unexpected": (lambda s: {**s, "blocks.7.weight": torch.ones(2)}, r"unexpected: blocks\.7\.weight"),
    "shape": (lambda s: {**s, "head.weight": torch.ones(2, 2)}, r"another shape: head\.weight \[2, 2\] for \[1, 4\]"),
    "value": (lambda s: {**s, "head.bias": s["head.bias"] + 1e-7}, r"of another value: head\.bias"),
    "dtype": (lambda s: {**s, "head.bias": s["head.bias"].double()}, r"of another value: head\.bias"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_named(saved, kind):
    model, folder = saved
    assert audit_weights(folder, weight_shapes(model), values=model.state_dict()) == 16
    change, message = DAMAGES[kind]
    damage(folder, change)
    with pytest.raises(
        CheckpointError, match=f"{folder.name}: the checkpoint does not hold what was trained.*{message}"
    ):
        audit_weights(folder, weight_shapes(model), values=model.state_dict())


def test_long_lists_are_cut_and_kinds_named_together(saved):
    model, folder = saved
    damage(folder, lambda s: {"head.weight": torch.empty(0), **{k: v for k, v in s.items() if "blocks" not in k and "weight" not in k}})  # fmt: skip  # noqa: E501
    with pytest.raises(CheckpointError, match=r"missing: .* and 4 more; empty: head\.weight"):
        audit_weights(folder, weight_shapes(model))


def test_torn_and_absent_files(saved):
    model, folder = saved
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="the saved weights are torn"):
        audit_weights(folder, weight_shapes(model))
    path.unlink()
    with pytest.raises(CheckpointError, match="no weights were saved; expected 16 tensors"):
        audit_weights(folder, weight_shapes(model))


def test_not_a_number_is_a_value_like_any_other(saved):
    model, folder = saved
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    model.save_pretrained(folder)
    assert audit_weights(folder, weight_shapes(model), values=model.state_dict()) == 16


def test_tied_weights_are_saved_once(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=8, vocab_size=11))
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert audit_reload(model, tmp_path, model.state_dict()).lm_head.weight.shape == (11, 4)
    damage(tmp_path, lambda s: {k: v for k, v in s.items() if "wte" not in k})
    with pytest.raises(CheckpointError):
        audit_reload(model, tmp_path, {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"})


def test_partitioned_weights_count_in_full():
    model = build_model()
    model.head.weight.ds_shape = torch.Size([1, 4])
    model.head.weight.data = torch.empty(0)  # as ZeRO-3 leaves it
    assert weight_shapes(model)["head.weight"] == (1, 4)


def test_shards_are_read(tmp_path):
    model = build_model()
    model.save_pretrained(tmp_path, max_shard_size=100)
    assert len([*tmp_path.glob("model-*.safetensors")]) > 1
    audit_reload(model, tmp_path, model.state_dict())


# ---- in a trainer ------------------------------------------------------------------------------------------------


def test_a_stage_is_saved_and_compared(tmp_path):
    trainer = build_trainer(tmp_path / "out")
    trainer.train()
    before, generator = snapshot(trainer.model), torch.get_rng_state()
    modes = [module.training for module in trainer.model.modules()]
    report = save_and_audit(trainer, tmp_path / "stage")
    assert report == {"tensors": 16, "outputs": ["logits", "loss", "loss_terms.fit", "loss_terms.level"], "largest_difference": 0.0}  # fmt: skip  # noqa: E501
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in trainer.model.modules()] == modes
    loaded = ToyModel.from_pretrained(tmp_path / "stage")
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert not (tmp_path / "stage/adapter").exists() and not (tmp_path / "stage/training_args.bin").exists()


def test_a_checkpoint_that_computes_something_else(tmp_path):
    class Changing(ToyModel):
        """Whatever makes a loaded model differ: here a value that is in no file."""

        scale = 1.0

        def forward(self, features, **kwargs):
            return super().forward(features * self.scale, **kwargs)

        @classmethod
        def from_pretrained(cls, *args, **kwargs):
            model, info = super().from_pretrained(*args, **kwargs)
            model.scale = 1.1
            return model, info

    model = Changing(build_model().config)
    randomise(model)
    trainer = build_trainer(tmp_path / "out", model)
    trainer.train()
    with pytest.raises(
        CheckpointError, match=r"does not compute what the trained model does; got \"'logits' differs by"
    ):
        save_and_audit(trainer, tmp_path / "stage")


def test_a_gather_that_left_a_hole(tmp_path, monkeypatch):
    trainer = build_trainer(tmp_path / "out", train=["lora", "head"], lora=LORA)
    trainer.train()
    whole = saving.gathered_state

    def holed(trainer):
        return {**whole(trainer), "blocks.0.lora_B.default.weight": torch.empty(0)}

    monkeypatch.setattr(saving, "gathered_state", holed)
    with pytest.raises(CheckpointError, match="do not fit the model.*blocks.0.lora_B.default.weight"):
        save_and_audit(trainer, tmp_path / "stage")


def test_adapters_on_disk_are_compared(tmp_path):
    trainer = build_trainer(tmp_path / "out", train=["lora", "head"], lora=LORA)
    trainer.train()
    save_and_audit(trainer, tmp_path / "stage")
    state = trainer.model.state_dict()
    check_adapters(tmp_path / "stage", state)
    state["blocks.1.lora_A.default.weight"] = state["blocks.1.lora_A.default.weight"] + 1e-6
    with pytest.raises(CheckpointError, match="not those that were trained; got .'blocks.1.lora_A.default.weight'"):
        check_adapters(tmp_path / "stage", state)
    with pytest.raises(CheckpointError, match="not those that were trained"):
        check_adapters(tmp_path / "stage", build_model().state_dict())


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_checkpoint_inside_a_stage_with_a_hole_does_not_count(tmp_path, monkeypatch, lora):
    args = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer = build_trainer(tmp_path, train=["lora"] if lora else ["head"], lora=lora, args=args)
    publish = checkpoints.audit_checkpoint

    def torn(trainer, folder):
        if trainer.state.global_step == 2:
            damage(folder, lambda state: {**state, "head.weight": torch.empty(0)})
        publish(trainer, folder)

    monkeypatch.setattr(checkpoints, "audit_checkpoint", torn)
    with pytest.raises(CheckpointError, match=r"empty: head\.weight"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]  # the good one stays


def test_outputs_with_noise_compare(tmp_path):
    model = build_model()
    model.forward = lambda **batch: {
        "logits": torch.rand(3),
        "parts": (torch.ones(1), {"deep": torch.ones(1)}),
        "n": 1,
    }
    first, second = forward_outputs(model, {}), forward_outputs(model, {})
    assert sorted(first) == ["logits", "parts.0", "parts.1.deep"] and torch.equal(first["logits"], second["logits"])


def test_the_batch_is_of_validation_rows_where_there_are_some(tmp_path):
    from ..toy import build_rows

    other = build_rows().map(lambda row: {"value": row["value"] + 100})
    trainer = build_trainer(tmp_path, extra={"eval_dataset": other})
    assert sample_batch(trainer)["value"].tolist() == [100.0, 101.0]
    assert sample_batch(build_trainer(tmp_path))["value"].tolist() == [0.0, 1.0]
    assert isinstance(trainer.model, nn.Module)


@pytest.mark.parametrize(
    ("wanted", "found", "difference"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.5, -4.0], 0.125),  # 0.5 of 4
        ([1e-4, 0.0], [2e-4, 0.0], 0.01),  # 1e-4 of 1e-2, the smallest scale
        ([1.0, 2.0], [1.0, float("nan")], float("inf")),
        ([1.0, float("-inf")], [1.0, 2.0], float("inf")),
        ([1.0, float("-inf")], [1.0, float("-inf")], 0.0),
        ([float("nan")], [float("nan")], 0.0),
    ],
)
def test_difference_of_outputs(wanted, found, difference):
    assert _difference(torch.tensor(wanted), torch.tensor(found), 1e-2) == pytest.approx(difference, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("loss", True), ("loss_terms.distill", True), ("row_losses.distill", True), ("actions", False), ("lossy", False)],
)
def test_a_loss_near_zero_differs_by_the_rounding_of_what_it_subtracts(tmp_path, name, passes):
    """A divergence of two models that are nearly one is 2.6e-5; the log-probabilities in it are 24, and round."""
    trainer, model = build_trainer(tmp_path / "out"), build_model()
    wanted = torch.tensor(2.6e-5)
    model.forward = lambda **batch: {name: wanted + 24 * torch.finfo(torch.float32).eps}
    with nullcontext() if passes else pytest.raises(CheckpointError, match=f"'{name}' differs by 0.000286"):
        assert audit_outputs(trainer, model, {}, {name: wanted}, tmp_path) == pytest.approx(2.86e-6, rel=1e-2)


def test_a_loss_that_is_another_one_is_seen(tmp_path):
    trainer, model = build_trainer(tmp_path / "out"), build_model()
    model.forward = lambda **batch: {"loss_terms.sft": torch.tensor(2.001)}
    with pytest.raises(CheckpointError, match=r"'loss_terms.sft' differs by 0\.0005"):
        audit_outputs(trainer, model, {}, {"loss_terms.sft": torch.tensor(2.0)}, tmp_path)
