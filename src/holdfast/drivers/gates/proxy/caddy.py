"""Caddy as the gate: its site block imports a file of Holdfast's, whose routes read one file name per request.

Facts from its documentation and measured on 2.6: a reload opens the port a second time and then closes the first
socket, and connections that the kernel had queued there are reset: 47 of some 11,000, by four clients in 60 reloads. So
routes change without a reload. `try_files` takes patterns, looks at the matching names in their order, and stores the
match in a placeholder of the request, which a regular expression takes apart. It lists the names and then looks for the
file: one that was renamed in between is not found (1 of 2,348 requests, by four clients). The order of conditions
within one matcher is not defined; that of handlers within `route` is as written. Without `keepalive` towards the web
service, each request has its own connection.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from holdfast.drivers.gates.proxy.driver import GATE_HEADER, GATE_PATH, PREVIEW_COOKIE, View
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.errors import StepError
from holdfast.system import connections, durable

_PROGRAM = "caddy"
_CONFIG = "/etc/caddy/Caddyfile"
_FOLDER = "caddy"
_PAGES = {"page.html": "text/html; charset=utf-8", "page.json": "application/json"}
_PUBLIC_FOLDER, _PUBLIC_FILE = 0o755, 0o644  # Caddy may run under another account, which has to read them
_RETRY = "Retry-After"
_CONDITIONS = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_JUST_BEGUN_SECONDS = 0.3
_CUT_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_NAME = re.compile(r"[0-9]+,")
_FIRST = 999_999_999_999  # numbers count down, so that each new name sorts before the earlier ones


class Caddy:
    name = "caddy"

    def __init__(self, place: ProxyLocation, config: str = "") -> None:
        self._place = place
        self._config = ["--config", config or _CONFIG, "--adapter", "caddyfile"]

    def test(self) -> None:
        self._place.run(_PROGRAM, "validate", *self._config)

    def reload(self) -> None:
        self._place.run(_PROGRAM, "reload", *self._config)

    def follows_without_reload(self) -> bool:
        return True

    def apply_routing(self, folder: Path, view: View) -> None:
        now, pages = folder / _FOLDER / "now", folder / _FOLDER / "pages"
        for each in (now, pages / view.state_tag):
            durable.make_directory(each, _PUBLIC_FOLDER)
        for name, body in (("page.html", view.html), ("page.json", view.json)):
            durable.write_file(pages / view.state_tag / name, body, _PUBLIC_FILE)
        found = sorted(filter(_NAME.match, os.listdir(now)))
        wanted = ",".join(_parts(view))
        if not found or found[0].partition(",")[2] != wanted:
            order = int(found[0].partition(",")[0]) - 1 if found else _FIRST
            durable.write_file(folder / _FOLDER / "next", "", _PUBLIC_FILE)
            durable.rename(folder / _FOLDER / "next", now / f"{order:0{len(str(_FIRST))}},{wanted}")
        # The previous file stays, because a request that has listed the names may still look for it.
        for other in set(os.listdir(now)) - set(sorted(filter(_NAME.match, os.listdir(now)))[:2]):
            durable.unlink(now / other)
        shown = {view.state_tag, *(item.split(",")[1] for item in found)}
        for state_tag in set(os.listdir(pages)) - shown:
            durable.remove_tree(pages / state_tag)

    def watch(self, led_to: Collection[str] | None) -> Callable[[str, float | None], None]:
        places = [target.rpartition(":") for target in led_to or ()]
        webs = {(address, int(port)) for name, _, port in places for address in self._place.addresses_of(name)}

        def drain(answer: str, seconds: float | None) -> None:
            if seconds is not None and not (led_to is not None and self._drained(webs, seconds)):
                time.sleep(seconds)

        return drain

    def _under_way(self, webs: Iterable[tuple[str, int]]) -> set[int]:
        return connections.to(webs, by=_PROGRAM, near=self._place.first_process())

    def _drained(self, webs: set[tuple[str, int]], seconds: float) -> bool:
        """Drain, and return True; return False where Caddy's connections are another user's and cannot be seen."""
        try:
            self._drain(webs, seconds)
        except PermissionError:
            return False
        return True

    def _drain(self, webs: set[tuple[str, int]], seconds: float) -> None:
        begun = time.monotonic()
        known: set[int] = set()
        while (passed := time.monotonic() - begun) <= max(seconds, _JUST_BEGUN_SECONDS):
            now = self._under_way(webs)
            if passed < _JUST_BEGUN_SECONDS:  # a request that has just arrived may not have reached the web service yet
                known |= now
            elif not known & now:
                return
            time.sleep(_LOOK_SECONDS)
        self._cut(known, webs)

    def _cut(self, known: set[int], webs: set[tuple[str, int]]) -> None:
        deadline = time.monotonic() + _CUT_SECONDS
        while left := known & self._under_way(webs):
            connections.cut(left, by=_PROGRAM)
            if time.monotonic() > deadline:
                raise StepError(f"{len(left)} requests under way in {self.name} cannot be ended")
            time.sleep(_LOOK_SECONDS)

    def text(self, view: View) -> str:
        if view.seed is not None:
            gate = _block(f"handle {GATE_PATH}", "header Cache-Control no-store", f'respond "{view.state_tag}" 200')
            return "\n".join([view.seed.rstrip(), *gate]) + "\n"
        folder = f"{view.folder}/{_FOLDER}"
        lines = [
            "# Written by Holdfast. The name of the file in the folder below says where requests go."
            " See docs/howto/proxies.md",
            *_block("@holdfast file", f"root `{folder}/now`", f"try_files {','.join('*' * (1 + len(_parts(view))))}"),
            *_block(
                "route",
                *_block(f"handle {GATE_PATH}", *_block("route @holdfast", *_answer())),
                *_block("route @holdfast", *_preview(), *_open(), *_closed(folder, view)),
                'respond "The state of the gate is not known: see docs/howto/proxies.md of Holdfast." 503',
            ),
        ]
        return "\n".join(lines) + "\n"


def _parts(view: View) -> tuple[str, ...]:
    """Return the parts of the file's name after its number. A state's tag, host:port and a secret contain no comma."""
    state = "closed" if view.closed else "open"
    return view.state_tag, state, view.headers[_RETRY], view.target, view.preview_target, view.preview_token


def _matcher(name: str, pattern: str) -> str:
    return f"@holdfast_{name} vars_regexp holdfast_{name} {{http.matchers.file.relative}} `^/?[0-9]+,{pattern}$`"


def _answer() -> list[str]:
    return [
        _matcher("any", "([^,]+),.*"),
        "header Cache-Control no-store",
        "respond @holdfast_any {re.holdfast_any.1} 200",
    ]


def _preview() -> list[str]:
    """Return the route for the holder of the cookie; without the cookie, the next route applies."""
    cookie = f"@holdfast_cookie vars {{http.request.cookie.{PREVIEW_COOKIE}}} {{re.holdfast_preview.2}}"
    web = _leading("@holdfast_cookie {re.holdfast_preview.1}")
    return [
        _matcher("preview", "[^,]+,[^,]+,[^,]*,[^,]*,([^,]+),([^,]+)"),
        *_block("route @holdfast_preview", cookie, *web),
    ]


def _open() -> list[str]:
    return [_matcher("open", "[^,]+,open,[^,]*,([^,]+),.*"), *_leading("@holdfast_open {re.holdfast_open.1}")]


def _closed(folder: str, view: View) -> list[str]:
    """Return the route of the maintenance page, a file that is sent as a whole, whatever the request asks for."""
    given = {name: value for name, value in view.headers.items() if name != _RETRY}
    given |= {_RETRY: "{re.holdfast_closed.2}", GATE_HEADER: "{re.holdfast_closed.1}"}
    lines = [
        *(f"header {name} {value if value.startswith('{') else f'`{value}`'}" for name, value in given.items()),
        *(f"request_header -{name}" for name in _CONDITIONS),
        "method GET",
        f"root * `{folder}/pages/{{re.holdfast_closed.1}}`",
        *_block("@holdfast_json", "header Accept *json*", "not header Accept *text/html*"),
        *_block("handle @holdfast_json", *_page("page.json")),
        *_block("handle", *_page("page.html")),
    ]
    return [_matcher("closed", "([^,]+),closed,([^,]*),.*"), *_block("route @holdfast_closed", *lines)]


def _page(name: str) -> list[str]:
    headers = [f"header Content-Type `{_PAGES[name]}`", "header -ETag", "header -Last-Modified"]
    return [f"rewrite * /{name}", *headers, *_block("file_server", "status 503")]


def _block(head: str, *lines: str) -> list[str]:
    return [f"{head} {{", *(f"    {line}" for line in lines), "}"]


def _leading(target: str) -> list[str]:
    return _block(f"reverse_proxy {target}", *_block("transport http", "keepalive off"))
