"""Bounded memories of the video reader: decoded frames by bytes, open decoders and frame tables by number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np

from hfvla.data.video.backends import Decoder

__all__ = ["DecoderPool", "FrameCache", "RecentItems"]

Item = TypeVar("Item")


class RecentItems(Generic[Item]):
    """The `capacity` items used last; safe for several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Item | None:
        """Return an item and mark it as used, or None."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: Hashable, item: Item) -> None:
        """Keep an item; the ones unused for longest make room."""
        with self._lock:
            self._items[key] = item
            self._items.move_to_end(key)
            while len(self._items) > self._capacity:
                self._items.popitem(last=False)


class FrameCache:
    """Decoded frames, the ones unused for longest dropped first; safe for several threads.

    Args:
        max_bytes: of pixels; 0 keeps nothing.

    Attributes:
        hits: frames found.
        misses: frames asked for and not found.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes, self.hits, self.misses = 0, 0, 0

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, key: Hashable) -> np.ndarray | None:
        """Return a frame and mark it as used, or None; not to be written to."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is None:
                self.misses += 1
            else:
                self.hits += 1
                self._frames.move_to_end(key)
            return frame

    def put(self, key: Hashable, frame: np.ndarray) -> None:
        """Keep a frame, unless it alone is larger than the cache."""
        if frame.nbytes > self._max_bytes:
            return
        with self._lock:
            old = self._frames.pop(key, None)
            self.bytes += frame.nbytes - (0 if old is None else old.nbytes)
            self._frames[key] = frame
            while self.bytes > self._max_bytes:
                self.bytes -= self._frames.popitem(last=False)[1].nbytes


class DecoderPool:
    """Open decoders between reads; one is lent to one thread at a time. Safe for several threads.

    Args:
        capacity: idle decoders to keep open.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._idle: list[tuple[Hashable, Decoder]] = []  # unused for longest first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._idle)

    def borrow(self, key: Hashable, open_new: Callable[[], Decoder]) -> Decoder:
        """Take an idle decoder of that file out of the pool, or open one."""
        with self._lock:
            for place in range(len(self._idle) - 1, -1, -1):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return open_new()

    def give_back(self, key: Hashable, decoder: Decoder) -> None:
        """Put a decoder that is still sound back; the one unused for longest is closed when there are too many."""
        with self._lock:
            self._idle.append((key, decoder))
            surplus = self._idle[: max(len(self._idle) - self._capacity, 0)]
            del self._idle[: len(surplus)]
        for _, old in surplus:
            old.close()

    def close(self) -> None:
        """Close every idle decoder."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, decoder in idle:
            decoder.close()

    def abandon(self) -> list[Decoder]:
        """Empty the pool without closing; for a forked child, where the decoders' threads do not exist."""
        abandoned, self._idle = [decoder for _, decoder in self._idle], []
        self._lock = threading.Lock()
        return abandoned
