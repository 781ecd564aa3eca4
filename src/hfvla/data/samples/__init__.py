"""What a row of each kind holds."""

from hfvla._moved import old_names

__getattr__ = old_names("hfvla.data.samples", "hfvla.data.samples.robots")
