"""Queues of each product: a look takes nothing, a purge takes all, and a move loses nothing, whatever ends it."""

from __future__ import annotations

import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import pytest
import redis

from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.drivers.protocols.queues import Queues
from holdfast.drivers.queues.rabbitmq import RabbitQueues
from holdfast.drivers.queues.redis_lists import RedisLists
from holdfast.drivers.queues.table import TableQueues
from holdfast.errors import NotFoundError, RefusedError, StepError
from tests.harnesses import redis as redis_harness
from tests.proof import patience
from tests.servers import rabbitmq

STATEMENTS = {
    "count": "SELECT queue, count(*) FROM message GROUP BY queue ORDER BY queue",
    "peek": "SELECT id, body FROM message WHERE queue = {queue} ORDER BY id LIMIT 100",
    "purge": "DELETE FROM message WHERE queue = {queue}",
    "reroute": "UPDATE message SET queue = {target} WHERE queue = {queue}",
}


class Broker:
    """Two queues, `a` and `b`, and how an application writes into one of them."""

    queues: Queues
    a: str
    b: str

    def put(self, *bodies: str) -> None:
        raise NotImplementedError

    def bodies(self, queue: str) -> list[str]:
        return [message.body.decode() for message in self.queues.peek(queue, 5000)]

    def count(self, queue: str) -> int:
        """A broker may count what was given back a moment later."""
        return {state.name: state.messages for state in self.queues.states()}.get(queue, 0)


class Rabbit(Broker):
    def __init__(self) -> None:
        self.url = rabbitmq.server().url
        self.a, self.b = (f"{name}-{secrets.token_hex(4)}" for name in "ab")
        self.queues = RabbitQueues(self.url, [self.a, self.b])
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            channel = connection.channel()
            for name in (self.a, self.b):
                channel.queue_declare(name, durable=True)

    def put(self, *bodies: str) -> None:
        with closing(pika.BlockingConnection(pika.URLParameters(self.url))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", self.a, body.encode(), pika.BasicProperties(message_id=body[:20]))


class Redis(Broker):
    def __init__(self) -> None:
        self.url = f"unix://{redis_harness._server()}?db=9"
        self.a, self.b = (f"{name}-{secrets.token_hex(4)}" for name in "ab")
        self.queues = RedisLists(self.url, [self.a, self.b])

    def put(self, *bodies: str) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.lpush(self.a, *bodies)


class Table(Broker):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.sqlite3"
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, queue TEXT, body TEXT)")
        self.a, self.b = "it's a", "b"
        self.queues = TableQueues(SqliteDatabase("main", self.path), STATEMENTS)

    def put(self, *bodies: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            rows = [(self.a, body) for body in bodies]
            connection.executemany("INSERT INTO message (queue, body) VALUES (?, ?)", rows)


@pytest.fixture(params=["rabbitmq", "redis", "table"])
def broker(request: pytest.FixtureRequest, folder: Path) -> Iterator[Broker]:
    yield {"rabbitmq": Rabbit, "redis": Redis, "table": lambda: Table(folder)}[request.param]()


def test_a_look_shows_the_oldest_first_and_takes_nothing(broker: Broker) -> None:
    broker.put("first", "second", "third")
    assert broker.count(broker.a) == 3
    for _ in range(3):
        assert [message.body for message in broker.queues.peek(broker.a, 2)] == [b"first", b"second"]
    assert broker.bodies(broker.a) == ["first", "second", "third"]
    assert broker.bodies(broker.b) == []
    patience.until(lambda: broker.count(broker.a) == 3)


def test_a_purge_takes_all_of_one_queue(broker: Broker) -> None:
    broker.put("first", "second")
    assert broker.queues.purge(broker.b) == 0
    assert broker.queues.purge(broker.a) == 2
    assert (broker.count(broker.a), broker.bodies(broker.a)) == (0, [])


def test_messages_are_moved_in_their_order(broker: Broker) -> None:
    broker.put(*(f"message {number}" for number in range(20)))
    assert broker.queues.reroute(broker.a, broker.b) == 20
    assert broker.bodies(broker.b) == [f"message {number}" for number in range(20)]
    assert broker.bodies(broker.a) == []


def test_only_those_with_a_text_are_moved(broker: Broker) -> None:
    broker.put("order.created 1", "mail 1", "order.created 2", "mail 2")
    if isinstance(broker, Table):
        with pytest.raises(RefusedError, match="--filter"):
            broker.queues.reroute(broker.a, broker.b, "order")
        return
    assert broker.queues.reroute(broker.a, broker.b, "order.created") == 2
    assert broker.bodies(broker.b) == ["order.created 1", "order.created 2"]
    patience.until(lambda: broker.count(broker.a) == 2)
    assert broker.bodies(broker.a) == ["mail 1", "mail 2"]


_MOVES = """
import sys
from holdfast.drivers.queues.{module} import {name}
print("begins", flush=True)
{name}(sys.argv[1], sys.argv[2:]).reroute(*sys.argv[2:])
"""


@pytest.mark.parametrize("broker", ["rabbitmq", "redis"], indirect=True)
def test_a_kill_in_the_middle_of_a_move_loses_nothing(broker: Broker) -> None:
    assert isinstance(broker, Rabbit | Redis)
    every = {f"message {number:05}" for number in range(3000)}
    broker.put(*sorted(every))
    module, name = ("rabbitmq", "RabbitQueues") if isinstance(broker, Rabbit) else ("redis_lists", "RedisLists")
    argv = [sys.executable, "-c", _MOVES.format(module=module, name=name), broker.url, broker.a, broker.b]
    child = subprocess.Popen(argv)
    deadline = time.monotonic() + patience.limit(60)
    while broker.count(broker.b) < 20 and child.poll() is None:
        assert time.monotonic() < deadline
    child.send_signal(signal.SIGKILL)
    child.wait()
    patience.until(lambda: broker.count(broker.a) + broker.count(broker.b) >= len(every))
    left, moved = broker.bodies(broker.a), broker.bodies(broker.b)
    assert {*left, *moved} == every
    assert len(left) + len(moved) <= len(every) + (1 if isinstance(broker, Rabbit) else 0)
    broker.queues.reroute(broker.a, broker.b)
    assert {*broker.bodies(broker.b)} == every


def test_a_queue_that_does_not_exist_takes_no_message() -> None:
    broker = Rabbit()
    broker.put("first")
    with pytest.raises((NotFoundError, StepError)):
        broker.queues.reroute(broker.a, "nobody")
    assert broker.bodies(broker.a) == ["first"]


def test_a_broker_that_is_gone_is_named_without_its_password() -> None:
    for queues in (
        RabbitQueues("amqp://user:S3cr3t@127.0.0.1:1/", ["a"]),
        RedisLists("redis://:S3cr3t@127.0.0.1:1/0", ["a"]),
    ):
        with pytest.raises(StepError) as caught:
            queues.states()
        assert "cannot be reached" in str(caught.value) and "S3cr3t" not in str(caught.value)
