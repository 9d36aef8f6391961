"""A project's own commands that build its images; their success is judged by the images (decision 0015)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.drivers.packages.images.names import ImageNames, exact, repository_of
from holdfast.errors import StepError
from holdfast.system import durable
from holdfast.system.host import Host

_NAMES = "repositories.json"


class _Noted(msgspec.Struct):
    """The names that images had before the commands ran, and the repositories in which the commands may make more."""

    repositories: list[str]
    names: dict[str, str]


@dataclass(frozen=True)
class BuildScript:
    """Commands that run one after the other in a tree of the sources, a git checkout of `repository`."""

    commands: Sequence[Sequence[str]]
    repository: Path
    prefix: str
    """The label that distinguishes images begun here, for one application in one environment."""

    def run(
        self,
        names: Iterable[str],
        tree: Path,
        commit: str,
        image_names: ImageNames,
        host: Host,
        environment: Mapping[str, str],
        timeout_seconds: float,
    ) -> dict[str, str]:
        """Build, and return all names that the commands gave to images, with their ids.

        The facts that are needed to restore the names are written next to the tree before. Raise StepError where none
        of `names` was made, and what Host.run raises.
        """
        names = [exact(name) for name in names]
        repositories = sorted({repository_of(name) for name in names})
        before = image_names.below(repositories)
        noted = _Noted(repositories, before)
        durable.write_file(tree.parent / _NAMES, json.dumps(msgspec.to_builtins(noted), indent=1))
        self._make_checkout(tree, commit, host)
        present = {name: id for name, id in image_names.tagged(names).items() if id}
        stand_ins = {name: image_names.stand_in(name, self.prefix) for name in present}
        for command in self.commands:
            host.run(command, cwd=tree, environment=environment, timeout_seconds=timeout_seconds)
        after = image_names.below(repositories)
        made = {name: id for name, id in image_names.tagged(names).items() if id and id != stand_ins.get(name)}
        if not made:
            last = self.commands[-1][0]
            raise StepError(f"{last} ended without an error, but made none of the project's images: {', '.join(names)}")
        changed = {name: id for name, id in after.items() if id not in (before.get(name), stand_ins.get(name))}
        return {**changed, **made}

    def give_back(self, work: Path, image_names: ImageNames) -> None:
        """Restore the names to their images from before. Idempotent, also after a kill in the middle of `run`."""
        if not (work / _NAMES).exists():
            return
        noted = msgspec.json.decode((work / _NAMES).read_bytes(), type=_Noted)
        new = dict.fromkeys(image_names.below(noted.repositories), "")
        image_names.tag({**new, **noted.names})
        image_names.remove_stand_ins(self.prefix)

    def _make_checkout(self, tree: Path, commit: str, host: Host) -> None:
        """Make the tree a git checkout, because such scripts ask git for the version.

        Objects and tags are those of the repository, `HEAD` is the commit.
        """
        clone = tree.parent / "clone"
        git = ["git", "-C", str(tree)]
        host.run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(self.repository), str(clone)])
        durable.move(clone / ".git", tree / ".git")
        host.run([*git, "update-ref", "--no-deref", "HEAD", commit])
        host.run([*git, "read-tree", "HEAD"])
