"""The precision contract on two processes that share each batch, whose rows do not all have every term."""

import json
import math
import subprocess
import sys

import pytest

from .precision_cases import PRECISIONS, STEPS, cases, run_case
from .precision_worker import uneven

pytestmark = pytest.mark.distributed

SAMPLE = [
    ("chat_vlm-plain", "bf16 weights"),
    ("ember_vlm-plain", "bf16 autocast"),
    ("internvl_retrieval-plain", "bf16 weights, no autocast"),
    ("internvl_video_qa-lora", "bf16 autocast"),
    ("sensor_vla-expert_flow", "bf16 weights"),
]
ALL = [(str(case), name) for case in cases() for name in PRECISIONS]


def check(pairs, folder, repository):
    """Train the pairs on two processes, and compare each with float32 on one."""
    (folder / "cases.json").write_text(json.dumps(pairs))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "tests.contract.precision_worker", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, cwd=repository)
    assert done.returncode == 0, done.stderr[-6000:]
    known, wanted, wrong = {str(case): case for case in cases()}, {}, []
    for number, (name, precision) in enumerate(pairs):
        if name not in wanted:
            wanted[name] = run_case(known[name], PRECISIONS["float32"], uneven(known[name]), folder)
        first, second = (json.loads((folder / f"{number}-{rank}.json").read_text()) for rank in range(2))
        problem = compare(known[name], PRECISIONS[precision], wanted[name], first, second)
        wrong += [f"{name}, {precision}: {problem}"] if problem else []
    assert not wrong, "\n".join(wrong)


def compare(case, precision, wanted, first, second) -> str:
    if any(one["types"] != ["torch.float32"] for one in (first, second)):
        return f"types {first['types']} {second['types']}"
    if first["moved"] != second["moved"] or set(first["moved"]) != wanted.moved:
        return f"moved otherwise: {set(first['moved']) ^ wanted.moved or set(first['moved']) ^ set(second['moved'])}"
    if len(first["terms"]) != STEPS or len(wanted.terms) != STEPS:
        return f"{len(first['terms'])} steps"
    for number, terms in enumerate(wanted.terms):
        if set(first["terms"][number]) != set(terms):
            return f"terms {sorted(first['terms'][number])} for {sorted(terms)}"
        for name, value in terms.items():
            near = first["terms"][number][name]  # averaged over the processes, and logged by the first
            if not math.isfinite(near) or abs(near - value) / max(1.0, abs(value)) > max(precision.tolerance, 1e-5):
                return f"step {number + 1}, '{name}': {near} for {value}"
    return ""


def test_a_sample_of_families_and_precisions(tmp_path, repository):
    check(SAMPLE, tmp_path, repository)


@pytest.mark.matrix
@pytest.mark.parametrize("family", sorted({name.split("-")[0] for name, _ in ALL}))
def test_every_switch_in_every_precision(family, tmp_path, repository):
    check([pair for pair in ALL if pair[0].startswith(f"{family}-")], tmp_path, repository)
