"""Running the frozen prefix over samples, in batches that do not depend on who computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfvla.cache.content import view_key
from hfvla.cache.cut import prefix_names
from hfvla.cache.store import ShardWriter
from hfvla.data.rows.epoch import AUGMENTATION_SEED, row_seed
from hfvla.errors import DataError
from hfvla.family import CutContext, FeatureCut, ParameterGroup

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SHARD_BYTES", "Encoder", "Item"]

SHARD_BYTES = 64 * 2**20
"""Features a shard holds at least; what a build cut short has to compute again at most."""


@dataclass(frozen=True)
class Item:
    """One sample to encode.

    Attributes:
        key: key of its content.
        rows: rows it is in.
        index: its number there.
        view: augmented version, None for the sample as it is.
    """

    key: str
    rows: Any
    index: int
    view: int | None


@dataclass(frozen=True)
class Encoder:
    """Encodes samples with the prefix of a model.

    Attributes:
        name: the cut's name.
        cut: the cut.
        model: the model.
        groups: the family's parameter groups.
        context: processor, config and losses.
        dtype: type that features are kept in.
        seed: of augmented views.
        batch_size: samples encoded at a time.
        workers: processes that prepare them.
        autocast: type the prefix computes in, where training uses one.
    """

    name: str
    cut: FeatureCut
    model: nn.Module
    groups: Mapping[str, ParameterGroup]
    context: CutContext
    dtype: str
    seed: int
    batch_size: int
    workers: int
    autocast: Any | None

    def encode(self, missing: Sequence[Item], state: Any, writer: ShardWriter) -> None:
        """Encode and write this process' share; a batch is the same in any process, and after an interruption.

        Args:
            missing: samples of all processes, in the same order everywhere.
            state: accelerate's `PartialState`.
            writer: where features go.

        Raises:
            DataError: a sample cannot be prepared, or its features do not fit the type they are kept in.
        """
        import torch

        size = self.batch_size
        blocks = [missing[start : start + size] for start in range(0, len(missing), size)]
        mine = blocks[state.process_index :: state.num_processes]
        loader: Any = torch.utils.data.DataLoader(
            _Prepared(self.cut, self.context, self.seed, mine),
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),  # the global stream belongs to training
        )
        with self._ready(state.device):
            for block, batch in zip(mine, loader, strict=True):
                writer.write(self._records(block, batch, state.device))
        writer.close_shard()

    def _records(self, block: Sequence[Item], batch: Mapping[str, Any], device: Any) -> list[tuple[str, Any]]:
        import torch

        moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
        mixed: Any = contextlib.nullcontext()
        if self.autocast is not None:
            mixed = torch.autocast(torch.device(device).type, dtype=self.autocast)
        with torch.no_grad(), mixed:
            found = self.cut.load("encode")(self.model, moved)
        if len(found) != len(block):
            raise DataError(
                f"the encode of cut '{self.name}' returned another number of samples than it was given",
                got=len(found),
                expected=len(block),
            )
        return [
            (view_key(item.key, item.view), {name: self._kept(name, value, item) for name, value in features.items()})
            for item, features in zip(block, found, strict=True)
        ]

    def _kept(self, name: str, value: Tensor, item: Item) -> Tensor:
        """Return a tensor in the type it is kept in; whole numbers and truth values stay as they are."""
        import torch

        if not value.is_floating_point():
            return value.cpu()
        kept = value.to(getattr(torch, self.dtype)).cpu()
        if not torch.isfinite(kept).all():
            raise DataError(
                f"'{name}' does not fit {self.dtype}",
                where=f"row {item.rows[item.index].get('id', item.index)}",
                got=f"largest value {value.abs().max().item():.3g}",
                fix="Set cache.dtype to bfloat16 or float32.",
            )
        return kept

    @contextlib.contextmanager
    def _ready(self, device: Any) -> Iterator[None]:
        """Put the prefix on a device, in evaluation mode; leave the model as it was."""
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        prefix = [tensors[name] for name in prefix_names(tensors, self.cut, self.groups)]
        devices = [tensor.device for tensor in prefix]
        modes = [(part, part.training) for part in self.model.modules()]
        self.model.eval()
        for tensor in prefix:
            tensor.data = tensor.data.to(device)
        try:
            yield
        finally:
            for tensor, old in zip(prefix, devices, strict=True):
                tensor.data = tensor.data.to(old)
            for part, mode in modes:
                part.training = mode


class _Prepared:
    """Batches ready for `encode`, prepared by the workers of a data loader."""

    def __init__(self, cut: FeatureCut, context: CutContext, seed: int, blocks: Sequence[Sequence[Item]]) -> None:
        self.cut, self.context, self.seed, self.blocks = cut, context, seed, blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> Any:
        return self.cut.load("prepare")(self.context, [self._row(item) for item in self.blocks[number]])

    def _row(self, item: Item) -> dict[str, Any]:
        """Return a row that says how it is augmented: a view by what the sample is, not by where it stands."""
        row = {name: value for name, value in item.rows[item.index].items() if name != AUGMENTATION_SEED}
        if item.view is None:
            return row
        return {**row, AUGMENTATION_SEED: row_seed(self.seed, item.view, int(item.key[:15], 16))}
