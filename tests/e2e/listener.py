"""A server on this machine's loopback that counts who connects, and code that tries to reach it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class Listener:
    """Listens until `close`, and only counts who connects."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port: int = self._socket.getsockname()[1]

    def connections(self) -> int:
        """Count the connections since the last look."""
        count = 0
        while True:
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                return count
            connection.close()
            count += 1

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@contextmanager
def listening() -> Iterator[Listener]:
    """Lend a listener."""
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


def reaching(port: int) -> str:
    """Python that tries to reach the listener, straight and by the way out, and tells which interfaces it sees."""
    return f"""\
import socket
print([name for _, name in socket.if_nameindex()])
try:
    socket.create_connection(("127.0.0.1", {port}), 2).close()
    print("reached the listener straight", flush=True)
except OSError as error:
    print("straight: reached nothing,", error, flush=True)
try:
    with socket.create_connection(("127.0.0.1", 3128), 2) as way:
        way.sendall(b"CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n")
        answer = way.makefile("rb").readline().decode()
    print("by the way out:", "reached the listener" if " 200 " in answer else "reached nothing, " + answer, flush=True)
except OSError as error:
    print("by the way out: reached nothing,", error, flush=True)
"""
