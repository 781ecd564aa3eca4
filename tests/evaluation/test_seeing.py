"""Rows as the model of a checkpoint sees them, through its own processor and collator."""

import pytest

from hfvla.data.inspection.sampling import sheet_samples
from hfvla.errors import CheckpointError
from hfvla.evaluation.seeing import viewer_of_checkpoint
from hfvla.models.ember_vlm import FAMILY


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model that was saved, and rows of its family."""
    rows = FAMILY.load("examples")(6, 0)
    recipe = {"config": FAMILY.load("config").tiny().to_dict(), "options": {}}
    model, processor = FAMILY.load("initialise")(recipe, rows, seed=0)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder, model.config, rows


def test_pixels_and_learned_tokens_are_the_collators(checkpoint):
    folder, config, rows = checkpoint
    viewer, _ = viewer_of_checkpoint(folder)
    row = next(row for row in rows if row["image"] is not None and row["caption"])
    seen = viewer(row)
    assert {picture.size for picture in seen.pictures} == {(config.image_size,) * 2}
    learned = "".join(span.text for sequence in seen.texts for span in sequence if span.learned)
    plain = "".join(span.text for sequence in seen.texts for span in sequence if not span.learned)
    assert row["caption"].split()[0] in learned and row["task"].split()[0] in plain
    assert 0 < seen.learned < seen.tokens
    assert any(f"x {config.num_visual_tokens}" in span.text for sequence in seen.texts for span in sequence)


def test_rows_that_the_model_cannot_take_say_why(checkpoint):
    folder, _, rows = checkpoint
    viewer, _ = viewer_of_checkpoint(folder)
    broken = [{**rows[0], "robots": ["Submarine"]}]
    (sample,) = sheet_samples(broken, 1, viewer=viewer)
    assert sample.seen is None and "Submarine" in sample.problem


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        viewer_of_checkpoint(tmp_path)
