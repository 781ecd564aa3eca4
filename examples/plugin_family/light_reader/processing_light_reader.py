"""All that inference needs beside the weights, and the way back to words."""

from typing import Any

from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from light_reader.configuration_light_reader import LightReaderConfig

LAMPS = ("red", "amber", "green")


class LightReaderProcessor(ProcessorMixin):
    """An image processor and the names of the lamps."""

    def __init__(self, image_processor: Any = None, lamps: tuple[str, ...] = LAMPS) -> None:
        super().__init__(image_processor)
        self.lamps = tuple(lamps)

    def __call__(self, images: Any) -> BatchFeature:
        """Return `pixel_values` [B, 3, S, S]."""
        return self.image_processor(images, return_tensors="pt")


AutoProcessor.register(LightReaderConfig, LightReaderProcessor, exist_ok=True)
