"""Videos in conversations: frames by the shared reader, labels on the answer, a loss that depends on what is seen."""

import copy
from dataclasses import replace

import pytest
import torch

from hfvla.data.samples.chat import ChatSample, Part, Turn, text_turn
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES
from hfvla.models.chat_vlm import FAMILY
from hfvla.models.chat_vlm.answering import write_answers
from hfvla.models.chat_vlm.batches import conversation_of
from hfvla.models.chat_vlm.encoding import encode
from hfvla.models.chat_vlm.videos import frame_count, read_clip

from ...data.video_clips import FPS, read_number, write_clip
from .test_cuts import CUT, kept, trained
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


@pytest.fixture(params=WITH_VIDEO)
def kind(request):
    return request.param


@pytest.fixture
def told(kind, seen, sample):
    """Rows as `seen`; SmolVLM has one name for pictures and videos: both in one batch, not in one conversation."""
    chosen = seen if kind != "smolvlm" else [seen[0], replace(sample, id="both"), seen[2]]
    return [one.to_row() for one in chosen]


def prepared(kind, losses=("sft",), frames=4):
    """Return a copy of an architecture's model with its objective, its processor, and a collator."""
    model, processor = copy.deepcopy(made(kind))
    processor.video_processor.num_frames = frames
    FAMILY.give_objective(model, losses=losses)
    return model, processor, FAMILY.load("collator")(processor, model.config, losses=losses)


def loss_of(model, batch):
    with torch.inference_mode():
        return model(**batch).loss


def test_a_video_is_part_of_a_conversation(kind, told, seen, tmp_path):
    model, processor, collator = prepared(kind)
    batch = collator(told)
    end = processor.tokenizer.eos_token
    for number, row in enumerate(told):
        learned = batch["labels"][number][batch["labels"][number] >= 0]
        assert processor.tokenizer.decode(learned) == ChatSample.from_row(row).turns[-1].text + end
    given = {name: value for name, value in batch.items() if name not in ("sequence_weights", "source_ids")}
    torch.testing.assert_close(loss_of(model, batch), loss_of(made(kind)[0], given), atol=1e-5, rtol=1e-5)
    other = str(write_clip(tmp_path / "b.mp4", 20))
    elsewhere = [{**row, "videos": [other] * len(row["videos"])} for row in told]
    assert float(loss_of(model, collator(elsewhere))) != float(loss_of(model, batch))
    asked = [replace(one, turns=one.turns[:-1]) for one in map(ChatSample.from_row, told)]
    together = write_answers(model, processor, asked, 3)
    assert together == [write_answers(model, processor, [one], 3)[0] for one in asked]


def test_a_batch_is_the_processors_own(kind, told):
    """Conversations are encoded one by one and joined: the same tensors as the processor's for all of them."""
    _, processor, collator = prepared(kind)
    told = told if kind != "smolvlm" else [told[0], {**told[0], "id": "again"}]
    made_of = [conversation_of(processor, ChatSample.from_row(row)) for row in told]
    clips, images = [one.clips for one in made_of], [one.images for one in made_of]
    own = encode(processor, [one.rendered.text for one in made_of], images, clips)
    batch, checked = collator(told), 0
    for name, value in own.items():
        if name in batch and name != "batch_num_images":  # a row without pictures has a 0 there
            torch.testing.assert_close(batch[name], torch.as_tensor(value).to(batch[name].dtype), atol=0, rtol=0)
            checked += 1
    assert checked >= 3 and ({"pixel_values", "pixel_values_videos"} & set(batch))


def test_videos_are_packed(kind, told):
    """Lengths told without decoding are those of the processor; the loss is that of padded rows."""
    model, _, collator = prepared(kind)
    assert collator.token_lengths(told) == [int(collator([row])["attention_mask"].sum()) for row in told]
    told = [{**row, "weight": weight} for row, weight in zip(told, (1.0, 0.5, 2.0), strict=True)]
    padded, packed = collator(told), collator([{"pack": told[:2]}, {"pack": told[2:]}])
    assert "attention_mask" not in packed
    torch.testing.assert_close(loss_of(model, packed), loss_of(model, padded), atol=1e-5, rtol=1e-5)


def test_what_the_tower_gives_of_videos_is_kept(kind, told):
    model, processor, collator = prepared(kind, ("sft", "dpo", "distill"))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.1)  # away from where dpo and distill began
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("model.vision", "model.visual.patch", "model.visual.blocks")))
    worse = ChatSample.from_row(told[0])
    worse = replace(worse, rejected=(*worse.turns[:1], text_turn("assistant", "blue")))
    told = [worse.to_row(), *told[1:]]
    cached = kept(model, processor, told)
    assert [one[CACHED_FEATURES] is None for one in cached] == [False, False, True]
    plain, found = collator(told), collator(cached)
    assert set(plain) - set(found) <= set(CUT.replaces) and not set(CUT.replaces) & set(found)
    assert all(torch.equal(plain[name], found[name]) for name in set(plain) & set(found))
    (wanted, gradients), (terms, grads) = trained(model, plain), trained(model, found)
    assert terms == pytest.approx(wanted, abs=1e-6) and set(terms) == {"sft", "dpo", "distill"}
    assert grads and set(grads) == set(gradients)
    for name, value in grads.items():
        torch.testing.assert_close(value, gradients[name], atol=1e-6, rtol=1e-4)
    alone = FAMILY.load("collator")(processor, model.config, losses=("sft",))
    FAMILY.give_objective(model, losses=("sft",))
    padded, packed = alone(told), alone([{"pack": cached[:2]}, {"pack": cached[2:]}])
    torch.testing.assert_close(loss_of(model, packed), loss_of(model, padded), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in WITH_VIDEO if kind != "smolvlm"])  # takes no picture beside a video
def test_the_order_of_a_picture_and_a_video_is_kept(kind, seen):
    model, processor, collator = prepared(kind)
    ask = (Part("video"), Part("text", "or"), Part("image"), Part("text", "?"))
    after = replace(seen[1], turns=(Turn("user", ask), seen[1].turns[1])).to_row()
    for row in (after, seen[1].to_row()):
        one, other = collator([row]), collator(kept(model, processor, [row]))
        torch.testing.assert_close(loss_of(model, other), loss_of(model, one), atol=1e-6, rtol=1e-6)
    assert float(loss_of(model, collator([after]))) != float(loss_of(model, collator([seen[1].to_row()])))


def test_videos_of_other_lengths_share_a_batch(kind, seen, tmp_path):
    model, processor, collator = prepared(kind)
    short = replace(seen[0], id="short", videos=(str(write_clip(tmp_path / "short.mp4", 2)),))
    rows = [seen[0].to_row(), short.to_row()]
    cached = kept(model, processor, rows)
    if kind == "llava_onevision":  # its videos are one tensor [videos, frames, ...]
        for given in (rows, [{"pack": rows}], cached, [{"pack": cached}]):
            with pytest.raises(DataError, match=r"'clip'.*'short'.*equal numbers of frames.*4 frames and 2 frames"):
                collator(given)
        return
    wanted = [loss_of(model, collator([row])) for row in rows]
    tokens = [int((collator([row])["labels"] >= 0).sum()) for row in rows]
    mean = sum(loss * count for loss, count in zip(wanted, tokens, strict=True)) / sum(tokens)
    for given in (rows, [{"pack": rows}], cached, [{"pack": cached}]):
        torch.testing.assert_close(loss_of(model, collator(given)), mean, atol=1e-5, rtol=1e-5)


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


def test_a_request_with_a_video(clip):
    model, processor = made("qwen2_5_vl")
    asked = {"question": "What is red?", "video": [str(clip)], "max_new_tokens": 2}
    answer = FAMILY.load("predict")(model, processor, FAMILY.request.check(asked))
    assert answer["answer"] and answer["videos"] == [str(clip)] and answer["images"] == []
    with pytest.raises(DataError, match=r"row 'request', video 0.*this model takes no videos"):
        FAMILY.load("predict")(*made("llava"), asked)


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
    turns = (text_turn("user", "Which?", videos=2), seen[0].turns[1])
    two = replace(seen[0], turns=turns, videos=(str(clip), str(write_clip(tmp_path / "short.mp4", 2))))
    with pytest.raises(DataError, match=r"row 'clip'.*videos of 4 and 2 frames in one conversation.*options.frames"):
        collator([two.to_row()])
    _, _, smol = prepared("smolvlm")
    with pytest.raises(DataError, match=r"row 'both'.*pictures and videos in one conversation"):
        smol([one.to_row() for one in seen])
    llava = made("llava")
    with pytest.raises(RecipeError, match=r"model\.options\.frames: this model takes no videos"):
        FAMILY.load("adapt")(copy.deepcopy(llava[0]), copy.deepcopy(llava[1]), {"frames": 4})
    adapted = copy.deepcopy(processor)
    FAMILY.load("adapt")(copy.deepcopy(model), adapted, {"frames": 3})
    adapted.save_pretrained(tmp_path / "kept")
    kept = type(adapted).from_pretrained(tmp_path / "kept")
    assert kept.video_processor.num_frames == 3
