"""Hostile checkpoints: a tiny checkpoint of a family, harmed at random from a seed, loaded, and judged.

`attack_checkpoint(family, seed, folder, base)` does one; `benchmarks/attack.py` and the tests beside this do many.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfvla.errors import HfvlaError
from hfvla.registry import load_checkpoint
from hfvla.sealing import seal_folder

from .judging import LOST, HangError, limited

__all__ = ["FAMILIES", "Outcome", "attack_checkpoint", "harms"]

ROOT = Path(__file__).parents[1] / "fixtures/checkpoints_0_1"
FAMILIES = sorted(path.name for path in ROOT.iterdir() if path.is_dir())
_WEIGHTS = "model.safetensors"
_JSONS = (b"[]", b"null", b"\xff\xfe{}", b"{", b"3", b'"x"', b"", b"[" * 100_000, b'{"a": NaN', b"\x00" * 64)
_TOTAL = {"layers": 10**9, "hidden_size": 10**9, "vocab_size": 10**12, "image_size": 10**9}
_TOTAL |= {"n_layer": 10**9, "n_embd": 10**9, "num_heads": 10**12}

_LIMIT_S = 60

Harm = Callable[[Path, random.Random], str]


@dataclass(frozen=True)
class Outcome:
    """What became of one hostile checkpoint.

    Attributes:
        family: the family.
        seed: of the harm.
        harm: what was done.
        verdict: "refused" (an error of hfvla in one line), "equal" (it loads as what it was), or what must never be:
            "traceback", "hang", "silent" (it loads as something else).
        detail: the error.
    """

    family: str
    seed: int
    harm: str
    verdict: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether it must never be."""
        return self.verdict in LOST


def _bytes(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))


def _any_json(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.glob("*.json") if path.name != "complete.json"))


def _truncate(folder: Path, rng: random.Random) -> str:
    _bytes(folder / _WEIGHTS, lambda content: content[: rng.randrange(len(content))])
    return "truncated weights"


def _flip_header(folder: Path, rng: random.Random) -> str:
    place, bit = rng.randrange(8, 400), 1 << rng.randrange(8)
    path = folder / _WEIGHTS
    _bytes(path, lambda content: content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
    return f"bit of the header, byte {place}"


def _claim_header(folder: Path, rng: random.Random) -> str:
    size = rng.choice([2**63, 2**40, 10**8 + 1, 0, 2**64 - 1])
    _bytes(folder / _WEIGHTS, lambda content: struct.pack("<Q", size) + content[8:])
    return f"a header of {size} bytes"


def _claim_shape(folder: Path, rng: random.Random) -> str:
    def change(content: bytearray) -> bytes:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        name = rng.choice([key for key in header if key != "__metadata__"])
        header[name]["shape"] = rng.choice([[10**12], [2**62, 2**62], [-1], [0], ["x"], 3, [10**6, 10**6]])
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    _bytes(folder / _WEIGHTS, change)
    return "an absurd shape in the header"


def _no_weights(folder: Path, rng: random.Random) -> str:
    (folder / _WEIGHTS).unlink()
    return "no weights"


def _pickled(folder: Path, rng: random.Random) -> str:
    (folder / _WEIGHTS).unlink()
    name = rng.choice(["pytorch_model.bin", "model.pt", "weights.pth"])
    torch.save({"x": torch.ones(2)}, folder / name)
    return f"pickled weights, {name}"


def _index(folder: Path, rng: random.Random) -> str:
    outside = folder.parent / f"outside-{folder.name}.safetensors"
    (folder / _WEIGHTS).rename(outside)
    target = rng.choice(
        [f"../{outside.name}", str(outside), "..", "a/../../x.safetensors", "none.safetensors", 3, None]
    )
    content: Any = {"weight_map": {"some.weight": target}}
    content = rng.choice([content, [content], {"weight_map": []}, {}, None]) if rng.random() < 0.4 else content
    (folder / f"{_WEIGHTS}.index.json").write_text(json.dumps(content))
    return f"an index that says {content}"


def _json(folder: Path, rng: random.Random) -> str:
    path = _any_json(folder, rng)
    path.write_bytes(rng.choice(_JSONS))
    return f"{path.name} holds {path.read_bytes()[:12]!r}"


def _cut_json(folder: Path, rng: random.Random) -> str:
    path = _any_json(folder, rng)
    _bytes(path, lambda content: content[: rng.randrange(1, max(2, len(content) - 2))])
    return f"{path.name} is cut short"


def _places(value: Any, found: list[tuple[dict[str, Any], str]]) -> list[tuple[dict[str, Any], str]]:
    """Return (mapping, key) of every whole number in nested JSON."""
    for key, part in value.items() if isinstance(value, dict) else ():
        if isinstance(part, int) and not isinstance(part, bool):
            found.append((value, key))
        _places(part, found)
    return found


def _sizes(folder: Path, rng: random.Random) -> str:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    found = [
        (part, key, size)
        for wanted, size in sorted(_TOTAL.items())
        for part, key in _places(content, [])
        if key.endswith(wanted) or key in ("n_layer", "n_embd", "depth")
    ]
    part, key, size = rng.choice(found)
    part[key] = size
    path.write_text(json.dumps(content))
    return f"{key} is {size}"


def _quantised(folder: Path, rng: random.Random) -> str:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["quantization_config"] = {"quant_method": rng.choice(["bitsandbytes", "gptq", "x", 3, None])}
    path.write_text(json.dumps(content))
    return f"quantised by {content['quantization_config']['quant_method']}"


def _model_type(folder: Path, rng: random.Random) -> str:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["model_type"] = rng.choice(["llama", 3, None, ["x"], {"a": 1}, "../x", *FAMILIES])
    kind = content["model_type"]
    path.write_text(json.dumps(content))
    return f"model_type {kind!r}"


def _processor(folder: Path, rng: random.Random) -> str:
    """Change what the processor must have in common with the config."""
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    for key in rng.sample(sorted(content), len(content)):
        value = content[key]
        if key in ("robots", "views") and len(value) > 1:
            content[key] = value[::-1]
        elif key in ("num_visual_tokens", "tokens_per_tile", "state_dim", "max_text_tokens"):
            content[key] = value + 1
        elif key in ("backbone", "prompt"):
            content[key] = f"{value}_other"
        else:
            continue
        path.write_text(json.dumps(content))
        return f"the processor says {key} {content[key]!r}"
    raise AssertionError("nothing in this processor can be checked")


def _picture_size(folder: Path, rng: random.Random) -> str:
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    size = content["image_processor"]["size"]
    for key in size:
        size[key] = size[key] * 2
    path.write_text(json.dumps(content))
    return "the processor makes pictures of another size"


def _sealed(folder: Path, rng: random.Random) -> str:
    """Seal the folder as the engine does, then flip one bit or cut or delete a file of it."""
    seal_folder(folder, {})
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = rng.choice(["flip", "cut", "delete"] if path.name != "complete.json" else ["flip", "cut"])
    if kind == "flip":
        place, bit = rng.randrange(path.stat().st_size), 1 << rng.randrange(8)
        _bytes(path, lambda content: content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
    elif kind == "cut":
        _bytes(path, lambda content: content[: rng.randrange(len(content))])
    else:
        path.unlink()
    return f"sealed, then {kind} {path.name}"


def harms(family: str) -> list[Harm]:
    """Return what may be done to a checkpoint of a family."""
    common = [_truncate, _flip_header, _claim_header, _claim_shape, _no_weights, _pickled, _index, _json, _json]
    common += [_cut_json, _sizes, _sizes, _quantised, _model_type, _processor, _processor, _sealed, _sealed, _sealed]
    return [*common, *([] if family == "sensor_vla" else [_picture_size])]  # its backbone's processor sizes pictures


def attack_checkpoint(family: str, seed: int, folder: Path, base: dict[str, Any]) -> Outcome:
    """Harm a copy of a family's checkpoint, load it, and judge.

    Args:
        family: the family.
        seed: of the harm.
        folder: where the copy goes; deleted after.
        base: the weights of the unharmed checkpoint by family; filled where one is missing.
    """
    if family not in base:
        base[family] = _state(load_checkpoint(ROOT / family))
    rng, copy = random.Random(f"{family}/{seed}"), folder / f"{family}-{seed}"
    shutil.copytree(ROOT / family, copy, ignore=shutil.ignore_patterns("batch.safetensors", "recipe.json"))
    harm = "?"
    try:
        harm = rng.choice(harms(family))(copy, rng)
        with limited(_LIMIT_S):
            found = _state(load_checkpoint(copy, family=family))
    except HfvlaError as error:
        named = "\n" not in str(error)
        return Outcome(family, seed, harm, "refused" if named else "traceback", str(error)[:300])
    except HangError:
        return Outcome(family, seed, harm, "hang", "")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Outcome(family, seed, harm, "traceback", "".join(traceback.format_exception(error))[-1500:])
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    same = found == base[family]
    return Outcome(family, seed, harm, "equal" if same else "silent", "" if same else "loads as something else")


def _state(loaded: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Return what decides what a checkpoint computes, as one comparable mapping."""
    _, model, processor = loaded
    volatile = {"_name_or_path", "transformers_version", "_commit_hash"}
    config = {key: value for key, value in model.config.to_dict().items() if key not in volatile}
    weights = {name: hash(value.contiguous().view(torch.uint8).numpy().tobytes()) for name, value in _flat(model)}
    tokens = processor.tokenizer.backend_tokenizer.to_str() if processor.tokenizer is not None else ""
    says = repr(processor).replace(processor.tokenizer.name_or_path, "")
    texts = {"config": json.dumps(config, default=str), "processor": says, "tokens": tokens}
    return {"weights": weights, **texts}


def _flat(model: Any) -> list[tuple[str, torch.Tensor]]:
    return [(name, value.reshape(-1)) for name, value in model.state_dict().items()]
