"""LoRA from stage to stage, in every architecture: the next stage begins with the loss that the last one ended at."""

import copy

import pytest
import torch

from hfvla.models.chat_vlm import FAMILY
from hfvla.recipe import Stage
from hfvla.training.checkpoint.adapters import merged_model, write_adapters
from hfvla.training.checkpoint.handover import hand_over, load_state
from hfvla.training.checkpoint.lora_handover import earlier_adapters, place_adapters
from hfvla.training.checkpoint.writing import plain_state, save_by_names
from hfvla.training.lora.injection import adapters_in
from hfvla.training.stage.groups import TRAINED_ADAPTER, adapter_of

from .zoo import MAKERS, made

LORA = {"target": "language", "r": 4, "alpha": 8}
NEW = {"target": "language", "r": 2, "alpha": 4}
MODES = {  # what the next stage says, and its adapters, the trained one last
    "merge": ({}, []),
    "merge, a new adapter": ({"lora": NEW}, [TRAINED_ADAPTER]),
    "continue": ({"lora": LORA, "handover": {"lora": "continue"}}, [TRAINED_ADAPTER]),
    "stack": ({"lora": NEW, "handover": {"lora": "stack"}}, ["below_1", TRAINED_ADAPTER]),
}


def stage_of(**more):
    return Stage(
        **{"name": "next", "train": ["lora"] if "lora" in more else ["projector"], "losses": {"sft": 1.0}, **more}
    )


@pytest.fixture(scope="module", params=sorted(MAKERS))
def ended(request, tmp_path_factory):
    return end_stage(request.param, tmp_path_factory.mktemp(request.param))


def end_stage(kind, folder):
    """Return a stage of LoRA that ended: its folder, its loss on a batch, the batch, and the model's config."""
    from hfvla.data.samples.chat import ChatSample

    model, processor = copy.deepcopy(made(kind)[0]), made(kind)[1]
    spec, stage = FAMILY.of_model(model), stage_of(lora=LORA)
    report = hand_over(model, model.state_dict(), stage.handover, spec.groups, "new")
    place_adapters(model, spec.groups, stage, None, report)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if adapter_of(name):  # as if trained: at the start they are zero
            parameter.data.normal_(0, 0.1)
    rows = [{**row, "rejected": []} for row in FAMILY.load("examples")(3, 0)]
    batch = FAMILY.load("collator")(processor, model.config, losses=("sft",))(
        [ChatSample.from_row(r).to_row() for r in rows]
    )
    loss = loss_of(spec, model, batch)
    bare = loss_of(spec, copy.deepcopy(made(kind)[0]), batch)
    assert abs(loss - bare) > 1e-4  # the adapters say something
    state = plain_state(model, model.state_dict())
    save_by_names(merged_model(model, state), folder)
    write_adapters(model, state, folder)
    return folder, loss, batch, model.config


def loss_of(spec, model, batch):
    spec.give_objective(model.eval(), losses=("sft",))
    with torch.inference_mode():
        return float(model(**batch).loss)


def next_stage(ended, mode):
    """Return the loss that a next stage begins with, and its adapters."""
    folder, _, batch, config = ended
    stage, state = stage_of(**MODES[mode][0]), load_state(folder)
    saved = earlier_adapters(stage, folder, state)
    model = FAMILY.new_model(copy.deepcopy(config))
    spec = FAMILY.of_model(model)
    report = hand_over(model, state, stage.handover, spec.groups, "first")
    place_adapters(model, spec.groups, stage, saved, report)
    return loss_of(spec, model, batch), adapters_in(model)


@pytest.mark.parametrize("mode", list(MODES))
def test_the_next_stage_begins_where_the_last_ended(ended, mode):
    loss, adapters = next_stage(ended, mode)
    assert adapters == MODES[mode][1]
    assert loss == pytest.approx(ended[1], abs=1e-5)


def print_table():
    """Print the table of docs/families/chat_vlm.md."""
    import tempfile
    from pathlib import Path

    print(f"| | last loss | {' | '.join(f'first, {mode}' for mode in MODES)} |")
    print("|---" * (2 + len(MODES)) + "|")
    for kind in sorted(MAKERS):
        with tempfile.TemporaryDirectory() as folder:
            ended = end_stage(kind, Path(folder))
            found = [f"{next_stage(ended, mode)[0]:.6f}" for mode in MODES]
            print(f"| `{kind}` | {ended[1]:.6f} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    print_table()
