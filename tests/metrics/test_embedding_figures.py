"""Figures of pictures and texts in one space, and retrieval in the chat evaluation."""

import numpy as np
import pytest

from hfvla.evaluation.plots import render
from hfvla.family import ChatSystem, EvaluationContext
from hfvla.metrics.chat import evaluate_chat
from hfvla.metrics.embedding_figures import embedding_map, found_pictures, similarity_heatmap

from .chat.fakes import COLOURS, caption, colour_of, vqa


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def space():
    """40 pairs; each text lies near its picture."""
    generator = np.random.default_rng(0)
    images = unit(generator.standard_normal((40, 8)))
    return images, unit(images + 0.1 * generator.standard_normal((40, 8)))


def test_the_heat_map_has_right_pairs_on_its_diagonal(space):
    figure = similarity_heatmap(*space, [f"text {n}" for n in range(40)])
    matrix = np.array(figure.data["matrix"])
    assert matrix.shape == (24, 24) and (matrix.argmax(axis=1) == np.arange(24)).all()
    number = int(figure.data["rows"][3].split()[1])
    assert matrix[3, 3] == pytest.approx(space[0][number] @ space[1][number])
    assert f"{np.diagonal(matrix).mean():.3f}" in figure.caption
    assert len(render(figure)) > 1000


def test_the_map_keeps_neighbours_and_repeats(space):
    figure = embedding_map(*space)
    pairs = np.array(figure.data["pairs"])
    lengths = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1)
    others = np.linalg.norm(pairs[:, 0] - np.roll(pairs[:, 1], 1, axis=0), axis=1)
    assert np.median(lengths) < 0.5 * np.median(others) and "t-SNE" in figure.caption
    assert embedding_map(*space).data == figure.data
    assert len(render(figure)) > 1000


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pairs_are_drawn_too(space, count):
    images, texts = (side[:count] for side in space)
    assert len(embedding_map(images, texts).data["pairs"]) == count
    assert similarity_heatmap(images, texts, ["a"] * count).data["matrix"]


def test_examples_name_what_was_found(space):
    images, texts = space
    figure = found_pictures(images, -texts, [f"text {n}" for n in range(40)], lambda number: f"picture {number}")
    first = figure.data["examples"][0]
    number = int(first["title"].split()[1])
    assert first["badge"] == "wrong" and ["Place of the right picture", "40"] in first["facts"]
    assert first["image"] == f"picture {int(np.argmin(images @ texts[number]))}"


def test_retrieval_joins_the_chat_evaluation():
    names = list(COLOURS)

    def embed(samples):
        images = np.array([np.eye(4)[names.index(colour_of(one))] for one in samples])
        texts = np.array([np.eye(4)[[n in one.turns[-1].text for n in names].index(True)] for one in samples])
        return images, texts

    system = ChatSystem(lambda samples, tokens: ["x"] * len(samples), embed_pairs=embed)
    rows = [one.to_row() for n in range(4) for one in (caption(n, names[n]), vqa(n, names[n]))]
    context = EvaluationContext(bootstrap_samples=0, ablations=False, batch_size=3)
    result = evaluate_chat(system, rows, context)
    assert result.metrics["t2i_r1"] == result.metrics["i2t_r1"] == 1.0  # of the four captions alone
    assert result.baselines["chance"]["t2i_r1"] == pytest.approx(0.25)
    kinds = {figure.name: figure.kind for figure in result.figures}
    assert kinds["similarity_heatmap"] == "heatmap" and kinds["embedding_map"] == "scatter"
    assert "found_pictures" in kinds
