"""A tiny EmberVLM with random weights, built once; tests that change it take a copy."""

import copy

import pytest

from hfvla.models.ember_vlm import FAMILY


def recipe(**config):
    """Return the `model` section of a recipe for a tiny model."""
    return {"config": {**FAMILY.load("config").tiny().to_dict(), **config}, "options": {}}


@pytest.fixture(scope="session")
def rows():
    """Eight rows, two of them without a picture."""
    return FAMILY.load("examples")(8, 0)


@pytest.fixture(scope="session")
def built(rows):
    return FAMILY.load("initialise")(recipe(), rows, seed=0)


@pytest.fixture(scope="session")
def processor(built):
    return built[1]


@pytest.fixture(scope="session")
def shared_model(built):
    """The model in eval mode; do not change it."""
    return built[0].eval()


@pytest.fixture
def model(shared_model):
    return copy.deepcopy(shared_model)


@pytest.fixture(scope="session")
def collate(processor, shared_model):
    """Collate rows for loss terms: `collate(rows, "selection", "reasoning", training=True)`."""

    def build(rows, *losses, training=True):
        collator = FAMILY.load("collator")(processor, shared_model.config, losses=losses, training=training)
        return collator([dict(row) for row in rows])

    return build
