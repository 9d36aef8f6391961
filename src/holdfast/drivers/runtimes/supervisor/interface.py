"""Calls of supervisord's own interface, on its socket.

The library behind it is imported with the first call, because most commands only ask whether a supervisord runs.
"""

from __future__ import annotations

from pathlib import Path


class RefusedCallError(Exception):
    """A call that supervisord refused; `text` begins with one of its own identifiers, for example BAD_NAME."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def call(socket: Path, name: str, *arguments: object) -> object:
    """Return the answer to one call. Raise RefusedCallError, and OSError where nothing answers in this protocol."""
    import xmlrpc.client

    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{socket}")
    try:
        server = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        return getattr(server.supervisor, name)(*arguments)
    except xmlrpc.client.Fault as fault:
        raise RefusedCallError(fault.faultString) from fault
    except xmlrpc.client.Error as error:
        raise OSError(0, str(error)) from error
    finally:
        transport.close()
