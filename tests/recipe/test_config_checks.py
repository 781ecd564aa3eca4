"""Keys and values of `model.config`, `model.options` and a stage's `model`, against the real config classes."""

from pathlib import Path

import pytest

from hfvla.errors import RecipeError
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.recipe import load_recipe, resolved_dict
from hfvla.recipe.config_checks import change_problems
from hfvla.recipe.document import parse_value
from hfvla.training.run.stage_run import merge_config

EMBER, RETRIEVAL = "recipes/ember_vlm/small.yaml", "recipes/internvl_retrieval/tiny.yaml"
FLOW, REAL = "recipes/sensor_vla/tiny_flow.yaml", "recipes/sensor_vla/full_flow.yaml"
SMOKE = "recipes/sensor_vla/smoke.yaml"
_ROPE = "model.config.backbone_config.text_config.rope_parameters"

MISTAKES = [
    (EMBER, "model.config.selection_dropuot=0.5", "EmberVLMConfig has no 'selection_dropuot'. Did you mean"),
    (EMBER, "model.config.text_config.n_layr=7", "GPT2Config has no 'n_layr'. Did you mean 'n_layer'?"),
    (EMBER, "model.config.vision_config.do_poling=true", "TimmWrapperConfig has no 'do_poling'. Did you mean"),
    (EMBER, "model.config.vision_config.model_type=resnet", "no such type of model here; got 'resnet'"),
    (EMBER, "model.config.text_config={hidden_size: 8, n_embd: 8}", "'hidden_size' and 'n_embd' are the same"),
    (
        EMBER,
        "model.config.calibration={temprature: 2}",
        "'calibration' has no 'temprature'. Did you mean 'temperature'?",
    ),
    (
        EMBER,
        "model.config.loss_weights={selektion: 1}",
        "'loss_weights' has no 'selektion'. Did you mean 'selection'?",
    ),
    (EMBER, "model.config.id2label={0: a}", "EmberVLMConfig has no 'id2label'"),
    (EMBER, "model.config.robots=Drone", "expected a list; got 'Drone'"),
    (EMBER, "model.config.text_config=[1]", "expected a mapping; got [1]"),
    (EMBER, "model.config.text_config.n_layer=1000000000", "expected a number of at most 1,000; got 1000000000"),
    (EMBER, "model.config.text_config.n_embd=1000000000", "expected a number of at most 10,000,000; got 1000000000"),
    (EMBER, "model.config.text_config.n_layer=-1", "expected a number >= 0; got -1"),
    (EMBER, "model.config.text_config.n_layer=two", "expected a whole number; got 'two'"),
    (EMBER, "model.config.text_config.resid_pdrop=.nan", "expected a finite number; got nan"),
    (EMBER, "model.config.text_config.layer_norm_epsilon=1", "expected float, got int (value: 1)"),
    (EMBER, "model.config.vision_config.model_args={depth: [1, 100000]}", "expected a number of at most 1,000"),
    (EMBER, "model.config.selection_hidden_size=true", "expected a whole number; got true"),
    (EMBER, "model.options.tokenizer_vocab_sise=9", "unknown key 'tokenizer_vocab_sise'. Did you mean"),
    (EMBER, "model.options.tokenizer_vocab_size=true", "expected a whole number; got true"),
    (
        EMBER,
        "stages.0.model={word_dropuot: 0.5}",
        "stages[0].model.word_dropuot: EmberVLMConfig has no 'word_dropuot'",
    ),
    (
        RETRIEVAL,
        "model.config.embed_dimm=128",
        "InternVLRetrievalConfig has no 'embed_dimm'. Did you mean 'embed_dim'?",
    ),
    (RETRIEVAL, "stages.0.model.embed_dimm=128", "stages[0].model.embed_dimm: InternVLRetrievalConfig has no"),
    (RETRIEVAL, "model.config.adapter.dropot=0.5", "'adapter' has no 'dropot'. Did you mean 'dropout'?"),
    (RETRIEVAL, "model.config.adapter.skip=1", "expected true or false; got 1"),
    (
        RETRIEVAL,
        "model.config.backbone_config.vision_config.hidden_sise=3",
        "InternVLVisionConfig has no 'hidden_sise'",
    ),
    (RETRIEVAL, "model.config.backbone_config.text_config.hiden_size=3", "Qwen2Config has no 'hiden_size'"),
    (RETRIEVAL, "model.config.backbone_config.model_type=llava", "no such type of model here; got 'llava'"),
    (FLOW, "model.config.expert.max_prefx=1", "'expert' has no 'max_prefx'. Did you mean 'max_prefix'?"),
    (FLOW, "model.config.expert.train_steps=10", "'expert' has no 'train_steps'"),
    (FLOW, "model.config.expert.kind=flw", "expected 'regression', 'diffusion' or 'flow'; got 'flw'"),
    (FLOW, "model.config.expert.width=1.5", "expected a whole number; got 1.5"),
    (FLOW, "model.config.sensor_encoder.conv_widths=[1, a]", "conv_widths[1]: expected a whole number; got 'a'"),
    (FLOW, "model.config.action.names=[a, 1]", "expected text; got 1"),
    (FLOW, "model.config.views=[1]", "expected text; got 1"),
    (SMOKE, f"{_ROPE}.mrope_section=[2, 3, x]", "rope_parameters.mrope_section[2]: expected a number; got 'x'"),
    (SMOKE, f"{_ROPE}.rope_theta=ten", "rope_theta: expected a number; got 'ten'"),
    (SMOKE, f"{_ROPE}={{full_attention: {{rope_type: default, factor: x}}}}", "factor: expected a number; got 'x'"),
    (REAL, "stages.0.model={state_dm: 2}", "SensorVLAConfig has no 'state_dm'. Did you mean 'state_dim'?"),
    (REAL, "stages.0.model={backbone_config: {text_config: {hidden_sze: 3}}}", "has no 'hidden_sze'"),
    (REAL, "model.options.most_pixels=true", "expected a whole number; got true"),
]


@pytest.mark.parametrize(("recipe", "override", "message"), MISTAKES, ids=[mistake[1] for mistake in MISTAKES])
def test_a_mistake_is_named_with_its_place(recipe, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [override])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"override '{override}': ")
    assert message in caught.value.problems[0]


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        (EMBER, "model.config.word_dropout=0"),
        (EMBER, "model.config.visual_grid=[2, 4]"),
        (EMBER, "model.config.text_config.resid_pdrop=0"),
        (RETRIEVAL, "model.config.negatives={seed: 4294967295, queue: 64}"),
        (RETRIEVAL, "model.config.backbone_config.text_config.model_type=qwen3"),
        (FLOW, "model.config.backbone_config.text_config.rope_theta=1e4"),
        (FLOW, "model.config.expert={kind: diffusion, width: 32, train_steps: 5}"),
        (FLOW, "model.config.sensor=null"),
        (SMOKE, f"{_ROPE}={{full_attention: {{rope_type: default, rope_theta: 1e4}}}}"),
        (REAL, "model.options.image_size=[240, 320]"),
    ],
)
def test_what_the_classes_have_is_taken(recipe, override):
    path, _, written = override.partition("=")
    found = resolved_dict(load_recipe(recipe, [override]))
    for key in path.split("."):
        found = found[key]
    assert found == parse_value(written, path)


def test_the_file_and_line_of_a_mistake(tmp_path):
    lines = Path(EMBER).read_text(encoding="utf-8").replace("n_layer:", "n_layr:", 1).splitlines()
    path = tmp_path / "r.yaml"
    path.write_text("\n".join(lines))
    number = next(number for number, line in enumerate(lines, start=1) if "n_layr" in line)
    with pytest.raises(RecipeError, match=f"r.yaml:{number}: model.config.text_config.n_layr: GPT2Config has no"):
        load_recipe(path)


def test_changes_of_a_config_are_held_against_its_own_parts():
    config = SensorVLAConfig.tiny("smolvlm", expert={"kind": "flow", "width": 32, "heads": 2})
    assert change_problems(config, {"expert": {"max_prefix": 1}, "backbone_config": {"scale_factor": 1}}) == []
    found = change_problems(config, {"expert": {"train_steps": 1}, "backbone_config": {"downsample_ratio": 0.5}})
    assert [problem.steps for problem in found] == [("expert", "train_steps"), ("backbone_config", "downsample_ratio")]


def test_a_config_is_merged_with_keys_that_it_has():
    with pytest.raises(RecipeError, match=r"model: text_config.n_layr: GPT2Config has no 'n_layr'"):
        merge_config(EmberVLMConfig.tiny(), {"text_config": {"n_layr": 1}})
    assert merge_config(EmberVLMConfig.tiny(), {"text_config": {"n_layer": 1}}).text_config.n_layer == 1
