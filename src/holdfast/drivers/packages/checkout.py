"""The files of a commit with those of its submodules, and without pointers in place of large files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import CommandFailedError, RefusedError
from holdfast.system import durable
from holdfast.system.host import Host

_LFS_FILTER = "filter=lfs"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
_GIT_LINK = "160000"


def archive_command(commit: str, target: Path) -> list[str]:
    return ["git", "archive", "--format=tar", f"--output={target}", commit]


@dataclass(frozen=True)
class Checkout:
    """The way in which the files of commits are written: where to, and what unpacks them."""

    host: Host
    tree: Path
    extract: Callable[[Path, Path], None]
    timeout_seconds: float

    def write(self, repository: Path, commit: str) -> None:
        """Write the files of a commit.

        Raise RefusedError where a submodule or a large file was never fetched: the release would lack files.
        """
        self._write(repository, commit, inside="")
        _refuse_pointers(self.tree)

    def _write(self, repository: Path, commit: str, *, inside: str) -> None:
        archive = self.tree.with_name("source.tar")
        self.host.run(archive_command(commit, archive), cwd=repository, timeout_seconds=self.timeout_seconds)
        target = self.tree / inside
        self.extract(archive, target)
        archive.unlink()
        if not (target / ".gitmodules").is_file():
            return
        for path, wanted in _links(self.host, repository, commit):
            module = _folder_of(self.host, repository, target, path, wanted)
            place = f"{inside}/{path}".lstrip("/")
            if module is None:
                raise RefusedError(
                    f"the submodule {place} was not fetched, so the release would lack its files",
                    next_step=f"git -C {repository} submodule update --init --recursive",
                )
            durable.make_directory(self.tree / place, 0o755)
            self._write(module, wanted, inside=place)


def _links(host: Host, repository: Path, commit: str) -> list[tuple[str, str]]:
    """Return the path of each submodule and the commit that is wanted of it."""
    found = []
    listed = host.capture(["git", "-C", str(repository), "ls-tree", "-r", "-z", commit])
    for line in filter(None, listed.split("\0")):
        facts, _, path = line.partition("\t")
        mode, _, wanted = facts.split()
        if mode == _GIT_LINK:
            found.append((path, wanted))
    return found


def _folder_of(host: Host, repository: Path, tree: Path, path: str, wanted: str) -> Path | None:
    """Return the git folder that has a commit of a submodule, by its name in .gitmodules; None if none has it."""
    git = ["git", "config", "--file", str(tree / ".gitmodules"), "--null", "--get-regexp", r"^submodule\..*\.path$"]
    names = [
        key.removeprefix("submodule.").removesuffix(".path")
        for key, _, value in (entry.partition("\n") for entry in host.capture(git).split("\0"))
        if value == path
    ]
    common = host.capture(["git", "-C", str(repository), "rev-parse", "--git-common-dir"]).strip()
    folders = [Path(repository, common, "modules", name) for name in names if ".." not in name.split("/")]
    for folder in (*folders, repository / path):
        if (folder / "HEAD").is_file() or (folder / ".git").exists():
            try:
                host.capture(["git", "-C", str(folder), "cat-file", "-e", f"{wanted}^{{commit}}"])
            except CommandFailedError:
                continue
            return folder
    return None


def _refuse_pointers(tree: Path) -> None:
    """Raise RefusedError where the content of a large file is a pointer of Git LFS."""
    if not any(_LFS_FILTER in path.read_text(errors="replace") for path in tree.rglob(".gitattributes")):
        return
    pointers = []
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _POINTER_BYTES:
            with open(path, "rb") as file:
                if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                    pointers.append(str(path.relative_to(tree)))
    if pointers:
        others = f" and {len(pointers) - 1} other files" if len(pointers) > 1 else ""
        raise RefusedError(
            f"{min(pointers)}{others} are pointers of Git LFS, and their content was not fetched",
            next_step="Install git-lfs, run `git lfs install` and `git lfs fetch --all` in the repository, and try"
            " again.",
        )
