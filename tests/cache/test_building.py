"""Building: the census, sharing, views, interruptions, and what is refused."""

import signal
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from hfvla.cache import CachedCollator, FeatureCache, Split, choose_cut, encoding
from hfvla.data.rows.epoch import EpochRows
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES

from . import toy_cuts
from .toy_cuts import CUTS, MODULE, SPEC, WORDS, Toy, cache, processor, rows


def built(folder, found=None, model=None, training=True, **options):
    model = model or Toy()
    made = cache(folder, model, **options)
    splits, census = made.build({"train": Split(rows() if found is None else found, training)})
    return splits["train"], census, model


def features(found, name="image_features"):
    kept = [found[index][CACHED_FEATURES] for index in range(len(found))]
    return [None if part is None else part[name] for part in kept]


def plain(model, found):
    model.eval()
    with torch.no_grad():
        return [None if row["picture"] is None else model.vision(torch.tensor([row["picture"]]))[0] for row in found]


def test_features_are_those_of_the_model(tmp_path):
    found = rows(empty=(4,))
    cached, census, model = built(tmp_path, found)
    for one, two in zip(features(cached), plain(model, found), strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    assert [row["id"] for row in cached] == [row["id"] for row in found] and len(cached) == 10
    assert census.rows == 9 and census.empty == 1 and census.samples == census.misses == 7 and census.hits == 0
    assert sum(model.calls) == 7  # equal pictures are encoded once


def test_token_sequences_keep_their_length(tmp_path):
    found = rows()
    cached, census, model = built(tmp_path, found, cut="language", batch_size=3)
    for row in cached:
        kept, words = row[CACHED_FEATURES], row["words"].split()
        assert kept["token_ids"].tolist() == [WORDS.index(word) for word in words]
        assert kept["token_ids"].dtype == torch.int64 and kept["hidden_states"].shape == (len(words), 3)
    assert census.samples == 10  # equal pictures with other words are other samples


def test_a_second_build_computes_nothing(tmp_path):
    first, census, _ = built(tmp_path)
    second, again, model = built(tmp_path, rows()[::-1])
    assert model.calls == [] and again.hits == census.misses == 7 and again.misses == 0
    assert again.bytes == census.bytes > 0 and again.fingerprint == census.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(features(first), features(second)[::-1], strict=True))


def test_only_what_is_new_is_encoded(tmp_path):
    built(tmp_path, rows(6))
    _, census, model = built(tmp_path, [*rows(6), {"id": "new", "picture": [9.0, 9.0, 9.0, 9.0], "words": "go"}])
    assert (census.hits, census.misses, model.calls) == (4, 1, [1])


def test_splits_share_samples(tmp_path):
    made = cache(tmp_path, model := Toy())
    found = rows()
    splits, census = made.build({"train": Split(found[:6]), "validation": Split(found[3:], training=False)})
    assert census.rows == 13 and census.samples == sum(model.calls) == 7
    assert torch.equal(features(splits["train"])[4], features(splits["validation"])[1])


def test_changed_weights_never_meet_old_features(tmp_path):
    first, _, model = built(tmp_path)
    with torch.no_grad():
        model.vision[0].bias.add_(1.0)
    second, census, model = built(tmp_path, model=model)
    assert census.hits == 0 and census.misses == 7
    assert not any(torch.equal(a, b) for a, b in zip(features(first), features(second), strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_types(tmp_path, dtype, tolerance):
    found = rows()
    cached, census, model = built(tmp_path, found, dtype=dtype)
    assert census.dtype == dtype
    for one, two in zip(features(cached), plain(model, found), strict=True):
        assert str(one.dtype) == f"torch.{dtype}"
        torch.testing.assert_close(one.float(), two, atol=tolerance, rtol=tolerance)


def test_values_that_do_not_fit_are_an_error(tmp_path):
    found = rows(1)
    found[0]["picture"] = [1e6, -1e6, 1e6, 1e6]
    with pytest.raises(DataError, match="row 0: 'image_features' does not fit float16.*bfloat16 or float32"):
        built(tmp_path, found, dtype="float16")
    assert built(tmp_path, found, dtype="bfloat16")[1].misses == 1


def test_the_model_and_the_random_stream_are_left_alone(tmp_path):
    model = Toy().train()
    model.vision[2].eval()
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    numbers = np.random.get_state()[1].tolist()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    built(tmp_path, model=model)
    assert [part.training for part in model.modules()] == modes and torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numbers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_workers_prepare_the_same(tmp_path):
    one, two = built(tmp_path / "a")[0], built(tmp_path / "b", workers=2)[0]
    assert all(torch.equal(a, b) for a, b in zip(features(one), features(two), strict=True))


# ---- interruptions -------------------------------------------------------------------------------------------------


class PowerCut(BaseException):
    pass


def test_an_interrupted_build_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    found = rows(20)
    whole, _, model = built(tmp_path / "whole", found, batch_size=3)
    blocks = model.calls
    monkeypatch.setattr(encoding, "SHARD_BYTES", 1)  # every batch is a shard
    cut_model = Toy()

    def fail(*hooked):
        if len(cut_model.calls) == 3:
            raise PowerCut

    cut_model.vision[0].register_forward_hook(fail)
    with pytest.raises(PowerCut):
        built(tmp_path / "cut", found, cut_model, batch_size=3)
    rest, census, model = built(tmp_path / "cut", found, batch_size=3)
    assert model.calls == blocks[2:] and census.hits == sum(blocks[:2]) and census.misses == sum(blocks[2:])
    assert all(torch.equal(a, b) for a, b in zip(features(whole), features(rest), strict=True))


KILLED = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location(sys.argv[2], sys.argv[1])
toy = importlib.util.module_from_spec(spec)
sys.modules[sys.argv[2]] = toy
spec.loader.exec_module(toy)
from hfvla.cache import Split, encoding
encoding.SHARD_BYTES = 1
model = toy.Toy()
kill = lambda *hooked: os.kill(os.getpid(), signal.SIGKILL) if len(model.calls) == 3 else None
model.vision[0].register_forward_hook(kill)
toy.cache(sys.argv[3], model, batch_size=3).build({"train": Split(toy.rows(20))})
"""


def test_a_killed_build_leaves_only_whole_files(tmp_path):
    command = [sys.executable, "-c", KILLED, toy_cuts.__file__, MODULE, str(tmp_path / "cut")]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "cut").glob("*/features-3-*.arrow"))) == 2
    whole, _, _ = built(tmp_path / "whole", rows(20), batch_size=3)
    rest, census, _ = built(tmp_path / "cut", rows(20), batch_size=3)
    assert census.hits == 6 and census.misses == census.samples - 6
    assert all(torch.equal(a, b) for a, b in zip(features(whole), features(rest), strict=True))


# ---- several processes ----------------------------------------------------------------------------------------------


class Member:
    """One of several processes, as a thread."""

    device = "cpu"

    def __init__(self, index, count, barrier):
        self.process_index, self.num_processes, self.barrier = index, count, barrier
        self.is_main_process = index == 0

    def wait_for_everyone(self):
        self.barrier.wait(timeout=30)


def test_processes_share_the_work_and_read_everything(tmp_path, monkeypatch):
    found, results = rows(20), {}
    whole, _, single = built(tmp_path / "one", found, batch_size=3)
    barrier, calls = threading.Barrier(2), {0: [], 1: []}
    made = [cache(tmp_path / "two", Toy(), batch_size=3, state=Member(index, 2, barrier)) for index in (0, 1)]

    def work(index):
        made[index].encoder.model.calls = calls[index]
        results[index] = made[index].build({"train": Split(found)})

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls[0] == single.calls[::2] and calls[1] == single.calls[1::2] and calls[1]
    for splits, census in results.values():
        assert census.misses == sum(single.calls)
        assert all(torch.equal(a, b) for a, b in zip(features(whole), features(splits["train"]), strict=True))


def test_processes_with_different_weights_are_told(tmp_path):
    class Second(Member):
        def wait_for_everyone(self):
            pass

    with pytest.raises(DataError, match="does not exist.*same weights"):
        built(tmp_path, state=Second(1, 2, None))


# ---- augmentation ---------------------------------------------------------------------------------------------------


def augmented():
    return processor(crop="random")


def test_one_view_of_augmented_inputs_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="cut 'vision'.*cache.views: 1.*views above 1"):
        cache(tmp_path, of=augmented())
    with pytest.raises(RecipeError, match="nothing augments.*cache.views: 2"):
        cache(tmp_path, views=2)


def test_views_are_drawn_by_seed_epoch_and_row(tmp_path):
    found = EpochRows(rows(12), seed=3)
    cached, census, model = built(tmp_path, found, views=3, of=augmented(), seed=3)
    assert census.samples == sum(model.calls) == 3 * 8
    chosen = []
    for epoch in range(4):
        cached.set_epoch(epoch)
        chosen.append([cached.view(index) for index in range(12)])
        again = [torch.equal(a, b) for a, b in zip(features(cached), features(cached), strict=True)]
        assert all(again) and found.epoch == epoch
    assert {view for epoch in chosen for view in epoch} == {0, 1, 2} and len(set(map(tuple, chosen))) == 4
    seen = {tuple(part.tolist()) for epoch in range(12) for part in (cached.set_epoch(epoch), features(cached)[0])[1:]}
    assert len(seen) == 3  # three different pictures of the first row
    other, census, _ = built(tmp_path, found, views=3, of=augmented(), seed=3)
    other.set_epoch(2)
    assert [other.view(index) for index in range(12)] == chosen[2] and census.misses == 0


def test_validation_is_not_augmented(tmp_path):
    found = rows(6)
    cached, census, model = built(tmp_path, found, training=False, views=3, of=augmented())
    assert census.samples == 4
    for one, two in zip(features(cached), plain(model, found), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)


# ---- cuts and collators ---------------------------------------------------------------------------------------------


def test_the_deepest_frozen_cut_is_used():
    assert choose_cut(SPEC, {"head.weight": "'head'"}, "here")[0] == "language"
    assert choose_cut(SPEC, {"language.weight": "'language'"}, "here")[0] == "vision"
    assert choose_cut(SPEC, {}, "here", wanted="vision")[0] == "vision"
    with pytest.raises(RecipeError, match="feature cache.*'language' needs vision, language.*'vision' needs"):
        choose_cut(SPEC, {"vision.0.base_layer.weight": "lora on 'vision'"}, "here")
    with pytest.raises(RecipeError, match="no cut 'visoin'. Did you mean 'vision'"):
        choose_cut(SPEC, {}, "here", wanted="visoin")


def test_a_cut_that_does_not_serve_a_loss_is_passed_over(monkeypatch):
    monkeypatch.setitem(SPEC.feature_cuts, "language", replace(SPEC.feature_cuts["language"], losses="choose"))
    assert choose_cut(SPEC, {}, "here", losses=["choose"])[0] == "language"
    assert choose_cut(SPEC, {}, "here", losses=["choose", "write"])[0] == "vision"
    with pytest.raises(RecipeError, match="'language' serves choose, but write needs what lies before it"):
        choose_cut(SPEC, {}, "here", wanted="language", losses=["choose", "write"])


def test_a_collator_that_ignores_the_cache_is_told():
    def collator(chosen):
        return {"pixel_values": torch.zeros(len(chosen), 4), "labels": torch.zeros(1)}

    checked = CachedCollator(collator, CUTS["vision"])
    with pytest.raises(DataError, match="pixel_values.*image_features.*cached_features"):
        checked([{CACHED_FEATURES: None}])
    assert CachedCollator(lambda chosen: {"labels": 1}, CUTS["vision"])([{}]) == {"labels": 1}


def test_an_encode_that_loses_samples_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[MODULE], "pool", lambda model, batch: [])
    with pytest.raises(DataError, match="another number of samples.*got 0.*expected 2"):
        built(tmp_path)


def test_a_cache_is_a_thing_of_one_cut(tmp_path):
    assert isinstance(cache(tmp_path), FeatureCache)
    assert cache(tmp_path).store.folder != cache(tmp_path, cut="language").store.folder
