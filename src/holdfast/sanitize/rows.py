"""Which rows of a table are taken, so that every reference still finds its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from holdfast.sanitize.rules import TableRules
from holdfast.sanitize.schema import Reference, Schema, Table


class Selected(msgspec.Struct, frozen=True):
    """The rows of one table."""

    none: bool = False
    condition: str = ""
    """In SQL, for the table under its own name; empty for all rows."""
    cleared: Mapping[str, str] = {}
    """Columns that become NULL where their row is not taken, with the condition under which they stay."""

    def described(self) -> str:
        if self.none:
            return "no rows"
        return f"rows where {self.condition}" if self.condition else "all rows"


def select(
    schema: Schema, rules: Mapping[str, TableRules], quote: Callable[[str], str], problems: list[str]
) -> dict[str, Selected]:
    """Return the rows of each table; report references that could not be kept."""
    return _Selection(schema, rules, quote, problems).all()


class _Selection:
    def __init__(
        self, schema: Schema, rules: Mapping[str, TableRules], quote: Callable[[str], str], problems: list[str]
    ) -> None:
        self._schema = schema
        self._rules = rules
        self._quote = quote
        self._problems = problems
        self._empty = self._emptied()
        self._number = 0

    def _emptied(self) -> set[str]:
        """Return the tables without rows: by their rules, and those that refer to one that cascades."""
        empty = {name for name, rules in self._rules.items() if rules.rows == "none"}
        cascading = {name for name in empty if self._rules[name].cascade}
        while True:
            more = {
                table.name
                for table in self._schema.tables
                if table.name not in cascading and any(one.parent in cascading for one in table.references)
            }
            if not more:
                return empty
            cascading |= more
            empty |= more

    def all(self) -> dict[str, Selected]:
        return {table.name: self._of(table) for table in self._schema.tables}

    def _of(self, table: Table) -> Selected:
        if table.name in self._empty:
            return Selected(none=True)
        conditions = self._own(table)
        cleared: dict[str, str] = {}
        for reference in table.references:
            if not self._limited(reference.parent, set()):
                continue
            gone = reference.parent in self._empty or self._circular(table, reference)
            optional = [name for name in reference.columns if self._nullable(table, name)]
            if reference.parent == table.name or gone:
                if not optional:
                    self._problems.append(
                        f"{table.name}: refers to rows of {reference.parent} that are left out, by"
                        f" {', '.join(reference.columns)}, which cannot be NULL; leave out rows of {table.name} too"
                        + (" or set `cascade = true`" if reference.parent in self._empty else "")
                    )
                else:
                    kept = "FALSE" if gone else self._found(table, self._place(table), reference)
                    for name in optional:
                        cleared[name] = f"({cleared[name]}) AND ({kept})" if name in cleared else kept
            else:
                conditions.append(self._found(table, self._place(table), reference))
        return Selected(condition=" AND ".join(f"({one})" for one in conditions), cleared=cleared)

    def _nullable(self, table: Table, name: str) -> bool:
        column = table.column(name)
        return column is not None and column.nullable

    def _place(self, table: Table) -> str:
        return self._quote(table.own_name)

    def _own(self, table: Table) -> list[str]:
        rules = self._rules[table.name]
        found = [rules.where] if rules.where else []
        if rules.last:
            by, source = self._quote(rules.by), self._full(table)
            newest = f"SELECT {by} FROM {source} WHERE {by} IS NOT NULL ORDER BY {by} DESC LIMIT {rules.last}"
            found.append(f"{by} >= (SELECT min({by}) FROM ({newest}) AS holdfast_newest)")
        return found

    def _full(self, table: Table) -> str:
        schema = f"{self._quote(table.schema)}." if table.schema else ""
        return f"{schema}{self._quote(table.own_name)}"

    def _limited(self, name: str, seen: set[str]) -> bool:
        """Return whether some rows of a table are left out, by its own rules or because of what it refers to."""
        rules = self._rules.get(name)
        if rules is None or name in seen:
            return False
        seen.add(name)
        if rules.where or rules.last or name in self._empty:
            return True
        table = self._schema.table(name)
        return table is not None and any(
            one.parent != name
            and self._limited(one.parent, seen)
            and not all(self._nullable(table, column) and one.parent in self._empty for column in one.columns)
            for one in table.references
        )

    def _circular(self, table: Table, reference: Reference) -> bool:
        """Return whether a table refers to one that refers back, perhaps by others: then neither can go first."""
        seen: set[str] = set()
        waiting = [] if reference.parent == table.name else [reference.parent]
        while waiting:
            name = waiting.pop()
            if name == table.name:
                return True
            if name in seen or name in self._empty or (found := self._schema.table(name)) is None:
                continue
            seen.add(name)
            waiting += [
                one.parent for one in found.references if one.parent != name and self._limited(one.parent, set())
            ]
        return False

    def _found(self, table: Table, alias: str, reference: Reference) -> str:
        """Return the condition that the row to which one refers is taken."""
        parent = self._schema.table(reference.parent)
        if parent is None:
            return "FALSE"
        self._number += 1
        inner = self._quote(f"holdfast_{self._number}")
        joined = " AND ".join(
            f"{inner}.{self._quote(there)} = {alias}.{self._quote(here)}"
            for here, there in zip(reference.columns, reference.parent_columns, strict=True)
        )
        conditions = [joined, *(f"({one})" for one in self._own(parent))]
        for above in parent.references:
            left = above.parent not in (parent.name, *self._empty) and self._limited(above.parent, set())
            if left and not self._circular(parent, above):  # others become NULL, and their rows stay
                conditions.append(f"({self._found(parent, inner, above)})")
        missing = " OR ".join(f"{alias}.{self._quote(name)} IS NULL" for name in reference.columns)
        return f"{missing} OR EXISTS (SELECT 1 FROM {self._full(parent)} AS {inner} WHERE {' AND '.join(conditions)})"
