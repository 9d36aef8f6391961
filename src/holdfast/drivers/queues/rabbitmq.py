"""Queues of RabbitMQ over AMQP 0-9-1, which every broker speaks: the management interface is a plugin of its own.

A message that is fetched and not acknowledged goes back to its queue when the channel closes, whatever ends this
process. It is marked as redelivered then; that mark is all that a look leaves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from holdfast.drivers.protocols.queues import Message, QueueState
from holdfast.errors import NotFoundError, StepError

_TIMEOUT_SECONDS = 20


class RabbitQueues:
    def __init__(self, url: str, names: Sequence[str]) -> None:
        self._url = url
        self._names = list(names)

    @contextlib.contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        """Open a channel. Raise StepError, which never has the address with its password."""
        try:
            parameters = pika.URLParameters(self._url)
            parameters.socket_timeout = parameters.blocked_connection_timeout = _TIMEOUT_SECONDS
            connection = pika.BlockingConnection(parameters)
        except (pika.exceptions.AMQPError, OSError, ValueError) as error:
            raise StepError(
                f"RabbitMQ cannot be reached: {type(error).__name__}",
                next_step="Start the broker, or correct the `url` of the queues.",
            ) from None
        try:
            yield connection.channel()
        except pika.exceptions.ChannelClosedByBroker as error:
            raise StepError(f"RabbitMQ refused: {error.reply_text}") from error
        except pika.exceptions.AMQPError as error:
            raise StepError(f"the connection to RabbitMQ broke: {type(error).__name__}") from error
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError):
                connection.close()

    def _state(self, channel: BlockingChannel, name: str) -> QueueState:
        found = channel.queue_declare(name, passive=True).method
        return QueueState(name, found.message_count, found.consumer_count)

    def states(self) -> list[QueueState]:
        with self._channel() as channel:
            return [self._state(channel, name) for name in self._names]

    def peek(self, queue: str, number: int) -> list[Message]:
        found: list[Message] = []
        with self._channel() as channel:
            for _ in range(number):
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                found.append(Message(str((properties and properties.message_id) or ""), body or b""))
        return found  # the closed channel has given them back

    def purge(self, queue: str) -> int:
        with self._channel() as channel:
            return int(channel.queue_purge(queue).method.message_count)

    def reroute(self, queue: str, target: str, text: str = "") -> int:
        """Publish each message, wait for the broker's word that it has it, then acknowledge the old one."""
        moved = 0
        with self._channel() as channel:
            channel.confirm_delivery()
            self._state(channel, target)
            for _ in range(self._state(channel, queue).messages):
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                if text.encode() not in (body or b""):
                    continue  # it goes back when the channel closes
                try:
                    channel.basic_publish("", target, body or b"", properties, mandatory=True)
                except (pika.exceptions.UnroutableError, pika.exceptions.NackError) as error:
                    raise NotFoundError(f"RabbitMQ does not take messages for {target}", state=_moved(moved)) from error
                channel.basic_ack(method.delivery_tag)
                moved += 1
        return moved


def _moved(number: int) -> str:
    return f"{number} messages were moved; no message was lost."
