"""What only a GPU can show: real sizes in bf16, and memory as planned. Run by `make test-gpu`."""

import json
import runpy
import sys

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device (`hfvla doctor` tells why)"),
]


@pytest.fixture
def gpu(repository):
    benchmark = runpy.run_path(str(repository / "benchmarks/gpu.py"))
    benchmark["allow_missing_wrapt"]()
    return benchmark


def test_a_real_size_model_trains_in_bf16(gpu):
    torch.manual_seed(0)
    with torch.device("cuda"):
        model, batch, _ = gpu["build"]("ember_vlm", False)
    model = model.to("cuda", torch.bfloat16).train()
    assert 25e6 < sum(parameter.numel() for parameter in model.parameters()) < 60e6
    inputs = gpu["place"](batch, "cuda")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model(**inputs)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert losses[-1] < losses[0]
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {"vision", "projector", "language", "selection_head"} <= moved


@pytest.mark.parametrize("name", ["ember_vlm", "internvl3_1b"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_peak_memory_is_as_planned(gpu, name, checkpointing):
    pytest.importorskip("pydantic")
    planned = gpu["estimate"](name, False, checkpointing)
    measured = gpu["measure"](name, False, "cuda", 2, {"checkpointing": checkpointing})["peak_bytes"]
    assert planned == pytest.approx(measured, rel=0.1), (planned, measured)


def test_a_stage_with_a_phase_trains_on_a_gpu(tmp_path):
    pytest.importorskip("pydantic")
    pytest.importorskip("datasets")
    from hfvla.recipe import Phase

    from ..training.toy import build_model, build_trainer, changed, snapshot

    model = build_model()
    before = snapshot(model)
    args = {"use_cpu": False, "bf16": True, "max_steps": 4, "learning_rate": 1e-2}
    trainer = build_trainer(tmp_path, model, train=["head"], phases=[Phase(step=2, add=["blocks.last(1)"])], args=args)
    assert trainer.args.device.type == "cuda"
    trainer.train()
    moved = changed(trainer.model.cpu(), before)
    assert {name.split(".")[0] for name in moved} == {"head", "blocks"}
    assert not [name for name in moved if name.startswith("blocks.") and not name.startswith("blocks.2")]


def test_the_benchmark_runs(gpu, tmp_path, monkeypatch):
    output = tmp_path / "gpu.json"
    words = ["gpu.py", "--tiny", "--steps", "2", "--models", "ember_vlm", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    gpu["main"]()
    found = json.loads(output.read_text())
    plain = found["rows"][0]
    assert plain["peak_bytes"] > 0 and plain["samples_per_s"] > 0 and found["hardware"]["gpu"]
