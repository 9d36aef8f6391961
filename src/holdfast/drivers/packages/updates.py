"""Commits and tags of a git repository that are newer than one commit; nothing is fetched.

Facts (git-for-each-ref(1)): of several sort keys the last one is the most important; `creatordate` is the tagger's of
an annotated tag, else the committer's; `symref` is empty for a reference that does not point to another one.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.errors import CommandFailedError, NotFoundError
from holdfast.model.packages import Newer, NewerTag

Git = Callable[..., str]
"""Run git in the repository with these arguments; return its output. Raise CommandFailedError."""

_NOT_STARTED = 127
_TAGS = 10
_BRANCHES = 20  # each is one more process
_FORMAT = "%(objectname)%00%(*objectname)%00%(creatordate:unix)%00%(creatordate:iso-strict)%00%(refname:lstrip=2)"


def newer(git: Git, commit: str) -> Newer:
    """Return what is newer than a commit. Raise NotFoundError where the repository does not have the commit."""
    try:
        committed_at = int(git("show", "--no-patch", "--format=%ct", "--end-of-options", f"{commit}^{{commit}}"))
    except CommandFailedError as error:
        if error.exit_code_of_command == _NOT_STARTED:
            raise
        raise NotFoundError(f"the repository does not have commit {commit[:12]}") from error
    tags = _tags(git, commit, f"--contains={commit}")
    follows = bool(tags)
    if not follows:
        tags = [(at, tag) for at, tag in _tags(git, commit) if at > committed_at]
    return Newer(tags=[tag for _, tag in tags[:_TAGS]], follows=follows, ahead=_ahead(git, commit))


def _tags(git: Git, commit: str, *only: str) -> list[tuple[int, NewerTag]]:
    """Return tags of other commits with their time in seconds, newest first; of one second by their version."""
    sorting = ("--sort=-version:refname", "--sort=-creatordate")
    listed = git("for-each-ref", *sorting, f"--format={_FORMAT}", *only, "refs/tags")
    found = []
    for line in listed.splitlines():
        itself, tagged, seconds, at, name = line.split("\0")
        # A tag without a time is the tag of a file or folder.
        if seconds and (tagged or itself) != commit:
            found.append((int(seconds), NewerTag(name, tagged or itself, at)))
    return found


def _ahead(git: Git, commit: str) -> dict[str, int]:
    places = ("refs/heads", "refs/remotes")
    options = ("--sort=-committerdate", "--format=%(symref)%00%(refname)%00%(refname:lstrip=2)", f"--contains={commit}")
    found = {}
    lines = [line.split("\0") for line in git("for-each-ref", *options, *places).splitlines()]
    for reference, name in [(reference, name) for symbolic, reference, name in lines if not symbolic][:_BRANCHES]:
        count = int(git("rev-list", "--count", f"{commit}..{reference}", "--"))
        if count:
            found[name] = count
    return found
