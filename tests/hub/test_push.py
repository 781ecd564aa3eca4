"""Pushes: one commit or nothing, what is uploaded is not uploaded again, and every refusal is one line."""

import json

import pytest

from hfvla.cli import main
from hfvla.errors import CheckpointError, HfvlaError
from hfvla.hub import push as push_module
from hfvla.hub.forms import push_checkpoint, pushed_files
from hfvla.hub.push import push_files
from hfvla.recipe.schema import HubRecipe

from .test_fetching import saved  # noqa: F401


@pytest.fixture
def run(saved, tmp_path):  # noqa: F811
    """A run folder with a tiny final checkpoint and what a run leaves beside it."""
    folder = tmp_path / "run"
    recipe = {"family": "ember_vlm", "name": "tiny", "seed": 0, "stages": [{"name": "one", "train": ["fusion"]}]}
    files = {
        **{f"final/{name}": data for name, data in saved.items()},
        "final/recipe.json": json.dumps(recipe).encode(),
        "run.json": json.dumps({"recipe": recipe, "stages": [{"name": "one"}], "seed": 0}).encode(),
        "report.html": b"<html>", "experiment_summary.json": b"{}", "one/notes.txt": b"not pushed",
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def settings(**more):
    return HubRecipe(repo="me/tiny", **more)


def test_a_run_is_pushed_with_card_and_report_in_one_commit(hub, run, saved):  # noqa: F811
    found = push_checkpoint(run, settings())
    assert len(hub.repositories["me/tiny"].commits) == 2  # the empty one, and ours
    files = hub.files("me/tiny")
    assert set(files) == {*saved, "recipe.json", "README.md", "report.html", "experiment_summary.json"}
    assert files["model.safetensors"] == saved["model.safetensors"] and b"me/tiny" in files["README.md"]
    assert hub.repositories["me/tiny"].private
    assert found["url"] == f"{hub.url}/me/tiny" and found["commit"] == hub.repositories["me/tiny"].commits[-1][0]


def test_final_itself_may_be_named(hub, run):
    with pushed_files(run / "final", settings()) as files:
        assert {"README.md", "report.html", "model.safetensors"} <= set(files)
        made = files["README.md"]
    assert not made.exists() and not (run / "final" / "README.md").exists()


def test_a_push_that_was_cut_short_leaves_nothing_and_is_resumed(hub, run):
    (run / "final" / "adapter").mkdir()
    (run / "final" / "adapter" / "beside.safetensors").write_bytes(b"other content")
    hub.uploads_left = 1
    with pytest.raises(CheckpointError, match=r"me/tiny: the push failed; the repository is as it was.*hfvla push"):
        push_checkpoint(run, settings())
    assert hub.files("me/tiny") == {}
    hub.uploads_left = None
    hub.requests.clear()
    push_checkpoint(run, settings())
    assert len([path for method, path in hub.requests if method == "PUT"]) == 1  # the other was there already
    assert "adapter/beside.safetensors" in hub.files("me/tiny")
    assert len(hub.repositories["me/tiny"].commits) == 2


def test_a_hub_that_comes_back_is_waited_for(hub, run, monkeypatch):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        hub.commits_left = None

    monkeypatch.setattr(push_module.time, "sleep", wait)
    hub.commits_left = 0
    push_checkpoint(run, settings())
    assert "model.safetensors" in hub.files("me/tiny") and waits


def test_a_hub_that_stays_away_is_one_line(hub, run, monkeypatch):
    monkeypatch.setattr(push_module.time, "sleep", lambda seconds: None)
    hub.commits_left = 0
    with pytest.raises(CheckpointError, match="the push failed") as caught:
        push_checkpoint(run, settings())
    assert "\n" not in str(caught.value) and hub.files("me/tiny") == {}


def test_what_an_earlier_push_had_does_not_stay(hub, run):
    hub.add("me/tiny", {"model-00001-of-00002.safetensors": b"old", "notes.md": b"mine", "adapter/x.json": b"{}"})
    push_checkpoint(run, settings())
    files = hub.files("me/tiny")
    assert "notes.md" in files and "model.safetensors" in files
    assert not {"model-00001-of-00002.safetensors", "adapter/x.json"} & set(files)


def test_pickles_and_links_are_not_pushed(hub, run, tmp_path):
    (run / "final" / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pickled files are not pushed.*optimizer\.pt"):
        push_checkpoint(run, settings())
    (run / "final" / "optimizer.pt").unlink()
    (run / "final" / "notes.json").symlink_to(run / "run.json")
    with pytest.raises(CheckpointError, match="a link is not pushed"):
        push_checkpoint(run, settings())
    assert "me/tiny" not in hub.repositories


def test_a_damaged_checkpoint_is_not_pushed(hub, run):
    file = run / "final" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged weights"):
        push_checkpoint(run, settings())
    assert not hub.requests


def test_without_a_token_nothing_is_tried(hub, run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HfvlaError, match=r"hub\.repo: me/tiny: there is no token of the hub here.*hf auth login"):
        push_checkpoint(run, settings())
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CheckpointError, match="the push failed.*401"):
        push_checkpoint(run, settings())
    assert "me/tiny" not in hub.repositories


def test_a_folder_without_card_or_recipe_is_refused(hub, run):
    (run / "final" / "recipe.json").unlink()
    (run / "final").rename(run.parent / "alone")
    with pytest.raises(CheckpointError, match="there is no model card, and no recipe to write one from"):
        push_checkpoint(run.parent / "alone", settings())
    (run.parent / "alone" / "README.md").write_text("# Mine\n")
    push_checkpoint(run.parent / "alone", settings())
    assert hub.files("me/tiny")["README.md"] == b"# Mine\n"


def test_no_checkpoint(hub, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to push"):
        push_checkpoint(tmp_path / "absent", settings())


def test_the_command(hub, run, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["push", str(run), "me/tiny", "--public", "--license", "mit", "--json"])
    assert caught.value.code in (0, None)
    done = json.loads(capsys.readouterr().out)
    assert done["repo"] == "me/tiny" and not hub.repositories["me/tiny"].private
    assert b"license: mit" in hub.files("me/tiny")["README.md"]
    with pytest.raises(SystemExit) as caught:
        main(["push", str(run), "not a repo"])
    assert caught.value.code == 2 and "user/name" in capsys.readouterr().err


def test_an_empty_file_set_is_one_commit(hub, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    found = push_files("me/x", {"a.txt": tmp_path / "a.txt"}, private=False, message="a")
    assert found["files"] == 1 and hub.files("me/x") == {"a.txt": b"a"}
