"""What happens to each table and column, by rules, foreign keys and the detector. What is undecided is a problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import msgspec

from holdfast.sanitize import detector
from holdfast.sanitize.detector import Content
from holdfast.sanitize.methods import AnyMethod, Email, Hash, Keep, Sql
from holdfast.sanitize.rows import Selected, select
from holdfast.sanitize.rules import Rules, TableRules
from holdfast.sanitize.schema import Column, Schema, Table

_COLLISION = 1e-6
"""The greatest probability that two values of a unique column become equal."""
_DIGITS = 20
EMAIL_PREFIX = "user_"
_DIGEST_DIGITS = 64


class Decision(msgspec.Struct, frozen=True):
    """The method for one column, and why."""

    column: Column
    method: AnyMethod
    why: str


class TablePlan(msgspec.Struct, frozen=True):
    table: Table
    columns: tuple[Decision, ...]
    """Without generated columns, which the server computes again."""
    selected: Selected
    exempt: str = ""

    @property
    def empty(self) -> bool:
        return self.selected.none

    @property
    def changed(self) -> tuple[Decision, ...]:
        return tuple(one for one in self.columns if not isinstance(one.method, Keep))


class DatabasePlan(msgspec.Struct, frozen=True):
    """Everything that is needed to write the sanitized dump of one database."""

    schema: Schema
    tables: tuple[TablePlan, ...]
    email_domain: str
    phone_mask: str
    allowed_email_domains: tuple[str, ...]
    digits: int
    """Hexadecimal digits of a digest where a rule names no number, the same in all tables."""

    def width(self, column: Column, method: Hash | Email) -> int:
        """Return the digits of the digest in a value of a column."""
        return _width(column, method, self.digits, self.email_domain)

    def lines(self) -> dict[str, str]:
        """Return the decisions for the lock file: a line for each table and each column."""
        found: dict[str, str] = {}
        for plan in self.tables:
            found[plan.table.name] = plan.selected.described()
            for one in plan.columns:
                found[f"{plan.table.name}.{one.column.name}"] = f"{one.column.type}: {described(one.method)}"
        return found


class Decided(msgspec.Struct, frozen=True):
    plan: DatabasePlan
    problems: tuple[str, ...]
    proposals: Mapping[str, Mapping[str, str]]
    """Methods for the first draft, by table and column."""


def described(method: AnyMethod) -> str:
    """Return a method and its options in one line."""
    options = {key: value for key, value in msgspec.to_builtins(method).items() if value not in ("", 0, False, [])}
    options.pop("reason", None)
    text = ", ".join(f"{key} = {value}" for key, value in options.items())
    return f"{method.name} ({text})" if text else method.name


def decide(schema: Schema, rules: Rules, contents: Mapping[str, Content], quote: Callable[[str], str]) -> Decided:
    """Decide for a database. `contents` is by table and column, as `table.column`; `quote` quotes a name."""
    decider = _Decider(schema, rules, contents)
    unused = [name for name in rules.tables if not _fits(name, schema) and name not in rules.of_presets]
    decider.problems += [f"{name}: no table of that name, though there are rules for it" for name in unused]
    tables = {table.name: decider.rules_of(table) for table in schema.tables}
    selected = select(schema, tables, quote, decider.problems)
    plans = [decider.table(table, tables[table.name], selected[table.name]) for table in schema.tables]
    plan = DatabasePlan(
        schema, tuple(plans), rules.email_domain, rules.phone_mask, rules.allowed_email_domains, decider.digits
    )
    return Decided(plan, tuple(decider.problems), decider.proposals)


def _fits(pattern: str, schema: Schema) -> bool:
    return any(fnmatchcase(table.name, pattern) for table in schema.tables)


class _Decider:
    def __init__(self, schema: Schema, rules: Rules, contents: Mapping[str, Content]) -> None:
        self._schema = schema
        self._rules = rules
        self._contents = contents
        self.digits = max(_DIGITS, width_for(max((table.rows for table in schema.tables), default=0)))
        self.problems: list[str] = []
        self.proposals: dict[str, dict[str, str]] = {}

    def rules_of(self, table: Table) -> TableRules:
        found = self._rules.of_table(table.name)
        if found is not None:
            for name in [name for name, method in found.columns.items() if method is not None]:
                optional = f"{table.name}.{name}" in self._rules.of_presets
                if table.name in self._rules.tables and table.column(name) is None and not optional:
                    self.problems.append(f"{table.name}.{name}: no such column, though there is a rule for it")
                elif (column := table.column(name)) is not None and column.generated:
                    self.problems.append(f"{table.name}.{name}: the server computes it; it has no rule of its own")
            return found
        if self._rules.unlisted_tables == "empty":
            return TableRules(rows="none")
        if self._rules.unlisted_tables == "error":
            self.problems.append(f"{table.name}: no rules for this table")
        return TableRules()

    def table(self, table: Table, rules: TableRules, selected: Selected) -> TablePlan:
        decisions = []
        for column in table.columns:
            if column.generated:
                continue
            if selected.none:
                decisions.append(Decision(column, Keep(), "the table is empty"))
                continue
            decisions.append(self._column(table, column, rules))
        return TablePlan(table, tuple(decisions), selected, rules.exempt)

    def _column(self, table: Table, column: Column, rules: TableRules) -> Decision:
        place = f"{table.name}.{column.name}"
        method, why = self._given(table, column, rules)
        inherited = self._inherited(table, column, set())
        if inherited is not None:
            parent, of_parent = inherited
            if method is None:
                method, why = of_parent, f"as {parent}, to which it refers"
            elif method != of_parent:
                self.problems.append(
                    f"{place}: refers to {parent}, which has {described(of_parent)}; its own rule,"
                    f" {described(method)}, would break that"
                )
        if method is None:
            method, why = self._undecided(table, column)
        if problem := self._misfit(table, column, method):
            self.problems.append(f"{place}: {problem}")
        return Decision(column, method, why)

    def _given(self, table: Table, column: Column, rules: TableRules) -> tuple[AnyMethod | None, str]:
        own = rules.columns.get(column.name)
        if own is not None:
            return own, "rule of the table"
        named = self._rules.by_name(column.name) if column.name not in rules.columns else None
        if named is not None and not named.misfit(column):
            return named, "rule of columns of that name"
        return None, ""

    def _inherited(self, table: Table, column: Column, seen: set[tuple[str, str]]) -> tuple[str, AnyMethod] | None:
        """Return the column to which one refers, and its method, if that has one."""
        seen.add((table.name, column.name))
        for reference in table.references:
            if column.name not in reference.columns:
                continue
            parent = self._schema.table(reference.parent)
            name = reference.parent_columns[reference.columns.index(column.name)]
            found = parent.column(name) if parent is not None else None
            if parent is None or found is None or (parent.name, name) in seen:
                continue
            above = self._inherited(parent, found, seen)
            if above is not None:
                return above
            method, _ = self._given(parent, found, self._rules.of_table(parent.name) or TableRules())
            if method is not None and not isinstance(method, Keep):
                return f"{parent.name}.{name}", method
        return None

    def _undecided(self, table: Table, column: Column) -> tuple[AnyMethod, str]:
        """Return `keep` for a column without a rule, which is a problem where the rules do not allow it."""
        place = f"{table.name}.{column.name}"
        found = detector.finding(column, self._contents.get(place))
        listed = any(column.name in reference.columns for reference in table.references)
        if found is not None and not listed:
            self.proposals.setdefault(table.name, {})[column.name] = found.method
            if self._rules.unlisted_columns != "keep":
                self.problems.append(f"{place}: no rule, and {found.why} may mean personal data")
        elif self._rules.unlisted_columns == "error":
            self.problems.append(f"{place}: no rule")
        return Keep(), "nothing says that it is personal"

    def _misfit(self, table: Table, column: Column, method: AnyMethod) -> str:
        """Return why a method cannot be used for a column; empty if it can."""
        if problem := method.misfit(column):
            return problem
        promised = isinstance(method, Sql) and method.unique
        if column.unique and not method.keeps_apart and not promised:
            return f"its values are unique, which {method.name} does not keep; use hash, email, uuid or keep"
        if not isinstance(method, (Hash, Email)):
            return ""
        width = _width(column, method, self.digits, self._rules.email_domain)
        if width < 1 or (isinstance(method, Hash) and method.width > width):
            return f"{described(method)} does not fit into {column.type}"
        needed = width_for(table.rows) if column.unique or column.in_key else 1
        if width < needed:
            return f"{width} digits are too few for {table.rows} different values; at least {needed} are needed"
        return ""


def width_for(rows: int) -> int:
    """Return the hexadecimal digits with which as many values stay different, but for one case in a million."""
    bits = math.log2(max(rows, 2) ** 2 / 2 / _COLLISION)
    return min(math.ceil(bits / 4), _DIGEST_DIGITS)


def _width(column: Column, method: Hash | Email, digits: int, email_domain: str) -> int:
    room = column.length if column.length is not None else _DIGEST_DIGITS
    if isinstance(method, Email):
        return min(digits, room - len(EMAIL_PREFIX) - 1 - len(email_domain))
    return min(method.width or digits, room)
