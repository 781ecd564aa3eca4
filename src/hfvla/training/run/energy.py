"""Energy of a stage, measured by CodeCarbon while it trains."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = ["EnergyCallback", "energy_callbacks"]

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 30.0
_NAME = "EnergyCallback"


def energy_callbacks() -> list[TrainerCallback]:
    """Return the callback where CodeCarbon is installed and HFVLA_ENERGY is not 0.

    CO2 is added where HFVLA_COUNTRY is a three-letter ISO code, e.g. HFVLA_COUNTRY=DEU.
    """
    if os.environ.get("HFVLA_ENERGY", "1") == "0" or find_spec("codecarbon") is None:
        return []
    return [EnergyCallback(os.environ.get("HFVLA_COUNTRY") or None)]


class EnergyCallback(TrainerCallback, ExportableState):
    """Measures the machine's energy from the first step of training to the last, on the main process.

    CodeCarbon reads the counters of CPU and GPU where the machine lets it, and estimates from the load otherwise. It
    runs offline, writes no file, and starts beside the training. Its sum goes into the checkpoints, so that a resumed
    stage counts what was used before. Whatever fails in it is logged once and ends the measurement, not the run.

    Args:
        country: three-letter ISO code for the CO2 of its grid; None counts energy only.
    """

    def __init__(self, country: str | None = None) -> None:
        self.country = country
        self.used: dict[str, float] = {"kwh": 0.0, "seconds": 0.0, "co2_kg": 0.0}
        self.hardware: list[str] = []
        self._before = dict(self.used)  # of the processes that a resumed stage had before this one
        self._tracker: Any = None
        self._starting: threading.Thread | None = None
        self._failed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start measuring; go on from the checkpoint's sum."""
        saved = state.stateful_callbacks.get(_NAME) if state.global_step else None
        if isinstance(saved, dict):
            self._before = {key: float(saved["attributes"].get(key, 0.0)) for key in self.used}
        self.used = dict(self._before)
        # A checkpoint of a run without this callback has no entry for it, and the Trainer would look for one.
        state.stateful_callbacks.setdefault(_NAME, self.state())
        if state.is_world_process_zero:
            self._starting = threading.Thread(target=self._guard, args=(self._start,), daemon=True)
            self._starting.start()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop measuring."""
        if self._ready():
            self._guard(self._stop)

    def state(self) -> dict[str, Any]:
        """Return the sum so far, for the checkpoint."""
        if self._ready(wait=False):
            self._guard(self._flush)
        return {"args": {"country": self.country}, "attributes": dict(self.used)}

    def scalars(self) -> dict[str, float]:
        """Return kWh, and CO2 where the country is known, up to CodeCarbon's last reading, for a log line."""
        if self._ready(wait=False):
            self._guard(lambda: self._read(self._tracker._prepare_emissions_data()))
        if self._failed or self.used["kwh"] <= 0:
            return {}
        found = {"energy_kwh": self.used["kwh"]}
        return {**found, "co2_kg": self.used["co2_kg"]} if self.country else found

    def summary(self) -> dict[str, Any] | None:
        """Return kWh, seconds, CO2 (where the country is known) and what was measured, or None without a reading."""
        if self._failed or self.used["kwh"] <= 0:
            return None
        found: dict[str, Any] = {"kwh": self.used["kwh"], "seconds": self.used["seconds"], "hardware": self.hardware}
        return {**found, "co2_kg": self.used["co2_kg"], "country": self.country} if self.country else found

    def _ready(self, wait: bool = True) -> bool:
        """Tell whether there is something to read; a checkpoint in the first seconds does not wait for it."""
        if self._starting is not None and wait:
            self._starting.join(_START_TIMEOUT_S)
            if self._starting.is_alive():
                self._fail(f"CodeCarbon has not started in {_START_TIMEOUT_S:g} s")
        return self._tracker is not None and not self._failed

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a reading must never end a run
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        if not self._failed:
            logger.warning("energy is not measured from here on: %s (HFVLA_ENERGY=0 switches it off)", reason)
        self._failed = True

    def _start(self) -> None:
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(
            country_iso_code=self.country or "USA",  # it insists on one; CO2 is kept only where it was asked for
            save_to_file=False,
            allow_multiple_runs=True,  # else it keeps a lock file and takes over signals
            tracking_mode="machine",  # all processes and GPUs of this machine
            log_level="critical",
        )
        tracker.start()
        self._tracker = tracker
        self.hardware = [str(part) for part in tracker._conf.get("hardware", [])]

    def _flush(self) -> None:
        self._tracker.flush()
        self._read(self._tracker._prepare_emissions_data())

    def _stop(self) -> None:
        tracker, self._tracker = self._tracker, None
        tracker.stop()
        self._read(tracker.final_emissions_data)
        if self.used["kwh"] <= 0:
            self._fail("CodeCarbon gave no reading")

    def _read(self, data: Any) -> None:
        now = {"kwh": data.energy_consumed, "seconds": data.duration, "co2_kg": data.emissions}
        self.used = {key: self._before[key] + float(value) for key, value in now.items()}
