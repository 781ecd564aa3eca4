"""The page of formats says what the readers are."""

from hfvla.data.sources.vision_language.formats import FORMATS
from hfvla.data.sources.vision_language.options import Prompts, VisionLanguageOptions


def test_every_format_and_option_has_its_line(repository):
    page = (repository / "docs" / "image-text.md").read_text("utf-8")
    for one in FORMATS:
        assert f"| `{one.name}` | {one.files} | {one.becomes} |" in page, one.name
    for name in (*VisionLanguageOptions.model_fields, *Prompts.model_fields):
        assert f"`{name}`" in page, name
