"""Packed sequences against padded batches: tokens a second on LLaVA-like lengths, and the same loss curve.

Three copies of one LLaVA model train on the same samples, 32 an optimizer step: padded to the longest of batches of
8 (`--batch-rows`; LLaVA-1.5's own are 16 a GPU); the same 32 sorted by length before (as
`train_sampling_strategy: group_by_length` does with more of them); and packed. They take turns in one process, one
optimizer step each, so that whatever else the machine does falls on all alike; compared are steps of the same turn.
Tokens are those that are not padding. A step's loss is the mean over its labelled tokens, so the loss curves must be
one. Beside a ratio stands that of tokens with padding to tokens without: what a step gains that has no padding at all
and whose time goes with its tokens.

Lengths are drawn, an eighth of real ones: the parts and shares of LLaVA-1.5's 665 k instruction rows, each lognormal
around a median of text tokens that is our estimate. A picture has 512 tokens (64 here; LLaVA-1.5 has 576) or about 64
(9 here; models that merge patches, as SmolVLM and nanoVLM do). One seed.

Run:  python benchmarks/packing.py            # some minutes on one core
"""

from __future__ import annotations

import copy
import os
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from common import arguments, cpu_name, quartiles, write_result
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from hfvla.data.packing import pack, pack_batch, packing_report

SCALE, LONGEST, IMAGE, WORDS = 8, 2048, 3, 4096
STEP_ROWS, BATCH_ROWS, PACKS = 32, 8, 4
WARMUP_TURNS, GOAL = 2, 1.8
VARIANTS = ("padded", "by length", "packed")
PARTS = {  # share of rows, pictures, median text tokens, spread
    "LLaVA-Instruct": (0.24, 1, 350, 0.5),
    "short answers (VQAv2, GQA, OK-VQA, OCR-VQA, A-OKVQA)": (0.47, 1, 120, 0.7),
    "boxes and regions (RefCOCO, Visual Genome)": (0.20, 1, 250, 0.7),
    "TextCaps": (0.03, 1, 60, 0.4),
    "ShareGPT": (0.06, 0, 900, 0.8),
}


def draw_samples(count: int, image_tokens: int, seed: int) -> list[dict[str, Tensor]]:
    """Return encoded conversations; the second half of the text is the answer."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    side = 8 * round(image_tokens**0.5)
    names = list(PARTS)
    samples = []
    for number in draw.choice(len(names), count, p=[PARTS[name][0] for name in names]):
        _, pictures, median, spread = PARTS[names[number]]
        room = LONGEST // SCALE - pictures * image_tokens
        words = int(np.clip(median / SCALE * np.exp(spread * draw.standard_normal()), 2, room))
        text = torch.randint(10, WORDS, (words,))
        ids = torch.cat([torch.full((pictures * image_tokens,), IMAGE), text])
        labels = ids.clone()
        labels[: len(ids) - words // 2] = -100
        sample = {"input_ids": ids[None], "labels": labels[None]}
        samples.append(sample | ({"pixel_values": torch.randn(1, 3, side, side)} if pictures else {}))
    return samples


def build_model(image_tokens: int, width: int, layers: int) -> nn.Module:
    """Return a LLaVA with random weights."""
    torch.manual_seed(0)
    vision = {"model_type": "clip_vision_model", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"intermediate_size": 128, "image_size": 8 * round(image_tokens**0.5), "patch_size": 8}
    text = {"model_type": "llama", "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": WORDS, "pad_token_id": 0}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, image_seq_length=image_tokens)
    return LlavaForConditionalGeneration(config).train()


def padded(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return a batch as collators make it: rows filled up behind, with a mask."""
    batch = pack_batch([[sample] for sample in samples], 0)
    mask = (batch.pop("sequence_ids") >= 0).long()
    batch.pop("position_ids")
    return {**batch, "attention_mask": mask}


def batches_of(variant: str, samples: list[dict[str, Tensor]], batch_rows: int) -> list[dict[str, Tensor]]:
    """Return the micro-batches of one optimizer step."""
    lengths = [sample["input_ids"].numel() for sample in samples]
    if variant == "packed":
        bins = pack(lengths, LONGEST // SCALE)
        groups = [bins[start : start + PACKS] for start in range(0, len(bins), PACKS)]
        made = [pack_batch([[samples[i] for i in members] for members in group], 0) for group in groups]
        return [{key: value for key, value in batch.items() if key != "sequence_ids"} for batch in made]
    order = np.argsort(lengths).tolist() if variant == "by length" else list(range(len(samples)))
    parts = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]
    return [padded([samples[i] for i in part]) for part in parts]


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[dict[str, Tensor]]) -> float:
    """Take one optimizer step on the mean over all labelled tokens; return that loss."""
    count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        given = {key: value for key, value in batch.items() if key != "labels"}
        learned = batch["labels"][:, 1:] != -100
        logits = model(**given, use_cache=False).logits[:, :-1][learned]
        loss = F.cross_entropy(logits, batch["labels"][:, 1:][learned], reduction="sum") / count
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return total


def compare(image_tokens: int, turns: int, width: int, layers: int, batch_rows: int) -> dict:
    """Let the variants take turns; return tokens a second, ratios of the same turn, padding and loss curves."""
    first = build_model(image_tokens, width, layers)
    models = {name: copy.deepcopy(first) for name in VARIANTS}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-3) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    losses: dict[str, list[float]] = {name: [] for name in VARIANTS}
    share: dict[str, list[float]] = {name: [] for name in VARIANTS}
    tokens = []
    for turn in range(turns + WARMUP_TURNS):
        samples = draw_samples(STEP_ROWS, image_tokens, seed=turn)
        tokens.append(sum(sample["input_ids"].numel() for sample in samples))
        for name in VARIANTS if turn % 2 else VARIANTS[::-1]:
            batches = batches_of(name, samples, batch_rows)
            share[name].append(1 - tokens[-1] / sum(batch["input_ids"].numel() for batch in batches))
            began = time.perf_counter()
            losses[name].append(train_step(models[name], optimizers[name], batches))
            seconds[name].append(time.perf_counter() - began)
    kept = slice(WARMUP_TURNS, None)
    ratio = {
        name: quartiles([a / b for a, b in zip(seconds["padded"][kept], seconds[name][kept], strict=True)])
        for name in VARIANTS[1:]
    }
    curves = zip(losses["padded"], losses["packed"], strict=True)
    lengths = [s["input_ids"].numel() for s in draw_samples(4096, image_tokens, seed=10**6)]
    report = packing_report(lengths, pack(lengths, LONGEST // SCALE), LONGEST // SCALE, batch_rows)
    return {
        "image_tokens": image_tokens * SCALE if image_tokens > 9 else 64,
        "turns": turns,
        "tokens_per_second": {
            name: quartiles([n / s for n, s in zip(tokens[kept], seconds[name][kept], strict=True)])
            for name in VARIANTS
        },
        "ratio": ratio,
        "without_padding": round(1 / (1 - statistics.mean(share["padded"])), 3),
        "padding": {name: round(statistics.mean(values), 4) for name, values in share.items()},
        "losses": {name: [round(value, 5) for value in values] for name, values in losses.items()},
        "largest_difference_of_losses": max(abs(a - b) for a, b in curves),
        "epoch_of_4096_rows": report.to_dict(),
    }


def show(results: list[dict]) -> None:
    """Print the table and the ratio asked for."""
    table = Table(title="one optimizer step of 32 samples; ratio to padded: median of same turns (quartiles)")
    for heading in ("tokens a picture", "batches", "padding", "tokens/s", "ratio"):
        table.add_column(heading, justify="left" if heading == "batches" else "right")
    for result in results:
        for name in VARIANTS:
            ratio = result["ratio"].get(name)
            table.add_row(
                str(result["image_tokens"]), name, f"{result['padding'][name]:.1%}",
                f"{result['tokens_per_second'][name]['median']:,.0f}",
                "1" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(ratio["median"], *ratio["quartiles"]),
            )  # fmt: skip
    out = Console(width=110)
    out.print(table)
    for result in results:
        out.print(
            f"{result['image_tokens']} tokens a picture: packed over padded {result['ratio']['packed']['median']:.2f} "
            f"(goal {GOAL}; without any padding {result['without_padding']:.2f}); "
            f"losses differ by at most {result['largest_difference_of_losses']:.1e}"
        )


def main() -> None:
    """Compare with few and with many tokens a picture."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-rows", type=int, default=BATCH_ROWS)
    args = parser.parse_args()
    results = [compare(tokens, args.turns, args.width, args.layers, args.batch_rows) for tokens in (9, 64)]
    show(results)
    record = {
        "what": f"python benchmarks/packing.py --turns {args.turns} --batch-rows {args.batch_rows}",
        "hardware": {"processor": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": {"width": args.width, "layers": args.layers, "rows_a_step": STEP_ROWS, "parts": PARTS},
        "results": results,
    }
    write_result(args.output, record)


if __name__ == "__main__":
    main()
