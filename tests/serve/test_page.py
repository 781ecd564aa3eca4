"""The page of `hfvla demo`: its forms without a browser, and a real browser that makes a choice and reads it back."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hfvla.errors import DataError, HfvlaError
from hfvla.family import Curve, Request, RequestField, Shown
from hfvla.registry import available_families
from hfvla.serve.page.fields import form_of, request_of

from .http_fakes import REQUEST, parts


class Recorder:
    """Stands for Gradio: remembers which components were made, with what."""

    def __init__(self):
        self.made = []

    def __getattr__(self, name):
        def make(*arguments, **named):
            self.made.append((name, arguments, named))
            return SimpleNamespace(kind=name, **named)

        return make


def test_a_component_for_each_field_that_a_visitor_may_fill_in():
    page = Recorder()
    form_of(page, REQUEST, names=("front", "wrist"))
    assert [(kind, named["elem_id"]) for kind, _, named in page.made] == [
        ("Textbox", "field-task"), ("Image", "field-image"), ("Image", "field-views-front"),
        ("Image", "field-views-wrist"), ("File", "field-more"), ("Video", "field-clip"), ("Textbox", "field-state"),
        ("Textbox", "field-sensor"), ("Number", "field-top_k"), ("Textbox", "field-words"), ("Checkbox", "field-slow"),
    ]  # fmt: skip
    assert page.made[0][2]["value"] == "go"  # the example


def test_values_of_the_form_make_the_request(tmp_path):
    scene = str(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(scene)
    values = ["go", scene, None, scene, [scene, scene], None, "1, -2.5", '{"a": [1]}', 2, "one\n two \n", True]
    assert request_of(REQUEST, values, names=("front", "wrist")) == {
        "task": "go", "image": scene, "views": {"wrist": scene}, "more": [scene, scene], "state": [1, -2.5],
        "sensor": {"a": [1]}, "top_k": 2, "words": ["one", "two"], "slow": True,
    }  # fmt: skip
    empty = ["go", None, None, None, None, None, "", "", None, "", False]
    assert request_of(REQUEST, empty, names=("front", "wrist")) == {"task": "go", "top_k": 3, "slow": False}
    with pytest.raises(DataError, match="the request lacks 'task'"):
        request_of(REQUEST, ["", *empty[1:]], names=("front", "wrist"))
    with pytest.raises(DataError, match="state: not JSON, nor numbers"):
        request_of(REQUEST, [*empty[:6], "/etc/passwd.json", *empty[7:]], names=("front", "wrist"))


@pytest.mark.parametrize("family", sorted(n for n, s in available_families().items() if s.request is not None))
def test_every_family_has_a_form(family):
    page = Recorder()
    form_of(page, available_families()[family].request, names=("front",))
    assert page.made


def test_a_number_that_may_be_empty_is_none_when_it_is():
    request = Request(
        (RequestField("most", "at most", kind="integer", least=1), RequestField("heat", "", kind="number"))
    )
    page = Recorder()
    form_of(page, request)
    assert [kind for kind, _, _ in page.made] == ["Textbox", "Textbox"]  # Gradio sends 0 for an empty Number
    assert request_of(request, ["", ""]) == {} and request_of(request, ["3", "0.5"]) == {"most": 3, "heat": 0.5}
    with pytest.raises(DataError, match="most: not a number; got 'three'"):
        request_of(request, ["three", ""])


def test_choices_are_chosen_from():
    page = Recorder()
    form_of(page, Request((RequestField("lane", "which", choices=("left", "right")),)))
    assert page.made[0][0] == "Dropdown" and page.made[0][2]["choices"] == ["left", "right"]


def test_robots_to_look_at():
    spec, model, processor = parts("ember_vlm")
    plan = [{"order": order, "robot": "Drone", "subtask": task} for order, task in ((2, "land"), (1, "fly"))]
    reply = {"robots": ["Drone"], "probabilities": {"Drone": 0.9}, "reasoning": "Step 1: *a* Step 2: b", "plan": plan}
    shown = spec.load("show")(model, processor, {}, reply)
    assert "**Chosen:** Drone" in shown.text and "- Step 1: \\*a\\*\n- Step 2: b" in shown.text
    assert shown.confidences == {"Drone": 0.9} and [row[2] for row in shown.rows] == ["fly", "land"]


def test_pictures_found_have_the_box_of_the_model():
    spec, model, processor = parts("internvl_retrieval")
    from hfvla.models.internvl_retrieval.showing import locate

    grey = Image.new("RGB", (80, 60), (128, 128, 128))
    (box,) = locate(model, processor, "a red wall", [grey])
    left, top, right, bottom = box
    assert 0 <= left <= right <= 1 and 0 <= top <= bottom <= 1
    reply = {
        "text": "a red wall",
        "searched": 9,
        "results": [{"rank": 1, "id": "g/x.png", "score": 0.5, "path": grey}],
    }
    reply["results"][0]["path"] = _saved(grey)
    shown = spec.load("show")(model, processor, {}, reply)
    ((drawn, caption),) = shown.pictures
    red = (np.asarray(drawn) == (230, 40, 40)).all(axis=-1)
    rows, columns = np.where(red)
    assert caption == "1: 0.500  x.png" and "of 9 pictures" in shown.text
    assert abs(columns.min() - left * 80) <= 2 and abs(rows.max() - min(bottom * 60, 59)) <= 2


def _saved(picture):
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".png", delete=False) as file:
        picture.save(file, "PNG")
    return file.name


def test_frames_that_count_are_those_whose_absence_changes_the_answer():
    import torch

    from hfvla.models.internvl_video_qa.answering import VideoFeatures
    from hfvla.models.internvl_video_qa.showing import frame_weights

    _, model, processor = parts("internvl_video_qa")
    width = model.config.get_text_config().hidden_size
    features = VideoFeatures(torch.randn(3, processor.tokens_per_tile, width), (1, 2))
    weights = frame_weights(model, processor, features, "Which?", ["a", "b"], 1)

    def probability(kept, tiles):
        left = VideoFeatures(features.features[kept], tiles)
        return model.answer_features(processor, left, [("Which?", ["a", "b"])])[0].probabilities[1]

    whole = probability([0, 1, 2], (1, 2))
    assert weights == pytest.approx([whole - probability([1, 2], (2,)), whole - probability([0], (1,))], abs=1e-6)


def test_actions_to_look_at():
    spec, model, processor = parts("sensor_vla")
    reply = {"actions": [[0.0, 1.0], [0.5, -1.0]], "names": ["x", "grip"], "fps": 10.0, "sensor": True}
    shown = spec.load("show")(model, processor, {}, reply)
    assert shown.headings == ("s", "x", "grip") and shown.rows[1] == ["0.10", "+0.5000", "-1.0000"]
    assert shown.curve.lines["grip"] == [1.0, -1.0] and list(shown.curve.x) == [0.0, 0.1]


def test_gradio_that_is_missing_is_said(monkeypatch):
    import sys

    from hfvla.serve.page import load_gradio

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(HfvlaError, match=r"hfvla demo needs the package 'gradio'.*hfvla\[demo\]"):
        load_gradio()


def test_a_curve_is_drawn_without_formulas():
    from hfvla.serve.page.views import draw

    figure = draw(Curve("t", "s", "N", [0, 1], {"a$b$c{": [1, 2], "d": [2, 1]}))
    figure.canvas.draw()
    assert len(figure.axes[0].lines) == 2


# ---- with Gradio, and with a browser --------------------------------------------------------------------------------


def keep(browser, name):
    """Write what the browser shows as a picture for the pages, where HFVLA_SCREENSHOTS names their folder."""
    if os.environ.get("HFVLA_SCREENSHOTS"):
        browser.set_viewport_size({"width": 1200, "height": 1100})
        browser.wait_for_timeout(1500)  # until pictures are faded in
        browser.screenshot(path=os.path.join(os.environ["HFVLA_SCREENSHOTS"], f"{name}.png"))


@pytest.fixture
def shown(tmp_path):
    """Launch the page of a family's tiny checkpoint; returns its address."""
    pytest.importorskip("gradio")
    import socket

    from hfvla.serve.page.loading import load_page

    pages = []

    def launch(family, built=None, **options):
        _, model, processor = built or parts(family)
        model.save_pretrained(tmp_path / family)
        processor.save_pretrained(tmp_path / family)
        pages.append(load_page(str(tmp_path / family), "cpu", **options))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return pages[-1].launch("127.0.0.1", port)

    yield launch
    for page in pages:
        page.close()


@pytest.mark.slow
def test_a_choice_is_made_in_a_browser_and_the_answer_read_back(browser, shown, tmp_path):
    _, model, processor = parts("ember_vlm")
    scene = tmp_path / "scene.png"
    Image.new("RGB", (120, 90), (30, 140, 60)).save(scene)
    browser.goto(shown("ember_vlm"))
    browser.locator("#field-task textarea").fill("Survey the flooded valley")
    browser.locator("#field-image input[type=file]").set_input_files(str(scene))
    browser.locator("#field-reasoning input").uncheck()
    browser.get_by_role("button", name="Ask", exact=True).click()
    browser.locator("#answer-text").get_by_text("Chosen").wait_for()
    wanted = model.select_robots(processor, Image.open(scene), "Survey the flooded valley", return_reasoning=False)
    assert browser.locator("#answer-text").inner_text() == f"Chosen: {', '.join(wanted.robots)}"
    told = browser.locator("#answer-confidences").inner_text()
    assert all(name in told for name in wanted.probabilities)
    # What cannot be answered is told in its place.
    browser.locator("#field-task textarea").fill("")
    browser.get_by_role("button", name="Ask", exact=True).click()
    browser.locator("#answer-text").get_by_text("the request lacks 'task'").wait_for()


@pytest.mark.slow
def test_a_conversation_about_a_picture_in_a_browser(browser, shown, tmp_path):
    scene = tmp_path / "scene.png"
    Image.new("RGB", (120, 90), (30, 140, 60)).save(scene)
    browser.goto(shown("ember_vlm"))
    browser.get_by_role("tab", name="Chat").click()
    browser.locator("#chat-text input[type=file]").set_input_files(str(scene))
    browser.locator("#chat-text img").wait_for()
    browser.locator("#chat-text textarea").press_sequentially("What is it?")
    browser.locator("#chat-text textarea").press("Enter")
    browser.locator(".bot.message").first.wait_for()
    assert browser.get_by_text("What is it?").count() == 1


@pytest.mark.slow
def test_a_search_in_a_browser(browser, shown, tmp_path):
    (tmp_path / "gallery").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 60), (80 * number, 20, 60)).save(tmp_path / "gallery" / f"{number}.png")
    browser.goto(shown("internvl_retrieval", gallery=str(tmp_path / "gallery")))
    browser.locator("#search-text textarea").fill("a red wall")
    browser.get_by_role("button", name="Search", exact=True).click()
    browser.locator("#found-text").get_by_text("Best 3 of 3 pictures").wait_for()
    browser.locator("#found-pictures img").first.wait_for()
    assert browser.locator("#found-pictures img").count() == 3


@pytest.mark.slow
def test_a_clip_is_asked_in_a_browser_and_the_frames_that_counted_are_shown(browser, shown, tmp_path):
    av = pytest.importorskip("av")
    _, model, processor = parts("internvl_video_qa")
    clip = str(tmp_path / "clip.mp4")
    with av.open(clip, "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for level in range(30):
            pixels = np.full((180, 320, 3), 60 + level * 4, np.uint8)
            pixels[60:120, 8 * level : 8 * level + 60] = (220, 40, 40)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    browser.goto(shown("internvl_video_qa"))
    browser.locator("#field-video input[type=file]").set_input_files(clip)
    browser.locator("#field-video video").wait_for()
    browser.locator("#field-question textarea").fill("Where does the square go?")
    browser.locator("#field-choices textarea").fill("left\nright")
    browser.get_by_role("button", name="Ask", exact=True).click()
    browser.locator("#answer-text").get_by_text("Under each frame").wait_for()
    wanted = model.answer(processor, clip, "Where does the square go?", ["left", "right"])
    said = browser.locator("#answer-text").inner_text()
    assert said.startswith(f"{wanted.letter}. {['left', 'right'][wanted.index]}")
    browser.locator("#answer-pictures img").first.wait_for()
    frames = len(processor.read_clip(clip, ()).pixels)
    assert frames > 1 and browser.locator("#answer-pictures button.thumbnail-item").count() == frames
    told = browser.locator("#answer-pictures").inner_text()
    assert told.count(" s: ") == frames
    keep(browser, "demo_clip")


def policy_for_insertion(folder):
    """Return spec, model and processor of a policy that knows nothing yet, in the sizes of the tiny recipe."""
    from pathlib import Path

    import yaml

    from hfvla.worlds.insertion import InsertionOptions, build_insertion

    spec = available_families()["sensor_vla"]
    recipe = yaml.safe_load((Path(__file__).parents[2] / "recipes" / "sensor_vla" / "tiny.yaml").read_text())["model"]
    rows = build_insertion(InsertionOptions(episodes=1, horizon=8, folder=str(folder)), seed=0).dataset
    model, processor = spec.load("initialise")(recipe, rows, seed=0)
    return spec, model.eval(), processor


@pytest.mark.slow
@pytest.mark.system("pictures")
def test_an_episode_with_its_force_is_watched_in_a_browser(browser, shown, tmp_path):
    pytest.importorskip("metaworld")
    browser.goto(shown("sensor_vla", policy_for_insertion(tmp_path / "recordings")))
    browser.get_by_role("tab", name="Episode").click()
    browser.locator("#episode-steps input").fill("40")
    browser.get_by_role("button", name="Watch", exact=True).click()
    browser.locator("#episode-text").get_by_text("after 40 steps; at most").wait_for()
    browser.locator("#episode-film video").wait_for()
    browser.locator("#episode-curve img").wait_for()
    keep(browser, "demo_episode")


def test_parts_of_an_answer_that_are_empty_are_hidden(tmp_path):
    gradio = pytest.importorskip("gradio")
    from hfvla.serve.page.views import Views

    with gradio.Blocks():
        views = Views(gradio, tmp_path)
        some = views.update(Shown("hello", film=b"film"))
        none = views.update(Shown())
    assert [part.visible for part in some[1:]] == [False, False, False, True, False]
    assert [part.visible for part in none[1:]] == [False] * 5
