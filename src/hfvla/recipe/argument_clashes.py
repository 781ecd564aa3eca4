"""Which TrainingArguments of a stage do not go together: found here, not when its turn comes after hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.recipe.document import Problem, Steps

__all__ = ["clash_problems"]

_PAIRS = (
    ("fp16", "bf16"),
    ("fp16_full_eval", "bf16_full_eval"),
    ("gradient_checkpointing", "activation_checkpointing"),
)
_BOTH = "'{}' and '{}' do not go together; keep one"
_NO_ARGUMENTS = ("adamw_torch", "adamw_torch_fused", "adafactor")  # transformers drops optim_args without a word
_NO_SCHEDULE_ARGUMENTS = ("constant", "constant_with_warmup")
_ON_EVALUATION = ("reduce_lr_on_plateau", "greedy")
_DEFAULTS: Mapping[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "optim": "adamw_torch_fused",
    "lr_scheduler_type": "linear",
}
"""The engine's, and transformers' own."""


def clash_problems(
    args: Mapping[str, Any], stage: Mapping[str, Any], base: Steps, validation: bool = True
) -> Iterator[Problem]:
    """Yield clashes between the arguments of one stage, and with its `keep_best`.

    Args:
        args: the recipe's `args` with the stage's on top.
        stage: the stage as written.
        base: where the stage stands.
        validation: whether rows are held out.
    """
    own = stage["args"] if isinstance(stage.get("args"), dict) else {}

    def place(*keys: str) -> Steps:
        key = next((key for key in keys if key in own), next((key for key in keys if key in args), ""))
        return (*base, "args", key) if key in own else ("args", key) if key else base

    for first, second in _PAIRS:
        if args.get(first) is True and args.get(second) is True:
            yield Problem(place(second, first), _BOTH.format(first, second))
    if args.get("dataloader_prefetch_factor") is not None and not args.get("dataloader_num_workers"):
        text = "'dataloader_prefetch_factor' needs 'dataloader_num_workers' of 1 or more"
        yield Problem(place("dataloader_prefetch_factor"), text)
    yield from _optimizer_problems(args, place)
    evaluate = args.get("eval_strategy", _DEFAULTS["eval_strategy"] if validation else "no")
    kind = args.get("lr_scheduler_type")
    if kind in _ON_EVALUATION and evaluate == "no":
        yield Problem(place("lr_scheduler_type"), f"'{kind}' follows the evaluations, and this stage has none")
    if stage.get("keep_best"):
        yield from _best_problems(args, evaluate, place)


def _optimizer_problems(args: Mapping[str, Any], place: Any) -> Iterator[Problem]:
    optim = args.get("optim", _DEFAULTS["optim"])
    if args.get("optim_args") and optim in _NO_ARGUMENTS:
        yield Problem(place("optim_args"), f"'{optim}' takes no optim_args")
    elif isinstance(args.get("optim_args"), str) and not all("=" in part for part in args["optim_args"].split(",")):
        yield Problem(place("optim_args"), f"expected key=value,key=value; got {args['optim_args']!r}")
    kind = args.get("lr_scheduler_type", _DEFAULTS["lr_scheduler_type"])
    if args.get("lr_scheduler_kwargs") and kind in _NO_SCHEDULE_ARGUMENTS:
        yield Problem(place("lr_scheduler_kwargs"), f"the schedule '{kind}' takes none")


def _best_problems(args: Mapping[str, Any], evaluate: Any, place: Any) -> Iterator[Problem]:
    """Yield what keeps the best checkpoint from being one that was evaluated."""
    save = args.get("save_strategy", _DEFAULTS["save_strategy"])
    for key, value in (("eval_strategy", evaluate), ("save_strategy", save)):
        if value == "no" and key in args:
            yield Problem(place(key), f"keep_best needs evaluations and saves; got {key} 'no'")
    if "no" in (evaluate, save) or save == "best":
        return
    if evaluate != save:
        yield Problem(
            place("save_strategy", "eval_strategy"),
            f"keep_best needs the same eval_strategy and save_strategy; got '{evaluate}' and '{save}'",
        )
        return
    every, saved = args.get("eval_steps") or args.get("logging_steps", 0.02), args.get("save_steps", 500)
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in (every, saved)
    )
    if evaluate != "steps" or not numbers:
        return
    if (every < 1) != (saved < 1):
        text = f"keep_best cannot compare save_steps {saved} and eval_steps {every}: one is a share of all steps"
        yield Problem(place("save_steps", "eval_steps"), f"{text}; give both as shares or both as counts")
    elif round(saved * 1_000_000) % round(every * 1_000_000):
        text = f"keep_best needs save_steps to be a multiple of eval_steps; got {saved} and {every}"
        yield Problem(place("save_steps", "eval_steps"), text)
