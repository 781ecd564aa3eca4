"""GradCache: the gradients of the whole batch, in the memory of a chunk, on one process and on two."""

import subprocess
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hfvla.errors import DataError, RecipeError
from hfvla.losses.contrastive import group_infonce
from hfvla.training.trainer.gradcache import GradCache

from .. import pair_model
from ..pair_model import build_pair, build_pairs, build_rows, collate
from ..toy import build_trainer


def train(folder, **options):
    trainer, keep = build_pairs(folder, **options)
    trainer.train()
    return trainer, keep.gradients


def assert_close(first, second, tolerance=1e-5):
    """Compare tensors by name, to a share of the largest value of each."""
    assert set(first) == set(second)
    for name, value in first.items():
        assert value.abs().max() > 1e-3, f"{name}: too small to compare"
        assert (second[name] - value).abs().max() <= tolerance * value.abs().max(), name


@pytest.mark.parametrize("rows", [1, 3, 16, 50])
def test_gradients_are_those_of_the_whole_batch(tmp_path, rows):
    plain, expected = train(tmp_path / "plain")
    cached, found = train(tmp_path / "cached", grad_cache=rows)
    assert cached.model.encoded[: -(-16 // rows)] == [min(rows, 16 - start) for start in range(0, 16, rows)]
    assert plain.model.encoded == [16, 16]
    assert_close(expected, found)
    assert {"image_tower.up.weight", "text_tower.places", "head.weight", "log_temperature"} <= set(found)
    assert_close(dict(plain.model.named_parameters()), dict(cached.model.named_parameters()))


def test_the_negatives_are_those_of_the_whole_batch(tmp_path):
    _, whole = train(tmp_path / "whole", grad_cache=4)
    args = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "max_steps": 1}
    _, small = train(tmp_path / "small", args=args)  # accumulation is no substitute
    assert (whole["image_tower.up.weight"] - small["image_tower.up.weight"]).abs().max() > 1e-3


def test_accumulation_averages_the_batches(tmp_path):
    args = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_steps": 1}
    _, expected = train(tmp_path / "plain", args=args)
    _, found = train(tmp_path / "cached", args=args, grad_cache=3)
    assert_close(expected, found)


def test_the_log_is_the_same(tmp_path):
    lines = []
    for rows in (None, 5):
        trainer, _ = train(tmp_path / str(rows), grad_cache=rows)
        history = [line for line in trainer.state.log_history if "loss" in line]
        measured = ("samples_per_second", "data_s", "peak_memory_gb")
        lines.append([{k: v for k, v in line.items() if not k.endswith(measured)} for line in history])
    assert len(lines[0]) == len(lines[1]) == 2
    for plain, cached in zip(*lines, strict=True):
        assert {"pair/loss_itc", "loss"} <= set(plain)
        assert cached == pytest.approx(plain, abs=1e-5)


def test_dropout_draws_the_same_in_both_passes(tmp_path):
    model = build_pair(dropout=0.5)
    trainer, keep = build_pairs(tmp_path, model=model, args={"max_steps": 1}, losses={"itc": 1.0}, grad_cache=4)
    states = []
    original = model.forward

    def forward(*args, **kwargs):
        if not states:
            states.append(torch.get_rng_state())
        return original(*args, **kwargs)

    model.forward = forward
    trainer.train()
    model.forward = original
    # The same draws with one graph over all chunks
    reference = build_pair(dropout=0.5).train()
    batch = collate([build_rows()[index] for index in range(16)])
    torch.set_rng_state(states[0])
    parts = [
        reference(**{name: value[start : start + 4] for name, value in batch.items()}, encode_only=True).features
        for start in range(0, 16, 4)
    ]
    image, text = (torch.cat([part[name] for part in parts]) for name in ("image", "text"))
    group_infonce(image, text, reference.log_temperature.exp(), batch["groups"]).backward()
    expected = {name: value.grad for name, value in reference.named_parameters() if value.grad is not None}
    assert_close(expected, keep.gradients)


class Shared(nn.Module):
    """A layer that both the encoder and the loss use, and a loss that draws."""

    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(3, 3), nn.Dropout(0.5)

    def forward(self, given, encode_only=False, features=None):
        if features is None:
            features = {"given": self.dropout(self.layer(given))}
        return (
            SimpleNamespace(features=features)
            if encode_only
            else (self.layer(features["given"]) + torch.rand(3)).sum()
        )


def one_device():
    return SimpleNamespace(
        unwrap_model=lambda model: model,
        device=torch.device("cpu"),
        no_sync=lambda model: nullcontext(),
        sync_gradients=True,
        num_processes=1,
    )


def test_random_draws_go_on_where_the_loss_left_them():
    cache, model, given, states = GradCache(2, one_device()), Shared(), torch.ones(4, 3), []

    def plain():
        loss = cache.forward(model, {"given": given})
        loss.backward()
        states.append(torch.get_rng_state())
        return loss

    cache.training_step(SimpleNamespace(compute_loss_context_manager=nullcontext), model, plain)
    assert torch.equal(torch.get_rng_state(), states[0])


def test_half_precision_copies_without_a_graph_are_not_used_again():
    cache, model = GradCache(2, one_device()), Shared()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cache.forward(model, {"given": torch.ones(4, 3)})
    loss.backward()
    assert model.layer.weight.grad is not None  # of the loss's own use of the layer


def test_a_frozen_tower_is_encoded_and_gets_no_gradient(tmp_path):
    _, expected = train(tmp_path / "plain", train=["text", "head"])
    _, found = train(tmp_path / "cached", train=["text", "head"], grad_cache=4)
    assert not any(name.startswith("image_tower") for name in found)
    assert_close(expected, found)


def test_half_precision_reaches_the_weights(tmp_path):
    _, expected = train(tmp_path / "plain", args={"bf16": True})
    _, found = train(tmp_path / "cached", args={"bf16": True}, grad_cache=4)
    assert set(expected) == set(found)
    for name, value in expected.items():
        cosine = nn.functional.cosine_similarity(value.flatten(), found[name].flatten(), dim=0)
        assert cosine > 0.99, name


def test_learned_weights_of_terms_go_with_it(tmp_path):
    plain, _ = train(tmp_path / "plain", loss_weighting="uncertainty")
    cached, _ = train(tmp_path / "cached", loss_weighting="uncertainty", grad_cache=3)
    torch.testing.assert_close(cached.balancer.log_variances, plain.balancer.log_variances, atol=1e-5, rtol=0)
    assert plain.balancer.log_variances.abs().max() > 1e-3


def test_evaluation_runs_whole_batches(tmp_path):
    args = {"per_device_eval_batch_size": 16}
    trainer, _ = build_pairs(tmp_path, evaluated=build_rows(16), grad_cache=4, args=args)
    trainer.evaluate()
    assert trainer.model.encoded == [16]


# ---- memory ------------------------------------------------------------------------------------------------------


class Held:
    """A tensor that a graph keeps; counts itself out when the graph is gone."""

    def __init__(self, tensor, count):
        self.tensor, self.count, self.size = tensor, count, tensor.numel() * tensor.element_size()
        count["now"] += self.size
        count["peak"] = max(count["peak"], count["now"])

    def __del__(self):
        self.count["now"] -= self.size


@contextmanager
def graph_bytes(model):
    """Count the bytes that autograd keeps for the way backward, without the model's own weights."""
    own, count = {p.untyped_storage().data_ptr() for p in model.parameters()}, {"now": 0, "peak": 0}

    def pack(tensor):
        return tensor if tensor.untyped_storage().data_ptr() in own else Held(tensor, count)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor if isinstance(held, Held) else held):
        yield count


def peak_bytes(folder, batch, grad_cache):
    model = build_pair(tokens=2048)
    args = {"per_device_train_batch_size": batch, "max_steps": 1}
    trainer, _ = build_pairs(
        folder, model=model, rows=build_rows(batch), args=args, losses={"itc": 1.0}, grad_cache=grad_cache
    )
    with graph_bytes(model) as count:
        trainer.train()
    assert count["now"] == 0
    return count["peak"]


def test_batch_512_in_the_memory_of_batch_16(tmp_path):
    small, large = peak_bytes(tmp_path / "small", 16, None), peak_bytes(tmp_path / "large", 512, 16)
    assert peak_bytes(tmp_path / "plain", 64, None) > 3.5 * small  # what is counted grows with the batch
    assert large <= 1.05 * small


# ---- two processes -----------------------------------------------------------------------------------------------


@pytest.mark.distributed
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    # Odd samples are on one of two ranks, so the term counts half of its weight there, and its head has no gradient
    # on the other rank.
    one, keep = pair_model.train_distributed(tmp_path / "one", batch=8, grad_cache=None, odd_weight=0.25)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, pair_model.__file__, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    weights, gradients = ([load_file(tmp_path / f"{kind}-{rank}.safetensors") for rank in (0, 1)] for kind in KINDS)
    for first, second in (weights, gradients):
        assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
    assert_close(keep.gradients, gradients[0])
    assert_close(dict(one.model.named_parameters()), weights[0])


KINDS = ("weights", "grads")


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"loss_weighting": "pcgrad"}, "pcgrad"),
        ({"loss_weighting": "gradnorm"}, "gradnorm"),
        ({"gradient_report": {"every": 1, "groups": ["head"]}}, "gradient_report"),
    ],
)
def test_what_needs_the_gradient_of_each_term_is_refused(tmp_path, options, named):
    with pytest.raises(RecipeError, match=f"stage 'pair': grad_cache.*{named}"):
        build_pairs(tmp_path, grad_cache=4, **options)


def test_a_model_that_takes_no_part_is_refused(tmp_path):
    # ToyModel's forward takes `features` of its own, but knows nothing of `encode_only`
    with pytest.raises(RecipeError, match="stage 'first': grad_cache.*forward takes no encode_only"):
        build_trainer(tmp_path, grad_cache=4)


@pytest.mark.parametrize(
    ("extra", "named"), [(torch.zeros(3, 2), r"\(3, 2\)"), ("a", "str"), (torch.tensor(1.0), r"\(\)")]
)
def test_a_value_without_rows_is_named(tmp_path, extra, named):
    trainer, _ = build_pairs(tmp_path, grad_cache=4, collator=lambda rows: {**collate(rows), "extra": extra})
    with pytest.raises(DataError, match=f"cannot cut 'extra'.*{named}.*16 rows"):
        trainer.train()
