"""LoRA in a stage: where the adapters go, what trains, what is saved, and resuming."""

import copy
import json
import math
import shutil
import sys
import types

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from hfvla.errors import CheckpointError, MissingExtraError, RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe.stage_schema import Lora
from hfvla.training.checkpoint.adapters import load_adapter, merged_model, read_adapters
from hfvla.training.checkpoint.stored import stored_state
from hfvla.training.lora.injection import count_lora_parameters, inject_lora, lora_targets
from hfvla.training.run.saving import save_and_audit
from hfvla.training.stage.groups import assign_parameters, expand_group, trainable_table

from ..toy import GROUPS, ToyModel, build_model, build_rows, build_trainer, changed, collate, snapshot

LORA = {"target": "blocks", "r": 2, "alpha": 3}
KINDS = {"plain": {}, "dora": {"dora": True}, "rslora": {"rslora": True}, "dropout": {"dropout": 0.5}}


class ConvModel(ToyModel):
    """The toy with a patch convolution, a depthwise one, and attention in front."""

    def __init__(self, config):
        super().__init__(config)
        self.patch = nn.Conv2d(1, 3, 3, padding=1)
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.post_init()

    def forward(self, features, **kwargs):
        picture = features[:, None, None, :].expand(-1, 1, 3, -1)
        return super().forward(self.depthwise(self.patch(picture)).mean((1, 2)), **kwargs)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=16, vocab_size=11)).eval()


def randomise(model, seed: int = 5) -> None:
    """Give adapters values of their own: they start as zero, and then nothing could go wrong with them.

    The toy's head too, whose first values are so small that no output would differ by much.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name or name == "head.weight":
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        if "magnitude" in name:
            parameter.data.mul_(1 + torch.rand(parameter.shape, generator=generator))


def outputs(model, rows: int = 4):
    with torch.no_grad():
        return model.eval()(**collate([build_rows()[index] for index in range(rows)])).logits


# ---- where adapters go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("blocks", ["blocks.0", "blocks.1", "blocks.2"]),
        ("blocks.last(1)", ["blocks.2"]),
        (["head", "blocks.first(1)"], ["blocks.0", "head"]),
        ("backbone", ["backbone.0"]),  # not its batch norm
        (r"re:.*\.[02]", ["backbone.0", "blocks.0", "blocks.2"]),
        ("re:head", ["head"]),
    ],
)
def test_targets_by_group_and_regex(target, found):
    model = build_model()
    assert lora_targets(model, GROUPS, Lora(target=target)) == found
    inject_lora(model, GROUPS, Lora(target=target))
    adapted = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert adapted == found
    assert lora_targets(model, GROUPS, Lora(target=target)) == found  # the same names with the adapters in


def test_a_name_is_not_taken_for_the_end_of_another():
    model = build_model()
    model.tail = nn.ModuleDict({"head": nn.Linear(4, 4)})
    inject_lora(model, GROUPS, Lora(target="head"))
    assert isinstance(model.head, LoraLayer) and not isinstance(model.tail["head"], LoraLayer)


def test_layers_that_an_adapter_would_not_reach():
    torch.manual_seed(0)
    model = ConvModel(build_model().config)
    groups = {"all": ParameterGroup(("*",))}
    assert "patch" in lora_targets(model, groups, Lora(target="all"))
    assert not {"depthwise", "attention.out_proj"} & {*lora_targets(model, groups, Lora(target="all"))}
    language = gpt2()
    found = lora_targets(language, {"all": ParameterGroup(("*",))}, Lora(target="all"))
    assert found == [f"transformer.h.{n}.{p}" for n in (0, 1) for p in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (r"re:.*\.block", r"'re:.*block' matches no layer .*expected layers like blocks\.0, .*must match a whole"),
        (
            "re:backbone.1",
            r"expected layers like .*backbone\.0.* It matches 'backbone.1', which is not a linear layer",
        ),
        ("re:hed", r"expected layers like head"),
        ("re:(", r"not a regular expression .*got '\('"),
        ("blokcs", r"no parameter group 'blokcs'. Did you mean 'blocks'"),
        ("norm", r"'norm' matches no layer that can take an adapter.*Name a group that has linear layers"),
        ("blocks.last(9)", r"group 'blocks' has 3 layers"),
        (["head", "re:x"], r"'re:x' matches no layer"),
    ],
)
def test_targets_that_match_nothing(target, message):
    groups = {**GROUPS, "norm": ParameterGroup(("backbone.1.*",))}
    with pytest.raises(RecipeError, match=message):
        inject_lora(build_model(), groups, Lora(target=target))


def test_nearest_names_count_equal_layers_once():
    with pytest.raises(RecipeError) as caught:
        lora_targets(gpt2(), {}, Lora(target="re:.*q_proj"))
    assert "attn.c_proj" in str(caught.value) and str(caught.value).count("attn.c_proj") == 1


# ---- groups ------------------------------------------------------------------------------------------------------


def test_base_weights_stay_in_their_group_and_adapters_in_lora():
    model = build_model()
    inject_lora(model, GROUPS, Lora(**LORA))
    assert expand_group(model, GROUPS, "blocks.last(1)") == ["blocks.2.base_layer.weight", "blocks.2.base_layer.bias"]
    exact = {"weights": ParameterGroup(("blocks.0.weight",))}  # a pattern that names the tensor itself
    assert expand_group(model, exact, "weights") == ["blocks.0.base_layer.weight"]
    adapters = expand_group(model, GROUPS, "lora")
    assert len(adapters) == 6 and all(".lora_" in name for name in adapters)
    assigned = assign_parameters(model, GROUPS, ["lora", "body"])
    assert {assigned[name] for name in adapters} == {"lora"} and "lora" not in {
        entry for name, entry in assigned.items() if name not in adapters
    }


def test_table_has_a_line_for_the_adapters(tmp_path):
    trainer = build_trainer(tmp_path, train=["lora", "head"], lora=LORA, learning_rates={"lora": 1e-2})
    rows = {row.group: row for row in trainer.trainable_table()}
    assert rows["lora"].parameters == rows["lora"].trainable == 3 * 2 * (4 + 4)
    assert rows["lora"].learning_rate == 1e-2
    assert rows["blocks"].trainable == 0 and rows["blocks"].parameters == 60
    plain = {row.group: row for row in trainable_table(build_model(), GROUPS, {}, {})}
    assert "lora" not in plain
    assert rows["total"].parameters == plain["total"].parameters + 48


def test_the_group_needs_a_lora():
    with pytest.raises(RecipeError, match="no parameter group 'lora': the stage has no `lora:`"):
        assign_parameters(build_model(), GROUPS, ["lora"])
    with pytest.raises(RecipeError, match=r"group 'lora' has no layers to count; got 'lora.last\(1\)'"):
        expand_group(build_model(), GROUPS, "lora.last(1)")


@pytest.mark.parametrize("kind", ["plain", "dora"])
def test_parameters_are_counted_without_changing_the_model(kind):
    with torch.device("meta"):
        model = build_model()
    before = list(model.state_dict())
    # each block: A 2 x 4 and B 4 x 2, and DoRA's magnitude of 4
    assert count_lora_parameters(model, GROUPS, Lora(**LORA, **KINDS[kind])) == 3 * (16 + 4 * (kind == "dora"))
    assert list(model.state_dict()) == before
    inject_lora(model, GROUPS, Lora(**LORA, **KINDS[kind]))
    assert sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n) == 3 * (16 + 4 * (kind == "dora"))
    assert {p.device.type for p in model.parameters()} == {"meta"}


# ---- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_adapters_and_what_is_named_move(tmp_path, kind):
    model = build_model()
    start = outputs(model)
    trainer = build_trainer(tmp_path, model, train=["lora", "head"], lora={**LORA, **KINDS[kind]}, losses={"fit": 1.0, "level": 1.0})  # fmt: skip  # noqa: E501
    torch.testing.assert_close(outputs(model), start, rtol=0, atol=0 if kind != "dora" else 1e-6)  # zero at the start
    before = snapshot(model)
    trainer.train()
    moved = changed(model, before)
    assert moved == {*expand_group(model, GROUPS, "lora"), *expand_group(model, GROUPS, "head")}
    assert type(model) is ToyModel


def test_adapters_and_the_weights_below_them_train_together(tmp_path):
    trainer = build_trainer(tmp_path, train=["lora", "blocks.last(1)"], lora=LORA)
    before = snapshot(trainer.model)
    trainer.train()
    moved = changed(trainer.model, before)
    assert {"blocks.2.base_layer.weight", "blocks.2.lora_B.default.weight"} <= moved
    assert "blocks.1.base_layer.weight" not in moved and "blocks.1.lora_B.default.weight" in moved


def test_lora_joins_in_a_phase(tmp_path):
    trainer = build_trainer(
        tmp_path,
        lora=LORA,
        phases=[{"step": 2, "add": ["lora"]}],
        args={"max_steps": 4, "save_strategy": "steps", "save_steps": 2},
    )
    before = snapshot(trainer.model)
    trainer.train()
    state = stored_state(trainer.model, tmp_path / "checkpoint-2")
    adapters = expand_group(trainer.model, GROUPS, "lora")
    assert all(torch.equal(state[name], before[name]) for name in adapters)
    assert not torch.equal(state["head.weight"], before["head.weight"])
    assert set(adapters) <= changed(trainer.model, before)


# ---- saving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stages_folder_is_an_ordinary_checkpoint(tmp_path, kind):
    trainer = build_trainer(tmp_path / "out", train=["lora", "head"], lora={**LORA, **KINDS[kind]})
    trainer.train()
    randomise(trainer.model)
    base = snapshot(trainer.model)
    report = save_and_audit(trainer, tmp_path / "stage", "org/base")
    assert report["tensors"] == len(build_model().state_dict()) and report["largest_difference"] < 1e-6
    loaded = ToyModel.from_pretrained(tmp_path / "stage")
    assert set(loaded.state_dict()) == set(build_model().state_dict())
    assert not any(isinstance(module, LoraLayer) for module in loaded.modules())
    torch.testing.assert_close(outputs(loaded), outputs(trainer.model), rtol=0, atol=1e-6)
    assert torch.equal(loaded.head.weight, base["head.weight"])  # the head beside the adapter, to the bit
    # W + scale * B @ A by hand
    if kind != "dora":
        scale = 3 / math.sqrt(2) if kind == "rslora" else 3 / 2
        product = base["blocks.1.lora_B.default.weight"] @ base["blocks.1.lora_A.default.weight"]
        torch.testing.assert_close(
            loaded.blocks[1].weight, base["blocks.1.base_layer.weight"] + scale * product, rtol=0, atol=1e-6
        )
    else:  # magnitude times the direction of W + scale * B @ A, row by row (Liu et al. 2024, eq. 5)
        a, b = base["blocks.1.lora_A.default.weight"], base["blocks.1.lora_B.default.weight"]
        direction = base["blocks.1.base_layer.weight"] + 1.5 * b @ a
        rows = base["blocks.1.lora_magnitude_vector.default.weight"] / direction.norm(dim=1)
        torch.testing.assert_close(loaded.blocks[1].weight, rows[:, None] * direction, rtol=0, atol=1e-6)


def test_the_adapter_beside_it_is_pefts(tmp_path):
    start = build_model()
    trainer = build_trainer(tmp_path / "out", build_model(), train=["lora", "head"], lora={**LORA, "dora": True})
    trainer.train()
    randomise(trainer.model)
    save_and_audit(trainer, tmp_path / "stage", "org/base")
    config = json.loads((tmp_path / "stage/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base" and config["r"] == 2 and config["use_dora"]
    start.head.load_state_dict(trainer.model.head.state_dict())
    loaded = PeftModel.from_pretrained(start, tmp_path / "stage/adapter")
    torch.testing.assert_close(outputs(loaded), outputs(trainer.model), rtol=0, atol=0)
    # and with what was trained beside it, from the base alone
    whole = load_adapter(build_model(), tmp_path / "stage")
    torch.testing.assert_close(outputs(whole), outputs(trainer.model), rtol=0, atol=1e-6)
    assert torch.equal(whole.head.weight, trainer.model.head.weight)


def test_base_weights_are_kept_to_the_bit(tmp_path):
    model = build_model()
    before = snapshot(model)
    trainer = build_trainer(tmp_path / "out", model, train=["lora"], lora={**LORA, "target": "blocks.last(2)"})
    trainer.train()
    save_and_audit(trainer, tmp_path / "stage")
    base = read_adapters(tmp_path / "stage").base
    assert set(base) == {f"blocks.{n}.{part}" for n in (1, 2) for part in ("weight", "bias")}
    assert all(torch.equal(value, before[name]) for name, value in base.items())


def test_convolutions_and_conv1d_merge(tmp_path):
    torch.manual_seed(0)
    model = ConvModel(build_model().config)
    groups = {"patch": ParameterGroup(("patch.*",))}
    inject_lora(model, groups, Lora(target="patch", r=2, alpha=2))
    randomise(model)
    merged = merged_model(model, model.state_dict())
    assert torch.equal(merged.depthwise.weight, model.depthwise.weight)
    assert (merged.patch.weight - model.patch.base_layer.weight).abs().max() > 0.1
    assert_same_function(model, merged, collate([build_rows()[n] for n in range(3)]))

    language = gpt2()
    inject_lora(language, {"blocks": ParameterGroup(("transformer.h.*",))}, Lora(target="blocks", r=2, alpha=4))
    randomise(language)
    merged = merged_model(language, language.state_dict())
    assert merged.lm_head.weight is merged.transformer.wte.weight
    layer = language.transformer.h[1].attn.c_attn  # Conv1D: the weight is [inputs, outputs]
    product = layer.lora_B.default.weight @ layer.lora_A.default.weight
    torch.testing.assert_close(
        merged.transformer.h[1].attn.c_attn.weight, layer.base_layer.weight + 2 * product.T, rtol=0, atol=1e-6
    )
    merged.save_pretrained(tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert_same_function(language, loaded, {"input_ids": torch.arange(6)[None]})


def assert_same_function(first, second, batch):
    with torch.no_grad():
        one, two = first.eval()(**batch).logits, second.to("cpu").eval()(**batch).logits
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


# ---- resuming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "dora", "dropout"])
def test_a_resumed_stage_ends_bit_equal(tmp_path, kind):
    options = {
        "train": ["lora", "head"],
        "lora": {**LORA, **KINDS[kind]},
        "args": {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-2},
    }
    whole = build_trainer(tmp_path / "whole", **options)
    whole.train()
    shutil.copytree(tmp_path / "whole/checkpoint-3", tmp_path / "again/checkpoint-3")
    resumed = build_trainer(tmp_path / "again", build_model(7), **options)  # other weights: the checkpoint must win
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert not changed(resumed.model, whole.model.state_dict())
    assert {"blocks.0.lora_B.default.weight"} <= changed(
        resumed.model, stored_state(whole.model, tmp_path / "whole/checkpoint-3")
    )


def test_the_best_checkpoint_comes_back_with_its_adapters(tmp_path):
    args = {
        **{"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1},
        **{"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "learning_rate": 3.0},
    }
    trainer = build_trainer(
        tmp_path, train=["lora", "head"], lora=LORA, args=args, extra={"eval_dataset": build_rows()}
    )
    trainer.train()
    best = stored_state(trainer.model, trainer.state.best_model_checkpoint)
    assert trainer.state.best_global_step < 4 and not changed(trainer.model, best)


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_qlora_needs_a_gpu_and_its_package(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match="lora.qlora needs a CUDA device.*Set qlora: false"):
        inject_lora(build_model(), GROUPS, Lora(**LORA, qlora=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"lora.qlora needs the package 'bitsandbytes'.*hfvla\[qlora\]"):
        inject_lora(build_model(), GROUPS, Lora(**LORA, qlora=True))


def four_bits() -> types.ModuleType:
    """A stand-in for bitsandbytes: weights held as whole numbers of sixteenths."""

    class Params4bit(nn.Parameter):
        def __new__(cls, data, requires_grad=False, **kwargs):
            packed = super().__new__(cls, (data * 16).round().to(torch.int8), requires_grad)
            packed.quant_state = "sixteenths"
            return packed

    class Linear4bit(nn.Linear):
        def __init__(self, inputs, outputs, bias, compute_dtype, quant_type):
            super().__init__(inputs, outputs, bias)

        def forward(self, hidden):
            return nn.functional.linear(hidden, self.weight.float() / 16, self.bias)

    package = types.ModuleType("bitsandbytes")
    package.nn = types.SimpleNamespace(Params4bit=Params4bit, Linear4bit=Linear4bit)
    package.functional = types.ModuleType("bitsandbytes.functional")
    package.functional.dequantize_4bit = lambda weight, quant_state: weight.float() / 16
    return package


def test_qlora_trains_on_few_bits_and_saves_whole_weights(tmp_path, monkeypatch):
    package = four_bits()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", package.functional)
    model = build_model()
    for block in model.blocks:
        block.weight.data.normal_()
    rounded = [(block.weight.data * 16).round() / 16 for block in model.blocks]
    inject_lora(model, GROUPS, Lora(**LORA, qlora=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the Trainer must not look for one
    assert model.blocks[0].base_layer.weight.dtype == torch.int8
    trainer = build_trainer(tmp_path / "out", model, train=["lora", "head"], lora={**LORA, "qlora": True})
    trainer.train()
    randomise(model)
    save_and_audit(trainer, tmp_path / "stage")
    saved, state = read_adapters(tmp_path / "stage"), model.state_dict()
    for number, weight in enumerate(rounded):
        assert torch.equal(saved.base[f"blocks.{number}.weight"], weight)
    b, a = (state[f"blocks.1.lora_{part}.default.weight"] for part in "BA")
    loaded = ToyModel.from_pretrained(tmp_path / "stage")
    torch.testing.assert_close(loaded.blocks[1].weight, rounded[1] + 1.5 * b @ a, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=0, atol=1e-5)


def test_what_qlora_does_not_go_with(monkeypatch):
    with pytest.raises(RecipeError, match="lora.dora and lora.qlora do not go together"):
        inject_lora(build_model(), GROUPS, Lora(**LORA, qlora=True, dora=True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", four_bits())
    torch.manual_seed(0)
    with pytest.raises(RecipeError, match="'patch' cannot be held in four bits; got 'Conv2d'"):
        inject_lora(ConvModel(build_model().config), {}, Lora(target="re:patch", qlora=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_qlora_on_a_gpu(tmp_path):
    pytest.importorskip("bitsandbytes")
    groups = {"body": ParameterGroup(("bert.encoder.*",)), "head": ParameterGroup(("classifier.*",))}
    sizes = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=32, max_position_embeddings=16, **sizes))
    rows = Dataset.from_dict({"input_ids": [[n, 1, 2, 3] for n in range(8)], "labels": [n % 2 for n in range(8)]})
    trainer = build_trainer(
        tmp_path / "out",
        model,
        rows,
        train=["lora", "head"],
        lora={"target": "body", "r": 2, "qlora": True},
        losses={"loss": 1.0},
        args={"use_cpu": False, "label_names": ["labels"], "learning_rate": 1e-2},
        extra={"groups": groups},
    )
    before = snapshot(trainer.model)
    trainer.train()
    layer = trainer.model.bert.encoder.layer[0].output.dense
    assert layer.base_layer.weight.dtype == torch.uint8
    assert all("lora_" in name or "classifier" in name for name in changed(trainer.model, before))
    assert save_and_audit(trainer, tmp_path / "stage")["largest_difference"] < 5e-2
    assert BertForSequenceClassification.from_pretrained(tmp_path / "stage").dtype == torch.float32


def test_weights_that_do_not_fit_are_named():
    model = build_model()
    inject_lora(model, GROUPS, Lora(**LORA))
    state = model.state_dict()
    del state["blocks.0.lora_A.default.weight"]
    with pytest.raises(CheckpointError, match="trained weights do not fit the model.*blocks.0.lora_A.default.weight"):
        merged_model(model, state)


def test_no_adapters_to_load(tmp_path):
    build_model().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no adapters in this folder"):
        load_adapter(build_model(), tmp_path)


def test_a_shared_adapter_runs_on_a_model_with_unsaved_buffers(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from hfvla.training.checkpoint.adapters import write_adapters

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=11, **sizes)).eval()  # its rotary frequencies are not saved
    adapted = copy.deepcopy(base)
    inject_lora(adapted, {"layers": ParameterGroup(("model.layers.*",))}, Lora(target="layers", r=2, alpha=4))
    randomise(adapted)
    write_adapters(adapted, adapted.state_dict(), tmp_path)
    merged_model(adapted, adapted.state_dict()).save_pretrained(tmp_path)
    batch = {"input_ids": torch.arange(6)[None]}
    assert_same_function(adapted, load_adapter(base, tmp_path), batch)
    assert_same_function(adapted, LlamaForCausalLM.from_pretrained(tmp_path), batch)
