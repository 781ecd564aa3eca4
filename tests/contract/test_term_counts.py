"""A loss term is one mean, whichever batches its rows are spread over: what `term_counts` promises, for every family.

Left out are the terms that compare the rows of a batch with each other (itc, itm): another batch is another question.
"""

import pytest
import torch

from hfvla.losses.action import masked_squared_error
from hfvla.nn.pooling import masked_mean

from .counts_worker import moved

IN_BATCH = {"itc", "itm"}
SPLITS = ([8], [1] * 8, [3, 5], [2, 2, 2, 2])


def thinned(family: str, rows) -> list[dict]:
    """Return rows of which some lack what a term needs, or count otherwise."""
    rows = [dict(row) for row in rows]
    changes = {
        "chat_vlm": {1: {"rejected": []}, 2: {"weight": 0.5}, 4: {"weight": 2.0}},
        "ember_vlm": {1: {"dialogue": []}, 2: {"robots": [], "reasoning": ""}, 4: {"caption": ""}},
        "internvl_video_qa": {2: {"answer": -1}, 5: {"answer": -1}},
        "internvl_retrieval": {0: {"boxes": [], "sentences": []}},
        "sensor_vla": {1: {"details": "confidence=0.25"}, 3: {"sensor": None}, 6: {"details": "confidence=0"}},
    }[family]
    for index, change in changes.items():
        rows[index].update(change)
    if family == "internvl_retrieval":  # one box has no relation
        rows[3] |= {"boxes": rows[3]["boxes"][:1], "sentences": rows[3]["sentences"][:1]}
    return rows


@pytest.fixture
def model(built, monkeypatch):
    """A copy without dropout, without rounding of inputs, and without noise that depends on the place in a batch."""
    model = moved(built.spec, built.copy())

    def loss(tokens, actions, mask, *, feature_mask, generator):
        found = masked_mean(tokens, feature_mask)[:, None, : actions.shape[2]]
        return masked_squared_error(found.expand(-1, actions.shape[1], -1), actions, mask)

    if built.spec.name == "sensor_vla":
        monkeypatch.setattr(model.expert, "loss", loss)
        monkeypatch.setattr(model.expert, "sample", lambda *args, **kwargs: None)
    return model


def step(model, batches, losses):
    """Return each term's mean over all batches, its count, and the gradient of their sum."""
    counts = [model.term_counts(batch) for batch in batches]
    totals = {name: sum(float(count.get(name, 0.0)) for count in counts) for name in losses}
    means = dict.fromkeys(losses, 0.0)
    model.zero_grad()
    for batch, count in zip(batches, counts, strict=True):
        terms = model(**batch).loss_terms or {}
        parts = [terms[name] * (float(count[name]) / totals[name]) for name in losses if name in terms]
        for name in losses:
            if name in terms:
                means[name] += terms[name].item() * float(count[name]) / totals[name]
            else:
                assert float(count.get(name, 0.0)) == 0.0, name  # what is not there counts nothing
        if parts:
            torch.stack(parts).sum().backward()
    grads = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return means, totals, grads


def check(built, model, losses):
    rows = thinned(built.spec.name, built.rows)
    collator = built.collator(*losses)
    found = []
    for sizes in SPLITS:
        places = iter(rows)
        found.append(step(model, [collator([next(places) for _ in range(size)]) for size in sizes], losses))
    means, totals, grads = found[0]
    assert all(total > 0 for total in totals.values()) and all(means.values()) and grads
    for other_means, other_totals, other_grads in found[1:]:
        assert other_totals == pytest.approx(totals) and other_means == pytest.approx(means, rel=1e-5)
        assert set(other_grads) == set(grads)
        for name, value in grads.items():
            scale = float(value.abs().max().clamp_min(1e-3))
            assert (other_grads[name] - value).abs().max() <= 1e-4 * scale, name


# `check` compares losses and gradients; the tests say of which terms.


def test_one_batch_equals_many(built, model):
    losses = [name for name in built.spec.losses if name not in IN_BATCH]
    assert losses
    check(built, model, losses)


def test_tokens_may_count_alike(built, model):
    if not hasattr(model.config, "text_loss_reduction"):
        pytest.skip("no losses on text")
    model.config.text_loss_reduction = "token"
    losses = [name for name in built.spec.losses if name in ("caption", "instruct", "reasoning", "words", "spelt")]
    check(built, model, losses)
