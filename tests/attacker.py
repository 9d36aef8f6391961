"""A tree of another account, and its owner, who swaps its folders for links at every moment."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.drivers.files.local import LocalFiles
from tests.proof import patience

SECRET = b"for root alone"
ATTACKER = """
import ctypes, os, shutil, sys

tree, outside, every = sys.argv[1], sys.argv[2], int(sys.argv[4])
moves = open(sys.argv[3]).read()
libc = ctypes.CDLL(None)
os.chdir(tree)
os.setgroups([]); os.setgid(65534); os.setuid(65534)

def exchange(one, other):  # renameat2(2), RENAME_EXCHANGE
    libc.renameat2(-100, one.encode(), -100, other.encode(), 2)

def swapped(name, target):
    link = name + ".link"
    try:
        os.symlink(target, link)
    except OSError:
        pass
    exchange(name, link)
    exchange(name, link)

n = 0
while True:
    n += 1
    swapped("d", outside)
    swapped("d/deep", outside)
    swapped("d/deep/f1", outside + "/shadow")
    try:
        for token in os.listdir(".holdfast") if n % 3 == 0 else ():
            pass
    except OSError:  # it is Holdfast's alone
        pass
    if n % every == 0:
        try:
            os.rename(".holdfast", ".taken%d" % n)
            if n // every % 2:
                os.symlink(outside, ".holdfast")
            else:
                os.makedirs(".holdfast/op/stage"); os.makedirs(".holdfast/op/aside")
                open(".holdfast/op/moves.jsonl", "w").write(moves)
            os.rename(".holdfast", ".forged")
            os.rename(".taken%d" % n, ".holdfast")
        except OSError:
            pass
        for name in os.listdir("."):
            if name.startswith((".forged", ".taken")):
                try:
                    os.unlink(name) if os.path.islink(name) else shutil.rmtree(name, ignore_errors=True)
                except OSError:  # Holdfast has moved it
                    pass
"""


class Ground:
    def __init__(self, folder: Path) -> None:
        self.tree = folder / "media"
        self.outside = folder / "outside"
        self.records = folder / "records"
        self.outside.mkdir()
        self.outside.chmod(0o755)
        (self.outside / "shadow").write_bytes(SECRET)
        (self.outside / "shadow").chmod(0o600)
        (self.outside / "f1").write_bytes(SECRET)
        (self.outside / "f1").chmod(0o644)
        self.records.mkdir()
        (self.tree / "d" / "deep").mkdir(parents=True)
        for number in range(12):
            (self.tree / "d" / "deep" / f"f{number}").write_bytes(b"mine %d" % number)
            (self.tree / "d" / f"g{number}").write_bytes(b"mine too")
        for path in (self.tree, *self.tree.rglob("*")):
            os.chown(path, 65534, 65534)
        folder.chmod(0o755)
        for above in folder.parents:
            if above.stat().st_uid == 0 and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        self.before = self.look_outside()

    def look_outside(self) -> dict[str, tuple[int, int, int, bytes]]:
        found = {}
        for path in (self.outside, *sorted(self.outside.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    def files(self) -> LocalFiles:
        return LocalFiles("media", self.tree, records=self.records)


@contextmanager
def attacking(ground: Ground, folder: Path, *, every: int = 5) -> Iterator[subprocess.Popen[bytes]]:
    """Have a process with the rights of the tree's owner do what it can, as long as the block runs.

    In each of so many turns it takes Holdfast's own folder away as well.
    """
    forged = folder / "moves"
    up = "../" * 12
    mode = {"mode": "666", "uid": 65534, "gid": 65534, "mtime_ns": 0, "xattrs": {}}
    lines = [
        {"do": "metadata", "path": f"{up}{str(ground.outside)[1:]}/shadow", "old": mode, "new": mode, "symlink": False},
        {"do": "aside", "path": f"{up}{str(ground.outside)[1:]}/shadow", "n": 1},
    ]
    forged.write_text("".join(json.dumps(line) + "\n" for line in lines))
    forged.chmod(0o644)
    folder.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-c", ATTACKER, str(ground.tree), str(ground.outside), str(forged), str(every)]
    )
    yield process
    assert process.poll() is None, "the attacker has to be there all the time"
    process.send_signal(signal.SIGKILL)
    process.wait(patience.limit(30))
