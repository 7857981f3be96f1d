"""A network namespace for one box: nothing leads out of it but the sockets that this process has in it.

It has a loopback and no other device, no wire to the host, and no address that anybody else could reach. Every
destination is routed to that loopback, where the kernel turns each TCP connection to a socket of ours, and each DNS
question to another; all else is refused at once. Were these rules missing, everything would end at the loopback.

The namespace has no name. It lives as long as a descriptor here or a process in it, and is gone with them.
Source: network_namespaces(7), nft(8), RFC 7600 section 4.8 (192.0.0.8); measured with kernel 6.18.
"""

import asyncio
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Self

from policy.addresses import IPAddress
from sandbox.cgroup_limits import bounds_socket_memory
from sandbox.cgroups import CgroupParent
from sandbox.equipment import Equipment
from sandbox.errors import UnenforceableError
from sandbox.loopback_routes import route_all_to_loopback

_DNS_PORT = 53
_BOX_ADDRESSES: dict[socket.AddressFamily, IPAddress] = {
    socket.AF_INET: IPv4Address("192.0.0.8"),
    socket.AF_INET6: IPv6Address("fd73:616e:6462:6f78::1"),
}
"""What connections come from: a dummy's address, and a private one, so that IPv4 is tried first (RFC 6724)."""
_LOOPBACK_ADDRESSES = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
_NEW_NETWORK = 0x40000000
_WAITING_CONNECTIONS = 256
_BUFFER_BYTES = 1 << 17
"""Of each connection's two buffers at our end, which the kernel lets grow to many megabytes where nobody says it."""
_NFT_SECONDS = 10.0
_PROGRAM_FOLDERS = "/usr/sbin:/usr/bin:/sbin:/bin"
_ORIGINAL_DESTINATION = 80
"""Source: linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h."""
_DESTINATION_LEVELS = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
_SOCKET_ADDRESSES = {socket.AF_INET: struct.Struct("!2xH4s8x"), socket.AF_INET6: struct.Struct("!2xH4x16s4x")}
_PROBED = {socket.AF_INET: IPv4Address("192.0.2.1"), socket.AF_INET6: IPv6Address("2001:db8::1")}
"""Kept for documentation, and so nobody's."""
_PROBED_PORT = 9
_PROBE_SECONDS = 2.0
OR_PROXY = "or set SANDBOX_NETWORK_MODE=proxy, which needs no such rights"
_RIGHTS_REMEDY = f"Run it as root with the capabilities SYS_ADMIN and NET_ADMIN, {OR_PROXY}"
_KERNEL_REMEDY = f"Use a kernel with nf_tables, NAT redirection and connection tracking, {OR_PROXY}"

_NETFILTER_RULES = """
table inet egress {{
    chain untracked {{
        type filter hook output priority -300; policy accept;
        ip saddr 127.0.0.0/8 ip daddr 127.0.0.0/8 notrack
        ip6 saddr ::1 ip6 daddr ::1 notrack
    }}
    chain redirected {{
        type nat hook output priority -100; policy accept;
        meta l4proto {{ tcp, udp }} th dport {dns} redirect to :{dns}
        ip daddr {{ 127.0.0.0/8, {ipv4} }} return
        ip6 daddr {{ ::1, {ipv6} }} return
        meta l4proto tcp redirect to :{port}
    }}
    chain held {{
        type filter hook output priority 0; policy drop;
        udp dport {dns} limit rate over 500/second burst 2000 packets drop
        tcp dport {{ {dns}, {port} }} tcp flags & (syn | ack) == syn limit rate over 200/second burst 1000 packets drop
        ct state new limit rate over 200/second burst 1000 packets drop
        ct state established,related accept
        ip daddr {{ 127.0.0.0/8, {ipv4} }} accept
        ip6 daddr {{ ::1, {ipv6} }} accept
        reject with icmpx admin-prohibited
    }}
}}
"""
"""The rates bound what connections of the code take of the kernel's memory, and of this process's time. To our sockets
they have one of their own: whoever connects straight to them is not tracked, and so never new."""


@dataclass(slots=True)
class NetworkNamespace:
    """One namespace, and the sockets that listen in it."""

    descriptor: int
    """Holds it, and leads into it."""
    connections: list[socket.socket] = field(default_factory=list)
    """Where every TCP connection arrives, whatever its destination; one for each family that this host has."""
    name_connections: list[socket.socket] = field(default_factory=list)
    """Where questions about names arrive over TCP."""
    name_datagrams: list[socket.socket] = field(default_factory=list)
    """Where they arrive over UDP."""

    @classmethod
    async def made(cls) -> Self:
        """Make one, see that it does what it should, and hold it until it is closed; takes some ten milliseconds.

        Raises:
            UnenforceableError: this host or this user cannot.
        """
        making = asyncio.ensure_future(asyncio.to_thread(cls._made_elsewhere))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_let_go_of)
            raise

    @property
    def path(self) -> str:
        """Where gVisor finds it while this process lives, for the OCI spec."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def is_entered_by(self, process_ids: Iterable[int]) -> bool:
        """Whether any of these processes is in it; one that has ended is not."""
        own = os.fstat(self.descriptor)
        for process_id in process_ids:
            with suppress(OSError):
                theirs = Path(f"/proc/{process_id}/ns/net").stat()
                if (theirs.st_dev, theirs.st_ino) == (own.st_dev, own.st_ino):
                    return True
        return False

    def close(self) -> None:
        """Let go of it."""
        for one in (*self.connections, *self.name_connections, *self.name_datagrams):
            one.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    @classmethod
    def _made_elsewhere(cls) -> Self:
        """A thread of its own enters the new namespace and ends there, so that no other code ever runs in it."""
        done: list[Self | OSError | UnenforceableError] = []

        def make() -> None:
            try:
                done.append(cls._made_here())
            except (OSError, UnenforceableError) as error:
                done.append(error)

        thread = threading.Thread(target=make, name="network-namespace")
        thread.start()
        thread.join()
        made = done[0]
        if isinstance(made, OSError):
            raise _no_namespace(f"this host refused to make one: {made.strerror or made}", _RIGHTS_REMEDY) from made
        if isinstance(made, UnenforceableError):
            raise made
        return made

    @classmethod
    def _made_here(cls) -> Self:
        """Move the calling thread into a new namespace, and furnish that."""
        nft = shutil.which("nft", path=_PROGRAM_FOLDERS)
        if nft is None:
            raise _no_namespace(
                "the program nft is not there", f"Install nftables (Debian: `apt-get install nftables`), {OR_PROXY}"
            )
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_NETWORK) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        with ExitStack() as undo:
            made = cls(descriptor=os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            undo.callback(made.close)
            made._furnish(nft)
            undo.pop_all()
            return made

    def _furnish(self, nft: str) -> None:
        """Listen, lead everything there, and see that it arrives."""
        route_all_to_loopback(())
        families = _families_here()
        route_all_to_loopback(_BOX_ADDRESSES[family] for family in families)
        port = 0
        for family in families:
            self.connections.append(_bound(family, socket.SOCK_STREAM, port))
            self.name_connections.append(_bound(family, socket.SOCK_STREAM, _DNS_PORT))
            self.name_datagrams.append(_bound(family, socket.SOCK_DGRAM, _DNS_PORT))
            port = self.connections[0].getsockname()[1]
        _load_rules(nft, port)
        for connections, datagrams in zip(self.connections, self.name_datagrams, strict=True):
            _prove_family(connections, datagrams)


def check_may_enter(equipment: Equipment) -> None:
    """Refuse equipment with which no box can be in a namespace, or would hold memory past its limit there.

    Raises:
        UnenforceableError: its gVisor starts without privileges, and so cannot enter a namespace made with them; or its
            kernel counts no memory of sockets, which a box in a namespace has of the kernel itself.
    """
    if "--rootless" in equipment.runsc.arguments:
        raise _no_namespace("gVisor starts boxes without privileges here, and cannot enter one", _RIGHTS_REMEDY)
    if isinstance(equipment.cgroups, CgroupParent) and not bounds_socket_memory(equipment.cgroups.places):
        remedy = f"Use cgroup v2, or a kernel whose cgroup v1 has memory.kmem.tcp.limit_in_bytes, {OR_PROXY}"
        raise _no_namespace("nothing here bounds what the kernel holds for sockets of a box", remedy)


def spec_inside(spec: dict[str, Any], namespace: NetworkNamespace) -> dict[str, Any]:
    """An OCI spec of a box in this namespace; with `--network=host` gVisor takes it for the host's."""
    linux = spec["linux"]
    others = [one for one in linux["namespaces"] if one["type"] != "network"]
    return {**spec, "linux": {**linux, "namespaces": [*others, {"type": "network", "path": namespace.path}]}}


def original_destination(connection: socket.socket) -> tuple[IPAddress, int]:
    """Where a connection was meant to go that the kernel turned to us.

    Raises:
        OSError: it was meant for this very socket.
    """
    layout = _SOCKET_ADDRESSES[socket.AddressFamily(connection.family)]
    level = _DESTINATION_LEVELS[socket.AddressFamily(connection.family)]
    port, packed = layout.unpack(connection.getsockopt(level, _ORIGINAL_DESTINATION, layout.size))
    address = IPv4Address(packed) if connection.family == socket.AF_INET else IPv6Address(packed)
    if address.is_loopback:
        raise ConnectionRefusedError
    return address, port


def _families_here() -> tuple[socket.AddressFamily, ...]:
    """IPv4, and IPv6 where this host has it."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trying:
        trying.bind((_LOOPBACK_ADDRESSES[socket.AF_INET6], 0))
        return socket.AF_INET, socket.AF_INET6
    return (socket.AF_INET,)


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket on the loopback of the calling thread's namespace, which takes what comes."""
    made = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((_LOOPBACK_ADDRESSES[family], port))
        if kind == socket.SOCK_STREAM:
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):  # what is accepted inherits them
                made.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
            made.listen(_WAITING_CONNECTIONS)
        made.settimeout(_PROBE_SECONDS)
    except BaseException:
        made.close()
        raise
    return made


def _load_rules(nft: str, port: int) -> None:
    """Load the rules of the calling thread's namespace, which its children share."""
    ipv4, ipv6 = _BOX_ADDRESSES[socket.AF_INET], _BOX_ADDRESSES[socket.AF_INET6]
    rules = _NETFILTER_RULES.format(dns=_DNS_PORT, port=port, ipv4=ipv4, ipv6=ipv6)
    try:
        loaded = subprocess.run(
            [nft, "-f", "-"],
            input=rules.encode(),
            env={"PATH": _PROGRAM_FOLDERS},
            cwd="/",
            capture_output=True,
            timeout=_NFT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _no_namespace(f"nft did not load its rules within {_NFT_SECONDS:.0f} seconds", _KERNEL_REMEDY) from error
    if loaded.returncode != 0:
        said = loaded.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
        raise _no_namespace(f"nft did not load its rules: {said}", _KERNEL_REMEDY)


def _prove_family(connections: socket.socket, datagrams: socket.socket) -> None:
    """Refuse a namespace in which the kernel does not do what the rules say, seen from within it.

    Raises:
        UnenforceableError: it does not.
    """
    address = _PROBED[socket.AddressFamily(connections.family)]
    aim = (str(address), _PROBED_PORT)
    try:
        with socket.create_connection(aim, timeout=_PROBE_SECONDS), connections.accept()[0] as arrived:
            redirected = original_destination(arrived) == (address, _PROBED_PORT)
        with socket.socket(datagrams.family, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"?", (str(address), _DNS_PORT))
            redirected = redirected and datagrams.recv(2) == b"?"
    except OSError as error:
        reason = f"a connection in it went astray: {error.strerror or error}"
        raise _no_namespace(reason, _KERNEL_REMEDY) from error
    if not redirected:
        raise _no_namespace("the kernel does not tell where a connection was meant to go", _KERNEL_REMEDY)
    with socket.socket(datagrams.family, socket.SOCK_DGRAM) as sending:
        try:
            sending.sendto(b"?", aim)
        except PermissionError:
            return
    raise _no_namespace("datagrams in it are not refused", _KERNEL_REMEDY)


def _let_go_of(making: asyncio.Future[Any]) -> None:
    """Close what was made for somebody who no longer waits for it."""
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def _no_namespace(reason: str, remedy: str) -> UnenforceableError:
    return UnenforceableError(
        key="SANDBOX_NETWORK_MODE=namespace",
        origin="this host",
        reason=f"no network namespace: {reason}",
        remedy=remedy,
    )
