"""Benchmarks run at toy size and write what they promise; their numbers are not tested."""

import importlib.util
import json
import os
import runpy
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _as_scripts(repository, monkeypatch):
    """Let benchmarks find the module beside them that they share."""
    monkeypatch.syspath_prepend(repository / "benchmarks")


def run(repository, monkeypatch, name, output, *words):
    script = repository / "benchmarks" / name
    monkeypatch.setattr(sys, "argv", [str(script), *words, "--output", str(output)])
    benchmark = runpy.run_path(str(script))
    benchmark["main"]()
    return json.loads(output.read_text())


def test_trainer_overhead(repository, monkeypatch, tmp_path, capsys):
    words = ("--steps", "12", "--batch", "2", "--width", "32", "--layers", "1")
    found = run(repository, monkeypatch, "trainer_overhead.py", tmp_path / "o.json", *words)
    assert [result["turns"] for result in found["results"]] == [6, 6]
    for result in found["results"]:
        assert set(result["clock"]["ratio"]) == {"Trainer", "StagedTrainer"}
        assert all(entry["median"] > 0 for entry in result["clock"]["milliseconds"].values())
    assert (
        found["hardware"]["cores"] >= 1
        and "ratio of StagedTrainer to the hand-written loop" in capsys.readouterr().out
    )


def test_plan_recipes(repository, monkeypatch, tmp_path, capsys):
    found = run(repository, monkeypatch, "plan_recipes.py", tmp_path / "l.json", "--recipes", "sensor_vla/smoke.yaml")
    (row,) = found["recipes"].values()
    assert row["exit_code"] == 0 and row["seconds"] > 0 and 5 < row["lines"] == found["most_lines"] < 25
    assert found["import_torch_seconds"] > 0 and "sensor_vla/smoke.yaml" in capsys.readouterr().out


def test_packing(repository, monkeypatch, tmp_path, capsys):
    words = ("--turns", "2", "--width", "32", "--layers", "1")
    found = run(repository, monkeypatch, "packing.py", tmp_path / "p.json", *words)
    for result in found["results"]:
        assert result["padding"]["packed"] < result["padding"]["by length"] < result["padding"]["padded"]
        assert result["largest_difference_of_losses"] < 1e-4
        assert result["epoch_of_4096_rows"]["rows"] == 4096
    assert "packed over padded" in capsys.readouterr().out


def test_gpu_on_a_cpu(repository, monkeypatch, tmp_path, capsys):
    words = ("--device", "cpu", "--tiny", "--steps", "1", "--models", "ember_vlm", "internvl3_1b")
    found = run(repository, monkeypatch, "gpu.py", tmp_path / "g.json", *words)
    measured = {(row["model"], row["variant"]): row for row in found["rows"] if "left_out" not in row}
    for model in ("ember_vlm", "internvl3_1b"):
        assert {"sdpa", "sdpa + gradient checkpointing", "sdpa + torch.compile"} <= {
            v for m, v in measured if m == model
        }
        assert measured[model, "sdpa"]["flops"] > 0 and measured[model, "sdpa"]["estimated_bytes"] > 0
    packed = measured["internvl3_1b", "sdpa + 4 samples packed"]
    assert 0 < packed["flops"] < 2 * measured["internvl3_1b", "sdpa"]["flops"]  # twice the samples, few logits
    frozen = measured["internvl3_1b", "sdpa"]
    assert 0 < frozen["trainable"] < frozen["parameters"]
    printed = capsys.readouterr().out
    assert found["cache"]["ratio"] > 1 and "goal 20x" in printed
    chunks = {(row["expert"], row["views"], row["kind"], row["steps"]): row for row in found["actions"]}
    assert {("regression", views, "eager", None) for views in (1, 2, 3, 5)} <= set(chunks)
    assert {(kind, 2, "cached features", steps) for kind in ("diffusion", "flow") for steps in (5, 10, 20)} <= set(
        chunks
    )
    assert all(row["p95_ms"] >= row["p50_ms"] > 0 for row in chunks.values()), chunks
    assert "goal on an H100" in printed


def test_retrieval_eval(repository, monkeypatch, tmp_path, capsys):
    words = ("--images", "300", "--texts", "500", "--width", "16", "--groups", "20", "--turns", "2", "--sample", "40")
    found = run(repository, monkeypatch, "retrieval_eval.py", tmp_path / "r.json", *words)
    assert found["sample"]["equal_ranks"] == found["sample"]["queries"] == 40 and found["sample"]["recalls_equal"]
    assert found["time"]["processor"]["ratio"] > 0 and set(found["loops"]) == {"one by one", "in one step"}
    assert "brute force" in capsys.readouterr().out


def test_lerobot_reader(repository, monkeypatch, tmp_path, capsys):
    pytest.importorskip("lerobot")
    words = ("--codecs", "h264", "--episodes", "2", "--steps", "12", "--size", "64", "96", "--rounds", "2")
    found = run(repository, monkeypatch, "lerobot_reader.py", tmp_path / "l.json", *words)
    wall = found["results"]["h264"]["wall"]
    assert {"hfvla", "hfvla, one thread", "lerobot, PyAV"} <= set(wall["samples_per_s"])
    assert all(rate > 0 for rate in wall["samples_per_s"].values())
    assert set(wall["speedup_of_hfvla"]) == set(wall["samples_per_s"]) - {"hfvla"}
    assert found["dataset"] == {"episodes": 2, "steps": 12, "size": [64, 96], "cameras": 2}
    assert "samples/s, two cameras" in capsys.readouterr().out


def test_reader_scale(repository, monkeypatch, tmp_path, capsys):
    words = ("--records", "300", "--baseline-records", "200", "--pictures", "5", "--pairs", "6")
    words += ("--rounds", "1")
    found = run(repository, monkeypatch, "reader_scale.py", tmp_path / "s.json", *words)
    assert found["index"]["rows"] == 300 and found["json_list"]["rows"] == 200
    assert all(found[part]["peak_gb"] > 0 for part in ("index", "open", "stream"))
    assert set(found["pairs"]["pictures"]["ratio"]) == {"torchvision", "hfvla", "hfvla, draft"}
    tars = {"webdataset", "hfvla", "hfvla, headers looked at"}
    assert "webdataset" in found["left_out"] or set(found["pairs"]["tars, bytes"]["ratio"]) == tars
    assert "opened again, first shuffled rows" in capsys.readouterr().out


def test_layouts_of_tables(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        "sys.argv", ["reader_scale.py", "--output", str(tmp_path / "s.json"), "--layout", "--records", "8000"]
    )
    runpy.run_path(str(repository / "benchmarks/reader_scale.py"), run_name="__main__")
    found = json.loads((tmp_path / "s_layout.json").read_text())
    assert found["batches_of_100"]["rows"] == found["batches_of_4000"]["rows"] == 8000
    assert found["batches_of_100"]["opened"]["anonymous_gb"] > 0 and "8,000 rows" in capsys.readouterr().out


def without(monkeypatch, package):
    """Let a package be not installed, here and in processes that are started."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *words: None if name == package else find(name, *words)
    )
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


def test_lerobot_reader_without_lerobot(repository, monkeypatch, tmp_path, capsys):
    without(monkeypatch, "lerobot")
    found = run(repository, monkeypatch, "lerobot_reader.py", tmp_path / "l.json")
    assert found["left_out"] == {"lerobot": "not installed (pip install lerobot)"} and found["results"] == {}
    assert "lerobot: left out, not installed" in capsys.readouterr().out


@pytest.mark.parametrize("absent", [{}, {"torchcodec": "no FFmpeg", "decord": "not there"}])
def test_video_decode_times_what_works_here_and_names_the_rest(repository, monkeypatch, tmp_path, capsys, absent):
    from hfvla.data import video

    here = {**video.available_backends(), **absent}
    monkeypatch.setattr(video, "available_backends", lambda: here)
    for package in (name for name, why in here.items() if why):
        without(monkeypatch, package)
    words = ("--rounds", "1", "--seconds", "1")
    found = run(repository, monkeypatch, "video_decode.py", tmp_path / "v.json", *words)
    gone = [name for name, why in here.items() if why]
    assert set(found["left_out"]) >= {*gone, *(f"hfvla, backend={name}" for name in gone)}
    printed = capsys.readouterr().out
    for clip in found["clips"].values():
        timed = set(clip["wall"]["median_ms"])
        assert {"hfvla", "PyAV, seek and decode", "transformers"} <= timed and not timed & set(found["left_out"])
        assert clip["wall"]["fastest_bare"] in timed
    for way, why in found["left_out"].items():
        assert f"{way}: left out, {why}" in printed


def test_policy_server(repository, monkeypatch, tmp_path, capsys):
    found = run(repository, monkeypatch, "policy_server.py", tmp_path / "p.json", "--quick")
    assert set(found["sensor"]) == {"none", "65 x 1026"}
    for ways in found["sensor"].values():
        assert {way: one["calls"] for way, one in ways.items()} == {"raw": 5, "JPEG 95": 5, "JPEG 80": 5}
        assert ways["raw"]["bytes"] > ways["JPEG 95"]["bytes"] > ways["JPEG 80"]["bytes"]
        assert all(one["p95_ms"] >= one["p50_ms"] > one["policy_p50_ms"] > 0 for one in ways.values())
    assert found["sensor"]["none"]["raw"]["bytes"] > 2 * 36 * 64 * 3 and "round trip" in capsys.readouterr().out


def test_policy_server_attacked(repository, monkeypatch, tmp_path, capsys):
    found = run(repository, monkeypatch, "policy_server.py", tmp_path / "p.json", "--hostile", "--quick")
    assert found["attacks"] > 0 and found["attacked"]["calls"] > 0 and found["alone"]["calls"] > 0
    assert found["memory_peak_mib"] < found["memory_mib"] + 40, "31 MiB messages are not kept"
    assert "while 8 clients attack" in " ".join(capsys.readouterr().out.split())


def test_attack(repository, monkeypatch, tmp_path, capsys):
    found = run(repository, monkeypatch, "attack.py", tmp_path / "a.json", "--part", "policy_server", "--count", "500")
    assert found["parts"]["policy_server"]["lost"] == [] and "attacks from seed 100000" in capsys.readouterr().out


def skip_without(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {missing}")


def check_insertion(found):
    rows = {(row["side"], row["policy"]): row for row in found["rows"]}
    for row in rows.values():
        assert row["variant"] == "hidden_offset" and row["episodes"] == 2 and row["parameters"] > 0
        assert sum(episodes for _, episodes in row["by_direction"].values()) == 2
        training = row["training"]
        assert training["processor_s"] >= found["settings"]["budget_processor_s"] and training["steps"] > 0
        assert training["samples"] == training["steps"] * training["batch"]
    return rows


@pytest.mark.system("pictures")
def test_insertion_vs_lerobot_our_side(repository, monkeypatch, tmp_path, capsys):
    skip_without("metaworld", "mujoco", "accelerate")
    without(monkeypatch, "lerobot")
    words = ("--quick", "--work", str(tmp_path))
    rows = check_insertion(run(repository, monkeypatch, "insertion_vs_lerobot.py", tmp_path / "i.json", *words))
    assert set(rows) == {("hfvla", "regression")} and "processor seconds of training" in capsys.readouterr().out


@pytest.mark.system("pictures")
def test_insertion_vs_lerobot(repository, monkeypatch, tmp_path):
    """Needs an environment with lerobot and the simulator: this one, or LEROBOT_PYTHON names its interpreter."""
    python = os.environ.get("LEROBOT_PYTHON")
    skip_without("metaworld", "mujoco", "accelerate", *(() if python else ("lerobot",)))
    words = ("--quick", "--work", str(tmp_path), "--lerobot-python", python or sys.executable)
    found = run(repository, monkeypatch, "insertion_vs_lerobot.py", tmp_path / "i.json", *words)
    rows = check_insertion(found)
    assert set(rows) == {("hfvla", "regression"), ("lerobot", "act"), ("lerobot", "diffusion")}
    assert {row["wrench"] for row in rows.values()} == {None, "mean"}
    again = run(repository, monkeypatch, "insertion_vs_lerobot.py", tmp_path / "i.json", *words, "--resume")
    assert again["rows"] == found["rows"]  # kept, not run again


def test_insertion_budget_counts_steps_only(repository):
    """By hand: half of a cosine from 1 to 0.02 is 0.51; at 0.3 % of the budget the warm-up is at 0.004 / 0.03."""
    budget = runpy.run_path(str(repository / "benchmarks/insertion_sides/budget.py"))["Budget"](0.2)
    sum(number * number for number in range(3_000_000))  # outside a step
    assert budget.spent == 0 and not budget.over
    while not budget.over:
        budget.start()
        sum(number * number for number in range(100_000))
        budget.stop()
    assert 0.2 <= budget.spent < 0.4 and budget.facts(8)["samples"] == 8 * budget.steps and budget.share == 1
    budget.spent = 0.1
    assert budget.factor("cosine") == pytest.approx(0.51) and budget.factor("constant") == 1
    budget.spent = 0.0006
    assert budget.factor("constant") == pytest.approx(0.004 / 0.03)


def test_road_shortcuts(repository):
    """By hand: of red, red, green, amber, red is right at two of four; of two pairs, either is right half the time."""
    from types import SimpleNamespace

    benchmark = runpy.run_path(str(repository / "benchmarks/road_shortcuts.py"))
    clips = [
        SimpleNamespace(name=name, stations=[SimpleNamespace(light=value, side="left") for value in lights])
        for name, lights in (("a", ["red", "red", "green", "amber"]), ("b", ["red", "red", "green", "green"]))
    ]
    questions = [
        SimpleNamespace(kind="light", video=f"{clip.name}.mp4", details={"station": str(number)})
        for clip in clips
        for number in range(4)
    ] + [SimpleNamespace(kind="side", video="a.mp4", details={"station": "0"})]
    scores = benchmark["majority_scores"]
    scores.__globals__["generate_questions"] = lambda *_: (clips, questions)
    found = scores(None, 0)
    assert found == {"light": ((2 + 4 * 0.5) / 8, 8), "side": (1.0, 1), "all": (5 / 9, 9)}


@pytest.mark.parametrize("conditions", ["plain", "varied"])
def test_drone_shortcuts(repository, conditions):
    """Every statement that the reader takes from a caption is true of its picture, so it finds what colours do not."""
    from hfvla.worlds.drone import DroneOptions
    from hfvla.worlds.drone.builder import draw_images

    benchmark = runpy.run_path(str(repository / "benchmarks/drone_shortcuts.py"))
    told = set()
    for image in draw_images(DroneOptions(buildings=40, captions=2, conditions=conditions), 1):
        for wording in image.wordings:
            found = benchmark["statements"](wording.caption)
            assert len(found) >= 3 and found <= benchmark["facts_of"](image), wording.caption
            told |= {one.split()[0] for one in found}
    assert {"ground", "mark", "road", "pool"} <= told
    found = benchmark["measure"](conditions, train=12, test=8, size=32, seed=1)
    reader, _, chance = found.values()
    assert reader["mean_recall"] > 0.95 > chance["mean_recall"]


def test_drone_shortcuts_pairs_a_model_with_the_ridge(repository):
    import numpy as np

    from hfvla.metrics.retrieval import RetrievalRanks

    paired = runpy.run_path(str(repository / "benchmarks/drone_shortcuts.py"))["paired"]
    groups, hit = [f"b{row // 2}" for row in range(40)], np.ones(40, bool)
    near, far = np.zeros(40, int), np.where(np.arange(40) < 20, 0, 3)  # the ridge has half at rank 3: R@1 0.5, R@5 1
    found = paired(RetrievalRanks(near, near, hit, hit), RetrievalRanks(far, near, hit, hit), groups, seed=0)
    difference, low, high = found["t2i_r1"]
    assert difference == 0.5 and 0.2 < low < 0.5 < high < 0.8
    assert found["t2i_r5"] == [0.0, 0.0, 0.0] and found["i2t_r1"] == [0.0, 0.0, 0.0]


def test_trainer_and_loop_end_with_the_same_weights(repository, monkeypatch):
    """The three do the same work: equal starts and rows end in weights as near as dropout's other draws allow."""
    import torch
    from transformers import PreTrainedConfig

    benchmark = runpy.run_path(str(repository / "benchmarks/trainer_overhead.py"))
    torch.manual_seed(0)
    model = benchmark["TwoTowers"](PreTrainedConfig(width=32, layers=1))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = benchmark["build_rows"](4)
    import copy
    import tempfile

    ends = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Trainer", "StagedTrainer"):
            trainer = benchmark["build_trainer"](name, copy.deepcopy(model), rows, 4, 3, False, folder)
            trainer.train()
            ends.append(trainer.model.state_dict())
        by_hand = copy.deepcopy(model)
        turns = benchmark["Turns"](benchmark["NAMES"][:1])
        benchmark["hand_written"](by_hand, rows, 4, 3, False, turns)
    for name, value in by_hand.state_dict().items():
        for end in ends:
            torch.testing.assert_close(end[name], value, atol=1e-4, rtol=0, msg=name)


def test_edge(repository, monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    vision = {"architecture": "repvit_m0_9", "do_pooling": False}
    vision["model_args"] = {"embed_dim": [8, 8, 16, 16], "depth": [1, 1, 1, 1]}
    text = {"n_layer": 2, "n_head": 2, "n_embd": 96, "n_inner": 384, "n_positions": 512}
    config = {"vision_config": vision, "text_config": text, "image_size": 64, "vision_hidden_size": 16}
    words = ("--config", json.dumps(config), "--steps", "2", "--batch", "4", "--train-rows", "24", "--pictures", "8")
    words += ("--rows", "6", "--runs", "3", "--threads", "1")
    found = run(repository, monkeypatch, "edge.py", tmp_path / "e.json", *words)
    assert found["left_whole"] == {"vision": [], "select": []}
    assert found["engines"]["int8"]["file_mb"] < 0.8 * found["engines"]["float32"]["file_mb"]
    (one,) = found["sets"]["generated"]
    assert one["rows"] == 6 and 0 <= one["alike"] <= 1
    assert "decided alike" in capsys.readouterr().out
