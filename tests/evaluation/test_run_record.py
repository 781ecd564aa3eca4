"""What a run folder tells: curves, progression and tables; nothing from other folders."""

import json

import torch

from hfvla.evaluation.run_record import parameter_figure, read_run

HANDED = [{"module": "head", "status": "new", "how": "initialised"}, {"module": "vision", "status": "carried"}]
HISTORY = [
    {
        "step": 5,
        "loss": 2.0,
        "first/loss_itc": 1.5,
        "first/weight_itc": 0.5,
        "learning_rate": 0.1,
        "first/learning_rate_head": 0.3,
    },
    {"step": 10, "loss": 1.0, "first/loss_itc": 0.5, "learning_rate": 0.05},
    {"step": 10, "eval_loss": 1.2, "eval_exact_match": 0.25},
    {"step": 10, "train_loss": 1.5, "train_runtime": 3.0},
]


def _run(folder):
    stages = [{"name": "first", "seconds": 3.0}, {"name": "second", "scores": {"eval_exact_match": 0.5}}]
    (folder / "run.json").write_text(json.dumps({"seed": 4, "stages": stages}))
    (folder / "first").mkdir()
    (folder / "first" / "log_history.json").write_text(json.dumps(HISTORY))
    (folder / "first" / "trainable.json").write_text(json.dumps([{"group": "vision", "trainable": False}]))
    (folder / "second").mkdir()
    (folder / "second" / "handover.json").write_text(json.dumps({"source": "first", "modules": HANDED}))


def test_curves_progression_and_tables(tmp_path):
    _run(tmp_path)
    record = read_run(tmp_path)
    assert record.facts == {"seed": 4}
    figures = {figure.name: figure for figure in record.figures}
    assert list(figures) == ["curves_first", "progression", "trainable_first", "handover_second"]
    panels = {panel["title"]: panel["series"] for panel in figures["curves_first"].data["panels"]}
    assert list(panels) == ["loss", "loss itc", "learning rate"]
    assert panels["loss"] == {"train": {"x": [5, 10], "y": [2.0, 1.0]}, "eval": {"x": [10], "y": [1.2]}}
    assert panels["learning rate"]["head"] == {"x": [5], "y": [0.3]}
    assert panels["loss itc"]["train"]["y"] == [1.5, 0.5]
    # the first stage's score comes from its history, the second's from run.json
    assert figures["progression"].data == {"stages": ["first", "second"], "series": {"exact match": [0.25, 0.5]}}
    assert figures["trainable_first"].data == {"columns": ["group", "trainable"], "rows": [["vision", "no"]]}
    columns, rows = ["module", "status", "how"], [["head", "new", "initialised"], ["vision", "carried", ""]]
    assert figures["handover_second"].data == {"columns": columns, "rows": rows}


def test_other_folders_give_nothing(tmp_path):
    record = read_run(tmp_path)
    assert (record.facts, record.stages, record.figures) == ({}, [], [])


def test_parameters_are_counted_once_by_the_first_part_that_matches():
    model = torch.nn.ModuleDict({"vision": torch.nn.Linear(3, 2), "head": torch.nn.Linear(2, 1)})
    rows = parameter_figure(model, {"vision": ("vision.*",), "weights": ("*weight",)}).data["rows"]
    # vision 3 * 2 + 2 = 8, head weight 2, head bias 1
    assert rows == [["vision", 8, "72.7%"], ["weights", 2, "18.2%"], ["other", 1, "9.1%"], ["total", 11, "100.0%"]]


def test_how_the_loss_terms_get_on_is_drawn(tmp_path):
    (tmp_path / "first").mkdir()
    history = [
        {"step": 2, "first/cosine_itc_itm": -0.5, "first/gradnorm_itc": 3.0, "first/gradnorm_itm": 1.0},
        {"step": 2, "loss": 1.0, "first/balance_itc": 1.5, "balance_other": 1.0},
        {"step": 4, "first/cosine_itc_itm": 0.25},
    ]
    (tmp_path / "first" / "log_history.json").write_text(json.dumps(history))
    (tmp_path / "run.json").write_text(json.dumps({"stages": [{"name": "first"}]}))
    figures = {figure.name: figure for figure in read_run(tmp_path).figures}
    assert list(figures) == ["curves_first", "balance_first"]
    assert figures["balance_first"].data["panels"] == [
        {"title": "cosine of gradients", "xlabel": "step", "series": {"itc_itm": {"x": [2, 4], "y": [-0.5, 0.25]}}},
        {
            "title": "gradient norm",
            "xlabel": "step",
            "series": {"itc": {"x": [2], "y": [3.0]}, "itm": {"x": [2], "y": [1.0]}},
        },
        {"title": "weight after balancing", "xlabel": "step", "series": {"itc": {"x": [2], "y": [1.5]}}},
    ]


def test_losses_by_source_have_a_panel_of_their_own(tmp_path):
    lines = [
        {"step": 1, "loss": 2.0, "first/loss_sft": 2.0, "first/loss_sft/coco": 1.5, "first/loss_sft/vqa v2/val": 3.0},
        {"step": 2, "loss": 1.0, "first/loss_sft": 1.0, "first/loss_sft/coco": 0.5},
        {"step": 2, "eval_loss": 1.1, "eval_loss_sft": 1.1, "eval_loss_sft/coco": 0.7},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"stages": [{"name": "first"}]}))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "log_history.json").write_text(json.dumps(lines))
    (figure,) = read_run(tmp_path).figures
    panels = {panel["title"]: panel["series"] for panel in figure.data["panels"]}
    assert set(panels) == {"loss", "loss sft", "loss sft by source"}
    assert panels["loss sft by source"] == {
        "coco": {"x": [1, 2], "y": [1.5, 0.5]},
        "vqa v2/val": {"x": [1], "y": [3.0]},
        "coco, eval": {"x": [2], "y": [0.7]},
    }
    assert panels["loss sft"]["eval"] == {"x": [2], "y": [1.1]}
