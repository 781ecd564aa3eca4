"""What one stage takes over from another."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hfvla.errors import CheckpointError
from hfvla.recipe import Handover
from hfvla.training.checkpoint.handover import hand_over, load_state
from hfvla.training.run.tables import handover_text

from ..toy import GROUPS, ToyConfig, ToyModel, build_model, changed, snapshot


def widened(seed: int = 1, outputs: int = 3) -> ToyModel:
    """A model whose head has `outputs` rows instead of one."""
    model = build_model(seed)
    model.head = nn.Linear(4, outputs)
    model.head.scale = nn.Parameter(torch.full((), 7.0))
    return model


def take(target, source, **rules):
    return hand_over(target, source.state_dict(), Handover(**rules), GROUPS, "first")


def status(report) -> dict[str, str]:
    return {tensor.name: tensor.status for tensor in report.tensors}


def test_everything_is_carried():
    source, target = build_model(0), build_model(1)
    source.backbone[1].running_mean += 3.0
    report = take(target, source)
    assert not changed(target, source.state_dict())
    assert report.counts() == {"carried": len(source.state_dict())}


@pytest.mark.parametrize("announced", ["head", "head.weight", "head.*", "he*.weight"])
def test_new_parts_keep_their_fresh_values(announced):
    source, target = build_model(0), build_model(1)
    fresh = target.head.weight.clone()
    report = take(target, source, new=[announced])
    assert torch.equal(target.head.weight, fresh)
    assert status(report)["head.weight"] == "new" and status(report)["blocks.0.weight"] == "carried"
    assert torch.equal(target.blocks[0].weight, source.blocks[0].weight)
    assert (status(report)["head.bias"] == "new") == (announced in ("head", "head.*"))


def test_reshape_copies_the_overlap():
    source, target = build_model(0), widened()
    fresh = snapshot(target)
    report = take(target, source, reshape=["head"])
    assert torch.equal(target.head.weight[:1], source.head.weight)
    assert torch.equal(target.head.weight[1:], fresh["head.weight"][1:])
    assert torch.equal(target.head.bias[:1], source.head.bias)
    found = {tensor.name: tensor for tensor in report.tensors}
    assert found["head.weight"].status == "reshaped" and found["head.scale"].status == "carried"
    assert found["head.weight"].how == "[1, 4] to [3, 4], overlap copied"


def test_reshape_can_shrink():
    source, target = widened(0), build_model(1)
    take(target, source, reshape=["head"])
    assert torch.equal(target.head.weight, source.head.weight[:1])


def test_a_changed_shape_may_also_start_new():
    report = take(widened(), build_model(0), new=["head"])
    assert {t.name: t.how for t in report.tensors}["head.weight"] == "initialised; was [1, 4], now [3, 4]"


def test_parts_left_behind():
    source, target = build_model(0), build_model(1)
    del target.head
    report = take(target, source, leave=["head"])
    assert status(report)["head.weight"] == "left" and report.counts()["left"] == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("new", r"2 tensors change.*got 'new: extra.weight \[2, 2\]; new: extra.bias \[2\]'"),
        ("reshape", r"reshape: head.weight \[1, 4\] to \[3, 4\]; reshape: head.bias \[1\] to \[3\]"),
        ("leave", r"leave: head.weight \[1, 4\]; leave: head.bias \[1\]; leave: head.scale \[\]"),
    ],
)
def test_a_change_that_is_not_announced_names_the_tensors(change, match):
    source, target = build_model(0), build_model(1)
    if change == "new":
        target.extra = nn.Linear(2, 2)
    elif change == "reshape":
        target = widened()
    else:
        del target.head
    with pytest.raises(CheckpointError, match=match):
        take(target, source)


def test_one_announcement_does_not_cover_another():
    target = widened()
    target.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"2 tensors change.*reshape: head.weight"):
        take(target, build_model(0), new=["extra"])
    with pytest.raises(CheckpointError, match=r"reshape: head.weight \[4\]"):  # other dimensions have no overlap
        source = build_model(0).state_dict()
        source["head.weight"] = source["head.weight"][0]
        hand_over(build_model(1), source, Handover(reshape=["head"]), GROUPS, "first")


def test_long_lists_are_cut():
    target = build_model(1)
    target.extra = nn.ModuleList([nn.Linear(1, 1) for _ in range(6)])
    with pytest.raises(CheckpointError, match=r"12 tensors.*and 4 more"):
        take(target, build_model(0))


def test_tied_weights_are_not_new():
    config = GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=8, vocab_size=11)
    source, target = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    state = {name: value for name, value in source.state_dict().items() if name != "lm_head.weight"}  # as it is saved
    report = hand_over(target, state, Handover(), {}, "first")
    assert "lm_head.weight" not in status(report) and set(status(report).values()) == {"carried"}
    assert target.lm_head.weight is target.transformer.wte.weight
    assert torch.equal(target.lm_head.weight, source.transformer.wte.weight)


def test_report_sums_modules_and_is_json():
    report = take(widened(), build_model(0), reshape=["head"])
    data = json.loads(json.dumps(report.to_dict()))
    assert data["source"] == "first" and data["counts"] == {"carried": 14, "reshaped": 2}
    rows = {(row["module"], row["status"]): row for row in data["modules"]}
    assert rows["blocks.0", "carried"] | {"how": ""} == {
        "module": "blocks.0",
        "status": "carried",
        "tensors": 2,
        "parameters": 20,
        "how": "",
    }
    assert rows["head", "reshaped"]["parameters"] == 15 and rows["head", "carried"]["tensors"] == 1
    assert len(data["tensors"]) == 16
    text = handover_text("second", report)
    assert "taken over from 'first'" in text and "[1, 4] to [3, 4]" in text


def test_state_is_read_from_one_file_or_shards(tmp_path):
    model = ToyModel(ToyConfig())
    model.save_pretrained(tmp_path / "one")
    names = list(model.state_dict())
    (tmp_path / "two").mkdir()
    for number, part in enumerate((names[:5], names[5:]), 1):
        save_file(
            {name: model.state_dict()[name] for name in part},
            tmp_path / f"two/model-0000{number}-of-00002.safetensors",
        )
    shards = {name: f"model-0000{1 if name in names[:5] else 2}-of-00002.safetensors" for name in names}
    (tmp_path / "two/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    for folder in ("one", "two"):
        state = load_state(tmp_path / folder)
        assert set(state) == set(names) and not changed(model, state)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path.name}: .*no safetensors weights"):
        load_state(tmp_path)


@pytest.mark.parametrize("key", ["new", "reshape", "leave"])
def test_an_announcement_that_matches_nothing_is_an_error(key):
    with pytest.raises(CheckpointError, match=f"handover.{key}: 'haed' matches no tensor. Did you mean 'head'"):
        take(build_model(1), build_model(0), **{key: ["haed"]})
