"""Packing: several conversations in one sequence, each seeing only itself, so that little of a batch is padding.

A family that packs needs three things. Its collator has `token_lengths(rows) -> list[int]` (tokens of each row, those
of its pictures too, none decoded), so that the engine can choose what goes together. When it is called with rows of
`PackedRows` (`unpacked(rows)` tells), it encodes each sample alone and puts them together with `pack_batch`. Its model
is called without an attention mask and with `use_cache=False`, and with `position_ids` of
`hfvla.nn.packed_positions.packed_position_ids`.
"""

from hfvla.data.packing.batch import SEQUENCE_IDS, layout_for, pack_batch
from hfvla.data.packing.bins import PackingReport, pack, packing_report
from hfvla.data.packing.rows import PACK, PackedRows, unpacked

__all__ = [
    "PACK",
    "SEQUENCE_IDS",
    "PackedRows",
    "PackingReport",
    "layout_for",
    "pack",
    "pack_batch",
    "packing_report",
    "unpacked",
]
