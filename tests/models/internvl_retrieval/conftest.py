"""A tiny model on generated scenes, built once; tests that change it take a copy."""

import copy

import pytest

from hfvla.backbones.shapes import tiny_backbone
from hfvla.models.internvl_retrieval import FAMILY


def recipe(**config):
    """Return the `model` section of a recipe for a tiny model; its random weights are large, so that inputs matter."""
    backbone = tiny_backbone(initializer_range=0.3)
    return {"config": {**FAMILY.load("config").tiny(backbone_config=backbone).to_dict(), **config}, "options": {}}


@pytest.fixture(scope="session")
def rows():
    """Eight captions of four buildings, two pictures each."""
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
def other_model(rows):
    """Return a model with other config values, in eval mode, the weights those of the same seed."""

    def build(**config):
        return FAMILY.load("initialise")(recipe(**config), rows, seed=0)[0].eval()

    return build


@pytest.fixture
def collate(processor, shared_model):
    """Collate rows for loss terms: `collate(rows, "itc", "itm")`; all of them by default."""

    def build(rows, *losses, config=None):
        wanted = losses or tuple(FAMILY.losses)
        collator = FAMILY.load("collator")(processor, config or shared_model.config, losses=wanted, training=True)
        return collator([dict(row) for row in rows])

    return build
