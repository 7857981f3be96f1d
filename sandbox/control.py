"""Asks gVisor itself how a box's first process ended, over the socket that every `runsc` subcommand uses.

`runsc run` asks the same question, but then takes a box apart for some ten milliseconds before it passes the answer on.
The answer is the wait status that gVisor's kernel keeps, never a word of the code; without an answer the exit code of
`runsc run` counts. The open connection would hold up the box's end, so it is closed with the answer.

Releases before 2023 listen under an abstract name, which any user of the same network namespace could reach and use
to start programs in the box; a box is therefore started in a network namespace of its own, where only root comes.
Source: https://github.com/google/gvisor, pkg/urpc/urpc.go and runsc/boot/controller.go (`containerManager.Wait`),
runsc/sandbox/sandbox.go (where the socket is).
"""

import array
import asyncio
import ctypes
import fcntl
import json
import os
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

CONTROL_SOCKET_FOLDERS = (Path("/var/run"), Path("/run"), Path("/tmp"))  # noqa: S108 -- gVisor's choice, not ours
"""Where newer releases put the socket if the path in their state folder is too long for one."""
_CONNECT_SECONDS = 5.0
_MOST_ANSWER_BYTES = 1 << 12
_CLONE_NEWNET = 0x40000000
_LARGEST_WAIT_STATUS = 0xFFFF
_SOCKET_KIND = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_PEER_CREDENTIALS = struct.Struct("3i")


class ExitWatch:
    """One open question to one box: with what wait status did its first process end?"""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    @classmethod
    async def opened(cls, state: Path, box_name: str, runsc: int, box_processes: frozenset[int]) -> Self | None:
        """Ask a box that is up; `None` where its socket is not found.

        Args:
            state: its `--root`.
            box_name: its container id.
            runsc: the process of `runsc run`, in whose network namespace the socket is.
            box_processes: who may be listening there; anybody else at that address is not believed.
        """
        question = json.dumps({"method": "containerManager.Wait", "arg": box_name}).encode()
        for address in _control_addresses(state, box_name):
            connection = _socket_beside(runsc)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    if await _asked(connection, address, question, box_processes):
                        return cls(connection)
                connection.close()
            except (OSError, TimeoutError):
                connection.close()
            except asyncio.CancelledError:
                connection.close()
                raise
        return None

    @property
    def alive(self) -> bool:
        """Whether the box still has to answer: it has neither said anything nor gone."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    async def exit_code(self) -> int | None:
        """Wait for the end; the exit code as shells tell it, or `None` where the box went without an answer."""
        try:
            return _exit_code(await self._answer())
        finally:
            self.close()

    def close(self) -> None:
        """Ask no longer."""
        self._connection.close()

    async def _answer(self) -> bytes:
        answer = b""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while len(answer) < _MOST_ANSWER_BYTES:
                data = await loop.sock_recv(self._connection, _MOST_ANSWER_BYTES)
                answer += data
                if not data or _is_whole(answer):
                    break
        return answer


def _control_addresses(state: Path, box_name: str) -> Iterator[str]:
    """Where releases since 2023 listen, then those before: under an abstract name, of which one ends in NUL."""
    for path in control_socket_files(state, box_name):
        if path.exists():
            yield str(path)
    yield f"\0runsc-sandbox.{box_name}"
    yield f"\0runsc-sandbox.{box_name}\0"


def control_socket_files(state: Path, box_name: str) -> tuple[Path, ...]:
    """Every file that may be the box's control socket; a box that was killed leaves it behind."""
    return tuple(folder / f"runsc-{box_name}.sock" for folder in (state, *CONTROL_SOCKET_FOLDERS))


def _socket_beside(process_id: int) -> socket.socket:
    """A socket in the network namespace of another process; one of ours where that cannot be entered.

    A namespace is entered by a thread. One of its own does, and ends there, so that no other code ever runs in it.
    Source: setns(2), network_namespaces(7).
    """
    made: list[socket.socket] = []

    def enter_and_make() -> None:
        with suppress(OSError):
            descriptor = os.open(f"/proc/{process_id}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                ctypes.CDLL(None).setns(descriptor, _CLONE_NEWNET)
            finally:
                os.close(descriptor)
        made.append(socket.socket(socket.AF_UNIX, _SOCKET_KIND))

    thread = threading.Thread(target=enter_and_make)
    thread.start()
    thread.join()
    return made[0] if made else socket.socket(socket.AF_UNIX, _SOCKET_KIND)


async def _asked(connection: socket.socket, address: str, question: bytes, box_processes: frozenset[int]) -> bool:
    """Put the question to whoever listens at an address, if that is the box."""
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, address)
    if _listener(connection) not in box_processes:
        return False
    await loop.sock_sendall(connection, question)
    await _taken_note_of(connection)
    return True


async def _taken_note_of(connection: socket.socket) -> None:
    """Wait until the other end has read all we sent; a box that ends before would end without an answer.

    Source: unix(7), SIOCOUTQ, which Linux numbers as TIOCOUTQ.
    """
    unread, pause = array.array("i", [0]), 0.0005
    while fcntl.ioctl(connection, termios.TIOCOUTQ, unread) == 0 and unread[0]:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)


def _listener(connection: socket.socket) -> int:
    """The process that listens at the other end. Source: unix(7), SO_PEERCRED."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    process_id: int = _PEER_CREDENTIALS.unpack(credentials)[0]
    return process_id


def _is_whole(answer: bytes) -> bool:
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


def _exit_code(answer: bytes) -> int | None:
    """The exit code in an answer: the code's own, or 128 and the number of the signal that ended it."""
    try:
        said = json.loads(answer)
        if said["success"] is not True:
            return None
        status = said["result"]
        if isinstance(status, bool) or not 0 <= status <= _LARGEST_WAIT_STATUS:
            return None
        code = os.waitstatus_to_exitcode(status)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return code if code >= 0 else 128 - code
