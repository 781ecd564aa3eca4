"""InternVL for multiple-choice questions on dashcam video. Read `README.md` beside this file."""

from __future__ import annotations

from hfvla.family import FamilySpec, FeatureCut, Metric, ParameterGroup, Request, RequestField, Source

FAMILY = FamilySpec(
    name="internvl_video_qa",
    summary="InternVL that answers multiple-choice questions on dashcam video by scoring the letters",
    config="InternVLVideoQAConfig",
    model="InternVLForVideoQA",
    processor="InternVLVideoQAProcessor",
    groups={
        "vision": ParameterGroup(
            ("backbone.model.vision_tower.*",),
            layers="backbone.model.vision_tower.encoder.layer",
            description="InternViT tower",
        ),
        "projector": ParameterGroup(
            ("backbone.model.multi_modal_projector.*",), description="pixel-shuffled tiles to language tokens"
        ),
        "language": ParameterGroup(
            ("backbone.model.language_model.*", "backbone.lm_head.*"),
            layers="backbone.model.language_model.layers",
            description="Qwen2 language model with its output layer",
        ),
    },
    losses={
        "letters": "cross-entropy over the question's own letters, where the answer begins",
        "lm": "cross-entropy of the written letter and end token, prompt masked",
        "words": "cross-entropy of the right choice's text, asked without showing the choices",
        "spelt": "cross-entropy of the right choice's text and then its letter, the choices shown",
        "binding": "cross-entropy of the letter beside a choice that the prompt names, without a clip",
    },
    reached=dict.fromkeys(("letters", "lm", "words", "spelt", "binding"), ("language",)),
    sources={
        "road": Source(
            options="hfvla.worlds.road:RoadOptions",
            build="hfvla.worlds.road:build_road",
            count="hfvla.worlds.road:count_road",
            description="generated dashcam clips with questions in Vietnamese and English",
        ),
        "road_videos": Source(
            options="hfvla.data.sources.road_videos:RoadVideosOptions",
            build="hfvla.data.sources.road_videos:build_road_videos",
            count="hfvla.data.sources.road_videos:count_road_videos",
            description="train/test JSON of the road-video challenge, with its videos",
        ),
    },
    collator="InternVLVideoQACollator",
    metrics=(
        Metric("accuracy", quick=True),
        Metric("accuracy_with_support", "Accuracy, support frames"),
        Metric("accuracy_without_support", "Accuracy, no support frames", headline=False),
        Metric("position_bias", "Position bias, points"),
        Metric("answer_share_spread", headline=False),
        Metric("same_choice", headline=False),
        Metric("accuracy_permuted", headline=False),
    ),
    model_options="hfvla.backbones.options:BackboneOptions",
    label_names=("letter_labels",),
    feature_cuts={
        "visual_tokens": FeatureCut(
            groups=("vision", "projector"),
            fields=("video", "support_frames"),
            files=("video",),
            required=("video",),
            replaces=("pixel_values", "tile_index"),
            provides=("image_features",),
            config=("backbone_config", "frames", "tiling", "support_dropout"),
            processor=("image_processor", "frames", "tiling", "tokens_per_tile"),
            description="projected tiles of the frames, [tiles, tokens, D] a question",
        )
    },
    parameter_table={
        "vision tower": ("backbone.model.vision_tower.*",),
        "projector": ("backbone.model.multi_modal_projector.*",),
        "language model": ("backbone.model.language_model.*", "backbone.lm_head.*"),
    },
    request=Request(
        (
            RequestField("question", "a question about a video", required=True),
            RequestField("video", "the video", kind="video", required=True),
            RequestField(
                "choices", "its choices, without letters", required=True, repeated=True, separator="|", count=(2, 4)
            ),
            RequestField("support_frames", "seconds at which the answer is to be seen, where known", kind="numbers"),
            RequestField("generate", "let the model write its answer", kind="switch", default=False),
        ),
        description="a question with choices about a video: which of them",
    ),
)

__all__ = ["FAMILY"]
