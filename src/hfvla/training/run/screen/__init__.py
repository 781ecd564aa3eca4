"""What a run shows while it goes: one live view, its log files, and no noise."""

__all__ = ["DETAIL"]

DETAIL = {"detail": True}
"""`extra` of a log record with what few want to read: it goes to run.log and not to the terminal."""
