"""What a driver of message queues must do."""

from __future__ import annotations

from typing import Protocol

import msgspec


class QueueState(msgspec.Struct, frozen=True):
    """One queue; `consumers` is None where the product does not know them."""

    name: str
    messages: int
    consumers: int | None = None


class Message(msgspec.Struct, frozen=True):
    """A message as it waits; `id` is what the product calls it by, empty where it has none."""

    id: str
    body: bytes


class Queues(Protocol):
    """The queues of one broker. Each method raises StepError where the broker does not answer."""

    def states(self) -> list[QueueState]: ...

    def peek(self, queue: str, number: int) -> list[Message]:
        """Return the messages that wait longest; they stay where they are."""

    def purge(self, queue: str) -> int:
        """Remove all messages that wait; return how many they were, as far as the product says."""

    def reroute(self, queue: str, target: str, text: str = "") -> int:
        """Move waiting messages, or those whose body contains a text, to another queue; return how many.

        Each message is in one of the two at any moment, or in both, but never in none.
        """
