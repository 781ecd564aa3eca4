"""What every family promises. Nothing here names a family: all is read from its `FamilySpec`."""

import dataclasses
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin, TrainingArguments
from transformers.utils import ModelOutput

from hfvla.data.rows.splits import grouped_split
from hfvla.errors import DataError, RecipeError
from hfvla.family import FamilySpec, resolve
from hfvla.recipe import Stage, build_options
from hfvla.registry import available_families, get_family, load_checkpoint
from hfvla.training.stage.groups import expand_group
from hfvla.training.trainer.trainer import StagedTrainer

FAMILIES = sorted(available_families())


def tensors(output) -> dict[str, torch.Tensor]:
    return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}


def assert_same(first: dict, second: dict) -> None:
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def forward(model, batch) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        output = model(**batch)
    return {**tensors(output), **{f"term {name}": value for name, value in output.loss_terms.items()}}


# ---- the spec ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_that_a_spec_names_exists(family):
    spec = get_family(family)
    kinds = (("config", PreTrainedConfig), ("model", PreTrainedModel), ("processor", ProcessorMixin))
    if spec.plain:  # classes of transformers, of which it has many
        assert all(spec.load(field).__module__.startswith("transformers.") for field, _ in kinds)
        assert spec.has("objective") and spec.has("find_groups") and not resolve(spec.accepts)("bert")
    else:
        assert spec.name == family == spec.load("config").model_type
        assert all(issubclass(spec.load(field), kind) for field, kind in kinds)
    for field in dataclasses.fields(FamilySpec):
        value = getattr(spec, field.name)
        if isinstance(value, str) and ":" in value and value.startswith("hfvla."):
            assert callable(resolve(value)), field.name
    if spec.has("trainer"):
        assert issubclass(spec.load("trainer"), StagedTrainer)
    assert spec.summary and spec.groups and spec.losses and spec.sources and spec.metric_names and spec.label_names


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_is_described(family):
    request = get_family(family).request
    assert request is not None and request.fields and all(field.help for field in request.fields)
    first = request.fields[0].name
    with pytest.raises(DataError, match=f"Did you mean '{first}'"):
        get_family(family).ask(None, None, {f"{first}x": 1})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spec_does_not_import_torch(family):
    code = "import sys, hfvla\nfrom hfvla.registry import get_family\nspec = get_family(sys.argv[1])\n"
    code += "print(spec.name, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, family], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"{family} []", done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_every_source_refuses_unknown_keys(family):
    spec = get_family(family)
    for name, source in spec.sources.items():
        with pytest.raises(ValidationError, match="surprise"):
            resolve(source.options).model_validate({"surprise": 1})
        with pytest.raises(RecipeError, match=f"source '{name}' has no option.*surprise"):
            build_options(spec, name, {"surprise": 1})
        assert callable(resolve(source.build)) and (source.count is None or callable(resolve(source.count)))


# ---- the model ---------------------------------------------------------------------------------------------------


def test_the_tiny_model_is_tiny(built):
    """What keeps hundreds of tests that train it in minutes."""
    assert built.spec.tiny_config().get_text_config().hidden_size <= 64
    assert sum(one.numel() for one in built.model.parameters()) < 1_000_000


def test_forward_returns_a_typed_output(built):
    output = built.model(**built.batch())
    assert isinstance(output, ModelOutput) and dataclasses.is_dataclass(output)
    assert output.loss.shape == () and output.loss.requires_grad and torch.isfinite(output.loss)
    assert set(output.loss_terms) == set(built.spec.losses)  # the examples have what every term needs
    for name, term in output.loss_terms.items():
        assert term.shape == () and term.requires_grad and torch.isfinite(term), name


def test_loss_is_weighted_by_the_config(built):
    if built.spec.plain:
        pytest.skip("a config of transformers has no place for weights")
    model, batch = built.copy(), built.batch()
    terms = model(**batch).loss_terms
    weights = {name: 0.5 + index for index, name in enumerate(terms)}
    left_out = next(iter(weights))
    for chosen in (weights, {name: weight for name, weight in weights.items() if name != left_out}):
        model.config.loss_weights = chosen
        expected = sum(weight * terms[name] for name, weight in chosen.items())
        torch.testing.assert_close(model(**batch).loss, expected)
        if len(weights) == 1:
            break


def test_the_batch_is_not_changed_by_forward(built):
    batch = built.batch()
    before = {name: tensor.clone() for name, tensor in batch.items()}
    built.copy().train()(**batch)
    assert_same(batch, before)


def test_padding_does_not_change_the_loss(built):
    batch = built.batch()
    padded = {}
    for name, tensor in batch.items():  # sequences go by the names of transformers, perhaps with a prefix
        value = {
            "input_ids": built.processor.tokenizer.pad_token_id,
            "attention_mask": 0,
            "labels": -100,
            "mm_token_type_ids": 0,
        }
        kind = next((kind for kind in value if name == kind or name.endswith(f"_{kind}")), None)
        sequence = kind and batch[name.removesuffix(kind) + "input_ids"] if kind != "labels" or name == kind else None
        same = sequence is not None and sequence.shape == tensor.shape
        padded[name] = torch.nn.functional.pad(tensor, (0, 5), value=value[kind]) if same else tensor
    assert padded["input_ids"].shape[1] == batch["input_ids"].shape[1] + 5
    expected, found = built.model(**batch), built.model(**padded)
    for name, term in expected.loss_terms.items():
        torch.testing.assert_close(
            found.loss_terms[name], term, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_term_reaches_the_groups_that_it_is_said_to(built):
    """In any batch that has the term: each row alone, and all of them."""
    assert set(built.spec.reached) <= set(built.spec.losses)
    model = built.copy().train()
    for term, groups in built.spec.reached.items():
        names = {name for group in groups for name in expand_group(model, built.spec.groups, group)}
        for rows in ([row] for row in built.rows.select(range(4))):
            output = model(**built.batch(term, rows=rows)).loss_terms or {}
            if term in output and output[term].requires_grad:
                model.zero_grad()
                output[term].backward()
                assert [name for name in names if model.get_parameter(name).grad is None] == [], (term, rows)


# ---- saving ------------------------------------------------------------------------------------------------------


def test_saving_and_loading_is_bit_equal(built, checkpoint):
    _, model, processor = load_checkpoint(checkpoint, family=built.spec.name)
    built.spec.give_objective(model)
    collator = built.spec.load("collator")(processor, model.config, losses=tuple(built.spec.losses), training=True)
    batch, again = built.batch(), collator([dict(row) for row in built.rows])
    assert_same(again, batch)
    assert_same(forward(model, again), forward(built.model, batch))
    assert_same(model.state_dict(), built.model.state_dict())


def test_a_checkpoint_has_no_pickle(checkpoint):
    assert list(checkpoint.glob("*.safetensors"))
    assert {path.suffix for path in checkpoint.rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".json",
        ".txt",
        ".jinja",
    }


# ---- groups ------------------------------------------------------------------------------------------------------


def test_every_parameter_has_a_group_and_every_group_a_parameter(built):
    names = [name for name, _ in built.model.named_parameters()]
    owned = set()
    for group, members in built.spec.groups.items():
        found = {name for name in names if any(fnmatchcase(name, pattern) for pattern in members.patterns)}
        assert found, f"group '{group}' matches nothing"
        if members.layers:
            name_of_layers = members.layers_of(built.model)
            layers = built.model.get_submodule(name_of_layers)
            assert isinstance(layers, torch.nn.ModuleList) and len(layers) > 0
            assert all(f"{name_of_layers}.0.{name}" in found for name, _ in layers[0].named_parameters())
        owned |= found
    assert sorted(set(names) - owned) == []
    table = {
        name
        for patterns in built.spec.parameter_table.values()
        for p in patterns
        for name in names
        if fnmatchcase(name, p)
    }
    assert not built.spec.parameter_table or sorted(set(names) - table) == []


def train_two_steps(built, model, folder, stage, **settings):
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        adam_epsilon=1e-12,  # also the smallest gradient moves its parameter
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=list(built.spec.label_names),
        **settings,
    )
    trainer_class = built.spec.load("trainer") if built.spec.has("trainer") else StagedTrainer
    trainer = trainer_class(
        model=model,
        args=arguments,
        stage=stage,
        groups=built.spec.groups,
        data_collator=built.collator(*stage.losses),
        train_dataset=built.rows,
    )
    trainer.train()
    return trainer


def test_a_stage_moves_exactly_its_parameters(built, tmp_path):
    entries = [*built.spec.groups]
    entries += [
        f"{name}.{end}(1)" for name, group in built.spec.groups.items() if group.layers for end in ("first", "last")
    ]
    for entry in entries:
        model = built.copy()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        stage = Stage(name="check", train=[entry], losses=dict.fromkeys(built.spec.losses, 1.0))
        trainer = train_two_steps(built, model, tmp_path, stage)
        after = model.state_dict()
        moved = {name for name, _ in model.named_parameters() if not torch.equal(after[name], before[name])}
        assert moved == set(trainer.trained), entry
        trained_modules = {name.rpartition(".")[0] for name in trainer.trained}
        buffers = [name for name, _ in model.named_buffers() if name in before]
        frozen = [name for name in buffers if name.rpartition(".")[0] not in trained_modules]
        assert [name for name in frozen if not torch.equal(after[name], before[name])] == [], entry


def test_checkpointing_does_not_wake_frozen_layers(built, tmp_path):
    """transformers lets input embeddings require gradients; frozen layers behind them would keep all they compute."""
    model = built.copy()
    frozen = next((group.layers_of(model) for group in built.spec.groups.values() if group.layers_of(model)), None)
    trained = [name for name, group in built.spec.groups.items() if group.layers_of(model) is None]
    if not model.supports_gradient_checkpointing or frozen is None:
        pytest.skip("no layers to freeze, or no checkpointing")
    awake = []

    def look(module, inputs, output):
        awake.append((output[0] if isinstance(output, tuple) else output).requires_grad)

    model.get_submodule(f"{frozen}.0").register_forward_hook(look)
    stage = Stage(name="check", train=trained[-1:], losses=dict.fromkeys(built.spec.losses, 1.0))
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    train_two_steps(built, model, tmp_path, stage, **settings)
    assert awake and not any(awake)


def test_checkpointing_reaches_frozen_layers_that_gradients_pass_through(built, tmp_path):
    model, calls = built.copy(), []
    if not model.supports_gradient_checkpointing:
        pytest.skip("no checkpointing")

    def look(module, inputs, output):
        calls.append((output[0] if isinstance(output, tuple) else output).requires_grad)

    for layer in model.get_submodule(built.spec.groups["language"].layers_of(model)):
        next(layer.children()).register_forward_hook(look)  # inside what is recomputed
    stage = Stage(name="check", train=["projector"], losses=dict.fromkeys(built.spec.losses, 1.0))
    train_two_steps(built, model, tmp_path, stage)
    once, passes = len(calls), sum(calls)
    calls.clear()
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    train_two_steps(built, model, tmp_path, stage, **settings)
    recomputed = len(calls) - once
    assert recomputed == passes


# ---- data and metrics --------------------------------------------------------------------------------------------


def test_every_loss_term_alone_makes_a_batch(built):
    for term in built.spec.losses:
        batch = built.batch(term)
        assert all(isinstance(value, torch.Tensor) for value in batch.values())
        output = built.model(**batch)
        assert term in output.loss_terms and torch.isfinite(output.loss_terms[term]), term


def test_quick_metrics_are_the_promised_ones(built, tmp_path):
    model, seen = built.copy(), []

    def compute_metrics(prediction):
        seen.append(built.spec.load("compute_metrics")(prediction, model.config))
        return seen[-1]

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        per_device_eval_batch_size=3,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=list(built.spec.label_names),
    )
    trainer = StagedTrainer(
        model=model,
        args=arguments,
        stage=Stage(name="check", train=[next(iter(built.spec.groups))], losses=dict.fromkeys(built.spec.losses, 1.0)),
        groups=built.spec.groups,
        data_collator=built.collator(),
        eval_dataset=built.rows,
        compute_metrics=compute_metrics,
    )
    metrics = trainer.evaluate()
    assert len(seen) == 1 and set(seen[0]) >= set(built.spec.metric_names)
    assert all(isinstance(metrics[f"eval_{name}"], float) for name in built.spec.metric_names)
    assert {f"eval_loss_{term}" for term in built.spec.losses} <= set(metrics)


def test_examples_can_be_split_by_group(built):
    assert built.spec.load("examples")(3, 1).num_rows == 3
    train, held = grouped_split(built.rows["group"], 0.25, seed=0)
    assert not {built.rows["group"][int(i)] for i in train} & {built.rows["group"][int(i)] for i in held}


def test_a_plan_needs_no_weights(built):
    """The config that a plan counts is the one that a run builds."""
    spec = built.spec
    section = {"config": spec.tiny_config().to_dict(), "options": {}}
    with torch.device("meta"):
        planned = spec.new_model(spec.load("build_config")(section))
    assert {name for name, _ in planned.named_parameters()} == {name for name, _ in built.model.named_parameters()}
    for part, patterns in spec.parameter_table.items():
        assert any(fnmatchcase(name, pattern) for name, _ in planned.named_parameters() for pattern in patterns), part
