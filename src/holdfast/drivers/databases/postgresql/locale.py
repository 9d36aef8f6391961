"""Rules by which a PostgreSQL database sorts and compares: more than LC_COLLATE where the provider is not libc.

The catalogue's columns differ by version: `datlocprovider` and `daticulocale` since 15, `daticurules` since 16,
`datlocale` in place of `daticulocale` since 17, where `builtin` is a provider too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from holdfast.drivers.databases.postgresql.client import Session, identifier, literal
from holdfast.model import Facts

_PROVIDERS = {"i": "icu", "b": "builtin"}  # `c` is libc, which LC_COLLATE and LC_CTYPE describe completely
_LOCALE_WORDS = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}


@dataclass(frozen=True)
class PgLocale:
    """Options that make a new database sort as another one does, and its tablespace; empty where libc sorts."""

    provider: str = ""
    locale: str = ""
    rules: str = ""
    tablespace: str = ""

    @classmethod
    def of(cls, session: Session, name: str) -> PgLocale:
        """Return the locale of a database; `name` is an SQL expression."""
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
        """Return the locale that a backup records; backups of earlier versions record none."""
        if not isinstance(facts, dict):
            return cls()
        return cls(**{key: str(facts.get(key, "")) for key in ("provider", "locale", "rules", "tablespace")})

    def as_facts(self) -> Facts:
        return asdict(self)

    def clauses(self, session: Session) -> list[str]:
        """Return clauses of CREATE DATABASE. A tablespace that this server does not have is left out."""
        found = []
        if self.provider:
            found += [f"LOCALE_PROVIDER {self.provider}", f"{_LOCALE_WORDS[self.provider]} {literal(self.locale)}"]
        if self.rules:
            found.append(f"ICU_RULES {literal(self.rules)}")
        if self.tablespace and session.value(f"SELECT 1 FROM pg_tablespace WHERE spcname = {literal(self.tablespace)}"):
            found.append(f"TABLESPACE {identifier(self.tablespace)}")
        return found
