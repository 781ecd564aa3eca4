"""One of several processes that run a benchmark together."""

import sys

from hfvla.evaluation.benchmarks.checkpoint import evaluate_benchmarks

model, folder, output = sys.argv[1:]
evaluate_benchmarks(model, ["mme"], folder, output, device="cpu", batch_size=3, bootstrap_samples=20)
