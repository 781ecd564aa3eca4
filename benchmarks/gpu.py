"""Training speed and memory of real-size backbones with random bf16 weights on one GPU, against `hfvla plan`.

For each backbone: samples/s, tokens/s, MFU and peak memory, plain and with gradient checkpointing, flash attention,
torch.compile and Liger kernels where they are installed, and with four samples packed into a sequence under the loss
of `chat_vlm`, which runs the output layer at learned tokens alone; and a head trained on a frozen backbone, its
features computed each time or read back from a file. Then the latency of action chunks (`gpu_actions.py`). Prints
tables and writes one JSON with the hardware named.

    python benchmarks/gpu.py                                   # needs a GPU
    python benchmarks/gpu.py --device cpu --tiny               # the same code on small models, in a minute
    python benchmarks/gpu.py --write-estimates estimates.json  # no GPU; what `hfvla plan` expects of these runs
    python benchmarks/gpu.py --estimates estimates.json        # on a machine without pydantic

It needs torch, transformers and timm only: neither datasets nor pydantic, which the estimate and packing import.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText

HERE = Path(__file__).resolve().parent
SHAPES = HERE.parent / "src/hfvla/training/estimate/shape_configs"
RESULTS = HERE / "results" / "gpu.json"
PEAK_TFLOPS = {"A40": 149.7, "A100": 312.0, "H100": 989.0, "H200": 989.0}  # dense bf16, data sheets
MODELS = {"ember_vlm": (64, 0), "internvl3_1b": (4, 1024), "qwen2_5_vl_3b": (1, 1024)}  # name -> batch, tokens
FROZEN = ("vision", "visual")  # what stays frozen in the backbones' steps: the vision tower
PACKED = 4  # samples of 1,024 tokens in a sequence
OPTIMIZER = "adamw_torch_fused"


def allow_missing_wrapt() -> None:
    """Let hfvla be imported where wrapt is missing; only the Auto classes then do not know the families."""
    sys.path.insert(0, str(HERE.parent / "src"))
    if importlib.util.find_spec("wrapt") is None:
        stand_in = types.ModuleType("wrapt")
        stand_in.register_post_import_hook = lambda hook, module: None  # type: ignore[attr-defined]
        sys.modules["wrapt"] = stand_in


def shape_config(name: str, tiny: bool) -> Any:
    """Return a shipped backbone's config; with `tiny` two thin layers of each tower."""
    settings = json.loads((SHAPES / f"{name}.json").read_text())["config"]
    text = settings.get("text_config", settings)
    if tiny:
        text.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
        text.update(num_key_value_heads=2, layer_types=None, max_window_layers=2, vocab_size=2048)
        settings.update(
            {key: 1200 + number for number, key in enumerate(k for k in settings if k.endswith("_token_id"))}
        )
        vision = settings["vision_config"]
        if "depth" in vision:
            vision.update(hidden_size=64, intermediate_size=128, depth=2, num_heads=4, out_hidden_size=64)
            text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3]}
            text["rope_scaling"] = text["rope_parameters"]
        else:
            vision.update(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
            vision["image_size"], settings["image_seq_length"] = [112, 112], 16
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def shape_batch(config: Any, batch: int, tokens: int, pixels: int) -> dict[str, torch.Tensor]:
    """Return one image (of `pixels`, where any size goes) a sample and text up to `tokens` tokens; on the CPU."""
    vision = config.vision_config
    draw = torch.Generator().manual_seed(0)
    if getattr(config, "image_seq_length", None):
        each, side = config.image_seq_length, vision.image_size[0]
        inputs = {"pixel_values": torch.randn(batch, 3, side, side, generator=draw)}
    else:
        merge = vision.spatial_merge_size
        side = pixels // vision.patch_size // merge * merge
        each = (side // merge) ** 2
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        inputs = {
            "pixel_values": torch.randn(batch * side**2, width, generator=draw),
            "image_grid_thw": torch.tensor([[1, side, side]] * batch),
        }
    ids = torch.randint(10, 1000, (batch, tokens), generator=draw)
    ids[:, 0] = getattr(config, "vision_start_token_id", None) or 5
    ids[:, 1 : 1 + each] = config.image_token_id
    is_image = ids == config.image_token_id
    labels = ids.masked_fill(is_image, -100)
    batch_inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, **inputs}
    return batch_inputs | ({"mm_token_type_ids": is_image.long()} if hasattr(vision, "spatial_merge_size") else {})


def ember_batch(config: Any, batch: int) -> dict[str, torch.Tensor]:
    """Return a batch of one image and one prompt a sample, with robots to select; on the CPU."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 400, (batch, config.num_visual_tokens + 64), generator=draw)
    ids[:, : config.num_visual_tokens] = config.image_token_id
    side = config.image_size
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(batch, 3, side, side, generator=draw),
        "robot_labels": torch.randint(2, (batch, config.num_robots), generator=draw).float(),
        "robot_mask": torch.ones(batch, dtype=torch.bool),
    }


def batch_of(name: str, config: Any, tiny: bool) -> dict[str, torch.Tensor]:
    """Return a batch for a model, on the CPU."""
    batch, tokens = (2, 64) if tiny else MODELS[name]
    if name == "ember_vlm":
        return ember_batch(config, batch)
    return shape_batch(config, batch, tokens, 112 if tiny else 448)


def packed_batch(config: Any, samples: int, tokens: int, pixels: int) -> dict[str, torch.Tensor]:
    """Return samples of one picture each in one sequence, the last quarter of each learned; on the CPU."""
    from hfvla.data.packing import pack_batch

    parts = [shape_batch(config, 1, tokens, pixels) for _ in range(samples)]
    for part in parts:
        part["labels"][:, : tokens * 3 // 4] = -100
    return pack_batch([parts], 0)


def build(
    name: str, tiny: bool, attention: str = "sdpa", packed: int = 0
) -> tuple[nn.Module, dict[str, torch.Tensor], int]:
    """Return model (on the current default device, random), batch on the CPU, and tokens of a batch.

    In the backbones the vision tower is frozen; ember_vlm trains whole.
    """
    if name == "ember_vlm":
        from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
        from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

        config = EmberVLMConfig.tiny() if tiny else EmberVLMConfig()
        config.loss_weights = {"selection": 1.0}
        model = EmberVLMForRobotSelection(config)
        inputs = batch_of(name, config, tiny)
        return model, inputs, inputs["input_ids"].numel()
    config = shape_config(name, tiny)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not any(f".{part}" in f".{key}" for part in FROZEN))
    if packed:
        from hfvla.models.chat_vlm import FAMILY

        FAMILY.give_objective(model, losses=("sft",))
        with torch.device("cpu"):
            inputs = packed_batch(config, packed, 64 if tiny else 1024, 112 if tiny else 448)
        return model, inputs, inputs["input_ids"].numel()
    inputs = batch_of(name, config, tiny)
    return model, inputs, inputs["input_ids"].numel()


def loss_of(output: Any) -> torch.Tensor:
    """Return the scalar to minimise."""
    return output["loss"]


def place(batch: Mapping[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    """Move a batch; floats become bf16, as the weights are."""
    return {
        key: value.to(device, torch.bfloat16 if value.is_floating_point() else None) for key, value in batch.items()
    }


def wait(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(step: Callable[[], None], steps: int, device: str, warmup: int = 3) -> float:
    """Return the median seconds of one step."""
    for _ in range(warmup):
        step()
    seconds = []
    for _ in range(steps):
        wait(device)
        began = time.perf_counter()
        step()
        wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def has(package: str) -> bool:
    """Tell whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def variants(name: str, device: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield each way to run a step: its name, its options, and why it is left out ("" when it runs)."""
    yield "sdpa", {}, ""
    yield "sdpa + gradient checkpointing", {"checkpointing": True}, ""
    ember = name == "ember_vlm"
    missing = (
        "" if has("flash_attn") and device != "cpu" and not ember else "flash_attn is not installed, or not for it"
    )
    yield "flash attention", {"attention": "flash_attention_2"}, missing
    yield "sdpa + torch.compile", {"compile": True}, ""
    needed = "" if has("pydantic") and not ember else "pydantic is not installed, or not for it"
    yield f"sdpa + {PACKED} samples packed", {"packed": PACKED}, needed
    yield "sdpa + liger", {"liger": True}, "" if has("liger_kernel") and not ember else "liger_kernel is not installed"


def switch_checkpointing(model: Any) -> None:
    """Turn gradient checkpointing on; transformers calls it activation checkpointing since 5.23."""
    for kind in ("activation", "gradient"):
        method = getattr(model, f"{kind}_checkpointing_enable", None)
        if method is not None:
            method({"use_reentrant": False})
            return


def apply_liger(model: Any) -> None:
    """Put Liger's kernels into the language model of a backbone."""
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model.model.language_model)


def measure(name: str, tiny: bool, device: str, steps: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Train `steps` steps and return seconds a step, throughput, floating-point operations and peak memory."""
    torch.manual_seed(0)
    with torch.device(device):
        model, batch, tokens = build(name, tiny, options.get("attention", "sdpa"), options.get("packed", 0))
    model = model.to(device, torch.bfloat16).train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
    if options.get("checkpointing"):
        switch_checkpointing(model)
    if options.get("liger"):
        apply_liger(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    inputs = place(batch, device)
    # Inductor's C++ for a CPU takes minutes to build, and says nothing about a GPU.
    backend = "eager" if device == "cpu" else "inductor"
    run = torch.compile(model, backend=backend) if options.get("compile") else model
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        loss_of(run(**inputs)).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(step, steps, device)
    peak = torch.cuda.max_memory_allocated() if device != "cpu" else None
    samples = options.get("packed") or (MODELS[name][0] if not tiny else 2)
    result = {"seconds": seconds, "samples_per_s": samples / seconds, "tokens_per_s": tokens / seconds}
    result |= {"peak_bytes": peak, "parameters": sum(p.numel() for p in model.parameters())}
    if not options or options.get("packed"):
        with FlopCounterMode(display=False) as counter:
            loss_of(model(**inputs)).backward()
        result["flops"] = counter.get_total_flops()
    return {**result, "trainable": sum(parameter.numel() for parameter in trained)}


def estimate(name: str, tiny: bool, checkpointing: bool) -> int:
    """Return the peak bytes that `hfvla plan` expects of a run (needs pydantic)."""
    from hfvla.training.estimate import estimate_memory

    with torch.device("meta"):
        model, _, _ = build(name, tiny)
    with torch.device("cpu"):
        batch = batch_of(name, model.config, tiny)
    found = estimate_memory(
        model, batch, precision="bf16", setting="plain", gpus=1, checkpointing=checkpointing, optim=OPTIMIZER
    )
    return found.peak


def cached_against_not(tiny: bool, device: str, steps: int) -> dict[str, Any]:
    """Train a small head on a frozen InternVL3-1B, its features computed each step against read from a file.

    The file is memory-mapped and read batch by batch, as the feature cache's Arrow files are.
    """
    torch.manual_seed(0)
    with torch.device(device):
        model, batch, _ = build("internvl3_1b", tiny)
    backbone = model.to(device, torch.bfloat16).eval().requires_grad_(False).model
    inputs = place({key: value for key, value in batch.items() if key != "labels"}, device)
    samples, width = len(inputs["input_ids"]), model.config.text_config.hidden_size
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 256)).to(device, torch.bfloat16)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-4, fused=True)

    def train_head(features: torch.Tensor) -> None:
        head(features).float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def features() -> torch.Tensor:
        with torch.no_grad():
            return backbone(**inputs).last_hidden_state.mean(1)  # [B, D]

    with tempfile.TemporaryDirectory() as folder:
        path, batches = str(Path(folder) / "features.bin"), 64
        stored = torch.from_file(path, shared=True, size=batches * samples * width, dtype=torch.bfloat16)
        stored = stored.view(batches, samples, width)
        stored[:] = features().cpu()
        number = iter(range(10**9))
        uncached = timed(lambda: train_head(features()), steps, device)
        cached = timed(lambda: train_head(stored[next(number) % batches].to(device)), 4 * steps, device)
    bytes_a_sample = 2 * width
    return {
        "backbone": "internvl3_1b",
        "uncached_samples_per_s": samples / uncached,
        "cached_samples_per_s": samples / cached,
        "ratio": uncached / cached,
        "bytes_a_sample": bytes_a_sample,
    }


def hardware(device: str) -> dict[str, Any]:
    """Return the names and sizes of what it ran on."""
    found: dict[str, Any] = {"cpu": platform.processor() or platform.machine(), "device": device}
    if device != "cpu":
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_bytes": card.total_memory, "cuda": torch.version.cuda}
        peaks = [value for name, value in PEAK_TFLOPS.items() if name in card.name]
        found["peak_bf16_tflops"] = peaks[0] if peaks else None
    return found


def estimates(args: argparse.Namespace) -> dict[str, int]:
    """Return expected peak bytes by "model/checkpointing": read from a file, or worked out where that can be done."""
    if args.estimates:
        return json.loads(Path(args.estimates).read_text())
    found = {}
    with contextlib.suppress(ModuleNotFoundError):  # pydantic; the table then shows no estimate
        for name in args.models:
            for checkpointing in (False, True):
                found[f"{name}/{checkpointing}"] = estimate(name, args.tiny, checkpointing)
    return found


def run_model(name: str, args: argparse.Namespace, expected: Mapping[str, int], peak_tflops: float | None) -> list:
    """Measure every variant of a model; one that does not fit or cannot run is a row that says so."""
    rows: list[dict[str, Any]] = []
    flops = None
    for variant, options, reason in variants(name, args.device):
        row: dict[str, Any] = {"model": name, "variant": variant}
        if reason:
            rows.append({**row, "left_out": reason})
            continue
        try:
            row |= measure(name, args.tiny, args.device, args.steps, options)
        except Exception as error:
            rows.append({**row, "left_out": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"})
            continue
        finally:
            if args.device != "cpu":
                torch.cuda.empty_cache()
            torch.compiler.reset()
        counted = row.get("flops", flops)
        flops = counted if not options else flops
        if counted and peak_tflops:
            row["mfu"] = counted / row["seconds"] / peak_tflops / 1e12
        if variant.startswith("sdpa") and not options.keys() & {"compile", "liger", "packed"}:
            row["estimated_bytes"] = expected.get(f"{name}/{bool(options.get('checkpointing'))}")
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]], cached: Mapping[str, Any]) -> None:
    """Print the tables."""
    form = "{:14} {:30} {:>9} {:>10} {:>11} {:>6} {:>9} {:>9} {:>6}"
    print(form.format("model", "step", "ms", "samples/s", "tokens/s", "MFU", "peak GB", "plan GB", "ratio"))
    for row in rows:
        if "left_out" in row:
            print(f"{row['model']:14} {row['variant']:30} left out: {row['left_out']}")
            continue
        peak, plan = row["peak_bytes"], row.get("estimated_bytes")
        numbers = [f"{1e3 * row['seconds']:.1f}", f"{row['samples_per_s']:.1f}", f"{row['tokens_per_s']:,.0f}"]
        numbers += [f"{row['mfu']:.1%}" if row.get("mfu") else "-", f"{peak / 1e9:.2f}" if peak else "-"]
        numbers += [f"{plan / 1e9:.2f}" if plan else "-", f"{plan / peak:.3f}" if plan and peak else "-"]
        print(form.format(row["model"], row["variant"], *numbers))
    print(
        f"\nhead on a frozen {cached['backbone']}: {cached['uncached_samples_per_s']:.1f} samples/s computed, "
        f"{cached['cached_samples_per_s']:.1f} read back: {cached['ratio']:.1f}x (goal 20x), "
        f"{cached['bytes_a_sample']:,} bytes a sample"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="small models, to try the program")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--estimates", metavar="FILE", help="what --write-estimates wrote on another machine")
    parser.add_argument("--write-estimates", metavar="FILE")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    allow_missing_wrapt()
    if args.write_estimates:
        Path(args.write_estimates).write_text(json.dumps(estimates(args), indent=2) + "\n")
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; try the program with --device cpu --tiny, and `hfvla doctor` for the reason")
    machine = hardware(args.device)
    expected = estimates(args)
    rows = [row for name in args.models for row in run_model(name, args, expected, machine.get("peak_bf16_tflops"))]
    cached = cached_against_not(args.tiny, args.device, args.steps)
    show(rows, cached)
    sys.path.insert(0, str(HERE))
    from gpu_actions import measure_actions, show_actions

    actions = measure_actions(args.tiny, args.device, 5 * args.steps)
    show_actions(actions)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    content = {"hardware": machine, "versions": versions, "tiny": args.tiny, "steps": args.steps, "rows": rows}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({**content, "cache": cached, "actions": actions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
