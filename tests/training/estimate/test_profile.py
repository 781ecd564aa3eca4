"""A step followed on the meta device against the same step run for real."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hfvla.training.estimate import EstimateError, estimate_flops, profile_step
from hfvla.training.estimate.kernels import GpuKernels
from hfvla.training.estimate.tracker import StepTracker

from ..tiny_vlm import build_batch, build_model, names

FROZEN = {"all": (), "no vision": ("vision_tower",), "projector": ("vision_tower", "language_model", "lm_head")}


@pytest.fixture(scope="module")
def real():
    return build_model("cpu")


@pytest.fixture(scope="module")
def meta():
    return build_model()


def train_only(model, frozen):
    trained = set(names(model, *FROZEN[frozen]))
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(name in trained)
    return sorted(trained)


def really_saved(model, batch) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, weights apart."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    kept: dict = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(**batch)
    del output
    return sum(size for size, _ in kept.values())


def really_allocated(model, batch) -> int:
    """The most that the CPU allocator holds in a forward and backward pass, weights and batch apart."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(**batch).loss.backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    return highest


def batch_bytes(batch) -> int:
    return sum(value.numel() * value.element_size() for value in batch.values())


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("frozen", FROZEN)
def test_bytes_are_those_of_a_real_step(real, meta, frozen, padding):
    batch = build_batch(padding=padding)
    trained = train_only(real, frozen)
    found = profile_step(meta, batch, trainable=trained)
    saved = really_saved(real, batch)
    train_only(real, frozen)
    peak = really_allocated(real, batch)
    # Storages count in multiples of 512 bytes, as CUDA hands them out; outputs are alive beside what autograd keeps.
    assert saved * 0.999 <= found.saved_bytes <= 1.02 * saved + batch_bytes(batch)
    assert found.backward_bytes == pytest.approx(peak + batch_bytes(batch), rel=0.01)


def test_frozen_parts_keep_nothing(meta):
    batch = build_batch()
    found = {name: profile_step(meta, batch, trainable=names(meta, *parts)) for name, parts in FROZEN.items()}
    assert found["no vision"].saved_bytes < found["all"].saved_bytes
    assert found["no vision"].backward_flops < found["all"].backward_flops
    head = profile_step(meta, batch, trainable=["lm_head.weight"])
    logits = 8 * 64 * 512 * 4  # samples x tokens x vocabulary, float32
    assert head.saved_bytes < 4 * logits + batch_bytes(batch) < found["no vision"].saved_bytes


@pytest.mark.parametrize("frozen", FROZEN)
def test_flops_are_those_that_torch_counts(real, meta, frozen):
    batch = build_batch()
    trained = train_only(real, frozen)
    with FlopCounterMode(display=False) as counter:
        real(**batch).loss.backward()
    assert estimate_flops(meta, batch, trainable=trained) == counter.get_total_flops() > 1e8


def test_checkpointing_trades_bytes_for_flops(real, meta):
    batch = build_batch()
    trained = train_only(real, "all")
    plain, less = (profile_step(meta, batch, trainable=trained, checkpointing=switch) for switch in (False, True))
    assert less.saved_bytes < 0.4 * plain.saved_bytes
    assert less.forward_flops == plain.forward_flops
    assert plain.flops + 0.5 * plain.forward_flops < less.flops < plain.flops + plain.forward_flops
    real.activation_checkpointing_enable({"use_reentrant": False})
    try:
        peak = really_allocated(real, batch)
    finally:
        real.activation_checkpointing_disable()
    assert less.backward_bytes == pytest.approx(peak + batch_bytes(batch), rel=0.02)


def test_checkpointing_keeps_nothing_of_a_frozen_tower(meta):
    """transformers makes the tower's embeddings require gradients; its layers would then all be kept."""
    trained = [name for name, _ in meta.named_parameters() if "language_model.layers" in name]
    plain, less = (profile_step(meta, build_batch(), trainable=trained, checkpointing=on) for on in (False, True))
    assert less.saved_bytes < plain.saved_bytes and less.backward_bytes < plain.backward_bytes


def test_the_model_is_left_as_it_was(meta):
    for parameter in meta.parameters():
        parameter.requires_grad_(True)
    meta.model.vision_tower.eval()
    before = [(p.requires_grad, p.dtype, p.grad) for p in meta.parameters()], [m.training for m in meta.modules()]
    profile_step(meta, build_batch(), trainable=["lm_head.weight"], dtype=torch.bfloat16, checkpointing=True)
    after = [(p.requires_grad, p.dtype, p.grad) for p in meta.parameters()], [m.training for m in meta.modules()]
    assert after == before
    assert meta.config.text_config.use_cache
    again = profile_step(meta, build_batch(), trainable=["lm_head.weight"])  # transformers leaves hooks behind
    assert again == profile_step(build_model(), build_batch(), trainable=["lm_head.weight"])
    meta.train()


def test_half_precision_halves_what_is_saved(meta):
    batch, trained = build_batch(), names(meta)
    single, half = (profile_step(meta, batch, trainable=trained, dtype=kind) for kind in (None, torch.bfloat16))
    assert 0.5 * single.saved_bytes < half.saved_bytes < 0.75 * single.saved_bytes  # the loss is computed in float32
    assert half.flops == single.flops


def run(module, inputs, autocast=torch.bfloat16):
    tracker = StepTracker()
    for tensor in (*module.parameters(), *module.buffers()):
        tracker.exclude(tensor)
    with GpuKernels(autocast), tracker:
        return module(inputs), tracker


def test_autocast_runs_products_in_half_and_norms_in_single():
    with torch.device("meta"):
        linear, norm, inputs = nn.Linear(64, 256), nn.LayerNorm(256), torch.empty(16, 64)
    outputs, tracker = run(nn.Sequential(linear, norm), inputs)
    assert outputs.dtype == torch.float32
    assert run(linear, inputs)[0].dtype == torch.bfloat16 and run(linear, inputs, None)[0].dtype == torch.float32
    # A weight that is used twice is cast once: 64 x 256 in two bytes, and the bias.
    twice = lambda values: (linear(values), linear(values))  # noqa: E731
    twice.parameters, twice.buffers = linear.parameters, linear.buffers
    casts = 2 * 64 * 256 + 2 * 256
    (first, second), tracker = run(twice, inputs)
    others = 2 * (16 * 64 * 2) + 2 * (16 * 256 * 2)  # two casts of the input, two outputs
    assert tracker.peak_bytes == casts + others and first.shape == second.shape


def test_attention_keeps_no_matrix_on_a_gpu():
    query = torch.empty(2, 4, 512, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    matrix = 2 * 4 * 512 * 512 * 2
    attend = nn.functional.scaled_dot_product_attention
    for mask in (None, torch.ones(2, 1, 512, 512, dtype=torch.bool)):
        tracker = StepTracker()
        with GpuKernels(), tracker:
            output = attend(query, query, query, attn_mask=mask, is_causal=mask is None)
        assert output.shape == query.shape
        assert tracker.live_bytes < matrix and tracker.flops == 4 * 2 * 4 * 512 * 512 * 64


class Branching(nn.Module):
    """Its forward pass depends on a computed value, or on an integer that was given."""

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.linear, self.computed = nn.Linear(8, 8), computed

    def forward(self, values, marks):
        hidden = self.linear(values)
        if self.computed:
            return {"loss": hidden.sum() if hidden.max() > 0 else hidden.mean()}
        chosen = hidden[marks > 0]  # as many rows as there are marks
        assert bool((marks > 0).any())
        return {"loss": (chosen * torch.arange(len(chosen), device=chosen.device)[:, None]).sum()}


def test_branches_on_given_integers_run_and_on_computed_values_do_not():
    batch = {"values": torch.empty(4, 8), "marks": torch.tensor([1, 0, 2, 0])}
    with torch.device("meta"):
        given, computed = Branching(False), Branching(True)
    assert profile_step(given, batch).flops == 2 * (2 * 4 * 8 * 8)  # forward, and the weight's gradient
    with pytest.raises(EstimateError, match="depends on a computed value"):
        profile_step(computed, batch)


def test_what_cannot_be_followed_is_said(meta):
    with pytest.raises(EstimateError, match="not on the meta device"):
        profile_step(nn.Linear(2, 2), {})
    unlabelled = {key: value for key, value in build_batch().items() if key != "labels"}
    with pytest.raises(EstimateError, match="no loss that trains anything"):
        profile_step(meta, unlabelled, trainable=names(meta))
    with pytest.raises(EstimateError, match="no loss that trains anything"):
        profile_step(meta, build_batch(), trainable=[])
    with pytest.raises(EstimateError, match="Branching does not support gradient checkpointing"):
        with torch.device("meta"):
            plain = Branching(False)
        profile_step(plain, {"values": torch.empty(1, 8), "marks": torch.ones(1)}, checkpointing=True)
    few = {**build_batch(), "pixel_values": torch.randn(1, 3, 56, 56)}
    with pytest.raises(EstimateError, match="fails on the meta device.*do not match"):
        profile_step(meta, few, trainable=names(meta))
