"""The plain backbone in transformers' layout with 32, 16, 8 or 4 bits, compared inside the family's model.

8 and 4 bits are weight-only: torchao's int8 with a scale a row, or its int4 in groups of 32, of every linear layer;
where torchao has no kernel for 4 bits (CPUs), NF4 of bitsandbytes. Embeddings, norms and convolutions keep their type.
transformers and vLLM load such a folder where that package is installed.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hfvla.errors import CheckpointError, HfvlaError
from hfvla.export.engines import TorchEngine, need
from hfvla.export.plain import plain_backbone
from hfvla.family import FamilySpec
from hfvla.training.checkpoint.record import saving

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["write_merged"]

logger = logging.getLogger(__name__)

_GROUP = 32


class _MergedEngine(TorchEngine):
    name = "merged"


def write_merged(
    spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin, folder: Path, bits: int
) -> tuple[TorchEngine, dict[str, Any]]:
    """Write the backbone with fewer bits and return an engine of the family's model around what was written.

    Args:
        spec: the family.
        model: its model; stays as it is.
        processor: its processor.
        folder: exists.
        bits: 32, 16, 8 or 4.

    Raises:
        MissingExtraError: torchao is not installed (8 and 4 bits).
        CheckpointError: the family has no backbone that stands alone, or it cannot be quantised here.
    """
    plain = plain_backbone(spec, model, processor)
    kind = type(plain.model)
    with saving("the backbone", folder):
        plain.model.save_pretrained(folder)
        for part in plain.processor:
            part.save_pretrained(folder)
    if bits == 16:
        again = kind.from_pretrained(folder, use_safetensors=True, dtype=torch.bfloat16)
    elif bits == 32:
        again = kind.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    else:
        again = _quantised(kind, folder, bits)
    whole = _left_whole(again, folder, bits) if bits < 16 else []
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    with saving("the backbone", folder):
        again.save_pretrained(folder)
    loaded = kind.from_pretrained(folder, use_safetensors=True, dtype="auto").eval()
    around = spec.new_model(model.config)
    around.load_state_dict(model.state_dict())
    if plain.module:
        around.set_submodule(plain.module, loaded)
    else:
        around = loaded
    return _MergedEngine(spec.load("export")(around.eval(), processor).parts), {"left_whole": {"backbone": whole}}


def _left_whole(model: PreTrainedModel, folder: Path, bits: int) -> list[str]:
    """Return the matrices that were not quantised: embeddings, and layers of a kind that torchao does not know.

    Raises:
        CheckpointError: it was none at all (GPT-2's layers are no linear ones).
    """
    matrices = {name: value for name, value in model.named_parameters() if value.ndim >= 2}
    whole = [
        name for name, value in matrices.items() if type(value.data) is torch.Tensor and value.is_floating_point()
    ]
    if len(whole) == len(matrices):
        raise CheckpointError(
            f"no layer of this backbone could be given {bits} bits", where=str(folder), got=type(model).__name__,
            expected="linear layers", fix="Take --format onnx, which reaches every matrix product.",
        )  # fmt: skip
    return whole


def _quantised(kind: Any, folder: Path, bits: int) -> Any:
    """Return the backbone of a folder with every linear layer quantised.

    Raises:
        MissingExtraError: torchao is not installed.
        CheckpointError: neither this machine's torchao nor bitsandbytes has such a kernel.
    """
    need("torchao", what=f"{bits} bits")
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    config = Int8WeightOnlyConfig() if bits == 8 else Int4WeightOnlyConfig(group_size=_GROUP)
    ways = [TorchAoConfig(config), *([_nf4()] if bits == 4 and find_spec("bitsandbytes") else [])]
    problems = []
    for way in ways:
        try:
            return kind.from_pretrained(
                folder, use_safetensors=True, dtype=torch.bfloat16 if bits == 4 else torch.float32,
                quantization_config=way,
            )  # fmt: skip
        except HfvlaError:
            raise
        except Exception as error:  # kernels that are not there raise whatever they like
            problems.append(error)
            logger.info("%s: %s", type(way).__name__, error)
    reasons = "; ".join(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200] for error in problems)
    install = "" if bits == 8 or find_spec("bitsandbytes") else 'pip install "hfvla[qlora]" for NF4, '
    raise CheckpointError(
        f"{bits} bits cannot be made on this machine", where=str(folder), got=reasons,
        fix=f"Take {install}8 bits, ONNX with 4 bits, or a machine with a GPU.",
    ) from problems[0]  # fmt: skip


def _nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
