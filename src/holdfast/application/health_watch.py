"""The judgement of a service that was started, by what was seen of it: pending, healthy or failed. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from holdfast.model import ServiceInstance, ServiceStatus

_RETRIED = ("backoff", "exited")  # the process ended, and the runtime starts it again
_DEAD = ("fatal", "unknown")
_BROKEN = (500, 501)
_NOT_YET = (502, 503, 504)
_UNHEALTHY = "unhealthy"  # of a container: as many failures in a row as its health check allows, after its start period
_BROKEN_SECONDS, _BROKEN_SETTLES = 3.0, 3


class Terms(msgspec.Struct, frozen=True):
    """What a service must show: which release, how long it may take, and how long it must stay up.

    With `patient` the runtime may start a process that ended again.
    """

    release: str
    timeout_seconds: float
    settle_seconds: float
    patient: bool = False

    @property
    def broken_seconds(self) -> float:
        """Return for how long a web may answer that it is broken, from its first answer on."""
        return max(_BROKEN_SECONDS, _BROKEN_SETTLES * self.settle_seconds)


class Seen(msgspec.Struct, frozen=True):
    """What was seen of a service; times are seconds since the verification began.

    `since` is when its present process was first seen. What a look did not ask for has its default.
    """

    at: float
    status: ServiceStatus | None
    since: float = 0.0
    broken_since: float | None = None
    """When its first answer said that it is broken, if each one since then did."""
    has_answered: bool = False
    """Whether it has given any answer of its own."""
    said: str = "it has not answered yet"
    """What its health check says, or last said."""
    restarted: bool = False
    """Whether it has another process than at the look before."""
    healthy: bool = False
    release: str | None = None
    """The release that it runs, which only a settled service is asked for."""
    port_taken: bool = False
    """Whether its port belongs to a process that is not its own."""
    ended_backend: tuple[ServiceInstance, ServiceStatus | None] | None = None

    @property
    def pid(self) -> int | None:
        return self.status.pid if self.status is not None else None

    def compared_with(self, before: Seen | None) -> Seen:
        """Return this with what the look before adds to it: since when, and whether it is another process."""
        if before is None:
            return replace(self, since=self.at)
        if self.pid == before.pid:
            return replace(
                self,
                said=before.said,
                since=before.since,
                broken_since=before.broken_since,
                has_answered=before.has_answered,
            )
        restarted = before.pid is not None and self.pid is not None
        return replace(self, said=before.said, since=self.at, restarted=restarted)

    def answered(self, status: int | None) -> Seen:
        """Return this with an HTTP status that it answered; None if it gave no answer.

        A proxy in front of the application answers 502 to 504 while the application starts, and an application may say
        503 itself: such an answer says nothing yet.
        """
        if status is None or status in _NOT_YET:
            return self
        since = self.broken_since if self.has_answered else self.at
        return replace(self, has_answered=True, broken_since=since if status in _BROKEN else None)

    def is_settled(self, terms: Terms) -> bool:
        """Return whether it is healthy and has stayed up long enough."""
        # Services of one step come up at the same time, so a service's uptime counts, not how long it was watched.
        uptime = self.status.uptime_seconds if self.status is not None else 0.0
        return self.healthy and max(self.at - self.since, uptime) >= terms.settle_seconds


class Pending(msgspec.Struct, frozen=True):
    """Nothing is decided yet."""


class Healthy(msgspec.Struct, frozen=True):
    """It runs, is of its release, stays up and is healthy."""


class PortTaken(msgspec.Struct, frozen=True):
    """It failed because another process has its port."""


class Failed(msgspec.Struct, frozen=True):
    """It failed; `service` is the one to blame if that is another one."""

    why: str
    service: ServiceInstance | None = None
    is_late: bool = False
    """Whether it runs, but did not become healthy in time."""


Verdict = Pending | Healthy | PortTaken | Failed


def is_down(status: ServiceStatus | None, *, patient: bool = False) -> bool:
    """Return whether a service does not stay up."""
    return status is None or status.detail in _DEAD or (status.detail in _RETRIED and not patient)


def judge(seen: Seen, terms: Terms) -> Verdict:
    """Return what the last look at a service decides."""
    if seen.ended_backend is not None:
        backend, status = seen.ended_backend
        return Failed(_not_up(status), backend)
    if is_down(seen.status, patient=terms.patient):
        return PortTaken() if seen.port_taken else Failed(_not_up(seen.status))
    if seen.restarted and not terms.patient:
        return Failed("it was restarted while it was verified")
    if seen.status is not None and seen.status.detail == _UNHEALTHY and not terms.patient:
        return Failed("its health check has turned unhealthy")
    if seen.release is not None:
        if seen.release != terms.release:
            return Failed(f"it runs release {seen.release}")
        return PortTaken() if seen.port_taken else Healthy()
    if seen.broken_since is not None and not terms.patient and seen.at - seen.broken_since >= terms.broken_seconds:
        return Failed(f"not healthy for {seen.at - seen.broken_since:.0f} s since its first answer: {seen.said}")
    if seen.at > terms.timeout_seconds:
        return Failed(f"not healthy after {terms.timeout_seconds:g} s: {seen.said}", is_late=True)
    return Pending()


def _not_up(status: ServiceStatus | None) -> str:
    return f"it does not stay up ({status.detail if status is not None else 'gone'})"
