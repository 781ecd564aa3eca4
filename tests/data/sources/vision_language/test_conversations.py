"""LLaVA-Instruct, ShareGPT, OpenAI and TRL conversations."""

import base64
import json

import pytest

from hfvla.errors import DataError

from ...video_clips import write_clip
from .sets import picture, read, said, write


@pytest.fixture
def root(tmp_path):
    for number in (1, 2):
        picture(tmp_path / "set" / "train2017" / f"{number:012d}.jpg")
    return tmp_path / "set"


def llava(**changes):
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "Which colour?"},
        {"from": "gpt", "value": "Red."},
    ]
    return {"id": "000000000001", "image": "000000000001.jpg", "conversations": turns, **changes}


def test_llava_instruct(root):
    (sample,), census = read(write(root / "llava_instruct_150k.json", [llava()]))
    assert said(sample) == [
        ("user", "<image>What is it?"),
        ("assistant", "A dog."),
        ("user", "Which colour?"),
        ("assistant", "Red."),
    ]
    assert sample.images[0].path.endswith("train2017/000000000001.jpg") and sample.group == "coco/1"
    assert (sample.source, sample.split) == ("llava_instruct_150k", "")
    assert census["files"] == {"llava_instruct_150k.json": "llava"}


def test_a_picture_behind_the_words_stays_there(root):
    turns = [{"from": "human", "value": "What is it?\n<image>"}, {"from": "gpt", "value": "A dog."}]
    (sample,), _ = read(write(root / "a.json", [llava(conversations=turns)]))
    assert [part.type for part in sample.turns[0].content] == ["text", "image"]


def test_ids_that_name_pictures_repeat_and_stay(root):
    other = llava(conversations=[{"from": "human", "value": "Tell."}, {"from": "gpt", "value": "It is a dog."}])
    samples, census = read(write(root / "a.json", [llava(), other, llava()]), max_bad_fraction=0.5)
    assert [sample.id for sample in samples] == ["000000000001", "000000000001#1"]
    assert census["rejected"]["record that stands twice"]["count"] == 1
    assert said(samples[1])[0] == ("user", "<image>Tell.")  # no placeholder: the picture comes first


def test_sharegpt_without_pictures(root):
    turns = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello"},
    ]
    (sample,), _ = read(write(root / "sharegpt.jsonl", [{"id": "x", "conversations": turns}]))
    assert [turn.role for turn in sample.turns] == ["system", "user", "assistant"] and not sample.images


def test_openai_messages_with_pictures_of_every_form(root):
    encoded = (root / "train2017" / "000000000002.jpg").read_bytes()
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded).decode()
    content = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image", "image": "train2017/000000000001.jpg"},
        {"type": "text", "text": "Which is red?"},
    ]
    record = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Both."}]}
    (sample,), census = read(write(root / "chat.jsonl", [record]))
    assert census["files"] == {"chat.jsonl": "messages"} and sample.id == "chat.jsonl:1"
    assert [part.type for part in sample.turns[0].content] == ["image", "image", "text"]
    assert sample.images[0].data == encoded and sample.images[1].path.endswith("000000000001.jpg")


def test_trl_preference_pairs(root):
    record = {
        "images": ["train2017/000000000001.jpg"],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A dog."}]}],
        "rejected": [{"role": "assistant", "content": "A cat."}],
    }
    samples, census = read(write(root / "pairs.jsonl", [record, {**record, "rejected": "A cow."}]))
    sample = samples[0]
    assert census["files"] == {"pairs.jsonl": "preference"}
    assert said(sample) == [("user", "<image>What is it?"), ("assistant", "A dog.")]
    assert [(turn.role, turn.text) for turn in sample.rejected] == [("user", "What is it?"), ("assistant", "A cat.")]
    assert samples[1].rejected[-1].text == "A cow."


def test_videos_in_every_form(root):
    (root / "clips").mkdir()
    clip = write_clip(root / "clips" / "a.mp4", 12)
    words = [{"role": "user", "content": "What happens?"}, {"role": "assistant", "content": "It falls."}]
    place = [
        {"role": "user", "content": [{"type": "video", "video": "clips/a.mp4"}, {"type": "text", "text": "What?"}]}
    ]
    records = [
        {"messages": words, "videos": ["clips/a.mp4"]},
        {"messages": [*place, words[1]]},
        {
            "conversations": [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "x"}],
            "video": "clips/a.mp4",
        },
        {
            "messages": words,
            "videos": ["clips/a.mp4", {"path": "clips/a.mp4"}],
            "images": ["train2017/000000000001.jpg"],
        },
    ]
    samples, census = read(write(root / "videos.jsonl", records))
    assert not census["rejected"]
    assert [sample.videos for sample in samples] == [(str(clip),), (str(clip),), (str(clip),), (str(clip),) * 2]
    parts = [[part.type for part in sample.turns[0].content] for sample in samples]
    assert parts == [["video", "text"]] * 3 + [["image", "video", "video", "text"]]
    assert len({sample.group for sample in samples[::2]}) == 1


def test_a_video_that_is_cut_short_is_counted(root):
    data = write_clip(root / "whole.mp4", 12).read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) // 2])
    (root / "empty.mp4").write_bytes(b"")
    words = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "It falls."}]
    records = [{"id": name, "messages": words, "videos": [f"{name}.mp4"]} for name in ("whole", "cut", "empty")]
    samples, census = read(write(root / "videos.jsonl", records), max_bad_fraction=0.9)
    assert [sample.id for sample in samples] == ["whole"]
    assert set(census["rejected"]) == {"the video is truncated", "video file is empty"}


def test_texts_alone_as_preference_pairs(root):
    record = {"prompt": "What is it?", "chosen": "A dog.", "rejected": "A cat.", "images": ["000000000002.jpg"]}
    (sample,), _ = read(write(root / "pairs.jsonl", [record]))
    assert said(sample)[0] == ("user", "<image>What is it?") and sample.rejected[-1].text == "A cat."


def test_a_record_and_a_source_have_weights_in_the_loss(root):
    path = write(root / "a.json", [llava(), llava(id="b", weight=0.5), llava(id="c", weight=0)])
    assert [sample.weight for sample in read(path)[0]] == [1.0, 0.5, 0.0]
    assert [sample.weight for sample in read(path, loss_weight=3.0)[0]] == [3.0, 1.5, 0.0]
    path = write(root / "rows.jsonl", [{"image": "000000000001.jpg", "q": "What?", "a": "A dog.", "trust": 0.25}])
    mapping = {"image": "image", "question": "q", "answer": "a", "weight": "trust"}
    assert [sample.weight for sample in read(path, mapping=mapping)[0]] == [0.25]


TURNS = llava()["conversations"]


@pytest.mark.parametrize(
    ("changes", "reason", "first"),
    [
        ({"image": "none.jpg"}, "annotation without its picture", "none.jpg"),
        ({"image": "../../secret.jpg"}, "image path outside the data root", "../../secret.jpg"),
        ({"image": "/etc/passwd"}, "image path outside the data root", "/etc/passwd"),
        ({"image": "http://localhost/a.jpg"}, "only the address of a picture", "http://localhost/a.jpg"),
        (
            {"image": ["000000000001.jpg", "000000000002.jpg"]},
            "image placeholders and images differ",
            "1 placeholders, 2",
        ),
        ({"conversations": []}, "conversation without turns", ""),
        ({"conversations": TURNS[1:]}, "roles out of order", "assistant user assistant"),
        ({"conversations": TURNS[:3]}, "roles out of order", "user assistant user"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": " "}]}, "empty turn", "' '"),
        ({"conversations": [TURNS[0], {"from": "gpt", "value": None}]}, "turn is not text", "message 1: None"),
        ({"conversations": [TURNS[0], {"from": "tool", "value": "x"}]}, "unknown role", "'tool'"),
        ({"conversations": ["x"]}, "message is not an object", "'x'"),
        ({"video": "a.mp4", "image": None}, "annotation without its video", "a.mp4"),
        ({"video": "http://localhost/a.mp4", "image": None}, "only the address of a video", "http://localhost/a.mp4"),
        ({"video": "../../a.mp4", "image": None}, "image path outside the data root", "../../a.mp4"),
        ({"video": 7, "image": None}, "no video path", "got int"),
        ({"weight": "2"}, "weight is no number from 0 up", "got '2'"),
        ({"weight": -1}, "weight is no number from 0 up", "got -1"),
        ({"weight": float("nan")}, "weight is no number from 0 up", "got nan"),
    ],
)
def test_what_cannot_be_used_is_counted_by_reason(root, changes, reason, first):
    samples, census = read(write(root / "a.json", [llava(), llava(id="bad", **changes)]), max_bad_fraction=0.5)
    assert len(samples) == 1 and census["found"] == 2 and list(census["rejected"]) == [reason]
    assert (
        census["rejected"][reason]["first"].startswith("a.json:1 (bad)")
        and first in census["rejected"][reason]["first"]
    )


def test_lines_that_are_no_json_are_counted_and_the_others_read(root):
    lines = [json.dumps(llava()).encode(), b'{"id": "cut", ', json.dumps(llava(id="3")).encode()]
    (root / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    samples, census = read(root / "a.jsonl", max_bad_fraction=0.5)
    assert len(samples) == 2 and census["rejected"]["line that is no JSON"]["first"].startswith("a.jsonl:2")


def test_bytes_that_are_no_utf8_spoil_their_record_alone(root):
    good, bad = json.dumps(llava(), ensure_ascii=False).encode(), json.dumps(llava(id="x")).encode()
    (root / "a.json").write_bytes(b"[" + good + b"," + bad.replace(b"A dog", b"A d\xffg") + b"]")
    samples, census = read(root / "a.json", max_bad_fraction=0.5)
    assert len(samples) == 1 and census["rejected"]["turn is not UTF-8"]["first"].startswith("a.json:1 (x)")


def test_a_broken_list_is_refused_by_line_and_column(root):
    (root / "a.json").write_text("[" + json.dumps(llava()) + ",\n" + json.dumps(llava())[:60])
    with pytest.raises(DataError, match=r"a\.json:2:\d+: broken JSON.*cut short"):
        read(root / "a.json")


def test_questions_and_answers_as_the_cauldron_has_them(root):
    pairs = [{"user": "What is it?", "assistant": "A dog.", "source": "x"}, {"user": "Sure?", "assistant": "Yes."}]
    record = {"images": ["train2017/000000000001.jpg"], "texts": pairs}
    samples, census = read(write(root / "a.jsonl", [record, {**record, "texts": ["x"]}]), max_bad_fraction=0.5)
    assert said(samples[0])[0] == ("user", "<image>What is it?") and len(samples[0].turns) == 4
    assert census["files"] == {"a.jsonl": "messages"} and list(census["rejected"]) == ["no question with its answer"]
