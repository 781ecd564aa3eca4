"""What `hfvla` offers, for editors and type checkers; at run time each name is imported when it is first used."""

from hfvla.errors import CheckpointError as CheckpointError
from hfvla.errors import DataError as DataError
from hfvla.errors import HfvlaError as HfvlaError
from hfvla.errors import RecipeError as RecipeError
from hfvla.family import FamilySpec as FamilySpec
from hfvla.family import ParameterGroup as ParameterGroup
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig as EmberVLMConfig
from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection as EmberVLMForRobotSelection
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor as EmberVLMProcessor
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import (
    InternVLRetrievalConfig as InternVLRetrievalConfig,
)
from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval as InternVLForRetrieval
from hfvla.models.internvl_retrieval.processing_internvl_retrieval import (
    InternVLRetrievalProcessor as InternVLRetrievalProcessor,
)
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import (
    InternVLVideoQAConfig as InternVLVideoQAConfig,
)
from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA as InternVLForVideoQA
from hfvla.models.internvl_video_qa.processing_internvl_video_qa import (
    InternVLVideoQAProcessor as InternVLVideoQAProcessor,
)
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig as SensorVLAConfig
from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction as SensorVLAForActionPrediction
from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor as SensorVLAProcessor
from hfvla.recipe import Lora as Lora
from hfvla.recipe import Phase as Phase
from hfvla.recipe import Recipe as Recipe
from hfvla.recipe import Stage as Stage
from hfvla.recipe import load_recipe as load_recipe
from hfvla.registry import available_families as available_families
from hfvla.registry import get_family as get_family
from hfvla.registry import load_checkpoint as load_checkpoint
from hfvla.serve.policy import AsyncChunkPolicy as AsyncChunkPolicy
from hfvla.serve.policy import ChunkPolicy as ChunkPolicy
from hfvla.serve.policy import RemotePolicy as RemotePolicy
from hfvla.training.run.run import run_recipe as run_recipe
from hfvla.training.trainer.trainer import StagedTrainer as StagedTrainer

__version__: str
SensorVLAPolicy = ChunkPolicy
AsyncSensorVLAPolicy = AsyncChunkPolicy
