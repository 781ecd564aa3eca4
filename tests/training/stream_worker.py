"""Streamed mixtures under the Trainer's own loaders, on as many processes as were launched.

As a script, `stream_worker.py FOLDER WORKERS` writes for each rank the numbers of the rows in its batches, in
order, and those of a run that goes on from a checkpoint.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import IterableDataset

from hfvla.data.rows.streaming import StreamedMixture

FILES, ROWS = 6, 20


def words(files):
    for file in files:
        for row in range(ROWS):
            number = file * ROWS + row
            ids = torch.randint(1, 32, (2 + number % 6,), generator=torch.Generator().manual_seed(number)).tolist()
            yield {"ids": ids, "number": number, "source": f"file{file % 2}"}


def mixture(at_end="repeat") -> StreamedMixture:
    def part(files):
        return IterableDataset.from_generator(words, gen_kwargs={"files": files})

    return StreamedMixture({"a": part([0, 1, 2, 3]), "b": part([4, 5])}, [2.0, 1.0], 3, shuffle_rows=8, at_end=at_end)


def trainer_of(folder, seen, steps=20, **args):
    from tests.training.packed_words import WordsCollator, build_trainer

    class Noting(WordsCollator):
        def __call__(self, rows):
            batch = super().__call__(rows)
            return {**batch, "numbers": torch.tensor([row["number"] for row in rows])}

    each_process = {"accelerator_config": {"dispatch_batches": False}}
    trainer = build_trainer(folder, mixture(), max_steps=steps, save_steps=5, **each_process, **args)
    trainer.data_collator = Noting()
    plain = trainer.training_step

    def noted(model, inputs, *more):
        seen.extend(inputs.pop("numbers").tolist())
        return plain(model, inputs, *more)

    trainer.training_step = noted
    return trainer


def main(folder: str, workers: str) -> None:
    seen, again = [], []
    first = trainer_of(f"{folder}/run", seen, dataloader_num_workers=int(workers))
    first.train()
    resumed = trainer_of(f"{folder}/run", again, dataloader_num_workers=int(workers))
    resumed.train(resume_from_checkpoint=f"{folder}/run/checkpoint-10")
    rank, world = first.args.process_index, first.args.world_size
    found = {"world": world, "seen": seen, "again": again}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3])
