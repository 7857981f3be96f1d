"""Makes every destination lead to the loopback of the network namespace that the calling thread is in, by rtnetlink.

Source: rtnetlink(7), netlink(7); linux/rtnetlink.h, linux/if_addr.h.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator

from policy.addresses import IPAddress

_LOOPBACK_INDEX = 1
"""In every namespace the first device."""
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_ERROR_MESSAGE = 2
_REQUEST_ACKNOWLEDGED_CREATE = 0x405
_INTERFACE_UP = 1
_ADDRESS_USED_AT_ONCE = 2
_LOCAL_ADDRESS, _INTERFACE_ADDRESS = 2, 1
_ROUTE_INTERFACE, _ROUTE_SOURCE = 4, 7
_MAIN_TABLE, _STATIC_ROUTE, _EVERYWHERE, _UNICAST = 254, 4, 0, 1
_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_SECONDS = 5.0
_MOST_NETLINK_BYTES = 1 << 16


def route_all_to_loopback(addresses: Iterable[IPAddress]) -> None:
    """Bring the loopback up, and make it the way to everywhere.

    Args:
        addresses: what connections come from, one for each family.

    Raises:
        OSError: the kernel refused it.
    """
    link = struct.pack("=BxHiII", 0, 0, _LOOPBACK_INDEX, _INTERFACE_UP, _INTERFACE_UP)
    requests = [(_NEW_LINK, link), *(request for address in addresses for request in _address_requests(address))]
    messages = [
        _HEAD.pack(_HEAD.size + len(body), kind, _REQUEST_ACKNOWLEDGED_CREATE, number, 0) + body
        for number, (kind, body) in enumerate(requests)
    ]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        asking.sendall(b"".join(messages))
        answered = 0
        while answered < len(requests):
            for code in _answer_codes(asking.recv(_MOST_NETLINK_BYTES)):
                if code:
                    raise OSError(code, os.strerror(code))
                answered += 1


def _address_requests(address: IPAddress) -> Iterator[tuple[int, bytes]]:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 -- IPv4
    packed = address.packed
    head = struct.pack("=BBBBI", family, address.max_prefixlen, _ADDRESS_USED_AT_ONCE, 0, _LOOPBACK_INDEX)
    yield _NEW_ADDRESS, head + _attribute(_LOCAL_ADDRESS, packed) + _attribute(_INTERFACE_ADDRESS, packed)
    route = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _MAIN_TABLE, _STATIC_ROUTE, _EVERYWHERE, _UNICAST, 0)
    device = struct.pack("=I", _LOOPBACK_INDEX)
    yield _NEW_ROUTE, route + _attribute(_ROUTE_INTERFACE, device) + _attribute(_ROUTE_SOURCE, packed)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _answer_codes(data: bytes) -> Iterator[int]:
    """The error numbers of the answers in a message, zero for what was done."""
    while len(data) >= _HEAD.size:
        length, kind, *_ = _HEAD.unpack_from(data)
        if kind == _ERROR_MESSAGE:
            code: int = struct.unpack_from("=i", data, _HEAD.size)[0]
            yield -code
        data = data[(length + 3) & ~3 :]
