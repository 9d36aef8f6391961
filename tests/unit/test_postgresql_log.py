"""What a restore point by PostgreSQL's log is decided by, without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from holdfast.containers.docker import Engine
from holdfast.drivers.databases.postgresql import data_volume, log_points, log_slot
from holdfast.drivers.databases.postgresql.data_volume import DataVolume, Found
from holdfast.drivers.databases.sql.container_exec import Container
from holdfast.system.host import Host

DATA = "/var/lib/postgresql/data"


def test_segments_of_the_log_are_named_across_the_ends_of_its_files() -> None:
    assert log_points._names("0000000300000001000000FE", "000000030000000200000001", 16 << 20) == [
        "0000000300000001000000FE",
        "0000000300000001000000FF",
        "000000030000000200000000",
        "000000030000000200000001",
    ]
    assert log_points._names("000000010000000000000003", "000000010000000100000000", 1 << 30) == [
        "000000010000000000000003",
        "000000010000000100000000",
    ]


def test_the_log_never_takes_all_of_the_disk() -> None:
    for data in (1 << 20, 1 << 30, 40 << 30):
        for more in (0, 1 << 30, 100 << 30):
            free = log_slot.needed_bytes(data) + more
            kept = log_slot.kept_bytes(free, data)
            assert kept >= min(log_slot.LEAST_KEPT_BYTES, log_slot.MOST_KEPT_BYTES)
            assert data + 2 * kept < free


def _mount(place: str, kind: str = "volume", *, writable: bool = True) -> dict[str, Any]:
    return {"Type": kind, "Destination": place, "RW": writable}


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"Mounts": [_mount(DATA)]}, ""),
        ({"Mounts": [_mount("/var/lib/postgresql", "bind"), _mount("/etc/passwd", "bind", writable=False)]}, ""),
        ({"Mounts": [_mount(DATA), _mount(f"{DATA}/postgresql.conf", "bind"), _mount(f"{DATA}/pg_log")]}, ""),
        ({"Mounts": [_mount(DATA), _mount(f"{DATA}/pg_hba.conf", "bind")]}, ""),
        ({"Mounts": [_mount(DATA)], "HostConfig": {"AutoRemove": True}}, "is removed when it stops"),
        ({"Mounts": []}, "in no volume"),
        ({"Mounts": [_mount("/var/lib/postgres")]}, "in no volume"),
        ({"Mounts": [_mount(DATA, "tmpfs")]}, "in no volume"),
        ({"Mounts": [_mount(DATA, writable=False)]}, "in no volume"),
        ({"Mounts": [_mount(DATA), _mount(f"{DATA}/pg_wal")]}, "pg_wal of the data directory is a mount of its own"),
        ({"Mounts": [_mount(DATA), _mount(f"{DATA}/base/5")]}, "base/5 of the data directory is a mount of its own"),
    ],
)
def test_a_data_directory_that_cannot_be_exchanged_says_why(
    known: Mapping[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"Id": "1", "HostConfig": {}, **known}
    monkeypatch.setattr(Engine, "inspected", lambda *_: [found])
    volume = DataVolume("main", Container("docker", lambda: "box"), Host())
    assert why in volume.why_not(DATA) and bool(why) == bool(volume.why_not(DATA))


def test_an_exchange_is_unfinished_until_it_says_that_it_is_done() -> None:
    for state, unfinished in (("", False), ("out new old", True), ("in new old", True), ("done new old", False)):
        found = Found(DATA, "1:1", "", "1.p", "1", state, recovered=True, present="")
        assert found.unfinished == unfinished


def test_the_scripts_leave_out_what_is_no_data_of_the_server() -> None:
    kept = data_volume._PARTS
    assert all(kept.match(name) for name in ("base", "global", "pg_wal", "pg_xact/0000", "base/1/2"))
    assert not any(kept.match(name) for name in ("pg_hba.conf", "pg_ident.conf", "pg_log", "log", "certificates"))
