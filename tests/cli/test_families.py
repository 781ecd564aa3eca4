import pytest
from pydantic import BaseModel, Field

from hfvla.cli.families import describe_families
from hfvla.registry import available_families


class Options(BaseModel):
    path: str = Field(description="the file")
    robots: list[str] = Field(default_factory=lambda: ["Drone"])


@pytest.mark.parametrize("name", sorted(available_families()))
def test_every_family_describes_itself(name):
    spec = available_families()[name]
    found = describe_families({name: spec})[name]
    assert set(found["groups"]) == set(spec.groups) and set(found["losses"]) == set(spec.losses)
    assert set(found["sources"]) == set(spec.sources)
    assert found["summary"] and all(group["description"] for group in found["groups"].values())
    assert "eval_loss" in found["keep_best"] and f"eval_{spec.metric_names[0]}" in found["keep_best"]


def test_options_tell_what_is_required():
    import dataclasses

    from hfvla.family import Source

    spec = next(iter(available_families().values()))
    spec = dataclasses.replace(spec, sources={"records": Source(f"{__name__}:Options", "toy:build", "records")})
    options = describe_families({"toy": spec})["toy"]["sources"]["records"]["options"]
    assert options["path"] == {"required": True, "default": None, "description": "the file"}
    assert options["robots"] == {"required": False, "default": ["Drone"], "description": ""}
