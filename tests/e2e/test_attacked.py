"""Whole commands of root over a tree whose owner swaps folders for links: nothing goes out, nothing comes in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacker import SECRET, Ground, attacking
from tests.e2e.cli import run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root works in others' trees: run as root"),
]
_ROUNDS = {"everything": 50}
_FEW_ROUNDS = 4
_SELDOM = 1000  # turns of some hundredths of a millisecond: most commands meet Holdfast's folder as it should be
_MIGRATE = """
import pathlib, shutil, sys
media = pathlib.Path(sys.argv[1])
for path in (media / "d" / "g1", media / "d" / "deep" / "f2"):
    try:
        path.unlink()
    except OSError:
        pass
sys.exit(1)
"""


class Application:
    """One with files alone, whose next version harms them and then fails."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder = folder
        self.vault = folder / "vault"
        self.config = folder / "holdfast.toml"
        repository = folder / "repository"
        repository.mkdir()
        self.config.write_text(f"""
[application]
name = "attacked"
environment = "test"
state = "{folder}/state"
[source]
repository = "{repository}"
[files.media]
path = "{tree}"
[vaults.local]
kind = "local"
path = "{self.vault}"
[backup]
consistency = "live"
""")
        (repository / "file").write_text("one")
        self._git("init", "-q", "-b", "main")
        self._commit("v1")
        (repository / "holdfast.toml").write_text(f'[tasks]\nmigrate = ["python3", "migrate.py", "{tree}"]\n')
        (repository / "migrate.py").write_text(_MIGRATE)
        self._commit("v2")

    def _git(self, *arguments: str) -> None:
        command = [
            "git",
            "-C",
            str(self.folder / "repository"),
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            *arguments,
        ]
        subprocess.run(command, check=True, capture_output=True)

    def _commit(self, version: str) -> None:
        self._git("add", "-A")
        self._git("commit", "-qm", version)
        self._git("tag", version)

    def holds(self, content: bytes) -> bool:
        """Tell whether a content is in the vault: small files lie in packs as they are."""
        return any(content in path.read_bytes() for path in self.vault.rglob("*") if path.is_file())


def test_commands_of_root_neither_take_nor_change_what_is_outside(
    folder: Path, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    ground = Ground(folder)
    application = Application(folder, ground.tree)
    done = run(application, "install", "v1")
    assert done.returncode == 0, done.stdout + done.stderr
    archive = application.folder / "media.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(_text(application.folder / "imported"), "d/deep/imported", filter=_of_nobody)
    commands = {
        "create": ("backup", "create"),
        "import": ("import", "files", str(archive), "--into", "media"),
        "undo": ("upgrade", "v2"),
        "restore": ("backup", "restore", "latest"),
        "part": ("backup", "restore", "latest", "--path", "media/d/deep", "--path", "media/d/g1"),
    }
    ends: Counter[str] = Counter()
    rounds = _ROUNDS.get(str(request.config.getoption("--proof")), _FEW_ROUNDS)
    owner = (ground.tree / ".holdfast" / "owner.json").read_text()
    with attacking(ground, folder, every=_SELDOM) as attacker:
        _try(application, ground, commands, rounds, ends, lambda: _put_right(ground, owner, attacker))
    record_property("attacked", f"{sum(ends.values())} commands by exit code: {dict(sorted(ends.items()))}")
    assert ends["create 0"] and ends["undo 6"] + ends["undo 7"], ends


def _try(
    application: Application,
    ground: Ground,
    commands: dict[str, tuple[str, ...]],
    rounds: int,
    ends: Counter[str],
    put_right: Callable[[], None],
) -> None:
    for number in range(rounds):
        for name, arguments in commands.items():
            put_right()
            done = run(application, *arguments)
            assert "Traceback" not in done.stderr, done.stderr
            ends[f"{name} {done.returncode}"] += 1
            if done.returncode in (7, 8):  # the attacker took away what an undo needs: that is said, and nothing else
                run(application, "recover", "--abandon", "the tree is under attack")
            assert ground.look_outside() == ground.before, f"{name} of round {number}: {done.stdout}{done.stderr}"
        assert not application.holds(SECRET), f"round {number}"


def _put_right(ground: Ground, owner: str, attacker: subprocess.Popen[bytes]) -> None:
    """Give back Holdfast's folder if the attacker took it, as an operator would: a command without one only refuses."""
    attacker.send_signal(signal.SIGSTOP)
    own = ground.tree / ".holdfast"
    if own.is_symlink() or (own.exists() and own.stat().st_uid != 0):
        own.unlink() if own.is_symlink() else shutil.rmtree(own)
    own.mkdir(0o700, exist_ok=True)
    (own / "owner.json").write_text(owner)
    attacker.send_signal(signal.SIGCONT)


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 65534
    return member


def _text(path: Path) -> Path:
    path.write_text("imported")
    return path
