"""What `hfvla predict` hands to a family: one request, or a file to fill."""

import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import BaseModel

from hfvla.cli import main
from hfvla.cli.commands import app
from hfvla.family import AnswerFile, Request, RequestField, Source, SourceData
from hfvla.family.request_fields import RESERVED
from hfvla.registry import available_families


class Options(BaseModel):
    path: str
    max_bad_fraction: float = 0.01


ASKED, BUILT = [], []
"""What the family is asked, and the options that its source is built with."""

FIELDS = (
    RequestField("question", "what is asked", required=True),
    RequestField("video", "the clip", kind="video"),
    RequestField("choices", "without letters", repeated=True, separator="|", count=(2, 4)),
    RequestField("views", "a camera's picture", kind="picture", named=True, option="view"),
    RequestField("state", "of the robot", kind="numbers"),
    RequestField("sensor", "its samples", kind="data"),
    RequestField("top_k", "answers", kind="integer", least=1, default=3),
    RequestField("generate", "in words", kind="switch", default=False),
    RequestField("tone", "of the answer", choices=("kind", "plain")),
    RequestField("gallery", "pictures", kind="folder", whole_file=True),
    RequestField("sheet", "drawn", kind="output", suffixes=(".png",)),
)


def answer_file(model, processor, data, request):
    ASKED.append((model, processor, data, request))
    return {"questions": 2}


def answer(model, processor, request):
    ASKED.append(request)
    return {"answer": "green"}


@pytest.fixture
def family(monkeypatch):
    """A family that records what it is asked."""
    ASKED.clear()
    BUILT.clear()

    def build(options, *, seed):
        BUILT.append((options, seed))
        return SourceData(["row"], {})

    spec = dataclasses.replace(
        next(iter(available_families().values())), name="made", request=Request(FIELDS),
        sources={"made": Source("o", "b")},
        hooks={"predict": f"{__name__}:answer", "answer_file": f"{__name__}:answer_file"},
    )  # fmt: skip
    model = SimpleNamespace()
    model.to = lambda device: f"model on {device}"
    monkeypatch.setattr("hfvla.registry.load_checkpoint", lambda path: (spec, model, "processor"))
    monkeypatch.setattr("hfvla.recipe.build_options", lambda spec, name, given, where: Options(**given))
    monkeypatch.setattr("hfvla.family.resolve", lambda name: build)
    monkeypatch.setattr("hfvla.cli.answering._identity", lambda checkpoint: {"checkpoint": checkpoint})

    def use(**changes):
        nonlocal spec
        spec = dataclasses.replace(spec, **changes)
        monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: spec)

    use()
    return SimpleNamespace(use=use, asked=ASKED, built=BUILT)


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
    family.use(hooks={}, package="nowhere")
    done = predict("--data", "made=t.json", "--csv", "s.csv")
    assert done.code == 2 and "writes no file of answers" in done.err and not family.built


DEFAULTS = {"top_k": 3, "generate": False}


def test_the_familys_own_options(predict, family, tmp_path):
    clip, picture = tmp_path / "clip.mp4", tmp_path / "front.png"
    for file in (clip, picture):
        file.write_bytes(b"x")
    done = predict("--video", str(clip), "--question", "Which light?", "--choices", "red| green ")
    assert done.code == 0 and "green" in done.out
    asked = {"question": "Which light?", "choices": ["red", "green"], "video": str(clip), **DEFAULTS}
    assert family.asked == [asked]
    words = ["--view", f"front={picture}", "--state", "0.5,-1", "--sensor", '{"values": [[1]]}', "--top-k", "5"]
    assert predict("--question", "q", "--generate", "--choices=a", "--choices=b", *words).code == 0
    expected = {"question": "q", "generate": True, "choices": ["a", "b"], "views": {"front": str(picture)}, "top_k": 5}
    assert family.asked[-1] == {**expected, "state": [0.5, -1.0], "sensor": {"values": [[1]]}}


def test_a_request_from_a_file(predict, family, tmp_path, monkeypatch):
    file, series = tmp_path / "request.json", tmp_path / "series.npz"
    file.write_text(json.dumps({"question": "Which light?", "state": [1, 2], "sensor": None}))
    np.savez(series, times_s=np.arange(2.0), values=np.ones((2, 1)))
    assert predict("--request", str(file)).code == 0
    assert family.asked == [{"question": "Which light?", "state": [1, 2], **DEFAULTS}]
    assert predict("--request", str(file), "--question", "Another?", "--sensor", str(series)).code == 0
    assert family.asked[-1]["question"] == "Another?" and family.asked[-1]["state"] == [1, 2]
    assert family.asked[-1]["sensor"] == {"times_s": [0.0, 1.0], "values": [[1.0], [1.0]]}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"question": "From a pipe?"}'))
    assert predict("--request", "-").code == 0 and family.asked[-1]["question"] == "From a pipe?"


def test_a_family_that_describes_no_request_is_asked_by_a_file(predict, family, tmp_path):
    family.use(request=None)
    (tmp_path / "request.json").write_text('{"anything": 1}')
    assert predict("--request", str(tmp_path / "request.json")).code == 0 and family.asked == [{"anything": 1}]
    done = predict()
    assert done.code == 2 and "--request FILE.json" in done.err


def test_help_is_the_familys(predict, family):
    done = predict("--help")
    assert done.code == 0 and all(field.flag in done.out for field in FIELDS) and "Required" in done.out
    family.use(request=Request(FIELDS[:1]))
    done = predict("--help")
    assert "--question" in done.out and "--choices" not in done.out


def test_a_file_that_would_be_written(predict, family, tmp_path):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"mine")
    done = predict("--question", "q", "--sheet", str(sheet))
    assert done.code == 2 and "--sheet" in done.err and "sheet.png" in done.err and not family.asked
    assert predict("--question", "q", "--sheet", str(sheet), "--overwrite").code == 0


def test_what_holds_for_all_questions_of_a_file(predict, family, tmp_path):
    words = ["--data", "made=t.json", "--csv", str(tmp_path / "s.csv"), "--gallery"]
    assert predict(*words, str(tmp_path)).code == 0 and family.asked[0][3].given == {"gallery": str(tmp_path)}
    done = predict(*words, str(tmp_path / "gone"))
    assert done.code == 2 and "--gallery: no such folder" in done.err


def test_reserved_names_are_the_commands_own():
    import typer

    command = typer.main.get_command(app).commands["predict"]
    assert {option.name.removeprefix("as_") for option in command.params} | {"help"} == RESERVED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the request lacks --question"),
        (["--qestion", "q"], "made is not asked by --qestion. Did you mean '--question'?"),
        (["--question", "q", "--tone", "kin"], "--tone: no such choice. Did you mean 'kind'?"),
        (["--csv", "s.csv"], "--csv and --data go together"),
        (["--data", "made=t.json"], "--csv and --data go together"),
        (["--data", "made=t.json", "--csv", "s.csv", "--question", "t"], "answers a whole file; got '--question'"),
        (["--question", "q", "--choices", "a"], "--choices: how many choices; got 1; expected 2 to 4"),
        (["--question", "q", "--choices", "a||b"], "--choices: not a text, or an empty one"),
        (["--question", "q", "--choices", "a|b", "--video", "gone.mp4"], "no such video"),
        (["--question", "q", "--top-k", "many"], "--top-k: not an integer; got 'many'"),
        (["--question", "q", "--top-k", "0"], "--top-k: the number is too small; got 0; expected 1 or more"),
        (["--question", "q", "--state", "1,x"], "--state: not numbers; got '1,x'"),
        (["--question", "q", "--view", "front.png"], "--view: not a value with its name"),
        (["--question", "q", "--sensor", "gone.json"], "--sensor: neither JSON nor a file with it"),
        (["--question", "q", "--sensor", "{"], "--sensor: not JSON"),
        (["--question", "q", "--sheet", "drawn.pdf"], "--sheet: no such format"),
        (["--request", "gone.json"], "--request gone.json: the request cannot be read"),
    ],
)
def test_contradictions_are_named(predict, family, words, message):
    done = predict(*words)
    assert done.code == 2 and message in done.err and not family.asked


def test_without_a_checkpoint_its_options_are_not_known(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["predict", "--question", "q"])
    assert caught.value.code == 2 and "--checkpoint DIR" in capsys.readouterr().err
