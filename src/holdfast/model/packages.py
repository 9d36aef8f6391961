"""Packages, their patches, and what a registry and git say of them. This module does no I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

PATCHED = "+p"
"""What comes between the name of a package and the digest of its patches."""
RESERVED_NAMES = ("tmp",)
"""Names that no package may have, because its folder could not have them."""


class AppliedPatch(msgspec.Struct, frozen=True):
    """A patch that was applied to a package; `id` is the SHA-256 of its text, `paths` are the files that it changes."""

    id: str
    name: str
    strip: int
    applied_at: str
    paths: tuple[str, ...] = ()


class Patch(msgspec.Struct, frozen=True):
    """The text of a patch, and how many leading parts of its paths are cut (`patch -p`)."""

    id: str
    name: str
    text: bytes
    strip: int
    paths: tuple[str, ...] = ()


class PatchFit(msgspec.Struct, frozen=True):
    """A patch, and whether a tree has its changes already; `why_not` is empty if it applies."""

    patch: Patch
    contained: bool = False
    why_not: str = ""


class Package(msgspec.Struct, frozen=True):
    """An immutable build. `id` is its tag, or `<label>-<commit12>`; `digest` is the SHA-256 of the archive."""

    id: str
    label: str
    commit: str
    digest: str
    size_bytes: int
    built_at: str
    path: str
    format: int = 1
    unpacked_bytes: int = 0
    """What its files take in a release; 0 if that was not counted."""
    content: str = ""
    """The SHA-256 of the unpacked archive, which is the same for each build of a commit; empty if not known."""
    note: str = ""
    """The text that `package list` shows as its label."""
    committed_at: int = 0
    """The time of the git commit, in seconds."""
    patches: tuple[AppliedPatch, ...] = ()
    """The patches that were applied to it after it was built, in their order."""
    recipe: str = ""
    """A digest of the commands that built it."""


class StoredImage(msgspec.Struct, frozen=True):
    """The image of one service in a registry: the project's own name for it, and its repository with its digest there.

    `built`: the project builds it.
    """

    name: str
    reference: str
    built: bool = True


class StoredPackage(msgspec.Struct, frozen=True):
    """A package in a registry: its name there, the digest of its manifest, and what the manifest announces."""

    name: str
    manifest: str
    package: Package
    pushed_at: str
    application: str
    configuration: str = ""
    """The text of the release's own holdfast.toml."""
    images: Mapping[str, StoredImage] = {}
    """The images of a Compose project, each by its service."""


class EnvironmentUse(msgspec.Struct, frozen=True):
    """The packages that one environment runs or may go back to, as it recorded them in a registry."""

    environment: str
    key: str
    recorded_at: str
    current: str = ""
    packages: tuple[str, ...] = ()


class NewerTag(msgspec.Struct, frozen=True):
    name: str
    commit: str
    created_at: str


class Newer(msgspec.Struct, frozen=True):
    """What a repository has beyond a commit: tags, newest first, and by how many commits branches are ahead."""

    tags: list[NewerTag]
    follows: bool
    """Whether the tags' commits have the commit as an ancestor; if not, they were only made later."""
    ahead: dict[str, int]
