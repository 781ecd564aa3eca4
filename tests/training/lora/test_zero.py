"""LoRA under DeepSpeed ZeRO-3 on two processes: saved whole, audited, and equal to one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hfvla.training.checkpoint.adapters import read_adapters
from hfvla.training.checkpoint.handover import load_state

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
WORKER = Path(__file__).parents[1] / "lora_worker.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same two stages on one process without DeepSpeed and on two with ZeRO-3."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("zero")
    config = {
        **{"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"},
        **{"zero_allow_untested_optimizer": True, "gradient_clipping": "auto"},
        "zero_optimization": {
            **{"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
            **{"stage3_param_persistence_threshold": 0},
        },
    }
    (folder / "zero3.json").write_text(json.dumps(config))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(WORKER)]
    for name, command in (
        ("one", [sys.executable, str(WORKER), str(folder / "one")]),
        ("two", [*launch, str(folder / "two"), str(folder / "zero3.json")]),
    ):
        (folder / name).mkdir()
        done = subprocess.run(command, capture_output=True, text=True, timeout=420, cwd=folder)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "one", folder / "two"


def test_the_weights_really_were_partitioned(runs):
    one, two = (json.loads((folder / "report.json").read_text()) for folder in runs)
    assert one["world"] == 1 and two["world"] == 2
    assert [one[name]["partitioned"] for name in ("one", "two")] == [0, 0]
    assert [two[name]["partitioned"] for name in ("one", "two")] == [2, 2]  # A of two blocks
    for name in ("one", "two"):
        assert two[name]["tensors"] == one[name]["tensors"] == 9  # two of embed, four of blocks, three of head
        assert two[name]["largest_difference"] < 1e-5


@pytest.mark.parametrize("stage", ["one", "two"])
def test_what_is_saved_equals_one_process(runs, stage):
    one, two = (load_state(folder / stage) for folder in runs)
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    first, second = (read_adapters(folder / stage) for folder in runs)
    for name, value in first.adapters["default"][1].items():
        assert value.numel() and value.abs().sum() > 0
        torch.testing.assert_close(second.adapters["default"][1][name], value, rtol=0, atol=1e-5)
    assert all(torch.equal(second.base[name], value) for name, value in first.base.items())  # frozen, to the bit


def test_the_second_stage_went_on_with_the_adapter(runs):
    for folder in runs:
        before, after = (read_adapters(folder / stage).adapters["default"][1] for stage in ("one", "two"))
        assert all(not torch.equal(after[name], value) for name, value in before.items())


def test_checkpoints_inside_the_stages_hold_whole_tensors(runs):
    folder = runs[1] / "two_checkpoints/checkpoint-4"
    adapter = read_adapters(folder).adapters["default"][1]
    assert adapter["base_model.model.blocks.0.lora_A.weight"].shape == (2, 16)
    assert all(value.numel() for value in [*adapter.values(), *load_state(folder).values()])
