"""A made-up family: recipes are checked against it without any model."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from hfvla.family import FamilySpec, Metric, ParameterGroup, Source


class FileOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str
    split: str = "train"
    shuffle: bool = False


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wind_m_s: float = Field(0.0, ge=0)


class MadeOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(100, ge=1)
    images: bool = True
    weather: Weather = Weather()
    pictures: Path | None = None


@pytest.fixture
def family() -> FamilySpec:
    needed = dict.fromkeys(("config", "model", "processor", "collator"), "Toy")
    told = {
        "name": "toy",
        "summary": "a made-up family",
        "groups": {
            "vision": ParameterGroup(("vision.*",)),
            "projector": ParameterGroup(("projector.*",)),
            "language": ParameterGroup(("language.*",), layers="language.layers"),
        },
        "losses": {"itc": "contrastive", "selection": "focal"},
        "sources": {
            "records": Source(f"{__name__}:FileOptions", "toy:build", "records of a file"),
            "made": Source(f"{__name__}:MadeOptions", "toy:build", "generated tasks"),
        },
        "metrics": (Metric("accuracy", quick=True), Metric("macro_f1", quick=True)),
        "package": "toy",
    }
    return FamilySpec(**{**needed, **told})


@pytest.fixture
def families(family):
    return {"toy": family}


GOOD = """\
family: toy
seed: 3
data:
  train:
    - {source: made, size: 20, weight: 2}
    - source: records
      name: real
      path: tasks.json
  eval:
    held_out: {source: records, path: test.json}
args: {learning_rate: 1e-4, num_train_epochs: 2}
stages:
  - name: align
    train: [projector, language.last(2)]
    losses: {itc: 1}
    learning_rates: {language.last(2): 5e-5}
  - name: select
    train: [language]
    losses: {selection: 1.0, itc: 0.5}
    args: {learning_rate: 5.0e-5, per_device_train_batch_size: 4}
    keep_best: eval_macro_f1
    patience: 2
    handover: {from: align, new: ["head.*"]}
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def write(tmp_path):
    def _write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write
