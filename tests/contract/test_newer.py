"""What is newer than a commit, by real repositories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.errors import CommandFailedError
from holdfast.system.host import Host
from tests.contract.test_packages import commit, git


@dataclass
class Copy:
    """A repository and a clone of it that packages are built from."""

    upstream: Path
    packages: ArchivePackages
    first: str

    def names(self) -> list[str]:
        return [tag.name for tag in self.packages.newer(self.first).tags]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "--initial-branch=main")
    first = commit(upstream, {"a": "1"}, "one")
    git(upstream, "tag", "v1")
    git(upstream, "clone", "--quiet", str(upstream), str(tmp_path / "clone"))
    return Copy(upstream, ArchivePackages(tmp_path / "packages", tmp_path / "clone", Host()), first)


def test_nothing_is_known_before_it_is_fetched(copy: Copy) -> None:
    second = commit(copy.upstream, {"a": "2"}, "two")
    git(copy.upstream, "tag", "--annotate", "--message=two", "v2")
    before = copy.packages.newer(copy.first)
    assert (before.tags, before.ahead) == ([], {})
    copy.packages.fetch()
    found = copy.packages.newer(copy.first)
    assert [(tag.name, tag.commit) for tag in found.tags] == [("v2", second)], "the commit, not the tag's own object"
    assert found.follows
    assert found.ahead == {"origin/main": 1}, "and origin/HEAD is none of its own"


def test_a_commit_precedes_those_that_contain_it(copy: Copy) -> None:
    second = commit(copy.upstream, {"a": "2"}, "two")
    assert not copy.packages.precedes(copy.first, second), "which is not known here yet"
    copy.packages.fetch()
    assert copy.packages.precedes(copy.first, second)
    assert not copy.packages.precedes(second, copy.first)
    assert not copy.packages.precedes(second, second)


def test_ten_tags_at_most_and_the_newest_first(copy: Copy) -> None:
    for number in range(2, 14):
        commit(copy.upstream, {"a": str(number)}, str(number))
        git(copy.upstream, "tag", f"v{number}")
    copy.packages.fetch()
    assert copy.names() == [f"v{number}" for number in range(13, 3, -1)]


def test_tags_of_another_history_are_told_where_none_follows(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    git(copy.upstream, "checkout", "--quiet", "--orphan", "other")
    for name, date in (("older", "2001-01-01T00:00:00Z"), ("later", "2037-01-01T00:00:00Z")):
        monkeypatch.setenv("GIT_COMMITTER_DATE", date)
        commit(copy.upstream, {"a": name}, name)
        git(copy.upstream, "tag", name)
    copy.packages.fetch()
    assert copy.names() == ["later"]
    assert not copy.packages.newer(copy.first).follows


def test_a_fetch_that_fails_raises_and_leaves_what_is_known(copy: Copy) -> None:
    copy.upstream.rename(copy.upstream.with_name("away"))
    with pytest.raises(CommandFailedError):
        copy.packages.fetch()
    assert copy.packages.newer(copy.first).tags == []
