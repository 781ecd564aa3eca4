"""Reads which lamp of a traffic light is on: the smallest family that hfvla trains, evaluates and serves."""

from hfvla.family import FamilySpec, Metric, ParameterGroup, Request, RequestField, Source

FAMILY = FamilySpec(
    name="light_reader",
    package=__name__,
    summary="reads which lamp of a traffic light is on",
    config="LightReaderConfig",
    model="LightReader",
    processor="LightReaderProcessor",
    collator="LightReaderCollator",
    groups={
        "vision": ParameterGroup(("vision.*",), layers="vision.layers", description="ViT"),
        "head": ParameterGroup(("head.*",), description="which lamp"),
    },
    losses={"lamp": "cross-entropy of the lamp that is on"},
    sources={"lights": Source(f"{__name__}.lights:LightOptions", f"{__name__}.lights:build_lights", "drawn lights")},
    metrics=(Metric("accuracy", quick=True),),
    request=Request((RequestField("image", "picture of a traffic light", kind="picture", required=True),)),
)
