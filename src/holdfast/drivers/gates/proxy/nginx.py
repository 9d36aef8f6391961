"""nginx as the gate: its server block routes requests by variables in a file of Holdfast's.

Facts from its documentation and measured on 1.22: a reload starts new workers, and the old ones end once their requests
have ended; they are children of one process and have the title of workers. A parameter has at most 4 kB. Variables in
the text of `return` are replaced, and a dollar sign cannot be escaped. A name in a variable is looked up with the
`resolver` for each request, but the result is cached for the time in `valid`; a reload clears this cache. Text after
`return 503` is sent unchanged, without the server's own error pages.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.drivers.gates.proxy.driver import GATE_HEADER, GATE_PATH, PREVIEW_COOKIE, View
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.system import processes

_PAGE = "/.holdfast/page"
_NOWHERE = "unix:/holdfast-leads-nobody-to-the-web:"
_TITLE = "nginx: worker process"
_PARAMETER_BYTES = 3000
_ENDING_TITLE = f"{_TITLE} is shutting down"
_ACCEPTING_SECONDS = 5.0
_CUT_SECONDS = 5.0
_LOOK_SECONDS = 0.02


class Nginx:
    name = "nginx"

    def __init__(self, place: ProxyLocation, config: str = "") -> None:
        self._place = place
        self._config = ["-c", config] if config else []

    def test(self) -> None:
        self._place.run("nginx", *self._config, "-t", "-q")

    def reload(self) -> None:
        self._place.run("nginx", *self._config, "-s", "reload")

    def follows_without_reload(self) -> bool:
        return False

    def apply_routing(self, folder: Path, view: View) -> None:
        pass  # the file contains everything

    def watch(self, led_to: Collection[str] | None) -> Callable[[str, float | None], None]:
        try:
            namespace = processes.namespace_of(self._place.first_process())
            before = _workers(namespace)
        except OSError:  # the processes belong to another user
            namespace, before = "", {}

        def drain(answer: str, seconds: float | None) -> None:
            master = _master_of(answer, before, namespace) if namespace else None
            if master is None:
                time.sleep(_ACCEPTING_SECONDS if seconds is None else max(seconds, _ACCEPTING_SECONDS))
                return
            old = {pid: worker.started for pid, worker in before.items() if worker.master == master}
            _wait_for_last_visitor(old, namespace)
            if seconds is not None:
                _end(old, seconds)

        return drain

    def text(self, view: View) -> str:
        gate = f'location = {GATE_PATH} {{ {_PLAIN} return 200 "{view.state_tag} $pid"; }}'
        if view.seed is not None:
            return f"{view.seed.rstrip()}\n{gate}\n"
        lines = [
            "# Written by Holdfast, and replaced whenever the route of visitors changes. See docs/howto/proxies.md",
            f"set $holdfast_closed {_quoted('1' if view.closed else '')};",
            f"set $holdfast_web {_quoted(_NOWHERE if view.closed else view.target)};",
            f"set $holdfast_page {_PAGE};",
            f'if ($http_accept ~* "[/+]json") {{ set $holdfast_page {_PAGE}.json; }}',
            f'if ($http_accept ~* "text/html") {{ set $holdfast_page {_PAGE}; }}',
        ]
        if view.nameservers:
            servers = " ".join(f"[{item}]" if ":" in item else item for item in view.nameservers)
            lines.append(f"resolver {servers} valid=1s;")
        if view.preview_target:
            lines += [
                f'if ($cookie_{PREVIEW_COOKIE} = "{view.preview_token}") {{',
                '    set $holdfast_closed "";',
                f"    set $holdfast_web {_quoted(view.preview_target)};",
                "}",
            ]
        lines += [gate, *_page(_PAGE, "text/html; charset=utf-8", view.html.replace("$", "&#36;"), view)]
        lines += _page(f"{_PAGE}.json", "application/json", view.json.replace("$", "\\u0024"), view)
        return "\n".join(lines) + "\n"


_PLAIN = "types { } default_type text/plain; access_log off; add_header Cache-Control no-store always;"


def _page(path: str, kind: str, body: str, view: View) -> list[str]:
    given = {**view.headers, GATE_HEADER: view.state_tag}
    parts = _parts(body)
    return [
        f"location = {path} {{",
        f"    internal; types {{ }} default_type {_quoted(kind)};",
        *(f"    add_header {name} {_quoted(value)} always;" for name, value in given.items()),
        *(f"    set $holdfast_{number} {_quoted(part)};" for number, part in enumerate(parts)),
        f'    return 503 "{"".join(f"${{holdfast_{number}}}" for number in range(len(parts)))}";',
        "}",
    ]


def _parts(body: str) -> list[str]:
    """Split a text into parts that fit into a parameter."""
    found, size = [""], 0
    for character in body:
        length = len(_quoted(character).encode())
        if size + length > _PARAMETER_BYTES:
            found.append("")
            size = 0
        found[-1] += character
        size += length
    return found


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@dataclass(frozen=True)
class _Worker:
    started: int
    master: int
    inside: int  # its process id in its own namespace


def _workers(namespace: str) -> dict[int, _Worker]:
    """Return the workers of every nginx of a namespace: others may run besides this one."""
    found = {}
    for pid, started in processes.find_by_title(_TITLE, namespace).items():
        with contextlib.suppress(OSError):  # it has ended
            found[pid] = _Worker(started, processes.parent_of(pid), processes.known_inside_as(pid))
    return found


def _master_of(answer: str, before: Mapping[int, _Worker], namespace: str) -> int | None:
    """Return the master of the worker that answered, which may be one of `before` that has ended since.

    Return None where that worker is not known any more, because somebody else reloaded too.
    """
    parts = answer.split(" ")
    answered = int(parts[1]) if len(parts) == 2 and parts[1].isdigit() else 0
    known = [*_workers(namespace).values(), *before.values()]
    return next((worker.master for worker in known if worker.inside == answered), None)


def _wait_for_last_visitor(workers: Mapping[int, int], namespace: str) -> None:
    """Wait until old workers accept no more connections, which their title shows."""
    deadline = time.monotonic() + _ACCEPTING_SECONDS
    while processes.still_running(workers).keys() - processes.find_by_title(_ENDING_TITLE, namespace).keys():
        if time.monotonic() > deadline:
            return  # a hanging worker is ended later with the rest
        time.sleep(_LOOK_SECONDS)


def _end(workers: Mapping[int, int], seconds: float) -> None:
    """Wait until the workers ended by themselves, then end them, which cuts their requests."""
    deadline = time.monotonic() + seconds
    while processes.still_running(workers) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    deadline = time.monotonic() + _CUT_SECONDS
    while left := processes.still_running(workers):
        late = time.monotonic() > deadline
        processes.signal_processes(left, signal.SIGKILL if late else signal.SIGTERM)
        if time.monotonic() > deadline + _CUT_SECONDS:
            return  # they belong to another user
        time.sleep(_LOOK_SECONDS)
