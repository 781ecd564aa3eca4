"""Two optimizer steps of our `dpo` are TRL's, with accumulation, with LoRA and without: losses, gradients, weights."""

import copy

import pytest
import torch
from transformers import AutoProcessor

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.models.chat_vlm import FAMILY
from hfvla.recipe import Stage
from hfvla.training.checkpoint.handover import hand_over
from hfvla.training.checkpoint.lora_handover import place_adapters
from hfvla.training.trainer.trainer import StagedTrainer

from .test_parity_trl import LORA, arguments, collect

trl = pytest.importorskip("trl")
STEPS, BETA = 2, 0.5


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny checkpoint, and sixteen questions with a better and a worse answer.

    TRL counts what a template writes behind an answer as part of it, and we do not; this one writes nothing there.
    """
    folder = tmp_path_factory.mktemp("start")
    rows = list(FAMILY.load("examples")(16, 0))
    model, processor = FAMILY.load("initialise")({"config": FAMILY.tiny_config().to_dict(), "options": {}}, rows, 0)
    processor.chat_template = processor.chat_template.replace("{% endgeneration %}{{ '\n' }}", "{% endgeneration %}")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model.eval(), rows


def trl_steps(start, folder, peft_config=None, adapter=None):
    """Return TRL's steps; with LoRA its reference is the model without the adapter."""
    from datasets import Dataset, Features, Image, List, Value

    path, model, rows = start
    given = []
    for row in rows:
        sample = ChatSample.from_row(row)
        said, worse = (
            [{"role": t.role, "content": t.text} for t in turns] for turns in (sample.turns, sample.rejected)
        )
        images = [load_reference(image) for image in sample.images]
        given.append({"prompt": said[:-1], "chosen": said[-1:], "rejected": worse[-1:], "images": images})
    turn = List({"role": Value("string"), "content": Value("string")})
    columns = {"prompt": turn, "chosen": turn, "rejected": turn, "images": List(Image())}
    config = arguments(folder, trl.DPOConfig, beta=BETA, max_length=None, gradient_checkpointing=False, bf16=False)
    config.max_steps = STEPS
    trainer = trl.DPOTrainer(
        model=copy.deepcopy(model), ref_model=None if peft_config else copy.deepcopy(model), args=config,
        peft_config=peft_config,
        train_dataset=Dataset.from_list(given, features=Features(columns)),
        processing_class=AutoProcessor.from_pretrained(path),
    )  # fmt: skip
    values = dict(trainer.model.named_parameters())
    for name, value in (adapter or {}).items():
        values[f"base_model.model.{name}"].data.copy_(value)
    return after(trainer, trainer.model)


def our_steps(start, folder, lora=None):
    """Return our steps, and the adapter that they began with: adapters are placed first, as a run does."""
    path, model, rows = start
    model = copy.deepcopy(model)
    processor = AutoProcessor.from_pretrained(path)
    train = ["vision", "projector", "language"] if lora is None else ["lora"]
    stage = Stage(name="prefer", train=train, losses={"dpo": 1.0}, lora=lora)
    spec = FAMILY.of_model(model)
    if lora is not None:
        place_adapters(
            model, spec.groups, stage, None, hand_over(model, model.state_dict(), stage.handover, spec.groups, "new")
        )
    spec.give_objective(model, {"dpo": {"beta": BETA}}, losses=("dpo",))
    config = arguments(folder, label_names=["labels"])
    config.max_steps = STEPS
    trainer = StagedTrainer(
        model=model, args=config, stage=stage, groups=spec.groups, train_dataset=rows,
        data_collator=FAMILY.load("collator")(processor, model.config, losses=("dpo",), training=True),
    )  # fmt: skip
    draw = torch.Generator().manual_seed(1)  # the global stream decides the order of the rows
    adapter = {name: value for name, value in model.named_parameters() if "lora_" in name}
    for value in adapter.values():  # away from the reference, so that the first loss says something
        value.data.normal_(0, 0.1, generator=draw)
    adapter = {name: value.detach().clone() for name, value in adapter.items()}
    return (*after(trainer, model), adapter)


def after(trainer, model):
    """Return the losses of the steps, the gradients of the last backward pass, and the weights."""
    gradients = {}
    collect(model, gradients)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    named = model.named_parameters()
    return losses, gradients, {name.removeprefix("base_model.model."): value.detach() for name, value in named}


def same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5) and len(ours[0]) == STEPS
    assert abs(ours[0][1] - ours[0][0]) > 1e-4
    assert set(ours[1]) == set(theirs[1]) and max(float(value.abs().max()) for value in ours[1].values()) > 1e-3
    for kind, tolerance in ((1, 1e-5), (2, 1e-6)):
        for name, value in ours[kind].items():
            torch.testing.assert_close(
                value.detach(), theirs[kind][name], atol=tolerance, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_two_steps_are_those_of_trl(start, tmp_path):
    ours = our_steps(start, tmp_path / "ours")
    assert ours[0][0] == pytest.approx(0.693147, abs=1e-5)
    same(ours, trl_steps(start, tmp_path / "theirs"))


def test_two_steps_with_lora_are_those_of_trl(start, tmp_path):
    from peft import LoraConfig

    ours = our_steps(start, tmp_path / "ours", {"target": f"re:{LORA}", "r": 4, "alpha": 8})
    assert ours[3] and abs(ours[0][0] - 0.693147) > 1e-3
    theirs = trl_steps(start, tmp_path / "theirs", LoraConfig(r=4, lora_alpha=8, target_modules=LORA), ours[3])
    same(ours, theirs)
