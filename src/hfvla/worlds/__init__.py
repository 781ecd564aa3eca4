"""Generators of scenes, tasks and episodes."""
