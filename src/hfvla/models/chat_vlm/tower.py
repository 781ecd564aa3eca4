"""What a frozen vision tower gives, kept once and given back in its place.

Two kinds of models, told by their structure:

- the projector stands behind the tower (LLaVA, InternVL, Gemma, SmolVLM): kept is what the model reads of the tower's
  output, and an output that holds just that is given back;
- projectors stand inside of it (Qwen-VL's mergers): kept is what goes into each of them; then blocks do nothing, and
  mergers take what was kept.

The model's own code does all the rest: choosing layers, shuffling pixels, packing tiles. What is not needed, pixels
above all, is a stand-in of the same shape.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import RecipeError
from hfvla.models.chat_vlm.architectures import find_groups, inner_projectors, vision_tower

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FEATURES", "READS", "TAIL", "TILES", "give_back", "read_tower", "stand_in"]

FEATURES = tuple(f"tower_{number}" for number in range(12))
"""Keys of a batch: what was kept of the tower, in the order in which the model reads it."""

READS = "tower_reads"
"""Key of a batch: [rows, bytes] uint8, the names of what was read, as JSON."""

TILES = "tower_tiles"
"""Key of a batch: the first dimensions of `pixel_values`, 1 where there is a picture."""

TAIL = "tower_tail"
"""Key of a batch: [rows, dims] long, the last dimensions of `pixel_values`."""

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


def read_tower(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what the model reads of its tower, by name, for pictures as its processor gives them.

    Args:
        model: of transformers; may be on the meta device.
        inputs: with `pixel_values`, and what else `get_image_features` takes.

    Raises:
        RecipeError: the model has no tower that can be told from its projector.
    """
    reads: dict[str, Tensor] = {}
    if not hasattr(model, "get_image_features"):
        raise _refused(model, "no get_image_features")
    known = inspect.signature(type(model).get_image_features).parameters
    given = {name: value for name, value in inputs.items() if name in known}
    with ExitStack() as stack:
        if inner_projectors(model):
            stack.enter_context(_mergers_watched(model, reads))
        else:
            stack.enter_context(_output_watched(model, reads))
        with suppress(_Enough):
            model.get_image_features(**given)
    if not reads or len(reads) > len(FEATURES):
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
def give_back(model: PreTrainedModel, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a model's tower give what was kept of it, while this lasts.

    Args:
        model: of transformers.
        kept: what `read_tower` returned, of all pictures of a batch.

    Raises:
        RecipeError: the model has no such tower.
    """
    dtype = next(vision_tower(model).parameters()).dtype
    values = {name: value.to(dtype) for name, value in kept.items()}
    with ExitStack() as stack:
        if not inner_projectors(model):
            stack.enter_context(_instead(vision_tower(model), lambda *_, **__: _Kept(values)))
        else:
            tower, first = vision_tower(model), next(iter(values.values()))
            blank = first.new_zeros(1).expand(first.shape)
            stack.enter_context(_instead(tower.patch_embed, lambda *_, **__: blank))
            for block in tower.blocks:
                stack.enter_context(_instead(block, lambda hidden, *_, **__: hidden))
            queue = iter(values.values())
            for merger in _mergers(model):
                stack.enter_context(_instead(merger, _given(merger.forward, queue)))
        yield


def _given(forward: Callable[..., Tensor], queue: Iterator[Tensor]) -> Callable[..., Tensor]:
    """Return a merger that takes the next of what was kept."""
    return lambda hidden, *given, **named: forward(next(queue), *given, **named)


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


def stand_in(batch: Mapping[str, Any], dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the batch that `forward` takes, with a stand-in for pixels, and what was kept of the tower by name.

    Args:
        batch: with `TILES`, `TAIL`, `READS` and `FEATURES`.
        dtype: of pixels.
    """
    rest = {name: value for name, value in batch.items() if name not in (TILES, TAIL, READS, *FEATURES)}
    names: Sequence[str] = json.loads(bytes(batch[READS][0].tolist()))
    kept = {name: batch[key] for name, key in zip(names, FEATURES, strict=False)}
    tiles, tail = batch[TILES], batch[TAIL][0].tolist()
    rest["pixel_values"] = tiles.to(dtype).reshape(*tiles.shape, *[1] * len(tail)).expand(*tiles.shape, *tail)
    return rest, kept
