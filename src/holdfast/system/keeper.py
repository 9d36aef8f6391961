"""The keeper, a program of its own that holds all processes of an operation together, whatever they do.

The keeper starts commands for Holdfast and outlives it. It is a child subreaper (prctl(2)): what a command leaves
behind becomes the keeper's child, even with a session of its own, an empty environment or another title. So everything
that an operation started is below one process, and nothing of it is left once the keeper has ended: it ends only when
Holdfast has let go of it and no child remains.

A request without a command names the control group of the keeper. Every other request is a length, then a marshalled
tuple of arguments, folder, environment and account (its ids, or None for that of the keeper), with four descriptors:
standard input, output, error, and a pipe for the command's fate. Into that pipe go the letter `s` with the process id,
or `e` with an error number, and at the end the status of waitpid(2).
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import stat
import struct
import sys
import warnings  # noqa: F401 # os.execvpe imports it, from a folder that another account may not be able to read

MONITORS = frozenset(
    ["conmon", "aardvark-dns", "slirp4netns", "pasta", "pasta.avx2", "rootlessport", "catatonit", "fuse-overlayfs"]
)
"""Programs that Podman leaves running for each container and for all of them, by design as nobody's child.

Commands of an operation in a container end with the container, which is found by its labels.
"""

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
REQUEST = struct.Struct("!I")
STARTED = struct.Struct("!ci")
ENDED = struct.Struct("!i")
DESCRIPTORS = 4
_LOOK_MILLISECONDS = 1000

Ids = tuple[int, int, tuple[int, ...]]
"""The user, the group, and all groups of an account."""


class _Keeper:
    def __init__(self, connection: socket.socket, record: int) -> None:
        self._connection = connection
        self._record = record
        self._pipes: dict[int, int] = {}
        self._let_go = False
        self._group = ""

    def run(self) -> None:
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        poller = select.poll()
        poller.register(woken, select.POLLIN)
        poller.register(self._connection, select.POLLIN)
        while not (self._has_no_child() and self._let_go) and not (self._let_go and _serves_containers_alone()):
            for descriptor, _ in poller.poll(_LOOK_MILLISECONDS if self._let_go else None):
                if descriptor == woken:
                    os.read(woken, 4096)
                elif not self._serve():
                    self._let_go = True
                    poller.unregister(self._connection)
                    self._connection.close()
        if self._group:
            _leave(self._group)

    def _has_no_child(self) -> bool:
        """Wait for every child that has ended, and return whether none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            pipe = self._pipes.pop(pid, None)
            if pipe is not None:
                _tell(pipe, ENDED.pack(status))
                os.close(pipe)

    def _serve(self) -> bool:
        """Carry out one request; return False if Holdfast is gone."""
        try:
            head, descriptors, _, _ = socket.recv_fds(
                self._connection, REQUEST.size, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
            (length,) = REQUEST.unpack(head)
            body = bytearray()
            while len(body) < length:
                body += self._connection.recv(min(length - len(body), 1 << 20)) or _gone()
        except (OSError, EOFError, struct.error):
            return False
        command, folder, environment, account = marshal.loads(bytes(body))
        if not command:
            self._group = folder
            return True
        streams, pipe = descriptors[:3], descriptors[3]
        try:
            pid = _start(command, folder, environment, streams, account)
        except OSError as error:
            _tell(pipe, STARTED.pack(b"e", error.errno or 0))
            os.close(pipe)
        else:
            self._write_down(pid)
            self._pipes[pid] = pipe
            _tell(pipe, STARTED.pack(b"s", pid))
        for descriptor in streams:
            os.close(descriptor)
        return True

    def _write_down(self, pid: int) -> None:
        """Record the command, which leads its session, in case the keeper itself is killed."""
        try:
            # As in proc.py, which this program cannot import, because it runs from its own file alone.
            with open(f"/proc/{pid}/stat", "rb") as file:
                started = file.read().rpartition(b")")[2].split()[19].decode()
            os.write(self._record, f"command {pid} {started}\n".encode())
        except OSError:  # it has already ended, or the disk is full: the keeper holds it anyway
            pass


def _leave(group: str) -> None:
    """Go back to the control group above, and remove that of this keeper if nothing else is in it."""
    try:
        with open(os.path.join(os.path.dirname(group), "cgroup.procs"), "w") as file:
            file.write("0")
        os.rmdir(group)
    except OSError:
        pass


def is_monitor(pid: int | str) -> bool:
    """Return whether a process is a monitor that Podman leaves, by the program that it runs."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")) in MONITORS
    except OSError:
        return False


def _serves_containers_alone() -> bool:
    """Return whether every child is a monitor of a container; then the operation has no processes left."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = file.read().split()
    except OSError:  # a kernel without that file
        return False
    return bool(children) and all(is_monitor(pid) for pid in children)


def _gone() -> bytes:
    raise EOFError


def _tell(pipe: int, message: bytes) -> None:
    try:
        os.write(pipe, message)
    except OSError:  # no reader is left
        pass


def _start(
    command: list[str], folder: str | None, environment: dict[str, str], streams: list[int], account: Ids | None
) -> int:
    """Start a command in a session of its own. Raise OSError where that is impossible."""
    failed, fail = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(failed)
            _become(command, folder, environment, streams, account)
        except OSError as error:
            os.write(fail, struct.pack("!i", error.errno or 0))
        finally:
            os._exit(127)
    os.close(fail)
    try:
        failure = os.read(failed, 4)
    finally:
        os.close(failed)
    if failure:
        os.waitpid(pid, 0)
        (number,) = struct.unpack("!i", failure)
        raise OSError(number, os.strerror(number))  # with its number alone, an OSError has no errno
    return pid


def _become(
    command: list[str], folder: str | None, environment: dict[str, str], streams: list[int], account: Ids | None
) -> None:
    os.setsid()
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Move each descriptor above the standard streams first, so that none is overwritten before it is used.
    high = [os.dup(descriptor) if descriptor < 3 else descriptor for descriptor in streams]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=True)
    if account is not None:
        uid, gid, groups = account
        for stream in (1, 2):  # as for services: only its owner can open /dev/stderr where that is a pipe
            if stat.S_ISFIFO(os.fstat(stream).st_mode):
                os.fchown(stream, uid, gid)
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    if folder is not None:
        os.chdir(folder)
    os.execvpe(command[0], command, environment)


def main() -> None:
    """Serve the connection whose number is the first argument; write records to that of the second."""
    connection, record = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(connection, False)
    os.set_inheritable(record, False)
    import ctypes

    library = ctypes.CDLL(None)
    library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    library.prctl(PR_SET_NAME, b"holdfast-keeper", 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    with socket.socket(fileno=connection) as served:
        served.sendall(b"+")
        _Keeper(served, record).run()


if __name__ == "__main__":
    main()
