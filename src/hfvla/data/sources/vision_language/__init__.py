"""Public vision-language sets as they lie on disk: one reader a format, each told by content; rows of `ChatSample`.

`SOURCES` are the data sources that a family takes into its own:

    sources={**SOURCES, "mine": Source(...)}
"""

from hfvla.data.sources.vision_language.options import Columns, HubOptions, Prompts, VisionLanguageOptions
from hfvla.family.sources import Source

__all__ = ["SOURCES", "Columns", "HubOptions", "Prompts", "VisionLanguageOptions"]

_HERE = "hfvla.data.sources.vision_language"

SOURCES: dict[str, Source] = {
    name: Source(
        options=f"{_HERE}.options:VisionLanguageOptions",
        build=f"{_HERE}.build:build_vision_language",
        count=f"{_HERE}.counting:count_vision_language",
        description=description,
    )
    for name, description in (
        ("vision_language", "file or folder of a public image-text set, told by its content"),
        ("folder", "folder that holds any of them, every file named with what it was taken for"),
    )
}
"""By name, as recipes have them; the first two are one reader."""
SOURCES["hub"] = Source(
    options=f"{_HERE}.options:HubOptions",
    build=f"{_HERE}.hub:build_hub",
    description="data set of the hub, or of a folder that `datasets` reads, by column names or a mapping",
)
