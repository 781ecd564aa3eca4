"""One evaluation of conversations about pictures, for every family that answers them."""

from hfvla.metrics.chat.evaluating import evaluate_chat
from hfvla.metrics.chat.tasks import Task, task_of

__all__ = ["Task", "evaluate_chat", "task_of"]
