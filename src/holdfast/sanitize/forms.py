"""The forms in which the rules of a file name a method and its options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from holdfast.config.similar import did_you_mean
from holdfast.sanitize import methods
from holdfast.sanitize.methods import DICTIONARIES, AnyMethod

SIMPLE = {"keep", "null", "hash", "email", "text", "phone", "mask", "date", "uuid", "ip", "file", *DICTIONARIES}
NEEDS_MORE = {
    "set": '{ set = "VALUE" }',
    "number": "{ number = { bucket = 100 } }",
    "choice": '{ choice = ["a", "b"] }',
    "json": '{ json = { "path.to" = "email" } }',
    "sql": '{ sql = "EXPRESSION" }',
}
"""Methods that are nothing by their name alone."""
_DOMAIN = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def known(value: Mapping[str, object], keys: tuple[str, ...]) -> None:
    for key in value:
        if key not in keys:
            raise ValueError(f"{key}: is not known. {did_you_mean(key, keys)}".strip())


def _domain(value: Mapping[str, object], default: str) -> str:
    found = value.get("domain", default)
    if not isinstance(found, str) or not _DOMAIN.fullmatch(found):
        raise ValueError("domain: must be a short name of letters, digits, - and _")
    return found


def _no_option(value: Mapping[str, object], name: str) -> None:
    """Refuse a value that the method would ignore. `true` is allowed, because options need a table."""
    if value[name] is not None and value[name] is not True:
        raise ValueError(f"{name}: takes no value; write {name} = true")


def _number(value: object, what: str, least: int = 0, most: int = 1_000_000_000) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what}: must be a whole number from {least} to {most}")
    return value


def _keep(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("keep",))
    reason = value["keep"] or ""
    if not isinstance(reason, str):
        raise ValueError("keep: is followed by the reason, as text")
    return methods.Keep(reason)


def _null(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("null",))
    _no_option(value, "null")
    return methods.Null()


def _set(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("set",))
    constant = value["set"]
    if not isinstance(constant, (str, int, float)):
        raise ValueError("set: must be text, a number or a truth value")
    if isinstance(constant, float) and not math.isfinite(constant):
        raise ValueError("set: must be a finite number")
    if isinstance(constant, str) and "\0" in constant:
        raise ValueError("set: must not contain the character 0")
    return methods.Set(constant)


def _hash(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("hash", "domain"))
    width = value["hash"]
    return methods.Hash(
        0 if width is None or width is True else _number(width, "hash", methods.LEAST_WIDTH, 64), _domain(value, "hash")
    )


def _email(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("email", "domain"))
    _no_option(value, "email")
    return methods.Email(_domain(value, "email"))


def _pick(name: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, (name, "domain"))
    _no_option(value, name)
    return methods.Pick(name, _domain(value, name))


def _text(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("text",))
    _no_option(value, "text")
    return methods.Text()


def _phone(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("phone", "domain"))
    mask = value["phone"] or ""
    if not isinstance(mask, str) or not re.fullmatch(r"[-+#0-9 ().]*", mask) or (mask and "#" not in mask):
        raise ValueError("phone: is followed by a mask, such as +1555#######")
    return methods.Phone(mask, _domain(value, "phone"))


def _mask(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("mask",))
    ends = value["mask"] or {}
    if not isinstance(ends, dict):
        raise ValueError("mask: must be a table such as { left = 1, right = 2 }")
    known(ends, ("left", "right"))
    return methods.Mask(_number(ends.get("left", 0), "left", 0, 100), _number(ends.get("right", 0), "right", 0, 100))


def _date(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("date", "domain"))
    to = value["date"] or "year"
    if isinstance(to, dict):
        known(to, ("shift",))
        return methods.Date("shift", _number(to.get("shift"), "shift", 1, 100_000), _domain(value, "date"))
    if to not in ("now", "year", "month"):
        raise ValueError("date: must be now, year, month or { shift = DAYS }")
    return methods.Date(to)


def _change(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("number", "domain"))
    how = value["number"]
    if not isinstance(how, dict) or len(how) != 1:
        raise ValueError("number: must be { bucket = SIZE } or { noise = PERCENT }")
    known(how, ("bucket", "noise"))
    if "bucket" in how:
        return methods.Number(bucket=_number(how["bucket"], "bucket", 1))
    return methods.Number(noise=_number(how["noise"], "noise", 1, 100), domain=_domain(value, "number"))


def _uuid(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("uuid", "domain"))
    _no_option(value, "uuid")
    return methods.Uuid(_domain(value, "uuid"))


def _ip(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("ip", "domain"))
    _no_option(value, "ip")
    return methods.Ip(_domain(value, "ip"))


def _choice(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("choice", "domain"))
    values = value["choice"]
    if (
        not isinstance(values, list)
        or not values
        or any(isinstance(one, bool) or not isinstance(one, (str, int)) for one in values)
    ):
        raise ValueError("choice: must be a list of values")
    return methods.Choice(tuple(str(one) for one in values), _domain(value, "choice"))


def _file(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("file",))
    content = value["file"] or "empty"
    if content not in ("empty", "png", "pdf"):
        raise ValueError("file: must be empty, png or pdf")
    return methods.File(content)


def _expression(_: str, value: Mapping[str, object]) -> AnyMethod:
    known(value, ("sql", "unique"))
    expression = value["sql"]
    if not isinstance(expression, str) or not expression.strip():
        raise ValueError("sql: must be an expression")
    unique = value.get("unique", False)
    if not isinstance(unique, bool):
        raise ValueError("unique: must be true or false")
    return methods.Sql(expression, unique)


def _unused(_: str, value: Mapping[str, object]) -> AnyMethod:
    raise AssertionError(value)  # JSON is read where the methods of its paths are known


READERS: dict[str, Callable[[str, Mapping[str, object]], AnyMethod]] = {
    "keep": _keep,
    "null": _null,
    "set": _set,
    "hash": _hash,
    "email": _email,
    "text": _text,
    "phone": _phone,
    "mask": _mask,
    "date": _date,
    "number": _change,
    "uuid": _uuid,
    "ip": _ip,
    "choice": _choice,
    "file": _file,
    "json": _unused,
    "sql": _expression,
    **dict.fromkeys(DICTIONARIES, _pick),
}
