"""`queue list | peek | purge | reroute` on a site with queues in Redis and in its own database."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator

import pytest
import redis

from tests import kept
from tests.e2e.cli import argv, run, run_json, succeed
from tests.harnesses import redis as redis_harness
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        url = f"unix://{redis_harness._server()}?db=10"
        (lent.folder / "url").write_text(url)
        lent.config.with_name("holdfast.prod.toml").write_text(
            f'[queues.redis]\nkind = "redis"\nurl = "file:{lent.folder / "url"}"\nnames = ["default", "failed"]\n'
            '[queues.own]\nkind = "table"\ndatabase = "main"\n'
            'count = "SELECT author, count(*) FROM entries GROUP BY author"\n'
            'peek = "SELECT id, text FROM entries WHERE author = {queue} ORDER BY id LIMIT 10"\n'
        )
        with redis.Redis.from_url(url) as client:
            client.flushdb()
            client.lpush("failed", "first", "second with S3cr3t")
        yield lent


def test_queues_are_listed_looked_at_and_moved(site: Site) -> None:
    listed = run_json(site, "queue", "list")["data"]["queues"]
    assert {(one["broker"], one["name"], one["messages"]) for one in listed} >= {
        ("redis", "default", 0),
        ("redis", "failed", 2),
    }
    assert any(one["broker"] == "own" for one in listed)
    assert "first" not in succeed(site, "queue", "peek", "failed")
    assert "first" in succeed(site, "queue:messages", "failed", "--payload")
    succeed(site, "queue", "reroute", "failed", "default", "--filter", "first")
    assert [one["messages"] for one in run_json(site, "queue", "list", "--broker", "redis")["data"]["queues"]] == [1, 1]
    for words in (("peek", "no"), ("purge", "no"), ("reroute", "failed", "no"), ("list", "--broker", "no")):
        assert run(site, "queue", *words).returncode == 4, words
    author = next(one["name"] for one in listed if one["broker"] == "own")
    assert run(site, "queue", "purge", author).returncode == 4, "no statement is configured for it"


def test_a_purge_asks_and_the_answer_is_no(site: Site) -> None:
    ours, theirs = pty.openpty()
    words = [word for word in argv(site, "queue", "purge", "failed") if word != "--yes"]
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"\n")
    assert process.wait(patience.limit(60)) == 130
    os.close(ours)
    assert b"2 messages of failed would be lost" in shown
    assert run(site, "queue", "list", "--broker", "redis").stdout.count("2") == 1
    assert "2 messages removed" in succeed(site, "queue", "purge", "failed")
