"""A tiny model on drawn shapes, built once; tests that change it take a copy."""

import copy
from dataclasses import replace

import pytest

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.models.chat_vlm import FAMILY


@pytest.fixture(scope="session")
def rows():
    """Eight questions on drawn pictures, with worse answers."""
    return FAMILY.load("examples")(8, 0)


@pytest.fixture(scope="session")
def built(rows):
    recipe = {"config": FAMILY.tiny_config().to_dict(), "options": {}}
    return FAMILY.load("initialise")(recipe, rows, seed=0)


@pytest.fixture(scope="session")
def processor(built):
    return built[1]


@pytest.fixture
def model(built):
    return copy.deepcopy(built[0]).eval()


@pytest.fixture
def sample(rows):
    """One picture, one question, one answer."""
    return replace(ChatSample.from_row(rows[0]), rejected=())


@pytest.fixture
def long_sample(sample):
    """Two questions on one picture; only the second answer is learned."""
    turns = (
        text_turn("system", "You see."),
        text_turn("user", "What colour is the circle?", images=1),
        text_turn("assistant", "red", train=False),
        text_turn("user", "Which shape is red?"),
        text_turn("assistant", "circle"),
    )
    return replace(sample, turns=turns)
