"""What a run shows: fixed columns, time left, one place for it, and files to tail."""

import io
import json
import logging
import math
import re
import warnings

import pytest
from rich.console import Console
from rich.text import Text

from hfvla.errors import HfvlaError
from hfvla.noise import without_bars, without_noise
from hfvla.recipe import Stage
from hfvla.training.run.screen import DETAIL
from hfvla.training.run.screen.columns import clock, fitting, heading, line, stage_columns
from hfvla.training.run.screen.files import HistoryFile, run_log
from hfvla.training.run.screen.progress import Part, Progress
from hfvla.training.run.screen.screen import RunScreen, run_screen
from hfvla.training.run.screen.views import LiveView, NotebookView, PlainView, Status, build_view, status_lines


def stage(**changes):
    fields = {"name": "align", "train": ["head"], "losses": {"itc": 1.0, "caption": 0.5}, **changes}
    return Stage.model_validate(fields)


LOGS = {
    "loss": 1.23456, "learning_rate": 1e-4, "grad_norm": 0.5, "step": 40, "align/loss_itc": 2.0,
    "align/loss_caption": 12345.0, "align/samples_per_second": 1234.5, "align/peak_memory_gb": 3.21,
}  # fmt: skip


# ---- columns -----------------------------------------------------------------------------------------------------


def test_a_line_stands_below_its_headings():
    columns = stage_columns(stage(), 1e-4, 2000)
    titles = ["step", "loss", "itc", "caption", "lr", "grad norm", "samples/s", "memory"]
    assert [column.name for column in columns] == titles
    text = "".join(piece for piece, _ in line(columns, LOGS))
    assert text.split() == ["40/2,000", "1.2346", "2.0000", "1.23e+04", "1.0e-04", "0.500", "1,234.5", "3.2", "GB"]
    above = heading(columns)
    assert len(above) == len(text)
    for column in columns:  # each number ends where its heading ends
        end = above.index(column.name) + len(column.name)
        assert text[end - 1] != " " and (end == len(text) or text[end] == " ")


def test_what_a_line_lacks_is_a_dash_and_what_is_no_number_is_red():
    columns = stage_columns(stage(), 1e-4, 10)
    pieces = line(columns, {"step": 1, "loss": math.nan})
    assert pieces[1][0].strip() == "nan" and pieces[1][1] == "bold red"
    assert [text.strip() for text, _ in pieces[2:]] == ["-"] * 6


def test_one_term_is_the_loss_and_rates_that_differ_have_a_column_each():
    columns = stage_columns(stage(losses={"itc": 1.0}, train=["head", "body"], learning_rates={"body": 1e-6}), 1e-4, 9)
    assert [column.name for column in columns][:4] == ["step", "loss", "lr head", "lr body"]
    assert columns[3].key == "align/learning_rate_body"


def test_a_narrow_terminal_keeps_what_matters():
    columns = stage_columns(stage(losses={f"term{n}": 1.0 for n in range(9)}), 1e-4, 2000)
    kept, missing = fitting(columns, 80)
    assert missing == len(columns) - len(kept) > 0
    assert len(heading(kept)) <= 80
    assert [column.name for column in kept][:2] == ["step", "loss"] and "samples/s" in [one.name for one in kept]
    assert fitting(columns, 1000) == (columns, 0)
    assert [column.name for column in fitting(columns, 1)[0]] == ["step", "loss"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (3723, "1:02:03"), (3600 * 51 + 600, "2 d 03:10"), (None, "?"), (math.inf, "?")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


# ---- how far ------------------------------------------------------------------------------------------------------


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def test_time_left_counts_what_is_to_come_at_the_speed_that_was_seen():
    time = Time()
    progress = Progress([Part("stage", "a", 100), Part("stage", "b", 300), Part("evaluation", "e", 40)], time)
    progress.begin("stage", "a")
    assert progress.seconds_left() is None and progress.share() == 0
    time.now = 5.0
    progress.advance(50)  # 10 a second
    # 50 of a and 300 of b at 10 a second, 40 of e at twice that
    assert progress.seconds_left() == pytest.approx(5 + 30 + 2)
    assert progress.share() == pytest.approx(5 / 42)
    time.now = 10.0
    progress.advance(100)
    progress.begin("stage", "b")
    time.now = 20.0
    progress.advance(20)  # 2 a second, and its own speed counts
    assert progress.seconds_left() == pytest.approx(140 + 40 / 4)
    share = progress.share()
    time.now = 1000.0  # it hangs: nothing is known better, and the bar does not go back
    assert progress.share() >= share
    progress.begin("evaluation", "e")
    progress.end()
    assert progress.seconds_left() == 0 and progress.share() == 1


def test_a_stage_that_is_begun_twice_is_not_over():
    time = Time()
    progress = Progress([Part("stage", "a", 100)], time)
    first = progress.begin("stage", "a")  # the run, and then its trainer
    time.now = 4.0
    assert progress.begin("stage", "a") is first and not first.finished
    progress.advance(40)
    assert progress.seconds_left() == pytest.approx(6.0) and progress.share() == pytest.approx(0.4)


def test_a_stage_of_before_counts_as_done_and_says_nothing_of_the_speed():
    time = Time()
    progress = Progress([Part("stage", "a", 100), Part("stage", "b", 100)], time)
    progress.skip("stage", "a")
    part = progress.begin("stage", "b")
    part.before = part.done = 50.0
    assert progress.seconds_left() is None
    time.now = 1.0
    progress.advance(60)
    assert progress.seconds_left() == pytest.approx(4.0)
    assert progress.share() == pytest.approx(0.75 + 0.25 * 1 / 5)


# ---- where --------------------------------------------------------------------------------------------------------

NOW = Status("night", 0.34, 80, 130, "stage align (1 of 2)", "step 40/200", "best accuracy 0.830 at step 40")


def test_the_bar_says_where_the_run_is():
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(status_lines(NOW))
    text = console.file.getvalue()
    for shown in ("night", "34%", "1:20 gone", "~2:10 left", "stage align (1 of 2)", "step 40/200", "best accuracy"):
        assert shown in text
    assert len(text.splitlines()) == 2
    console.print(status_lines(Status("night", 0, 0, None)))
    assert "time left unknown yet" in console.file.getvalue()


def test_a_terminal_keeps_lines_and_the_bar_goes():
    stream = io.StringIO()
    view = LiveView(lambda: NOW, Console(file=stream, force_terminal=True, width=100, highlight=False))
    view.line(Text("first", "red"))
    logging.getLogger("x").debug("unused")
    view.close()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "first" in text and "stage align" in text
    assert "\x1b[31mfirst" in stream.getvalue()


def test_elsewhere_there_are_plain_lines(capsys, monkeypatch):
    monkeypatch.delenv("HFVLA_SCREEN", raising=False)
    view = build_view(lambda: NOW)
    assert isinstance(view, PlainView)
    view.line(Text("first", "red"))
    view.update()
    view.close()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "first\n")


def test_the_variable_chooses_and_a_wrong_word_is_named(monkeypatch):
    monkeypatch.setenv("HFVLA_SCREEN", "off")
    assert build_view(lambda: NOW) is None
    monkeypatch.setenv("HFVLA_SCREEN", "loud")
    with pytest.raises(HfvlaError, match="HFVLA_SCREEN.*loud.*auto, live, plain, notebook, off"):
        build_view(lambda: NOW)
    monkeypatch.setenv("HFVLA_SCREEN", "plain")
    assert isinstance(build_view(lambda: NOW), PlainView)


def test_a_notebook_draws_the_same_in_place(monkeypatch):
    from types import ModuleType, SimpleNamespace

    drawn = []
    module = ModuleType("IPython.display")
    module.HTML = lambda text: text
    handle = SimpleNamespace(update=drawn.append)
    module.display = lambda html, display_id: drawn.append(html) or handle
    monkeypatch.setitem(__import__("sys").modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", module)
    view = NotebookView(lambda: NOW)
    view.line(Text("loss <1>", "bold red"))
    assert len(drawn) == 2 and "loss &lt;1&gt;" in drawn[1] and "stage align" in drawn[1] and "color" in drawn[1]
    view.close()
    assert "loss &lt;1&gt;" in drawn[2] and "stage align" not in drawn[2]


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hfvla_logger(monkeypatch):
    logger = logging.getLogger("hfvla")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger.manager._clear_cache()
    yield logger
    logger.manager._clear_cache()


def test_run_log_has_what_is_said_and_others_hear_no_more_than_before(tmp_path, hfvla_logger, caplog):
    caplog.set_level(logging.WARNING)
    one = logging.getLogger("hfvla.training.x")
    with run_log(tmp_path):
        one.info("quiet %d", 1)
        one.info("table", extra=DETAIL)
        one.warning("loud")
        one.debug("never")
    one.info("after")
    assert [record.getMessage() for record in caplog.records] == ["loud"]
    text = (tmp_path / "run.log").read_text()
    assert re.search(r"\d INFO quiet 1\n.* INFO table\n.* WARNING loud\n$", text)
    assert hfvla_logger.level == logging.NOTSET and hfvla_logger.propagate and not hfvla_logger.handlers
    with run_log(tmp_path):
        one.warning("again")
    assert (tmp_path / "run.log").read_text().startswith(text)


def test_history_is_there_line_by_line_and_a_resumed_stage_takes_back_what_it_does_again(tmp_path):
    history = HistoryFile(tmp_path / "h.jsonl")
    history.begin("a", 0)
    history.add("a", 5, {"loss": 1.0})
    history.begin("b", 0)
    for step in (5, 10, 15):
        history.add("b", step, {"loss": math.inf, "step": 99})
        lines = (tmp_path / "h.jsonl").read_text().splitlines()  # before it is closed
        assert json.loads(lines[-1])["step"] == step and json.loads(lines[-1])["loss"] is None
    (tmp_path / "h.jsonl").open("a").write('{"stage": "b", "st')  # killed in the middle
    again = HistoryFile(tmp_path / "h.jsonl")
    again.begin("b", 10)
    again.add("b", 12, {"loss": 3.0})
    again.close()
    entries = [json.loads(text) for text in (tmp_path / "h.jsonl").read_text().splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in entries] == [("a", 5), ("b", 5), ("b", 10), ("b", 12)]
    assert set(entries[0]) == {"time", "stage", "step", "loss"}


# ---- noise --------------------------------------------------------------------------------------------------------


def test_bars_of_other_libraries_are_off_inside_and_back_outside():
    import datasets
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging as of_transformers

    before = of_transformers.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    downloads = are_progress_bars_disabled()
    with without_bars():
        assert not of_transformers.is_progress_bar_enabled() and datasets.are_progress_bars_disabled()
        assert are_progress_bars_disabled() == downloads
    assert before == (of_transformers.is_progress_bar_enabled(), datasets.are_progress_bars_disabled())
    assert are_progress_bars_disabled() == downloads


def test_a_warning_that_nobody_listed_is_still_heard():
    with pytest.warns(UserWarning, match="something real"), without_noise():
        warnings.warn("something real", stacklevel=1)


# ---- all of it ----------------------------------------------------------------------------------------------------


def test_a_screen_writes_lines_to_the_log_in_full_and_says_what_ended_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HFVLA_SCREEN", "plain")
    monkeypatch.setattr(PlainView, "__init__", lambda self: setattr(self, "width", 40))
    with pytest.raises(ValueError, match="lost"), run_screen("night", tmp_path) as screen:
        screen.plan([Part("stage", "align", 100)])
        screen.begin("stage", "align")
        screen.table(stage(), 1e-4, 2000)
        screen.numbers("align", 40, LOGS)
        assert screen.status().part == "stage align (1 of 1)"
        raise ValueError("lost")
    err = capsys.readouterr().err
    text = (tmp_path / "logs/run.log").read_text()
    assert "caption" not in err.splitlines()[1] and "1.2346" in err
    assert "caption" in text and "1.23e+04" in text and "ERROR ended: ValueError: lost" in text


def test_a_process_that_writes_nothing_shows_nothing(capsys):
    with run_screen("night", None) as screen:
        screen.begin("stage", "x")
        screen.table(stage(), 1e-4, 10)
        screen.numbers("align", 1, LOGS)
        screen.say("x")
        screen.batches("predict", 1, 3)
    assert capsys.readouterr() == ("", "")
    assert RunScreen("night", None).history is None
