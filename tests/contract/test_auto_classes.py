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

# Each order needs an interpreter in which transformers was never imported. What transformers imports in its turn is
# not what is tested, and slow: the orders are tried in forks of one process that has it. One fork asks for every
# family; only the order that starts with a family's own module is its own.
SCRIPT = """
import json, os, sys, traceback
import accelerate, datasets, sklearn.metrics, timm, torch, torchvision.transforms.v2

folders, orders = json.loads(sys.argv[1]), json.loads(sys.argv[2])
assert "transformers" not in sys.modules and "hfvla" not in sys.modules

def look(label, name):
    try:
        from transformers import AutoConfig, AutoModel, AutoProcessor
        found = [type(auto.from_pretrained(folders[name])).__name__ for auto in (AutoConfig, AutoModel, AutoProcessor)]
        found.append(type(AutoConfig.for_model(name)).__name__)
    except BaseException:
        found = traceback.format_exc()
    print("RESULT", json.dumps([label, name, found]), flush=True)

for label, names, first in orders:
    sys.stdout.flush()
    if os.fork() == 0:
        if not first:
            from transformers import AutoModel, AutoProcessor
        import hfvla
        assert first == "" or "transformers" not in sys.modules
        exec(first)
        for name in names:
            look(label, name)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def found(checkpoints):
    """Return the names of the classes that each order of imports finds, by order and family."""
    orders = [(label, sorted(checkpoints), first) for label, first in FIRST.items()]
    for name in checkpoints:
        module = available_families()[name].path("model").split(":")[0]
        orders.append((MODELING, [name], f"import importlib; importlib.import_module({module!r})"))
    folders = {name: str(folder) for name, folder in checkpoints.items()}
    command = [sys.executable, "-c", SCRIPT, json.dumps(folders), json.dumps(orders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {(label, name): names for label, name, names in results}


@pytest.mark.parametrize("order", [*FIRST, MODELING])
def test_the_auto_classes_know_the_family(built, found, order):
    if built.spec.plain:
        pytest.skip("its classes are transformers' own")
    names = [built.spec.config, built.spec.model, built.spec.processor]
    assert found[order, built.spec.name] == [*names, names[0]]


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
