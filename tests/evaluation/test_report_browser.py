"""The report in a real browser: its tables sort, its pictures enlarge, its charts tell their numbers, at any width."""

import base64

import pytest

from hfvla.evaluation.report import write_report
from hfvla.family import EvaluationResult, Figure

from .fakes import picture

NUMBERS = [0.25, 0.5, 0.875]
CURVE = {"x": [0, 1, 2], "y": [3.0, 2.0, 1.5]}


@pytest.fixture
def report(tmp_path):
    """A report with a chart, a curve, scores by class and an example."""
    image = "data:image/png;base64," + base64.b64encode(picture("red")).decode()
    scores = {
        f"{kind}/{name}": value for kind in ("precision", "f1") for name, value in zip("abc", NUMBERS, strict=True)
    }
    result = EvaluationResult(
        metrics={"n": 40, "exact_match": 0.61, **scores},
        baselines={"majority": {"n": 40, "exact_match": 0.17}, "chance": {"n": 40, "exact_match": 0.3}},
        figures=[
            Figure("bars", "bars", "Bars", {"groups": ["left", "right"], "series": {"model": [0.4, 0.7]}}),
            Figure("curve", "curves", "Curve", {"panels": [{"title": "loss", "series": {"train": CURVE}}]}),
            Figure("worst", "text_examples", "Worst", {"examples": [{"title": "A task", "image": image}]}),
        ],
    )
    return write_report(tmp_path / "report.html", "A run", {"held_out": result})


@pytest.fixture(params=[1400, 390])
def page(browser, report, request):
    """The report at a width, loaded; what it asks of elsewhere and what goes wrong in it is kept."""
    browser.set_viewport_size({"width": request.param, "height": 900})
    browser.wrong = []
    browser.on("pageerror", lambda error: browser.wrong.append(str(error)))
    browser.on("console", lambda message: message.type == "error" and browser.wrong.append(message.text))
    browser.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or browser.wrong.append(asked.url))
    browser.goto(report.as_uri())
    yield browser
    assert not browser.wrong


@pytest.mark.slow
def test_nothing_is_wider_than_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_a_table_sorts_by_the_column_that_is_clicked(page):
    table = page.locator("table").first
    column = table.locator("tbody tr td:nth-child(2) .text")
    head = table.locator("thead th").nth(1)
    head.click()
    falling = column.all_inner_texts()
    head.click()
    rising = column.all_inner_texts()
    values = [float(text.strip(" ★")) for text in rising]
    assert values == sorted(values) and falling == rising[::-1] and len(set(rising)) == 3


@pytest.mark.slow
def test_a_bar_and_a_point_tell_their_numbers(page):
    tip = page.locator(".tip")
    bar = page.locator("svg.chart [data-tip]").nth(1)
    bar.scroll_into_view_if_needed()
    bar.hover(force=True)
    assert "0.7" in tip.inner_text() and "right" in tip.inner_text()
    curve = page.locator("svg.chart:has(.points)").first
    curve.scroll_into_view_if_needed()
    x, y, told = page.evaluate(
        """() => {
            const group = document.querySelector("svg.chart .points"), svg = group.closest("svg");
            const [x, y, text] = JSON.parse(group.dataset.points)[1], matrix = svg.getScreenCTM();
            return [matrix.e + matrix.a * x, matrix.f + matrix.d * y, text];
        }"""
    )
    page.mouse.move(x, y)
    assert tip.inner_text() == told == "2 at 1"


@pytest.mark.slow
def test_a_picture_and_a_chart_enlarge_and_close(page):
    zoomed = page.locator("dialog.zoom")
    small = page.locator(".example img")
    before = small.bounding_box()["width"]
    small.click()
    assert zoomed.is_visible() and zoomed.locator("img").bounding_box()["width"] > before
    zoomed.locator("img").click()
    assert not zoomed.is_visible()
    page.locator("button.enlarge").first.click()
    assert zoomed.locator("svg").is_visible()
    page.keyboard.press("Escape")
    assert not zoomed.is_visible()
