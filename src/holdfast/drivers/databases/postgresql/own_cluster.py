"""Whether a whole PostgreSQL cluster may go back to a point in its log: only if nothing else would go along.

Facts from the documentation: recovery to a point takes every database of a cluster back, its roles too, and gives the
cluster a new timeline; replication slots are not in a base backup, and what is in unlogged tables not in the log; a
library that is preloaded may add kinds of records that no server without it can replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.drivers.databases.postgresql.client import Session, literal

_OLDEST = 130000  # until then a recovery that does not find its point ends without an error
_HARMLESS_LIBRARIES = ("pg_stat_statements", "auto_explain")

_FACTS = (
    "SELECT current_setting('server_version_num'),"
    " pg_is_in_recovery(), current_setting('wal_level'), current_setting('archive_mode'),"
    " current_setting('max_replication_slots'), current_setting('max_wal_senders'),"
    " current_setting('shared_preload_libraries')"
)
_FINDINGS = (
    (
        "the server has another database: {}",
        "SELECT datname FROM pg_database WHERE datname NOT IN ({kept}) AND NOT starts_with(datname, {prefix})",
    ),
    ("the server has a tablespace of its own: {}", "SELECT spcname FROM pg_tablespace WHERE oid >= 16384"),
    (
        "the server has another replication slot: {}",
        "SELECT slot_name FROM pg_replication_slots WHERE NOT (temporary AND starts_with(slot_name, 'holdfast_'))",
    ),
    (
        "another server follows this one: {}",
        "SELECT coalesce(nullif(application_name, ''), 'without a name') FROM pg_stat_replication"
        " WHERE NOT starts_with(application_name, 'holdfast:')",
    ),
    ("the server has a subscription: {}", "SELECT subname FROM pg_subscription"),
    ("the server has a prepared transaction: {}", "SELECT gid FROM pg_prepared_xacts"),
    (
        "the database {maintenance} has tables",
        "SELECT relname FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm')",
    ),
)
_UNLOGGED = "SELECT oid::regclass FROM pg_class WHERE relpersistence = 'u' LIMIT 1"


def is_superuser(session: Session) -> bool:
    return session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"


def why_not(session: Session, maintenance: str, database: str, prefix: str) -> str:
    """Return why the cluster cannot go back as a whole; empty if it can.

    The session is on the maintenance database. `prefix` is that of the live database's candidates.
    """
    if not is_superuser(session):
        return "the role is no superuser"
    version, follows, level, archives, slots, senders, libraries = session.rows(_FACTS)[0]
    loaded = [name.strip() for name in (libraries or "").split(",") if name.strip()]
    foreign = [name for name in loaded if name not in _HARMLESS_LIBRARIES]
    for wrong, why in (
        (int(version or 0) < _OLDEST, "the server is older than PostgreSQL 13"),
        (follows == "t", "the server follows another one"),
        (level == "minimal", "wal_level is minimal"),
        (archives != "off", "the server archives its log, which would go on in another timeline"),
        (slots == "0", "max_replication_slots is 0"),
        (senders == "0", "max_wal_senders is 0"),
        (bool(foreign), f"the server loads {', '.join(foreign)}"),
    ):
        if wrong:
            return why
    names = {
        "kept": _texts([database, maintenance, "template0", "template1", "postgres"]),
        "prefix": literal(prefix),
    }
    for message, sql in _FINDINGS:
        if "{maintenance}" in message and maintenance == database:
            continue
        found = session.value(sql.format(**names) + " LIMIT 1")
        if found is not None:
            return message.format(found, maintenance=maintenance)
    return ""


def unlogged(session: Session) -> str:
    """Return why the session's own database cannot be taken back by its log; empty if it can."""
    found = session.value(_UNLOGGED)
    return f"table {found} is not in the log (UNLOGGED)" if found is not None else ""


def _texts(names: Sequence[str]) -> str:
    return ", ".join(literal(name) for name in names)
