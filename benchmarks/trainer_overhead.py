"""What StagedTrainer costs a step, beside a hand-written PyTorch loop and transformers' Trainer.

The three train copies of one model on the same rows with the same optimizer, schedule and clipping. They take turns in
one process, one optimizer step each, so that whatever else the machine does falls on all of them alike; compared are
steps of the same turn, by the clock and by the processor time of the thread that trains (which other programs do not
lengthen; it misses torch's other threads, so set OMP_NUM_THREADS=1 to read it). Prints one table and the ratio, and
writes it as JSON.

Run:  python benchmarks/trainer_overhead.py            # some minutes on two cores
"""

from __future__ import annotations

import copy
import tempfile
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import transformers
from common import arguments, cores, cpu_name, quartiles, write_result
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer

LEARNING_RATE, LOG_EVERY, WARMUP_TURNS = 1e-3, 10, 5
NAMES = ("hand-written loop", "Trainer", "StagedTrainer")


class TwoTowers(PreTrainedModel):
    """A ViT and a text encoder with two loss terms."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        width = config.width
        size = {"hidden_size": width, "num_hidden_layers": config.layers, "intermediate_size": 4 * width}
        size |= {"num_attention_heads": width // 32}
        self.vision = AutoModel.from_config(AutoConfig.for_model("vit", image_size=64, patch_size=8, **size))
        self.text = AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=256, **size))
        self.heads = nn.ModuleDict({"class": nn.Linear(width, 10), "vision": nn.Linear(width, 64)})
        self.heads["text"] = nn.Linear(width, 64)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor) -> dict:
        """Return the loss terms "class" and "match" of pictures [B, 3, 64, 64] and words [B, S]."""
        picture = self.vision(pixel_values).last_hidden_state.mean(1)
        words = self.text(input_ids).last_hidden_state.mean(1)
        pairs = F.normalize(self.heads["vision"](picture), dim=-1) @ F.normalize(self.heads["text"](words), dim=-1).T
        match = F.cross_entropy(10 * pairs, torch.arange(len(pairs), device=pairs.device))
        terms = {"class": F.cross_entropy(self.heads["class"](picture), labels), "match": match}
        return {"loss": terms["class"] + terms["match"], "loss_terms": terms}


class Turns:
    """Lets runners do one step after the other, and keeps the seconds of each of their steps."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self.processor_seconds: dict[str, list[float]] = {name: [] for name in names}
        self.failed: list[BaseException] = []
        self._names, self._turn, self._began = names, 0, (0.0, 0.0)
        self._next = threading.Condition()

    def wait(self, name: str) -> None:
        """Wait for the runner's first turn."""
        with self._next:
            self._next.wait_for(lambda: self._names[self._turn] == name or self.failed)
        self._began = time.perf_counter(), time.thread_time()

    def done(self, name: str) -> None:
        """End a step: keep its time, let the others have theirs, and wait for the next turn."""
        self.seconds[name].append(time.perf_counter() - self._began[0])
        self.processor_seconds[name].append(time.thread_time() - self._began[1])
        with self._next:
            self._turn = (self._turn + 1) % len(self._names)
            self._next.notify_all()
        self.wait(name)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Run one runner to its end; others must not wait for one that failed."""
        try:
            work()
        except BaseException as error:
            self.failed.append(error)
        with self._next:
            self._turn = (self._turn + 1) % len(self._names)
            self._next.notify_all()


class EndOfStep(TrainerCallback):
    """Hands a Trainer's turn on after each optimizer step."""

    def __init__(self, turns: Turns, name: str, steps: int) -> None:
        self.turns, self.name, self.steps = turns, name, steps

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Wait for the first turn."""
        self.turns.wait(self.name)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Hand the turn on, but for the last step, after which the Trainer does other things."""
        if state.global_step < self.steps:
            self.turns.done(self.name)


def build_rows(count: int) -> list[dict]:
    """Draw random pictures, words and classes."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn(count, 3, 64, 64, generator=draw)
    words = torch.randint(256, (count, 16), generator=draw)
    labels = torch.randint(10, (count,), generator=draw)
    return [{"pixel_values": pictures[i], "input_ids": words[i], "labels": labels[i]} for i in range(count)]


def collate(rows: list[dict]) -> dict:
    """Stack rows."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def hand_written(model: nn.Module, rows: list[dict], batch: int, steps: int, frozen: bool, turns: Turns) -> None:
    """Train as one would write it down: loader, AdamW, linear schedule, clipping, a loss read now and then."""
    model.train()
    if frozen:
        model.vision.requires_grad_(False).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    loader = torch.utils.data.DataLoader(rows, batch_size=batch, shuffle=True, collate_fn=collate)
    step, total, logged = 0, torch.zeros(()), []
    turns.wait(NAMES[0])
    while step < steps:
        for inputs in loader:
            loss = model(**inputs)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.detach()
            step += 1
            if step % LOG_EVERY == 0:
                logged.append(total.item() / LOG_EVERY)
                total.zero_()
            if step >= steps:
                break
            turns.done(NAMES[0])


def build_trainer(name: str, model: nn.Module, rows: list[dict], batch: int, steps: int, frozen: bool, folder: str):
    """Return transformers' Trainer or StagedTrainer with the settings of the loop."""
    settings = {"max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": LEARNING_RATE}
    settings |= {"logging_steps": LOG_EVERY, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    args = TrainingArguments(output_dir=folder, use_cpu=True, dataloader_pin_memory=False, **settings)
    options = {"model": model, "args": args, "train_dataset": rows, "data_collator": collate}
    if name == "Trainer":
        model.vision.requires_grad_(not frozen)
        return Trainer(**options)
    groups = {part: ParameterGroup((f"{part}.*",)) for part in ("vision", "text", "heads")}
    entries = ["text", "heads"] if frozen else list(groups)
    stage = Stage(name="overhead", train=entries, losses={"class": 1.0, "match": 1.0})
    return StagedTrainer(**options, stage=stage, groups=groups)


def compare(frozen: bool, steps: int, batch: int, width: int, layers: int) -> dict:
    """Let the three take turns for `steps` steps; return the times and the ratios of steps of the same turn."""
    torch.manual_seed(0)
    model, rows = TwoTowers(PreTrainedConfig(width=width, layers=layers)), build_rows(8 * batch)
    turns = Turns(NAMES)
    first = copy.deepcopy(model)
    work: dict[str, Callable[[], None]] = {NAMES[0]: lambda: hand_written(first, rows, batch, steps, frozen, turns)}
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES[1:]:
            trainer = build_trainer(name, copy.deepcopy(model), rows, batch, steps, frozen, folder)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(EndOfStep(turns, name, steps))
            work[name] = trainer.train
        threads = [threading.Thread(target=turns.run, args=item, daemon=True) for item in work.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if turns.failed:
        raise turns.failed[0]
    result: dict = {"frozen_tower": frozen, "turns": steps - 1 - WARMUP_TURNS}
    for key, seconds in (("clock", turns.seconds), ("processor", turns.processor_seconds)):
        kept = {name: values[WARMUP_TURNS:] for name, values in seconds.items()}
        base = kept[NAMES[0]]
        result[key] = {
            "milliseconds": {name: quartiles([1e3 * value for value in values]) for name, values in kept.items()},
            "ratio": {
                name: quartiles([own / loop for own, loop in zip(kept[name], base, strict=True)]) for name in NAMES[1:]
            },
        }
    return result


def show(results: list[dict]) -> None:
    """Print the table."""
    table = Table(title="one optimizer step; ratio to the loop: median of same turns (quartiles)")
    for heading in ("what trains", "trained by", "step (ms)", "ratio by clock", "ratio by processor time"):
        table.add_column(heading, justify="right" if "ms" in heading else "left")
    for result in results:
        for name in NAMES:
            ratios = [result[key]["ratio"].get(name) for key in ("clock", "processor")]
            table.add_row(
                "text and heads" if result["frozen_tower"] else "everything",
                name,
                f"{result['clock']['milliseconds'][name]['median']:.1f}",
                *(
                    "1" if ratio is None else "{:.3f} ({:.3f} to {:.3f})".format(ratio["median"], *ratio["quartiles"])
                    for ratio in ratios
                ),
            )
    Console(width=110).print(table)


def main() -> None:
    """Compare with and without a frozen tower."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    results = [compare(frozen, args.steps, args.batch, args.width, args.layers) for frozen in (False, True)]
    show(results)
    worst = max(result["clock"]["ratio"]["StagedTrainer"]["median"] for result in results)
    print(f"ratio of StagedTrainer to the hand-written loop: {worst:.3f} (goal: at most 1.05)")
    hardware = {
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    settings = {"steps": args.steps, "batch": args.batch, "width": args.width, "layers": args.layers}
    content = {"hardware": hardware, "versions": versions, "settings": settings, "results": results, "worst": worst}
    write_result(args.output, content)


if __name__ == "__main__":
    main()
