"""EmberVLM: a tiny vision-language model that picks robots from a fleet. Read `README.md` beside this file."""

from __future__ import annotations

from dataclasses import replace

from hfvla.data.sources.vision_language import SOURCES
from hfvla.family import FamilySpec, FeatureCut, Metric, ParameterGroup, Request, RequestField, Source

_HERE = "hfvla.models.ember_vlm"

FAMILY = FamilySpec(
    name="ember_vlm",
    summary="tiny vision-language model that picks robots from a fleet for a task and a scene",
    config="EmberVLMConfig",
    model="EmberVLMForRobotSelection",
    processor="EmberVLMProcessor",
    groups={
        "vision": ParameterGroup(("vision.*",), description="timm vision tower"),
        "projector": ParameterGroup(("projector.*",), description="vision features to language tokens"),
        "language": ParameterGroup(
            ("language_model.*",),
            layers=("language_model.transformer.h", "language_model.model.layers"),
            description="causal language model",
        ),
        "embeddings": ParameterGroup(
            ("language_model.transformer.w[tp]e.*", "language_model.model.embed_tokens.*"),
            description="token and position embeddings (tied output layer)",
        ),
        "fusion": ParameterGroup(("fusion.*",), description="joins pooled text and image"),
        "selection_head": ParameterGroup(("selection_head.*",), description="robot classifier"),
        "temperature": ParameterGroup(("log_temperature",), description="contrastive temperature"),
    },
    losses={
        "itc": "symmetric image-text contrastive loss between scenes and captions",
        "caption": "cross-entropy of the caption, picture given",
        "instruct": "cross-entropy of the answers in a dialogue",
        "selection": "multi-label robot selection (focal or BCE, smoothed)",
        "reasoning": "cross-entropy of chain of thought, robots and plan",
        "consistency": "symmetric KL between the head's and the written verdicts",
    },
    reached={
        "selection": ("language", "fusion", "selection_head"),
        "reasoning": ("language",),
        "caption": ("language",),
        "instruct": ("language",),
    },
    sources={
        **{
            name: replace(source, build="hfvla.models.ember_vlm.conversations:build_conversations")
            for name, source in SOURCES.items()
        },
        "fleet": Source(
            options="hfvla.worlds.fleet:FleetOptions",
            build="hfvla.worlds.fleet:build_fleet",
            count="hfvla.worlds.fleet.builder:count_fleet",
            description="generated fleet tasks with scenes, chains of thought and plans",
        ),
        "robot_selection": Source(
            options="hfvla.data.sources.robot_selection:RobotSelectionOptions",
            build="hfvla.data.sources.robot_selection:build_robot_selection",
            description="robot-selection JSON files (single- and multi-robot formats)",
        ),
    },
    collator="EmberVLMCollator",
    metrics=(
        Metric("top1_in_set", "Top-1 in set", quick=True),
        Metric("exact_match", "Exact match", quick=True),
        Metric("jaccard", quick=True),
        Metric("macro_f1", "Macro F1", quick=True),
        Metric("single_accuracy", "Exact, one robot", headline=False),
        Metric("written", "Written decision"),
        Metric("head", "Selection head"),
        Metric("order_spearman", "Order, Spearman"),
    ),
    model_options=f"{_HERE}.build:EmberVLMOptions",
    label_names=("robot_labels", "robot_mask"),
    feature_cuts={
        "vision": FeatureCut(
            groups=("vision",),
            fields=("image", "images"),
            required=("image|images",),
            replaces=("pixel_values",),
            provides=("image_features",),
            config=("vision_config", "image_size"),
            processor=("image_processor",),
            description="the vision tower's feature map, [C, h, w] a picture",
        )
    },
    parameter_table={
        "vision tower": ("vision.*",),
        "projector": ("projector.*",),
        "language model": ("language_model.*",),
        "fusion": ("fusion.*",),
        "selection head": ("selection_head.*",),
        "temperature": ("log_temperature",),
    },
    request=Request(
        (
            RequestField("task", "what is to be done, in words", required=True),
            RequestField("image", "picture of the scene", kind="picture"),
            RequestField("top_k", "robots to list", kind="integer", least=1, default=3),
            RequestField("reasoning", "also write the reasoning and the plan (slower)", kind="switch", default=True),
        ),
        description="a task, with a picture of the scene or without: which robots",
    ),
)

__all__ = ["FAMILY"]
