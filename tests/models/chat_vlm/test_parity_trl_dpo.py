"""Two optimizer steps of our `dpo` are TRL's: losses, gradients and weights, with accumulation."""

import copy

import pytest
from transformers import AutoProcessor

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.models.chat_vlm import FAMILY
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

from .test_parity_trl import arguments, collect

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


def trl_steps(start, folder):
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
        model=copy.deepcopy(model), ref_model=copy.deepcopy(model), args=config,
        train_dataset=Dataset.from_list(given, features=Features(columns)),
        processing_class=AutoProcessor.from_pretrained(path),
    )  # fmt: skip
    return after(trainer, trainer.model)


def our_steps(start, folder):
    path, model, rows = start
    model = copy.deepcopy(model)
    processor = AutoProcessor.from_pretrained(path)
    stage = Stage(name="prefer", train=["vision", "projector", "language"], losses={"dpo": 1.0})
    spec = FAMILY.of_model(model)
    spec.give_objective(model, {"dpo": {"beta": BETA}}, losses=("dpo",))
    config = arguments(folder, label_names=["labels"])
    config.max_steps = STEPS
    trainer = StagedTrainer(
        model=model, args=config, stage=stage, groups=spec.groups, train_dataset=rows,
        data_collator=FAMILY.load("collator")(processor, model.config, losses=("dpo",), training=True),
    )  # fmt: skip
    return after(trainer, model)


def after(trainer, model):
    """Return the losses of the steps, the gradients of the last backward pass, and the weights."""
    gradients = {}
    collect(model, gradients)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return losses, gradients, {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_two_steps_are_those_of_trl(start, tmp_path):
    import torch

    ours, theirs = our_steps(start, tmp_path / "ours"), trl_steps(start, tmp_path / "theirs")
    assert ours[0] == pytest.approx(theirs[0], abs=1e-5) and len(ours[0]) == STEPS
    assert ours[0][0] == pytest.approx(0.693147, abs=1e-5) and abs(ours[0][1] - ours[0][0]) > 1e-4
    assert set(ours[1]) == set(theirs[1]) and max(float(value.abs().max()) for value in ours[1].values()) > 1e-3
    for kind, tolerance in ((1, 1e-5), (2, 1e-6)):
        for name, value in ours[kind].items():
            torch.testing.assert_close(
                value.detach(), theirs[kind][name], atol=tolerance, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )
