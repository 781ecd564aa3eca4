"""Episode folders: pictures named by their time, a CSV of robot states, a sensor series in npz files."""

from hfvla.data.sources.episode_folders.source import (
    EpisodeFoldersOptions,
    build_episode_folders,
    count_episode_folders,
)

__all__ = ["EpisodeFoldersOptions", "build_episode_folders", "count_episode_folders"]
