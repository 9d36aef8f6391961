"""Dumps, those of Holdfast and those that other tools made, loaded into candidate databases."""

from __future__ import annotations

import itertools
import re
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holdfast.drivers.databases.postgresql.archive import Archives
from holdfast.drivers.databases.postgresql.catalogue import TABLES, counted
from holdfast.drivers.databases.postgresql.client import Clients, identifier, literal
from holdfast.drivers.databases.postgresql.copies import ShadowDatabases
from holdfast.drivers.databases.postgresql.plain_sql import adapted
from holdfast.drivers.databases.postgresql.search_path import references, with_search_path
from holdfast.drivers.interchange import dump_source
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError
from holdfast.model import Facts

# The first minor release of each version whose psql has \\restrict (release notes of August 2025).
_RESTRICTED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}


class DumpLoader:
    def __init__(self, name: str, clients: Clients, archives: Archives, shadows: ShadowDatabases) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._clients = clients
        self._archives = archives
        self._shadows = shadows

    def restore(self, token: str, source: Path, facts: Facts) -> str:
        """Make a verified candidate from a dump of Holdfast's with its facts; return its identity."""
        self._refuse_newer(facts)
        self._archives.check(source)
        candidate = self._shadows.candidate(token)
        options = ["--exit-on-error", "--no-password", f"--dbname={candidate}"]
        if facts.get("elsewhere") or not self._shadows.properties.has_roles(facts):
            owner, _ = self._shadows.like_live()
            options += mapped_to(owner)
        identity = self._shadows.empty(token, facts)
        left_out = self._not_to_be_made(candidate, facts)
        with self._archives.without_extensions(left_out, source) as chosen:
            try:
                try:
                    self._archives.load(
                        *options, *chosen, dump=source, jobs=self._clients.server.jobs, search_path=None
                    )
                except CommandFailedError as error:
                    self._raise_unless_missing(error)
                    identity = self._shadows.empty(token, facts)
                    self._load_by_path(candidate, [*options, *chosen], source, str(facts.get("search_path", "")))
            except StepError as error:
                raise DamagedError(
                    f"database {self._name}: {source.name} could not be loaded: {error.state or error.what}"
                ) from error
        self._shadows.settle_loaded(candidate, facts)
        self._compare(candidate, facts.get("rows", {}))
        return identity

    def _raise_unless_missing(self, error: CommandFailedError) -> None:
        """Raise the error again if another search path cannot help, for example a full disk.

        The text is looked at only where the server's messages are in English.
        """
        with self._shadows.maintenance() as session:
            language = session.value("SELECT current_setting('lc_messages')") or "C"
        in_english = language.startswith(("C", "POSIX", "en"))
        if in_english and "ERROR:" in error.output_tail and "does not exist" not in error.output_tail:
            raise error

    def _load_by_path(self, candidate: str, options: Sequence[str], source: Path, search_path: str) -> None:
        """Load a dump with a search path; every name in it must keep its meaning. Raise StepError."""
        jobs = self._clients.server.jobs
        self._archives.load(*options, dump=source, jobs=jobs, search_path=search_path)
        chosen = [option for option in options if option.startswith("--use-list=")]
        with tempfile.TemporaryFile() as wanted, tempfile.TemporaryFile() as loaded:
            self._archives.schema(*chosen, dump=source, output=wanted)
            self._archives.schema_of(candidate, loaded)
            wanted.seek(0)
            loaded.seek(0)
            expected, found = references(wanted), references(loaded)
        for name in sorted((expected - found) | (found - expected)):
            raise StepError(
                f"with its search path the name {name.decode(errors='replace')} would refer to another object"
            )

    def _not_to_be_made(self, candidate: str, facts: Facts) -> list[str]:
        """Return extensions of the dump that this role may not create, after a warning with the statement to run."""
        wanted = [str(name) for name, _ in facts.get("extensions", ())]
        if not wanted:
            return []
        names = ", ".join(literal(name) for name in wanted)
        with self._clients.session(candidate) as session:
            rows = session.rows(
                "SELECT name FROM pg_available_extension_versions v JOIN pg_available_extensions e USING (name)"
                f" WHERE name IN ({names}) AND version = default_version AND v.superuser AND NOT v.trusted"
                " AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
                " AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = name) ORDER BY 1"
            )
        found = [str(name) for (name,) in rows]
        for name in found:
            self._clients.host.warn(
                f"database {self._name}: extension {name} is left out, because only a superuser may create it."
                f" Run as a superuser, in that database: CREATE EXTENSION {identifier(name)};"
            )
        return found

    def _refuse_newer(self, facts: Facts) -> None:
        """Raise RefusedError for the dump of a newer server, before anything changes."""
        with self._shadows.maintenance() as session:
            version = int(session.value("SELECT current_setting('server_version_num')") or 0)
        if version // 10000 < int(facts.get("server_version", 0)) // 10000:
            raise RefusedError(
                f"database {self._name}: the dump is of PostgreSQL {int(facts['server_version']) // 10000},"
                f" but the server is {version // 10000}",
                next_step="Restore it into a server of that version or a newer one.",
            )

    def _compare(self, candidate: str, rows: Facts) -> None:
        """Raise DamagedError unless the loaded tables have the rows that were counted in the snapshot."""
        with self._clients.session(candidate) as session:
            found = counted(session, 3600 if rows else 0)
        for table, expected in rows.items():
            loaded = found.get(table, {}).get("rows")
            if expected is not None and loaded != expected:
                raise DamagedError(f"database {self._name}: table {table} has {loaded} rows instead of {expected}")

    def load(self, token: str, source: DumpSource) -> str:
        """Make a candidate from a dump that another tool made; return its identity."""
        if source.format not in (dump_source.SQL, dump_source.CUSTOM, dump_source.TAR, dump_source.DIRECTORY):
            raise RefusedError(f"{source.title} is of the format {source.format}, which PostgreSQL does not read")
        if source.path is not None:
            self._archives.refuse_folder(source.path)
        owner, facts = self._shadows.like_live()
        path = self._shadows.search_path()
        identity = self._shadows.empty(token, facts)
        candidate = self._shadows.candidate(token)
        try:
            try:
                self._run(candidate, owner, source, None)
            except CommandFailedError as error:
                self._raise_unless_missing(error)
                if source.path is None:  # a stream is read once
                    raise
                identity = self._shadows.empty(token, facts)
                with dump_source.opened(str(source.path)) as again:
                    self._run(candidate, owner, again, path)
        except CommandFailedError as error:
            raise DamagedError(
                f"database {self._name}: {source.title} could not be loaded: {error.output_tail.strip() or error.what}"
            ) from error
        self._shadows.settle_loaded(candidate, {"search_path": path})
        with self._clients.session(candidate) as session:
            if not session.rows(TABLES):
                raise DamagedError(f"database {self._name}: {source.title} holds no table")
        return identity

    def _run(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load with the search path of the dump, which is mostly empty, or another one. Raise CommandFailedError."""
        if source.format == dump_source.SQL:
            self._run_sql(candidate, owner, source, search_path)
        else:
            self._run_archive(candidate, owner, source, search_path)

    def _run_archive(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load an archive; objects get the live database's owner, and no grants to others are restored."""
        options = ["--exit-on-error", "--no-password", f"--dbname={candidate}", *mapped_to(owner)]
        if source.path is not None:
            jobs = 1 if source.format == dump_source.TAR else self._clients.server.jobs  # a tar is read sequentially
            self._archives.load(*options, dump=source.path, jobs=jobs, search_path=search_path)
        else:
            self._clients.feed("pg_restore", *options, chunks=source.chunks(), environment=self._clients.environment())

    def _run_sql(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load SQL in restricted mode, because a dump from elsewhere must not run psql's own commands."""
        self._refuse_unrestricted()
        key = secrets.token_hex(16)
        settings = {"role": owner} if owner is not None else {}
        if search_path:
            settings["search_path"] = search_path
        chunks = source.chunks() if search_path is None else with_search_path(source.chunks())
        options = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", candidate]
        lines = itertools.chain([f"\\restrict {key}\n".encode()], adapted(chunks, source.title))
        self._clients.feed("psql", *options, chunks=lines, environment=self._clients.environment(**settings))

    def _refuse_unrestricted(self) -> None:
        text = self._clients.host.capture(self._clients.argv("psql", "--version"))
        found = re.search(r"(\d+)\.(\d+)", text)
        major, minor = (int(found[1]), int(found[2])) if found is not None else (0, 0)
        if minor < _RESTRICTED.get(major, 0 if major > max(_RESTRICTED) else 999):
            raise RefusedError(
                f"plain SQL is not run by {text.strip()}, which cannot keep it from running commands on this machine",
                next_step="Update the PostgreSQL client, or make a dump with `pg_dump --format=custom`.",
            )


def mapped_to(owner: str | None) -> list[str]:
    """Return arguments by which pg_restore gives objects to the owner or the connected role, without grants."""
    return ["--no-owner", "--no-acl", *([f"--role={owner}"] if owner is not None else [])]
