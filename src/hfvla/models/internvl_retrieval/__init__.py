"""InternVL for drone navigation by image-text retrieval. Read `README.md` beside this file."""

from __future__ import annotations

from hfvla.family import FamilySpec, FeatureCut, Metric, Option, ParameterGroup, Request, RequestField, Source

FAMILY = FamilySpec(
    name="internvl_retrieval",
    summary="InternVL that finds the drone image of a described place, and points at what a sentence names",
    config="InternVLRetrievalConfig",
    model="InternVLForRetrieval",
    processor="InternVLRetrievalProcessor",
    groups={
        "vision": ParameterGroup(
            ("backbone.vision_tower.*",),
            layers=("backbone.vision_tower.encoder.layer", "backbone.vision_tower.backbone.blocks"),
            description="InternViT or timm tower",
        ),
        "projector": ParameterGroup(
            ("backbone.multi_modal_projector.*",), description="pixel-shuffled patches to language tokens"
        ),
        "language": ParameterGroup(
            ("backbone.language_model.*",),
            layers=(
                "backbone.language_model.layers",
                "backbone.language_model.encoder.layer",
                "backbone.language_model.transformer.layer",
            ),
            description="Qwen2 language model without output layer, or a text encoder",
        ),
        "adapters": ParameterGroup(
            ("image_adapter.*", "text_adapter.*"), description="both towers into the shared space"
        ),
        "grid": ParameterGroup(
            ("grid_projection.*", "grid_attention.*"), description="text over image tokens (`heads: grid`)"
        ),
        "itm_head": ParameterGroup(("itm_head.*",), description="does this text belong to this image"),
        "bbox_head": ParameterGroup(("bbox_head.*",), description="box of what a sentence names"),
        "spatial_head": ParameterGroup(("spatial_head.*",), description="where one object lies from another"),
        "heads": ParameterGroup(("bbox_head.*", "spatial_head.*"), description="bbox_head and spatial_head"),
        "temperature": ParameterGroup(("log_temperature",), description="of the contrastive loss"),
    },
    losses={
        "itc": "InfoNCE both ways over the batch of all processes; one building's pairs are never negatives",
        "itm": "matched or not: each pair against a hard wrong text and a hard wrong image",
        "bbox": "L1 + (1 - GIoU) of the box that a sentence names",
        "spatial": "two three-way cross-entropies: where one object lies from another",
    },
    reached={"itc": ("language", "adapters", "temperature")},
    sources={
        "drone": Source(
            options="hfvla.worlds.drone:DroneOptions",
            build="hfvla.worlds.drone:build_drone",
            count="hfvla.worlds.drone:count_drone",
            description="generated scenes of buildings with captions, sentence boxes and relations",
        ),
        "geotext": Source(
            options="hfvla.data.sources.geotext:GeoTextOptions",
            build="hfvla.data.sources.geotext:build_geotext",
            count="hfvla.data.sources.geotext:count_geotext",
            description="train or test JSON of GeoText-1652 with its images",
        ),
        "robosense": Source(
            options="hfvla.data.sources.robosense:RoboSenseOptions",
            build="hfvla.data.sources.robosense:build_robosense",
            count="hfvla.data.sources.robosense:count_robosense",
            description="text queries of the RoboSense challenge, track 4",
        ),
    },
    collator="InternVLRetrievalCollator",
    metrics=(
        Metric("retrieval_mean_recall", quick=True),
        Metric("box_iou", "Box IoU", quick=True),
        Metric("spatial_accuracy", quick=True),
        Metric("combined", quick=True),
    ),
    model_options="hfvla.models.internvl_retrieval.build:RetrievalOptions",
    label_names=("group_ids", "image_ids", "boxes", "box_mask"),
    evaluation_options={
        "k_test": Option("items of each list that the matching head puts in order (256)", least=1),
        "legacy_building_ids": Option("true: headline scores with GeoText-1652's own off-by-one building ids", bool),
    },
    feature_cuts={
        "image_states": FeatureCut(
            groups=("vision", "projector"),
            fields=("image",),
            files=("image",),
            required=("image",),
            replaces=("pixel_values",),
            provides=("image_pooled", "image_tokens"),
            config=("backbone_config", "image_from", "heads"),
            processor=("image_processor",),
            description="mean patch [C], and the projected tokens [G, width] where the config uses them",
        )
    },
    parameter_table={
        "vision tower": ("backbone.vision_tower.*",),
        "projector": ("backbone.multi_modal_projector.*",),
        "language model": ("backbone.language_model.*",),
        "image adapter": ("image_adapter.*",),
        "text adapter": ("text_adapter.*",),
        "grid attention": ("grid_projection.*", "grid_attention.*"),
        "itm head": ("itm_head.*",),
        "bbox head": ("bbox_head.*",),
        "spatial head": ("spatial_head.*",),
        "temperature": ("log_temperature",),
    },
    request=Request(
        (
            RequestField("text", "a description; the pictures that fit it are found", required=True),
            RequestField("gallery", "folder of pictures that are searched", kind="folder", whole_file=True),
            RequestField("images", "pictures that are searched", kind="picture", repeated=True, option="image"),
            RequestField("top_k", "pictures to list", kind="integer", least=1, default=3),
            RequestField("sheet", "draw what is found on a sheet", kind="output", suffixes=(".png", ".jpg", ".jpeg")),
        ),
        one_of=(("gallery", "images"),),
        description="a text: which pictures fit it",
    ),
)

__all__ = ["FAMILY"]
