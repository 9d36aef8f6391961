"""A gate that is the user's own proxy: its configuration includes one file of Holdfast's, which is replaced.

The record in `gate.json`, as the front has it, says what the file must be; the file is made from the record only. Both
are durable before the proxy is reloaded, so after a kill or a power cut the proxy starts with the file as it is, and a
repetition completes the change. Whether the proxy follows is decided by the answers that visitors get, never by an exit
code.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.drivers.gates import maintenance_page
from holdfast.drivers.gates.pages import own_page
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.drivers.gates.proxy.probe import Answer, SiteProbe
from holdfast.drivers.gates.state_file import GateFacts, GateStateFile, end_preview, hold, preview
from holdfast.errors import CommandFailedError, CommandTimeoutError, StepError
from holdfast.model import GateState, Problem, ServiceInstance
from holdfast.system import durable

GATE_PATH = "/.holdfast/gate"
GATE_HEADER = "X-Holdfast-Gate"
PREVIEW_COOKIE = "holdfast_preview"
_FOLLOW_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 300  # the proxy's header stays as it is while the expected end comes nearer
_INCLUDE_MODE = 0o644  # the proxy may run under another account, which has to read it
_NO_ANSWER_FROM_WEB = (502, 504)
_NOTHING: GateFacts = {
    "release": None,
    "target": None,
    "hold": None,
    "operation": None,
    "preview_target": None,
    "preview_token": None,
}


@dataclass(frozen=True)
class View:
    """The state that the file must express.

    `target` and `preview_target` are host:port; `seed` is the operator's file before ours. `folder` is the path at
    which the proxy sees the file's folder.
    """

    state_tag: str
    closed: bool
    target: str
    preview_target: str
    preview_token: str
    seed: str | None
    headers: Mapping[str, str]
    html: str
    json: str
    nameservers: tuple[str, ...]
    folder: str


class Product(Protocol):
    """The differences between proxies."""

    name: str

    def text(self, view: View) -> str:
        """Return the content of the file."""

    def test(self) -> None:
        """Make the proxy check its whole configuration without applying it. Raise CommandFailedError."""

    def reload(self) -> None:
        """Make the proxy reload. Raise CommandFailedError."""

    def follows_without_reload(self) -> bool:
        """Return whether the proxy follows everything but a change of the text once `lead` returned."""

    def apply_routing(self, folder: Path, view: View) -> None:
        """Write the state that the proxy reads with each request, durably and effective at once. Idempotent."""

    def watch(self, led_to: Collection[str] | None) -> Callable[[str, float | None], None]:
        """Prepare for a change; return a function that waits until the old state serves no visitor.

        `led_to` has the addresses, each host:port, where visitors may be by the present state, if known. The returned
        function receives the answer on the gate's own path after the change; given seconds, it waits as long for
        requests that began before, then cuts them.
        """


class ProxyGate:
    def __init__(
        self,
        folder: Path,
        include: Path,
        product: Product,
        place: ProxyLocation,
        door: SiteProbe,
        *,
        message: str = "",
        template: str = "",
        pages: GateFacts | None = None,
        drain_seconds: float = 10,
    ) -> None:
        self._folder = folder
        self._record = GateStateFile(folder)
        self._include = include
        self._product = product
        self._place = place
        self._door = door
        self._message = message
        self._template = template
        self._pages: GateFacts = pages or {}
        self._drain_seconds = drain_seconds

    def _change(self, change: Callable[[GateFacts], None], *, drain: bool = False) -> None:
        with self._record.locked():
            state: GateFacts = {**_NOTHING, **self._record.read()}
            before = json.dumps(state, sort_keys=True)
            state.setdefault("id", secrets.token_hex(6))
            state.update({"message": self._message, "template": self._template})
            state.update(self._pages)
            if "seed" not in state and self._include.exists():
                state["seed"] = self._include.read_text()
            change(state)
            if json.dumps(state, sort_keys=True) != before:
                state["generation"] = state.get("generation", 0) + 1
            self._apply(state, json.loads(before), self._drain_seconds if drain else None)

    def state(self) -> GateState:
        return self._record.state()

    def close(self, reason: Mapping[str, object], preview_target: str | None = None) -> None:
        def change(state: GateFacts) -> None:
            state.update({"operation": dict(reason)})
            if preview_target is not None:
                preview(state, preview_target)

        self._change(change, drain=True)

    def open(self) -> None:
        self._change(end_preview)

    def hold(self, reason: Mapping[str, object] | None) -> None:
        self._change(lambda state: hold(state, dict(reason) if reason is not None else None), drain=reason is not None)

    def route(self, release: str, target: str) -> None:
        self._change(lambda state: state.update({"release": release, "target": target}), drain=True)

    # --- the file ------------------------------------------------------------------------------------

    def _view(self, state: GateFacts) -> View:
        reason = state.get("hold") or state.get("operation") or {}
        message = str(reason.get("message") or self._message or maintenance_page.DEFAULT_MESSAGE)
        template = Path(self._template) if self._template else None
        headers, html = maintenance_page.render(reason, message, template, "text/html", own=own_page(state, 503))
        _, found = maintenance_page.render(reason, message, None, "application/json")
        headers.pop("Content-Type")
        headers["Retry-After"] = str(min(int(headers["Retry-After"]), _LONGEST_RETRY_SECONDS))
        held = state.get("hold") is not None or state.get("operation") is not None
        # Before the first route, visitors still reach whatever the operator's own file defines.
        seed = state.get("seed") if not held and not state.get("target") else None
        return View(
            state_tag=_state_tag(state),
            closed=held or (not state.get("target") and seed is None),
            target=state.get("target") or "",
            preview_target=(state.get("preview_target") or state.get("target") or "")
            if state.get("preview_token")
            else "",
            preview_token=state.get("preview_token") or "",
            seed=seed,
            headers=headers,
            html=html.decode(),
            json=found.decode(),
            nameservers=tuple(self._place.nameservers()),
            folder=self._place.seen_at(self._include.parent),
        )

    def _apply(self, state: GateFacts, before: GateFacts, drain_seconds: float | None) -> None:
        """Bring the proxy to a state that survives the end of this process. Raise StepError."""
        view = self._view(state)
        text = self._product.text(view)
        present = self._include.read_text() if self._include.exists() else None
        if present == text and state.get("settled") == state["generation"] and _follows(self._ask(), view):
            return
        state["led_to"] = _led_to(before, state.get("seed"))
        self._record.write(state)
        drain = self._product.watch(state["led_to"])
        self._write(text, view)
        if not self._place.runs() or (not self._place.is_container and self._ask() is None):
            return  # it reads the file at its start
        if not (present == text and self._product.follows_without_reload() and _follows(self._ask(), view)):
            self._test(present, before)
            self._product.reload()
        drain(self._wait(view), drain_seconds)
        self._refuse_bypass(view)
        self._record.write({**state, "settled": state["generation"]})

    def _write(self, text: str, view: View) -> None:
        durable.make_directory(self._include.parent, 0o755)
        self._product.apply_routing(self._include.parent, view)
        durable.write_file(self._include, text, _INCLUDE_MODE)

    def _test(self, present: str | None, before: GateFacts) -> None:
        """Restore the previous file if the proxy rejects the new one, because it would not start with that either.

        Raise StepError.
        """
        try:
            self._product.test()
        except (CommandFailedError, CommandTimeoutError) as error:
            if present is not None:
                self._write(present, self._view(before))
                self._record.write(before)
            raise StepError(
                f"{self._product.name} rejects its configuration with {self._include}:\n{error.state.strip()}",
                state="It continues with the previous configuration.",
                next_step="Compare the configuration with the lines in docs/howto/proxies.md.",
            ) from error

    def _ask(self) -> str | None:
        """Return the answer on the gate's own path; None where nothing listens."""
        try:
            answer = self._door.get(GATE_PATH)
        except (OSError, http.client.HTTPException):
            return ""
        return None if answer.status == 0 else answer.body

    def _wait(self, view: View) -> str:
        """Return the first answer of the new state; old workers may still give the next one. Raise StepError."""
        deadline = time.monotonic() + _FOLLOW_SECONDS
        while not _follows(answer := self._ask(), view):
            if time.monotonic() > deadline:
                raise StepError(
                    f"{self._product.name} does not follow {self._include}:"
                    f" {self._door.url} does not answer with its state",
                    next_step="Check that the server block includes that file (docs/howto/proxies.md) and that"
                    " gate.check_url reaches it.",
                )
            time.sleep(_LOOK_SECONDS)
        return answer or ""

    def _visit(self, cookie: str = "") -> Answer:
        """Return the answer that a visitor gets. Raise StepError where the proxy itself fails."""
        try:
            return self._door.get(cookie=cookie)
        except (OSError, http.client.HTTPException) as error:
            raise StepError(f"{self._product.name} does not answer {self._door.url}: {error}") from error

    def _refuse_bypass(self, view: View) -> None:
        """Raise StepError where the proxy follows the file, but visitors bypass it."""
        answer = self._visit()
        met = answer.headers.get(GATE_HEADER.lower()) == view.state_tag and answer.status == 503
        if view.closed and not met:
            raise StepError(
                f"visitors are not held: {self._door.url} answered {answer.status} instead of the maintenance page",
                next_step="Route requests with the lines of docs/howto/proxies.md in the configuration of"
                f" {self._product.name}.",
            )
        if not view.closed and GATE_HEADER.lower() in answer.headers:
            raise StepError(f"visitors still get the maintenance page at {self._door.url}")

    @property
    def is_inside(self) -> bool:
        return self._place.is_container

    def probe_upstream(self, target: str) -> None:
        """Prove that requests through the proxy reach a web service that has no visitors. Raise StepError.

        Idempotent. Holders of the preview's cookie reach it from then on.
        """
        self._change(lambda state: preview(state, target))
        deadline = time.monotonic() + _FOLLOW_SECONDS
        while True:
            answer = self._visit(f"{PREVIEW_COOKIE}={self.state().preview_token}")
            if GATE_HEADER.lower() in answer.headers:
                raise StepError(f"{self._product.name} does not route the holder of the preview's cookie to {target}")
            if answer.status not in _NO_ANSWER_FROM_WEB:
                return
            if time.monotonic() > deadline:
                raise StepError(
                    f"{self._product.name} does not reach the web service at {target}:"
                    f" {self._door.url} answered {answer.status}",
                    next_step="Connect the proxy and the web service to the same network of the project.",
                )
            time.sleep(_LOOK_SECONDS)

    # --- methods of every gate -----------------------------------------------------------------------

    def answers(self) -> bool:
        state = self._record.read()
        return bool(state) and _tag_in(self._ask()) == _state_tag(state)

    def instance(self) -> ServiceInstance | None:
        return None

    def check(self) -> list[Problem]:
        try:
            problem = self._trouble()
        except StepError as error:
            return [Problem("gate", "error", error.what, error.next_step)]
        return [Problem("gate", "error", *problem)] if problem else []

    def _trouble(self) -> tuple[str, str] | None:
        name, pages = self._product.name, "docs/howto/proxies.md"
        if not self._include.exists():
            return f"{self._include} does not exist", f"Create it with the few lines that {pages} shows."
        if unseen := self._place.unseen(self._include):
            return unseen, f"Mount the folder {self._include.parent}."
        if not self._place.runs():
            return f"the container of {name} does not run", "Start it."
        if not self._record.read():
            return None  # no state was written yet
        if not self.answers():
            problem = f"{name} does not follow {self._include}: {self._door.url} does not answer with its state"
            return problem, f"Compare the configuration with the lines in {pages}."
        return None


def _state_tag(state: GateFacts) -> str:
    return f"{state.get('id')}-{state.get('generation', 0)}"


def _led_to(before: GateFacts, seed: str | None) -> list[str] | None:
    """Return the addresses with requests in progress before a change; None if the operator's own file decided.

    After an unfinished change, the addresses before it are included.
    """
    held = before.get("hold") is not None or before.get("operation") is not None
    found = {str(before[key]) for key in ("target", "preview_target") if before.get(key)}
    if before.get("settled") != before.get("generation"):
        left = before.get("led_to")
        return None if left is None else sorted(found | set(left))
    return None if seed is not None and not held and not before.get("target") else sorted(found)


def _tag_in(answer: str | None) -> str:
    return (answer or "").split(" ")[0]


def _follows(answer: str | None, view: View) -> bool:
    return _tag_in(answer) == view.state_tag
