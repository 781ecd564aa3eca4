"""Building a cache: what is missing is encoded, each process its share; then all processes read everything."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.cache import encoding
from hfvla.cache.census import CacheCensus
from hfvla.cache.content import sample_keys, view_key
from hfvla.cache.encoding import Encoder, Item
from hfvla.cache.fingerprint import build_fingerprint
from hfvla.cache.rows import CachedRows
from hfvla.cache.store import FeatureStore, ShardWriter
from hfvla.data.processes import Processes
from hfvla.errors import DataError, RecipeError
from hfvla.family import CutContext, FamilySpec

if TYPE_CHECKING:
    from torch import nn
    from transformers import ProcessorMixin

    from hfvla.recipe import CacheRecipe

__all__ = ["FeatureCache", "Split"]

_KEYS_AT_A_TIME = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Rows of one use.

    Attributes:
        rows: map-style rows.
        training: they are augmented, where the family augments.
    """

    rows: Any
    training: bool = True


class FeatureCache:
    """The cache of one cut of one model.

    Args:
        spec: the family.
        name: the cut's name.
        model: the model; its prefix must not change while the features are used.
        processor: the model's processor.
        settings: the recipe's `cache`.
        folder: folder of all caches.
        state: accelerate's `PartialState`.
        losses: the stage's loss terms.
        seed: of the augmented views.
        revision: of the checkpoint that the model came from.
        batch_size: samples encoded at a time.
        workers: processes that prepare them.
        autocast: type the prefix computes in, where training uses one.

    Raises:
        RecipeError: the family augments this input and `views` is 1, or the reverse.
    """

    def __init__(
        self,
        spec: FamilySpec,
        name: str,
        model: nn.Module,
        processor: ProcessorMixin,
        settings: CacheRecipe,
        folder: Path,
        state: Any,
        *,
        losses: Sequence[str] = (),
        seed: int = 0,
        revision: str | None = None,
        batch_size: int = 8,
        workers: int = 0,
        autocast: Any | None = None,
    ) -> None:
        self.spec, self.name, self.cut = spec, name, spec.feature_cuts[name]
        self.settings, self.state, self.seed = settings, state, seed
        self.context = CutContext(processor, model.config, tuple(losses) if self.cut.uses_losses else ())
        self.encoder = Encoder(
            name, self.cut, model, spec.groups, self.context, settings.dtype, seed, batch_size, workers, autocast
        )
        self._check_views()
        extra: dict[str, Any] = {"dtype": settings.dtype, "views": settings.views, "revision": revision}
        extra["compute"] = str(autocast) if autocast is not None else "as the weights"
        if settings.views > 1:
            extra["seed"] = seed
        fingerprint = build_fingerprint(spec.name, name, self.cut, model, spec.groups, self.context, extra)
        self.store = FeatureStore(folder, fingerprint)

    def _check_views(self) -> None:
        augments = self.cut.has("augments") and bool(self.cut.load("augments")(self.context))
        if augments and self.settings.views == 1:
            raise RecipeError(
                f"the cache would keep one version of inputs that are augmented (cut '{self.name}')",
                got="cache.views: 1",
                fix="Set cache.views above 1 (so many versions are kept and drawn from), or switch augmentation off.",
            )
        if not augments and self.settings.views > 1:
            raise RecipeError(
                f"nothing augments the inputs of cut '{self.name}': all views would be the same",
                got=f"cache.views: {self.settings.views}",
                expected="1",
            )

    def build(self, splits: Mapping[str, Split]) -> tuple[dict[str, CachedRows], CacheCensus]:
        """Encode what is missing and return the rows of each split with their features.

        Every process must call it, with the same rows; each encodes its share of the batches.

        Raises:
            DataError: a sample cannot be prepared, or its features do not fit the type they are kept in.
            HfvlaError: the folder cannot be written.
        """
        started = time.perf_counter()
        if self.state.is_main_process:
            self.store.create()
        self.state.wait_for_everyone()
        self.store.load()
        keys = {name: self._keys(split.rows) for name, split in splits.items()}
        wanted = self._wanted(splits, keys)
        missing = [item for key, item in wanted.items() if key not in self.store]
        self.state.wait_for_everyone()  # all know what is missing before any adds to it
        if missing:
            logger.info("feature cache '%s': encoding %d samples", self.name, len(missing))
            self.encoder.encode(missing, self.state, ShardWriter(self.store.folder, encoding.SHARD_BYTES))
            self.state.wait_for_everyone()
            self.store.load()
        absent = [item for key, item in wanted.items() if key not in self.store]
        if absent:
            raise DataError("features are missing after building the cache", where=str(self.store.folder),
                            got=f"{len(absent)} samples, first row {absent[0].index}",
                            fix="All processes need the same folder; set cache.folder to a shared one.")  # fmt: skip
        rows = {name: self._attached(split, keys[name]) for name, split in splits.items()}
        census = self._census(keys, len(wanted), len(missing))
        census.seconds = time.perf_counter() - started
        self.store.forget_keys()
        logger.info("%s", census.text())
        return rows, census

    def _keys(self, rows: Any) -> list[str | None]:
        """Return the key of every row; processes share the reading of their content."""
        blocks = [
            range(start, min(start + _KEYS_AT_A_TIME, len(rows))) for start in range(0, len(rows), _KEYS_AT_A_TIME)
        ]
        parts = Processes.current().share(lambda block: sample_keys(rows, self.cut, self.context, block), blocks)
        return [key for part in parts for key in part]

    def _views(self, split: Split) -> list[int | None]:
        return list(range(self.settings.views)) if split.training and self.settings.views > 1 else [None]

    def _wanted(self, splits: Mapping[str, Split], keys: Mapping[str, list[str | None]]) -> dict[str, Item]:
        """Return one row to encode for each different sample and view, in the order of the rows."""
        wanted: dict[str, Item] = {}
        for name, split in splits.items():
            for index, key in enumerate(keys[name]):
                for view in self._views(split) if key is not None else ():
                    wanted.setdefault(view_key(str(key), view), Item(str(key), split.rows, index, view))
        return wanted

    def _attached(self, split: Split, keys: list[str | None]) -> CachedRows:
        views = self._views(split)
        positions = np.full((len(keys), len(views)), -1, dtype=np.int64)
        for index, key in enumerate(keys):
            if key is not None:
                positions[index] = [self.store.position(view_key(key, view)) for view in views]
        return CachedRows(split.rows, self.store, positions, self.seed)

    def _census(self, keys: Mapping[str, list[str | None]], samples: int, misses: int) -> CacheCensus:
        flat = [key for part in keys.values() for key in part]
        empty = sum(key is None for key in flat)
        size = self.store.stored_bytes()
        return CacheCensus(
            cut=self.name,
            fingerprint=self.store.fingerprint.value,
            dtype=self.settings.dtype,
            views=self.settings.views,
            rows=len(flat) - empty,
            empty=empty,
            samples=samples,
            hits=samples - misses,
            misses=misses,
            bytes=size,
            bytes_per_sample=size / max(len(self.store), 1),
        )
