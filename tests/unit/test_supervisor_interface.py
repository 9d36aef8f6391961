"""The answers of supervisord as its own client reads them, held to the library that writes them."""

from __future__ import annotations

import xmlrpc.client
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime
from holdfast.drivers.runtimes.supervisor.interface import RefusedCallError, _read, _value
from holdfast.errors import StepError
from holdfast.model import ServiceStatus
from holdfast.system.host import Host

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
scalars = st.one_of(st.integers(-(2**31), 2**31 - 1), st.booleans(), texts)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)), max_leaves=20)


@given(values)
def test_an_answer_is_what_was_written(value: object) -> None:
    assert _read(xmlrpc.client.dumps((value,), methodresponse=True).encode()) == value


@given(st.one_of(texts, st.booleans()))
def test_an_argument_is_read_as_it_is(value: str | bool) -> None:
    call = f"<methodCall><methodName>m</methodName><params><param><value>{_value(value)}</value></param></params>"
    assert xmlrpc.client.loads(f"{call}</methodCall>") == ((value,), "m")


def test_a_fault_is_a_refusal() -> None:
    with pytest.raises(RefusedCallError, match=r"^BAD_NAME: <web>$"):
        _read(xmlrpc.client.dumps(xmlrpc.client.Fault(10, "BAD_NAME: <web>")).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"Not Found", b"<methodResponse>", b"<methodResponse/>", b"<r><value><int>x</int></value></r>"],
)
def test_anything_else_is_no_answer(content: bytes) -> None:
    with pytest.raises(OSError, match="not understood"):
        _read(content)


def test_a_value_without_a_type_is_a_text() -> None:
    assert _read(b"<methodResponse><params><param><value>plain</value></param></params></methodResponse>") == "plain"


class _EndsOverAndOver(SupervisorRuntime):
    """A program that has just ended whenever it is to be stopped, and is up again when it is to be removed."""

    def __init__(self, folder: Path, times: int) -> None:
        super().__init__(folder, "shop.production", Host())
        self.calls: list[str] = []
        self._times = times

    def statuses(self) -> dict[str, ServiceStatus]:
        return {"web": ServiceStatus("web", running=False, pid=None, uptime_seconds=0, detail="exited")}

    def _call(self, name: str, *arguments: str | bool) -> object:
        self.calls.append(name)
        if name == "stopProcess":
            raise RefusedCallError("NOT_RUNNING: web")
        if self.calls.count("removeProcessGroup") <= self._times:
            raise RefusedCallError("STILL_RUNNING: web")
        return True


def test_a_program_that_is_started_again_between_its_stop_and_its_removal_is_stopped_again(quick_folder: Path) -> None:
    runtime = _EndsOverAndOver(quick_folder, times=2)
    runtime._remove("web")
    assert runtime.calls == ["removeProcessGroup", "stopProcess"] * 2 + ["removeProcessGroup"]
    with pytest.raises(StepError, match="over and over"):
        _EndsOverAndOver(quick_folder, times=1000)._remove("web")
