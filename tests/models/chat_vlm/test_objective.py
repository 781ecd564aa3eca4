"""The loss terms by hand-computed numbers, and what hooks leave as it was."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from hfvla.errors import CheckpointError
from hfvla.models.chat_vlm import FAMILY
from hfvla.nn.objective import carry_objective, detach_objective, objective_of


@pytest.fixture
def batch(rows, processor, built):
    collator = FAMILY.load("collator")(processor, built[0].config, losses=("sft", "dpo", "distill"))
    return collator([dict(row) for row in rows.select(range(3))])


def plain_logits(model, batch):
    given = {k: v for k, v in batch.items() if k not in ("labels", "sequence_weights", "pairs")}
    with torch.inference_mode():
        return model(**given).logits


def token_losses(model, batch):
    """Return the losses of each sequence's learned tokens, one by one."""
    logits = plain_logits(model, batch)
    found = []
    for row, labels in zip(logits, batch["labels"], strict=True):
        places = [t for t in range(1, len(labels)) if labels[t] >= 0]
        found.append([float(F.cross_entropy(row[t - 1], labels[t])) for t in places])
    return found


def test_sft_is_the_mean_over_tokens_by_weight(model, batch):
    batch["sequence_weights"][:3] = torch.tensor([1.0, 0.5, 0.0])
    losses = token_losses(model, batch)
    wanted = (sum(losses[0]) + 0.5 * sum(losses[1])) / (len(losses[0]) + 0.5 * len(losses[1]))
    FAMILY.give_objective(model, losses=("sft",))
    found = model(**batch)
    assert float(found.loss) == pytest.approx(wanted, rel=1e-5) and list(found.loss_terms) == ["sft"]
    assert float(model.term_counts(batch)["sft"]) == len(losses[0]) + 0.5 * len(losses[1])


def test_dpo_is_log_2_at_the_start_and_the_formula_afterwards(model, batch):
    start = copy.deepcopy(model)
    FAMILY.give_objective(model, {"dpo": {"beta": 0.5}}, ("dpo",))
    assert float(model(**batch).loss) == pytest.approx(math.log(2), rel=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter, generator=None)
    detached = copy.deepcopy(model)
    detach_objective(detached)
    gains = [sum(b) - sum(n) for n, b in zip(token_losses(detached, batch), token_losses(start, batch), strict=True)]
    margins = [0.5 * (gains[better] - gains[worse]) for better, worse in batch["pairs"].tolist()]
    wanted = sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)
    assert float(model(**batch).loss) == pytest.approx(wanted, rel=1e-4)
    better = batch["pairs"][:, 0].tolist()
    batch["sequence_weights"][better] = weights = torch.linspace(0, 2, len(better))
    losses = torch.tensor([math.log1p(math.exp(-margin)) for margin in margins])
    wanted = float((losses * weights).sum() / weights.sum())
    assert float(model(**batch).loss) == pytest.approx(wanted, rel=1e-4)
    assert float(model.term_counts(batch)["dpo"]) == pytest.approx(float(weights.sum()))


def test_what_never_trains_is_shared_with_the_reference(model, batch):
    """Losses are those beside a whole copy, also where a part joins later; a tied weight is one in both."""
    tied = model.get_output_embeddings()
    tied.weight = model.get_input_embeddings().weight
    whole = copy.deepcopy(model)
    FAMILY.give_objective(whole, losses=("dpo",))
    vision, mlp = (model.get_submodule(name) for name in ("model.vision_tower", "model.language_model.layers.0.mlp"))
    model.requires_grad_(False)
    mlp.requires_grad_(True)
    FAMILY.give_objective(model, losses=("dpo",))
    reference = objective_of(model).reference
    kept = {id(value) for value in reference.parameters()}
    shared = [name for name, value in model.named_parameters() if id(value) in kept]
    assert len(shared) == len(list(model.parameters())) - 3 and not any("layers.0.mlp" in name for name in shared)
    assert float(model(**batch).loss) == pytest.approx(math.log(2), rel=1e-5)

    def step():
        with torch.no_grad():
            for one in (model, whole):
                for name, value in one.named_parameters():
                    if model.get_parameter(name).requires_grad:
                        value.mul_(1.1)
        assert float(model(**batch).loss) == pytest.approx(float(whole(**batch).loss), rel=1e-6)

    step()
    vision.requires_grad_(True)
    tied.weight.requires_grad_(True)
    model(**batch)  # as the first pass of a phase, before its first step
    step()
    assert reference.get_output_embeddings().weight is reference.get_input_embeddings().weight
    assert not any(value.requires_grad for value in reference.parameters())
    assert abs(float(model(**batch).loss) - math.log(2)) > 1e-4


def test_distill_is_the_divergence_from_the_teacher(model, batch, tmp_path, processor):
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        teacher.lm_head.weight += 0.05
        teacher.model.language_model.layers[0].mlp.up_proj.weight += 0.1 * torch.randn_like(
            teacher.model.language_model.layers[0].mlp.up_proj.weight
        )
    teacher.save_pretrained(tmp_path)
    learned = batch["labels"][:, 1:] >= 0
    own, aim = (F.log_softmax(plain_logits(one, batch)[:, :-1][learned] / 2, -1) for one in (model, teacher))
    weights = batch["sequence_weights"][:, None].expand(learned.shape)[learned]
    wanted = float((((aim.exp() * (aim - own)).sum(-1) * 4) * weights).sum() / weights.sum())
    FAMILY.give_objective(model, {"distill": {"teacher": str(tmp_path), "temperature": 2.0}}, ("distill",))
    assert float(model(**batch).loss) == pytest.approx(wanted, rel=1e-4) and wanted > 0


def test_without_a_teacher_it_holds_to_the_start(model, batch):
    FAMILY.give_objective(model, losses=("distill",))
    assert float(model(**batch).loss) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    assert float(model(**batch).loss) > 1e-3


def test_a_teacher_of_another_vocabulary(model, tmp_path):
    small = copy.deepcopy(model)
    small.resize_token_embeddings(300)
    small.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"another vocabulary.*got '300 tokens'; expected 364"):
        FAMILY.give_objective(model, {"distill": {"teacher": str(tmp_path)}}, ("distill",))


def test_hooks_leave_class_weights_and_generation_as_they_were(model, batch):
    before, kind, names = plain_logits(model, batch), type(model), list(model.state_dict())
    FAMILY.give_objective(model)
    assert type(model) is kind and list(model.state_dict()) == names
    assert torch.equal(plain_logits(model, batch), before)
    assert "loss_terms" not in model.config.to_dict() and "loss_weights" not in model.config.to_dict()
    copied = copy.deepcopy(model)
    assert torch.equal(copied(**batch).loss, model(**batch).loss)
    other = copy.deepcopy(model)
    detach_objective(other)
    assert not hasattr(other, "term_counts") and other(input_ids=batch["input_ids"][:, :3]).logits is not None
    carry_objective(model, other)
    assert torch.equal(other(**batch).loss, model(**batch).loss)


def test_quick_metrics_count_tokens_and_whole_answers():
    from types import SimpleNamespace

    import numpy as np

    found = FAMILY.load("compute_metrics")(SimpleNamespace(predictions=np.array([[2, 2], [1, 3], [0, 0]])), None)
    assert found == {"token_accuracy": pytest.approx(3 / 5), "answer_accuracy": 0.5}  # 3 of 5 tokens, 1 of 2 answers
