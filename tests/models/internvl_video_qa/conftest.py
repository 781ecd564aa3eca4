"""A tiny model on generated clips, built once; tests that change it take a copy."""

import copy

import pytest

from hfvla.models.internvl_video_qa import FAMILY


def recipe(**config):
    """Return the `model` section of a recipe for a tiny model."""
    return {"config": {**FAMILY.load("config").tiny().to_dict(), **config}, "options": {}}


@pytest.fixture(scope="session")
def rows():
    """Eight questions on two clips."""
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


@pytest.fixture
def collate(processor, model):
    """Collate rows for loss terms: `collate(rows, "letters", support_dropout=0.5)`."""

    def build(rows, *losses, **config):
        for name, value in config.items():
            setattr(model.config, name, value)
        collator = FAMILY.load("collator")(processor, model.config, losses=losses or ("letters",), training=True)
        return collator([dict(row) for row in rows])

    return build
