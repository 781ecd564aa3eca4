"""Staged fine-tuning of any image-text-to-text model of transformers. Read `README.md` beside this file."""

from __future__ import annotations

from hfvla.data.sources.vision_language import SOURCES
from hfvla.family import FamilySpec, FeatureCut, Metric, Option, ParameterGroup, Request, RequestField, Source

_HERE = "hfvla.models.chat_vlm"
_FOUND = "found by the structure of the model (`hfvla plan` shows where)"

FAMILY = FamilySpec(
    name="chat_vlm",
    summary="any image-text-to-text model of transformers, trained in stages; its checkpoints stay plain models",
    config="AutoConfig",
    model="AutoModelForImageTextToText",
    processor="AutoProcessor",
    hooks={
        "config": "transformers:AutoConfig",
        "model": "transformers:AutoModelForImageTextToText",
        "processor": "transformers:AutoProcessor",
        "plan_batch": f"{_HERE}.planning:plan_batch",
    },
    accepts=f"{_HERE}.architectures:accepts",
    model_options=f"{_HERE}.options:ChatOptions",
    # Names for checks and help; `architectures.find_groups` says what they are in a model.
    groups={
        "vision": ParameterGroup(("*vision*",), layers="vision.layers", description=f"vision tower, {_FOUND}"),
        "projector": ParameterGroup(("*projector*",), description="what lies between tower and language model"),
        "language": ParameterGroup(
            ("*language*",), layers="language.layers", description="language model with its embeddings"
        ),
        "embeddings": ParameterGroup(("*embed_tokens*",), description="token embedding and output layer; in language"),
    },
    losses={
        "sft": "cross-entropy of the assistant's turns, the mean over tokens by their rows' weights",
        "dpo": "direct preference optimisation of pairs of answers, against the model that the stage began with",
        "distill": "divergence of the next-token distributions from a teacher's of the same vocabulary",
    },
    sources={
        **SOURCES,
        "shapes": Source(
            options="hfvla.worlds.shapes:ShapesOptions",
            build="hfvla.worlds.shapes:build_shapes",
            count="hfvla.worlds.shapes:count_shapes",
            description="drawn pictures of coloured shapes, with questions and answers",
        ),
    },
    collator="ChatCollator",
    feature_cuts={
        "vision": FeatureCut(
            groups=("vision",),
            fields=("images", "videos"),
            required=("images|videos",),
            files=("videos",),
            replaces=("pixel_values", "pixel_attention_mask", "pixel_values_videos"),
            provides=tuple(f"tower{kind}_{number}" for kind in ("", "_video") for number in range(12)),
            version=2,
            config=("vision_config", "vision_feature_layer", "vision_feature_select_strategy"),
            description="what the model reads of its frozen tower: [tiles, patches, D], or [patches, D] for a merger",
        )
    },
    metrics=(
        Metric("token_accuracy", "Token accuracy", quick=True, headline=False),
        Metric("answer_accuracy", "Answers, all tokens right", quick=True),
    ),
    evaluation_options={"max_new_tokens": Option("most tokens of a written answer", least=1)},
    request=Request(
        (
            RequestField("question", "what is asked", required=True),
            RequestField(
                "image",
                "a picture; several in the order that the question speaks of them",
                kind="picture",
                repeated=True,
            ),
            RequestField("video", "a video, seen behind the pictures", kind="video", repeated=True),
            RequestField("max_new_tokens", "most tokens of an answer", kind="integer", least=1, default=256),
            RequestField("temperature", "of an answer: 0 takes the likeliest words", kind="number", least=0),
        ),
        description="a question, with pictures and videos or without: an answer in words",
    ),
)

__all__ = ["FAMILY"]
