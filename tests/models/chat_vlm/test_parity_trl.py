"""One optimizer step of our `sft` is TRL's: loss, gradients and weights, with accumulation, with and without LoRA."""

import copy

import pytest
import torch
from transformers import AutoProcessor, TrainingArguments

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.models.chat_vlm import FAMILY
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer
from hfvla.worlds.shapes import ShapesOptions, build_shapes

trl = pytest.importorskip("trl")
ROWS, MICRO, PARTS, RATE = 8, 2, 4, 1e-2
LORA = ".*language_model.*(q_proj|v_proj|up_proj)"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A tiny checkpoint, and conversations of one to three turns on one picture each."""
    folder = tmp_path_factory.mktemp("start")
    turns = [1, 3, 2, 1, 2, 3, 1, 1]
    options = [ShapesOptions(size=1, seed=n, image_size=32, turns=count) for n, count in enumerate(turns)]
    rows = [build_shapes(option, seed=0).dataset[0] for option in options]
    model, processor = FAMILY.load("initialise")({"config": FAMILY.tiny_config().to_dict(), "options": {}}, rows, 0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model.eval(), rows


def arguments(folder, kind=TrainingArguments, **more):
    """Return what both trainers are given: plain SGD, so that the weights tell the gradients, clipping off."""
    return kind(
        output_dir=str(folder), use_cpu=True, max_steps=1, per_device_train_batch_size=MICRO, learning_rate=RATE,
        gradient_accumulation_steps=PARTS, optim="sgd", max_grad_norm=0.0, lr_scheduler_type="constant",
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, remove_unused_columns=False,
        dataloader_drop_last=False, seed=0, **more,
    )  # fmt: skip


def collect(model, found):
    """Keep the gradients of a step, which trainers throw away after it."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = name.removeprefix("base_model.model.")
            parameter.register_post_accumulate_grad_hook(lambda p, n=plain: found.__setitem__(n, p.grad.clone()))


def trl_step(start, folder, peft_config=None, adapter=None):
    from datasets import Dataset, Features, Image, List, Value

    path, model, rows = start
    messages = {"role": Value("string"), "content": Value("string")}
    given = []
    for row in rows:
        sample = ChatSample.from_row(row)
        said = [{"role": turn.role, "content": turn.text} for turn in sample.turns]
        given.append({"messages": said, "images": [load_reference(image) for image in sample.images]})
    dataset = Dataset.from_list(given, features=Features({"messages": List(messages), "images": List(Image())}))
    config = arguments(
        folder, trl.SFTConfig, assistant_only_loss=True, max_length=None, gradient_checkpointing=False, bf16=False
    )
    trainer = trl.SFTTrainer(
        model=copy.deepcopy(model), args=config, train_dataset=dataset, peft_config=peft_config,
        processing_class=AutoProcessor.from_pretrained(path),
    )  # fmt: skip
    if adapter is not None:
        values = dict(trainer.model.named_parameters())
        for name, value in adapter.items():
            values[f"base_model.model.{name}"].data.copy_(value)
    gradients = {}
    collect(trainer.model, gradients)
    trainer.train()
    state = {n.removeprefix("base_model.model."): p.detach() for n, p in trainer.model.named_parameters()}
    return trainer.state.log_history[0]["loss"], gradients, state


def our_step(start, folder, lora=None):
    path, model, rows = start
    model = copy.deepcopy(model)
    processor = AutoProcessor.from_pretrained(path)
    train = ["vision", "projector", "language"] if lora is None else ["lora"]
    stage = Stage(name="sft", train=train, losses={"sft": 1.0}, lora=lora)
    spec = FAMILY.of_model(model)
    spec.give_objective(model, losses=("sft",))
    trainer = StagedTrainer(
        model=model,
        args=arguments(folder, label_names=["labels"]),
        stage=stage,
        groups=spec.groups,
        data_collator=FAMILY.load("collator")(processor, model.config, losses=("sft",), training=True),
        train_dataset=rows,
    )
    torch.manual_seed(1)
    adapter = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    for parameter in adapter.values():  # at the start the adapters are zero, and so is half of their gradient
        parameter.data.normal_(0, 0.02)
    adapter = {name: parameter.detach().clone() for name, parameter in adapter.items()}
    gradients = {}
    collect(model, gradients)
    trainer.train()
    return trainer.state.log_history[0]["loss"], gradients, dict(model.named_parameters()), adapter


def same(ours, theirs):
    loss, gradients, weights = ours
    assert loss == pytest.approx(theirs[0], abs=1e-5)
    assert set(gradients) == set(theirs[1]) and gradients
    for name, value in gradients.items():
        torch.testing.assert_close(value, theirs[1][name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert max(float(value.abs().max()) for value in gradients.values()) > 1e-3
    for name, value in weights.items():
        torch.testing.assert_close(
            value.detach(), theirs[2][name], atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_step_is_that_of_trl(start, tmp_path):
    ours = our_step(start, tmp_path / "ours")
    same(ours[:3], trl_step(start, tmp_path / "theirs"))


def test_a_step_with_lora_is_that_of_trl(start, tmp_path):
    from peft import LoraConfig

    ours = our_step(start, tmp_path / "ours", {"target": f"re:{LORA}", "r": 4, "alpha": 8})
    theirs = trl_step(start, tmp_path / "theirs", LoraConfig(r=4, lora_alpha=8, target_modules=LORA), ours[3])
    same(ours[:3], theirs)
