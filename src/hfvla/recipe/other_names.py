"""What other trainers call things, and what a recipe says in their place: where the nearest name would mislead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hfvla.errors import did_you_mean

__all__ = ["ARGUMENT_NAMES", "KEY_NAMES", "meant_value"]

_EPOCHS, _STEPS = "say 'args.num_train_epochs'", "say 'args.max_steps'"
_BATCH, _RATE = "say 'args.per_device_train_batch_size'", "say 'args.learning_rate', or by part in `learning_rates`"
_LORA = "a stage says `lora: {target: [...], r: 16}`, and `lora` in its `train`"
_DATA = "a recipe names its data in `data.train`"
_LENGTH = "the family's config or processor has the length; a stage packs with `packing: {max_length: ...}`"
_FROZEN = "what `train` does not name is frozen"
_PRECISION = "say 'args.bf16: true'; what trains stays float32"

ARGUMENT_NAMES: Mapping[str, str] = {
    "evaluation_strategy": "transformers 5 calls it 'eval_strategy'",
    "warmup_ratio": "transformers 5 takes the share as 'warmup_steps: 0.1'",
    "no_cuda": "transformers 5 calls it 'use_cpu'",
    "save_safetensors": "checkpoints are always safetensors",
    "overwrite_output_dir": "use --overwrite on the command line",
    "logging_dir": "logs go to the run folder",
    "group_by_length": "transformers 5 calls it 'train_sampling_strategy: group_by_length'",
    "include_tokens_per_second": "each log line has `samples_per_second`",
    "batch_size": "say 'per_device_train_batch_size'",
    "train_batch_size": "say 'per_device_train_batch_size'",
    "per_gpu_train_batch_size": "say 'per_device_train_batch_size'",
    "eval_batch_size": "say 'per_device_eval_batch_size'",
    "grad_accum": "say 'gradient_accumulation_steps'",
    "epochs": "say 'num_train_epochs'",
    "num_epochs": "say 'num_train_epochs'",
    "steps": "say 'max_steps'",
    "lr": "say 'learning_rate'",
    "optimizer": "say 'optim', e.g. adamw_torch",
    "scheduler": "say 'lr_scheduler_type'",
    "lr_scheduler": "say 'lr_scheduler_type'",
    "num_workers": "say 'dataloader_num_workers'",
    "max_length": _LENGTH,
    "max_seq_length": _LENGTH,
    "model_max_length": _LENGTH,
    "cutoff_len": _LENGTH,
    "packing": "a stage says `packing: {max_length: ...}`, beside its `args`",
    "torch_dtype": _PRECISION,
    "dtype": _PRECISION,
    "model_name_or_path": "say `model: {pretrained: ...}`, or a backbone in `model.options`",
    "attn_implementation": "say `model: {attention: ...}`",
    "dataset": _DATA,
    "dataset_name": _DATA,
    "dataset_path": _DATA,
    "dataset_text_field": _DATA,
    "peft_config": _LORA,
    "use_peft": _LORA,
    "lora_r": _LORA,
    "lora_rank": _LORA,
    "lora_alpha": _LORA,
    "lora_target": _LORA,
    "lora_target_modules": _LORA,
    "freeze_vision_tower": _FROZEN,
    "early_stopping_patience": "a stage says `patience`, and `keep_best` names the metric to wait for",
}
"""Names of transformers 4, TRL, LLaMA-Factory and LeRobot that are no `TrainingArguments` here."""

KEY_NAMES: Mapping[str, Mapping[str, str]] = {
    "Stage": {
        "lr": _RATE, "learning_rate": _RATE, "epochs": _EPOCHS, "num_train_epochs": _EPOCHS, "num_epochs": _EPOCHS,
        "steps": _STEPS, "max_steps": _STEPS, "batch_size": _BATCH, "per_device_train_batch_size": _BATCH,
        "freeze": _FROZEN, "frozen": _FROZEN, "trainable": "say `train`: groups that train", "loss": "say `losses`",
        "loss_weights": "say `losses`: weight by term", "peft": _LORA, "early_stopping": "say `patience`",
        "sources": "say `data: {train: [...]}`", "dataset": "say `data: {train: [...]}`",
        "config": "say `model`: config values that change from this stage on",
    },
    "Lora": {
        "target_modules": "say `target`: parameter groups, or `re:` and a regex of module names",
        "rank": "say `r`", "lora_r": "say `r`", "lora_alpha": "say `alpha`", "lora_dropout": "say `dropout`",
        "use_dora": "say `dora`", "use_rslora": "say `rslora`", "load_in_4bit": "say `qlora`",
        "modules_to_save": "name them in the stage's `train`",
    },
    "Recipe": {
        "epochs": _EPOCHS, "num_train_epochs": _EPOCHS, "lr": "say 'args.learning_rate'",
        "learning_rate": "say 'args.learning_rate'", "batch_size": _BATCH, "dataset": _DATA, "datasets": _DATA,
        "output": "say `output_dir`", "train": "a stage says what trains, in its `train`",
        "losses": "a stage says its `losses`", "lora": "a stage says its `lora`", "eval": "say `data: {eval: ...}`",
    },
}  # fmt: skip
"""By the class of a section: keys that it does not have."""

_VALUES: Mapping[str, Mapping[str, str]] = {
    "optim": dict.fromkeys(("adam", "adamw", "adamw_hf", "AdamW"), "adamw_torch"),
    "lr_scheduler_type": {"warmup_cosine": "cosine", "linear_warmup": "linear", "none": "constant"},
}


def meant_value(key: str, value: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for a value that an argument does not take, or what it takes."""
    meant = _VALUES.get(key, {}).get(value)
    return f"Did you mean '{meant}'?" if meant else did_you_mean(value[:60], known)
