"""Vision-language readers at size: index, memory, shuffled access, and pictures from files and from tars.

1. A LLaVA-like list of `--records` conversations in one JSON file. Measured in processes of their own: making the
   Arrow table (once, then it is found again), opening it and taking the first shuffled batch, rows a second in random
   order, memory (whole, and without the pages of mapped files, which the system takes back when it needs them); the
   first batch of the same file streamed; and against it `json.load` into a list, of `--baseline-records` records,
   because that list would not fit.
2. Pictures: rows of the reader, decoded and resized to 224 pixels by a plain DataLoader, against torchvision's loader
   and Resize behind the same DataLoader over a list; the pixels are compared first. Also with `draft_side`, which
   decodes JPEG at a smaller scale.
3. Tars: the reader's stream against the `webdataset` package, bytes alone and decoded.

4. With `--layout`, that alone: tables of `--records` rows, one batch written again and again, in batches of a hundred
   rows (as `datasets.arrow_writer` writes them) and of four thousand (as the reader does); memory once they are open,
   and after 19,200 rows in random order. Some minutes for five million.

Pairs take turns in one process; a ratio is that of processor time in one round, the median of all rounds is given.

Run:  python benchmarks/reader_scale.py --records 5000000        # some ten minutes on one core, 6 GB of disk
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import arguments, versions, write_result
from PIL import Image
from rich.console import Console
from rich.table import Table

BATCH, SIDE, PICTURES = 64, 224, 1000
MOST_MEMORY_GB, GOAL = 2.0, 1.0
SIZES = ("records", "baseline_records", "pictures", "pairs", "rounds")


def encoded_pictures(count: int, seed: int) -> list[bytes]:
    """Return JPEGs of 640 x 480 pixels, of smooth noise: some 50 kB each, as photographs have."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (60, 80, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        buffer = io.BytesIO()
        coarse.save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def write_set(folder: Path, records: int, name: str = "instruct.json") -> Path:
    """Write a list of conversations about `PICTURES` pictures; return its path."""
    small = encoded_pictures(1, 0)[0]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        (folder / "pictures" / f"{number:06d}.jpg").write_bytes(small)
    with open(folder / name, "w") as file:
        file.write("[")
        for number in range(records):
            turns = [
                {"from": "human", "value": f"<image>\nWhat does picture {number} show, and what is behind it?"},
                {"from": "gpt", "value": f"Thing number {number} stands on a table, and behind it is a window."},
            ]
            picture = f"pictures/{number % PICTURES:06d}.jpg"
            record = {"id": f"{number:09d}", "image": picture, "conversations": turns}
            file.write((",\n" if number else "") + json.dumps(record))
        file.write("]")
    return folder / name


def memory() -> dict[str, float]:
    """Return the most memory that this process held, and what it holds without mapped files, in GB."""
    # `ru_maxrss` of a child begins with what its parent held; the system's own counters begin anew.
    found = {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    status, names = Path("/proc/self/status"), {"VmHWM": "peak_gb", "RssAnon": "anonymous_gb"}
    for line in status.read_text().splitlines() if status.exists() else ():
        key, _, value = line.partition(":")
        if key in names:
            found[names[key]] = int(value.split()[0]) / 1e6
    return {name: round(value, 3) for name, value in found.items()}


def options(path: Path, cache: Path, **more: Any) -> Any:
    """Return the options of the reader for a set."""
    from hfvla.data.sources.vision_language import VisionLanguageOptions

    return VisionLanguageOptions(path=str(path), cache_dir=str(cache), check_images="exists", **more)


def part_index(path: Path, cache: Path) -> dict[str, Any]:
    """Make the table, or find it again."""
    from hfvla.data.sources.vision_language.build import build_vision_language

    start = time.perf_counter(), time.process_time()
    rows = build_vision_language(options(path, cache)).dataset
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return {"rows": len(rows), "seconds": round(seconds, 3), "processor_s": round(cpu, 3), **memory()}


def part_open(path: Path, cache: Path) -> dict[str, Any]:
    """Open a table that is there, take the first shuffled batch with its pictures, then rows in random order."""
    import datasets  # noqa: F401  # what a run has imported anyway

    from hfvla.data.samples.chat import ChatSample
    from hfvla.data.samples.chat_pictures import load_reference
    from hfvla.data.sources.vision_language.build import build_vision_language

    start = time.perf_counter()
    rows = build_vision_language(options(path, cache)).dataset
    draw = random.Random(0)
    first = rows[[draw.randrange(len(rows)) for _ in range(BATCH)]]
    rows_s = time.perf_counter() - start
    for refs in first["images"]:
        load_reference(ChatSample.from_row(_row(refs)).images[0], draft_side=SIDE)
    batch_s = time.perf_counter() - start
    count = min(len(rows), 20_000)
    start = time.perf_counter()
    for _ in range(count // BATCH):
        rows[[draw.randrange(len(rows)) for _ in range(BATCH)]]
    batches = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(2000):
        rows[draw.randrange(len(rows))]
    single = time.perf_counter() - start
    return {
        "first_rows_s": round(rows_s, 3),
        "first_batch_with_pictures_s": round(batch_s, 3),
        "shuffled_rows_per_s": round(count // BATCH * BATCH / batches),
        "single_rows_per_s": round(2000 / single),
        **memory(),
    }


def _row(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row around a batch's pictures, for `ChatSample.from_row`."""
    empty: dict[str, Any] = dict.fromkeys(("messages", "rejected", "videos", "boxes", "references"), [])
    texts = dict.fromkeys(("id", "kind", "source", "split", "group", "details"), "")
    return {**empty, **texts, "images": images, "weight": 1.0}


def part_stream(path: Path, cache: Path) -> dict[str, Any]:
    """Take the first batch of the same file, streamed."""
    import datasets  # noqa: F401

    from hfvla.data.sources.vision_language.build import build_vision_language

    start = time.perf_counter()
    rows = iter(build_vision_language(options(path, cache, streaming=True)).dataset)
    for _ in range(BATCH):
        next(rows)
    return {"first_rows_s": round(time.perf_counter() - start, 3), **memory()}


def part_list(path: Path, cache: Path) -> dict[str, Any]:
    """Load the file as a list."""
    start = time.perf_counter()
    with open(path) as file:
        records = json.load(file)
    seconds, draw = time.perf_counter() - start, random.Random(0)
    start = time.perf_counter()
    for _ in range(200_000):
        records[draw.randrange(len(records))]
    rate = 200_000 / (time.perf_counter() - start)
    return {"rows": len(records), "seconds": round(seconds, 3), "shuffled_rows_per_s": round(rate), **memory()}


def part_layout(path: Path, cache: Path) -> dict[str, Any]:
    """Open a table, and take rows in random order; memory of the imports, once it is open, and at the end."""
    from datasets import Dataset

    found: dict[str, Any] = {"imports": memory()}
    rows, draw = Dataset.from_file(str(path)), random.Random(0)
    found |= {"rows": len(rows), "opened": memory()}
    start = time.process_time()
    for _ in range(300):
        rows[[draw.randrange(len(rows)) for _ in range(BATCH)]]
    rate = round(300 * BATCH / (time.process_time() - start))
    return {**found, "shuffled_rows_per_processor_s": rate, "after_random_order": memory()}


def write_repeated(path: Path, records: int, rows_a_batch: int) -> None:
    """Write a table of one batch, again and again."""
    import pyarrow as pa

    from hfvla.data.samples.chat import ChatSample, ImageRef, chat_features, text_turn

    schema, rows = chat_features().arrow_schema, []
    for number in range(rows_a_batch):
        asked = text_turn("user", f"What does picture {number} show, and what is behind it?", images=1)
        said = text_turn("assistant", f"Thing number {number} stands on a table, and behind it is a window.")
        image = ImageRef(path=f"{path.parent}/set/pictures/{number % PICTURES:06d}.jpg")
        group = f"{number % PICTURES:06d}"
        rows.append(ChatSample(f"{number:09d}", (asked, said), (image,), source="instruct", group=group).to_row())
    batch = pa.Table.from_pylist(rows, schema=schema)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for _ in range(records // rows_a_batch):
            stream.write_table(batch)


def compare_layouts(output: Path, records: int) -> None:
    """Measure tables in short and in long batches; write the result beside the other, and print it."""
    report: dict[str, Any] = {"command": f"python benchmarks/reader_scale.py --layout --records {records}"}
    report["versions"] = versions("datasets", "pyarrow")
    table = Table(title=f"a table of {records:,} rows, opened")
    for name in ("rows a batch", "opened, GB (without mapped files)", "after 19,200 shuffled rows", "rows a second"):
        table.add_column(name)
    with tempfile.TemporaryDirectory(prefix="hfvla-layout-") as work:
        for rows_a_batch in (100, 4000):
            path = Path(work) / "rows.arrow"
            write_repeated(path, records, rows_a_batch)
            found = report[f"batches_of_{rows_a_batch}"] = measured("layout", path, Path(work))
            held = [
                f"{found[at]['peak_gb']:.2f} ({found[at]['anonymous_gb']:.2f})"
                for at in ("opened", "after_random_order")
            ]
            table.add_row(str(rows_a_batch), *held, f"{found['shuffled_rows_per_processor_s']:,}")
            path.unlink()
    write_result(output.with_name(f"{output.stem}_layout.json"), report)
    Console(width=120).print(table)


PARTS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "index": part_index,
    "open": part_open,
    "stream": part_stream,
    "list": part_list,
    "layout": part_layout,
}


def measured(part: str, path: Path, cache: Path) -> dict[str, Any]:
    """Run a part in a process of its own, whose memory is its alone."""
    words = [sys.executable, __file__, "--part", part, "--path", str(path), "--cache", str(cache)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def in_turns(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, Any]:
    """Return samples a second of processor time, and the median ratio to the first way's, round by round."""
    for way in ways.values():
        way()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            count = way()
            rates[name].append(count / (time.process_time() - start))
    reference = next(iter(ways))
    ratios = {
        name: round(median(own / other for own, other in zip(rates[name], rates[reference], strict=True)), 3)
        for name in ways
    }
    return {"samples_per_s": {name: round(median(values), 1) for name, values in rates.items()}, "ratio": ratios}


def picture_ways(folder: Path, count: int) -> dict[str, Callable[[], int]]:
    """Return the ways to decoded and resized pictures: a list with torchvision's loader, and rows of the reader."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import v2

    from hfvla.data.samples.chat import ChatSample
    from hfvla.data.samples.chat_pictures import load_reference
    from hfvla.data.sources.vision_language.build import build_vision_language

    (folder / "files").mkdir(parents=True)
    entries = []
    for number, data in enumerate(encoded_pictures(count, 1)):
        name = f"files/{number:06d}.jpg"
        (folder / name).write_bytes(data)
        entries.append({"image": name, "caption": f"caption {number}"})
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    rows = build_vision_language(options(path, folder / "cache")).dataset
    finish = v2.Compose([v2.Resize((SIDE, SIDE)), v2.PILToTensor()])

    class Plain(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(entries)

        def __getitem__(self, index: int) -> tuple[Any, str]:
            return finish(default_loader(str(folder / entries[index]["image"]))), entries[index]["caption"]

    def collate(draft_side: int | None) -> Callable[[list[Any]], Any]:
        def gather(batch: list[Any]) -> Any:
            samples = [ChatSample.from_row(row) for row in batch]
            pixels = [finish(load_reference(one.images[0], one.id, draft_side=draft_side)) for one in samples]
            return torch.stack(pixels), [one.turns[-1].text for one in samples]

        return gather

    loaders: dict[str, Any] = {
        "torchvision": DataLoader(Plain(), batch_size=BATCH),
        "hfvla": DataLoader(rows, batch_size=BATCH, collate_fn=collate(None)),
        "hfvla, draft": DataLoader(rows, batch_size=BATCH, collate_fn=collate(SIDE)),
    }
    (theirs, their_texts), (ours, our_texts) = (next(iter(loaders[name])) for name in ("torchvision", "hfvla"))
    if not torch.equal(theirs, ours) or list(their_texts) != our_texts:
        raise SystemExit("hfvla and torchvision do not give the same batch")

    def way(loader: Any) -> Callable[[], int]:
        return lambda: sum(len(pixels) for pixels, _ in loader)

    return {name: way(loader) for name, loader in loaders.items()}


def write_shards(folder: Path, shards: int, pairs: int) -> None:
    """Write tars of pictures with captions."""
    folder.mkdir(parents=True)
    pictures = encoded_pictures(50, 2)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(pairs):
                for suffix, data in (("jpg", pictures[number % 50]), ("txt", f"caption {number}".encode())):
                    member = tarfile.TarInfo(f"{shard:04d}{number:05d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def tar_ways(folder: Path, decode: bool) -> dict[str, Callable[[], int]]:
    """Return the ways through tars: `webdataset`, and the reader's stream, without and with a look at each header."""
    import webdataset

    from hfvla.data.pictures import load_picture
    from hfvla.data.sources.vision_language.build import build_vision_language

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]

    def theirs() -> Iterator[tuple[Any, Any]]:
        data = webdataset.WebDataset(shards, shardshuffle=False)
        return iter((data.decode("pilrgb") if decode else data).to_tuple("jpg", "txt"))

    def ours(level: str) -> Callable[[], Iterator[tuple[Any, Any]]]:
        given = options(folder, folder / "cache", streaming=True).model_copy(update={"check_images": level})
        rows = build_vision_language(given).dataset

        def read() -> Iterator[tuple[Any, Any]]:
            for row in rows:
                data = row["images"][0]["bytes"]
                yield (load_picture(data) if decode else data), row["messages"][1]["content"][0]["text"]

        return read

    ways = {"webdataset": theirs, "hfvla": ours("exists"), "hfvla, headers looked at": ours("header")}

    def counted(way: Callable[[], Iterator[tuple[Any, Any]]]) -> Callable[[], int]:
        return lambda: sum(1 for _ in way())

    counts = {name: counted(way) for name, way in ways.items()}
    if len({count() for count in counts.values()}) != 1:
        raise SystemExit("hfvla and webdataset do not give the same number of samples")
    return counts


def show(report: dict[str, Any]) -> None:
    """Print one table."""
    console, table = Console(width=120), Table(title="vision-language readers")
    for name in ("what", "seen", "goal"):
        table.add_column(name)
    index, opened, listed = report["index"], report["open"], report["json_list"]
    table.add_row("records", f"{index['rows']:,}")
    table.add_row("table made", f"{index['seconds']:.1f} s ({1e6 * index['seconds'] / index['rows']:.0f} us a record)")
    table.add_row("memory while it is made", f"{index['peak_gb']:.2f} GB", f"< {MOST_MEMORY_GB} GB")
    table.add_row("opened again, first shuffled rows", f"{opened['first_rows_s']:.2f} s")
    table.add_row("with decoded pictures", f"{opened['first_batch_with_pictures_s']:.2f} s")
    table.add_row("rows a second in random order", f"{opened['shuffled_rows_per_s']:,} (one by one "
                  f"{opened['single_rows_per_s']:,})")  # fmt: skip
    table.add_row("memory of that", f"{opened['peak_gb']:.2f} GB, {opened['anonymous_gb']:.2f} without mapped files",
                  f"< {MOST_MEMORY_GB} GB")  # fmt: skip
    table.add_row("first rows, streamed", f"{report['stream']['first_rows_s']:.2f} s, "
                  f"{report['stream']['peak_gb']:.2f} GB")  # fmt: skip
    table.add_row(f"json.load of {listed['rows']:,}", f"{listed['seconds']:.1f} s, {listed['peak_gb']:.2f} GB, "
                  f"{listed['shuffled_rows_per_s']:,} records a second")  # fmt: skip
    for name, result in report["pairs"].items():
        for way, ratio in result["ratio"].items():
            goal = f">= {GOAL}" if way == "hfvla" else ""
            table.add_row(f"{name}: {way}", f"{result['samples_per_s'][way]:,.0f} samples/s, ratio {ratio:.2f}", goal)
    console.print(table)


def main() -> None:
    """Run the benchmark, or one part of it."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--baseline-records", type=int, default=500_000, help="at most, for json.load")
    parser.add_argument("--pictures", type=int, default=500, help="decoded from files")
    parser.add_argument("--pairs", type=int, default=2000, help="of a tar; a tenth of them where they are decoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layout", action="store_true", help="only compare tables in short and in long batches")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](args.path, args.cache)))
        return
    if args.layout:
        compare_layouts(args.output, args.records)
        return
    report: dict[str, Any] = {
        "command": "python benchmarks/reader_scale.py"
        + "".join(f" --{name.replace('_', '-')} {getattr(args, name)}" for name in SIZES),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": versions("datasets", "pyarrow", "torch", "torchvision", "webdataset", "pillow"),
        "load_average": {"before": round(os.getloadavg()[0], 2)},
        "rounds": args.rounds,
        "pairs": {},
        "left_out": {},
    }
    with tempfile.TemporaryDirectory(prefix="hfvla-readers-") as work:
        for _ in run(report, Path(work), args):
            report["load_average"]["after"] = round(os.getloadavg()[0], 2)
            write_result(args.output, report)
    show(report)


def run(report: dict[str, Any], folder: Path, args: argparse.Namespace) -> Iterator[None]:
    """Add to the report and yield, part by part: what was measured is kept where a later part fails."""
    report["pairs"]["pictures"] = in_turns(picture_ways(folder / "pictures", args.pictures), args.rounds)
    yield
    for name, decode in (("tars, bytes", False), ("tars, decoded", True)):
        if find_spec("webdataset") is None:
            report["left_out"]["webdataset"] = "not installed (pip install webdataset)"
            continue
        write_shards(folder / name, 4, max(args.pairs // 10, 1) if decode else args.pairs)
        report["pairs"][name] = in_turns(tar_ways(folder / name, decode), args.rounds)
        yield
    path = write_set(folder / "set", min(args.records, args.baseline_records), "list.json")
    report["json_list"] = measured("list", path, folder / "cache")
    path.unlink()
    path = write_set(folder / "set", args.records)
    for part in ("index", "open", "stream"):
        report[part] = measured(part, path, folder / "cache")
        yield


if __name__ == "__main__":
    main()
