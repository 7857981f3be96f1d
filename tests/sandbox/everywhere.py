"""Servers that are every address there is, run in a network namespace of their own: whatever gets out arrives here.

A program, not imported: it reads one line of JSON, listens for web, TLS, DNS and datagrams, says that it is ready, and
writes a line of JSON for all that arrives.
"""

import asyncio
import json
import socket
import ssl
import sys
from functools import partial
from ipaddress import ip_address
from typing import Any

ANYWHERE = (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6))
DATAGRAM_PORT = 9999


def tell(kind: str, **what: object) -> None:
    sys.stdout.write(json.dumps({"kind": kind, **what}) + "\n")
    sys.stdout.flush()


def bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address, port))
    return made


class Somewhere(asyncio.DatagramProtocol):
    """Where datagrams arrive: questions for names, or anything else."""

    def __init__(self, names: dict[str, list[list[str]]] | None) -> None:
        self.names = names
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 -- as asyncio has it
        if self.names is None:
            tell("datagram", said=data.decode(errors="replace"))
            return
        labels, place = [], 12
        while length := data[place]:
            labels.append(data[place + 1 : place + 1 + length].decode())
            place += 1 + length
        question, kind = data[12 : place + 5], data[place + 1 : place + 3]
        name = ".".join(labels).lower()
        tell("name", name=name)
        answers = self.names.get(name, [[]])
        wanted = {1: 4, 28: 6}.get(int.from_bytes(kind, "big"))
        found = [one for one in map(ip_address, answers[0]) if one.version == wanted]
        if len(answers) > 1 and found:
            answers.pop(0)
        codes = (0x8180 if answers[0] else 0x8183, 1, len(found), 0, 0)
        head = data[:2] + b"".join(code.to_bytes(2, "big") for code in codes)
        tails = (kind + b"\0\1" + bytes(4) + len(one.packed).to_bytes(2, "big") + one.packed for one in found)
        self.transport.sendto(head + question + b"".join(b"\xc0\x0c" + tail for tail in tails), addr)


async def main(told: dict[str, Any]) -> None:
    pages: dict[str, dict[str, str]] = told["pages"]

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port = writer.get_extra_info("sockname")[:2]
        tell("connection", address=address, port=port)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked = next(line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("host: "))
            page = pages.get(head.split()[1], {"head": "404 Not Found", "body": ""})
            tell("request", host=asked, path=head.split()[1])
            body = page["body"].encode()
            writer.write(
                f"HTTP/1.1 {page['head']}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            writer.write(body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def named(_: object, name: str | None, __: object) -> None:
        tell("tls", name=name)

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(told["certificate"], told["key"])
    tls.sni_callback = named
    loop = asyncio.get_running_loop()
    for address, family in ANYWHERE:
        for port, context in ((80, None), (8080, None), (443, tls)):
            await asyncio.start_server(answered, address, port, ssl=context, family=family)
        for port, names in ((DATAGRAM_PORT, None), (53, told["names"])):
            await loop.create_datagram_endpoint(partial(Somewhere, names), sock=bound(family, address, port))
    resolver = bound(socket.AF_INET, told["resolver"], 53)  # answers must come from the very address that was asked
    await loop.create_datagram_endpoint(partial(Somewhere, told["names"]), sock=resolver)
    tell("ready")
    await asyncio.Event().wait()


asyncio.run(main(json.loads(sys.stdin.readline())))
