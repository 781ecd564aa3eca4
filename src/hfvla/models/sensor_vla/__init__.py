"""Cameras, a force or OCT sensor and a task in words to action chunks. Read `README.md` beside this file."""

from __future__ import annotations

from hfvla.family import FamilySpec, FeatureCut, Metric, Option, ParameterGroup, Request, RequestField, Source

_HERE = "hfvla.models.sensor_vla"

FAMILY = FamilySpec(
    name="sensor_vla",
    summary="cameras, a high-rate sensor, the robot's state and a task in words to a chunk of actions",
    config="SensorVLAConfig",
    model="SensorVLAForActionPrediction",
    processor="SensorVLAProcessor",
    groups={
        "vision": ParameterGroup(
            (
                "backbone.visual.patch_embed.*",
                "backbone.visual.pos_embed.*",
                "backbone.visual.blocks.*",
                "backbone.vision_tower.*",
                "backbone.vision_model.*",
            ),
            layers=(
                "backbone.visual.blocks",
                "backbone.vision_tower.encoder.layer",
                "backbone.vision_model.encoder.layers",
            ),
            description="vision tower of the backbone",
        ),
        "projector": ParameterGroup(
            (
                "backbone.visual.merger.*",
                "backbone.visual.deepstack_merger_list.*",
                "backbone.multi_modal_projector.*",
                "backbone.connector.*",
            ),
            description="patches to language tokens",
        ),
        "language": ParameterGroup(
            ("backbone.language_model.*", "backbone.text_model.*"),
            layers=("backbone.language_model.layers", "backbone.text_model.layers"),
            description="language model of the backbone",
        ),
        "sensor": ParameterGroup(("sensor_encoder.*",), description="encoder of the sensor window"),
        "state": ParameterGroup(("state_encoder.*",), description="token of the robot's state"),
        "fusion": ParameterGroup(("fusion.*",), description="sensor tokens to backbone tokens"),
        "expert": ParameterGroup(("expert.*",), description="action expert"),
    },
    losses={"action": "error of the action chunk: of actions, noise or velocity, as the expert learns"},
    reached={"action": ("language", "sensor", "state", "fusion", "expert")},
    sources={
        "lerobot": Source(
            options="hfvla.data.sources.lerobot:LeRobotOptions",
            build="hfvla.data.sources.lerobot:build_lerobot",
            count="hfvla.data.sources.lerobot:count_lerobot",
            description="LeRobot data sets v2.1 and v3.0",
        ),
        "episode_folders": Source(
            options="hfvla.data.sources.episode_folders:EpisodeFoldersOptions",
            build="hfvla.data.sources.episode_folders:build_episode_folders",
            count="hfvla.data.sources.episode_folders:count_episode_folders",
            description="folders of pictures, sensor arrays and robot states, new and old layout",
        ),
        "hdf5_episodes": Source(
            options="hfvla.data.sources.hdf5_episodes:Hdf5EpisodesOptions",
            build="hfvla.data.sources.hdf5_episodes:build_hdf5_episodes",
            count="hfvla.data.sources.hdf5_episodes:count_hdf5_episodes",
            description="HDF5 files, one an episode (ACT's layout, with an optional sensor)",
        ),
        "insertion": Source(
            options="hfvla.worlds.insertion:InsertionOptions",
            build="hfvla.worlds.insertion:build_insertion",
            count="hfvla.worlds.insertion:count_insertion",
            description="demonstrations of peg insertion, recorded in a simulator (MuJoCo)",
        ),
        "reaching": Source(
            options="hfvla.worlds.reaching:ReachingOptions",
            build="hfvla.worlds.reaching:build_reaching",
            count="hfvla.worlds.reaching:count_reaching",
            description="drawn episodes of a hand that presses a square named in words",
        ),
    },
    collator="SensorVLACollator",
    metrics=(
        Metric("action_mse", lower_is_better=True, quick=True),
        Metric("first_action_mse", lower_is_better=True, quick=True),
    ),
    model_options=f"{_HERE}.build:SensorVLAOptions",
    label_names=("actions", "action_mask"),
    feature_cuts={
        "backbone": FeatureCut(
            groups=("vision", "projector", "language"),
            fields=("task",),
            replaces=(
                "input_ids",
                "attention_mask",
                "pixel_values",
                "image_grid_thw",
                "mm_token_type_ids",
                "pixel_attention_mask",
            ),
            provides=("features", "feature_mask"),
            config=("backbone_config", "feature_pooling", "views", "view_dropout", "image_shift"),
            processor=(
                "image_processor",
                "tokenizer_rules",
                "chat_template",
                "backbone",
                "backbone_arguments",
                "views",
                "prompt",
                "image_size",
            ),
            description="the backbone's hidden states, [tokens, D] a step",
        )
    },
    parameter_table={
        "backbone": ("backbone.*",),
        "sensor encoder": ("sensor_encoder.*",),
        "state encoder": ("state_encoder.*",),
        "fusion": ("fusion.*",),
        "action expert": ("expert.*",),
    },
    policies={"SensorVLAPolicy": "ChunkPolicy", "AsyncSensorVLAPolicy": "AsyncChunkPolicy"},
    evaluation_options={
        "closed_loop": Option("episodes to run in the data's simulator, 0 for none"),
        "action_steps": Option("actions executed of each chunk before the next; the whole chunk when absent", least=1),
        "denoising_steps": Option("of diffusion and flow experts; the checkpoint's own when absent", least=1),
        "videos": Option("episodes shown as video in the report (default 4)"),
    },
    request=Request(
        (
            RequestField("task", "what the robot is to do, in words", required=True),
            RequestField("views", "a camera's picture", kind="picture", named=True, required=True, option="view"),
            RequestField("state", "the robot's state, in its units, where the checkpoint reads one", kind="numbers"),
            RequestField("sensor", "samples of the sensor: times_s [W] and values [W, C]", kind="data"),
            RequestField("time_s", "now, on the sensor's clock; its last sample when not given", kind="number"),
            RequestField("denoising_steps", "of diffusion and flow experts", kind="integer", least=1),
        ),
        description="what a robot sees and feels now, and its task: its next actions",
    ),
)

__all__ = ["FAMILY"]
