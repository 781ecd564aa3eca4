"""The callback of a stage: its lines, its best score, and nothing of transformers' own printers."""

import json

import pytest
from transformers import PrinterCallback, ProgressCallback

from hfvla.family import EvaluationResult
from hfvla.training.run.screen.progress import Part
from hfvla.training.run.screen.screen import run_screen
from hfvla.training.run.screen.watching import StageWatcher, evaluated_line, finished_line, take_printers

from ...toy import build_rows, build_trainer


def watched(folder, screen, **options):
    args = {"max_steps": 4, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, **options.pop("args", {})}
    trainer = build_trainer(
        folder, args=args, losses={"fit": 1.0, "level": 0.1}, extra={"eval_dataset": build_rows(4)}, **options
    )
    trainer.add_callback(StageWatcher(screen, trainer.stage))
    take_printers(trainer)
    return trainer


def test_a_stage_shows_a_line_a_step_and_its_best_score(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HFVLA_SCREEN", "plain")
    with run_screen("night", tmp_path) as screen:
        trainer = watched(tmp_path / "stage", screen)
        name = trainer.stage.name
        screen.plan([Part("stage", name, 1)])
        screen.begin("stage", name)
        trainer.train()
        status = screen.status()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "{" not in err
    assert lines[0].split()[:4] == ["step", "loss", "fit", "level"]
    steps = [line for line in lines if line.split()[0].endswith("/4")]
    assert [line.split()[0] for line in steps] == ["1/4", "2/4", "3/4", "4/4"]
    history = [line for line in trainer.state.log_history if "loss" in line]
    assert steps[2].split()[1] == f"{history[2]['loss']:.4f}"
    assert steps[2].split()[2] == f"{history[2][f'{name}/loss_fit']:.4f}"
    assert steps[2].endswith("GB") and history[2][f"{name}/samples_per_second"] > 0
    assert 0 <= history[2][f"{name}/data_s"] < 60
    checks = [line for line in lines if "validation" in line]
    assert len(checks) == 2 and "★ the best so far" in checks[0]
    evals = [line for line in trainer.state.log_history if "eval_loss" in line]
    best = min(evals, key=lambda line: line["eval_loss"])
    assert status.best == f"best loss {best['eval_loss']:.3f} at step {best['step']}"
    assert status.detail.startswith("step 4/4") and status.share > 0
    written = [json.loads(line) for line in (tmp_path / "logs/log_history.jsonl").read_text().splitlines()]
    assert len(written) == len(trainer.state.log_history) and {line["stage"] for line in written} == {name}
    for entry, line in zip(written, trainer.state.log_history, strict=True):
        assert {key: entry[key] for key in line} == pytest.approx(line)


def test_a_resumed_stage_goes_on_with_the_best_of_before(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HFVLA_SCREEN", "plain")
    args = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    args |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    with run_screen("night", tmp_path) as screen:
        first = watched(tmp_path / "stage", screen, args={**args, "max_steps": 2})
        first.train()
        best = first.state.best_metric
        again = watched(tmp_path / "stage", screen, args={**args, "learning_rate": 0.0})
        capsys.readouterr()
        again.train(resume_from_checkpoint=str(tmp_path / "stage/checkpoint-2"))
    line = next(line for line in capsys.readouterr().err.splitlines() if "validation step 4" in line)
    assert f"best loss {best:.3f} at step 2" in line or "★" in line
    steps = [json.loads(line)["step"] for line in (tmp_path / "logs/log_history.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_transformers_prints_nothing(tmp_path):
    for quiet in (True, False):
        trainer = build_trainer(tmp_path, args={"disable_tqdm": quiet})
        take_printers(trainer)
        kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
        assert PrinterCallback not in kinds and ProgressCallback not in kinds


def test_the_last_lines():
    line = finished_line({"name": "a", "steps": 1200, "seconds": 75.0, "best_metric": 0.5, "best_step": 40})
    assert line.plain == "stage a done: 1,200 steps in 1:15, kept: step 40"
    waited = finished_line({"name": "a", "steps": 2, "seconds": 1.0, "data_share": 0.0312}).plain
    assert waited == "stage a done: 2 steps in 0:01, 3.1% of it waiting for data"
    assert finished_line({"name": "a", "steps": 2, "seconds": 1.0}).plain == "stage a done: 2 steps in 0:01"
    result = EvaluationResult(
        {"n": 9, "failures": 0, "accuracy": 0.5}, baselines={"x": {"accuracy": 0.25}, "y": {"accuracy": 0.4}}
    )
    assert evaluated_line("seen", result).plain == "evaluation seen: Accuracy 0.500 (best baseline 0.400)"
