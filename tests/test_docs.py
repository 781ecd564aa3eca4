"""Pages that name the code agree with it."""

import re
import sys

import pytest
import yaml
from tests.recipe_keys import keys_of


@pytest.mark.parametrize("page", ["where.md", "house.md"])
def test_every_path_on_the_page_exists(repository, page):
    text = (repository / "docs" / page).read_text("utf-8")
    paths = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?|(?:plugins|registry)\.py)`", text))
    assert len(paths) > 5
    source = repository / "src/hfvla"
    missing = [path for path in paths if not (source / path).exists() and not (repository / path).exists()]
    assert not missing


def test_every_name_on_the_page_exists(repository):
    text = (repository / "docs/where.md").read_text("utf-8")
    named = re.findall(r"`([a-z_/]+\.py)` \(`(\w+)`", text)
    assert named
    for path, name in named:
        assert re.search(rf"\b{name}\b", (repository / "src/hfvla" / path).read_text("utf-8")), (path, name)


def test_few_files_answer_a_question(repository):
    rows = re.findall(r"^\| (.*?\?) \| (.*) \|$", (repository / "docs/where.md").read_text("utf-8"), flags=re.M)
    most = {"Where is the loss of X computed?": 4, "What happens at a phase boundary?": 4, "How do I add a source?": 3,
            "How do I add a loss term?": 4, "How do I add a metric?": 4}  # fmt: skip
    found = {question: len(re.findall(r"`[a-z_/]+/(?:\w+\.py)?`", answer)) for question, answer in rows}
    assert set(most) <= set(found) and all(found[question] <= limit for question, limit in most.items())


def test_the_reference_covers_every_public_module(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "docs")
    import make_api

    assert len(make_api.public_modules()) > 350
    rooms = {room for _, names in make_api.ROOMS.values() for room in names}
    assert {module.split(".")[1] for module in make_api.public_modules()} <= rooms
    for path, text in make_api.pages().items():
        assert path.read_text("utf-8") == text, f"run: python docs/make_api.py ({path.name} is old)"
    del sys.modules["make_api"]


def test_the_index_and_the_navigation_know_every_page(repository):
    pages = {path.relative_to(repository / "docs").as_posix() for path in (repository / "docs").glob("*.md")}
    pages |= {f"families/{path.name}" for path in (repository / "docs/families").glob("*.md")}
    index = (repository / "docs/index.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([a-z_/-]+\.md)", index))
    assert not pages - linked - {"index.md"}
    navigation = set(re.findall(r": ([a-z_/-]+\.md)$", (repository / "mkdocs.yml").read_text("utf-8"), flags=re.M))
    assert not pages - navigation - {"api.md"}


def test_every_link_of_a_page_leads_to_a_page_or_a_picture_beside_it(repository):
    """What mkdocs refuses when it builds strictly, said by the suite: the site holds `docs/` and nothing above it."""
    docs = repository / "docs"
    links = [
        (page, target)
        for page in docs.glob("**/*.md")
        for target in re.findall(
            r"\]\((?![a-z]+:)([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        )
    ]
    assert len(links) > 100
    lost = [(page.name, target) for page, target in links if not _in_site(docs, page, target)]
    assert not lost


def _in_site(docs, page, target):
    place = (page.parent / target).resolve()
    return place.is_relative_to(docs.resolve()) and place.is_file()


def test_the_page_of_keys_is_what_the_classes_check(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "docs")
    import make_keys

    assert (repository / "docs/keys.md").read_text("utf-8") == make_keys.page(), "run: python docs/make_keys.py"
    with pytest.raises(ValueError, match="no meaning is written beside b"):
        make_keys.table([("a", 1, "one"), ("b", 2, "")])
    del sys.modules["make_keys"]


def test_every_key_of_a_shipped_recipe_stands_on_a_page(repository):
    words = "".join(page.read_text("utf-8") for page in [*(repository / "docs").glob("**/*.md")])
    recipes = [path for path in (repository / "recipes").glob("*/*.yaml") if path.parent.name != "accelerate"]
    used = {key for path in recipes for key in keys_of(yaml.safe_load(path.read_text("utf-8")))}
    assert len(used) > 100
    assert not sorted(key for key in used if not re.search(rf"`(?:\w+\.)*{re.escape(key)}`", words))


def test_a_familys_readme_lists_its_files(repository):
    for readme in (repository / "src/hfvla/models").glob("*/README.md"):
        there = {
            path.relative_to(readme.parent).as_posix()
            for pattern in ("*.py", "evaluation/*.py")
            for path in readme.parent.glob(pattern)
        }
        listed = set(re.findall(r"^\| `([a-z_/]+\.py)` \|", readme.read_text("utf-8"), flags=re.M))
        assert listed == there - {"evaluation/__init__.py"}, readme
