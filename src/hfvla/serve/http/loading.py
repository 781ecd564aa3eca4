"""From a checkpoint to what is served of it."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.errors import CheckpointError, HfvlaError, OutOfMemoryError
from hfvla.loading import guarded, read_object, weight_files
from hfvla.nn.chat_prompt import template_prompt
from hfvla.serve.http.engine import TorchEngine
from hfvla.serve.http.exported import chosen_engine, load_exported
from hfvla.serve.http.service import PictureSearch, Service

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from hfvla.family import FamilySpec

__all__ = ["check_room", "load_service"]

logger = logging.getLogger(__name__)


def load_service(
    checkpoint: str,
    device: str,
    *,
    name: str | None = None,
    index: str | None = None,
    engine: str = "auto",
    threads: int = 0,
) -> Service:
    """Load what a checkpoint can answer.

    Args:
        checkpoint: folder, or a hub id: of one of our families, or of a plain image-text-to-text model; or a folder of
            `hfvla export`.
        device: torch device.
        name: of the model for clients; the folder's when None.
        index: folder of `hfvla index` that texts are searched in.
        engine: one of `hfvla.serve.http.exported.ENGINES`.
        threads: of an exported model's engine; 0 for all cores.

    Raises:
        CheckpointError: it cannot be loaded.
        OutOfMemoryError: it does not fit on the device.
        HfvlaError: it answers nothing over HTTP, or the index is not of this checkpoint.
    """
    from hfvla.registry import family_of_checkpoint, load_checkpoint

    known = {"checkpoint": Path(checkpoint).name or checkpoint}
    name = name or _name_of(checkpoint)
    if chosen_engine(checkpoint, engine) != "pytorch":
        return _exported_service(checkpoint, device, name, index, threads)
    try:
        spec = family_of_checkpoint(checkpoint)
    except CheckpointError:
        plain = _load_plain(checkpoint, device)
        if plain is None:
            raise
        model, processor = plain
        summary = "a model of transformers that answers in words about pictures"
        chat = partial(template_prompt, model, processor)
        facts = {"parameters": sum(weight.numel() for weight in model.parameters()), "dtype": str(model.dtype)[6:]}
        kind = model.config.model_type
        return Service(name, kind, summary, chat=chat, info={**known, **facts, "device": str(model.device)})
    check_room(checkpoint, device)
    spec, model, processor = load_checkpoint(checkpoint)
    model = _placed(model, device, checkpoint)
    answers = TorchEngine(spec, model, processor) if spec.path("predict") is not None else None
    chat = _chat_of(spec, model, processor)
    if answers is None and chat is None:
        raise HfvlaError("this family answers nothing", where=checkpoint, got=spec.name)
    return _service(spec, model, processor, name, answers, chat, index, known)


def _service(
    spec: Any, model: Any, processor: Any, name: str, answers: TorchEngine | None, chat: Any, index: str | None,
    known: dict[str, Any],
) -> Service:  # fmt: skip
    facts = spec.load("facts")(model, processor) if spec.has("facts") else {}
    return Service(
        name, spec.name, spec.summary, engine=answers, request=spec.request if answers is not None else None,
        chat=chat, takes_videos=chat is not None and "videos" in inspect.signature(chat).parameters,
        search=None if index is None else _search_of(spec, model, processor, index), facts=facts,
        info=known,
    )  # fmt: skip


def _exported_service(checkpoint: str, device: str, name: str, index: str | None, threads: int) -> Service:
    if device != "cpu":
        raise HfvlaError(
            "exported graphs run on the CPU here", where="--device", got=device, fix="Serve the checkpoint itself."
        )
    _check_files(checkpoint, [*Path(checkpoint).glob("*.onnx*"), *Path(checkpoint).glob("*.bin")], device)
    answers = load_exported(checkpoint, threads)
    spec, model, processor = answers.spec, answers.model, answers.processor
    chat = _chat_of(spec, model, processor) if model.can_chat else None
    return _service(spec, model, processor, name, answers, chat, index, {"checkpoint": Path(checkpoint).name})


def _name_of(checkpoint: str) -> str:
    """Return the folder's name; "final", as every run has one, with the run's before it."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..")]
    return "-".join(parts[-2:]) if parts[-1:] == ["final"] else (parts or ["model"])[-1]


def _chat_of(spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin) -> Any:
    """Return what makes a conversation a prompt, or None where the model does not write."""
    if spec.has("chat"):
        return partial(spec.load("chat"), model, processor)
    tokenizer = getattr(processor, "tokenizer", None)
    template = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if template and callable(getattr(model, "can_generate", None)) and model.can_generate():
        return partial(template_prompt, model, processor)
    return None


def _search_of(spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin, index: str) -> PictureSearch:
    from hfvla.serve.index import read_index

    if spec.path("embed_texts") is None:
        raise HfvlaError("this family does not search pictures", where="--index", got=spec.name)
    found = read_index(index)
    width = spec.load("embed_texts")(model, processor, ["a picture"], batch_size=1).shape[1]
    if found.facts.get("family", spec.name) != spec.name or found.vectors.shape[1] != width:
        got = f"{found.facts.get('family')}, vectors of {found.vectors.shape[1]}"
        raise HfvlaError("the index is of another checkpoint", where=index, got=got, expected=f"{spec.name}, {width}")
    embed = spec.load("embed_texts")
    return PictureSearch(found, lambda texts: embed(model, processor, texts, batch_size=max(1, len(texts))))


def _load_plain(checkpoint: str, device: str) -> tuple[Any, Any] | None:
    """Return model and processor of a plain checkpoint that writes about pictures; None where it is none.

    Raises:
        CheckpointError: it is one, and cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    folder = Path(checkpoint)
    if os.path.isdir(folder):
        file = folder / "config.json"
        if not file.is_file() or read_object(file).get("model_type") not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            return None
        from hfvla.loading import check_folder, check_size

        scalars = check_folder(folder)
        config = guarded(checkpoint, lambda: AutoConfig.from_pretrained(checkpoint))
        check_size(AutoModelForImageTextToText.from_config, config, scalars, folder)
    else:
        try:
            config = AutoConfig.from_pretrained(checkpoint)
        except (OSError, ValueError, AttributeError, TypeError):
            return None
        if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            return None
    check_room(checkpoint, device)
    loading: dict[str, Any] = {"output_loading_info": True, "use_safetensors": True, "dtype": "auto"}
    model, info = guarded(checkpoint, lambda: AutoModelForImageTextToText.from_pretrained(checkpoint, **loading))
    if info.get("missing_keys") or info.get("mismatched_keys"):
        got = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[:3]
        raise CheckpointError("weights are missing or do not fit", where=checkpoint, got=got)
    processor = guarded(checkpoint, lambda: AutoProcessor.from_pretrained(checkpoint))
    return _placed(model, device, checkpoint).eval(), processor


def check_room(checkpoint: str, device: str) -> None:
    """Refuse weights that are larger than the memory that is free, before they are read.

    Raises:
        OutOfMemoryError: with both sizes.
    """
    folder = Path(checkpoint)
    if os.path.isdir(folder):
        _check_files(checkpoint, weight_files(folder), device)


def _check_files(checkpoint: str, files: Iterable[Path], device: str) -> None:
    needed, free = sum(file.stat().st_size for file in files), _free_bytes(device)
    if free is not None and needed > free:
        raise OutOfMemoryError(
            "the model is too large for the device", where=checkpoint, got=f"{needed / 2**30:.1f} GiB of weights",
            expected=f"at most {free / 2**30:.1f} GiB, which are free on {device}",
            fix="Choose another --device, or export fewer bits: hfvla export --bits 8.",
        )  # fmt: skip


def _free_bytes(device: str) -> int | None:
    """Return how much memory of a device is free; None where that is not told."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        return None
    return min(free, _group_bytes(free))


def _group_bytes(most: int) -> int:
    """Return what the control group of this process leaves: in a container, less than what the machine has."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        allowed = limit.read_text().strip()
        return most if allowed == "max" else int(allowed) - int(used.read_text())
    except (OSError, ValueError):
        return most


def _placed(model: PreTrainedModel, device: str, where: str | os.PathLike[str]) -> Any:
    """Return a model on its device.

    Raises:
        OutOfMemoryError: it does not fit there.
    """
    import torch

    try:
        return model.to(device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            "the model is too large for the device", where=str(where), got=str(error).splitlines()[0],
            fix="Choose another --device, or export fewer bits: hfvla export --bits 8.",
        ) from error  # fmt: skip
