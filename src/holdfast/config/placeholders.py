"""Placeholders in the commands of holdfast.toml: `{port}`, `{release}`, `{root}`, `{python}` and `{php_fpm}`."""

import difflib
import re
from collections.abc import Iterable, Mapping

PLACEHOLDERS = ("port", "release", "root", "python", "php_fpm")
# A word in braces, but no `${variable}` of a shell; doubled braces stand for plain ones.
_SECRET = re.compile(r"(^|=)secret:[A-Za-z_]")
_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}|(?<![${])\{([a-z_]+)\}")


def fill(word: str, values: Mapping[str, str]) -> str:
    """Return an argument with values in place of its placeholders."""

    def value(found: re.Match[str]) -> str:
        plain, name = found.groups()
        return f"{{{plain}}}" if plain else values.get(name, found[0])

    return _PLACEHOLDER.sub(value, word)


def unknown_placeholders(argv: Iterable[str], *, port: bool = True) -> list[str]:
    """Return a problem for each placeholder that does not exist, or `{port}` where there is no port."""
    known = [name for name in PLACEHOLDERS if port or name != "port"]
    problems = []
    for word in argv:
        if _SECRET.search(word):
            problems.append("a secret is never an argument, which other accounts can see; pass it by `environment`")
        for found in _PLACEHOLDER.finditer(word):
            name = found[2]
            if name == "port" and not port:
                problems.append("{port} is only known to services")
            elif name and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                means = f"did you mean {{{near[0]}}}?" if near else "known are {" + "}, {".join(known) + "}."
                problems.append(f"unknown placeholder {{{name}}}; {means} Write {{{{{name}}}}} for the plain text")
    return problems
