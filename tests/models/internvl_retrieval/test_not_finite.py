"""A vector or a score that is NaN finds nothing: pictures and queries without one are counted and named."""

import pytest
import torch

from hfvla.errors import DataError, PredictionError
from hfvla.family import EvaluationContext
from hfvla.models.internvl_retrieval import FAMILY
from hfvla.models.internvl_retrieval.search import embed_images, embed_texts, encode_texts

NAN = float("nan")


def patched(model, part, which):
    """Let the vectors of some places in each batch be NaN."""
    original = model.forward

    def forward(**batch):
        output = original(**batch)
        if part in (getattr(output, "features", None) or {}):
            output.features[part] = output.features[part].clone()
            output.features[part][which, 0] = NAN
        return output

    model.forward = forward
    return model


def evaluate(model, processor, rows, **context):
    settings = {"bootstrap_samples": 0, "ablations": False, **context}
    return FAMILY.load("evaluate")(model, processor, rows, EvaluationContext(**settings))


def test_pictures_without_a_vector_are_failures(model, processor, rows):
    paths = sorted(set(rows["image"]))
    vectors, failures = embed_images(patched(model, "image_embed", [1]), processor, paths, 100)
    assert list(failures) == [1] and "not finite" in failures[1]
    assert torch.from_numpy(vectors).isfinite().all() and not vectors[1].any()
    with pytest.raises(DataError, match="none of the pictures can be encoded; got .*not finite"):
        embed_images(patched(model, "image_embed", slice(None)), processor, paths, 100)


def test_texts_without_a_vector_are_an_error_or_named(model, processor):
    patched(model, "text_embed", [0])
    with pytest.raises(PredictionError, match="'roof': the model's vector of it is not finite"):
        embed_texts(model, processor, ["a long text", "roof"], 8)
    failures = {}
    vectors = encode_texts(model, processor, ["a long text", "roof", "roof"], failures=failures)
    assert sorted(failures) == [1, 2] and vectors.isfinite().all()


def test_an_evaluation_leaves_them_out_and_counts_them(model, processor, rows):
    with pytest.raises(DataError, match="pictures of .* rows cannot be read; .*not finite"):
        evaluate(patched(model, "image_embed", [0]), processor, rows)
    result = evaluate(model, processor, rows, max_bad_fraction=0.5)
    gone = result.metrics["failures"]
    assert gone > 0 and result.metrics["n"] == len(rows) - gone == len(result.rows)


def test_captions_without_a_vector_are_left_out_and_counted(model, processor, rows):
    patched(model, "text_embed", [0])
    with pytest.raises(DataError, match="1 of 8 captions have no vector; first: .*not finite.*at most 1.0%"):
        evaluate(model, processor, rows, batch_size=8)


def test_a_matching_head_of_nan_puts_nothing_first(model, processor, rows):
    original = model.match_logits
    model.match_logits = lambda *args: original(*args) * NAN
    with pytest.raises(PredictionError, match="matching head's scores are not finite; got '128 of 128 pairs'"):
        evaluate(model, processor, rows)


def test_boxes_of_nan_are_not_scored(model, processor, rows):
    original = model.locate
    model.locate = lambda features: tuple(part * NAN for part in original(features))
    with pytest.raises(PredictionError, match="boxes or relations are not finite"):
        evaluate(model, processor, rows)
