"""Every driver that the product has takes part in the suites: a harness that is not found would be missed by nobody."""

from __future__ import annotations

from holdfast.config import kinds
from holdfast.drivers.databases import factory as databases
from holdfast.drivers.files import factory as files
from holdfast.drivers.gates import factory as gates
from holdfast.drivers.packages import factory as packages
from holdfast.drivers.runtimes import factory as runtimes
from holdfast.drivers.vaults import factory as vaults
from tests import harnesses


def test_each_kind_has_its_harness() -> None:
    named = {name.partition("-")[0] for name in harnesses.datasets()}
    assert named == {*kinds.DATABASES, "fake", "redis", "elasticsearch"}
    assert {name.partition("-")[0] for name in harnesses.databases()} == {*kinds.DATABASES, "fake"}
    assert set(harnesses.files()) == {*files.KINDS, "fake"}
    assert set(harnesses.vaults()) == {*vaults.KINDS, "fake"}
    assert set(harnesses.gates()) == {*gates.KINDS, *gates.PROXIES, "fake"}
    assert set(harnesses.runtimes()) == {*runtimes.KINDS, "fake"}
    assert set(harnesses.packages()) == {*packages.KINDS, "fake"}


def test_what_opens_a_dataset_is_where_the_table_says() -> None:
    for kind in kinds.DATABASES:
        assert callable(databases.opener(kind, "databases.main.kind"))
