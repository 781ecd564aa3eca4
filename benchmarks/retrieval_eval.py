"""Retrieval recalls at the size of GeoText-1652: `python benchmarks/retrieval_eval.py`.

54,000 images and 165,000 texts of 951 buildings, 256 synthetic dimensions: 8.9 billion scores. Both directions come
from one pass. It is timed in turns with the bare product in pieces (of whatever size is fastest here), so that both
see the same load of the machine. Ranks of 500 queries are held against brute force in float64. The loop that sorts
every row is timed on the same 500 queries and extrapolated, twice: mapping sorted items to buildings one by one, as
published evaluation code does it, and in one step. Its scores are given to it for free. Seed 0; the numbers belong to
the hardware: the product uses every core that torch may, the loop one.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, cores, cpu_name, write_result
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hfvla.metrics import retrieval
from hfvla.metrics.retrieval import RetrievalRanks, chance_recalls, first_hit_ranks, merge_ranks, recalls

CHUNKS = ((510, 2040), (1024, 4096), (2048, 16384))
NAMES = ("clock", "processor")
GOALS = {"ratio": 1.5, "peak_gib": 4.0, "speed_up": 30.0}


def build(
    images: int, texts: int, width: int, groups: int, seed: int
) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Return normalised features around one centre a building, so that recalls are neither 0 nor 1, and groups."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, width, generator=generator)
    sides, codes = [], []
    for count in (images, texts):
        code = torch.randint(groups, (count,), generator=generator)
        side = torch.randn(count, width, generator=generator).mul_(3.2).add_(centres[code])
        sides.append(F.normalize(side, dim=-1))
        codes.append(code.numpy())
    return sides[0], sides[1], codes[0], codes[1]


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of a call by the clock and by processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


class Product:
    """The bare product of some images and all texts, in chunks that are written over each other."""

    def __init__(self, images: Tensor, texts: Tensor, chunk: tuple[int, int]) -> None:
        self.images, self.texts, self.chunk = images, texts, chunk
        self.out = torch.empty(chunk[0] * chunk[1])

    def __call__(self, rows: slice) -> None:
        """Multiply."""
        for row in range(rows.start, rows.stop, self.chunk[0]):
            left = self.images[row : min(row + self.chunk[0], rows.stop)]
            for column in range(0, len(self.texts), self.chunk[1]):
                right = self.texts[column : column + self.chunk[1]]
                torch.mm(left, right.T, out=self.out[: len(left) * len(right)].view(len(left), len(right)))


def fastest_product(images: Tensor, texts: Tensor, rows: int) -> Product:
    """Return the bare product with the chunk that is fastest on this machine."""
    products = [Product(images, texts, chunk) for chunk in CHUNKS]
    seconds = [
        min(timed(lambda product=product: product(slice(0, rows)))[1] for _ in range(2)) for product in products
    ]
    return products[int(np.argmin(seconds))]


def measure(
    images: Tensor, texts: Tensor, image_groups: np.ndarray, text_groups: np.ndarray, turns: int
) -> tuple[RetrievalRanks, dict]:
    """Take ranks in `turns` shards, each in turn with the bare product of as many images; return ranks and times."""
    rows = -(-len(images) // turns)
    product = fastest_product(images, texts, min(2048, rows))
    # What every shard does once: sort by group and score the hits. A shard of nothing does only that.
    once = min(
        timed(lambda: first_hit_ranks(images, texts, image_groups, text_groups, shard=(10**9, 10**9 + 1)))
        for _ in range(2)
    )
    parts, ours, bare = [], [], []
    for turn in range(turns):
        part = slice(turn * rows, min((turn + 1) * rows, len(images)))

        bare.append(timed(partial(product, part)))
        # The hits of a text may be in any piece, so a piece of the images is a shard and not a smaller problem.
        shard = partial(first_hit_ranks, images, texts, image_groups, text_groups, shard=(turn, turns))
        ours.append(timed(lambda shard=shard: parts.append(shard())))
    facts: dict = {"chunk": list(product.chunk), "turns": turns}
    for kind, name in enumerate(NAMES):
        net = [max(mine[kind] - once[kind], 0.0) for mine in ours]
        total, base = once[kind] + sum(net), sum(seconds[kind] for seconds in bare)
        facts[name] = {
            "seconds": total,
            "product_seconds": base,
            "ratio": total / base,
            "median_turn": statistics.median(mine / his[kind] for mine, his in zip(net, bare, strict=True)),
            "once_seconds": once[kind],
        }
    return merge_ranks(parts), facts


def sort_rows(scores: np.ndarray, own: np.ndarray, items: np.ndarray, one_by_one: bool) -> None:
    """Sort each row and find the first item of its building."""
    listed = items.tolist()
    for row, group in zip(scores, own.tolist(), strict=True):
        order = np.argsort(row)[::-1]
        groups = np.array([listed[item] for item in order]) if one_by_one else items[order]
        np.where(groups == group)[0][:1]


def check(
    sides: tuple[Tensor, Tensor], groups: tuple[np.ndarray, np.ndarray], ranks: RetrievalRanks, sample: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Hold ranks against brute force in float64, and time the sorting loops, on some queries of each direction."""
    draw = np.random.default_rng(0)
    found, expected, right = {}, {}, 0
    loops = {"one by one": np.zeros(2), "in one step": np.zeros(2)}
    largest = 0
    for name, query, item, rank in (("t2i", 1, 0, ranks.t2i), ("i2t", 0, 1, ranks.i2t)):
        chosen = draw.choice(len(sides[query]), sample // 2, replace=False)
        scores = (sides[query][chosen].double() @ sides[item].double().T).numpy()
        same = groups[query][chosen][:, None] == groups[item][None, :]
        best = np.where(same, scores, -np.inf).max(1, keepdims=True)
        truth = ((scores >= best - 1e-6) & ~same).sum(1)
        right += int((truth == rank[chosen]).sum())
        largest = max(largest, int(np.abs(truth - rank[chosen]).max()))
        found |= {f"{name}_r{k}": float((rank[chosen] < k).mean()) for k in retrieval.CUTOFFS}
        expected |= {f"{name}_r{k}": float((truth < k).mean()) for k in retrieval.CUTOFFS}
        plain = scores.astype(np.float32)
        for kind in loops:
            run = partial(sort_rows, plain, groups[query][chosen], groups[item], kind == "one by one")
            loops[kind] += np.array(timed(run)) * len(sides[query]) / len(chosen)
    facts = {"queries": sample, "equal_ranks": right, "largest_difference": largest}
    return facts | {"recalls_equal": found == expected, "recalls": expected}, loops


def show(result: dict) -> None:
    """Print the table."""
    table = Table(title="recalls both ways at the size of GeoText-1652")
    for heading in ("", "by clock", "by processor time"):
        table.add_column(heading, justify="right" if heading else "left")
    times = [result["time"][name] for name in NAMES]
    table.add_row("both directions, one pass", *(f"{entry['seconds']:.1f} s" for entry in times))
    table.add_row("bare product, same pieces", *(f"{entry['product_seconds']:.1f} s" for entry in times))
    table.add_row("ratio", *(f"{entry['ratio']:.3f}" for entry in times))
    for kind, entry in result["loops"].items():
        table.add_row(f"sorting loop, buildings {kind}", *(f"{entry[name]:.0f} s" for name in NAMES))
        table.add_row("  times slower", *(f"{entry[name] / result['time'][name]['seconds']:.1f}" for name in NAMES))
    table.add_row("peak memory", f"{result['peak_gib']:.2f} GiB", "")
    console = Console(width=110)
    console.print(table)
    exact = result["sample"]
    console.print(
        f"{exact['equal_ranks']} of {exact['queries']} ranks equal brute force in float64 (largest difference "
        f"{exact['largest_difference']}); recalls of the sample {'equal' if exact['recalls_equal'] else 'DIFFER'}"
    )
    scores, chance = result["recalls"], result["chance"]
    console.print("  ".join(f"{name} {value:.3f} (chance {chance[name]:.3f})" for name, value in scores.items()))
    console.print(
        f"goals: ratio at most {GOALS['ratio']}, peak under {GOALS['peak_gib']} GiB, at least "
        f"{GOALS['speed_up']:.0f} times faster than the loop"
    )


def main() -> None:
    """Measure, check, print and write."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--images", type=int, default=54_000)
    parser.add_argument("--texts", type=int, default=165_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--groups", type=int, default=951)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--sample", type=int, default=500)
    args = parser.parse_args()
    images, texts, image_groups, text_groups = build(args.images, args.texts, args.width, args.groups, seed=0)
    ranks, times = measure(images, texts, image_groups, text_groups, args.turns)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    sample, loops = check((images, texts), (image_groups, text_groups), ranks, args.sample)
    result = {
        "hardware": {
            "cpu": cpu_name(),
            "cores": cores(),
            "threads": torch.get_num_threads(),
        },
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "settings": {key: value for key, value in vars(args).items() if key != "output"},
        "time": times,
        "loops": {kind: dict(zip(NAMES, found.tolist(), strict=True)) for kind, found in loops.items()},
        "peak_gib": peak,
        "sample": sample,
        "recalls": recalls(ranks),
        "chance": chance_recalls(image_groups, text_groups),
    }
    show(result)
    write_result(args.output, result)


if __name__ == "__main__":
    main()
