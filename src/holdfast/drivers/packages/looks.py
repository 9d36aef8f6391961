"""Looks at some files of a package: whether a patch fits, whether one can be taken back, what one says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from holdfast.drivers.packages import patches, tarballs
from holdfast.model.packages import AppliedPatch, Package, Patch, PatchFit
from holdfast.system import durable
from holdfast.system.host import Host


class PackageLooks:
    """Unpacks what a look needs into a folder of its own, which is removed after it.

    A look outside of any operation is named `look-PID-...`: if it is killed, the next one removes what it left.
    """

    def __init__(self, host: Host, folder: Path, require_whole: Callable[[Package], None]) -> None:
        self._host = host
        self._folder = folder
        self._require_whole = require_whole

    def fit(self, package: Package, name: str, text: bytes, strip: int | None, run: str) -> PatchFit:
        """Return how a patch fits to a package. Raise RefusedError for what is not a patch."""
        with self._place(run) as work:

            def tree_with(paths: Sequence[str]) -> Path:
                return self._part(package, paths, work / "tree") if paths else work

            return patches.fit(self._host, name, text, strip, tree_with)

    def why_not_reverted(self, package: Package, patch: AppliedPatch, run: str) -> str:
        """Return why a patch of a package cannot be taken back; empty if it can."""
        with self._place(run) as work:
            tree = self._part(package, [*patch.paths, _inside(patch)], work / "tree")
            applied = Patch(patch.id, patch.name, patches.text_of(tree, patch), patch.strip, patch.paths)
            return patches.Patcher(self._host, tree).why_not(applied, reverse=True)

    def text(self, package: Package, patch: AppliedPatch, run: str) -> bytes:
        """Return the text of a patch of a package."""
        with self._place(run) as work:
            return patches.text_of(self._part(package, [_inside(patch)], work / "tree"), patch)

    @contextlib.contextmanager
    def _place(self, run: str) -> Iterator[Path]:
        for left in self._folder.glob("look-*-*"):
            if not Path("/proc", left.name.split("-")[1]).exists():
                durable.remove_tree(left)
        work = self._folder / run
        durable.remove_tree(work)
        durable.make_directory(work)
        try:
            yield work
        finally:
            durable.remove_tree(work)

    def _part(self, package: Package, paths: Sequence[str], tree: Path) -> Path:
        """Unpack some files of a package, and all of its links."""
        durable.remove_tree(tree)
        durable.make_directory(tree, 0o755)
        self._require_whole(package)
        tarballs.extract_package(Path(package.path) / "package.tar.zst", tree, paths)
        return tree


def _inside(patch: AppliedPatch) -> str:
    return f"{patches.FOLDER}/{patch.id}.patch"
