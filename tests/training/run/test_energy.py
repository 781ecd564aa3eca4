"""Energy of a stage: kWh from CodeCarbon, kept over a resume, and never the end of a run."""

import json
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
import torch

from hfvla.training.run.energy import EnergyCallback, energy_callbacks

from ..toy import build_model, build_rows, build_trainer


class FakeTracker:
    """Has used 1 Wh while it runs and 2 Wh when it stops; fails where it is told to."""

    fail_in = ""
    made: list = []

    def __init__(self, **settings):
        self.settings, self.readings, self._conf = settings, 0, {"hardware": ["a fake CPU"]}
        FakeTracker.made.append(self)
        self._may_fail("init")

    def _may_fail(self, where):
        if where == FakeTracker.fail_in:
            raise OSError(f"no counter in {where}")

    def start(self):
        self._may_fail("start")

    def flush(self):
        self._may_fail("flush")
        self.readings = FakeTracker.fail_in != "zero"

    def _prepare_emissions_data(self):
        return SimpleNamespace(energy_consumed=self.readings / 1000, duration=float(self.readings), emissions=0.5)

    def stop(self):
        self._may_fail("stop")
        self.readings = 2 * (FakeTracker.fail_in != "zero")
        self.final_emissions_data = self._prepare_emissions_data()


@pytest.fixture
def fake(monkeypatch):
    module = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = FakeTracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    monkeypatch.setattr(FakeTracker, "fail_in", "")
    monkeypatch.setattr(FakeTracker, "made", [])
    return FakeTracker


def train(folder, energy, **options):
    resume = options.pop("resume", None)
    trainer = build_trainer(folder, extra={"callbacks": [energy]}, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_stage_tells_its_energy(tmp_path, fake):
    energy = EnergyCallback("DEU")
    train(tmp_path, energy)
    assert energy.summary() == {
        "kwh": 0.002, "seconds": 2.0, "hardware": ["a fake CPU"], "co2_kg": 0.5, "country": "DEU"
    }  # fmt: skip
    (tracker,) = fake.made
    assert tracker.settings["country_iso_code"] == "DEU" and tracker.settings["save_to_file"] is False
    plain = EnergyCallback()
    train(tmp_path, plain)
    assert "co2_kg" not in plain.summary()


def test_a_resumed_stage_counts_what_was_used_before(tmp_path, fake):
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 5}
    train(tmp_path, EnergyCallback(), args=args)
    saved = json.loads((tmp_path / "checkpoint-2/trainer_state.json").read_text())["stateful_callbacks"]
    assert saved["EnergyCallback"]["attributes"]["kwh"] == 0.001
    again = EnergyCallback()
    train(tmp_path, again, args=args, resume=str(tmp_path / "checkpoint-2"))
    assert again.summary()["kwh"] == pytest.approx(0.003)  # 1 Wh before the save, 2 Wh after it


def test_a_checkpoint_without_energy_can_be_resumed_with_it(tmp_path, fake):
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 5}
    build_trainer(tmp_path, args=args).train()
    energy = EnergyCallback()
    train(tmp_path, energy, args=args, resume=str(tmp_path / "checkpoint-2"))
    assert energy.summary()["kwh"] == pytest.approx(0.002)


@pytest.mark.parametrize("where", ["init", "start", "flush", "stop", "zero"])
def test_a_failed_reading_is_logged_once_and_ends_nothing(tmp_path, fake, monkeypatch, caplog, where):
    monkeypatch.setattr(fake, "fail_in", where)
    energy = EnergyCallback()
    trainer = train(tmp_path, energy, args={"max_steps": 3, "save_strategy": "steps", "save_steps": 1})
    lines = [record.message for record in caplog.records if "energy is not measured" in record.message]
    assert trainer.state.global_step == 3 and energy.summary() is None
    assert (
        len(lines) == 1 and ("CodeCarbon gave no reading" if where == "zero" else f"no counter in {where}") in lines[0]
    )


def test_only_the_main_process_measures(fake):
    state = SimpleNamespace(global_step=0, stateful_callbacks={}, is_world_process_zero=False)
    energy = EnergyCallback()
    energy.on_train_begin(None, state, None)
    energy.on_train_end(None, state, None)
    assert fake.made == [] and energy.summary() is None


def test_it_is_on_where_it_can_be(monkeypatch, fake):
    fake_spec = SimpleNamespace(name="codecarbon")
    monkeypatch.setattr("hfvla.training.run.energy.find_spec", lambda name: fake_spec)
    monkeypatch.setenv("HFVLA_COUNTRY", "FRA")
    monkeypatch.delenv("HFVLA_ENERGY")
    (found,) = energy_callbacks()
    assert found.country == "FRA"
    monkeypatch.setenv("HFVLA_ENERGY", "0")
    assert energy_callbacks() == []
    monkeypatch.delenv("HFVLA_ENERGY")
    monkeypatch.setattr("hfvla.training.run.energy.find_spec", lambda name: None)
    assert energy_callbacks() == []


def test_codecarbon_itself_measures_without_network_files_or_other_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    energy = EnergyCallback()
    started = time.perf_counter()
    measured = train(tmp_path / "run", energy, rows=build_rows(8), model=build_model())
    seconds = time.perf_counter() - started
    found = energy.summary()
    assert 0 < found["kwh"] < 1 and 0 < found["seconds"] <= seconds and found["hardware"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    plain = build_trainer(tmp_path / "other", rows=build_rows(8), model=build_model())
    plain.train()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, measured.model.state_dict()[name]), name


def test_each_log_line_has_the_sum_so_far(tmp_path, fake):
    energy = EnergyCallback("DEU")
    trainer = build_trainer(tmp_path, extra={"callbacks": [energy]}, args={"max_steps": 2, "logging_steps": 1})
    original = trainer.training_step

    def training_step(*args, **kwargs):
        energy._starting.join()
        energy._tracker.readings = trainer.state.global_step + 1
        return original(*args, **kwargs)

    trainer.training_step = training_step
    trainer.train()
    name = trainer.stage.name
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line[f"{name}/energy_kwh"] for line in lines] == [0.001, 0.002]
    assert lines[0][f"{name}/co2_kg"] == 0.5
