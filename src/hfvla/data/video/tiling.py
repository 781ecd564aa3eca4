"""How many tiles each frame may be cut into when all frames together may cost only so many visual tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hfvla.errors import DataError

__all__ = ["TileGrid", "TilePlan", "closest_grid", "plan_tiles"]


@dataclass(frozen=True)
class TileGrid:
    """A frame cut into columns x rows square tiles, with a thumbnail of the whole beside more than one."""

    columns: int
    rows: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """How many squares the vision tower sees."""
        return self.columns * self.rows + int(self.thumbnail)


@dataclass(frozen=True)
class TilePlan:
    """Tiles of each frame under a budget.

    Attributes:
        max_tiles: the image processor's upper bound, one a frame (without the thumbnail).
        grids: the grid it leads to, one a frame.
        tokens: visual tokens of all frames together.
    """

    max_tiles: tuple[int, ...]
    grids: tuple[TileGrid, ...]
    tokens: int


@lru_cache(maxsize=4096)
def closest_grid(
    width: int, height: int, max_tiles: int, *, min_tiles: int = 1, tile_px: int = 448, thumbnail: bool = True
) -> TileGrid:
    """Return the grid whose shape is nearest to the frame's.

    Between equally near grids the larger one wins when the frame fills more than half of its pixels.

    Source: InternVL's dynamic preprocessing, as in transformers' `get_optimal_tiled_canvas`.

    Raises:
        DataError: a size or a bound is below 1, or min_tiles > max_tiles.
    """
    if min(width, height, tile_px) < 1 or not 1 <= min_tiles <= max_tiles:
        raise DataError(
            "no such tiling",
            got={"size": (width, height), "tile_px": tile_px, "tiles": (min_tiles, max_tiles)},
            expected="sizes >= 1 and 1 <= min_tiles <= max_tiles",
        )
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles + 1)
        if min_tiles <= columns * rows <= max_tiles
    ]
    best, best_gap = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        gap = abs(width / height - columns / rows)
        if gap < best_gap:
            best, best_gap = (columns, rows), gap
        elif gap == best_gap and width * height > 0.5 * tile_px * tile_px * columns * rows:
            best = (columns, rows)
    return TileGrid(*best, thumbnail=thumbnail and best != (1, 1))


def plan_tiles(
    sizes: Sequence[tuple[int, int]],
    token_budget: int,
    *,
    max_tiles: int = 6,
    tokens_per_tile: int = 256,
    tile_px: int = 448,
    thumbnail: bool = True,
    favour: Iterable[int] = (),
) -> TilePlan:
    """Choose the finest tiling that keeps all frames together within a token budget.

    All frames get the same largest bound that fits; what is left of the budget then refines the favoured frames, in
    the order given (the ones that support an answer, say).

    Args:
        sizes: (width, height) in pixels of each frame.
        token_budget: visual tokens that all frames may cost.
        max_tiles: most tiles a frame, without its thumbnail.
        tokens_per_tile: what the model spends on one tile.
        tile_px: side of a tile.
        thumbnail: whether a tiled frame also gets a thumbnail.
        favour: positions in `sizes` to refine first.

    Raises:
        DataError: no frame, an unknown position in `favour`, or the budget is below one tile a frame.
    """
    if not sizes:
        raise DataError("no frame to tile", got=list(sizes), expected="at least one (width, height)")

    def grid(position: int, bound: int) -> TileGrid:
        width, height = sizes[position]
        return closest_grid(width, height, bound, tile_px=tile_px, thumbnail=thumbnail)

    def cost(bounds: Sequence[int]) -> int:
        return tokens_per_tile * sum(grid(position, bound).tiles for position, bound in enumerate(bounds))

    bounds = next(
        ([bound] * len(sizes) for bound in range(max_tiles, 0, -1) if cost([bound] * len(sizes)) <= token_budget), None
    )
    if bounds is None:
        raise DataError(
            "frames do not fit the token budget",
            got=f"{token_budget} tokens",
            expected=f">= {cost([1] * len(sizes))} ({len(sizes)} frames x {tokens_per_tile})",
            fix="Read fewer frames or raise the budget.",
        )
    for position in favour:
        if not 0 <= position < len(sizes):
            raise DataError("no such frame to favour", got=position, expected=f"0 to {len(sizes) - 1}")
        for bound in range(max_tiles, bounds[position], -1):
            finer = [*bounds[:position], bound, *bounds[position + 1 :]]
            if cost(finer) <= token_budget:
                bounds = finer
                break
    return TilePlan(tuple(bounds), tuple(grid(i, bound) for i, bound in enumerate(bounds)), cost(bounds))
