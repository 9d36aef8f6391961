"""Values in the text of a YAML file: set in place, so that every other byte stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from holdfast.errors import RefusedError


def edit(content: bytes, values: Mapping[str, str]) -> bytes:
    """Return the content with other values; a key such as `main.maintenance` names nested mappings.

    A value is YAML itself, such as `true` or `"a text"`. A key that is missing is added as the first one of its
    mapping. Raise RefusedError where the file is not such YAML.
    """
    text = content.decode()
    for key, value in values.items():
        text = _set(text, key.split("."), value)
    return text.encode()


def put_back(content: bytes, original: bytes, keys: Iterable[str]) -> bytes:
    """Return the content with these keys as they are in the original: with their values of then, or removed.

    Raise RefusedError where that is not possible without changing anything else.
    """
    text, before = content.decode(), original.decode()
    for key in keys:
        path = key.split(".")
        depth, place = _find(before, path)
        if depth == len(path):
            text = _set(text, path, before[place[0] : place[1]].rstrip("\n"))
        elif _find(text, path)[0] > depth:
            _, (start, end) = _find(text, path[: depth + 1], whole=True)
            line = text.rfind("\n", 0, start) + 1
            rest = text.find("\n", max(end - 1, start))
            text = text[:line] + (text[rest + 1 :] if rest >= 0 else "")
    return text.encode()


def _find(text: str, path: Sequence[str], *, whole: bool = False) -> tuple[int, tuple[int, int]]:
    """Return how much of a path exists, and where the last value of it is; `whole`: with its key."""
    import yaml  # noqa: PLC0415 # only where such a file is written

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RefusedError(f"{'.'.join(path)} cannot be set: {' '.join(str(error).split())}") from error
    place = (0, 0)
    for depth, name in enumerate(path):
        found = [pair for pair in node.value if pair[0].value == name] if isinstance(node, yaml.MappingNode) else []
        if not found:
            return depth, place
        key, node = found[-1]
        place = (key.start_mark.index if whole else node.start_mark.index, node.end_mark.index)
    return len(path), place


def _set(text: str, path: Sequence[str], value: str) -> str:
    import yaml  # noqa: PLC0415 # only where such a file is written

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        wanted = yaml.safe_load(value)
        before = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RefusedError(f"{'.'.join(path)} cannot be set: {' '.join(str(error).split())}") from error
    edited = _replaced(text, node, path, value)
    try:
        found = yaml.safe_load(edited)
    except yaml.YAMLError:
        found = None
    expected = before if isinstance(before, dict) else {}
    inner = expected
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = wanted
    if found != expected:  # as with an anchor to which other places refer
        raise RefusedError(f"{'.'.join(path)} cannot be set without changing other values of the file")
    return edited


def _replaced(text: str, node: object, path: Sequence[str], value: str) -> str:
    import yaml  # noqa: PLC0415 # as above

    for depth, name in enumerate(path):
        if not isinstance(node, yaml.MappingNode) or node.flow_style:
            raise RefusedError(f"{'.'.join(path[:depth])} is not a mapping of lines, so {name} cannot be set in it")
        found = [(key, item) for key, item in node.value if key.value == name]
        if not found:
            return _added(text, node.start_mark, path[depth:], value)
        key, item = found[-1]
        if depth == len(path) - 1:
            if not isinstance(item, yaml.ScalarNode) or item.start_mark.index < key.end_mark.index:
                raise RefusedError(f"{'.'.join(path)} is not a single value, so it cannot be set")
            space = "" if text[item.start_mark.index - 1].isspace() else " "
            if item.style in ("|", ">"):
                value += "\n"
            return f"{text[: item.start_mark.index]}{space}{value}{text[item.end_mark.index :]}"
        node = item
    raise AssertionError("unreachable")


def _added(text: str, start: object, path: Sequence[str], value: str) -> str:
    """Return the text with new keys before the first one of a mapping, indented as that is."""
    index, column = start.index, start.column  # type: ignore[attr-defined]  # of a yaml.Mark
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(path)]
    lines[-1] += f" {value}"
    new = f"\n{' ' * column}".join(lines)
    return f"{text[:index]}{new}\n{' ' * column}{text[index:]}"
