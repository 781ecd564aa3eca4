"""Stages on streamed rows: shares, refusals, exact resume, and processes that share the rows without any twice."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from datasets import IterableDataset

from hfvla.errors import RecipeError
from hfvla.family import SourceData
from hfvla.registry import get_family
from hfvla.training.run.packing import ordered_rows
from hfvla.training.run.preflight import check_stream
from hfvla.training.stage import data as stage_data
from hfvla.training.stage.data import RecipeData

from ..launching import launch
from ..recipes import build_recipe, selection_stage
from ..stream_worker import FILES, ROWS, trainer_of


def rows_of(count, name):
    for number in range(count):
        yield {"id": f"{name}{number}", "group": f"group{number % 5}", "source": name}


def stream(name):
    return IterableDataset.from_generator(rows_of, gen_kwargs={"count": 20, "name": name})


@pytest.fixture
def recipe_of(tmp_path, monkeypatch):
    """Return a function: recipe and data where the path of a source names a stream."""

    def build(spec, entry, recipe, where):
        return SourceData(stream(Path(entry.options["path"]).name), {"streaming": True})

    monkeypatch.setattr(stage_data, "build_source", build)

    def made(args=None, stage=None, **section):
        train = [{"source": "robot_selection", "path": name, "name": name} for name in ("a", "b")]
        stages = [{**selection_stage(), **(stage or {}), "args": args or {}}]
        recipe = build_recipe("", tmp_path / "run", stages, data={"train": train, **section})
        return recipe, RecipeData(get_family("ember_vlm"), recipe)

    return made


def test_streams_mix_by_shares_and_have_no_validation_rows(recipe_of):
    recipe, data = recipe_of(mixture={"kind": "fixed"})
    rows = data.stage_rows(recipe.stages[0])
    assert rows.streamed and rows.counts == {"train": None, "validation": 0}
    seen = [row["source"] for row in islice(rows.train, 200)]
    assert 60 < seen.count("a") < 140 and seen.count("a") + seen.count("b") == 200
    assert len(rows.known()) == 2000 and data.all_training_rows() is None
    assert data.fingerprints() == {}


def test_sizes_are_not_asked_of_streams(recipe_of):
    recipe, data = recipe_of(mixture={"kind": "temperature"})
    with pytest.raises(RecipeError, match="kind 'temperature'.*kind: fixed"):
        data.stage_rows(recipe.stages[0])


@pytest.mark.parametrize(
    ("args", "stage", "named"),
    [
        ({}, {}, "max_steps"),
        ({"max_steps": 5}, {"packing": {"max_length": 64}}, "`packing`"),
        ({"max_steps": 5}, {"batches": {}}, "`batches`"),
    ],
)
def test_what_needs_a_number_of_rows_is_refused(recipe_of, args, stage, named):
    recipe, _ = recipe_of(args, stage, mixture={"kind": "fixed"})
    with pytest.raises(RecipeError, match=named):
        check_stream(recipe, recipe.stages[0])


def test_each_process_reads_the_stream_itself(recipe_of, tmp_path):
    recipe, data = recipe_of({"max_steps": 5}, mixture={"kind": "fixed"})
    trainer = trainer_of(tmp_path, [])
    trainer.args.accelerator_config.dispatch_batches = None
    rows = data.stage_rows(recipe.stages[0]).train
    assert ordered_rows(recipe.stages[0], rows, None, trainer.args) is rows
    assert trainer.args.accelerator_config.dispatch_batches is False


def test_a_resumed_stage_sees_the_rows_that_were_left(tmp_path):
    seen, again = [], []
    whole = trainer_of(tmp_path, seen)
    whole.train()
    resumed = trainer_of(tmp_path, again)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert len(seen) == 40 and again == seen[20:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_share_a_stream(tmp_path, workers):
    launch(2, Path(__file__).parents[1] / "stream_worker.py", tmp_path, workers)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert all(rank["world"] == 2 and rank["again"] == rank["seen"][20:] for rank in ranks)
    seen = [number for rank in ranks for number in rank["seen"]]
    assert len(seen) == 80 < FILES * ROWS
    # Two passes of the small source may have begun; in the large one no row comes twice.
    large = [number for number in seen if number < 80]
    assert len(set(large)) == len(large)
