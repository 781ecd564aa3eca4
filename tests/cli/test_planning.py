"""`hfvla plan` and `hfvla train --dry-run` as a user sees them."""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hfvla.cli import main
from hfvla.cli.plan_summary import duration, show_summary
from hfvla.cli.plan_tables import show_plan
from hfvla.training.estimate.devices import GPU_COUNTS
from hfvla.training.estimate.memory import SETTINGS

TINY = str(Path(__file__).parents[2] / "recipes" / "ember_vlm" / "tiny.yaml")


@pytest.fixture
def hfvla_cli(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(words)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err)

    return call


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr("hfvla.recipe.load_recipe", lambda path, overrides=(): (path, list(overrides)))


def replace(monkeypatch, name, **attributes):
    module = ModuleType(name)
    vars(module).update(attributes)
    monkeypatch.setitem(__import__("sys").modules, name, module)


def test_plan_of_a_shape_in_json(hfvla_cli):
    words = ["--train", "projector", "--batch", "2", "--tokens", "300", "--gpu", "a40-48", "--samples", "64", "--json"]
    done = hfvla_cli("plan", "--shape", "internvl3_1b", *words)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    stage = plan["stages"][0]
    assert plan["total_parameters"] == 938_193_024 and stage["steps"] == 32
    assert {tuple(row["fits"]) for row in stage["costs"]["settings"]} == {("a40-48",)}
    assert stage["costs"]["cheapest"][0]["gpu"] == "a40-48" and stage["trainable_parameters"] == 4_482_816


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a recipe or --shape NAME"),
        (["r.yaml", "--shape", "internvl3_1b"], "one of the two"),
        (["r.yaml", "--tokens", "8"], "--tokens goes with --shape"),
        (["r.yaml", "--batch", "8"], "--batch goes with --shape"),
        ([TINY, "--gpu", "a100"], "several GPUs 'a100' in the table; expected a100-40, a100-80"),
        (["--shape", "internvl3_9b"], "no shape 'internvl3_9b'"),
        (["--shape", "internvl3_1b", "--train", "projector", "--optim", "adam"], "Did you mean 'adamw_torch'?"),
        (["--shape", "internvl3_1b", "--gpu", "c200"], "no GPU 'c200'"),
        (["--shape", "internvl3_1b", "--measured", "nothing.json"], "cannot read measured throughputs"),
        (["--shape", "internvl3_1b", "--lora-r", "8"], "adapters need --lora-target"),
    ],
)
def test_bad_options(hfvla_cli, words, message):
    done = hfvla_cli("plan", *words)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err


def test_options_reach_the_plan_of_a_recipe(hfvla_cli, monkeypatch, loaded, tmp_path):
    calls = []
    replace(
        monkeypatch,
        "hfvla.training.estimate",
        plan_recipe=lambda recipe, **options: calls.append((recipe, options)) or {"family": "toy"},
        find_gpu=lambda name: f"card {name}",
        read_throughput=lambda path: f"speed {path}",
    )
    done = hfvla_cli("plan", "r.yaml", "seed=1", "--gpu", "a", "--gpu", "b", "--measured", "m.json", "--json")
    assert done.code == 0, done.err
    assert calls == [
        (("r.yaml", ["seed=1"]), {"samples": None, "gpus": ["card a", "card b"], "throughput": "speed m.json"})
    ]


def option(**changes):
    base = {"setting": "plain", "gpus": 1, "checkpointing": False, "total": 30 * 10**9, "measured": False}
    parts = dict.fromkeys(
        ["weights", "gradients", "optimizer", "activations", "buffers", "peak", "overhead", "host"], 0
    )
    speed = {"gpu": "a40-48", "step_seconds": 0.5, "samples_per_second": 16.0, "hours": 2.5, "price_per_sample": 1.0}
    return {**base, **parts, **speed, "fits": {"a100-40": True, "a40-48": True}, **changes}


def plan_with(costs, notes=()):
    phases = [
        {"begins": begins, "step": step, "steps": 5, "add": add, "learning_rates": dict.fromkeys(add, 1e-4),
         "trainable_parameters": count, "losses": {"itc": weight}}
        for begins, step, add, count, weight in (("start", 0, ["head"], 100, 1.0), ("epoch 2", 10, ["body"], 600, 0.5))
    ]  # fmt: skip
    stage = {
        **{
            "name": "align",
            "samples": 80,
            "steps": 15,
            "epochs": 3,
            "batch_size": 8,
            "groups": [],
            "losses": {"itc": 1},
        },
        **{"trainable_parameters": 600, "checkpoint_bytes": 4000, "adapter_bytes": 500, "resume_bytes": 9000},
        **{"precision": "bf16-mixed", "optim": "adamw_torch", "notes": list(notes), "costs": costs, "phases": phases},
        "as_written": {"setting": "plain", "checkpointing": True},
    }
    return {
        **{"family": "toy", "recipe": "night", "parameters": [], "total_parameters": 1000, "stages": [stage]},
        "assumptions": ["the moon is full"],
    }


def test_tables_show_phases_memory_and_the_cheapest(capsys):
    settings = [
        option(weights=int(1.25e9), total=int(46e9), fits={"a100-40": False, "a40-48": True}),
        option(checkpointing=True, total=int(20e9)),
        option(setting="zero3+optimizer+parameters", total=int(90e9), fits={"a40-48": False, "a100-40": False}),
    ]
    cheapest = [option(checkpointing=True), option(gpus=2), option(gpu="a100-40", price_per_sample=2.5, measured=True)]
    show_plan(plan_with({"settings": settings, "cheapest": cheapest}))
    out = capsys.readouterr().out
    for shown in ("epoch 2", "body=0.0001", "60.0 %", "itc=0.5", "adapter beside it 500 bytes", "to resume from 9 kB"):
        assert shown in out
    assert "46.0 GB  a40-48" in out and "20.0 GB  a100-40" in out and "90.0 GB  fits none" in out
    assert "plain, checkpointing *" in out and "plain *" not in out
    assert "zero3, offload optimizer and parameters" in out
    assert "1.25" in out and "a100-40 (measured)" in out and "x 2.50" in out and "Assumed: the moon is full." in out


def test_tables_say_what_is_not_known(capsys):
    show_plan(plan_with(None, notes=["no memory and time: it branches"]))
    assert "Note: no memory and time: it branches" in capsys.readouterr().out
    show_plan(plan_with({"settings": [option(fits={"a40-48": False})], "cheapest": []}))
    assert "Fits no GPU of the table" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hours", "text"),
    [(None, "-"), (3.8e-4, "under a minute"), (0.2, "12 min"), (5.12, "5.1 h"), (310.4, "310 h"), (10484, "10,484 h")],
)
def test_hours_as_people_say_them(hours, text):
    assert duration(hours) == text


def test_the_summary_answers_in_ten_lines(capsys):
    as_written = [option(gpu="a40-48", checkpointing=True, hours=2.5), option(gpu="a100-40", gpus=2, hours=0.1)]
    costs = {"settings": [option(checkpointing=True, total=int(20e9))], "cheapest": [], "cpu": option(hours=400.0)}
    plan = plan_with({**costs, "as_written": as_written})
    plan |= {"gpus": [{"name": "a100-40"}, {"name": "a40-48"}], "disk": {"finished": 12e9, "most": 30e9}}
    plan["assumptions"] = ["1,000 rows in fleet", "a batch takes long"]
    show_summary(plan, "hfvla plan night.yaml --all")
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 10
    for shown in (
        "night  toy, 1 k parameters, 1 stage", "head, body", "60 %", "20.0 GB",
        "one a40-48, as written (bf16-mixed, plain, checkpointing)", "2 x a100-40 6 min", "a40-48 2.5 h",
        "this CPU 400 h", "12 GB in the end, at most 30 GB", "1,000 rows in fleet", "hfvla plan night.yaml --all",
    ):  # fmt: skip
        assert shown in out, shown
    assert "a batch takes" not in out


def test_the_summary_says_what_an_epoch_has_of_each_source(capsys):
    small = {"source": "small", "rows": 36, "rows_per_epoch": 27, "share": 0.225, "weight": 1.0}
    large = {"source": "large", "rows": 180, "rows_per_epoch": 93, "share": 0.775, "weight": 2.0}
    plan = {**plan_with(None), "gpus": []}
    (stage,) = plan["stages"]
    plan["stages"] = [{**stage, "mixture": [small, large]}]
    show_summary(plan, "x")
    assert "Rows    small 27 of 36 (22.5%), large 93 of 180 (77.5%)" in capsys.readouterr().out
    streamed = {**large, "rows": None, "rows_per_epoch": None}
    plan["stages"] = [{**stage, "mixture": [small]}, {**stage, "name": "last", "mixture": [small, streamed]}]
    show_summary(plan, "x")
    assert "Rows    last: small 27 of 36 (22.5%), large 77.5% streamed" in capsys.readouterr().out


def test_the_summary_says_where_nothing_fits_as_written(capsys):
    cheapest = [option(gpu="a40-48", setting="zero3", gpus=4, hours=3.0)]
    plan = plan_with({"settings": [], "cheapest": cheapest, "as_written": [], "cpu": None}, notes=["it branches"])
    show_summary({**plan, "gpus": [{"name": "a100-40"}, {"name": "a40-48"}]}, "x")
    out = capsys.readouterr().out
    assert "no GPU of the table as written" in out and "4 x a40-48 with zero3" in out and "4 x a40-48 3.0 h" in out
    assert "Note    stage align: it branches" in out
    show_summary({**plan_with(None, notes=["no memory"]), "gpus": []}, "x")
    assert "Fits" not in capsys.readouterr().out


RECIPES = sorted(
    path
    for path in (Path(__file__).parents[2] / "recipes").glob("*/*.yaml")
    if path.parent.name not in ("accelerate",) and not path.name.startswith("compare")  # names recipes, and is none
)
LARGE = (
    "chat_vlm/llava_two_stage",
    "ember_vlm/full",
    "internvl_retrieval/full",
    "internvl_video_qa/full_8b",
    "sensor_vla/full",
)


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(path, marks=() if path.match("ember_vlm/smoke.yaml") else pytest.mark.slow,
                  id=f"{path.parent.name}-{path.stem}") for path in RECIPES],
)  # fmt: skip
def test_every_shipped_recipe_is_planned_in_less_than_25_lines_without_its_data(hfvla_cli, recipe, monkeypatch):
    done = hfvla_cli("plan", str(recipe))
    if done.code == 2 and "backbone: outputs/real/parts/" in recipe.read_text("utf-8"):  # built by `make real`
        assert "model.options.backbone cannot be read; got 'outputs/real/parts/" in done.err
        return
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) < 25 and lines[0].startswith(recipe.stem) and "e-0" not in done.out
    assert any(line.startswith("Fits") for line in lines) and any(line.startswith("Disk") for line in lines)
    if recipe.name == "full_8b.yaml":
        assert "1,000 rows in road_videos, whose data is not here" in done.out
        done = hfvla_cli("plan", str(recipe), "--samples", "1490", "--gpu", "mine:24GB")
        assert "1,490" in done.out and "mine-24 computes like" in done.out and done.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_every_setting_of_a_recipe_of_real_size_is_planned(hfvla_cli, name, repository):
    done = hfvla_cli("plan", str(repository / "recipes" / f"{name}.yaml"), "--all", "--json")
    assert done.code == 0, done.err
    for stage in json.loads(done.out)["stages"]:
        rows = stage["costs"]["settings"]
        settings = {(row["setting"], row["gpus"]) for row in rows if not row["checkpointing"]}
        assert len(settings) == len(SETTINGS) * len(GPU_COUNTS)
        plain = {row["checkpointing"]: row["total"] for row in rows if (row["setting"], row["gpus"]) == ("plain", 1)}
        assert set(plain) == {False, True} and plain[True] <= plain[False]


DRY = {
    "stages": [
        {
            "name": "align",
            "seconds": 3.0,
            "handover": {"carried": 7},
            "phases": [
                {
                    "begins": "start",
                    "losses": {"itc": 0.25},
                    "step_seconds": 0.125,
                    "peak_bytes": 3_000_000,
                    "gradients": [{"entry": "head", "tensors": 2, "with_gradient": 0, "norm": 0.0}],
                }
            ],
        }
    ],
    "problems": ["stage 'align', start: 'head' gets no gradient"],
    "seconds": 4.5,
}


def test_a_dry_run_with_problems_ends_with_2(hfvla_cli, monkeypatch, loaded):
    calls = []
    replace(
        monkeypatch, "hfvla.training.run.dry_run", dry_run=lambda recipe, **part: calls.append((recipe, part)) or DRY
    )
    done = hfvla_cli("train", "r.yaml", "seed=1", "--dry-run", "--stop-after", "align")
    assert done.code == 2
    assert calls == [(("r.yaml", ["seed=1"]), {"start_at": None, "from_checkpoint": None, "stop_after": "align"})]
    for shown in ("stage align: handed over carried=7", "itc=0.25", "head", "0.125", "3 MB", "Problem: stage 'align'"):
        assert shown in done.out
    done = hfvla_cli("train", "r.yaml", "--dry-run", "--json")
    assert done.code == 2 and json.loads(done.out) == DRY


def test_a_dry_run_without_problems(hfvla_cli, monkeypatch, loaded):
    replace(monkeypatch, "hfvla.training.run.dry_run", dry_run=lambda *_, **__: {**DRY, "problems": []})
    done = hfvla_cli("train", "r.yaml", "--dry-run")
    assert done.code == 0 and "Every stage and phase trains (4.5 s); nothing was left on disk." in done.out
    done = hfvla_cli("train", "r.yaml", "--dry-run", "--output", "there")
    assert done.code == 2 and "leaves nothing on disk; got '--output" in done.err
