"""What a frozen vision tower gives, kept once and given back in its place.

Two kinds of models, told by their structure:

- the projector stands behind the tower (LLaVA, InternVL, Gemma, SmolVLM): kept is what the model reads of the tower's
  output, and an output that holds just that is given back;
- projectors stand inside of it (Qwen-VL's mergers): kept is what goes into each of them; then blocks do nothing, and
  mergers take what was kept.

The model's own code does all the rest: choosing layers, shuffling pixels, packing tiles. What is not needed, pixels
above all, is a stand-in of the same shape. Where a model has videos under a name of their own, its tower is asked
twice, and gives back what was kept of each.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import RecipeError
from hfvla.models.chat_vlm.architectures import find_groups, inner_projectors, vision_tower

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["IMAGES", "SLOTS", "VIDEOS", "Slot", "give_back", "kept_of", "read_tower", "stand_in"]


@dataclass(frozen=True)
class Slot:
    """Names of what is kept in the place of pixels, in rows of the cache and in batches.

    Attributes:
        pixels: the argument of `forward` whose place it takes.
        method: of the model, that reads the tower with it.
        features: what was kept of the tower, in the order in which the model reads it.
        reads: [rows, bytes] uint8, the names of what was read, as JSON.
        tiles: the first dimensions of the pixels, 1 where there is a picture.
        tail: [rows, dims] long, the last dimensions of the pixels.
    """

    pixels: str
    method: str
    features: tuple[str, ...]
    reads: str
    tiles: str
    tail: str

    @classmethod
    def named(cls, prefix: str, pixels: str, method: str) -> Slot:
        """Return the slot whose keys begin with a word."""
        features = tuple(f"{prefix}_{number}" for number in range(12))
        return cls(pixels, method, features, f"{prefix}_reads", f"{prefix}_tiles", f"{prefix}_tail")

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys."""
        return (*self.features, self.reads, self.tiles, self.tail)


IMAGES = Slot.named("tower", "pixel_values", "get_image_features")
VIDEOS = Slot.named("tower_video", "pixel_values_videos", "get_video_features")
SLOTS = (IMAGES, VIDEOS)

_MERGERS = ("merger", "deepstack_merger_list")


class _Enough(Exception):  # noqa: N818
    """The tower was read; what follows is the projector's."""


class _Watched:
    """An output that notes what is read of it."""

    def __init__(self, output: Any, reads: dict[str, Tensor], name: str = "") -> None:
        self.__dict__.update(_output=output, _reads=reads, _name=name)

    def __getattr__(self, name: str) -> Any:
        return self._noted(name, getattr(self.__dict__["_output"], name))

    def __getitem__(self, place: Any) -> Any:
        return self._noted(str(place), self.__dict__["_output"][place])

    def __len__(self) -> int:
        return len(self.__dict__["_output"])

    def _noted(self, name: str, value: Any) -> Any:
        path = f"{self._name}.{name}" if self._name else name
        if isinstance(value, Tensor):
            self._reads[path] = value
        elif isinstance(value, list | tuple):
            return _Watched(value, self._reads, path)
        return value


class _Kept:
    """An output that holds what was read of the real one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(_values=dict(values))

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__["_values"]
        if name in values:
            return values[name]
        below = {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}
        if not below:
            raise AttributeError(name)
        return _Kept(below)

    def __getitem__(self, place: Any) -> Any:
        return self.__dict__["_values"][str(place)]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values, as outputs of transformers do."""
        return tuple(self.__dict__["_values"].values())


def read_tower(model: PreTrainedModel, inputs: Mapping[str, Any], slot: Slot = IMAGES) -> dict[str, Tensor]:
    """Return what the model reads of its tower, by name, for pictures or videos as its processor gives them.

    Args:
        model: of transformers; may be on the meta device.
        inputs: with the slot's pixels, and what else its method takes.
        slot: of pictures, or of videos where they have a name of their own.

    Raises:
        RecipeError: the model has no tower that can be told from its projector.
    """
    reads: dict[str, Tensor] = {}
    if not hasattr(model, slot.method):
        raise _refused(model, f"no {slot.method}")
    known = inspect.signature(getattr(type(model), slot.method)).parameters
    given = {name: value for name, value in inputs.items() if name in known}
    with ExitStack() as stack:
        if inner_projectors(model):
            stack.enter_context(_mergers_watched(model, reads))
        else:
            stack.enter_context(_output_watched(model, reads))
        with suppress(_Enough):
            getattr(model, slot.method)(**given)
    if not reads or len(reads) > len(slot.features):
        raise _refused(model, f"{len(reads)} tensors are read of the vision tower")
    return reads


@contextmanager
def _output_watched(model: PreTrainedModel, reads: dict[str, Tensor]) -> Iterator[None]:
    tower, projector = vision_tower(model), find_groups(model).get("projector")
    if tower is model or projector is None:
        raise _refused(model, "no vision tower, or no projector behind it")
    forward = tower.forward

    def stop(*_: Any) -> None:
        raise _Enough

    modules = dict(model.named_modules())
    parts = [modules[name] for name in (p.removesuffix(".*") for p in projector.patterns) if name in modules]
    handles = [part.register_forward_pre_hook(stop) for part in parts]
    try:
        with _instead(tower, lambda *given, **named: _Watched(forward(*given, **named), reads)):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _mergers_watched(model: PreTrainedModel, reads: dict[str, Tensor]) -> Iterator[None]:
    mergers = _mergers(model)

    def taken(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        reads[f"merger {len(reads)}"] = hidden
        if len(reads) == len(mergers):
            raise _Enough
        return hidden

    with ExitStack() as stack:
        for merger in mergers:
            stack.enter_context(_instead(merger, taken))
        yield


@contextmanager
def give_back(model: PreTrainedModel, kept: Mapping[Slot, Mapping[str, Tensor]]) -> Iterator[None]:
    """Let a model's tower give what was kept of it, while this lasts.

    Args:
        model: of transformers.
        kept: what `read_tower` returned, of all pictures of a batch, and of all its videos.

    Raises:
        RecipeError: the model has no such tower.
    """
    dtype = next(vision_tower(model).parameters()).dtype
    values = {slot: {name: value.to(dtype) for name, value in given.items()} for slot, given in kept.items()}
    asked = [IMAGES]  # the slot that the tower is asked for, last

    with ExitStack() as stack:
        if VIDEOS in values:
            for module in model.modules():
                if hasattr(module, VIDEOS.method):
                    stack.enter_context(_noting(module, VIDEOS, asked))
        if not inner_projectors(model):
            stack.enter_context(_instead(vision_tower(model), lambda *_, **__: _Kept(values[asked[-1]])))
        else:
            blanks = {slot: _blank(next(iter(given.values()))) for slot, given in values.items()}
            queues = {slot: iter(given.values()) for slot, given in values.items()}
            tower = vision_tower(model)
            stack.enter_context(_instead(tower.patch_embed, lambda *_, **__: blanks[asked[-1]]))
            for block in tower.blocks:
                stack.enter_context(_instead(block, lambda hidden, *_, **__: hidden))
            for merger in _mergers(model):
                stack.enter_context(_instead(merger, _given(merger.forward, lambda: next(queues[asked[-1]]))))
        yield


@contextmanager
def _noting(module: nn.Module, slot: Slot, asked: list[Slot]) -> Iterator[None]:
    """Let a method of a module say that the tower is asked for a slot, while it runs."""
    own = getattr(module, slot.method)

    def noted(*given: Any, **named: Any) -> Any:
        asked.append(slot)
        try:
            return own(*given, **named)
        finally:
            asked.pop()

    setattr(module, slot.method, noted)
    try:
        yield
    finally:
        delattr(module, slot.method)


def _blank(like: Tensor) -> Tensor:
    return like.new_zeros(1).expand(like.shape)


def _given(forward: Callable[..., Tensor], following: Callable[[], Tensor]) -> Callable[..., Tensor]:
    """Return a merger that takes the next of what was kept."""
    return lambda hidden, *given, **named: forward(following(), *given, **named)


def _mergers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the projectors inside of a tower; they are called once a pass.

    Raises:
        RecipeError: the tower is of another kind than Qwen-VL's.
    """
    tower, inner = vision_tower(model), inner_projectors(model)
    known = all(name in _MERGERS for name in inner) and hasattr(tower, "patch_embed") and hasattr(tower, "blocks")
    if not known:
        raise _refused(model, f"a tower with {', '.join(inner)} inside")
    parts = [tower.get_submodule(name) for name in inner]
    return [one for part in parts for one in (part if isinstance(part, nn.ModuleList) else [part])]


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module do something else, while this lasts."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _refused(model: PreTrainedModel, got: str) -> RecipeError:
    return RecipeError(
        f"{type(model).__name__}: what its vision tower gives cannot be kept",
        got=got,
        fix="Leave `cache` out of the stage.",
    )


def kept_of(reads: Mapping[str, Tensor], slot: Slot) -> dict[str, Tensor]:
    """Return what was read of the tower by the names that the cache keeps it under."""
    names = torch.tensor(list(json.dumps(list(reads)).encode()), dtype=torch.uint8)
    return {**dict(zip(slot.features, reads.values(), strict=False)), slot.reads: names}


def stand_in(batch: Mapping[str, Any], dtype: torch.dtype) -> tuple[dict[str, Any], dict[Slot, dict[str, Tensor]]]:
    """Return the batch that `forward` takes, with stand-ins for pixels, and what was kept of the tower by name.

    Args:
        batch: with the keys of one slot or of both.
        dtype: of pixels.
    """
    beside = {key for slot in SLOTS for key in slot.keys}
    rest = {name: value for name, value in batch.items() if name not in beside}
    kept = {}
    for slot in SLOTS:
        if slot.tiles not in batch:
            continue
        names: Sequence[str] = json.loads(bytes(batch[slot.reads][0].tolist()))
        kept[slot] = {name: batch[key] for name, key in zip(names, slot.features, strict=False)}
        tiles, tail = batch[slot.tiles], batch[slot.tail][0].tolist()
        rest[slot.pixels] = tiles.to(dtype).reshape(*tiles.shape, *[1] * len(tail)).expand(*tiles.shape, *tail)
    return rest, kept
