"""Push, fresh process, pull, equal outputs: every family, and forms that need no hfvla."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfvla.hub.forms import push_checkpoint
from hfvla.nn.loading import realign
from hfvla.recipe.schema import HubRecipe
from hfvla.registry import available_families

from ..contract.conftest import build

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

OUTPUTS = """
import sys
import torch
from safetensors.torch import load_file, save_file
from hfvla.registry import load_checkpoint

folder, name = sys.argv[1:]
spec, model, processor = load_checkpoint(name)
batch = load_file(f"{folder}/{spec.name}.safetensors")
with torch.no_grad():
    found = model(**batch)
tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
save_file(tensors, f"{folder}/{spec.name}-out.safetensors")
"""


def fresh(code, *arguments, env):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env=env, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


OWN = sorted(name for name, spec in available_families().items() if not spec.plain)  # the rest are transformers' own


@pytest.mark.parametrize("family", OWN)
def test_a_fresh_process_pulls_and_computes_the_same(hub, elsewhere, tmp_path, family):
    built = build(family)
    folder = tmp_path / "final"
    built.model.save_pretrained(folder)
    built.processor.save_pretrained(folder)
    recipe = {
        "family": family,
        "name": "tiny",
        "seed": 0,
        "stages": [{"name": "one", "train": list(built.spec.groups)}],
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    push_checkpoint(folder, HubRecipe(repo=f"me/{family}"))
    batch = {key: value for key, value in built.batch(training=False).items() if isinstance(value, torch.Tensor)}
    save_file({key: value.contiguous() for key, value in batch.items()}, tmp_path / f"{family}.safetensors")
    fresh(OUTPUTS, tmp_path, f"me/{family}", env=elsewhere)
    model = built.copy()
    realign(model)
    with torch.no_grad():
        wanted = {key: value for key, value in model(**batch).items() if isinstance(value, torch.Tensor)}
    found = load_file(tmp_path / f"{family}-out.safetensors")
    assert set(found) == set(wanted) and len(found) >= 2
    assert [key for key in wanted if not torch.equal(wanted[key], found[key])] == []
