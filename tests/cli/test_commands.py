import dataclasses
import json
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import hfvla
from hfvla.cli import main
from hfvla.errors import CheckpointError, DataError, RecipeError
from hfvla.family import EvaluationResult
from hfvla.registry import get_family


@pytest.fixture
def hfvla_cli(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(words)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err)

    return call


@pytest.fixture
def replace(monkeypatch):
    """Put a module of plain functions where a command imports one."""

    def _replace(name, **attributes):
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)

    return _replace


@pytest.fixture
def loaded(monkeypatch):
    """Record what recipes are asked for, without reading a file."""
    calls = []

    def load_recipe(path, overrides=(), families=None):
        calls.append((path, list(overrides)))
        if "bad" in path:
            raise RecipeError(["bad.yaml:3: [red]one[/red]", "bad.yaml:4: two"])
        return SimpleNamespace(path=path)

    monkeypatch.setattr("hfvla.recipe.load_recipe", load_recipe)
    return calls


def test_help_is_light():
    code = (
        "import sys; from hfvla.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print('heavy:', *[m for m in ('torch', 'transformers', 'datasets', 'pydantic', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.rstrip().endswith("heavy:"), done.stdout[-200:]
    for command in ("train", "plan", "eval", "predict", "lora-targets", "merge", "schema", "doctor", "families"):
        assert re.search(rf"\b{command}\b", done.stdout)


def test_module_and_version():
    done = subprocess.run([sys.executable, "-m", "hfvla.cli", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"hfvla {hfvla.__version__}\n")


def test_train_runs_the_recipe(hfvla_cli, replace, loaded):
    calls = []

    def run_recipe(recipe, output_dir=None, overwrite=False, **part):
        calls.append((recipe.path, output_dir, overwrite))
        print("a step")
        return {
            "output_dir": "outputs/night",
            "stages": [{"name": "align", "seconds": 1.25, "steps": 7, "best_metric": 0.625}],
            "metrics": {"jaccard": 0.8125, "n": 16},
            "evaluation": {
                "held_out": {
                    "metrics": {"jaccard": 0.8125, "n": 16},
                    "baselines": {"majority": {"jaccard": 0.5, "n": 16}},
                }
            },
        }

    replace("hfvla.training.run.run", run_recipe=run_recipe)
    done = hfvla_cli("train", "r.yaml", "seed=1", "args.x=2", "--output", "there", "--overwrite")
    assert done.code == 0
    assert loaded == [("r.yaml", ["seed=1", "args.x=2"])] and calls == [("r.yaml", "there", True)]
    for shown in ("align", "0.625", "held_out", "0.812", "ajority", "0.500", "outputs/night/report.html"):
        assert shown in done.out

    done = hfvla_cli("train", "r.yaml", "--json")
    assert json.loads(done.out)["metrics"]["n"] == 16
    assert "a step" in done.err
    assert calls[-1] == ("r.yaml", None, False)


def test_a_bad_recipe_is_exit_2_and_never_trains(hfvla_cli, replace, loaded):
    replace("hfvla.training.run.run", run_recipe=None)
    done = hfvla_cli("train", "bad.yaml")
    assert done.code == 2 and done.out == ""
    assert "bad.yaml:3: [red]one[/red]" in done.err and "bad.yaml:4: two" in done.err
    assert "Traceback" not in done.err
    done = hfvla_cli("plan", "bad.yaml", "--json")
    assert done.code == 2 and json.loads(done.out)["error"]["problems"][1] == "bad.yaml:4: two"


def test_an_interrupted_run_is_130(hfvla_cli, replace, loaded):
    def run_recipe(*_, **__):
        raise KeyboardInterrupt

    replace("hfvla.training.run.run", run_recipe=run_recipe)
    done = hfvla_cli("train", "r.yaml")
    assert done.code == 130 and done.err.endswith("interrupted\n")


PLAN = {
    "family": "toy",
    "recipe": "night",
    "parameters": [{"part": "vision [x]", "tensors": 2, "parameters": 3_000_000}],
    "total_parameters": 4_000_000,
    "stages": [
        {
            "name": "align",
            "samples": 120,
            "steps": 30,
            "epochs": 2,
            "batch_size": 8,
            "groups": [
                {
                    "group": "vision",
                    "tensors": 2,
                    "parameters": 3_000_000,
                    "trainable": 1_000_000,
                    "share": 1 / 3,
                    "learning_rate": 5e-5,
                    "dtype": "float32",
                }
            ],
            "trainable_parameters": 1_000_000,
            "losses": {"itc": 0.5},
            "checkpoint_bytes": 16_000_000,
        }
    ],
}


def test_plan_shows_parts_and_stages(hfvla_cli, monkeypatch, loaded):
    monkeypatch.setattr("hfvla.training.estimate.plan_recipe", lambda recipe, **options: PLAN)
    done = hfvla_cli("plan", "r.yaml", "seed=2", "--all")
    assert done.code == 0 and loaded == [("r.yaml", ["seed=2"])]
    for shown in ("toy: night", "vision [x]", "3,000,000", "75.0 %", "stage align", "33.3 %", "5e-05", "float32"):
        assert shown in done.out
    assert "120 samples, 30 steps, 2 epochs, batch 8; losses itc=0.5" in done.out
    assert "trains 1,000,000 of 4,000,000 parameters (25.0 %); checkpoint 16 MB" in done.out
    assert json.loads(hfvla_cli("plan", "r.yaml", "--json").out) == PLAN


def test_eval_passes_sets_and_options(hfvla_cli, monkeypatch):
    calls = []

    def evaluate_checkpoint(checkpoint, data, output_dir, **options):
        calls.append((checkpoint, data, output_dir, options))
        return {name: EvaluationResult({"n": 4.0, "accuracy": float("nan")}) for name in data}

    monkeypatch.setattr("hfvla.evaluation.run.evaluate_checkpoint", evaluate_checkpoint)
    words = ["eval", "--checkpoint", "c", "--output", "o", "--data", "made:size=5", "--data", "made=x.json"]
    done = hfvla_cli(*words, "--batch-size", "2", "--max-generate", "0", "--seed", "3", "--device", "cpu",
                     "--option", "k_test=8", "--option", "exact=true", "--json")  # fmt: skip
    assert done.code == 0
    assert calls == [
        (
            "c",
            {"made": {"source": "made", "size": 5}, "made_2": {"source": "made", "path": "x.json"}},
            "o",
            {"seed": 3, "device": "cpu", "batch_size": 2, "max_generate": 0, "options": {"k_test": 8, "exact": True}},
        )
    ]
    found = json.loads(done.out)
    assert found["output_dir"] == "o" and found["results"]["made_2"]["accuracy"] is None
    assert found["results"]["made"]["n"] == 4

    done = hfvla_cli(*words)
    assert done.code == 0 and "made_2" in done.out and "[bold]" not in done.out and "report.html" in done.out


def test_eval_refuses_bad_data(hfvla_cli):
    done = hfvla_cli("eval", "--checkpoint", "c", "--output", "o", "--data", "made:size", "--json")
    assert done.code == 2 and "'size' is not key=value" in json.loads(done.out)["error"]["message"]


def test_predict_asks_the_family(hfvla_cli, monkeypatch, tmp_path):
    requests = []
    picture = tmp_path / "scene.png"
    picture.write_bytes(b"x")

    def predict(model, processor, request):
        requests.append((model, processor, request))
        return {"robots": ["Drone"], "choices": [{"robot_type": "Drone [x]", "confidence": 0.92}], "reasoning": "[b]"}

    spec = dataclasses.replace(get_family("ember_vlm"), hooks={"predict": f"{__name__}:predict"})
    monkeypatch.setattr(sys.modules[__name__], "predict", predict, raising=False)
    monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: spec)
    monkeypatch.setattr("hfvla.registry.load_checkpoint", lambda path: (spec, f"model {path}", "processor"))
    words = ["predict", "--checkpoint", "c", "--task", "Look", "--device", "cpu"]
    done = hfvla_cli(*words, "--image", str(picture), "--top-k", "2", "--no-reasoning")
    assert done.code == 0 and "Drone [x]" in done.out and "0.92" in done.out and "[b]" in done.out
    assert requests == [
        ("model c", "processor", {"image": str(picture), "task": "Look", "top_k": 2, "reasoning": False})
    ]
    done = hfvla_cli(*words, "--json")
    assert json.loads(done.out)["choices"][0]["confidence"] == 0.92
    assert requests[-1][2] == {"task": "Look", "top_k": 3, "reasoning": True}


def test_predict_names_what_is_missing(hfvla_cli, monkeypatch):
    monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: get_family("ember_vlm"))
    done = hfvla_cli("predict", "--checkpoint", "c", "--task", "t", "--image", "nowhere.png")
    assert done.code == 2 and "nowhere.png" in done.err

    def load_checkpoint(path):
        raise CheckpointError("no such checkpoint folder", where=path)

    monkeypatch.setattr("hfvla.registry.load_checkpoint", load_checkpoint)
    done = hfvla_cli("predict", "--checkpoint", "gone", "--task", "t", "--json")
    assert done.code == 2 and json.loads(done.out)["error"]["message"] == "gone: no such checkpoint folder"


def test_schema_goes_to_stdout_or_a_file(hfvla_cli, monkeypatch, tmp_path):
    asked = []
    schema = {"title": "hfvla recipe"}
    monkeypatch.setattr("hfvla.recipe.recipe_json_schema", lambda family: asked.append(family) or schema)
    done = hfvla_cli("schema", "--family", "toy")
    assert json.loads(done.out) == schema and asked == ["toy"]
    target = tmp_path / "deep" / "schema.json"
    done = hfvla_cli("schema", "--output", str(target))
    assert json.loads(target.read_text()) == schema and str(target) in done.out and asked[-1] is None
    done = hfvla_cli("schema", "--output", str(tmp_path))
    assert done.code == 2 and "cannot be written: it is a folder" in done.err


def test_families_are_listed(hfvla_cli, monkeypatch):
    described = {
        "toy": {
            "summary": "a made-up family",
            "groups": {"vision": {"layers": True, "description": "sees"}},
            "losses": {"itc": "contrastive"},
            "sources": {"made": {"description": "generated", "options": {"size": {}}}},
            "keep_best": ["eval_loss"],
        }
    }
    monkeypatch.setattr("hfvla.cli.families.describe_families", lambda: described)
    done = hfvla_cli("families")
    for shown in (
        "toy: a made-up family",
        "vision",
        "sees",
        "itc",
        "made",
        "size",
        "generated",
        "keep_best: eval_loss",
    ):
        assert shown in done.out
    assert json.loads(hfvla_cli("families", "--json").out) == described


def test_doctor_exits_1_only_on_a_failure(hfvla_cli, monkeypatch):
    from hfvla.cli.doctor import Check

    checks = [Check("torch", "ok", "2.15"), Check("video", "warn", "none", "pip install [video]")]
    monkeypatch.setattr("hfvla.cli.doctor.diagnose", lambda: checks)
    done = hfvla_cli("doctor")
    assert done.code == 0 and "pip install [video]" in done.out
    checks.append(Check("peft", "fail", "not installed", "pip install peft"))
    done = hfvla_cli("doctor", "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["failed"] == 1
    assert found["checks"][2] == {
        "name": "peft",
        "status": "fail",
        "found": "not installed",
        "fix": "pip install peft",
    }


def test_unknown_words_are_usage_errors(hfvla_cli):
    assert hfvla_cli("trian").code == 2
    assert hfvla_cli("train").code == 2
    assert hfvla_cli("eval", "--checkpoint", "c", "--output", "o").code == 2


def test_an_error_in_the_work_is_reported_once(hfvla_cli, replace, loaded):
    def run_recipe(*_, **__):
        raise DataError("too many bad records", got=7)

    replace("hfvla.training.run.run", run_recipe=run_recipe)
    done = hfvla_cli("train", "r.yaml", "--json")
    assert done.err == "error: too many bad records; got 7\n"
    assert json.loads(done.out) == {"error": {"type": "DataError", "message": "too many bad records; got 7"}}
