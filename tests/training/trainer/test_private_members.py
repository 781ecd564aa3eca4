"""What the engine overrides or reads of `Trainer` that transformers does not promise to keep.

Exact resume and stages with phases need places in the training loop that have no public name. Each is listed here with
its signature, so that a release of transformers that moves one fails a test before it fails a run. A new minor version
is allowed in setup.cfg once these tests and `make test-slow` pass with it: 5.25 and later are not known. Below 5.19
`Trainer` has no `_initial_global_step`, which resume saves; below 5.20 configs have no `SubConfigSpec`.
"""

import ast
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from transformers import Trainer
from transformers.modeling_layers import GradientCheckpointingLayer

ROOT = Path(__file__).resolve().parents[3]
ENGINE = sorted((ROOT / "src/hfvla/training").rglob("*.py"))

METHODS = {
    "_determine_best_metric": "metrics trial",
    "_finalize_training": "trial num_train_samples start_time",
    "_get_eval_sampler": "eval_dataset",
    "_get_grad_norm": "model grad_norm",
    "_get_output_dir": "trial",
    "_get_train_sampler": "train_dataset",
    "_load_best_model": "",
    "_load_from_checkpoint": "resume_from_checkpoint model",
    "_load_optimizer_and_scheduler": "checkpoint",
    "_load_rng_state": "checkpoint",
    "_maybe_log_save_evaluate": "tr_loss grad_norm model trial epoch ignore_keys_for_eval start_time learning_rate",
    "_prepare_inputs": "inputs",
    "_push_from_checkpoint": "checkpoint_folder",
    "_run_epoch": "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval "
    "start_time resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
    "_save": "output_dir state_dict",
    "_save_checkpoint": "model trial",
    "_save_optimizer_and_scheduler": "output_dir",
}
ATTRIBUTES = {"_globalstep_last_logged", "_initial_global_step", "_total_loss_scalar", "_tr_loss"}
PUBLIC = {
    "compute_loss": "model inputs return_outputs num_items_in_batch",
    "create_optimizer": "model",
    "create_scheduler": "num_training_steps optimizer",
    "get_decay_parameter_names": "model",
    "prediction_step": "model inputs prediction_loss_only ignore_keys",
    "set_initial_training_values": "args dataloader",
    "training_step": "model inputs num_items_in_batch",
}


def own_attributes() -> set[str]:
    """Names of the private attributes that `Trainer` sets on itself."""
    return set(re.findall(r"self\.(_[a-z]\w*)\b", inspect.getsource(Trainer)))


def used() -> set[str]:
    """Private names of `Trainer` that the engine defines anew, calls through `super()`, or reads of a trainer."""
    theirs = {name for name in dir(Trainer) if name.startswith("_") and not name.startswith("__")} | own_attributes()
    found = set()
    for path in ENGINE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("super()", "self", "trainer"):
                found.add(node.attr)
            if isinstance(node, ast.ClassDef):
                found |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    return found & theirs


def test_each_private_member_that_the_engine_uses_is_listed():
    assert used() == {*METHODS, *ATTRIBUTES}


@pytest.mark.parametrize(("name", "parameters"), {**METHODS, **PUBLIC}.items())
def test_a_method_has_the_signature_that_the_engine_expects(name, parameters):
    found = [one for one in inspect.signature(getattr(Trainer, name)).parameters if one != "self"]
    assert found == parameters.split()


def test_the_attributes_are_there():
    assert own_attributes() >= ATTRIBUTES


def test_optimizers_take_their_groups_from_the_settings():
    """`stage_optimizer` passes the groups as transformers passes those of GaLore."""
    assert 'optimizer_kwargs.pop("params")' in inspect.getsource(Trainer.create_optimizer)


def test_layers_checkpoint_in_training_mode_only():
    """`evaluate_frozen` is there for it, and calls a layer by the partial that it is given."""
    text = inspect.getsource(GradientCheckpointingLayer)
    assert "self.gradient_checkpointing and self.training" in text
    assert re.search(r"self\._gradient_checkpointing_func\(partial\((forward, self|super\(\).__call__)", text)


def test_the_versions_that_are_allowed_are_those_that_are_known():
    line = re.search(r"^\s+transformers(\S+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    assert line is not None
    allowed = SpecifierSet(line[1])
    assert Version(version("transformers")) in allowed
    assert "5.20.0" in allowed and "5.19.9" not in allowed  # `SubConfigSpec`
    assert "5.24.9" in allowed and "5.25.0" not in allowed
