"""Queues that are lists of Redis, as Celery and others keep them: new messages on the left, the oldest on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import redis

from holdfast.drivers.protocols.queues import Message, QueueState
from holdfast.errors import StepError

_TIMEOUT_SECONDS = 20
_ResultT = TypeVar("_ResultT")
# Redis runs a script as one step: the message is never in none of the lists, nor moved by two.
_MOVE = (
    "if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 1 then redis.call('LPUSH', KEYS[2], ARGV[1]) return 1 end return 0"
)
_PURGE = "local n = redis.call('LLEN', KEYS[1]) redis.call('DEL', KEYS[1]) return n"


class RedisLists:
    def __init__(self, url: str, names: Sequence[str]) -> None:
        self._url = url
        self._names = list(names)

    def _ask(self, question: Callable[[redis.Redis], _ResultT]) -> _ResultT:
        """Return what Redis answers. Raise StepError, which never has the address with its password."""
        try:
            client = redis.Redis.from_url(self._url, socket_timeout=_TIMEOUT_SECONDS)
        except ValueError:
            raise StepError(
                "the `url` of the queues is not one of Redis", next_step="Write redis://HOST:PORT/0."
            ) from None
        with client:
            try:
                return question(client)
            except redis.ConnectionError as error:
                raise StepError(
                    f"Redis cannot be reached: {type(error).__name__}",
                    next_step="Start it, or correct the `url` of the queues.",
                ) from None
            except redis.RedisError as error:
                raise StepError(f"Redis refused: {error}") from error

    def states(self) -> list[QueueState]:
        return self._ask(lambda client: [QueueState(name, client.llen(name)) for name in self._names])

    def peek(self, queue: str, number: int) -> list[Message]:
        found = self._ask(lambda client: cast(list[bytes], client.lrange(queue, -number, -1)))
        return [Message("", body) for body in reversed(found)]

    def purge(self, queue: str) -> int:
        return self._ask(lambda client: int(client.eval(_PURGE, 1, queue)))

    def reroute(self, queue: str, target: str, text: str = "") -> int:
        def move(client: redis.Redis) -> int:
            bodies = reversed(cast(list[bytes], client.lrange(queue, 0, -1)))
            wanted = (body for body in bodies if text.encode() in body)
            # The client's stubs know texts alone as arguments of a script.
            return sum(int(cast(int, client.eval(_MOVE, 2, queue, target, cast(str, body)))) for body in wanted)

        return self._ask(move)
