"""Benchmarks run on files: scores, chance and blind, what was not run, and `hfvla eval --benchmarks`."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfvla.cli import app
from hfvla.errors import DataError
from hfvla.evaluation.benchmarks.catalog import BENCHMARKS, chosen_benchmarks
from hfvla.evaluation.benchmarks.running import benchmark_record, run_benchmark, run_benchmarks
from hfvla.family import ChatSystem, EvaluationContext

from ...backbones.tiny_llava import save
from ...training.launching import launch
from .files import NAMES, Seer, choice_row, write_mme, write_pope, write_tsv

CONTEXT = EvaluationContext(bootstrap_samples=20, batch_size=3)


@pytest.fixture
def folder(tmp_path):
    write_mme(tmp_path / "MME")
    write_pope(tmp_path / "POPE")
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", [choice_row(n, NAMES[n % 4]) for n in range(8)])
    return tmp_path


def test_a_model_that_sees(folder):
    run = run_benchmarks(Seer().system(), chosen_benchmarks(["mme", "mmbench", "pope"]), folder, CONTEXT)
    assert {name: result.metrics["accuracy"] for name, result in run.results.items()} == dict.fromkeys(
        run.results, 1.0
    )
    mmbench = run.results["MMBench_DEV_EN_V11"]
    assert mmbench.metrics["n"] == 8 and mmbench.metrics["asked"] == 32  # all four orders
    assert mmbench.metrics["circular_accuracy"] == 1.0 and mmbench.baselines["chance"]["accuracy"] == 0.25
    assert mmbench.ablations["blank_image"] == {"accuracy": 0.25, "n": 8.0}  # it says A, right for two of eight
    assert mmbench.ablations["with_image"]["accuracy"] == 1.0
    assert set(mmbench.intervals) == {"accuracy", "circular_accuracy"}
    assert run.results["MME"].metrics["points/color"] == 200.0
    assert run.results["POPE"].ablations["blank_image"]["accuracy"] == pytest.approx(4 / 6)


def test_a_model_that_always_says_a_fails_the_circular_test(folder):
    system = ChatSystem(lambda samples, tokens: ["A"] * len(samples))
    result = run_benchmark(system, BENCHMARKS["MMBench_DEV_EN_V11"], folder / "MMBench_DEV_EN_V11.tsv", CONTEXT)
    assert result.metrics["accuracy"] == 0.25 and result.metrics["circular_accuracy"] == 0.0


def test_copies_in_the_file_are_not_rotated_again(tmp_path):
    rows = [choice_row(5, "red")]
    rows.append(choice_row(1_000_005, "red", image="5", A="white", B="red", C="green", D="blue", answer="B"))
    write_tsv(tmp_path / "MMBench_DEV_EN_V11.tsv", rows)
    seer = Seer()
    place = tmp_path / "MMBench_DEV_EN_V11.tsv"
    result = run_benchmark(seer.system(), BENCHMARKS["MMBench_DEV_EN_V11"], place, CONTEXT)
    assert result.metrics["n"] == 1 and result.metrics["asked"] == 2 and result.metrics["circular_accuracy"] == 1.0


def test_what_is_not_run_is_said(folder):
    run = run_benchmarks(Seer().system(), chosen_benchmarks(["mme", "mmvet", "ai2d"]), folder, CONTEXT)
    assert list(run.results) == ["MME"]
    assert "judge" in run.not_run["MMVet"] and "AI2D_TEST.tsv" in run.not_run["AI2D_TEST"]
    record = benchmark_record(run, "out/stage2", ["stage1", "mmvet"])
    assert record["model_path"] == "out/stage2" and record["stage"] == "stage1"
    assert record["benchmarks"]["MME"]["accuracy"] == 1.0 and set(record["not_run"]) == {"MMVet", "AI2D_TEST"}
    assert "T" in record["timestamp"]
    with pytest.raises(DataError, match=r"no benchmark could be run.*MMVet.*judge"):
        run_benchmarks(Seer().system(), chosen_benchmarks(["mmvet"]), folder, CONTEXT)


def test_another_file_than_the_published_one_is_said_so(folder):
    place = folder / "MMBench_DEV_EN_V11.tsv"
    benchmark = BENCHMARKS["MMBench_DEV_EN_V11"]
    system = Seer().system()
    assert any(
        "is not the file that VLMEvalKit publishes" in n
        for n in run_benchmark(system, benchmark, place, CONTEXT).notes
    )
    published = replace(benchmark, md5=hashlib.md5(place.read_bytes()).hexdigest())
    assert not run_benchmark(system, published, place, CONTEXT).notes


def test_a_limit_is_no_official_score(folder):
    seer = Seer()
    place = folder / "MMBench_DEV_EN_V11.tsv"
    result = run_benchmark(seer.system(), BENCHMARKS["MMBench_DEV_EN_V11"], place, CONTEXT, limit=3)
    assert result.metrics["n"] == 3 and any("Only 3 of 8" in note for note in result.notes)


def test_command_on_a_model_of_transformers(folder, tmp_path):
    model, output = save(tmp_path / "model"), tmp_path / "scores"
    arguments = ["eval", "--checkpoint", model, "--benchmarks", "mme,mmvet", "--benchmark-dir", str(folder)]
    found = CliRunner().invoke(app, [*arguments, "--output", str(output), "--device", "cpu", "--limit", "2"])
    assert found.exit_code == 0, found.output
    assert "Not run: MMVet" in found.output
    record = json.loads((output / "evaluation_results.json").read_text())
    assert record["benchmarks"]["MME"]["n"] == 4 and record["model_path"] == model and record["stage"] is None
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(isinstance(row["prediction"], str) for row in rows)
    assert "MME" in (output / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--benchmarks", "mme"], "needs the folder"),
        (["--benchmarks", "mme", "--benchmark-dir", "x", "--data", "y"], "two evaluations"),
        (["--benchmark-dir", "x", "--data", "y"], "go with --benchmarks"),
        (["--benchmarks", "mme", "--benchmark-dir", "nowhere"], "no such"),
    ],
)
def test_refusals(more, match, tmp_path):
    found = CliRunner().invoke(app, ["eval", "--checkpoint", str(tmp_path), "--output", str(tmp_path / "o"), *more])
    assert found.exit_code != 0 and match in " ".join(found.output.split())


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_share_the_questions(folder, tmp_path):
    model = save(tmp_path / "model")
    for count in (1, 2):
        launch(count, Path(__file__).with_name("worker.py"), model, folder, tmp_path / f"by_{count}")
    alone, together = (
        json.loads((tmp_path / f"by_{count}/evaluation_results.json").read_text())["benchmarks"] for count in (1, 2)
    )
    assert alone == together and alone["MME"]["n"] == 8 and alone["MME"]["blank_image"]["n"] == 8
    said = [(tmp_path / f"by_{count}/predictions.jsonl").read_text() for count in (1, 2)]
    assert said[0] == said[1]
