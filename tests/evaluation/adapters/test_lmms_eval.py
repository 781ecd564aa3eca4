"""lmms-eval finds hfvla by its entry point and scores a checkpoint with it, on a task on disk."""

import json

import pytest
from datasets import Dataset, Features, Image, Value

from hfvla.data.samples.chat import ChatSample, ImageRef, text_turn
from hfvla.evaluation.chat_system import load_chat_system

from ...backbones.tiny_llava import save
from ..benchmarks.files import png
from .installed import python_of, run

TASK = """
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {file}}}
task: hfvla_colours
test_split: test
output_type: generate_until
doc_to_visual: !function colours.visual
doc_to_text: !function colours.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 5, temperature: 0, do_sample: false, until: ["\\n"]}}
process_results: !function colours.results
metric_list:
  - {{metric: named, aggregation: mean, higher_is_better: true}}
"""
FUNCTIONS = """
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, results):
    return {"named": float(doc["answer"] in results[0].split())}
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_a_checkpoint_in_the_real_package(tmp_path):
    python = python_of("HFVLA_LMMS_EVAL_PYTHON", "lmms-eval")
    model = save(tmp_path / "model")
    questions = [
        ("red", "what colour is it ?"),
        ("blue", "is it red ?"),
        ("green", "a dog ?"),
        ("white", "what is it ?"),
    ]
    system = load_chat_system(model, "cpu")
    asked = [
        ChatSample(id=c, turns=(text_turn("user", q, images=1),), images=(ImageRef(data=png(c)),))
        for c, q in questions
    ]
    expected = [text.split("\n")[0] for text in system.write(asked, 5)]
    # Half of the right answers are words that the model says.
    answers = [text.split()[0] if number % 2 else "nothing" for number, text in enumerate(expected)]
    rows = [
        {"question": q, "answer": answer, "image": {"bytes": png(c), "path": None}}
        for (c, q), answer in zip(questions, answers, strict=True)
    ]
    features = Features({"question": Value("string"), "answer": Value("string"), "image": Image()})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "colours.parquet")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "colours.yaml").write_text(TASK.format(file=tmp_path / "colours.parquet"))
    (tasks / "colours.py").write_text(FUNCTIONS)
    run(python, [
        "-m", "lmms_eval", "--model", "hfvla", "--model_args", f"pretrained={model}", "--device", "cpu",
        "--tasks", "hfvla_colours", "--include_path", str(tasks), "--batch_size", "3", "--log_samples",
        "--output_path", str(tmp_path / "out"),
    ], tmp_path)  # fmt: skip
    (results,) = (tmp_path / "out").rglob("*_results.json")
    assert json.loads(results.read_text())["results"]["hfvla_colours"]["named,none"] == 0.5
    (logged,) = (tmp_path / "out").rglob("*samples_hfvla_colours.jsonl")
    said = {row["doc_id"]: row["filtered_resps"] for row in map(json.loads, logged.read_text().splitlines())}
    assert [said[number] for number in range(4)] == expected
