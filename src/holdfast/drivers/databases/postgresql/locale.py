"""By which rules a PostgreSQL database sorts and compares: more than its LC_COLLATE where the provider is not libc.

The catalogue's columns differ by version: `datlocprovider` and `daticulocale` since 15, `daticurules` since 16,
`datlocale` in place of `daticulocale` since 17, where `builtin` is a provider too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from holdfast.drivers.databases.postgresql.client import Session, identifier, literal
from holdfast.model import Facts

_PROVIDERS = {"i": "icu", "b": "builtin"}  # `c` is libc, which LC_COLLATE and LC_CTYPE say all about
_LOCALE_WORDS = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}


@dataclass(frozen=True)
class PgLocale:
    """What a new database is given so that it sorts as another one; empty where libc does that. `tablespace` goes along."""

    provider: str = ""
    locale: str = ""
    rules: str = ""
    tablespace: str = ""

    @classmethod
    def of(cls, session: Session, name: str) -> PgLocale:
        """Return that of a database; `name` is an SQL expression."""
        row = json.loads(
            session.value(
                "SELECT to_jsonb(d) || jsonb_build_object('tablespace', t.spcname) FROM pg_database d"
                f" JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE datname = {name}"
            )
            or "{}"
        )
        provider = _PROVIDERS.get(str(row.get("datlocprovider", "c")), "")
        locale = str(row.get("datlocale") or row.get("daticulocale") or "")
        tablespace = str(row.get("tablespace", ""))
        return cls(
            provider,
            locale if provider else "",
            str(row.get("daticurules") or ""),
            "" if tablespace == "pg_default" else tablespace,
        )

    @classmethod
    def from_facts(cls, facts: object) -> PgLocale:
        """Return what a set says; sets of earlier versions say nothing."""
        if not isinstance(facts, dict):
            return cls()
        return cls(**{key: str(facts.get(key, "")) for key in ("provider", "locale", "rules", "tablespace")})

    def as_facts(self) -> Facts:
        return asdict(self)

    def words(self, session: Session) -> list[str]:
        """Return the words of CREATE DATABASE. A tablespace that this server does not have is left to its default."""
        found = []
        if self.provider:
            found += [f"LOCALE_PROVIDER {self.provider}", f"{_LOCALE_WORDS[self.provider]} {literal(self.locale)}"]
        if self.rules:
            found.append(f"ICU_RULES {literal(self.rules)}")
        if self.tablespace and session.value(f"SELECT 1 FROM pg_tablespace WHERE spcname = {literal(self.tablespace)}"):
            found.append(f"TABLESPACE {identifier(self.tablespace)}")
        return found
