"""What must be a miss is one, and what does not matter is not."""

import io
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hfvla.cache import fingerprint, sample_keys
from hfvla.cache.fingerprint import build_fingerprint
from hfvla.errors import CheckpointError, DataError
from hfvla.family import CutContext

from .toy_cuts import CUTS, SPEC, Toy, cache, processor, rows


def value(folder, model=None, **options):
    return cache(folder, model, **options).store.fingerprint.value


@pytest.fixture
def base(tmp_path):
    return value(tmp_path)


def changed_weight():
    model = Toy()
    with torch.no_grad():
        model.vision[0].weight[0, 0] += 1e-6
    return model


def changed_buffer():
    model = Toy()
    model.vision[1].running_var[2] += 1e-6
    return model


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"model": changed_weight()}, id="weight"),
        pytest.param({"model": changed_buffer()}, id="running statistics"),
        pytest.param({"model": Toy().to(torch.bfloat16)}, id="weights' dtype"),
        pytest.param({"model": Toy(width=4)}, id="config"),
        pytest.param({"model": Toy(vision={"depth": 2})}, id="nested config"),
        pytest.param({"of": processor(size=8)}, id="resolution"),
        pytest.param({"of": processor(crop="left")}, id="processor"),
        pytest.param({"dtype": "float16"}, id="kept dtype"),
        pytest.param({"autocast": torch.bfloat16}, id="compute dtype"),
        pytest.param({"revision": "abc"}, id="revision"),
        pytest.param({"views": 2, "of": processor(crop="random")}, id="views"),
    ],
)
def test_a_change_is_a_miss(tmp_path, base, options):
    assert value(tmp_path, **options) != base


def test_views_and_their_seed_are_told_apart(tmp_path):
    found = {
        value(tmp_path, views=views, seed=seed, of=processor(crop="random")) for views in (2, 3) for seed in (0, 1)
    }
    assert len(found) == 4


def test_another_version_of_anything_is_a_miss(tmp_path, base, monkeypatch):
    monkeypatch.setattr(fingerprint, "CACHE_VERSION", 2)
    second = value(tmp_path)
    monkeypatch.setattr(fingerprint, "version", lambda name: "9.9")
    third = value(tmp_path)
    monkeypatch.setitem(SPEC.feature_cuts, "vision", replace(CUTS["vision"], version=2))
    assert len({base, second, third, value(tmp_path)}) == 4


def test_what_does_not_matter_is_a_hit(tmp_path, base):
    model = Toy(dropout=0.9)
    with torch.no_grad():
        model.head.weight.add_(1.0)
        model.language.weight.add_(1.0)
    other = processor(template="now {}")
    other.fleet = ["ship"]
    assert value(tmp_path, model.train(), of=other, losses=("other",), seed=5, batch_size=3) == base


def test_prompt_and_losses_count_where_the_cut_says_so(tmp_path):
    base = value(tmp_path, cut="language")
    assert value(tmp_path, cut="language", losses=("other",)) != base
    assert value(tmp_path, cut="language", of=processor(template="now {}")) != base
    model = Toy()
    with torch.no_grad():
        model.language.weight[0, 0] += 1e-6
    assert value(tmp_path, model, cut="language") != base


def test_differences_are_named(tmp_path):
    one = cache(tmp_path).store.fingerprint
    two = cache(tmp_path, Toy(width=5), of=processor(size=9), dtype="bfloat16").store.fingerprint
    assert one.differences(two.parts) == ["config", "dtype", "processor"]


def test_weights_that_are_elsewhere_are_refused():
    with torch.device("meta"):
        model = torch.nn.ModuleDict({"vision": torch.nn.Linear(2, 2)})
    context = CutContext(processor(), Toy().config)
    with pytest.raises(CheckpointError, match="vision.bias.*meta device.*hfvla cache"):
        build_fingerprint("toy", "vision", CUTS["vision"], model, SPEC.groups, context, {})


def test_the_scale_of_a_frozen_adapter_counts(tmp_path):
    first, second = Toy(), Toy()
    first.vision[0].scaling, second.vision[0].scaling = {"below_1": 2.0}, {"below_1": 4.0}
    assert value(tmp_path, first) != value(tmp_path, second)


# ---- samples -------------------------------------------------------------------------------------------------------


def keys(found, cut="vision", of=None):
    return sample_keys(found, CUTS[cut], CutContext(of or processor(), None))


def test_equal_pictures_share_a_key_and_others_do_not():
    found = keys(rows(9, empty=(4,)))
    assert found[4] is None and found[1] == found[2] and found[7] == found[8]
    assert len(set(found)) == 7  # rows 0, 1 = 2, 3, 5, 6, 7 = 8, and None


def test_any_change_of_the_content_changes_the_key():
    base = rows(1)
    changed = [{**base[0], "picture": [*base[0]["picture"][:3], np.nextafter(base[0]["picture"][3], 2)]}]
    assert keys(base) != keys(changed)
    assert keys(base) == keys([{**base[0], "words": "left", "id": "other"}])
    assert keys(base, "language") != keys([{**base[0], "words": "left"}], "language")
    assert keys(base, "language") != keys(base, "language", processor(template="now {}"))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b"ab", "ab"),
        (["ab", "c"], ["a", "bc"]),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        (1, True),
        (1, 1.0),
        (np.zeros(4, dtype="int32"), np.zeros(4, dtype="float32")),
        (np.zeros((2, 2)), np.zeros(4)),
        (Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2))),
        (Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2), "red")),
    ],
)
def test_different_values_have_different_keys(one, two):
    assert keys([{"picture": one}]) != keys([{"picture": two}])
    assert keys([{"picture": one}]) == keys([{"picture": one}])


def test_the_order_of_a_mapping_does_not_matter():
    assert keys([{"picture": {"a": 1, "b": 2}}]) == keys([{"picture": {"b": 2, "a": 1}}])


def test_values_without_stable_content_are_refused():
    with pytest.raises(DataError, match="row 0, field 'picture'.*got 'object'"):
        keys([{"picture": object()}])
    with pytest.raises(DataError, match="row 0 lacks the field 'words'"):
        keys([{"picture": [1.0]}], "language")


def test_a_file_counts_by_its_bytes(tmp_path):
    cut = replace(CUTS["vision"], files=("picture",))
    file, copy = tmp_path / "a.png", tmp_path / "b.png"
    file.write_bytes(b"one")
    copy.write_bytes(b"one")
    context = CutContext(processor(), None)
    first, second = sample_keys([{"picture": str(file)}, {"picture": str(copy)}], cut, context)
    assert first == second
    file.write_bytes(b"two")
    assert sample_keys([{"picture": str(file)}], cut, context) != [first]
    with pytest.raises(DataError, match="file of row 0 cannot be read.*missing.png"):
        sample_keys([{"picture": str(tmp_path / "missing.png")}], cut, context)


def test_several_files_count_by_their_bytes_and_order(tmp_path):
    cut = replace(CUTS["vision"], files=("picture",))
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / name).write_bytes(content)
    rows = [{"picture": [str(tmp_path / name) for name in names]} for names in ("ab", "cb", "ba", "a")]
    keys = sample_keys(rows, cut, CutContext(processor(), None))
    assert keys[0] == keys[1] and len(set(keys)) == 3
    with pytest.raises(DataError, match="file of row 0 cannot be read.*missing"):
        sample_keys([{"picture": [str(tmp_path / "missing")]}], cut, CutContext(processor(), None))


def test_pictures_of_datasets_are_not_decoded(monkeypatch):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, format="PNG")
    data = datasets.Dataset.from_dict({"picture": [buffer.getvalue(), None], "id": ["a", "b"]})
    data = data.cast_column("picture", datasets.Image())
    monkeypatch.setattr(Image, "open", lambda *a, **k: pytest.fail("a picture was decoded"))
    found = keys(data)
    assert found[1] is None and found[0] == keys([{"picture": {"bytes": buffer.getvalue(), "path": "x"}}])[0]
