"""Every metric loads offline by `evaluate.load(folder)` and by `load_metric`, and both give the functions' numbers."""

import evaluate
import pytest

from hfvla.metrics import METRICS, load_metric, metric_folder

STEPS = [{"subtask": "fly", "robot": "Drone", "order": 1}, {"subtask": "walk", "robot": "Humanoid", "order": 2}]
CHAIN = "Step 1: Task Analysis: inspect the roof.\nStep 4: Decision Justification: high up. Decision: Drone."
CASES = {
    "selection": ({"predictions": [[0.9, 0.2]], "references": [[1, 0]], "robots": ["A", "B"]}, "f1/A", 1.0),
    "calibration": ({"predictions": [0.9, 0.9], "references": [1, 0]}, "ece", 0.4),
    "qa": ({"predictions": [0, -1], "references": [0, 1], "counts": [2, 4], "kinds": ["a", "b"]}, "chance", 0.375),
    "plan": ({"predictions": [STEPS], "references": [STEPS]}, "order_spearman", 1.0),
    "reasoning": (
        {"predictions": [CHAIN], "references": [{"task": "Inspect the roof", "robots": ["Drone"]}]},
        "consistency",
        1.0,
    ),
    "retrieval": (
        {
            "predictions": [[1.0, 0.0], [0.0, 2.0]],
            "references": ["a", "b"],
            "images": [[3.0, 0.0], [1.0, 0.1]],
            "image_groups": ["a", "b"],
        },
        "t2i_r1",
        1.0,
    ),
    "boxes": ({"predictions": [[0.3, 0.5, 0.4, 0.4]], "references": [[0.5, 0.5, 0.4, 0.4]]}, "iou", 1 / 3),
    # Errors 1 and 3 in the two valid steps: (1 + 9) / 2; holding 0 leaves 1 and 5: (1 + 25) / 2.
    "actions": (
        {
            "predictions": [[[0.0], [2.0], [9.0]]],
            "references": [[[1.0], [5.0], [0.0]]],
            "masks": [[True, True, False]],
            "names": ["x_mm"],
            "last_actions": [[0.0]],
            "train_mean": [3.0],
        },
        "skill/hold_last",
        1 - 5 / 13,
    ),
    # Of three who agree, one is left out in three of ten cases: (3 x 2/3 + 7 x 1) / 10.
    "vqa": (
        {"predictions": ["The dogs"], "references": [["dogs"] * 3 + ["cat"] * 7], "kinds": ["what"]},
        "vqa_accuracy_by_kind/what",
        0.9,
    ),
    "captions": (
        {"predictions": ["a b c d", "e f g h"], "references": [["a b c d", "x"], ["e f g h"]]},
        "cider",
        7.5,  # 10 for the second; half of 10 for the first, which has another caption
    ),
    # Perplexities of the first tokens: exp((1 + 3) / 2).
    "token_losses": (
        {"predictions": [[1.0], [3.0, 2.0]], "references": [[5], [6, 7]]},
        "perplexity_at/1",
        7.38905609893065,
    ),
    "spatial": ({"predictions": [[0, 1], [2, 2]], "references": [[0, 1], [1, 2]]}, "accuracy", 0.75),
}


def test_every_metric_has_a_case():
    assert set(METRICS) == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_load_metric_computes(name):
    arguments, key, expected = CASES[name]
    assert load_metric(name).compute(**arguments)[key] == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(CASES))
def test_evaluate_load_reads_the_folder_offline(name):
    arguments, key, expected = CASES[name]
    value = evaluate.load(str(metric_folder(name))).compute(**arguments)[key]
    assert value == pytest.approx(expected, abs=1e-9)


def test_unknown_metric_is_named():
    with pytest.raises(ValueError, match="selektion"):
        load_metric("selektion")
