"""What happens to each table and column, by rules, foreign keys and the detector. What is undecided is a problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase

import msgspec

from holdfast.sanitize import detector
from holdfast.sanitize.detector import Content, Finding
from holdfast.sanitize.methods import AnyMethod, Email, Hash, Json, Keep, Null, Phone, Set, Sql
from holdfast.sanitize.rows import Selected, select
from holdfast.sanitize.rules import Rules, TableRules
from holdfast.sanitize.schema import Column, Schema, Table

_COLLISION = 1e-6
"""The greatest probability that two values of a unique column become equal."""
_DIGITS = 20
EMAIL_PREFIX = "user_"
_SELDOM_MEANT = frozenset({"boolean", "date", "timestamp", "time", "integer", "number"})
"""What a pattern of names also fits, such as `email_verified` and `emails_sent`: the detector looks at these."""
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

    def guarded(self, column: str, raw: str, found: str) -> str:
        """Return the expression of a new value, but for rows that are exempt, and NULL where its row refers to none."""
        if self.exempt and found != raw:
            found = f"CASE WHEN ({self.exempt}) THEN {raw} ELSE {found} END"
        kept = self.selected.cleared.get(column)
        return f"CASE WHEN {kept} THEN {found} END" if kept else found


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
            exempt = f", unchanged where {plan.exempt}" if plan.exempt and not plan.empty else ""
            found[plan.table.name] = plan.selected.described() + exempt
            for one in plan.columns:
                found[f"{plan.table.name}.{one.column.name}"] = f"{one.column.type}: {described(one.method)}"
        return found


class Decided(msgspec.Struct, frozen=True):
    plan: DatabasePlan
    problems: tuple[str, ...]
    proposals: Mapping[str, Mapping[str, Finding]]
    """Methods for the first draft, by table and column."""


def described(method: AnyMethod) -> str:
    """Return a method and its options in one line."""
    if isinstance(method, Set):
        return f"set (value = {method.value!r})"
    options = {key: value for key, value in msgspec.to_builtins(method).items() if value not in ("", 0, False, [])}
    options.pop("reason", None)
    if isinstance(method, Json):
        options["paths"] = "; ".join(f"{path}: {described(one)}" for path, one in sorted(method.paths.items()))
    text = ", ".join(f"{key} = {value}" for key, value in options.items())
    return f"{method.name} ({text})" if text else method.name


def decide(schema: Schema, rules: Rules, contents: Mapping[str, Content], quote: Callable[[str], str]) -> Decided:
    """Decide for a database. `contents` is by table and column, as `table.column`; `quote` quotes a name."""
    decider = _Decider(schema, rules, contents)
    unused = [name for name in rules.tables if not _fits(name, schema) and name not in rules.of_presets]
    decider.problems += [f"{name}: no table of that name, though there are rules for it" for name in unused]
    decider.problems += _unused_columns(schema, rules)
    decider.tables = {table.name: decider.rules_of(table) for table in schema.tables}
    decider.selected = select(schema, decider.tables, quote, decider.problems)
    plans = [decider.table(table) for table in schema.tables]
    plan = DatabasePlan(
        schema, tuple(plans), rules.email_domain, rules.phone_mask, rules.allowed_email_domains, decider.digits
    )
    return Decided(plan, tuple(decider.problems), decider.proposals)


def _fits(pattern: str, schema: Schema) -> bool:
    return any(fnmatchcase(table.name, pattern) for table in schema.tables)


def _unused_columns(schema: Schema, rules: Rules) -> list[str]:
    """Return the problems of columns that are in none of the tables that a pattern fits."""
    found = []
    for pattern, of_pattern in rules.tables.items():
        fitting = [table for table in schema.tables if fnmatchcase(table.name, pattern)]
        if not fitting or schema.table(pattern) is not None:
            continue
        for name, method in of_pattern.columns.items():
            needed = method is not None and f"{pattern}.{name}" not in rules.of_presets
            if needed and all(table.column(name) is None for table in fitting):
                found.append(f"{pattern}.{name}: no such column in any of these tables, though there is a rule for it")
    return found


class _Decider:
    def __init__(self, schema: Schema, rules: Rules, contents: Mapping[str, Content]) -> None:
        self._schema = schema
        self._rules = rules
        self._contents = contents
        self.digits = max(_DIGITS, width_for(max((table.rows for table in schema.tables), default=0)))
        self.problems: list[str] = []
        self.proposals: dict[str, dict[str, Finding]] = {}
        self.tables: dict[str, TableRules] = {}
        self.selected: dict[str, Selected] = {}

    def rules_of(self, table: Table) -> TableRules:
        found = self._rules.of_table(table.name)
        if found is not None:
            for name in [name for name, method in found.columns.items() if method is not None]:
                optional = f"{table.name}.{name}" in self._rules.of_presets
                if table.name in self._rules.tables and table.column(name) is None and not optional:
                    self.problems.append(f"{table.name}.{name}: no such column, though there is a rule for it")
                elif (column := table.column(name)) is not None and column.generated:
                    self.problems.append(f"{table.name}.{name}: the server computes it; it has no rule of its own")
            if found.by and table.column(found.by) is None:
                self.problems.append(f"{table.name}.{found.by}: no such column, though `by` names it")
            return found
        if self._rules.unlisted_tables == "empty":
            return TableRules(rows="none")
        if self._rules.unlisted_tables == "error":
            self.problems.append(f"{table.name}: no rules for this table")
        return TableRules()

    def table(self, table: Table) -> TablePlan:
        rules, selected = self.tables[table.name], self.selected[table.name]
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
        above = [(parent, name, self._effective(parent, name, set())) for parent, name in self._parents(table, column)]
        if method is None:
            for parent, name, of_parent in above:
                if not isinstance(of_parent, Keep):
                    method, why = of_parent, f"as {parent.name}.{name.name}, to which it refers"
                    break
        if method is None:
            method, why = self._undecided(table, column, rules)
        for parent, name, of_parent in above:
            if not self.selected[parent.name].none and (
                problem := self._breaks(table, column, method, parent, name, of_parent)
            ):
                self.problems.append(f"{place}: refers to {parent.name}.{name.name}, {problem}")
        if problem := self._misfit(table, column, method):
            self.problems.append(f"{place}: {problem}")
        return Decision(column, method, why)

    def _breaks(
        self, table: Table, column: Column, method: AnyMethod, parent: Table, name: Column, of_parent: AnyMethod
    ) -> str:
        """Return why a reference would not find its row; empty if it does, or if the engine is to judge."""
        if isinstance(of_parent, Keep):
            fits = isinstance(method, (Keep, Null, Set, Sql))
            return "" if fits else f"which is kept; its own rule, {described(method)}, would break that"
        if self.tables[table.name].exempt or (self.tables[parent.name].exempt and not isinstance(method, Null)):
            return "and rows that are exempt keep the value of one side only; keep both columns, or exempt no rows"
        if isinstance(method, Null):
            return ""
        if isinstance(method, Keep) or method != of_parent:
            return f"which has {described(of_parent)}; its own rule, {described(method)}, would break that"
        if isinstance(method, (Hash, Email)):
            domain = self._rules.email_domain
            here = _width(column, method, self.digits, domain)
            there = _width(name, method, self.digits, domain)
            if here != there:
                return f"where the digest has {there} digits, but {here} fit into {column.type}; name a number for both"
        return ""

    def _parents(self, table: Table, column: Column) -> list[tuple[Table, Column]]:
        """Return the columns to which one refers."""
        found = []
        for reference in table.references:
            parent = self._schema.table(reference.parent)
            for here, there in zip(reference.columns, reference.parent_columns, strict=True):
                name = parent.column(there) if parent is not None and here == column.name else None
                if parent is not None and name is not None and (parent.name, there) != (table.name, column.name):
                    found.append((parent, name))
        return found

    def _effective(self, table: Table, column: Column, seen: set[tuple[str, str]]) -> AnyMethod:
        """Return the method of a column to which others refer: its own, or that of the column to which it refers."""
        own, _ = self._given(table, column, self.tables[table.name])
        if own is not None:
            return own
        seen.add((table.name, column.name))
        for parent, name in self._parents(table, column):
            if (parent.name, name.name) not in seen:
                method = self._effective(parent, name, seen)
                if not isinstance(method, Keep):
                    return method
        return Keep()

    def _follows(self, table: Table, column: Column, seen: set[tuple[str, str]]) -> bool:
        """Return whether a column only repeats the values of another one, which is decided about."""
        seen.add((table.name, column.name))
        return any(
            not self._parents(parent, name) or self._follows(parent, name, seen)
            for parent, name in self._parents(table, column)
            if (parent.name, name.name) not in seen and not self.selected[parent.name].none
        )

    def _given(self, table: Table, column: Column, rules: TableRules) -> tuple[AnyMethod | None, str]:
        own = rules.columns.get(column.name)
        if own is not None:
            return own, "rule of the table"
        named = self._rules.by_name(column.name) if column.name not in rules.columns else None
        if named is not None and not named.misfit(column):
            return named, "rule of columns of that name"
        return None, ""

    def _undecided(self, table: Table, column: Column, rules: TableRules) -> tuple[AnyMethod, str]:
        """Return `keep` for a column without a rule, which is a problem where the rules do not allow it."""
        place = f"{table.name}.{column.name}"
        found = detector.finding(column, self._contents.get(place))
        listed = self._follows(table, column, set())
        named = self._rules.by_name(column.name) if column.name not in rules.columns and not listed else None
        if named is not None and (column.kind not in _SELDOM_MEANT or column.name in self._rules.columns):
            self.problems.append(
                f"{place}: {named.misfit(column)}, which columns of that name have; give it its own rule"
            )
            return Keep(), "no method fits"
        if found is not None and not listed:
            self.proposals.setdefault(table.name, {})[column.name] = found
            if self._rules.unlisted_columns != "keep":
                self.problems.append(f"{place}: no rule, and {found.why} may mean personal data")
        elif self._rules.unlisted_columns == "error":
            self.problems.append(f"{place}: no rule")
        return Keep(), "nothing says that it is personal"

    def _misfit(self, table: Table, column: Column, method: AnyMethod) -> str:
        """Return why a method cannot be used for a column; empty if it can."""
        if problem := method.misfit(column):
            return problem
        if not method.keeps_apart and not isinstance(method, Sql):
            if column.unique:
                return f"its values are unique, which {method.name} does not keep; use hash, email, uuid or keep"
            if column.in_key:
                return (
                    f"it is part of a key whose values are unique, which {method.name} may not keep;"
                    " use hash, email, uuid, keep or sql"
                )
        if isinstance(method, Phone) and column.length is not None:
            mask = method.mask or self._rules.phone_mask
            return f"the mask {mask} is longer than {column.type}" if len(mask) > column.length else ""
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
