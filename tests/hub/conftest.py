"""A hub for the tests of this folder, in this process and for others."""

import os

import pytest

from .server import TOKEN, SmallHub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub; this process talks to it, with a cache of its own."""
    from huggingface_hub import constants

    server = SmallHub().start()
    settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "ENDPOINT": server.url}
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HUGGINGFACE_CO_URL_TEMPLATE": template}
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def elsewhere(hub, tmp_path):
    """Environment of a fresh process that knows this hub, and has never loaded anything."""
    return {
        **{
            name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        },
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "elsewhere"),
    }
