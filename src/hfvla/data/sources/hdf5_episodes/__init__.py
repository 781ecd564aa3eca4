"""HDF5 episodes: one file an episode, with action, timestamp and observations."""

from hfvla.data.sources.hdf5_episodes.source import (
    Hdf5EpisodesOptions,
    build_hdf5_episodes,
    count_hdf5_episodes,
)

__all__ = ["Hdf5EpisodesOptions", "build_hdf5_episodes", "count_hdf5_episodes"]
