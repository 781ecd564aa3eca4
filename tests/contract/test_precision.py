"""The precision contract: in whatever types a model is loaded and run, it trains the same, and in float32.

For every family and optional switch: two steps train, loss terms are finite and near those of float32, exactly the
stage's parameters move, and they, their gradients and the optimizer's state are float32.
"""

import math
from functools import lru_cache

import pytest
import torch

from hfvla.registry import available_families

from .precision_cases import PRECISIONS, STEPS, Case, build, cases, run_case

FLOAT32 = PRECISIONS["float32"]
# Every family and each switch once, each with one of the precisions; all pairs are the matrix.
COVERING = {
    "chat_vlm-lora": "bf16 weights, no autocast",
    "ember_vlm-ngrams": "bf16 weights",
    "internvl_retrieval-plain": "bf16 weights, no autocast",
    "internvl_retrieval-image_from_language": "bf16 autocast",
    "internvl_video_qa-lora": "bf16 weights",
    "internvl_video_qa-checkpointing": "bf16 weights",
    "sensor_vla-expert_flow": "bf16 weights, no autocast",
    "sensor_vla-dora": "bf16 weights",
}
ALL = [(case, name) for case in cases() for name in PRECISIONS if name != "float32"]


def parameters():
    for case, name in ALL:
        fast = COVERING.get(str(case)) == name
        yield pytest.param(case, name, id=f"{case}-{name}", marks=() if fast else pytest.mark.matrix)


@lru_cache(maxsize=2)
def reference(case: Case, folder: str):
    """Return a case's model and its float32 run; parameters are ordered so that the last is asked for again."""
    built = build(case)
    return built, run_case(case, FLOAT32, built, folder)


def test_the_covering_sample_names_cases():
    assert set(COVERING) <= {str(case) for case, _ in ALL} and set(COVERING.values()) <= set(PRECISIONS)


@pytest.mark.parametrize(("case", "precision"), list(parameters()))
def test_every_precision_trains_what_float32_does(case, precision, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "precision"
    built, wanted = reference(case, str(folder))
    found = run_case(case, PRECISIONS[precision], built, folder)
    assert found.types == wanted.types == {torch.float32}
    assert found.moved == wanted.moved == found.trained - set(case.still)
    assert len(found.terms) == len(wanted.terms) == STEPS
    for number, terms in enumerate(wanted.terms):
        for name, value in terms.items():
            near = found.terms[number][name]
            assert math.isfinite(near), (number, name, near)
            gap = abs(near - value) / max(1.0, abs(value))
            assert gap <= PRECISIONS[precision].tolerance, (number, name, value, near)


@pytest.mark.parametrize("family", [name for name, spec in available_families().items() if not spec.plain])
def test_terms_in_fp16_are_those_of_float32(family):
    """On a CPU the Trainer has no fp16; its autocast has. Under DDP or alone, a term must not overflow in it."""
    case = Case(family, "plain")
    model, processor, rows = reference_model(case)
    spec = available_families()[family]
    collator = spec.load("collator")(processor, model.config, losses=tuple(spec.losses), training=True)
    batch = collator([dict(row) for row in rows])
    torch.manual_seed(0)
    wanted = model(**batch).loss_terms
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.float16):
        found = model(**batch).loss_terms
    assert set(found) == set(wanted) == set(spec.losses)
    for name, value in wanted.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(
            found[name], value, atol=1e-2, rtol=1e-2, msg=lambda text, name=name: f"{name}: {text}"
        )


def reference_model(case: Case):
    model, processor, rows = build(case)
    return model.eval(), processor, rows
