"""Push, fresh process, pull, equal outputs: every family, by hfvla and by the code beside the weights."""

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
from hfvla.sealing import seal_folder

from ..contract.conftest import build

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

OUTPUTS = """
import sys
import torch
from safetensors.torch import load_file, save_file

folder, *families = sys.argv[1:]

def keep(model, family, what):
    with torch.no_grad():
        found = model(**load_file(f"{folder}/{family}.safetensors"))
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    save_file(tensors, f"{folder}/{family}-{what}.safetensors")

sys.modules["hfvla"] = None  # importing it fails, as where it is not installed
from transformers import AutoModel, AutoProcessor

for family in families:
    keep(AutoModel.from_pretrained(f"me/{family}", trust_remote_code=True).eval(), family, "code")
    processor = AutoProcessor.from_pretrained(f"me/{family}", trust_remote_code=True)
    assert type(processor).__module__.startswith("transformers_modules."), type(processor)
assert not [one for one in sys.modules if one.startswith("hfvla.")]
del sys.modules["hfvla"]
from hfvla.registry import load_checkpoint

for family in families:
    spec, model, processor = load_checkpoint(f"me/{family}")
    assert type(model).__module__.startswith("hfvla."), type(model)
    keep(model, family, "hfvla")
"""


def fresh(code, *arguments, env):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, env=env, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


OWN = sorted(name for name, spec in available_families().items() if not spec.plain)  # the rest are transformers' own


def test_a_fresh_process_pulls_and_computes_the_same_with_hfvla_and_without(hub, elsewhere, tmp_path):
    wanted = {}
    for family in OWN:
        built = build(family)
        folder = tmp_path / family
        built.model.save_pretrained(folder)
        built.processor.save_pretrained(folder)
        recipe = {"family": family, "name": "tiny", "seed": 0,
                  "stages": [{"name": "one", "train": list(built.spec.groups)}]}  # fmt: skip
        (folder / "recipe.json").write_text(json.dumps(recipe))
        seal_folder(folder, {})
        push_checkpoint(folder, HubRecipe(repo=f"me/{family}", code=True))
        batch = {key: value for key, value in built.batch(training=False).items() if isinstance(value, torch.Tensor)}
        save_file({key: value.contiguous() for key, value in batch.items()}, tmp_path / f"{family}.safetensors")
        model = built.copy()
        realign(model)
        with torch.no_grad():
            wanted[family] = {key: one for key, one in model(**batch).items() if isinstance(one, torch.Tensor)}
    fresh(OUTPUTS, tmp_path, *OWN, env=elsewhere)
    for family, outputs in wanted.items():
        for way in ("hfvla", "code"):
            found = load_file(tmp_path / f"{family}-{way}.safetensors")
            assert set(found) == set(outputs) and len(found) >= 2
            assert [key for key in outputs if not torch.equal(outputs[key], found[key])] == [], (family, way)
