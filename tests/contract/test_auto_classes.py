"""AutoConfig, AutoModel and AutoProcessor know every family, whichever of the modules involved is imported first."""

import json
import subprocess
import sys

import pytest

from hfvla.registry import available_families

FIRST = {
    "AutoModel": "from transformers import AutoModel",
    "AutoProcessor": "from transformers import AutoProcessor",
    "GPT2Config": "from transformers import GPT2Config",
    "Trainer": "from transformers import Trainer",
    "modeling module": "import importlib; importlib.import_module(SPEC.path('model').split(':')[0])",
    "hfvla after transformers": "",  # see below
}

# Each order needs an interpreter in which transformers was never imported. What transformers imports in its turn is
# not what is tested, and slow: the orders are tried in forks of one process that has it.
SCRIPT = """
import json, os, sys, traceback
import accelerate, datasets, sklearn.metrics, timm, torch, torchvision.transforms.v2

name, folder, orders = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
assert "transformers" not in sys.modules and "hfvla" not in sys.modules
results = {}
for label, first in orders.items():
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            if not first:
                from transformers import AutoModel, AutoProcessor
            import hfvla
            from hfvla.registry import get_family
            SPEC = get_family(name)
            assert first == "" or "transformers" not in sys.modules
            exec(first)
            from transformers import AutoConfig, AutoModel, AutoProcessor
            found = [type(auto.from_pretrained(folder)).__name__ for auto in (AutoConfig, AutoModel, AutoProcessor)]
            found.append(type(AutoConfig.for_model(name)).__name__)
        except BaseException:
            found = traceback.format_exc()
        print("RESULT", json.dumps([label, found]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def found(built, checkpoint):
    """Return the names of the classes that each order of imports finds."""
    command = [sys.executable, "-c", SCRIPT, built.spec.name, str(checkpoint), json.dumps(FIRST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT "))


@pytest.mark.parametrize("order", FIRST)
def test_the_auto_classes_know_the_family(built, found, order):
    names = [built.spec.config, built.spec.model, built.spec.processor]
    assert found[order] == [*names, names[0]]


@pytest.mark.parametrize("family", sorted(available_families()))
def test_the_package_offers_the_classes_by_name(family):
    import hfvla

    spec = available_families()[family]
    for field in ("config", "model", "processor"):
        assert getattr(hfvla, getattr(spec, field)) is spec.load(field)
    for name, policy in spec.policies.items():
        assert getattr(hfvla, name) is getattr(hfvla, policy) and hasattr(spec.load("model"), "predict_actions")
    with pytest.raises(AttributeError, match="no attribute 'NoSuchModel'"):
        _ = hfvla.NoSuchModel
