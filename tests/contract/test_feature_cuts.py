"""What every family promises about its cuts: cached features in place of the frozen prefix change nothing."""

import dataclasses

import pytest
import torch
from accelerate import PartialState

from hfvla.cache import CachedCollator, FeatureCache, Split, prefix_names, sample_keys
from hfvla.family import CutContext, FeatureCut
from hfvla.recipe import CacheRecipe
from hfvla.registry import available_families
from hfvla.training.estimate.prefix import profile_prefix
from hfvla.training.estimate.profile import profile_step
from hfvla.training.estimate.recipe import meta_model

CUTS = sorted((family, cut) for family, spec in available_families().items() for cut in spec.feature_cuts)


pytestmark = pytest.mark.parametrize(("built", "cut"), CUTS, indirect=["built"], ids=map("-".join, CUTS))


def cache(built, name, folder, model=None, dtype="float32"):
    settings = CacheRecipe(dtype=dtype)
    state, losses = PartialState(cpu=True), tuple(built.spec.losses)
    model = built.model if model is None else model
    return FeatureCache(built.spec, name, model, built.processor, settings, folder, state, losses=losses)


def cached(built, name, folder, model=None, dtype="float32"):
    """Return the example rows with their features, and the collator for them."""
    splits, census = cache(built, name, folder, model, dtype).build({"train": Split(built.rows)})
    assert census.misses > 0
    rows = [splits["train"][index] for index in range(len(splits["train"]))]
    definition = built.spec.feature_cuts[name]
    return rows, CachedCollator(built.collator(*definition.losses), definition)


def outputs(model, batch):
    with torch.no_grad():
        output = model(**batch)
    terms = {f"term {name}": value for name, value in output.loss_terms.items()}
    return {**terms, **{name: value for name, value in output.items() if isinstance(value, torch.Tensor)}}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 5e-2)])
def test_forward_on_features_equals_forward_on_inputs(built, cut, tmp_path, dtype, tolerance):
    rows, collator = cached(built, cut, tmp_path, dtype=dtype)
    batch, definition = collator(rows), built.spec.feature_cuts[cut]
    assert definition.provides[0] in batch and not set(definition.replaces) & set(batch)
    expected, found = outputs(built.model, built.batch(*definition.losses)), outputs(built.model, batch)
    assert set(expected) == set(found)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_features_really_stand_for_the_prefix(built, cut, tmp_path):
    """With other features the outputs are others, and the prefix is not run: it may hold anything."""
    rows, collator = cached(built, cut, tmp_path)
    batch, definition = collator(rows), built.spec.feature_cuts[cut]
    model, expected = built.copy(), outputs(built.model, batch)
    with torch.no_grad():
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name in prefix_names(state, definition, built.spec.groups):
            if state[name].is_floating_point():
                state[name].fill_(float("nan"))
    found = outputs(model, batch)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    stream = torch.Generator().manual_seed(0)
    noise = {name: torch.randn(batch[name].shape, generator=stream) for name in definition.provides
             if name in batch and batch[name].is_floating_point()}  # fmt: skip
    other = outputs(built.model, {**batch, **noise})
    assert not torch.equal(other["loss"], expected["loss"])


def test_the_output_depends_on_no_weight_behind_the_cut(built, cut, tmp_path):
    rows, _ = cached(built, cut, tmp_path / "one")
    model, definition = built.copy(), built.spec.feature_cuts[cut]
    prefix = set(prefix_names([name for name, _ in model.named_parameters()], definition, built.spec.groups))
    assert prefix
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in prefix:
                parameter.add_(1.0)
    assert cache(built, cut, tmp_path, model).store.fingerprint == cache(built, cut, tmp_path).store.fingerprint
    others, _ = cached(built, cut, tmp_path / "two", model)
    for one, two in zip(rows, others, strict=True):
        one, two = one["cached_features"] or {}, two["cached_features"] or {}
        assert set(one) == set(two) and all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_fingerprint_survives_saving_and_loading(built, cut, checkpoint, tmp_path):
    model = built.spec.load("model").from_pretrained(checkpoint)
    processor = built.spec.load("processor").from_pretrained(checkpoint)
    loaded = dataclasses.replace(built, model=model, processor=processor)
    assert cache(loaded, cut, tmp_path).store.fingerprint == cache(built, cut, tmp_path).store.fingerprint
    built.processor.tokenizer(["a longer text", "b"], padding=True, truncation=True, max_length=2)
    assert cache(loaded, cut, tmp_path).store.fingerprint == cache(built, cut, tmp_path).store.fingerprint
    built.processor.save_pretrained(tmp_path / "used")  # as at the end of a stage, whose batches were padded
    used = built.spec.load("processor").from_pretrained(tmp_path / "used")
    again = dataclasses.replace(built, processor=used)
    assert cache(again, cut, tmp_path).store.fingerprint == cache(built, cut, tmp_path).store.fingerprint


def test_a_cut_names_what_exists(built, cut):
    definition = built.spec.feature_cuts[cut]
    assert isinstance(definition, FeatureCut) and definition.description
    assert set(definition.groups) <= set(built.spec.groups)
    assert set(definition.fields) - set(definition.optional) <= set(built.rows.column_names)
    required = {name for names in definition.required for name in names.split("|")}
    assert {*required, *definition.files} <= set(definition.fields)
    assert any(hasattr(built.model.config, key) for key in definition.config)
    assert all(hasattr(built.processor, name) for name in definition.processor)
    assert definition.replaces and definition.provides
    for field in ("prepare", "encode", "prompt", "augments", "plan"):
        assert callable(definition.load(field)) if field in ("prepare", "encode") or definition.has(field) else True
    context = CutContext(built.processor, built.model.config, tuple(built.spec.losses))
    keys = sample_keys(built.rows, definition, context)
    assert len(keys) == len(built.rows) and any(keys)


def test_a_planned_batch_is_cut_as_a_real_one(built, cut, tmp_path):
    """Plans on the meta device and training agree on what the cache replaces and how large a sample is."""
    definition = built.spec.feature_cuts[cut]
    if not definition.has("plan") or not built.spec.has("plan_batch"):
        pytest.skip("this cut is not planned")
    losses = definition.losses or tuple(built.spec.losses)
    batch = built.spec.load("plan_batch")(built.model.config, len(built.rows), losses)
    model = meta_model(built.spec, built.model.config)
    planned, cost = profile_prefix(model, definition, batch, len(built.rows), kept=torch.float32)
    rows, collator = cached(built, cut, tmp_path)
    real = collator(rows)
    assert set(definition.provides) & set(planned) == set(definition.provides) & set(real)
    for name in set(definition.provides) & set(real):
        assert planned[name].dim() == real[name].dim(), name
        if real[name].is_floating_point():  # a plan's text may be longer than the examples'
            assert planned[name].shape[-1] == real[name].shape[-1], name
    assert cost.flops_per_sample > 0 and cost.peak_bytes > 0
    step = profile_step(model, planned, trainable=_behind(model, definition, built.spec))
    whole = profile_step(model, batch, trainable=_behind(model, definition, built.spec))
    assert step.forward_flops < whole.forward_flops


def _behind(model, definition, spec):
    names = [name for name, _ in model.named_parameters()]
    prefix = set(prefix_names(names, definition, spec.groups))
    return [name for name in names if name not in prefix]
