"""Filesystems in image files: mounted, shut down as by a power loss, filled up, put back to an earlier state."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.proof import patience

_PROGRAMS = ("mkfs.ext4", "mkfs.xfs", "mount", "umount", "losetup", "xfs_io")
_MAKE = {
    # No lazy initialisation: a kernel thread that writes to the image later would be no part of the test. Blocks as
    # on disks of a usual size: with smaller ones SQLite's `-shm` on a full disk ends its process with SIGBUS.
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}
_SIZE_MIB = {"ext4": 200, "xfs": 320}  # mkfs.xfs refuses less than 300 MiB
_MIB = 1 << 20


def missing() -> str | None:
    """Why loop mounts cannot be used here, or None."""
    if os.geteuid() != 0:
        return "needs root: loop mounts"
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (packages e2fsprogs, xfsprogs, mount)"
    if not Path("/dev/loop-control").exists():
        return "the kernel has no loop devices"
    return None


def _run(*argv: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, timeout=patience.limit(60), check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stderr.strip()}"
    return done.stdout.strip()


class Filesystem:
    """One filesystem of a kind (`ext4` or `xfs`) in an image below `folder`."""

    def __init__(self, folder: Path, name: str, kind: str, size_mib: int | None = None) -> None:
        self.kind = kind
        self.mountpoint = folder / name
        self._image = folder / f"{name}.image"
        self._kept = folder / f"{name}.kept"
        self.ballast = self.mountpoint / "ballast"
        self._mounted = False
        self.device: str | None = None
        self.mountpoint.mkdir()
        with open(self._image, "wb") as image:
            image.truncate((size_mib or _SIZE_MIB[kind]) * _MIB)
        _run(*_MAKE[kind], self._image)
        self._attach()

    # --- the device --------------------------------------------------------------------------------

    def _attach(self) -> None:
        self.device = _run("losetup", "--find", "--show", self._image)

    def _detach(self) -> None:
        if self.device is not None:
            _run("losetup", "--detach", self.device)
            self.device = None

    def move(self) -> None:
        """Attaches the unmounted image to another device: device numbers are not the same after every boot."""
        before = self.device
        self.device = None
        self._attach()
        assert self.device != before
        _run("losetup", "--detach", str(before))

    def keep(self) -> None:
        """Remembers the unmounted filesystem as it is."""
        assert not self._mounted
        _run("cp", "--sparse=always", self._image, self._kept)

    def put_back(self) -> None:
        """Makes the unmounted filesystem what it was at `keep`."""
        assert not self._mounted
        self._detach()
        # A file of its own: a device that others still look at is detached a moment later, and must not meet this one.
        self._image.unlink()
        _run("cp", "--sparse=always", self._kept, self._image)
        self._attach()

    # --- mounting ----------------------------------------------------------------------------------

    def mount(self) -> None:
        """Mounts it; after a shutdown the kernel replays the filesystem's own log."""
        _run("mount", "-t", self.kind, str(self.device), self.mountpoint)
        self._mounted = True

    def unmount(self) -> None:
        """Unmounts it; waits a little for processes that are just ending."""
        if not self._mounted:
            return
        deadline = patience.deadline(15)
        while True:
            done = subprocess.run(
                ["umount", str(self.mountpoint)],
                capture_output=True,
                text=True,
                timeout=patience.limit(60),
                check=False,
            )
            if done.returncode == 0:
                self._mounted = False
                self._wait_until_free(deadline)
                return
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.05)

    def _wait_until_free(self, deadline: float) -> None:
        """Wait until no other mount of the device is left.

        A container that starts has all mounts of the machine for a moment.
        """
        assert self.device is not None
        while True:
            try:
                os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL))
                return
            except OSError:
                assert time.monotonic() < deadline, f"{self.device} stays in use"
                time.sleep(0.02)

    def remove(self) -> None:
        if self._mounted:
            try:
                self.unmount()
            except AssertionError:
                subprocess.run(["umount", "--lazy", str(self.mountpoint)], check=False, timeout=patience.limit(60))
        self._detach()
        self._image.unlink(missing_ok=True)
        self._kept.unlink(missing_ok=True)

    # --- space -------------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        found = os.statvfs(self.mountpoint)
        return found.f_bavail * found.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Takes the space with a ballast file; leaves about `leave_bytes`."""
        fill(self.ballast, leave_bytes)

    def release(self) -> None:
        """Frees the ballast."""
        self.ballast.unlink(missing_ok=True)


def shut_down(mountpoint: str | Path) -> None:
    """From now on nothing reaches the disk, and what was not flushed never will: to the disk a power loss."""
    _run("xfs_io", "-x", "-c", "shutdown", mountpoint)


def fill(ballast: Path, leave_bytes: int = 0) -> None:
    """Writes a file until about `leave_bytes` are left on its filesystem."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        step = 1 << 22
        while step >= 4096:
            found = os.statvfs(ballast)
            if found.f_bavail * found.f_frsize - leave_bytes < step:
                step //= 2
                continue
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
            except OSError:  # the last blocks go into the file's own map
                step //= 2
    finally:
        os.close(descriptor)
