"""What a GPU cannot do is told once, with what to change: several GPUs in one process, too little memory."""

import pytest
import torch
from transformers import TrainingArguments

from hfvla.errors import OutOfMemoryError, RecipeError
from hfvla.training.trainer.devices import one_gpu_a_process

from ..toy import build_model, build_trainer


def test_several_gpus_in_one_process_are_refused_with_the_command(tmp_path, monkeypatch):
    one_gpu_a_process(1, "stage 'first'")
    one_gpu_a_process(0, "stage 'first'")
    monkeypatch.setattr(TrainingArguments, "n_gpu", 4)
    with pytest.raises(
        RecipeError, match=r"stage 'first': one process trains on one GPU; got '4 GPUs.*num_processes 4"
    ):
        build_trainer(tmp_path)


class Full(type(build_model())):
    """The toy on a GPU that has no room for the forward pass of training, or of evaluation."""

    fails_in_training = True

    def forward(self, *args, **kwargs):
        if self.training == self.fails_in_training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")
        return super().forward(*args, **kwargs)


def build(folder, **options):
    model = Full(build_model().config)
    model.supports_gradient_checkpointing = True
    return build_trainer(folder, model, **options)


def test_out_of_memory_says_where_and_which_keys_need_less(tmp_path):
    phases = [{"step": 1, "add": ["blocks"]}]
    trainer = build(tmp_path, phases=phases, args={"gradient_accumulation_steps": 2})
    with pytest.raises(OutOfMemoryError) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith("stage 'first', phase 0, step 1, training: the GPU is out of memory")
    assert "Tried to allocate 20.00 GiB" in message and "GPU 0 has" not in message
    for part in (
        "args.gradient_checkpointing: true",
        "args.per_device_train_batch_size: 2 and args.gradient_accumulation_steps: 4 (now 4 and 2)",
        "args.bf16: true",
        "grad_cache",
        "lora",
        "pictures",
        "hfvla plan",
    ):
        assert part in message, part


def test_what_is_done_already_is_not_advised(tmp_path):
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    args = {**settings, "per_device_train_batch_size": 1, "bf16": True}
    trainer = build(tmp_path, args=args)
    trainer.model.gradient_checkpointing_enable = trainer.model.activation_checkpointing_enable = lambda *_, **__: None
    with pytest.raises(OutOfMemoryError) as caught:
        trainer.train()
    assert not any(
        part in str(caught.value) for part in ("args.gradient_ch", "train_batch_size", "bf16", "grad_cache")
    )


def test_out_of_memory_in_an_evaluation_names_its_batch(tmp_path):
    trainer = build(tmp_path, args={"per_device_eval_batch_size": 5})
    trainer.model.fails_in_training = False
    rows = trainer.train_dataset
    with pytest.raises(OutOfMemoryError, match=r"evaluation: .*args.per_device_eval_batch_size \(now 5\)"):
        trainer.evaluate(rows)
