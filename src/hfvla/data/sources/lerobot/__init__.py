"""LeRobot data sets: v2.1 and v3.0 read, v3.0 written."""

from hfvla.data.sources.lerobot.reader import LeRobotEpisodes
from hfvla.data.sources.lerobot.sensors import SensorOptions
from hfvla.data.sources.lerobot.source import LeRobotOptions, build_lerobot, count_lerobot
from hfvla.data.sources.lerobot.writer import LeRobotWriter

__all__ = [
    "LeRobotEpisodes",
    "LeRobotOptions",
    "LeRobotWriter",
    "SensorOptions",
    "build_lerobot",
    "count_lerobot",
]
