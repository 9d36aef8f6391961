"""A second process for work that costs Python more than the disk, for example with very many small files.

The parent gives orders and takes the answers in the same order. The process has the operation's variable, so that a
recovery ends it like any command, and it ends by itself once its parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import sys
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from holdfast.errors import HoldfastError, StepError
from holdfast.system.host import Host

_END_SECONDS = 10
_OrderT = TypeVar("_OrderT")
_AnswerT = TypeVar("_AnswerT")
_LastT = TypeVar("_LastT")
_OrderT_contra = TypeVar("_OrderT_contra", contravariant=True)
_AnswerT_co = TypeVar("_AnswerT_co", covariant=True)
_LastT_co = TypeVar("_LastT_co", covariant=True)


class WorkerDiedError(StepError):
    """The death of a worker; unanswered orders are not done, or done in part."""


class Job(Protocol[_OrderT_contra, _AnswerT_co, _LastT_co]):
    """The work of a worker. Both sides of the pipe are Holdfast, so jobs, orders and answers are pickled."""

    def handle(self, order: _OrderT_contra) -> _AnswerT_co:
        """Return the answer to one order. What it raises is raised where the answer is taken."""

    def finish(self) -> _LastT_co:
        """Return the last answer, after which there are no more orders."""


class Worker(Generic[_OrderT, _AnswerT, _LastT]):
    """The parent's side of a worker. Threads must not share it."""

    def __init__(self, host: Host, job: Job[_OrderT, _AnswerT, _LastT]) -> None:
        self._process = host.start_pipes([sys.executable, "-m", "holdfast.system.worker"])
        self._answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        # A separate thread reads the answers: otherwise both sides could wait with a full pipe for each other.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.waiting = 0
        self._send(job)

    def _read(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                self._answers.put(pickle.load(self._process.stdout))
            except Exception:  # report its end or an unreadable answer, because the caller waits
                self._answers.put(_Failed(WorkerDiedError("the second process of Holdfast died")))
                return

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(value, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its death is reported where an answer is taken

    def give(self, order: _OrderT) -> None:
        self._give(order)

    def _give(self, order: _OrderT | None) -> None:
        """Send an order; None asks for the last answer."""
        self.waiting += 1
        self._send(order)

    def has_answer(self) -> bool:
        """Return whether `take` would return at once."""
        return not self._answers.empty()

    def take(self) -> _AnswerT:
        """Return the answer to the oldest unanswered order. Raise what the job raised, or WorkerDiedError."""
        return cast(_AnswerT, self._take())  # the other process answers with what this job's `handle` returned

    def _take(self) -> object:
        self.waiting -= 1
        answer = self._answers.get()
        if isinstance(answer, _Failed):
            raise answer.error
        return answer

    def finish(self, meanwhile: Callable[[], None] = lambda: None) -> _LastT:
        """Return the job's last answer; the process has ended then. `meanwhile` is called while it comes."""
        self._give(None)
        meanwhile()
        answer = cast(_LastT, self._take())  # what this job's `finish` returned
        self.end()
        return answer

    def end(self) -> None:
        """End the process, whatever it does. Idempotent."""
        self._process.kill()
        self._process.wait(_END_SECONDS)
        self._reader.join(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent orders are no longer needed
                    pipe.close()


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


def _failure(error: Exception) -> _Failed:
    """Return an exception in a form that the parent can raise."""
    if isinstance(error, OSError) or type(error).__init__ is HoldfastError.__init__:
        return _Failed(error)
    return _Failed(StepError(f"the second process of Holdfast: {type(error).__name__}: {error}"))


def main() -> None:
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        job: Job[object, object, object] = pickle.load(orders)
        order: object = ...
        while order is not None:
            order = pickle.load(orders)
            try:
                answer = job.handle(order) if order is not None else job.finish()
            except Exception as error:  # for example a full disk: the parent raises it
                answer = _failure(error)
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
    except (EOFError, BrokenPipeError):  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    # Do not call this module's own `main`: it would pickle names of `__main__`, which the parent cannot read.
    from holdfast.system import worker

    worker.main()
