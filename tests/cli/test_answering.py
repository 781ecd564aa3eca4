"""What `hfvla predict` hands to a family: one request, or a file to fill."""

import json
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from hfvla.cli import main
from hfvla.family import AnswerFile, Source, SourceData


class Options(BaseModel):
    path: str
    max_bad_fraction: float = 0.01


@pytest.fixture
def family(monkeypatch):
    """A family that records what it is asked; `built` holds the options of its source."""
    asked, built = [], []

    def answer_file(model, processor, data, request):
        asked.append((model, processor, data, request))
        return {"questions": 2}

    def predict(model, processor, request):
        asked.append(request)
        return {"answer": "green"}

    def build(options, *, seed):
        built.append((options, seed))
        return SourceData(["row"], {})

    spec = SimpleNamespace(name="made", path=lambda hook: "module:function", source=lambda name: Source("o", "b"))
    spec.load = {"answer_file": answer_file, "predict": predict}.__getitem__
    model = SimpleNamespace()
    model.to = lambda device: f"model on {device}"
    monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: spec)
    monkeypatch.setattr("hfvla.registry.load_checkpoint", lambda path: (spec, model, "processor"))
    monkeypatch.setattr("hfvla.recipe.build_options", lambda spec, name, given, where: Options(**given))
    monkeypatch.setattr("hfvla.family.resolve", lambda name: build)
    return SimpleNamespace(spec=spec, asked=asked, built=built)


@pytest.fixture
def predict(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as caught:
            main(["predict", "--checkpoint", "c", *words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err)

    return call


def test_a_file_is_the_familys_to_write(predict, family):
    words = ["--data", "made=t.json", "--csv", "s.csv", "--device", "cpu", "--json"]
    done = predict(*words, "--limit", "7", "--deadline", "12.5", "--id-column", "question_id", "--seed", "3")
    assert done.code == 0 and json.loads(done.out) == {"questions": 2}
    model, processor, data, request = family.asked[0]
    assert (model, processor, data.dataset) == ("model on cpu", "processor", ["row"])
    settings = {"checkpoint": "c", "data": "made=t.json", "seed": 3}
    assert request == AnswerFile("s.csv", settings, "question_id", limit=7, deadline_s=12.5, device="cpu")
    options, seed = family.built[0]
    assert options.max_bad_fraction == 1.0 and seed == 3  # the file names every question it cannot answer


def test_no_deadline_and_a_limit_of_ones_own(predict, family):
    done = predict("--data", "made:path=t.json,max_bad_fraction=0.1", "--csv", "s.csv", "--deadline", "0")
    assert done.code == 0
    assert family.asked[0][3].deadline_s is None and family.asked[0][3].limit is None
    assert family.built[0][0].max_bad_fraction == 0.1


def test_a_family_without_files_says_so(predict, family):
    family.spec.path = lambda hook: None
    done = predict("--data", "made=t.json", "--csv", "s.csv")
    assert done.code == 2 and "writes no file of answers" in done.err and not family.built


def test_a_question_with_choices(predict, family, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"x")
    done = predict("--video", str(clip), "--question", "Which light?", "--choices", "red| green ")
    assert done.code == 0 and "green" in done.out
    assert family.asked == [{"question": "Which light?", "choices": ["red", "green"], "video": str(clip)}]
    predict("--question", "Which light?", "--choices", "red|green", "--generate")
    assert family.asked[-1] == {"question": "Which light?", "choices": ["red", "green"], "generate": True}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a --task, a --question or a --text"),
        (["--task", "t", "--question", "q"], "a --task, a --question or a --text"),
        (["--csv", "s.csv"], "--csv and --data go together"),
        (["--data", "made=t.json"], "--csv and --data go together"),
        (["--data", "made=t.json", "--csv", "s.csv", "--task", "t"], "--csv answers a whole file"),
        (["--question", "q"], "a question needs its choices"),
        (["--question", "q", "--choices", "a||b"], "a question needs its choices"),
        (["--question", "q", "--choices", "a|b", "--video", "gone.mp4"], "no such video"),
    ],
)
def test_contradictions_are_named(predict, family, words, message):
    done = predict(*words)
    assert done.code == 2 and message in done.err and not family.asked
