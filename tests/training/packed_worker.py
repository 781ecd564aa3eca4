"""Packed training on as many processes as were launched: `packed_worker.py FOLDER` saves what rank 0 ends with."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from hfvla.data.packing import PackedRows
from hfvla.data.rows.epoch import EpochRows


def train(folder: Path, rows_a_process: int):
    """Train three steps of four sequences; return the trainer."""
    from tests.training.packed_words import WordsCollator, build_rows, build_trainer

    rows = build_rows()
    packed = PackedRows(EpochRows(rows, 0), WordsCollator().token_lengths(rows), 16)
    settings = {"max_steps": 3, "save_strategy": "no", "per_device_train_batch_size": rows_a_process}
    trainer = build_trainer(folder, packed, train_sampling_strategy="sequential", **settings)
    trainer.train()
    return trainer


if __name__ == "__main__":
    trainer = train(Path(sys.argv[1]) / "two", 2)
    assert trainer.args.world_size == 2
    if trainer.is_world_process_zero():
        save_file(trainer.accelerator.unwrap_model(trainer.model).state_dict(), f"{sys.argv[1]}/two.safetensors")
        line = trainer.state.log_history[0]
        Path(sys.argv[1], "log.txt").write_text(repr({key: line[key] for key in line if "loss" in key}))
