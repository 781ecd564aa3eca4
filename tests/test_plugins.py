"""Families, sources, loss terms, metrics and figures of other packages."""

import logging
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from hfvla import plugins, registry
from hfvla.errors import RecipeError
from hfvla.family import FamilySpec, Metric, Source
from hfvla.recipe import load_recipe

TERMS = """
from pathlib import Path
from pydantic import BaseModel
from hfvla.family import Metric, Source
from hfvla.plugins import LossFunction

class LampOptions(BaseModel):
    path: Path

def brightness(model, batch, outputs):
    return outputs.logits.mean()

SOURCES = {"lamps": Source(f"{__name__}:LampOptions", f"{__name__}:build", "lamps", families=("ember_vlm",))}
LOSSES = {"brightness": LossFunction("mean logit", f"{__name__}:brightness")}
METRICS = {"glow": Metric("glow", "Glow", lower_is_better=True, compute=f"{__name__}:brightness")}
"""

RECIPE = """
family: ember_vlm
plugins: [terms.py]
data: {train: [{source: lamps, path: lamps.json}], validation: {fraction: 0.1}}
stages:
  - {name: one, train: [language], losses: {brightness: 0.5}, keep_best: eval_glow}
"""


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Each test starts and ends without plug-ins."""
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.setattr(plugins, "_found", None)


def entries(monkeypatch, **given):
    """Stand for the entry points of installed packages, by group."""
    made = [
        EntryPoint(name, value, f"hfvla.{group}") for group, named in given.items() for name, value in named.items()
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda: EntryPoints(made))


def test_a_recipe_brings_sources_terms_and_metrics(tmp_path):
    (tmp_path / "terms.py").write_text(TERMS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.plugins == [str(tmp_path / "terms.py")]
    spec = registry.get_family("ember_vlm")
    assert spec.losses["brightness"] == "mean logit" and "glow" in spec.metric_names
    assert spec.sources["lamps"].description == "lamps"
    assert registry.describe_metric("glow").heading == "Glow" and spec.metric("glow").is_error
    other = registry.get_family("internvl_retrieval")
    assert "lamps" not in other.sources and "brightness" in other.losses  # the source says which family it is for


def test_without_the_plug_in_the_recipe_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("plugins: [terms.py]\n", ""))
    with pytest.raises(RecipeError, match="lamps"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "match"),
    [(None, r"terms\.py: FileNotFoundError"), ("import nowhere_at_all", "nowhere_at_all"), ("1/0", "division")],
)
def test_a_plug_in_of_a_recipe_that_does_not_load_is_an_error(tmp_path, text, match):
    if text is not None:
        (tmp_path / "terms.py").write_text(text)
    (tmp_path / "r.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=f"a plug-in does not load.*{match}"):
        load_recipe(tmp_path / "r.yaml")


def test_entry_points_of_each_group(monkeypatch, tmp_path):
    (tmp_path / "shining.py").write_text(
        TERMS
        + "from hfvla.family import FamilySpec\n"
        + "FAMILY = FamilySpec(name='shining', summary='s', config='C', model='M', processor='P', collator='K',\n"
        + "    groups={}, losses={}, sources={}, metrics=(), package=__name__)\n"
        + "def draw(**_): ...\nSOURCE, LOSS, METRIC = SOURCES['lamps'], LOSSES['brightness'], METRICS['glow']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries(
        monkeypatch,
        families={"shining": "shining"},
        sources={"lamps": "shining:SOURCE"},
        losses={"brightness": "shining:LOSS"},
        metrics={"glow": "shining:METRIC"},
        figures={"rays": "shining:draw"},
    )
    found = plugins.offers()
    assert not found.broken and isinstance(found.families["shining"], FamilySpec)
    assert isinstance(found.sources["lamps"], Source) and isinstance(found.metrics["glow"], Metric)
    assert callable(found.figures["rays"]) and "brightness" in found.losses
    assert registry.get_family("shining").summary == "s"
    del sys.modules["shining"]


@pytest.mark.parametrize("value", ["nowhere_at_all", "math:pi", "hfvla.errors:missing"])
def test_a_broken_plug_in_names_itself_and_disables_only_itself(monkeypatch, caplog, value):
    entries(monkeypatch, families={"broken_one": value})
    with caplog.at_level(logging.WARNING, "hfvla"):
        assert set(registry.available_families()) == set(registry._own_families())
    assert "broken_one" in caplog.text and "is left out" in caplog.text


def test_a_family_whose_classes_do_not_load_leaves_the_auto_classes_alone(monkeypatch, caplog, tmp_path):
    package = tmp_path / "dim"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from hfvla.family import FamilySpec\n"
        "FAMILY = FamilySpec(name='dim', summary='', config='C', model='M', processor='P', collator='K', groups={},\n"
        "    losses={}, sources={}, metrics=(), package=__name__)\n"
    )
    (package / "modeling_dim.py").write_text("raise RuntimeError('no lamp')\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries(monkeypatch, families={"dim": "dim"})
    with caplog.at_level(logging.WARNING, "hfvla"):
        registry.import_classes("model")
    assert "plug-in family 'dim' is not registered: RuntimeError: no lamp" in caplog.text
    for name in [name for name in sys.modules if name.split(".")[0] == "dim"]:
        del sys.modules[name]


def test_a_plug_in_cannot_replace_a_family_of_ours(monkeypatch, tmp_path):
    (tmp_path / "thief.py").write_text(
        "from hfvla.family import FamilySpec\n"
        "FAMILY = FamilySpec(name='ember_vlm', summary='stolen', config='C', model='M', processor='P', collator='K',\n"
        "    groups={}, losses={}, sources={}, metrics=(), package=__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries(monkeypatch, families={"ember_vlm": "thief"})
    assert registry.get_family("ember_vlm").summary != "stolen"
    del sys.modules["thief"]


def test_the_variable_names_plug_ins_for_commands_without_a_recipe(monkeypatch, tmp_path):
    (tmp_path / "terms.py").write_text(TERMS)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "terms.py"))
    assert "brightness" in registry.get_family("ember_vlm").losses
