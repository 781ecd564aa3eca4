"""Checkpoints by name: a folder first, then the hub; nothing of what comes is believed."""

import json

import pytest

from hfvla.errors import CheckpointError
from hfvla.fetching import is_hub_name, local_checkpoint, split_revision
from hfvla.registry import family_of_checkpoint, load_checkpoint

from ..contract.conftest import build


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint: content by name."""
    folder = tmp_path_factory.mktemp("saved")
    built = build("ember_vlm")
    built.model.save_pretrained(folder)
    built.processor.save_pretrained(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "user" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(local_checkpoint("user/name")) == "user/name"
    with pytest.raises(CheckpointError, match="a folder has no revisions; got 'v1'"):
        local_checkpoint("user/name", "v1")


def test_names():
    assert split_revision("user/name@v1.0") == ("user/name", "v1.0") and split_revision("user/name") == (
        "user/name",
        None,
    )
    assert is_hub_name("user/na.me_1") and is_hub_name("gpt2")
    for wrong in ("../x/y", "a/b/c", "/abs", "a b/c", "", "user/..", "a//b", "~user/x", "http://x/y"):
        assert not is_hub_name(wrong)


def test_a_checkpoint_on_the_hub_loads_and_computes_the_same(hub, saved):
    hub.add("me/small", saved)
    assert family_of_checkpoint("me/small").name == "ember_vlm"
    assert not [path for method, path in hub.requests if path.endswith(".safetensors")]  # its JSON files are enough
    spec, model, _ = load_checkpoint("me/small", family="ember_vlm")
    wanted = build("ember_vlm").model.state_dict()
    assert all(value.equal(wanted[name]) for name, value in model.state_dict().items())


def test_revisions(hub, saved):
    hub.add("me/small", saved)
    first = hub.repositories["me/small"].commits[-1][0]
    hub.repositories["me/small"].names["v1"] = first
    hub.add("me/small", {"config.json": saved["config.json"].replace(b"{", b'{"note": "second",', 1)})
    for name, revision in (("me/small", "v1"), ("me/small@v1", None), (f"me/small@{first}", None)):
        assert "note" not in json.loads((local_checkpoint(name, revision) / "config.json").read_text())
    assert json.loads((local_checkpoint("me/small") / "config.json").read_text())["note"] == "second"
    with pytest.raises(CheckpointError, match=r"me/small@v9: .*RevisionNotFoundError"):
        local_checkpoint("me/small@v9")


def test_a_hub_that_is_away_leaves_what_was_downloaded(hub, saved, monkeypatch, caplog):
    hub.add("me/small", saved)
    before = local_checkpoint("me/small")
    hub.away = True
    assert local_checkpoint("me/small") == before
    assert "the hub cannot be asked" in caplog.text
    with pytest.raises(CheckpointError, match="me/other: no such checkpoint folder, and not a model on the hub"):
        local_checkpoint("me/other")


def test_a_private_or_absent_repository_is_one_line(hub, saved, monkeypatch):
    hub.add("me/secret", saved)
    hub.repositories["me/secret"].private = True
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(CheckpointError, match=r"me/secret: .*not a model on the hub.*hf auth login") as caught:
        local_checkpoint("me/secret")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_even_downloaded(hub, saved):
    files = {name: data for name, data in saved.items() if not name.endswith(".safetensors")}
    hub.add("me/old", {**files, "pytorch_model.bin": b"\x80\x04pickle"})
    with pytest.raises(CheckpointError, match=r"me/old: pickled weights are not read.*pytorch_model\.bin"):
        load_checkpoint("me/old")
    hub.add("me/both", {**saved, "pytorch_model.bin": b"\x80\x04pickle"})
    load_checkpoint("me/both")
    assert not [path for _, path in hub.requests if path.endswith(".bin")]


@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil.json", "sub/../../evil.json", "..\\evil.json"])
def test_names_that_lead_out_are_refused(hub, saved, name):
    hub.add("me/small", saved)
    hub.more_names = [name]
    with pytest.raises(CheckpointError, match="a file of this repository leads out of its folder"):
        local_checkpoint("me/small")


def test_what_comes_is_looked_through_as_any_folder(hub, saved):
    config = json.loads(saved["config.json"])
    spoilt = {
        "me/family": {"config.json": json.dumps({**config, "model_type": "gpt2"}).encode()},
        "me/sizes": {"config.json": json.dumps({**config, "vision_hidden_size": 10**15}).encode()},
        "me/header": {"model.safetensors": (2**62).to_bytes(8, "little") + saved["model.safetensors"][8:]},
    }
    messages = {"me/family": "another model type", "me/sizes": "a size in the config", "me/header": "damaged weights"}
    for name, files in spoilt.items():
        hub.add(name, {**saved, **files})
        with pytest.raises(CheckpointError, match=messages[name]):
            load_checkpoint(name)


def test_weights_that_do_not_fit_are_refused_before_they_are_read(hub, saved, monkeypatch):
    hub.add("me/large", saved)
    monkeypatch.setattr("hfvla.loading._free_bytes", lambda: 2**18)
    with pytest.raises(CheckpointError, match=r"do not fit into this machine's memory.*0\.0 GiB, which are free"):
        load_checkpoint("me/large")


def test_code_in_a_repository_is_never_run(hub, saved, tmp_path):
    config = json.loads(saved["config.json"])
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').write('x')\nclass Evil: pass\n".encode()
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}
    hub.add("me/code", {**saved, "config.json": json.dumps(config).encode(), "evil.py": code})
    load_checkpoint("me/code")
    assert not mark.exists()
