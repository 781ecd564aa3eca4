"""Benchmarks of a checkpoint: loaded, run and written beside a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfvla.data.processes import Processes
from hfvla.evaluation.benchmarks.catalog import chosen_benchmarks
from hfvla.evaluation.benchmarks.running import (
    BenchmarkRun,
    benchmark_record,
    check_folder,
    run_benchmarks,
    write_record,
)
from hfvla.evaluation.chat_system import load_chat_system
from hfvla.evaluation.output import write_evaluation
from hfvla.evaluation.run import process_device
from hfvla.family import EvaluationContext
from hfvla.outputs import claim_folder, mark_folder, purpose_of
from hfvla.paths import expand_user

__all__ = ["evaluate_benchmarks"]


def evaluate_benchmarks(
    checkpoint: str | Path,
    names: Sequence[str],
    folder: str | Path,
    output_dir: str | Path,
    *,
    seed: int = 0,
    device: str | None = None,
    batch_size: int = 16,
    limit: int | None = None,
    ablations: bool = True,
    bootstrap_samples: int = 1000,
) -> tuple[BenchmarkRun, dict[str, Any]]:
    """Run benchmarks that lie on disk, and write metrics, predictions, report and `evaluation_results.json`.

    Args:
        checkpoint: of a family that answers conversations, or any image-text model of transformers.
        names: benchmarks and stage lists.
        folder: that holds their files.
        output_dir: an evaluation's folder.
        seed: of resamples and of what is drawn.
        device: torch device; default: a GPU if there is one.
        batch_size: questions a forward pass.
        limit: only as many questions of each.
        ablations: also ask up to 200 questions of each with blank pictures.
        bootstrap_samples: resamples behind each interval.

    Returns:
        `tuple`: the results, and the content of `evaluation_results.json`.

    Raises:
        HfvlaError: an unknown name, no such folder, or `output_dir` was not made for an evaluation.
        CheckpointError: the checkpoint cannot be loaded, or answers no conversations.
        DataError: none of the benchmarks can be run, or a file is damaged.
    """
    started, where = time.perf_counter(), expand_user(str(checkpoint))
    chosen = chosen_benchmarks(names)
    target, files = Path(expand_user(str(output_dir))), Path(expand_user(str(folder)))
    check_folder(files)
    place = process_device(device)  # started by a launcher, this process joins the others here
    processes = Processes.current()
    processes.gather_done(lambda: claim_folder(target, "evaluation") if processes.is_main else None)
    system = load_chat_system(where, place)
    context = EvaluationContext(
        seed=seed, batch_size=batch_size, bootstrap_samples=bootstrap_samples, ablations=ablations
    ).of_process(processes)
    run = run_benchmarks(system, chosen, files, context, limit)
    for name, reason in run.not_run.items():
        next(iter(run.results.values())).notes.append(f"{name} was not run: {reason}.")
    record = benchmark_record(run, where, names, {"seed": seed, "limit": limit})
    info = {
        "title": f"Benchmarks of {Path(where).name}",
        "summary": f"{', '.join(run.results)}",
        "checkpoint": where,
        "seed": seed,
        "evaluation_seconds": time.perf_counter() - started,
    }
    processes.gather_done(lambda: _write(run, record, target, info) if processes.is_main else None)
    return run, record


def _write(run: BenchmarkRun, record: dict[str, Any], target: Path, info: dict[str, Any]) -> None:
    write_evaluation(run.results, target, info)
    write_record(record, target)
    purpose = purpose_of(target)
    if purpose is not None:
        mark_folder(target, purpose, ["evaluation_results.json"])
