"""Sensors, actions, clocks and rotations: numbers that come with time."""
