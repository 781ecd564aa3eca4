"""AutoConfig, AutoModel and AutoProcessor know every family, whichever of the modules involved is imported first."""

import json
import subprocess
import sys

import pytest

from hfvla.registry import available_families

MODELING = "modeling module"
FIRST = {
    "AutoModel": "from transformers import AutoModel",
    "AutoProcessor": "from transformers import AutoProcessor",
    "GPT2Config": "from transformers import GPT2Config",
    "Trainer": "from transformers import Trainer",
    "hfvla after transformers": "",  # see below
}

OWN = sorted(name for name, spec in available_families().items() if not spec.plain)

# Each order needs an interpreter in which transformers was never imported. What transformers imports in its turn is
# not what is tested, and slow: the orders are tried in forks of one process that has it. One fork asks for every
# family; only the order that starts with a family's own module is its own. Checkpoints are loaded in these, and in the
# first; the others look up what they would load.
SCRIPT = """
import gc, json, os, sys, traceback
gc.disable()  # it would write to every page that forks share
import accelerate, datasets, scipy.optimize, sklearn.metrics, timm, torch, torchvision.transforms.v2
import torch._dynamo, torch.distributed.checkpoint.hf_storage, torch.distributed.tensor

folders, orders = json.loads(sys.argv[1]), json.loads(sys.argv[2])
assert "transformers" not in sys.modules and "hfvla" not in sys.modules

def look(label, name, load):
    try:
        from transformers import AutoConfig, AutoModel, AutoProcessor
        from transformers.models.auto import MODEL_MAPPING, PROCESSOR_MAPPING
        config = type(AutoConfig.for_model(name))
        found = [config, MODEL_MAPPING[config], PROCESSOR_MAPPING[config]]
        if load:
            found = [type(auto.from_pretrained(folders[name])) for auto in (AutoConfig, AutoModel, AutoProcessor)]
        found = [one.__name__ for one in (*found, config)]
    except BaseException:
        found = traceback.format_exc()
    print("RESULT", json.dumps([label, name, found]), flush=True)

for label, names, first, load in orders:
    sys.stdout.flush()
    if os.fork() == 0:
        if not first:
            from transformers import AutoModel, AutoProcessor
        import hfvla
        assert first == "" or "transformers" not in sys.modules
        exec(first)
        for name in names:
            look(label, name, load)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def found(checkpoints):
    """Return the names of the classes that each order of imports finds, by order and family."""
    orders = [(label, OWN, first, label == "AutoModel") for label, first in FIRST.items()]
    for name in OWN:
        module = available_families()[name].path("model").split(":")[0]
        orders.append((MODELING, [name], f"import importlib; importlib.import_module({module!r})", True))
    folders = {name: str(checkpoints[name]) for name in OWN}
    command = [sys.executable, "-c", SCRIPT, json.dumps(folders), json.dumps(orders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {(label, name): names for label, name, names in results}


@pytest.mark.parametrize("order", [*FIRST, MODELING])
@pytest.mark.parametrize("family", OWN)
def test_the_auto_classes_know_the_family(found, family, order):
    spec = available_families()[family]
    names = [spec.config, spec.model, spec.processor]
    assert found[order, family] == [*names, names[0]]


@pytest.mark.parametrize("family", sorted(available_families()))
def test_the_package_offers_the_classes_by_name(family):
    import hfvla

    spec = available_families()[family]
    for field in () if spec.plain else ("config", "model", "processor"):
        assert getattr(hfvla, getattr(spec, field)) is spec.load(field)
    for name, policy in spec.policies.items():
        assert getattr(hfvla, name) is getattr(hfvla, policy) and hasattr(spec.load("model"), "predict_actions")
    with pytest.raises(AttributeError, match="no attribute 'NoSuchModel'"):
        _ = hfvla.NoSuchModel
