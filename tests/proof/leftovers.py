"""Nothing is left behind: folders, processes, mounts, loop devices and shared memory of a run are found and removed.

A run has two folders of its own, one in memory and one on a disk, in which everything that its tests make lies. Its
processes are known by the control group that they were started in, or by a variable of the run in their environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests import memory

_VARIABLE = "HOLDFAST_TESTS_RUN"
_SECONDS = 20


class Run:
    """One run of the tests, also in the processes that it spreads over."""

    def __init__(self) -> None:
        self.is_first = _VARIABLE not in os.environ
        if self.is_first:
            os.environ[_VARIABLE] = str(os.getpid())
            os.environ["TESTS_MEMORY"] = tempfile.mkdtemp(prefix="hf", dir=memory.MEMORY)
            os.environ["TESTS_DISK"] = tempfile.mkdtemp(prefix="hf")
        self.id = os.environ[_VARIABLE]
        self.folders = [Path(os.environ["TESTS_MEMORY"]), Path(os.environ["TESTS_DISK"])]
        for folder in self.folders:
            folder.chmod(0o711)  # servers have accounts of their own, and pass through
        memory.MEMORY = str(self.folders[0])
        tempfile.tempdir = str(self.folders[1])

    def clean(self) -> list[str]:
        """Remove what is left, and say what it was; folders that only hold files are not worth a word."""
        found = [f"process {pid}: {command}" for pid, command in self._end_processes()]
        found += [f"mount {place}" for place in self._unmount()]
        found += [f"loop device {device}" for device in self._detach()]
        found += [f"shared memory {number}" for number in self._remove_segments()]
        self._remove_groups()
        for folder in self.folders:
            memory.remove_folder(folder)
        return found

    # --- processes ---------------------------------------------------------------------------------

    def _end_processes(self) -> list[tuple[int, str]]:
        ended: dict[int, str] = {}
        deadline = time.monotonic() + _SECONDS
        while (left := dict(self._processes())) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            ended |= left
            time.sleep(0.05)
        return list(ended.items())

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Yield living processes of this run but this one."""
        variable = f"{_VARIABLE}={self.id}".encode()
        for path in Path("/proc").iterdir():
            if not path.name.isdigit() or int(path.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if not command:  # a zombie, or a thread of the kernel
                    continue
                in_group = f"/holdfast-tests-{self.id}-" in (path / "cgroup").read_text()
                if in_group or variable in (path / "environ").read_bytes().split(b"\0"):
                    yield int(path.name), command[:100]

    # --- what only root has ------------------------------------------------------------------------

    def _unmount(self) -> list[str]:
        places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        ours = [place for place in places if any(place.startswith(f"{folder}/") for folder in self.folders)]
        for place in reversed(ours):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        return ours

    def _detach(self) -> list[str]:
        if os.geteuid() != 0 or shutil.which("losetup") is None:
            return []
        arguments = ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]
        listed = subprocess.run(arguments, capture_output=True, text=True, check=False).stdout.splitlines()
        ours = [line.split()[0] for line in listed if any(f" {folder}/" in line for folder in self.folders)]
        for device in ours:
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
        return ours

    def _remove_segments(self) -> list[str]:
        """Remove those of PostgreSQL servers that were killed: each names its own in its folder."""
        numbers = set()
        for folder in self.folders:
            for path in folder.rglob("postmaster.pid"):
                with contextlib.suppress(OSError):
                    lines = path.read_text().splitlines()
                    numbers |= {lines[6].split()[1]} if len(lines) > 6 and lines[6].strip() else set()
        return [
            number
            for number in sorted(numbers)
            if subprocess.run(["ipcrm", "-m", number], check=False, capture_output=True).returncode == 0
        ]

    def _remove_groups(self) -> None:
        """Remove the control groups that its processes were in, which ended after their own last words."""
        for root in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")):
            for group in root.glob(f"holdfast-tests-{self.id}-*"):
                for folder in (*sorted(group.rglob("*/"), reverse=True), group):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
