"""Averages of loss terms by source between two log lines, over accumulation steps and processes.

A mixture's loss can fall while one of its sources gets worse. A collator says where each sample comes from
(`hfvla.data.rows.group_ids.SOURCE_IDS`), a model whose forward takes that returns `row_losses`: by term, what each
sample sums up to and over how many ([2, S], `hfvla.losses.text.sums_by_row`). Models that do not are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.data.rows.group_ids import SOURCE_IDS, group_ids

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["SourceLog", "source_names"]


def source_names(dataset: Any) -> tuple[str, ...]:
    """Return the names in a dataset's column `source`, sorted; none where there is no such column.

    Args:
        dataset: a `datasets.Dataset`, a list of dicts, or something with such `rows` inside.
    """
    while not hasattr(dataset, "unique") and hasattr(dataset, "rows"):
        dataset = dataset.rows
    if hasattr(dataset, "unique") and not isinstance(dataset, Mapping):
        # One column alone: rows that were chosen would else be copied before they are looked at.
        known = "source" in dataset.column_names
        names = dataset.select_columns(["source"]).unique("source") if known else []
    elif isinstance(dataset, list | tuple):
        names = [row.get("source") for row in dataset if isinstance(row, Mapping)]
    else:
        names = []
    return tuple(sorted({str(name) for name in names if name}))


class SourceLog:
    """Sums the loss terms of each source.

    Args:
        sources: names of the sources; with less than two there is nothing to tell apart.
        terms: loss terms, the same on every process.
    """

    def __init__(self, sources: Sequence[str], terms: Sequence[str]) -> None:
        self.sources, self.terms = tuple(sources) if len(sources) > 1 else (), tuple(terms)
        self._ids = torch.tensor(group_ids(self.sources), dtype=torch.long)
        self._sums = torch.zeros(2, len(self.terms), len(self.sources))

    def add(self, outputs: Any, batch: Mapping[str, Any]) -> None:
        """Add one batch without waiting for the device; nothing where model or batch do not tell sources apart."""
        rows = outputs.get("row_losses") if hasattr(outputs, "get") else getattr(outputs, "row_losses", None)
        ids = batch.get(SOURCE_IDS)
        if not self.sources or not rows or ids is None:
            return
        self._ids, self._sums = self._ids.to(ids.device), self._sums.to(ids.device)
        own = (ids[:, None] == self._ids).to(self._sums.dtype)  # [S, sources]
        for number, term in enumerate(self.terms):
            if term in rows:
                found: Tensor = rows[term].detach().to(own)  # [2, S]
                found = torch.where(found[:1].isfinite(), found, 0.0)
                self._sums[:, number] += found @ own

    def averages(self, accelerator: Accelerator) -> dict[str, float]:
        """Return "term/source": average over all processes since the last call; every process must call it."""
        if not self.sources:
            return {}
        totals = accelerator.reduce(self._sums.to(accelerator.device), reduction="sum").tolist()
        self._sums = torch.zeros_like(self._sums)
        sums, counts = totals
        return {
            f"{term}/{source}": sums[number][place] / counts[number][place]
            for number, term in enumerate(self.terms)
            for place, source in enumerate(self.sources)
            if counts[number][place] > 0
        }

    def state(self) -> dict[str, Any]:
        """Return what was added since the last call of `averages`, as JSON."""
        return {"sources": list(self.sources), "terms": list(self.terms), "sums": self._sums.tolist()}

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Bring back what `state` returned, where it is of the same sources and terms."""
        if state and tuple(state["sources"]) == self.sources and tuple(state["terms"]) == self.terms:
            self._sums = torch.tensor(state["sums"]).reshape(self._sums.shape)
