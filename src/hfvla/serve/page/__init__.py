"""A page in a browser on which a checkpoint can be tried: `hfvla demo`."""

from hfvla.serve.page.page import DemoPage, load_gradio

__all__ = ["DemoPage", "load_gradio"]
