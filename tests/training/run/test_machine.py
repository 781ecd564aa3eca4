"""`model.attention` reaches the models inside, or is refused before any work; `data.video_backend` is what decodes."""

import os

import pytest

from hfvla.data.video import backends
from hfvla.errors import DataError, RecipeError
from hfvla.recipe import Recipe
from hfvla.registry import get_family
from hfvla.training.run.machine import set_attention, use_machine

from ..recipes import build_recipe


def recipe(**changes) -> Recipe:
    made = build_recipe("tasks.json", "out")
    tree = {**made.model_dump(by_alias=True), **changes}
    return Recipe.model_validate(tree)


def with_attention(name, **args) -> Recipe:
    made = recipe()
    return recipe(model={**made.model.model_dump(), "attention": name}, args={**made.args, **args})


@pytest.mark.parametrize("family", ["internvl_video_qa", "sensor_vla", "ember_vlm"])
def test_every_model_of_transformers_inside_takes_it(family):
    spec = get_family(family)
    model = spec.load("model")(spec.load("config").tiny())
    set_attention(model, None)
    kinds = {name: module.config._attn_implementation for name, module in named(model)}
    assert "sdpa" in kinds.values()
    set_attention(model, "eager")
    assert {module.config._attn_implementation for _, module in named(model)} == {"eager"}


def named(model):
    from transformers import PreTrainedModel

    inside = [(name, part) for name, part in model.named_modules() if isinstance(part, PreTrainedModel)]
    return [(name, part) for name, part in inside if type(part).__module__.startswith("transformers.")]


def test_what_is_not_here_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"model.attention: the package flash_attn is not installed.*sdpa"):
        use_machine(with_attention("flash_attention_2"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RecipeError, match="need a GPU; got 'flash_attention_2'"):
        use_machine(with_attention("flash_attention_2"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(RecipeError, match="need half precision"):
        use_machine(with_attention("flash_attention_2"))
    use_machine(with_attention("flash_attention_2", bf16=True))
    use_machine(with_attention("eager"))
    with pytest.raises(ValueError, match="attention"):
        with_attention("flash")


def test_a_recipe_says_what_decodes(monkeypatch):
    monkeypatch.delenv(backends.CHOICE, raising=False)
    assert backends.chosen_backend() == "pyav"
    made = recipe()
    monkeypatch.setenv(backends.CHOICE, "")
    use_machine(recipe(data={**made.data.model_dump(), "video_backend": "decord"}))
    assert backends.chosen_backend() == "decord" == os.environ[backends.CHOICE]
    monkeypatch.setenv(backends.CHOICE, "decrod")
    with pytest.raises(DataError, match="HFVLA_VIDEO_BACKEND: unknown video backend; got 'decrod'.*decord"):
        backends.chosen_backend()
