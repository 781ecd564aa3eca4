"""The model: no target reaches a prediction, padding and company change nothing, what is missing is not zero."""

from copy import deepcopy
from fnmatch import fnmatchcase

import pytest
import timm
import torch

from hfvla.data.rows.epoch import EpochRows
from hfvla.errors import CheckpointError
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction
from hfvla.training.stage.groups import expand_group

from .conftest import BACKBONES, EXPERTS, observe

FUSIONS = ("concat", "cross_attention", "gated")


def predicted(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).predicted_actions


def without_targets(batch):
    return {name: value for name, value in batch.items() if name not in {"actions", "action_mask", "confidence"}}


@pytest.fixture(scope="module")
def free(build):
    """Build a model whose processor asks for no view: `free(backbone, **config)`."""

    def free(backbone, **config):
        model, processor = build(backbone, **config)
        processor = deepcopy(processor)
        processor.required_views = []
        return model, processor

    return free


# ---- targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXPERTS)
def test_targets_reach_no_prediction(build, rows, collate, kind):
    """The original fed the ground truth to its expert. Here predictions are the same with other targets or none."""
    model, processor = build(expert={"kind": kind})
    batch = collate(model, processor, rows)
    expected = predicted(model, without_targets(batch))
    stream = torch.Generator().manual_seed(1)
    for actions in (torch.randn(batch["actions"].shape, generator=stream), batch["actions"] * 1e3 + 7):
        assert torch.equal(predicted(model, {**batch, "actions": actions}), expected)
    other = {**batch, "state": batch["state"] + 1.0}
    assert not torch.equal(predicted(model, other), expected)  # what it may read counts


@pytest.mark.parametrize("kind", EXPERTS)
def test_targets_reach_no_input_of_the_expert_in_training(build, rows, collate, monkeypatch, kind):
    model, processor = build(expert={"kind": kind})
    model, batch, seen = deepcopy(model).train(), collate(model, processor, rows), []
    learn = model.expert.loss

    def loss(features, actions, mask, **options):
        seen.append((features.detach().clone(), options["feature_mask"].clone()))
        return learn(features, actions, mask, **options)

    monkeypatch.setattr(model.expert, "loss", loss)
    for shift in (0.0, 5.0):
        output = model(**{**batch, "actions": batch["actions"] + shift})
        assert output.predicted_actions is None and output.loss.requires_grad
    assert all(torch.equal(one, two) for one, two in zip(*seen, strict=True))


def test_a_trained_regression_predicts_from_its_inputs_alone(build, rows, collate):
    """In training its loss is (prediction - target)^2 with the same prediction for any target."""
    model, processor = build()
    model, batch = deepcopy(model).train(), collate(model, processor, rows)
    mask = batch["action_mask"]
    outputs = []
    model.expert.output.register_forward_hook(lambda *found: outputs.append(found[2].detach()))
    losses = [model(**{**batch, "actions": batch["actions"] + shift}).loss.item() for shift in (0.0, 3.0)]
    assert torch.equal(outputs[0], outputs[1]) and losses[0] != losses[1]
    for shift, loss in zip((0.0, 3.0), losses, strict=True):
        squares = (outputs[0] - batch["actions"] - shift).square() * mask[..., None]
        each = squares.sum((1, 2)) / (mask.sum(1) * 4)
        weights = 1.0 + batch["sensor_present"].float()
        assert loss == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-5)


def test_the_loss_by_hand(build, rows, collate):
    """Mean over samples of their error, weighted by confidence and, with a sensor, by sensor_loss_weight."""
    model, processor = build(sensor_loss_weight=3.0, loss_weights={"action": 0.5})
    batch = collate(model, processor, rows)
    batch["confidence"] = torch.linspace(0.0, 2.0, 8)
    output = model(**batch)
    mask = batch["action_mask"]
    squares = (output.predicted_actions - batch["actions"]).square().mean(2)
    each = torch.stack([row[valid].mean() for row, valid in zip(squares, mask, strict=True)])
    weights = batch["confidence"] * torch.where(batch["sensor_present"], 3.0, 1.0)
    torch.testing.assert_close(output.loss_terms["action"], (each * weights).sum() / weights.sum())
    torch.testing.assert_close(output.loss, 0.5 * output.loss_terms["action"])
    plain = model(**{**batch, "confidence": torch.ones(8)}).loss
    assert abs(plain.item() - output.loss.item()) > 1e-4


# ---- padding and company --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_sample_alone_is_itself_beside_longer_ones(free, backbone, kind):
    """One view and few words beside two views and many: padding must not change features or actions."""
    model, processor = free(backbone, expert={"kind": kind})
    short = observe(1, views=("wrist",), task="press the red square")
    long = observe(2, task="press the blue square, and then wait there until somebody comes to look " * 2)
    one, both = processor([short]), processor([short, long])
    assert both["input_ids"].shape[1] > one["input_ids"].shape[1] + 20
    with torch.no_grad():
        names = ("state", "sensor", "sensor_present", "sensor_mask")
        features = [
            model.encode(**{name: value for name, value in batch.items() if name not in names})
            for batch in (one, both)
        ]
    length = features[0].tokens.shape[1]
    torch.testing.assert_close(features[0].tokens[0], features[1].tokens[0, :length], atol=2e-5, rtol=1e-4)
    assert not features[1].tokens[0, length:].any() and not features[1].mask[0, length:].any()
    torch.testing.assert_close(predicted(model, one)[0], predicted(model, both)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pictures_and_words_count(free, backbone):
    model, processor = free(backbone)
    if backbone == "fast_vlm":  # transformers draws convolutions so small that a tower of random weights says nothing
        model = deepcopy(model)
        drawn = timm.create_model("test_efficientnet", num_classes=0, global_pool="")
        model.backbone.vision_tower.timm_model.load_state_dict(drawn.state_dict())
    base = observe(1)
    expected = predicted(model, processor([base]))
    swapped = {"front": base.views["wrist"], "wrist": base.views["front"]}
    least = 0.0 if backbone == "fast_vlm" else 1e-5
    for other in ({"views": {**base.views, "wrist": base.views["wrist"] // 2}}, {"views": swapped}, {"task": "wait"}):
        changed = type(base)(**{**vars(base), **other})
        assert (predicted(model, processor([changed])) - expected).abs().max() > least, other


@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_can_be_pooled_over_valid_tokens(free, backbone):
    """The mean is of a sample's own tokens: the same alone and beside a longer one."""
    whole, processor = free(backbone)
    pooling = deepcopy(whole)
    pooling.config.feature_pooling = "mean"
    found = [observe(1, views=("wrist",)), observe(2, task="press the blue square and wait there " * 4)]
    one, both = (
        {name: value for name, value in processor(given).items() if name in FAMILY.feature_cuts["backbone"].replaces}
        for given in (found[:1], found)
    )
    with torch.no_grad():
        alone, pooled, tokens = pooling.encode(**one), pooling.encode(**both), whole.encode(**both)
    assert pooled.tokens.shape == (2, 1, 32) and pooled.mask.all() and not tokens.mask.all()
    for number in range(2):
        mean = tokens.tokens[number][tokens.mask[number]].mean(0)
        torch.testing.assert_close(pooled.tokens[number, 0], mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.tokens[0], pooled.tokens[0], atol=1e-5, rtol=1e-4)


# ---- what is missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_missing_sensor_is_not_a_silent_one(build, rows, collate, fusion):
    model, processor = build(fusion=fusion)
    batch = collate(model, processor, rows)
    silent = {**batch, "sensor": torch.zeros_like(batch["sensor"])}
    silent |= {"sensor_present": torch.ones(8, dtype=torch.bool), "sensor_mask": torch.ones(8, 16, dtype=torch.bool)}
    missing = {**silent, "sensor_present": torch.zeros(8, dtype=torch.bool)}
    unmeasured = {**silent, "sensor_mask": torch.zeros(8, 16, dtype=torch.bool)}
    found = {name: predicted(model, one) for name, one in (("silent", silent), ("missing", missing))}
    assert ((found["silent"] - found["missing"]).abs().amax((1, 2)) > 1e-5).all()
    torch.testing.assert_close(predicted(model, unmeasured), found["missing"])
    rubbish = torch.full_like(batch["sensor"], float("nan"))
    assert torch.equal(predicted(model, {**missing, "sensor": rubbish}), found["missing"])


def test_nan_behind_the_mask_has_no_influence(model, rows, processor, collate):
    batch = collate(model, processor, rows)
    held = batch["sensor_mask"] & batch["sensor_present"][:, None]
    dirty = batch["sensor"].masked_fill(~held[..., None], float("nan"))
    targets = batch["actions"].masked_fill(~batch["action_mask"][..., None], float("nan"))
    assert dirty.isnan().any() and targets.isnan().any()
    clean, found = model(**batch), model(**{**batch, "sensor": dirty, "actions": targets})
    assert torch.equal(clean.loss, found.loss) and torch.equal(clean.predicted_actions, found.predicted_actions)
    short = batch["sensor_mask"].clone()
    short[batch["sensor_present"], :8] = False
    other = predicted(model, {**batch, "sensor_mask": short})
    assert not torch.equal(other[batch["sensor_present"]], clean.predicted_actions[batch["sensor_present"]])


def test_sensors_are_dropped_in_training_only(build, rows, collate):
    dropping, processor = build(sensor_encoder={"sensor_dropout": 0.999})
    model = deepcopy(dropping)
    batch = collate(model, processor, rows)
    missing = {**batch, "sensor_present": torch.zeros(8, dtype=torch.bool)}
    kept = model.eval()(**batch).loss
    assert not torch.isclose(kept, model(**missing).loss)

    def fused_tokens(batch):
        fused = model.fuse(
            model.encode(**{n: batch[n] for n in batch if n in FAMILY.feature_cuts["backbone"].replaces}),
            *(batch[n] for n in ("state", "sensor", "sensor_present", "sensor_mask")),
        )
        return fused.tokens

    with torch.no_grad():
        assert not torch.allclose(fused_tokens(batch), fused_tokens(missing), atol=1e-4)
        model.train()
        torch.manual_seed(0)
        assert torch.allclose(fused_tokens(batch), fused_tokens(missing), atol=1e-5)


def test_fusion_none_is_deaf(build, rows, collate):
    model, processor = build(fusion="none")
    batch = collate(model, processor, rows)
    changed = {**batch, "sensor": batch["sensor"] + 3.0}
    assert torch.equal(predicted(model, batch), predicted(model, changed))
    heard, processor = build(fusion="concat")
    assert not torch.equal(predicted(heard, batch), predicted(heard, changed))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_new_part_learns(build, rows, collate, fusion):
    model, processor = build(fusion=fusion, expert={"kind": "flow"})
    model = deepcopy(model).train()
    model(**collate(model, processor, rows)).loss.backward()
    for part in ("sensor_encoder", "state_encoder", "fusion", "expert", "backbone"):
        found = [p.grad.abs().max() for p in getattr(model, part).parameters() if p.grad is not None]
        assert found and max(found) > 0, part


def test_a_model_without_sensor_or_state(build, rows, collate):
    model, processor = build(sensor=None, state_dim=0)
    batch = collate(model, processor, rows)
    assert not {"sensor", "sensor_present", "state"} & set(batch) and model.sensor_encoder is None
    assert predicted(model, batch).isfinite().all() and processor.window_s == 0.0


def test_batches_that_are_refused(model, processor, rows, collate):
    batch = collate(model, processor, rows)
    lacking = {name: value for name, value in batch.items() if name != "state"}
    with pytest.raises(ValueError, match="reads a state of 4 channels"):
        model(**lacking)
    with pytest.raises(ValueError, match="the model reads a sensor; say with `sensor_present`"):
        model(**{name: value for name, value in batch.items() if name != "sensor_present"})
    with pytest.raises(ValueError, match="give input_ids .* or features"):
        model(**batch, features=torch.zeros(8, 2, 32))


def test_evaluation_is_repeatable_and_training_is_not(build, rows, collate):
    model, processor = build(expert={"kind": "flow"})
    model, batch = deepcopy(model), collate(model, processor, rows)
    one, two = model.eval()(**batch), model(**batch)
    assert torch.equal(one.loss, two.loss) and torch.equal(one.predicted_actions, two.predicted_actions)
    model.train()
    assert not torch.equal(model(**batch).loss, model(**batch).loss)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_what_training_draws_belongs_to_the_row(build, rows, collate, kind, monkeypatch):
    """Eight rows at once, or one after the other as eight steps or eight processes see them: the same losses."""
    options = {"max_prefix": 2} if kind == "flow" else {}
    model, processor = build(expert={"kind": kind, **options}, sensor_encoder={"sensor_dropout": 0.5})
    model, given = deepcopy(model).train(), EpochRows(rows, seed=5)

    found, loss = [], model.expert.loss
    monkeypatch.setattr(model.expert, "loss", lambda *args, **kwargs: found.append(loss(*args, **kwargs)) or found[-1])

    def losses(*batches):
        found.clear()
        for numbers in batches:
            model(**collate(model, processor, given.__getitems__(list(numbers))))
        return torch.cat(found)

    together, each = range(8), [[number] for number in range(8)]
    alone = losses(*each)
    torch.testing.assert_close(losses(together), alone, atol=1e-5, rtol=1e-4)
    torch.manual_seed(1)  # nothing is drawn from the process's own stream
    torch.testing.assert_close(losses(*each), alone, atol=0, rtol=0)
    given.set_epoch(1)
    assert ((losses(together) - alone).abs() > 1e-4).all()


# ---- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_groups_own_every_parameter_of_every_backbone(build, backbone):
    model = build(backbone)[0]
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        owners = [group for group, facts in FAMILY.groups.items() if any(fnmatchcase(name, p) for p in facts.patterns)]
        assert len(owners) == 1, (name, owners)
    for group in ("language",) if backbone == "fast_vlm" else ("vision", "language"):  # timm's blocks are not counted
        whole, last = (expand_group(model, FAMILY.groups, name) for name in (group, f"{group}.last(1)"))
        layers = FAMILY.groups[group].layers_of(model)
        assert last and set(last) < set(whole) and all(name.startswith(f"{layers}.1.") for name in last)
    assert expand_group(model, FAMILY.groups, "projector")


def test_a_fusion_that_reads_no_sensor_has_no_encoder():
    model = SensorVLAForActionPrediction(SensorVLAConfig.tiny(fusion="none"))
    assert model.sensor_encoder is None


def test_a_window_too_short_for_cross_attention():
    short = {"channels": 6, "points": 2, "rate_hz": 400.0}
    with pytest.raises(CheckpointError, match="ignores its query"):
        SensorVLAForActionPrediction(SensorVLAConfig.tiny(fusion="cross_attention", sensor=short))
