"""A stage of `chat_vlm` against TRL's `SFTTrainer` on the same model, rows and steps: rows a second and memory.

| comparison | TRL | hfvla |
|---|---|---|
| unpacked | everything trains, batches of 8, 4 a step | the same |
| packed | as above: it packs no rows with pictures | the same rows in packed sequences |
| projector | projector alone trains, tower and language model frozen | the same, from kept features of the tower |
| tiles | the same on pictures of 1,024 pixels, in five tiles as SmolVLM cuts them | the same |

Both read pictures from JPEG bytes, apply the model's chat template, and learn the assistant's turns; a step of the two
is equal to 1e-5 (`tests/models/chat_vlm/test_parity_trl.py`), and the last losses of both are shown. They take turns
in one process, each with a copy of the model, an epoch over all rows; a ratio is that of processor time in one round,
so that what else the machine does falls on neither, and the median of all rounds is given. Memory is the most that a
process of its own held, less what it held before training.

Lengths of the first two are those of `packing.py`, an eighth of LLaVA-1.5's, with few tokens a picture. The third has
the shape of SmolVLM-256M, every width as it is, with a quarter of its layers: pictures of 512 pixels, 1,024 patches,
64 tokens a tile, captions of 30 words. What the cache costs once is stated beside it. Random weights, one seed. How
many products each way multiplies for a row (`gflop_per_row`, counted in the round that warms up) tells how much of a
ratio there is to be had.

Run:  python benchmarks/sft_vs_trl.py            # half an hour on one core; --only unpacked,packed is quicker
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import arguments, cores, cpu_name, quartiles, versions, write_result
from packing import LONGEST, PARTS, SCALE
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

GOALS = {"unpacked": 1.0, "packed": 1.8, "projector": 5.0, "tiles": 5.0}
KEPT = ("projector", "tiles")
BATCH, ACCUMULATION = 8, 4
WORDS = (
    "a",
    "the",
    "red",
    "green",
    "blue",
    "round",
    "small",
    "large",
    "thing",
    "stands",
    "behind",
    "left",
    "of",
    "it",
)


def jpeg(draw: np.random.Generator, side: int) -> bytes:
    """Return a picture of smooth noise."""
    coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side))
    buffer = io.BytesIO()
    coarse.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_rows(name: str, count: int) -> Any:
    """Return conversations of a comparison."""
    from datasets import Dataset

    from hfvla.data.samples.chat import ChatSample, ImageRef, chat_features, text_turn

    draw = np.random.default_rng(0)
    shares, samples = [PARTS[part][0] for part in PARTS], []
    for number in range(count):
        _, pictures, median, spread = list(PARTS.values())[draw.choice(len(PARTS), p=shares)]
        room = LONGEST // SCALE - 40
        words = int(np.clip(median / SCALE * np.exp(spread * draw.standard_normal()), 4, room))
        if name in KEPT:
            pictures, words = 1, 34
        text = [str(word) for word in draw.choice(WORDS, words)]
        half = len(text) // 2 if name not in KEPT else 4
        turns = (
            text_turn("user", " ".join(text[:half]), images=pictures),
            text_turn("assistant", " ".join(text[half:])),
        )
        images = (ImageRef(data=jpeg(draw, {"projector": 512, "tiles": 1024}.get(name, 24))),) * pictures
        samples.append(ChatSample(id=str(number), turns=turns, images=images, group=str(number)).to_row())
    return Dataset.from_list(samples, features=chat_features())


def build(name: str, rows: Any, scale: str) -> tuple[Any, Any]:
    """Return a model with random weights and its processor."""
    from hfvla.models.chat_vlm import FAMILY

    if name not in KEPT:
        vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        vision |= {"image_size": 24, "patch_size": 8}
        text = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
        text |= {"intermediate_size": 512, "max_position_embeddings": 1024}
        return _from_parts(FAMILY, vision, text, "mlp", 2048, rows)
    small = scale == "tiny"
    vision = {"hidden_size": 64 if small else 768, "num_hidden_layers": 3, "num_attention_heads": 2 if small else 12}
    vision |= {"intermediate_size": 128 if small else 3072, "image_size": 64 if small else 512, "patch_size": 16}
    text = {"hidden_size": 64 if small else 576, "num_hidden_layers": 8, "num_attention_heads": 9 if not small else 4}
    text |= {"num_key_value_heads": 3 if not small else 4, "intermediate_size": 1536 if not small else 128}
    text |= {"max_position_embeddings": 2048}
    return _idefics(vision, text, rows, 1024 if small else 49280, name == "tiles")


def _from_parts(family: Any, vision: Any, text: Any, projector: str, vocabulary: int, rows: Any) -> tuple[Any, Any]:
    options = {
        "vision": {"model_type": "siglip_vision_model", **vision},
        "language": {"model_type": "llama", "tie_word_embeddings": True, **text},
        "projector": projector,
        "vocab_size": vocabulary,
    }
    model, processor = family.load("initialise")({"config": {}, "options": options}, list(rows), 0)
    return model, processor


def _idefics(vision: dict[str, Any], text: dict[str, Any], rows: Any, vocabulary: int, tiles: bool) -> tuple[Any, Any]:
    """Return SmolVLM's architecture: pixels shuffled 4 x 4, a picture in one tile or in five."""
    from hfvla.data.tokenizers import learn_tokenizer
    from hfvla.models.chat_vlm.build import training_texts
    from hfvla.models.chat_vlm.parts import CHAT_TEMPLATE

    tokens = {"im_start_token": "<|im_start|>", "im_end_token": "<|im_end|>", "image_token": "<image>"}
    tokens |= {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    tokens |= {"end_of_utterance_token": "<end_of_utterance>"}
    tokenizer = learn_tokenizer(list(training_texts(rows)), 400, tokens)
    tokenizer.eos_token = "<|im_end|>"
    side = vision["image_size"]
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 2 * side if tiles else side}, max_image_size={"longest_edge": side},
        do_image_splitting=tiles,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    seen = (side // vision["patch_size"] // 4) ** 2
    template = CHAT_TEMPLATE.replace("IMAGE", "<image>")
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=seen, chat_template=template)
    config = transformers.Idefics3Config(
        vision_config=vision, scale_factor=4, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        text_config={"model_type": "llama", "vocab_size": vocabulary, "pad_token_id": tokenizer.pad_token_id, **text},
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Idefics3ForConditionalGeneration(config).float()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


class Clock(TrainerCallback):
    """Notes processor time from the first step to the last, and the last loss."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.before, self.wall, self.held = time.process_time(), time.perf_counter(), _memory("VmRSS")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds, self.wall = time.process_time() - self.before, time.perf_counter() - self.wall
        self.memory_gb = _memory("VmHWM") - self.held

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the last loss of a step."""
        self.loss = (logs or {}).get("loss", getattr(self, "loss", None))


def _memory(name: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith(f"{name}:")), 0.0)


def training(kind: Any, folder: str, batch: int, accumulation: int, **more: Any) -> Any:
    """Return what both trainers are given: an epoch in order of the rows' seed."""
    return kind(
        output_dir=folder, use_cpu=True, num_train_epochs=1, per_device_train_batch_size=batch, learning_rate=1e-4,
        gradient_accumulation_steps=accumulation, lr_scheduler_type="constant", report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True, remove_unused_columns=False, seed=0, **more,
    )  # fmt: skip


def frozen(model: Any, groups: Any) -> Any:
    """Freeze all but the projector."""
    from hfvla.training.stage.groups import expand_group

    names = set(expand_group(model, groups, "projector"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def with_trl(name: str, rows: Any, model: Any, processor: Any, folder: str) -> Clock:
    """Train an epoch with TRL."""
    import trl
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    from hfvla.models.chat_vlm import FAMILY

    kept = []
    for row in rows:
        said = [{"role": m["role"], "content": "".join(p["text"] for p in m["content"])} for m in row["messages"]]
        kept.append({"messages": said, "images": [{"bytes": image["bytes"], "path": None} for image in row["images"]]})
    turn = {"role": Value("string"), "content": Value("string")}
    data = Dataset.from_list(kept, features=Features({"messages": List(turn), "images": List(ImageFeature())}))
    if name in KEPT:
        frozen(model, FAMILY.of_model(model).groups)
    batch, accumulation = sizes(name)
    config = training(
        trl.SFTConfig, folder, batch, accumulation, assistant_only_loss=True, max_length=None, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    clock = Clock()
    trainer = trl.SFTTrainer(
        model=model, args=config, train_dataset=data, processing_class=processor, callbacks=[clock]
    )
    return trained(trainer, clock)


def with_hfvla(name: str, rows: Any, model: Any, processor: Any, folder: str, built: Any = None) -> Clock:
    """Train an epoch with a stage of ours."""
    from hfvla.models.chat_vlm import FAMILY
    from hfvla.recipe import Stage
    from hfvla.training.run.packing import ordered_rows
    from hfvla.training.trainer.trainer import StagedTrainer

    packing = {"packing": {"max_length": LONGEST // SCALE}} if name == "packed" else {}
    parts = ["projector"] if name in KEPT else ["vision", "projector", "language"]
    stage = Stage(name="sft", train=parts, losses={"sft": 1.0}, **packing)
    spec = FAMILY.of_model(model)
    spec.give_objective(model, losses=("sft",))
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",), training=True)
    if name in KEPT:
        from hfvla.cache import CachedCollator

        rows, collator = built["train"], CachedCollator(collator, spec.feature_cuts["vision"])
    batch, accumulation = sizes(name)
    if name == "packed":  # sequences of as many tokens as an unpacked step has, in as many batches
        batch, accumulation = 4, 2
    config, clock = training(TrainingArguments, folder, batch, accumulation, label_names=["labels"]), Clock()
    trainer = StagedTrainer(
        model=model, args=config, stage=stage, groups=spec.groups, data_collator=collator, callbacks=[clock],
        from_recipe=True,
        train_dataset=ordered_rows(stage, rows, collator, config),
    )  # fmt: skip
    return trained(trainer, clock)


def trained(trainer: Any, clock: Clock) -> Clock:
    """Train without lines on the screen."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock


def sizes(name: str) -> tuple[int, int]:
    """Return rows of a batch, and batches of a step."""
    return {"projector": (4, 1), "tiles": (2, 1)}.get(name, (BATCH, ACCUMULATION))


def kept_features(rows: Any, model: Any, processor: Any, folder: Path) -> tuple[Any, float]:
    """Return rows with what the tower gives, and the processor time that it took."""
    from accelerate import PartialState

    from hfvla.cache import FeatureCache, Split
    from hfvla.models.chat_vlm import FAMILY
    from hfvla.recipe import CacheRecipe

    spec = FAMILY.of_model(model)
    settings = CacheRecipe(dtype="float32")
    started = time.process_time()
    cache = FeatureCache(spec, "vision", model, processor, settings, folder, PartialState(cpu=True), losses=("sft",))
    built, _ = cache.build({"train": Split(rows)})
    return built, time.process_time() - started


def compare(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let the two take turns; return rows a second, the ratio round by round, and losses."""
    count = {"projector": args.pictures, "tiles": max(args.pictures // 2, 2)}.get(name, args.rows)
    rows = make_rows(name, count)
    model, processor = build(name, rows, args.scale)
    built, cost = kept_features(rows, copy.deepcopy(model), processor, folder / "cache") if name in KEPT else (None, 0.0)  # noqa: E501  # fmt: skip
    ways: dict[str, Callable[[], Clock]] = {
        "hfvla": lambda: with_hfvla(name, rows, copy.deepcopy(model), processor, str(folder / "ours"), built)
    }
    if find_spec("trl") is not None:
        ways["trl"] = lambda: with_trl(name, rows, copy.deepcopy(model), processor, str(folder / "theirs"))
    if args.part:
        clock = ways[args.part]()
        return {"memory_gb": round(clock.memory_gb, 3)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, float] = {}
    products: dict[str, float] = {}
    for turn in range(args.rounds + 1):
        for way in list(ways) if turn % 2 else list(ways)[::-1]:
            with nullcontext() if turn else FlopCounterMode(display=False) as counter:
                clock = ways[way]()
            losses[way] = clock.loss
            if counter is not None:  # the first round warms up
                products[way] = round(counter.get_total_flops() / count / 1e9, 2)
            else:
                seconds[way].append(clock.seconds)
    found: dict[str, Any] = {
        "rows": count,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rows_per_second": {way: round(count / float(np.median(values)), 2) for way, values in seconds.items()},
        "last_loss": losses,
        "gflop_per_row": products,
        "goal": GOALS[name],
    }
    if name in KEPT:
        found["cache_seconds_once"] = round(cost, 2)
    if "trl" in ways:
        found["ratio"] = quartiles([b / a for a, b in zip(seconds["hfvla"], seconds["trl"], strict=True)])
        if name in KEPT:
            whole = [b / (a + cost / args.epochs) for a, b in zip(seconds["hfvla"], seconds["trl"], strict=True)]
            found[f"ratio_over_{args.epochs}_epochs_with_the_cache_built"] = quartiles(whole)
    else:
        found["left_out"] = "trl is not installed (pip install trl)"
    return found


def memory_of(name: str, way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one way once in a process of its own."""
    words = [sys.executable, __file__, "--only", name, "--part", way, "--rows", str(args.rows)]
    words += ["--pictures", str(args.pictures), "--scale", args.scale]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}, {way} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="hfvla over TRL's SFTTrainer: rows a second of processor time, median of rounds (quartiles)")
    for heading in ("comparison", "TRL rows/s", "hfvla rows/s", "ratio", "goal", "memory TRL / hfvla", "last losses"):
        table.add_column(heading)
    for name, found in results.items():
        ratio, rate = found.get("ratio"), found["rows_per_second"]
        memory = found.get("memory_gb", {})
        table.add_row(
            name,
            f"{rate['trl']:.1f}" if "trl" in rate else found["left_out"],
            f"{rate['hfvla']:.1f}",
            "{:.2f} ({:.2f} to {:.2f})".format(ratio["median"], *ratio["quartiles"]) if ratio else "-",
            f">= {found['goal']}",
            " / ".join(f"{memory[way]:.2f} GB" for way in ("trl", "hfvla") if way in memory),
            ", ".join(f"{way} {loss:.4f}" for way, loss in found["last_loss"].items()),
        )
    Console(width=150).print(table)


def main() -> None:
    """Run the comparisons, or one part of them."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--rows", type=int, default=128, help="of an epoch, unpacked and packed")
    parser.add_argument("--pictures", type=int, default=8, help="of an epoch of the projector stage")
    parser.add_argument("--rounds", type=int, default=5, help="two at least, beside one to warm up")
    parser.add_argument("--epochs", type=int, default=5, help="over which the cache's cost is spread in one figure")
    parser.add_argument("--only", default=",".join(GOALS), help="comparisons, by comma")
    parser.add_argument("--scale", choices=("real", "tiny"), default="real", help="widths of the projector stage")
    parser.add_argument("--part", choices=("hfvla", "trl"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    results: dict[str, dict[str, Any]] = {}
    for name in args.only.split(","):
        with tempfile.TemporaryDirectory(prefix="hfvla-sft-") as work:
            found = compare(name, args, Path(work))
        if args.part:
            print(json.dumps(found))
            return
        results[name] = found
        found["memory_gb"] = {way: memory_of(name, way, args)["memory_gb"] for way in found["rows_per_second"]}
        record = {
            "what": "python benchmarks/sft_vs_trl.py "
            + " ".join(f"--{k} {getattr(args, k)}" for k in ("rows", "pictures", "rounds")),  # noqa: E501  # fmt: skip
            "hardware": {"processor": cpu_name(), "cores": cores(), "threads": torch.get_num_threads()},
            "versions": versions("torch", "transformers", "trl", "accelerate"),
            "results": results,
        }
        write_result(args.output, record)
    show(results)


if __name__ == "__main__":
    main()
