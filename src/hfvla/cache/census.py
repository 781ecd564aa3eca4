"""What a build of the cache found and did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CacheCensus"]


@dataclass
class CacheCensus:
    """What a build found and did; counts are of all processes together.

    Attributes:
        cut: name of the cut.
        fingerprint: folder of the features.
        dtype: type they are kept in.
        views: augmented versions of each training sample.
        rows: rows that carry features.
        empty: rows that have nothing to encode.
        samples: different samples (and views) among them.
        hits: samples that were there.
        misses: samples that were encoded now.
        bytes: size of the fingerprint's files.
        seconds: time it took, hashing included.
    """

    cut: str
    fingerprint: str
    dtype: str
    views: int
    rows: int = 0
    empty: int = 0
    samples: int = 0
    hits: int = 0
    misses: int = 0
    bytes: int = 0
    seconds: float = 0.0
    bytes_per_sample: float = field(default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for stage.json."""
        return asdict(self)

    def text(self) -> str:
        """Return one line for the log."""
        return (
            f"feature cache '{self.cut}' ({self.dtype}): {self.samples:,} samples of {self.rows:,} rows, "
            f"{self.hits:,} hits, {self.misses:,} misses, {self.empty:,} rows without input, {self.bytes:,} bytes, "
            f"{self.seconds:.1f} s"
        )
