"""The socket that leads from a box to its egress proxy, in a folder of its own that is mounted into the box.

Whoever is inside may connect to it, as whatever user; that nobody else on the host comes near is left to the private
folder around it. It is bound through the open folder, so that it does not matter how long the path is.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.forwarder import EGRESS_SOCKET


@contextmanager
def new_socket_folder(folder: Path) -> Iterator[int]:
    """Make the folder, and hold it open for as long as its socket is being set up."""
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)  # whatever the umask took away
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def bound_egress_socket(folder: int) -> socket.socket:
    """The socket of an open folder, bound through that: a path has room for 107 bytes. Source: unix(7).

    From Python 3.13 on asyncio looks whether that path is there, and would remove it at the end: where the number could
    be another descriptor's by then. It finds nothing while the folder is open and the socket has another name.
    """
    place = Path(f"/proc/self/fd/{folder}/bound")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(place))
        place.chmod(0o666)
        place.rename(place.with_name(EGRESS_SOCKET))
    except BaseException:
        bound.close()
        raise
    return bound
