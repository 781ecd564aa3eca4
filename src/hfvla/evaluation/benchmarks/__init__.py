"""Public benchmarks, read from files on disk as they are published, and run without any further package."""

from hfvla.evaluation.benchmarks.catalog import BENCHMARKS, STAGES, Benchmark, chosen_benchmarks

__all__ = ["BENCHMARKS", "STAGES", "Benchmark", "chosen_benchmarks"]
