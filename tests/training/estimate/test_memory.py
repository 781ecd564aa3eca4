"""Bytes of weights, gradients and optimizers, and how settings lay them out, by hand-computed numbers."""

import json

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from hfvla.errors import DataError, HfvlaError
from hfvla.training.estimate import (
    GPUS,
    SETTINGS,
    ModelBytes,
    Throughput,
    combine,
    estimate_memory,
    find_gpu,
    read_throughput,
    step_seconds,
    this_cpu,
)
from hfvla.training.estimate.optimizers import OptimizerBytes, optimizer_bytes
from hfvla.training.estimate.profile import StepProfile

from ..tiny_vlm import build_batch, build_model, names

BY_NAME = {setting.name: setting for setting in SETTINGS}
GB = 10**9
# 1 B parameters, half of which train, in bf16: 2 GB of weights and 1 GB of gradients; AdamW on float32 copies.
SIZE = ModelBytes(GB, GB // 2, 2 * GB, 0, 0, GB, OptimizerBytes(4 * GB, 0))
STEP = StepProfile(
    saved_bytes=2 * GB,
    activation_bytes=3 * GB,
    backward_bytes=int(3.5 * GB),
    forward_flops=10**12,
    backward_flops=2 * 10**12,
    kernels=100,
    traffic_bytes=GB,
)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "adagrad"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimizer_and_gradient_bytes_are_the_real_ones(tmp_path, optim, dtype):
    model = nn.Sequential(nn.Linear(96, 64), nn.LayerNorm(64), nn.Linear(64, 32)).to(dtype)
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=optim, use_cpu=True)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    optimizer = kind(model.parameters(), **options)
    model(torch.randn(4, 96, dtype=dtype)).float().square().mean().backward()
    optimizer.step()
    state = [value for of in optimizer.state.values() for value in of.values() if isinstance(value, torch.Tensor)]
    kept = sum(value.numel() * value.element_size() for value in state if value.dim())  # not the step count
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in model.parameters())
    size = ModelBytes.of(model, optim=optim)
    assert size.optimizer.state == kept and size.optimizer.known
    assert size.gradients == gradients
    assert size.weights == gradients and size.trainable == size.parameters == 96 * 64 + 64 + 2 * 64 + 64 * 32 + 32


def test_other_optimizers():
    large, small = torch.empty(512, 256, device="meta"), torch.empty(64, device="meta")
    # One byte a moment and element, a float32 scale for 256 of them; small tensors stay in 32 bits.
    eight_bit = 2 * (512 * 256 + 4 * 512) + 2 * 4 * 64
    assert optimizer_bytes("adamw_8bit", [large, small]).state == eight_bit
    assert optimizer_bytes("paged_adamw_8bit", [large, small]).state == eight_bit
    assert optimizer_bytes("lion_8bit", [large]).state == 512 * 256 + 4 * 512
    assert optimizer_bytes("paged_adamw_32bit", [large.bfloat16()]).state == 8 * 512 * 256
    assert optimizer_bytes("adamw_torch", [large]).step == 4 * 512 * 256  # a list of intermediate tensors
    assert optimizer_bytes("adamw_torch_fused", [large]).step == 0
    unknown = optimizer_bytes("galore_adamw", [large])
    assert unknown.state == 8 * 512 * 256 and not unknown.known


def test_four_bit_weights():
    with torch.device("meta"):
        model = nn.Linear(1024, 1024)
    size = ModelBytes.of(model, ["bias"], four_bit=["weight"])
    count = 1024 * 1024
    # Half a byte a weight, a byte for 64 of them, four for 256 of those; the bias stays.
    assert size.quantized == count // 2 + count // 64 + count // 4096
    assert size.weights == size.quantized + 4 * 1024 and size.trainable == 1024


def peak(name, gpus=1, accumulation=1, size=SIZE):
    return combine(STEP, size, BY_NAME[name], gpus, accumulation)


def test_plain_settings():
    one = peak("plain")
    assert (one.weights, one.gradients, one.optimizer) == (2 * GB, GB, 4 * GB)
    assert one.peak == (2 + 4 + 3.5) * GB  # gradients appear while activations go
    assert peak("plain", accumulation=2).peak == (2 + 4 + 1 + 3) * GB  # they stay while the next batch runs
    two = peak("plain", 2)
    assert two.gradients == 2 * GB and two.peak == (2 + 4 + 3.5 + 1) * GB  # DDP's buckets
    assert two.overhead - one.overhead == (400 << 20) + int(0.03 * two.peak) - int(0.03 * one.peak)
    small = combine(StepProfile(0, 0, 0, 1, 1, 1, 1), SIZE, BY_NAME["plain"])
    assert small.peak == (2 + 4 + 1) * GB  # the optimizer's step is the peak
    slow = ModelBytes(GB, GB // 2, 2 * GB, 0, 0, GB, OptimizerBytes(4 * GB, 2 * GB))
    assert combine(StepProfile(0, 0, 0, 1, 1, 1, 1), slow, BY_NAME["plain"]).peak == (2 + 4 + 1 + 2) * GB


def test_what_is_held_and_what_comes_once():
    plain = BY_NAME["plain"]
    assert combine(STEP, SIZE, plain, held=GB).peak == peak("plain").peak + GB
    assert combine(STEP, SIZE, plain, once=GB).peak == peak("plain").peak  # before the first step: not on top of it
    assert combine(STEP, SIZE, plain, once=20 * GB).peak == (2 + 20) * GB


def test_zero_settings():
    bucket = 2 * 2 * 50_000_000  # two buckets of 50 M elements, two bytes each
    master = 4 * (GB // 2) + 4 * GB  # float32 copies and both moments
    four = {name: peak(name, 4) for name in BY_NAME}
    assert [four[f"zero{stage}"].weights for stage in (1, 2, 3)] == [2 * GB, 2 * GB, GB // 2]
    assert [four[f"zero{stage}"].gradients for stage in (1, 2, 3)] == [GB, GB // 4, GB // 4]
    assert {four[f"zero{stage}"].optimizer for stage in (1, 2, 3)} == {master // 4}
    assert four["zero2"].peak == 2 * GB + GB // 4 + master // 4 + bucket + 3 * GB
    gathered = 2 * 500_000_000
    assert four["zero3"].peak == GB // 2 + GB // 4 + master // 4 + bucket + gathered + 3 * GB
    # Optimizer, float32 weights and gradients move to the host; with offloaded parameters the weights too.
    assert four["zero2+optimizer"].optimizer == four["zero2+optimizer"].gradients == 0
    assert four["zero2+optimizer"].host == (master + 2 * GB) // 4
    assert four["zero3+optimizer+parameters"].weights == 0
    assert four["zero3+optimizer+parameters"].host == (master + 2 * GB) // 4 + 2 * GB // 4
    # Nothing of four bits is split, and buffers stay.
    packed = ModelBytes(GB, GB // 2, 2 * GB + 100 + 10, 100, 10, GB, OptimizerBytes(4 * GB, 0))
    assert peak("zero3", 4, size=packed).weights == GB // 2 + 110


def test_fits_counts_overhead():
    card = find_gpu("a40-48")
    assert peak("plain").fits(card)
    heavy = ModelBytes(GB, GB, int(card.memory_bytes - 3.6 * GB), 0, 0, 0, OptimizerBytes(0, 0))
    found = combine(STEP, heavy, BY_NAME["plain"])
    assert found.peak < card.memory_bytes < found.total and not found.fits(card)
    with pytest.raises(HfvlaError, match="no GPU 'a100-60'.*a100-"):
        find_gpu("a100-60")


def test_estimate_memory_end_to_end():
    model, batch = build_model(attention="sdpa"), build_batch()
    trained = names(model, "vision_tower")
    options = {"trainable": trained, "precision": "bf16-mixed"}
    plain = estimate_memory(model, batch, **options)
    count = sum(parameter.numel() for name, parameter in model.named_parameters() if name in set(trained))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * total + buffers, 4 * count, 8 * count)
    pure = estimate_memory(model, batch, trainable=trained, precision="bf16")
    assert (pure.gradients, pure.optimizer) == (2 * count, 4 * count)  # torch's AdamW keeps moments in bf16 then
    sharded = estimate_memory(model, batch, setting="zero3", gpus=8, **options)
    assert sharded.optimizer == 12 * count // 8 and sharded.gradients == 2 * count // 8
    assert estimate_memory(model, batch, checkpointing=True, **options).peak < plain.peak
    with pytest.raises(HfvlaError, match="no setting 'zero4'. Did you mean 'zero"):
        estimate_memory(model, batch, setting="zero4")
    with pytest.raises(HfvlaError, match="no precision 'bf17'"):
        estimate_memory(model, batch, precision="bf17")


def test_seconds():
    card = find_gpu("a100-80")
    speed = Throughput({}, mfu=0.5)
    step = StepProfile(0, 0, 0, 10**13, 2 * 10**13, 100, GB)
    assert speed.batch_seconds(step, card, half=True) == pytest.approx(3e13 / (0.5 * 312e12))
    assert speed.batch_seconds(step, card, half=False) == pytest.approx(3e13 / (0.5 * 19.5e12))
    assert Throughput({"a100-80": 100.0}).batch_seconds(step, card, half=True) == pytest.approx(0.3)
    tiny = StepProfile(0, 0, 0, 1, 1, 1000, 8)
    assert speed.batch_seconds(tiny, card, half=True) == pytest.approx(1000 * 8e-6)  # launches
    moving = StepProfile(0, 0, 0, 1, 1, 1, 2039 * GB)
    assert speed.batch_seconds(moving, card, half=True) == pytest.approx(1.0)  # memory traffic
    touched = 2 * (GB + 4 * GB) / 2039e9
    alone = step_seconds(0.1, SIZE, BY_NAME["plain"], card, 1)
    assert alone == pytest.approx(0.1 + touched)
    # Four GPUs exchange 3/4 of twice the gradients, at 200 GB/s.
    assert step_seconds(0.1, SIZE, BY_NAME["plain"], card, 4, 2) == pytest.approx(0.2 + touched + 0.75 * 2 / 200)
    seconds = step_seconds(0.1, SIZE, BY_NAME["zero3+optimizer+parameters"], card, 1)
    assert seconds == pytest.approx(0.1 + (2 * 1 + 2 * 2) / 20 + 0.5)  # to and from the host at 20 GB/s; Adam there


def test_measured_throughput_is_read(tmp_path):
    path = tmp_path / "gpu.json"
    rows = [{"variant": "sdpa", "mfu": 0.3}, {"variant": "sdpa", "mfu": 0.4}, {"variant": "sdpa + liger", "mfu": 0.6}]
    hardware = {"gpu": "NVIDIA A100-SXM4-40GB", "gpu_bytes": 42 * GB, "peak_bf16_tflops": 312.0}
    path.write_text(json.dumps({"hardware": hardware, "rows": rows}))
    assert read_throughput(path).measured_tflops == {"a100-40": pytest.approx(124.8)}
    path.write_text(json.dumps({"achieved_tflops": {"h100-80": 400}}))
    assert read_throughput(path).measured_tflops == {"h100-80": 400.0}
    for content in ('{"rows": []}', '{"achieved_tflops": {"h100": 400}}', '{"achieved_tflops": {"h100-80": 0}}', "{"):
        path.write_text(content)
        with pytest.raises(DataError, match="gpu.json"):
            read_throughput(path)


def test_gpus_are_named_once():
    assert len({gpu.name for gpu in GPUS}) == len(GPUS) == 12
    assert [gpu.memory_bytes // 10**9 for gpu in GPUS] == sorted(gpu.memory_bytes // 10**9 for gpu in GPUS)


def test_a_gpu_may_be_said_by_its_name_alone_or_with_its_memory():
    assert find_gpu("rtx4090") is find_gpu("RTX4090-24") and find_gpu("t4").bf16 is False
    more = find_gpu("a40:96GB")
    assert (more.name, more.like, more.peak_tflops) == ("a40-96", "", find_gpu("a40").peak_tflops)
    assert more.memory_bytes == int(96 * 0.93 * 2**30)
    other = find_gpu("mine:24GB")
    assert other.name == "mine-24" and other.like in ("l4-24", "rtx3090-24", "rtx4090-24")
    for wrong, said in (("a100", "several GPUs 'a100'"), ("mine", "--gpu mine:24GB"), ("mine:0GB", "some memory")):
        with pytest.raises(HfvlaError, match=said):
            find_gpu(wrong)


def test_this_cpu_is_measured():
    cpu = this_cpu()
    assert cpu.name == "cpu" and 1e-4 < cpu.peak_tflops == cpu.peak_tflops_float32 < 100 and cpu.memory_bytes > 2**28
