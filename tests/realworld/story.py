"""The steps that every application goes through, and their figures."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.config.load import load
from holdfast.errors import HoldfastError
from holdfast.system.ports import free_loopback_port
from holdfast.wiring import open_app
from tests.memory import remove_folder
from tests.realworld import content, settings
from tests.realworld.application import Application, Database, Repository, Site
from tests.realworld.visitors import Visitors

_COMMAND_SECONDS = 1500


class WrongError(Exception):
    """A promise that was not kept."""


@dataclass
class Figure:
    what: str
    end: str
    took: float
    waited: float | None = None


@dataclass
class Result:
    application: Application
    figures: list[Figure] = field(default_factory=list)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""


class Story:
    """One application from its installation to its copy in staging."""

    def __init__(self, application: Application, say: Callable[[str], None]) -> None:
        self.application, self.say = application, say
        self.result = Result(application)

    def run(self, site: Site) -> Result:
        self.site = site
        self._configure()
        self._operate("install", "install", self.application.old)
        self.application.fill(site)
        with self._visitors("b") as visitors:
            self._operate("backup", "backup", "create", visitors=visitors)
        self._look_for(visitors)
        self._operate("verify", "backup", "verify")
        before = self._content()
        for tag, what in self.application.broken:
            with self._visitors("", writing=False) as visitors:
                self._operate(f"upgrade, {what}", "upgrade", tag, visitors=visitors, fails=True)
            self._same(before, f"after the undone upgrade ({what})")
        self._kill_and_recover()
        with self._visitors("u") as visitors:
            self._operate("upgrade", "upgrade", self.application.new, visitors=visitors)
        self._look_for(visitors)
        with self._visitors("", writing=False) as visitors:
            self._roll_back(visitors)
        with self._visitors("", writing=False) as visitors:
            self._operate("upgrade again", "upgrade", self.application.new, visitors=visitors)
        self._operate("backup", "backup", "create", quiet=True)
        before = self._content()
        with self._visitors("r") as visitors:
            pass
        self._damage()
        with self._visitors("", writing=False) as visitors:
            self._operate("restore", "backup", "restore", "latest", visitors=visitors)
        self._same(before, "after the restore")
        self._clone(before)
        return self.result

    # --- parts ----------------------------------------------------------------------------------------

    def _configure(self) -> None:
        site = self.site
        for path in (site.app, site.shared):
            path.mkdir()
            path.chmod(0o755)
        site.marks.mkdir()
        site.marks.chmod(0o777)
        self.application.prepare(site)
        self.configuration = settings.of(self.application, site)
        site.config.write_text(settings.toml(self.configuration))

    def _visitors(self, prefix: str, *, writing: bool = True) -> Visitors:
        return Visitors(self.application, self.site, prefix, writing)

    def _operate(
        self,
        what: str,
        *arguments: str,
        visitors: Visitors | None = None,
        fails: bool = False,
        quiet: bool = False,
    ) -> str:
        began = time.monotonic()
        done = self._holdfast(*arguments)
        took = time.monotonic() - began
        if fails and done.returncode != 6:
            raise WrongError(f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        if not fails and done.returncode != 0:
            raise WrongError(f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        if visitors is not None:
            visitors.settle()
        if not quiet:
            waited = visitors.waited if visitors else None
            self._note(Figure(what, "undone" if fails else "ok", took, waited))
        return done.stdout + done.stderr

    def _note(self, figure: Figure) -> None:
        self.result.figures.append(figure)
        waited = "" if figure.waited is None else f", visitors waited {figure.waited:.1f} s"
        self.say(f"  {figure.what}: {figure.end} in {figure.took:.1f} s{waited}")

    def _holdfast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = self._argv(*arguments)
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=_COMMAND_SECONDS, stdin=subprocess.DEVNULL, check=False
        )

    def _argv(self, *arguments: str) -> list[str]:
        words = [*arguments, "--config", str(self.site.config)]
        return [sys.executable, "-m", "holdfast", *words, *([] if "verify" in arguments else ["--yes"])]

    def _kill_and_recover(self) -> None:
        """Kill Holdfast when the migration has done its work and still runs."""
        mark = self.site.marks / "migrated"
        mark.unlink(missing_ok=True)
        with self._visitors("k") as visitors:
            with open(self.site.folder / "killed.log", "wb") as log:
                argv = self._argv("upgrade", self.application.slow)
                began = time.monotonic()
                running = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                while not mark.exists():
                    if running.poll() is not None or time.monotonic() > began + _COMMAND_SECONDS:
                        running.kill()
                        raise WrongError(f"the migration did not end: {(self.site.folder / 'killed.log').read_text()}")
                    time.sleep(0.02)
                time.sleep(0.2)
                running.send_signal(signal.SIGKILL)
                running.wait()
            self._operate("recover after SIGKILL", "recover", visitors=visitors)
        self._look_for(visitors)

    def _roll_back(self, visitors: Visitors) -> None:
        began = time.monotonic()
        done = self._holdfast("rollback")
        what = "rollback"
        if done.returncode:  # the old code does not know the data: they go back, too
            found = [
                word
                for line in done.stderr.splitlines()
                if "--discard-writes-since" in line
                for word in [line.split("--discard-writes-since", 1)[1].split()[0].strip("`'\".,")]
            ]
            if not found:
                raise WrongError(f"rollback: exit code {done.returncode}\n{done.stdout}{done.stderr}")
            began = time.monotonic()
            what = "rollback with data"
            done = self._holdfast("rollback", "--discard-writes-since", found[0])
        if done.returncode:
            raise WrongError(f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        visitors.settle()
        self._note(Figure(what, "ok", time.monotonic() - began, visitors.waited))

    def _damage(self) -> None:
        """Lose a file and the newest rows, so that the restore has something to do."""
        for tree in load(str(self.site.config)).configuration.files.values():
            files = [path for path in (self.site.app / tree.path).rglob("*") if path.is_file()]
            for path in [one for one in files if ".holdfast" not in one.parts][:5]:
                path.unlink()

    def _clone(self, before: dict[str, str]) -> None:
        port = free_loopback_port()
        text = settings.toml(settings.overlay(self.configuration, self.site, port))
        (self.site.app / f"holdfast.{settings.STAGING}.toml").write_text(text)
        name = f"{self.site.database.name}_{settings.STAGING}"
        database = dataclasses.replace(self.site.database, name=name)
        staging = dataclasses.replace(self.site, port=port, database=database, place=f"{settings.STAGING}/shared")
        for path in (staging.shared.parent, staging.shared):
            path.mkdir()
            path.chmod(0o755)
        self.application.prepare(staging)
        try:
            self._operate("install staging", "install", self.application.new, "-e", settings.STAGING, quiet=True)
            self._operate(
                "clone to staging", "clone", "production", settings.STAGING, "--unsanitized", "--reason", "a test"
            )
            found = self.application.written(staging.client(), staging)
            expected = self.application.written(self.site.client(), self.site)
            if found != expected:
                raise WrongError(f"staging has {len(found)} entries, production {len(expected)}")
            if self.application.personal:
                self._sanitize(staging)
        finally:
            self._shut_down(settings.STAGING)

    def _sanitize(self, staging: Site) -> None:
        """Copy production to staging with the rules that `sanitize init` drafts, and look at what came there."""
        self._operate("sanitize init", "sanitize", "init", quiet=True)
        self._operate("sanitize lock", "sanitize", "lock", quiet=True)
        self._operate("sanitize check", "sanitize", "check", quiet=True)
        self._operate("sanitized clone to staging", "clone", "production", settings.STAGING)
        staging.client().get(self.application.page)
        self._operate("sanitized backup", "backup", "create", "--sanitized", quiet=True)
        dumps = [*(self.site.folder / "vault" / "sanitized").rglob("*.gz")]
        if not dumps:
            raise WrongError("there is no sanitized dump")
        for dump in dumps:
            text = gzip.decompress(dump.read_bytes())
            found = [one for one in self.application.personal if one.encode() in text]
            if found:
                raise WrongError(f"{dump.name} has {', '.join(found)}")

    def _content(self) -> dict[str, str]:
        application = self.application
        return content.of(load(str(self.site.config)), application.volatile, application.volatile_files)

    def _same(self, before: dict[str, str], when: str) -> None:
        after = self._content()
        different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if different:
            raise WrongError(f"data differ {when}: {', '.join(different[:20])}")

    def _look_for(self, visitors: Visitors) -> None:
        """Ask for each write that was acknowledged."""
        if not visitors.acknowledged:
            raise WrongError("no write was acknowledged")
        lost = set(visitors.acknowledged) - self.application.written(self.site.client(), self.site)
        self.result.acknowledged += len(visitors.acknowledged)
        if lost:
            raise WrongError(f"{len(lost)} of {len(visitors.acknowledged)} acknowledged writes are lost")

    def shut_down(self) -> None:
        for environment in (None, settings.STAGING):
            self._shut_down(environment)

    def _shut_down(self, environment: str | None) -> None:
        if environment and not (self.site.app / f"holdfast.{environment}.toml").exists():
            return
        if not self.site.config.exists():
            return
        try:
            app = open_app(load(str(self.site.config), environment))
        except HoldfastError:
            return
        try:
            app.context.runtime.shut_down()
        finally:
            app.close()


@contextmanager
def place(application: Application) -> Iterator[Site]:
    """A scratch folder through which every account may pass, with the database server that is needed."""
    folder = Path(tempfile.mkdtemp(prefix="hfa"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(remove_folder, folder)
        database = Database(application.database)
        if application.database == "postgresql":
            from tests.servers.postgresql import ROLE, PostgresqlServer

            server = PostgresqlServer()
            stack.callback(server.remove)
            server.folder.chmod(0o755)
            for name in (database.name, f"{database.name}_staging"):
                server.create_if_missing(name)
            database = Database("postgresql", database.name, str(server.folder), ROLE)
        elif application.database == "mariadb":
            from tests.servers.mariadb import USER, MariadbServer

            other = MariadbServer()
            stack.callback(other.remove)
            other.folder.chmod(0o755)
            for name in (database.name, f"{database.name}_staging"):
                other.create_if_missing(name)
            database = Database("mariadb", database.name, other.socket, USER)
        yield Site(folder, free_loopback_port(), database)


def repository_of(application: Application, site: Site) -> Repository:
    """Fetch the versions, in a folder that lives no longer than this call."""
    scratch = Path(tempfile.mkdtemp(prefix="hff"))
    try:
        repository = Repository(site.folder / "repository")
        application.fetch(repository, scratch)
        return repository
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
