"""Several processes in one: threads that meet in `gather`, each with objects of its own."""

import threading

from hfvla.data.processes import Processes


class ThreadProcesses(Processes):
    """One of several threads that run the same code; `gather` is a barrier and a shared list."""

    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def __init__(self, index, count, board):
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "board", board)

    def gather(self, value):
        values, barrier = self.board
        values[self.index] = value
        barrier.wait(60)
        found = list(values)
        barrier.wait(60)  # nobody writes the next value before all have read this one
        return found


def together(count, work):
    """Return what `work(processes)` returns on each of `count` threads; raise what the first that failed raised."""
    board = ([None] * count, threading.Barrier(count))
    found, failed = [None] * count, {}

    def run(index):
        try:
            found[index] = work(ThreadProcesses(index, count, board))
        except Exception as error:
            failed[index] = error
            board[1].abort()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    real = [error for error in failed.values() if not isinstance(error, threading.BrokenBarrierError)]
    if real or failed:
        raise (real or list(failed.values()))[0]
    return found
