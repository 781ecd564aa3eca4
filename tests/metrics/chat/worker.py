"""One of several processes that evaluate answers together; prints what the first one found."""

import json
import sys

import numpy as np
from tests.metrics.chat.fakes import COLOURS, Seer, colour_of, mixed

from hfvla.data.processes import Processes
from hfvla.evaluation.run import process_device
from hfvla.family import ChatSystem, EvaluationContext
from hfvla.metrics.chat import evaluate_chat

process_device("cpu")
processes = Processes.current()
names = list(COLOURS)


def embed(samples):
    """Vectors that depend on the picture and on the text's length."""
    images = np.array([np.eye(4)[names.index(colour_of(one))] for one in samples])
    texts = np.array([[len(one.turns[-1].text), 1.0, 2.0, 0.5] for one in samples])
    return images, texts / np.linalg.norm(texts, axis=1, keepdims=True)


seer = Seer()
system = ChatSystem(seer.write, seer.losses, lambda one: [1, 2], embed, vocabulary=5)
train = [one.to_row() for one in mixed(20, start=100)]
context = EvaluationContext(train, max_generate=100, bootstrap_samples=20, batch_size=3).of_process(processes)
result = evaluate_chat(system, [one.to_row() for one in mixed(6)], context)
if processes.is_main:
    found = {"metrics": result.metrics, "baselines": result.baselines, "ablations": result.ablations}
    found |= {"intervals": result.intervals, "rows": [row["prediction"] for row in result.rows]}
    sys.stdout.write(json.dumps(found | {"figures": sorted(figure.name for figure in result.figures)}))
else:
    sys.stdout.write(json.dumps({"asked": len(seer.asked)}))
