"""Services without a model, and one tiny checkpoint of each family, behind the real application."""

import base64
import contextlib
import io
from functools import cache

import pytest
from PIL import Image

from hfvla.family import Request, RequestField
from hfvla.registry import available_families
from hfvla.serve.http import HttpLimits, Service, build_app

pytest.importorskip("fastapi")

HERE = "http://127.0.0.1:8000"


def picture(colour=(200, 30, 30), size=(32, 32), kind="PNG", mode="RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


REQUEST = Request(
    (
        RequestField("task", "what is to be done", required=True),
        RequestField("image", "the scene", kind="picture"),
        RequestField("views", "a camera's picture", kind="picture", named=True),
        RequestField("more", "other pictures", kind="picture", repeated=True),
        RequestField("clip", "a clip", kind="video"),
        RequestField("state", "numbers", kind="numbers"),
        RequestField("sensor", "samples", kind="data"),
        RequestField("top_k", "how many", kind="integer", least=1, default=3),
        RequestField("words", "several texts", repeated=True, separator="|"),
        RequestField("slow", "takes longer", kind="switch", default=False),
        RequestField("folder", "of this machine", kind="folder"),
        RequestField("sheet", "a file to write", kind="output"),
    ),
    description="something that can be asked",
    path="ask",
    example={"task": "go"},
)


class Engine:
    """Answers with the task it was asked; remembers how many at once."""

    name, facts = "test", {"engine": "test"}

    def __init__(self, answer=None):
        self.batches, self._answer = [], answer or (lambda asked: {"task": asked["task"]})

    def answer(self, requests):
        self.batches.append(len(requests))
        return [self._answer(one) for one in requests]


def service(engine=None, **more) -> Service:
    return Service("tiny", "made", "a family", engine=engine or Engine(), request=REQUEST, **more)


@contextlib.contextmanager
def client(served, limits=None, base_url=HERE, **options):
    from fastapi.testclient import TestClient

    app = build_app(served, limits or HttpLimits(), **options)
    with TestClient(app, base_url=base_url) as found:
        found.guard = app
        yield found


@cache
def parts(family):
    """Return spec, tiny model and processor of a family; built once."""
    spec = available_families()[family]
    recipe = {"config": spec.tiny_config().to_dict(), "options": {}}
    model, processor = spec.load("initialise")(recipe, spec.load("examples")(8, 0), seed=0)
    return spec, model.eval(), processor
