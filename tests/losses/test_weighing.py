import torch

from hfvla.losses.weighing import weighted_sum


def test_the_weighted_sum():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0), "c": torch.tensor(float("nan"))}
    assert weighted_sum(terms, {"a": 0.5, "b": 2.0, "c": 0.0}).item() == 7.0  # 0.5 * 2 + 2 * 3
    assert weighted_sum({}, {"a": 1.0}) is None and weighted_sum(terms, {"other": 1.0}) is None


def test_shares_keep_the_graph_of_a_term_that_weighs_nothing():
    term = torch.tensor(2.0, requires_grad=True)
    loss = weighted_sum({"a": term}, {"a": 0.0}, {"a": 0.25})
    loss.backward()
    assert loss.item() == 0.0 and term.grad.item() == 0.0
    assert weighted_sum({"a": term}, {"a": 3.0}, {"a": 0.25}).item() == 1.5  # 3 * 0.25 * 2
