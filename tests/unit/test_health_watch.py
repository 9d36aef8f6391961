"""What is seen of a service decides whether it is healthy, has failed, or may still become healthy."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from holdfast.application.health_watch import Failed, Healthy, Pending, PortTaken, Seen, Terms, is_down, judge
from holdfast.model import ServiceInstance, ServiceStatus

TERMS = Terms(release="r2", timeout_seconds=60.0, settle_seconds=1.0)
PATIENT = replace(TERMS, patient=True)
RUNNING = ServiceStatus("web-r2", True, 7, 0.0, "running")
BACKEND = ServiceInstance("app-r2", "app", "backend", "r2", "/", (), {})


def status(detail: str, pid: int | None = None) -> ServiceStatus:
    return ServiceStatus("web-r2", pid is not None, pid, 0.0, detail)


def test_what_runs_but_was_not_asked_yet_is_pending() -> None:
    assert judge(Seen(0.0, RUNNING), TERMS) == Pending()
    assert judge(Seen(0.0, status("starting")), TERMS) == Pending()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "it does not stay up (gone)"),
        (status("fatal"), "it does not stay up (fatal)"),
        (status("unknown"), "it does not stay up (unknown)"),
        (status("backoff"), "it does not stay up (backoff)"),
        (status("exited"), "it does not stay up (exited)"),
    ],
)
def test_a_service_that_ended_failed(found: ServiceStatus | None, why: str) -> None:
    assert judge(Seen(0.0, found), TERMS) == Failed(why)


@pytest.mark.parametrize("detail", ["backoff", "exited"])
def test_patience_allows_the_retries_of_the_runtime_and_no_more(detail: str) -> None:
    assert judge(Seen(0.0, status(detail)), PATIENT) == Pending()
    assert not is_down(status(detail), patient=True)
    assert judge(Seen(0.0, status("fatal")), PATIENT) == Failed("it does not stay up (fatal)")


def test_a_service_that_ended_for_want_of_its_port_is_told_from_others() -> None:
    assert judge(Seen(0.0, status("exited"), port_taken=True), TERMS) == PortTaken()
    assert judge(Seen(2.0, RUNNING, healthy=True, release="r2", port_taken=True), TERMS) == PortTaken()


def test_an_ended_backend_is_blamed_before_the_web() -> None:
    seen = Seen(0.0, None, ended_backend=(BACKEND, status("exited")))
    assert judge(seen, TERMS) == Failed("it does not stay up (exited)", BACKEND)
    assert judge(replace(seen, ended_backend=(BACKEND, None)), TERMS) == Failed("it does not stay up (gone)", BACKEND)


def test_another_process_is_a_failure_unless_the_service_ran_before() -> None:
    assert judge(Seen(3.0, RUNNING, restarted=True), TERMS) == Failed("it was restarted while it was verified")
    assert judge(Seen(3.0, RUNNING, restarted=True), PATIENT) == Pending()


@pytest.mark.parametrize(
    ("at", "since", "uptime", "healthy", "settled"),
    [
        (0.5, 0.0, 0.0, True, False),
        (1.0, 0.0, 0.0, True, True),
        (5.0, 4.5, 0.0, True, False),  # its present process is young
        (0.1, 0.0, 1.0, True, True),  # it ran before anyone looked
        (9.0, 0.0, 9.0, False, False),
    ],
)
def test_it_is_settled_once_it_is_healthy_and_stayed_up(
    at: float, since: float, uptime: float, healthy: bool, settled: bool
) -> None:
    seen = Seen(at, replace(RUNNING, uptime_seconds=uptime), since=since, healthy=healthy)
    assert seen.is_settled(TERMS) is settled


def test_a_health_check_that_has_turned_unhealthy_is_not_waited_for() -> None:
    """A container may still be `starting`; it is `unhealthy` after as many failures as its own check allows."""
    seen = Seen(3.0, replace(RUNNING, healthy=False, detail="unhealthy"))
    assert judge(seen, TERMS) == Failed("its health check has turned unhealthy")
    assert judge(seen, PATIENT) == Pending()
    assert judge(Seen(3.0, replace(RUNNING, healthy=False, detail="starting")), TERMS) == Pending()


def test_the_release_decides_in_the_end() -> None:
    assert judge(Seen(2.0, RUNNING, healthy=True, release="r2"), TERMS) == Healthy()
    assert judge(Seen(2.0, RUNNING, healthy=True, release="r1"), TERMS) == Failed("it runs release r1")
    assert judge(Seen(99.0, RUNNING, healthy=True, release="r2"), TERMS) == Healthy(), "even if it comes late"


def test_the_time_is_over_with_what_the_health_check_said_last() -> None:
    seen = Seen(60.0, RUNNING, said="answered 500")
    assert judge(seen, TERMS) == Pending()
    assert judge(replace(seen, at=60.1), TERMS) == Failed("not healthy after 60 s: answered 500", is_late=True)
    assert judge(Seen(61.0, RUNNING), TERMS) == Failed("not healthy after 60 s: it has not answered yet", is_late=True)


def test_a_look_is_compared_with_the_one_before() -> None:
    first = Seen(1.0, RUNNING).compared_with(None)
    assert (first.since, first.restarted) == (1.0, False)
    same = Seen(2.0, RUNNING).compared_with(replace(first, said="answered 500"))
    assert (same.since, same.restarted, same.said) == (1.0, False, "answered 500")
    other = Seen(3.0, replace(RUNNING, pid=8)).compared_with(same)
    assert (other.since, other.restarted) == (3.0, True)
    ended = Seen(4.0, status("exited")).compared_with(other)
    assert ended.restarted is False
    again = Seen(5.0, replace(RUNNING, pid=9)).compared_with(ended)
    assert (again.since, again.restarted) == (5.0, False), "the end in between was judged at its own look"


def _answering(*answers: tuple[float, int | None]) -> Seen:
    """What is seen of a web that answers with these statuses at these times."""
    seen = None
    for at, answered in answers:
        seen = Seen(at, RUNNING).compared_with(seen).answered(answered)
    assert seen is not None
    return seen


@pytest.mark.parametrize(
    ("answers", "given_up"),
    [
        ([(1.0, 500), (3.9, 500)], False),
        ([(1.0, 500), (4.0, 500)], True),
        ([(1.0, None), (2.0, 501), (7.0, 500)], True),
        ([(1.0, 503), (2.0, 500), (7.0, 500)], True),  # 503 was not its first answer
        ([(1.0, 500), (3.0, None), (4.0, 502), (6.0, 500)], True),
        ([(1.0, 404), (2.0, 500), (9.0, 500)], False),  # it has answered otherwise
        ([(1.0, 500), (3.0, 404), (4.0, 500), (9.0, 500)], False),
        ([(1.0, 502), (9.0, 504)], False),
        ([(1.0, None), (9.0, None)], False),
    ],
)
def test_a_web_that_is_broken_from_its_first_answer_on_is_given_up_early(
    answers: list[tuple[float, int | None]], given_up: bool
) -> None:
    seen = _answering(*answers)
    assert isinstance(judge(seen, TERMS), Failed) is given_up
    assert judge(seen, PATIENT) == Pending()
    assert judge(seen, replace(TERMS, settle_seconds=3.0)) == Pending(), "who settles slowly is given more time"
