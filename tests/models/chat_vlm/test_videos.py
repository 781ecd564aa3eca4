"""Videos in conversations: frames by the shared reader, labels on the answer, a loss that depends on what is seen."""

import copy
from dataclasses import replace

import pytest
import torch

from hfvla.data.samples.chat import text_turn
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES
from hfvla.models.chat_vlm import FAMILY
from hfvla.models.chat_vlm.answering import write_answers
from hfvla.models.chat_vlm.videos import frame_count, read_clip

from ...data.video_clips import FPS, read_number, write_clip
from .zoo import made

WITH_VIDEO = ("qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "llava_onevision")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 40)


@pytest.fixture
def seen(sample, clip):
    """A video; a picture and a video; words alone."""
    turns = (text_turn("user", "What?", videos=1), text_turn("assistant", "red"))
    both = (text_turn("user", "Compare.", images=1, videos=1), text_turn("assistant", "yes"))
    words = (text_turn("user", "red?"), text_turn("assistant", "no"))
    path = (str(clip),)
    return [
        replace(sample, id="clip", turns=turns, images=(), videos=path),
        replace(sample, id="both", turns=both, videos=path),
        replace(sample, id="words", turns=words, images=()),
    ]


@pytest.mark.parametrize("kind", WITH_VIDEO)
def test_a_video_is_part_of_a_conversation(kind, seen, clip, tmp_path):
    model, processor = made(kind)
    processor = copy.deepcopy(processor)
    processor.video_processor.num_frames = 4
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    if kind == "smolvlm":  # pictures and videos have one name there, and the second would take the first's place
        with pytest.raises(DataError, match=r"row 'clip'.*pictures and videos in one batch"):
            collator([one.to_row() for one in seen])
        seen = [seen[0], replace(seen[0], id="again")]
    batch = collator([one.to_row() for one in seen])
    end = processor.tokenizer.eos_token
    for number, one in enumerate(seen):
        learned = batch["labels"][number][batch["labels"][number] >= 0]
        assert processor.tokenizer.decode(learned) == one.turns[-1].text + end
    given = {name: value for name, value in batch.items() if name != "sequence_weights"}
    ours = FAMILY.give_objective(copy.deepcopy(model), losses=("sft",))
    with torch.inference_mode():
        torch.testing.assert_close(ours(**batch).loss, model(**given).loss, atol=1e-5, rtol=1e-5)
        other = write_clip(tmp_path / "b.mp4", 20)
        elsewhere = [replace(one, videos=(str(other),) * len(one.videos)) for one in seen]
        assert float(ours(**collator([one.to_row() for one in elsewhere])).loss) != float(ours(**batch).loss)
    asked = [replace(one, turns=one.turns[:-1]) for one in seen]
    assert len(write_answers(model, processor, asked, 2)) == len(seen)


def test_frames_lie_evenly_in_the_clip(clip):
    processor = copy.deepcopy(made("qwen2_5_vl")[1])
    processor.video_processor.num_frames = 4
    frames, told = read_clip(processor, str(clip), "row 'a'")
    numbers = [read_number(frame.transpose(1, 2, 0)) for frame in frames]
    assert numbers == told.frames_indices == [5, 15, 25, 35] and told.total_num_frames == 40
    assert told.fps == pytest.approx(FPS) and frames.shape == (4, 3, 64, 96)


def test_the_models_rule_says_how_many_frames():
    class Rule:
        fps, min_frames, max_frames = 2, 4, 8

    assert [frame_count(Rule(), seconds, 1000) for seconds in (0.5, 3.0, 60.0)] == [4, 6, 8]
    assert frame_count(Rule(), 60.0, 3) == 3
    assert [frame_count(object(), seconds, 1000) for seconds in (1.0, 5.0, 600.0)] == [4, 10, 32]


def test_what_cannot_be_seen(seen, clip, built, tmp_path):
    model, processor = made("llava")
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    with pytest.raises(DataError, match=r"row 'clip'.*this model takes no videos"):
        collator([seen[0].to_row()])
    model, processor = made("internvl")
    collator = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    (tmp_path / "no.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"row 'clip'.*video 0.*no\.mp4"):
        collator([replace(seen[0], videos=(str(tmp_path / "no.mp4"),)).to_row()])
    with pytest.raises(DataError, match=r"row 'clip'.*feature cache keeps pictures"):
        collator([{**seen[0].to_row(), CACHED_FEATURES: None}])
    with pytest.raises(DataError, match=r"how long a video is in tokens"):
        collator.token_lengths([seen[0].to_row()])
    llava = made("llava")
    with pytest.raises(RecipeError, match=r"model\.options\.frames: this model takes no videos"):
        FAMILY.load("adapt")(copy.deepcopy(llava[0]), copy.deepcopy(llava[1]), {"frames": 4})
    adapted = copy.deepcopy(processor)
    FAMILY.load("adapt")(copy.deepcopy(model), adapted, {"frames": 3})
    adapted.save_pretrained(tmp_path / "kept")
    kept = type(adapted).from_pretrained(tmp_path / "kept")
    assert kept.video_processor.num_frames == 3
