"""
title: Run code
description: Lets the model run Python and Bash in a gVisor sandbox, under limits that an administrator can lock.
author: sandbox-lockdown
version: 0.1.0
license: Apache-2.0
"""

# Generated from 106 modules of sandbox-lockdown 0.1.0 by `make plugins`; do not edit.
# To verify it against a checkout of that version: python -m plugins.flatten --check
# Definitions that nothing here reaches are left out; all else reads as it does there.
#
#   policy/destinations.py ......... line 214
#   policy/addresses.py ............ line 453
#   policy/positions.py ............ line 561
#   policy/errors.py ............... line 787
#   policy/keys.py ................. line 920
#   policy/requester.py ............ line 1132
#   policy/shape.py ................ line 1274
#   policy/shape_errors.py ......... line 1530
#   policy/values.py ............... line 1614
#   policy/limits.py ............... line 1966
#   policy/settings.py ............. line 2212
#   policy/remembered.py ........... line 2580
#   policy/schema.py ............... line 2713
#   policy/statements.py ........... line 2856
#   policy/effective.py ............ line 2938
#   policy/egress_rules.py ......... line 3147
#   policy/environment.py .......... line 3288
#   policy/toml_words.py ........... line 3513
#   policy/toml_text.py ............ line 3857
#   policy/document.py ............. line 4131
#   policy/refusals.py ............. line 4372
#   policy/resolve.py .............. line 4552
#   policy/signature_block.py ...... line 4885
#   policy/signatures.py ........... line 5088
#   policy/situation.py ............ line 5213
#   plugins/valves.py .............. line 5323
#   policy/trusted_files.py ........ line 5444
#   policy/load.py ................. line 5864
#   policy/locks.py ................ line 6002
#   policy/audit.py ................ line 6057
#   policy/standing.py ............. line 6387
#   policy/state_folder.py ......... line 6506
#   policy/live.py ................. line 6600
#   sandbox/announcing.py .......... line 6825
#   sandbox/answer_head.py ......... line 6863
#   sandbox/cgroup_files.py ........ line 6918
#   sandbox/cleaning.py ............ line 6970
#   plugins/people.py .............. line 6992
#   sandbox/client_hello.py ........ line 7116
#   sandbox/control.py ............. line 7247
#   sandbox/egress_account.py ...... line 7424
#   sandbox/egress_network.py ...... line 7549
#   sandbox/egress_requests.py ..... line 7710
#   sandbox/egress_asking.py ....... line 7843
#   sandbox/egress_relay.py ........ line 8005
#   sandbox/elf.py ................. line 8142
#   sandbox/errors.py .............. line 8240
#   sandbox/cgroup_places.py ....... line 8294
#   sandbox/cgroup_counters.py ..... line 8357
#   sandbox/cgroup_limits.py ....... line 8455
#   sandbox/folders.py ............. line 8601
#   sandbox/forwarder.py ........... line 8833
#   sandbox/egress_socket.py ....... line 8949
#   sandbox/egress_proxy.py ........ line 8986
#   sandbox/loopback_routes.py ..... line 9264
#   sandbox/name_messages.py ....... line 9336
#   sandbox/name_server.py ......... line 9482
#   sandbox/off_limits.py .......... line 9592
#   sandbox/packages.py ............ line 9709
#   sandbox/permitted_names.py ..... line 9879
#   sandbox/pipes.py ............... line 10076
#   sandbox/processes.py ........... line 10204
#   sandbox/cgroups.py ............. line 10327
#   sandbox/cgroup_discovery.py .... line 10603
#   sandbox/ended_family.py ........ line 10822
#   sandbox/forgotten_cgroups.py ... line 10881
#   sandbox/queue_lines.py ......... line 10946
#   sandbox/release.py ............. line 11114
#   sandbox/debian.py .............. line 11519
#   sandbox/request.py ............. line 11782
#   sandbox/outcome.py ............. line 11861
#   plugins/presentation.py ........ line 12100
#   sandbox/account.py ............. line 12160
#   sandbox/probes.py .............. line 12237
#   sandbox/run_notes.py ........... line 12386
#   sandbox/noted_cgroups.py ....... line 12560
#   sandbox/leases.py .............. line 12629
#   sandbox/runsc_program.py ....... line 12783
#   sandbox/gvisor.py .............. line 12884
#   sandbox/host_binding.py ........ line 13151
#   sandbox/proof.py ............... line 13179
#   sandbox/enforcing.py ........... line 13278
#   sandbox/shared_libraries.py .... line 13365
#   sandbox/slots.py ............... line 13520
#   sandbox/starters.py ............ line 13795
#   sandbox/box.py ................. line 13923
#   sandbox/tree_plan.py ........... line 14227
#   sandbox/tree_build.py .......... line 14468
#   sandbox/tree_marker.py ......... line 14672
#   sandbox/used_trees.py .......... line 14764
#   sandbox/tree.py ................ line 14845
#   sandbox/launch.py .............. line 15026
#   sandbox/kept_launch.py ......... line 15283
#   sandbox/spec.py ................ line 15348
#   sandbox/equipment.py ........... line 15566
#   sandbox/network_namespace.py ... line 15706
#   sandbox/transparent_egress.py .. line 16003
#   sandbox/ready_box.py ........... line 16141
#   sandbox/pool.py ................ line 16489
#   sandbox/runner.py .............. line 16755
#   sandbox/proving.py ............. line 17082
#   sandbox/prepared_runner.py ..... line 17135
#   sandbox/session.py ............. line 17295
#   plugins/host.py ................ line 17544
#   plugins/self_test.py ........... line 17679
#   plugins/tool.py ................ line 17738

import argparse
import array
import asyncio
import base64
import binascii
import bz2
import ctypes
import difflib
import errno
import fcntl
import hashlib
import http.client
import inspect
import ipaddress
import itertools
import json
import logging
import math
import os
import platform
import pwd
import re
import resource
import secrets
import select
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import termios
import threading
import time
import tomllib
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
import weakref
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from bisect import bisect_right
from codecs import getincrementaldecoder
from collections import OrderedDict, defaultdict, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from filecmp import cmp
from functools import cache, partial, reduce
from http import HTTPStatus
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import count, islice
from operator import getitem
from pathlib import Path, PurePosixPath
from threading import Thread
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, Generic, IO, Protocol, Self, TypeAlias, TypeVar, assert_never
from urllib.parse import urlsplit

import h11
import jsonschema
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jsonschema import Draft202012Validator, FormatChecker, TypeChecker
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


# ======== policy/destinations.py ======================================================================================
# Where code may reach when it may: one item of the network allow-list, and the order among items.
#
# An item is `public` (any public address, the top), a host name, `*.domain` (any depth, not the domain itself), an
# address or a CIDR, each with an optional `:port`. Item A is narrower than B when every connection A permits, B permits
# too; the meet of two items is what both permit. A set is kept without items that another of its items covers, so equal
# sets are equal values.
#
# Source: RFC 1123 (host names), RFC 5890 (A-labels), RFC 3986 section 3.2.2 (brackets around IPv6 beside a port).


_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253
LONGEST_DESTINATION = 300

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PublicInternet:
    """Any public address: the top of the order."""


@dataclass(frozen=True, slots=True)
class HostName:
    """Exactly this name, in lower-case A-labels."""

    name: str
    """`api.example.com`, without a trailing dot."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Every name below this one, at any depth, but not the name itself."""

    name: str
    """`example.com` for the item `*.example.com`."""


Reach = PublicInternet | HostName | Domain | ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One item of an allow-list."""

    reach: Reach
    """Which hosts; a single address is a network of one."""
    port: int | None
    """Which port, 1 to 65535; `None` means every port."""

    def __str__(self) -> str:
        """Spell the item as `parse_destination` reads it."""
        text = _reach_text(self.reach)
        if self.port is None:
            return text
        return f"[{text}]:{self.port}" if isinstance(self.reach, ipaddress.IPv6Network) else f"{text}:{self.port}"


def parse_destination(text: str) -> Destination:
    """Read one item of an allow-list.

    Raises:
        ValueError: the text is no destination; the message says what is wrong with it.
    """
    if len(text) > LONGEST_DESTINATION:
        raise ValueError(f"an item of {len(text)} characters is longer than any destination")
    host, port = _split_port(text)
    if port is not None and not 1 <= port <= 65535:  # noqa: PLR2004 -- the range of TCP and UDP ports
        raise ValueError(f"port {port} is outside 1 to 65535")
    return Destination(reach=_parse_reach(host), port=port)


class ReachIndex:
    """A set of destinations by reach, to find those that cover another without looking at all."""

    def __init__(self, items: Iterable[Destination]) -> None:
        """Sort the items."""
        self._ports: dict[Reach, set[int | None]] = {}
        self._prefix_lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for item in items:
            self._ports.setdefault(item.reach, set()).add(item.port)
            if isinstance(item.reach, ipaddress.IPv4Network | ipaddress.IPv6Network):
                self._prefix_lengths[item.reach.version].add(item.reach.prefixlen)

    def ports_over(self, reach: Reach) -> Iterator[set[int | None]]:
        """The ports of every reach here that covers this one, itself included."""
        for wide in self._reaches_over(reach):
            if wide in self._ports:
                yield self._ports[wide]

    def permits(self, reach: Reach, port: int) -> bool:
        """Whether some item here covers this host at this port."""
        return any(None in ports or port in ports for ports in self.ports_over(reach))

    def covers_otherwise(self, item: Destination) -> bool:
        """Whether another item here covers this one."""
        if item.port is not None and None in self._ports.get(item.reach, ()):
            return True
        wider = (self._ports.get(wide, set()) for wide in self._reaches_over(item.reach) if wide != item.reach)
        return any(None in ports or item.port in ports for ports in wider)

    def _reaches_over(self, reach: Reach) -> Iterator[Reach]:
        """This reach and every wider one that may be here."""
        yield reach
        match reach:
            case PublicInternet():
                return
            case HostName(name) | Domain(name):
                while "." in name:
                    name = name.partition(".")[2]
                    yield Domain(name)
            case ipaddress.IPv4Network() | ipaddress.IPv6Network():
                shorter = (length for length in self._prefix_lengths[reach.version] if length < reach.prefixlen)
                yield from (reach.supernet(new_prefix=length) for length in shorter)
        yield PublicInternet()


def narrowed(items: Iterable[Destination]) -> frozenset[Destination]:
    """The same reach in the fewest items: without those that another one covers."""
    unique = frozenset(items)
    index = ReachIndex(unique)
    return frozenset(item for item in unique if not index.covers_otherwise(item))


def meet_of_sets(one: frozenset[Destination], other: frozenset[Destination]) -> frozenset[Destination]:
    """What both sets permit: the meets of all their items, in the fewest items.

    Of two reaches that meet, one covers the other; so each item is held only against what may cover it, and two long
    lists cost their lengths, not the product.
    """
    return narrowed((*_within(one, ReachIndex(other)), *_within(other, ReachIndex(one))))


def _within(items: Iterable[Destination], index: ReachIndex) -> Iterator[Destination]:
    """The items, each as far as an item of the index covers its reach."""
    for item in items:
        for ports in index.ports_over(item.reach):
            if item.port is None:
                yield from (Destination(reach=item.reach, port=port) for port in ports)
            elif None in ports or item.port in ports:
                yield item


def is_host_name(name: str) -> bool:
    """Whether a text is a name in lower-case A-labels; underscores, which some names have, are let pass."""
    return len(name) <= _LONGEST_NAME and _HOST_NAME.fullmatch(name) is not None


def ends_in_a_number(name: str) -> bool:
    """Whether programs may read a name as an address in an unusual spelling."""
    return _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]) is not None


def unmapped_network(network: IPNetwork) -> IPNetwork:
    """Of a network of IPv4-mapped addresses the IPv4 network that it is; else what was given."""
    mapped_bits = 96
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= mapped_bits:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - mapped_bits))
    return network


def _split_port(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?", text)
    if bracketed:
        if ":" not in bracketed[1]:
            raise ValueError(f"{text!r} has brackets, which only an IPv6 address takes")
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    if text.count(":") > 1:
        return text, None
    if "//" in text:
        raise ValueError(f"{text!r} is the address of a page: write its host, and its port if you mean only that")
    host, colon, port = text.partition(":")
    if colon and not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{text!r} has no port number after its colon")
    return host, int(port) if colon else None


def _parse_reach(host: str) -> Reach:
    if host == "public":
        return PublicInternet()
    network = _parse_network(host)
    if network is not None:
        return network
    if host.startswith("*."):
        return Domain(_checked_name(host.removeprefix("*.")))
    return HostName(_checked_name(host))


def _parse_network(host: str) -> IPNetwork | None:
    if "%" in host:
        raise ValueError(f"{host!r} names a zone, which no allow-list can")
    _, slash, prefix_length = host.partition("/")
    if slash and not _PREFIX_LENGTH.fullmatch(prefix_length):
        return None  # ipaddress would also take a netmask, or guess that it is a host mask
    try:
        network = ipaddress.ip_network(host)
    except ValueError as error:
        if "host bits" in str(error):
            start = ipaddress.ip_network(host, strict=False)
            raise ValueError(f"{host!r} is not the start of its network: {start} is") from None
        return None
    return unmapped_network(network)


def _checked_name(name: str) -> str:
    if not name.isascii():
        raise ValueError(f"{name!r} is not in A-labels: write the form that begins with xn--")
    if name != name.strip():
        raise ValueError(f"{name!r} has space around it: write {name.strip()!r}")
    if name != name.lower():
        raise ValueError(f"{name!r} has upper-case letters: write {name.lower()!r}")
    if name == "none":
        raise ValueError("'none' is the word for the empty set and stands alone")
    if not is_host_name(name):
        raise ValueError(f"{name!r} is neither `public`, a host name, `*.domain`, an address nor a CIDR")
    if ends_in_a_number(name):
        raise ValueError(f"{name!r} looks like an address in an unusual spelling: write it as four decimal numbers")
    return name


def _reach_text(reach: Reach) -> str:
    match reach:
        case PublicInternet():
            return "public"
        case HostName(name):
            return name
        case Domain(name):
            return f"*.{name}"
        case ipaddress.IPv4Network() | ipaddress.IPv6Network():
            alone = reach.prefixlen == reach.max_prefixlen
            return str(reach.network_address) if alone else str(reach)


# ======== policy/addresses.py =========================================================================================
# What an address is that is not public: loopback, private, link-local, and all else that IANA has set aside.
#
# An IPv6 address that holds an IPv4 address, for a gateway that leads there, is what that one is. Everything that no
# registry calls globally reachable is not public; what they leave open is.
#
# Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; IANA IPv4 and IPv6 Multicast Address Space Registries;
# IANA IPv6 Address Space (2000::/3 alone is assigned); RFC 3879 (site-local IPv6), RFC 4380 (Teredo), RFC 6052 section
# 3.1 and RFC 3056 section 2 (IPv6 that holds an IPv4 address); Microsoft's documentation of 168.63.129.16.


IPAddress = IPv4Address | IPv6Address

_SPECIAL_NETWORKS = tuple(
    (ip_network(network), words)
    for network, words in (
        ("0.0.0.0/8", "an address of no host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "an address of no host"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "reserved for local translation"),
        ("100::/64", "a black hole"),
        ("2001::/32", "a tunnel that hides where it ends"),
        ("2001:2::/48", "reserved for benchmarks"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("::/3", "assigned to nobody"),
        ("4000::/2", "assigned to nobody"),
        ("8000::/1", "assigned to nobody"),
    )
)
"""From the narrower to the wider: the first that holds an address says what it is."""
_REACHABLE = tuple(
    ip_network(network)
    for network in (
        "192.0.0.9",
        "192.0.0.10",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "2001:1::1",
        "2001:1::2",
        "2001:1::3",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:20::/28",
        "2001:30::/28",
    )
)
"""What the registries call globally reachable within a block that is not, and what holds IPv4 addresses there."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")


def words_of_address(address: IPAddress) -> str:
    """What an address is that is not public; empty where it is public."""
    return words_of_network(IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address))


def unmapped_address(address: IPAddress) -> IPAddress:
    """Of an IPv4-mapped address the IPv4 address that it is; else what was given."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def words_of_network(network: IPNetwork) -> str:
    """What every address of a network is, none of which is public; empty where some may be."""
    held = _held_ipv4(network)
    if any(_is_within(held, reachable) or _is_within(reachable, held) for reachable in _REACHABLE):
        return ""
    return next((words for wide, words in _SPECIAL_NETWORKS if _is_within(held, wide)), "")


def _held_ipv4(network: IPNetwork) -> IPNetwork:
    """The IPv4 addresses that IPv6 addresses hold; else what was given."""
    network = unmapped_network(network)
    if not isinstance(network, IPv6Network):
        return network
    for wide, held_bits in ((_TRANSLATED, 96), (_SIX_TO_FOUR, 16)):
        length = network.prefixlen - held_bits
        if _is_within(network, wide) and length >= 0:
            bits = int(network.network_address) >> (96 - held_bits) & 0xFFFFFFFF
            return IPv4Network((IPv4Address(bits), min(length, 32)))
    return network


def _is_within(network: IPNetwork, wide: IPNetwork) -> bool:
    same = network.version == wide.version
    return same and network.prefixlen >= wide.prefixlen and network.network_address in wide


# ======== policy/positions.py =========================================================================================
# Where each key of a TOML text stands, so that a message can name file and line.
#
# `tomllib` keeps no positions. This locator reads a text that `tomllib` has already accepted, so it only has to
# find where things begin; it judges nothing. It keeps its own stack, and one entry for each key or element
# instead of whole paths, so hostile text costs linear time and memory and cannot exhaust the interpreter's stack.
# Source: TOML 1.0.0, https://toml.io/en/v1.0.0.


KeyPath = tuple[str | int, ...]

_TOML_BASIC_STRING = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_TOML_LITERAL_STRING = r"'[^'\n]*'"
# Fewer than three quotes in a row are content, also right before the three that close.
_TOML_LONG_BASIC_STRING = r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
_TOML_LONG_LITERAL_STRING = r"'''[^']*(?:'(?!'')[^']*)*'{3,5}"
TOML_LONG_STRING = rf"(?s:{_TOML_LONG_BASIC_STRING}|{_TOML_LONG_LITERAL_STRING})"
"""A pattern of strings that may go over several lines. It comes first: they begin like an empty short one."""
TOML_SHORT_STRING = f"{_TOML_BASIC_STRING}|{_TOML_LITERAL_STRING}"
"""A pattern of strings in one line."""
_TOML_GAP = r"(?:[ \t\r\n,]|#[^\n]*)*"

_TOML_STATEMENT = re.compile(rf"{_TOML_GAP}(?P<bracket>\[\[?)?[ \t]*")
TOML_SEGMENT = re.compile(rf"(?P<key>[A-Za-z0-9_-]+|{TOML_SHORT_STRING})[ \t]*(?P<end>[.=\]])[ \t]*")
"""One segment of a key, the sign after it, and the blanks after that."""
_TOML_VALUE = re.compile(rf"(?P<bracket>[\[{{])|{TOML_LONG_STRING}|{TOML_SHORT_STRING}|[^\[\]{{}},#\n]+")
_TOML_NEXT = re.compile(rf"{_TOML_GAP}(?P<bracket>[\]}}])?")
_LAST_CODE_OF_FOUR_DIGITS = 0xFFFF
_BARE_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a text."""

    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Where each key and array element of a text stands: a tree of numbered nodes, the document being 0."""

    nodes: Mapping[tuple[int, str | int], int] = field(repr=False)
    """The node reached from a parent node by a key, or by an index in an array."""
    offsets: tuple[int, ...] = field(repr=False)
    """For each node, the characters before it."""
    line_starts: tuple[int, ...] = field(repr=False)
    """For each line, the characters before it."""

    def find(self, path: KeyPath) -> Position | None:
        """Return where a path stands, or None where the text does not hold it."""
        known, node = self._walk(path)
        return self._position(node) if known == len(path) else None

    def nearest(self, path: KeyPath) -> Position:
        """Return where a path stands, or the nearest ancestor that the text holds: its start if there is none."""
        return self._position(self._walk(path)[1])

    def line(self, path: KeyPath) -> int:
        """Return the line alone of what `nearest` finds."""
        return bisect_right(self.line_starts, self.offsets[self._walk(path)[1]])

    def offset(self, path: KeyPath) -> int | None:
        """Return how many characters stand before a path, or None where the text does not hold it."""
        known, node = self._walk(path)
        return self.offsets[node] if known == len(path) else None

    def _walk(self, path: KeyPath) -> tuple[int, int]:
        """Follow a path as far as it is known: how many segments, and the node there."""
        node = 0
        for known, segment in enumerate(path):
            child = self.nodes.get((node, segment))
            if child is None:
                return known, node
            node = child
        return len(path), node

    def _position(self, node: int) -> Position:
        offset = self.offsets[node]
        line = bisect_right(self.line_starts, offset)
        return Position(line=line, column=offset - self.line_starts[line - 1] + 1)


def locate(text: str) -> Positions:
    """Find where each key and array element stands in a text that `tomllib` accepts.

    A key stands where its own segment is first spelled, be it in a header or a dotted key that implies it; an
    element of an array of tables at the last segment of its header; any other element where its value begins.

    Raises:
        ValueError: the text is not TOML, seen only where it leaves nothing to go by.
    """
    reader = _PositionReader(text)
    reader.read_document()
    return Positions(
        nodes=MappingProxyType(reader.nodes),
        offsets=tuple(reader.offsets),
        line_starts=(0, *(newline.end() for newline in re.finditer("\n", text))),
    )


def path_text(path: KeyPath) -> str:
    """Write a path as TOML would, for a message: `limits.max_cpus.ceiling`, `audience[0]`, `users."a b"`."""
    parts = (f"[{segment}]" if isinstance(segment, int) else f".{_segment_text(segment)}" for segment in path)
    return "".join(parts).removeprefix(".")


def _segment_text(segment: str) -> str:
    if _BARE_SEGMENT.fullmatch(segment):
        return segment
    return f'"{"".join(map(_escaped_character, segment))}"'


def _escaped_character(character: str) -> str:
    """Escape what ends a string, and what could break a line or reorder the message it stands in."""
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= _LAST_CODE_OF_FOUR_DIGITS else f"\\U{code:08X}"


def _decoded_segment(spelling: str) -> str:
    if "\\" in spelling:
        # The parser itself decodes escapes, so the two can never disagree.
        decoded: str = tomllib.loads(f"k = {spelling}")["k"]
        return decoded
    return spelling[1:-1] if spelling[0] in "\"'" else spelling


class _PositionReader:
    """Reads one text from its start to its end, noting where things begin."""

    def __init__(self, text: str) -> None:
        self.nodes: dict[tuple[int, str | int], int] = {}
        self.offsets = [0]
        self._text = text
        self._at = 0
        self._lengths: dict[int, int] = {}  # of arrays of tables, by node

    def read_document(self) -> None:
        """Read statement after statement: a header, or a key with its value."""
        table = 0
        while True:
            bracket = self._take(_TOML_STATEMENT)
            if bracket:
                table = self._read_header(is_element=bracket == "[[")
            elif self._at < len(self._text):
                self._read_value(self._read_key(table)[0])
            else:
                return

    def _read_header(self, *, is_element: bool) -> int:
        """Return the table that the keys after this header belong to."""
        node, name_offset = self._read_key(0)
        if not is_element:
            return node
        self._at += 1  # the second closing bracket
        index = self._lengths.get(node, 0)
        self._lengths[node] = index + 1
        return self._child(node, index, name_offset)

    def _read_key(self, table: int) -> tuple[int, int]:
        """Read a dotted key and the sign that ends it; return its node and its last segment's offset."""
        node, offset, end = table, self._at, "."
        while end == ".":
            offset = self._at
            match = TOML_SEGMENT.match(self._text, offset)
            if match is None:
                raise self._refusal()
            self._at = match.end()
            end = match["end"]
            node = self._child(self._newest_table(node), _decoded_segment(match["key"]), offset)
        return node, offset

    def _read_value(self, node: int) -> None:
        """Read the value of a node, with all that it contains."""
        containers: list[tuple[int, Iterator[int] | None]] = []
        value: int | None = node
        while value is not None:
            bracket = self._take(_TOML_VALUE)
            if bracket:
                containers.append((value, count() if bracket == "[" else None))
            value = self._next_value(containers)

    def _next_value(self, containers: list[tuple[int, Iterator[int] | None]]) -> int | None:
        """Go to where the next value in the open containers begins, closing those that end before it."""
        while containers:
            if self._take(_TOML_NEXT):
                containers.pop()
                continue
            container, indexes = containers[-1]
            if indexes is None:
                return self._read_key(container)[0]
            return self._child(container, next(indexes), self._at)
        return None

    def _newest_table(self, node: int) -> int:
        """Return the newest element of an array of tables, which is what its name means in later headers."""
        length = self._lengths.get(node)
        return node if length is None else self.nodes[node, length - 1]

    def _child(self, parent: int, segment: str | int, offset: int) -> int:
        """Return a node's child, which stands where it was first seen."""
        child = self.nodes.setdefault((parent, segment), len(self.offsets))
        if child == len(self.offsets):
            self.offsets.append(offset)
        return child

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        """Read what matches here, and return the bracket in it."""
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._refusal()
        self._at = match.end()
        return match["bracket"]

    def _refusal(self) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"nothing that begins in line {line} is a key or a value")


# ======== policy/errors.py ============================================================================================
# What can be wrong in a layer, and the errors that carry it.
#
# A `Problem` is a plain value that names the thing, where it stands, why it is refused and what to do about it.
# A bad document or environment reports all of its problems at once, in one error. No problem ever holds a secret.


LONGEST_PART = 600
"""Characters shown of each part of a problem: a path may be long, a key that somebody made up too."""
MOST_LISTED = 100
"""Problems listed of one error."""


class Flaw(Enum):
    """What kind of thing is wrong with a file or a variable; each is the name of a lint rule."""

    UNREADABLE_FILE = "unreadable-file"
    NOT_TOML = "not-toml"
    ENCODING = "encoding"
    TOO_LARGE = "too-large"
    DUPLICATE_KEY = "duplicate-key"
    UNKNOWN_KEY = "unknown-key"
    LOOK_ALIKE_KEY = "look-alike-key"
    UNSUPPORTED_KEY = "unsupported-key"
    MISSING_KEY = "missing-key"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    NOT_FINITE = "not-finite"
    BAD_VALUE = "bad-value"
    DATE_WITHOUT_OFFSET = "date-without-offset"
    BAD_DESTINATION = "bad-destination"
    REPEATED_ITEM = "repeated-item"
    SAYS_NOTHING = "says-nothing"
    BROKEN_SIGNATURES = "broken-signatures"
    LOCK_BESIDE_OTHERS = "lock-beside-others"
    DEFAULT_OUTSIDE_CEILING = "default-outside-ceiling"
    DATES_OUT_OF_ORDER = "dates-out-of-order"
    IDLE_ENV_MAY_LOOSEN = "idle-env-may-loosen"
    CONTRADICTORY_RELATIONS = "contradictory-relations"
    MISSPELT_VARIABLE = "misspelt-variable"
    MALFORMED_VARIABLE = "malformed-variable"
    CONTRADICTORY_VARIABLES = "contradictory-variables"
    AMBIGUOUS_LINE = "ambiguous-line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, in words a person can act on."""

    key: str
    """What it is about: a variable, a key path, a file, a valve."""
    origin: str
    """Where it stands: `environment`, `FILE:LINE`, `FILE`, `valve`."""
    reason: str
    """Why it is refused: no full stop at its end."""
    remedy: str
    """What to do about it: a sentence without full stop, or empty where the reason says it all."""
    flaw: Flaw | None = None
    """What kind of thing is wrong; `None` for what only a host, a key or a moment makes wrong."""
    path: KeyPath = ()
    """The key in a policy file, where it is about one."""
    position: Position | None = None
    """Where in the file it stands, where that is known to the character."""

    def __str__(self) -> str:
        """Read as one line of bounded length, without control characters: origin, key, reason, remedy."""
        text = f"{_cut_part(self.origin)}: {_cut_part(self.key)}: {_cut_part(self.reason)}."
        return printable(f"{text} {_cut_part(self.remedy)}." if self.remedy else text)

    def as_json(self) -> dict[str, str]:
        """The same for programs."""
        return {"key": self.key, "origin": self.origin, "reason": self.reason, "remedy": self.remedy}


def _cut_part(text: str) -> str:
    return text if len(text) <= LONGEST_PART else f"{text[:LONGEST_PART]}…"


def printable(text: str) -> str:
    """Text in one line, whose control and bidirectional characters show: no line of a log or terminal is forged."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def listed(problems: tuple[Problem, ...], most: int = MOST_LISTED) -> tuple[Problem, ...]:
    """The first problems, and how many more there are, so that no file can fill a chat or a log."""
    if len(problems) <= most:
        return problems
    more = Problem(key="and more", origin=problems[most].origin, reason=f"{len(problems) - most} more", remedy="")
    return (*problems[:most], more)


class PolicyError(Exception):
    """Something in a layer is wrong: no limits come out of it, so nothing runs."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        if not problems:
            raise ValueError("a policy error needs at least one problem")
        self.problems = listed(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigurationError(PolicyError):
    """The environment holds a variable of ours, or one too close to ours, that cannot be used."""


class DocumentError(PolicyError):
    """A policy file is not a policy: size, syntax, shape or values."""


class SignatureError(PolicyError):
    """A policy file's signatures are missing, malformed, too few, or do not verify."""


class KeyFileError(PolicyError):
    """A key cannot be read, or is not one we accept."""


class AuditError(PolicyError):
    """A run cannot be written into the audit log, or could not be."""


class StateError(PolicyError):
    """What an instance remembers of policies cannot be read, written or trusted."""


class SetRefusedError(PolicyError):
    """The set of policy files as a whole is refused, for one stable reason code."""

    def __init__(self, code: str, problems: tuple[Problem, ...]) -> None:
        self.code = code
        super().__init__(problems)


# ======== policy/keys.py ==============================================================================================
# Ed25519 keys: what counts as one, and how they are read from settings and PEM, made and written.
#
# Pure functions on text and bytes; files are read elsewhere and passed in. Only Ed25519 exists, and a public key is
# its raw 32 bytes: the key id is derived from them, so no key has two. No problem told here holds bytes of a key.
# Source: RFC 8032 (Ed25519), RFC 8410 (SPKI and PKCS#8 of Ed25519), RFC 7468 (PEM).


RAW_KEY_BYTES = 32
"""Length of a raw Ed25519 public key. Source: RFC 8032, 5.1.5."""

FIELD_PRIME = 2**255 - 19
"""The field of edwards25519. Source: RFC 8032, 5.1."""

CURVE_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
"""The constant d of edwards25519, -x² + y² = 1 + d·x²·y². Source: RFC 8032, 5.1."""

ORDER_EIGHT_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""Height of four of the points of order eight; the other four stand at its negative."""

SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, ORDER_EIGHT_Y, FIELD_PRIME - ORDER_EIGHT_Y})
"""Heights, reduced, of the eight points of small order; with either sign bit and unreduced these are all 14 encodings.

Signatures under such a key can be forged by anybody. Source: C2SP CCTV, `ed25519` (eight points and six alternative
encodings); libsodium, `ge25519_has_small_order`.
"""

PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(?:(?!-----).)*-----END \1-----", re.DOTALL)
"""One PEM block; dashes inside would be a block cut off."""

INLINE_KEY = re.compile(r"ed25519:([A-Za-z0-9+/]{43}=)")
"""One key written into the setting itself."""

PRIVATE_KEY_WARNING = (
    "Name the public key (NAME.pub) here, keep the private key where policies are signed, "
    "and replace it if others could read this"
)
"""Remedy where a private key was given and a public one is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key that is safe to trust: canonical, on the curve and not of small order."""

    raw: bytes
    """Its 32 bytes as RFC 8032 encodes them."""

    def __post_init__(self) -> None:
        reason = weak_key_reason(self.raw)
        if reason:
            raise KeyFileError((_key_problem("public key", reason, "Make a new one: policy keygen NAME"),))

    @property
    def key_id(self) -> str:
        """Name the key: `sha256:` and the lower-case hex SHA-256 of its raw bytes."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key made this signature (64 bytes) of this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """A private key, which never shows its bytes by accident."""

    secret: Ed25519PrivateKey = field(repr=False)
    """The key as the cryptography library holds it."""

    @property
    def public(self) -> PublicKey:
        """Give the public half."""
        return PublicKey(raw=self.secret.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Sign a message: 64 bytes, the same ones each time."""
        return self.secret.sign(message)


def weak_key_reason(raw: bytes) -> str:
    """Say why these bytes are no public key to trust; empty if they are one."""
    if len(raw) != RAW_KEY_BYTES:
        return f"it has {len(raw)} bytes, not {RAW_KEY_BYTES}"
    height = int.from_bytes(raw, "little") & (2**255 - 1)
    if height % FIELD_PRIME in SMALL_ORDER_Y:
        return "it is a point of small order, under which anybody can forge signatures"
    if height >= FIELD_PRIME:
        return "it is not encoded canonically"
    numerator, denominator = height**2 - 1, CURVE_D * height**2 + 1
    if pow(numerator * denominator, (FIELD_PRIME - 1) // 2, FIELD_PRIME) != 1:
        return "it is not a point of Ed25519's curve"
    return ""


def parse_keys(setting: str, origin: str, read: Callable[[Path], Mapping[str, bytes]]) -> tuple[PublicKey, ...]:
    """Read the setting `SANDBOX_POLICY_KEYS` into its distinct keys.

    Args:
        setting: a path that begins with `/`, or `ed25519:<base64 of 32 bytes>`, comma-separated.
        origin: where the setting stands, for messages.
        read: gives the PEM files of a path, as `policy.trusted_files.read_public_key_files` does.

    Raises:
        KeyFileError: if the setting is empty, or any part of it is not a key we accept; it names each part.
    """
    if setting.startswith("/"):
        return parse_public_pem(read(Path(setting)))
    return _distinct_keys(_inline_keys(setting, origin), origin)


def parse_public_pem(files: Mapping[str, bytes]) -> tuple[PublicKey, ...]:
    """Read the distinct public keys of PEM files, named by their paths.

    Raises:
        KeyFileError: if there is no key, or anything in the files is not one we accept; it names each.
    """
    found = (item for path, data in files.items() for item in _pem_keys(data, path))
    return _distinct_keys(found, ", ".join(files))


def _distinct_keys(found: Iterable[PublicKey | Problem], origin: str) -> tuple[PublicKey, ...]:
    keys: list[PublicKey] = []
    problems: list[Problem] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        elif item not in keys:
            keys.append(item)
    if not keys and not problems:
        problems.append(_key_problem(origin, "no key is named", "Name at least one public key"))
    if problems:
        raise KeyFileError(tuple(problems))
    return tuple(keys)


def _inline_keys(setting: str, origin: str) -> Iterator[PublicKey | Problem]:
    if not setting.strip():
        yield _key_problem(origin, "it is empty", "Name public keys, or unset it")
        return
    for number, item in enumerate(setting.split(","), start=1):
        yield _inline_key(item.strip(" "), f"{origin}, item {number}")


def _inline_key(item: str, origin: str) -> PublicKey | Problem:
    """Read one key; the item is never repeated in the answer, since people paste private keys too."""
    if "PRIVATE KEY" in item:
        return _key_problem(origin, "it is a private key", PRIVATE_KEY_WARNING)
    written = INLINE_KEY.fullmatch(item)
    if not written:
        reason = "it is not ed25519: followed by the base64 of 32 bytes"
        remedy = "Write ed25519:BASE64, or the absolute path of a PEM file or a folder of them"
        return _key_problem(origin, "it is empty" if not item else reason, remedy)
    raw = base64.b64decode(written[1])
    # The last digit has spare bits, and a key has one spelling.
    if base64.b64encode(raw).decode() != written[1]:
        return _key_problem(origin, "its base64 is not canonical", "Copy the key anew, whole")
    return _checked_key(raw, origin)


def _checked_key(raw: bytes, origin: str) -> PublicKey | Problem:
    reason = weak_key_reason(raw)
    return _key_problem(origin, reason, "Make a new key: policy keygen NAME") if reason else PublicKey(raw=raw)


def _pem_keys(data: bytes, path: str) -> Iterator[PublicKey | Problem]:
    text = data.decode("ascii", "replace")
    blocks = list(PEM_BLOCK.finditer(text))
    if not blocks:
        reason = "it holds no whole PEM block"
        yield _key_problem(path, reason, "Name a public key file (NAME.pub) that policy keygen made")
        return
    yield from _stray_lines(PEM_BLOCK.sub("", text), path)
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        yield _pem_key(block[0], block[1], f"{path}:{line}")


def _stray_lines(outside: str, path: str) -> Iterator[Problem]:
    """Refuse text around the blocks, except comments: it may be a key cut off."""
    if any(line.strip() and not line.startswith("#") for line in outside.splitlines()):
        yield _key_problem(path, "there is text outside its PEM blocks", "Remove it, or begin its lines with #")


def _pem_key(block: str, label: str, origin: str) -> PublicKey | Problem:
    if label.endswith("PRIVATE KEY"):
        return _key_problem(origin, "it is a private key", PRIVATE_KEY_WARNING)
    if label != "PUBLIC KEY":
        remedy = "Give the public key as SPKI PEM (openssl pkey -pubout writes it)"
        return _key_problem(origin, f"it is a PEM block of type {label}, not PUBLIC KEY", remedy)
    try:
        key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        reason = "its PEM block is damaged, or of a kind that is not known"
        return _key_problem(origin, reason, "Copy the key anew, whole")
    if not isinstance(key, Ed25519PublicKey):
        return _wrong_algorithm(type(key).__name__, origin)
    return _checked_key(key.public_bytes_raw(), origin)


def _wrong_algorithm(kind: str, origin: str) -> Problem:
    algorithm = kind.removesuffix("PublicKey").removesuffix("PrivateKey")
    return _key_problem(origin, f"it is a key of type {algorithm}", "Use Ed25519: policy keygen NAME")


def _key_problem(origin: str, reason: str, remedy: str) -> Problem:
    return Problem(key="key", origin=origin, reason=reason, remedy=remedy)


# ======== policy/requester.py =========================================================================================
# Who asks, and the scopes of policy files that are held against it.
#
# A scope only ever tightens. So an attribute that cannot be determined meets every `match` and no `except`: whoever
# hides what they are gets the strictest of what they might be.


C = TypeVar("C", str, str | None)

TOOL_SURFACE = "tool"
"""The language model runs code through the tool."""
FUNCTION_SURFACE = "function"
"""A person presses the button under a message."""
SURFACES = (TOOL_SURFACE, FUNCTION_SURFACE)


def _composed(name: C) -> C:
    """A name in the one spelling (NFC) of those that look the same, as `é` typed on two systems."""
    return unicodedata.normalize("NFC", name) if name else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks for a run, and through what; `None` is what cannot be determined."""

    role: str | None = None
    """Their role in Open WebUI: `admin`, `user`, …"""
    groups: frozenset[str] | None = None
    """Ids and names of the groups they are in; empty where they are in none."""
    user: str | None = None
    """Their id in Open WebUI."""
    model: str | None = None
    """The id of the model that runs the code, as the server knows it."""
    surface: str | None = None
    """`tool` or `function`."""

    def __post_init__(self) -> None:
        """Refuse a surface that no scope can name, and spell names as scopes do."""
        if self.surface not in (None, *SURFACES):
            raise ValueError(f"{self.surface!r} is not one of {', '.join(SURFACES)}")
        for name in ("role", "user", "model"):
            object.__setattr__(self, name, _composed(getattr(self, name)))
        if self.groups is not None:
            object.__setattr__(self, "groups", frozenset(map(_composed, self.groups)))

    def has_any(self, attribute: str, values: frozenset[str]) -> bool | None:
        """Whether an attribute, by its key in a scope, is one of these values; `None` where that cannot be told."""
        match attribute:
            case "groups":
                return None if self.groups is None else not self.groups.isdisjoint(values)
            case "roles":
                own = self.role
            case "users":
                own = self.user
            case "models":
                own = self.model
            case "surface":
                own = self.surface
            case _:
                raise ValueError(f"no scope has the key {attribute}")
        return own in values if own else None  # an empty text names nobody

    def lacks(self, attribute: str) -> bool:
        """Whether an attribute cannot be determined."""
        return self.has_any(attribute, frozenset()) is None

    def as_json(self) -> dict[str, str | list[str] | None]:
        """Who asks, by the keys of a scope, each singular; `None` is what cannot be determined."""
        groups = None if self.groups is None else sorted(self.groups)
        return {
            "role": self.role,
            "groups": groups,
            "user": self.user,
            "model": self.model,
            "surface": self.surface,
        }


UNDETERMINED = Requester()
"""Somebody of whom nothing can be determined: every `match` is met, and no `except`."""


SCOPE_ATTRIBUTES = ("roles", "groups", "users", "models", "surface")
"""What a scope can ask for, by its keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeConditions:
    """Whom a scope is for."""

    match: Mapping[str, frozenset[str]]
    """By attribute, the values of which one must be met; every attribute named must be. Read-only."""
    excepted: Mapping[str, frozenset[str]]
    """By attribute, the values that take somebody out; one is enough. Read-only."""

    def __post_init__(self) -> None:
        """Keep what was given from changing, and give each name one spelling."""
        for side in ("match", "excepted"):
            named = {name: frozenset(map(_composed, values)) for name, values in getattr(self, side).items()}
            object.__setattr__(self, side, MappingProxyType(named))

    def __hash__(self) -> int:
        return hash((frozenset(self.match.items()), frozenset(self.excepted.items())))

    @property
    def asks_for(self) -> frozenset[str]:
        """The attributes that it has to be told."""
        return frozenset((*self.match, *self.excepted))

    def hold_for(self, requester: Requester) -> bool:
        """Whether the scope is for this requester."""
        met = all(requester.has_any(attribute, values) is not False for attribute, values in self.match.items())
        return met and not any(requester.has_any(name, values) for name, values in self.excepted.items())

    def __str__(self) -> str:
        """Whom it is for, as it completes a file's line."""
        matched = [_condition_words(name, values) for name, values in self.match.items()]
        excepted = [_condition_words(name, values) for name, values in self.excepted.items()]
        words = f"for {' and '.join(matched)}" if matched else "for everybody"
        return f"{words} except {' and '.join(excepted)}" if excepted else words


def _condition_words(attribute: str, values: frozenset[str]) -> str:
    """One condition as people who meet it may read it, which names no other person."""
    if attribute == "users":
        return "1 user" if len(values) == 1 else f"{len(values)} users"
    return f"{attribute} {_listed(values)}"


def _listed(values: frozenset[str]) -> str:
    most = 4
    shown = ", ".join(map(_shown_name, sorted(values)[:most]))
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"


def _shown_name(name: str) -> str:
    """A name as it is, or quoted where it could be taken for something else; of bounded length."""
    longest = 40
    cut = name if len(name) <= longest else f"{name[:longest]}…"
    return cut if re.fullmatch(r"[\w@.:+*/…-]+", cut) else repr(cut)


# ======== policy/shape.py =============================================================================================
# The shape of a TOML table: a JSON Schema, and a quick yes to what it permits.
#
# jsonschema is the one authority on shape: `shape_errors` asks it what is wrong. Most files are as they should be, and
# for those loading it costs more than all else a command does, and asking it more than reading them. So the keywords
# that our schemas use are compiled to functions over values as TOML has them, which only say that nothing is wrong. Upon
# a no the authority is asked, and decides; only a wrong yes could let anything through. Hence what is not known here is
# refused when a schema is compiled, and what is in doubt gets a no.
#
# Source: JSON Schema 2020-12, Core and Validation.


ShapeCheck = Callable[[Any], bool]
"""Whether a value, as TOML has it, keeps to a schema, or to one keyword of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a TOML table has to look like."""

    schema: Mapping[str, Any]
    """The JSON Schema."""
    accepts: ShapeCheck
    """Whether nothing is wrong with a table; what is, `shape_errors` says."""


class TomlDate(str):
    """A TOML date with an offset, in RFC 3339; a TOML string that looks like one stays a plain `str`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeError:
    """One breach of the schema."""

    path: tuple[str | int, ...]
    """Where in the document."""
    rule: str
    """The schema keyword that was broken; `false` where nothing may stand."""
    expected: Any
    """What the keyword says."""
    value: Any
    """What stands there, as JSON would hold it."""
    known_keys: tuple[str, ...]
    """For an unknown key: the keys that are known there."""
    cause: str
    """For a format: what its reader says."""


def compiled_shape(schema: Mapping[str, Any]) -> Shape:
    """Compile a JSON Schema, once for all tables that are held against it.

    Raises:
        ValueError: the schema has a keyword, or says something of one, that is not known here.
    """
    return Shape(schema=schema, accepts=_ShapeCompiler(schema).compiled(schema))


def schema_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as ECMA-262 reads it: `$` is the end; Python's also stands before a last line feed."""
    return re.compile(pattern.replace("$", r"\Z"))


class _ShapeCompiler:
    """Compiles one schema, and what it refers to once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._referred: dict[str, ShapeCheck] = {}

    def compiled(self, schema: Any) -> ShapeCheck:  # noqa: ANN401 -- a table, true or false
        """The check of one schema within the whole."""
        if isinstance(schema, bool):
            return lambda _value: schema
        keywords = schema.keys() - _SILENT_KEYWORDS
        if schema.get("format") == "date-time":
            keywords.discard("type")  # the format judges the type as well
        return _all_of(tuple(self._keyword_check(keyword, schema) for keyword in schema if keyword in keywords))

    def _keyword_check(self, keyword: str, schema: Mapping[str, Any]) -> ShapeCheck:
        if keyword in _VALUE_KEYWORDS:
            return _VALUE_KEYWORDS[keyword](schema[keyword])
        if keyword in _SCHEMA_KEYWORDS:
            return _SCHEMA_KEYWORDS[keyword](schema, self)
        raise ValueError(f"a schema with {keyword} cannot be compiled")

    def referred(self, reference: str) -> ShapeCheck:
        """The check of a schema elsewhere in the whole."""
        if reference not in self._referred:
            start, *keys = reference.split("/")
            if start != "#":
                raise ValueError(f"a reference to {reference} cannot be compiled")
            self._referred[reference] = self.compiled(reduce(getitem, keys, self._root))
        return self._referred[reference]


def _all_of(checks: tuple[ShapeCheck, ...]) -> ShapeCheck:
    def accepts(value: object) -> bool:
        for check in checks:  # noqa: SIM110 -- `all` with a generator takes twice the time
            if not check(value):
                return False
        return True

    return checks[0] if len(checks) == 1 else accepts


# Keywords that hold no schema. Each is given what the schema says of it.


def _type_check(said: object) -> ShapeCheck:
    types = _TOML_TYPES.get(str(said))
    if types is None:
        raise ValueError(f"type {said} cannot be compiled")
    return lambda value: type(value) in types


def _format_check(said: object) -> ShapeCheck:
    match said:
        case "date-time":
            return lambda value: isinstance(value, datetime) and value.tzinfo is not None
        case "destination":
            return _of_text(_is_item_of_allowlist)
    raise ValueError(f"format {said} cannot be compiled")


def _is_item_of_allowlist(text: str) -> bool:
    try:
        return bool(parse_destination(text))
    except ValueError:
        return False


def _is_distinct(value: object) -> bool:
    # Whether two values are equal that are no texts is in doubt: `1`, `1.0` and `true` are one to Python.
    return not isinstance(value, list) or ({str}.issuperset(map(type, value)) and len(set(value)) == len(value))


def _enum_check(said: Iterable[object]) -> ShapeCheck:
    choices = tuple(said)
    if not all(isinstance(choice, str | int) for choice in choices):
        raise ValueError(f"a choice among {choices} cannot be compiled")
    exact = frozenset((type(choice), choice) for choice in choices)  # `True` is 1, and yet another value
    return lambda value: isinstance(value, str | int) and (type(value), value) in exact


def _of_keys(check: Callable[[Iterable[str]], bool]) -> ShapeCheck:
    return lambda value: not isinstance(value, dict) or check(value.keys())


def _of_text(check: Callable[[str], object]) -> ShapeCheck:
    """Hold texts against a keyword; a date is one to the authority, so it is asked."""
    return lambda value: bool(check(value)) if isinstance(value, str) else not isinstance(value, datetime)


_NUMBERS = (int, float)  # and no `bool`
_TOML_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": _NUMBERS,
    }
)
_VALUE_KEYWORDS: Mapping[str, Callable[[Any], ShapeCheck]] = MappingProxyType(
    {
        "type": _type_check,
        "const": lambda said: _enum_check([said]),
        "enum": _enum_check,
        # Not `said <= value`: a NaN is neither below nor above, and left to whoever reads the number.
        "minimum": lambda said: lambda value: type(value) not in _NUMBERS or not value < said,
        "maximum": lambda said: lambda value: type(value) not in _NUMBERS or not value > said,
        "minLength": lambda said: _of_text(lambda text: len(text) >= said),
        "maxLength": lambda said: _of_text(lambda text: len(text) <= said),
        "pattern": lambda said: _of_text(schema_regex(said).search),
        "format": _format_check,
        "minProperties": lambda said: lambda value: not isinstance(value, dict) or len(value) >= said,
        "required": lambda said: _of_keys(frozenset(said).issubset),
        "minItems": lambda said: lambda value: not isinstance(value, list) or len(value) >= said,
        "maxItems": lambda said: lambda value: not isinstance(value, list) or len(value) <= said,
        "uniqueItems": lambda _said: _is_distinct,
    }
)


# Keywords that hold schemas. Each is given the schema it stands in.


def _properties_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    checks = {name: compiler.compiled(inner) for name, inner in schema["properties"].items()}

    def accepts(value: object) -> bool:
        for key, item in value.items() if isinstance(value, dict) else ():
            check = checks.get(key)
            if check is not None and not check(item):
                return False
        return True

    return accepts


def _additional_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    known = frozenset(schema.get("properties", ()))
    if schema["additionalProperties"] is False:
        return lambda value: not isinstance(value, dict) or value.keys() <= known
    check = compiler.compiled(schema["additionalProperties"])
    return lambda value: not isinstance(value, dict) or all(check(value[key]) for key in value.keys() - known)


def _names_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    check = compiler.compiled(schema["propertyNames"])
    return lambda value: not isinstance(value, dict) or all(map(check, value))


def _items_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    check = compiler.compiled(schema["items"])
    return lambda value: not isinstance(value, list) or all(map(check, value))


def _any_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    checks = tuple(map(compiler.compiled, schema["anyOf"]))

    def accepts(value: object) -> bool:
        for check in checks:  # noqa: SIM110 -- as in `_all_of`
            if check(value):
                return True
        return False

    return accepts


def _condition_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    if not _CERTAIN_KEYWORDS.issuperset(schema["if"]):
        raise ValueError("a condition can only be compiled of keywords that are never in doubt: a no opens its `else`")
    condition, then, otherwise = (compiler.compiled(schema.get(keyword, True)) for keyword in ("if", "then", "else"))
    return lambda value: then(value) if condition(value) else otherwise(value)


_SCHEMA_KEYWORDS: Mapping[str, Callable[[Mapping[str, Any], _ShapeCompiler], ShapeCheck]] = MappingProxyType(
    {
        "$ref": lambda schema, compiler: compiler.referred(schema["$ref"]),
        "additionalProperties": _additional_check,
        "propertyNames": _names_check,
        "properties": _properties_check,
        "items": _items_check,
        "if": _condition_check,
        "anyOf": _any_check,
    }
)
_CERTAIN_KEYWORDS = frozenset({"type", "required"})
_SILENT_KEYWORDS = frozenset({"$schema", "title", "description", "then", "else"})
"""What says nothing of a value, or only beside `if`."""


# ======== policy/shape_errors.py ======================================================================================
# What is wrong with the shape of a TOML table: jsonschema, the one authority on shape, held to what TOML tells apart.
#
# Two things TOML tells apart and JSON does not are told apart here too: `1` and `1.0`, and a date and a text that looks
# like one. jsonschema takes longer to load than all else a command does, so this module is imported only once something
# is known to be wrong; see `policy/shape.py`.
#
# Source: JSON Schema 2020-12; RFC 3339 for dates.


def shape_errors(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[ShapeError]:
    """Everything about the shape of parsed TOML that is wrong, in the schema's order."""
    validator = _StrictValidator(schema, format_checker=_formats())
    yield from map(_shape_error, validator.iter_errors(_json_image(document)))


def _shape_error(error: jsonschema.ValidationError) -> ShapeError:
    schema = error.schema if isinstance(error.schema, dict) else {}
    return ShapeError(
        path=tuple(error.absolute_path),
        rule=str(error.validator or "false"),
        expected=error.validator_value,
        value=error.instance,
        known_keys=tuple(schema.get("properties", ())),
        cause=str(error.cause or ""),
    )


def _json_image(value: object) -> object:
    """The document as JSON would hold it, with dates told apart from texts."""
    match value:
        case dict():
            return {key: _json_image(item) for key, item in value.items()}
        case list():
            return [_json_image(item) for item in value]
        case datetime() if value.tzinfo is not None:
            return TomlDate(value.isoformat())
        case _:
            return value


def _is_integer(_checker: TypeChecker, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _formats() -> FormatChecker:
    checker = FormatChecker(formats=())
    checker.checks("date-time")(lambda value: isinstance(value, TomlDate))
    checker.checks("destination", raises=ValueError)(_is_destination)
    return checker


def _is_destination(value: object) -> bool:
    # What is no text is refused by its type, in words that fit it.
    return not isinstance(value, str) or bool(parse_destination(value))


def _type_errors(
    validator: Validator, types: str, instance: object, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """As jsonschema has it, but a date is no text, and stands only where the format asks for one."""
    if schema.get("format") == "date-time":
        return  # the format judges the type as well
    if isinstance(instance, TomlDate):
        yield jsonschema.ValidationError(f"a date is not of type {types}")
        return
    yield from Draft202012Validator.VALIDATORS["type"](validator, types, instance, schema)


def _pattern_errors(
    _validator: Validator, pattern: str, instance: object, _schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """As jsonschema has it, but read as ECMA-262 has it."""
    if isinstance(instance, str) and not schema_regex(pattern).search(instance):
        yield jsonschema.ValidationError(f"it does not match {pattern}")


_StrictValidator = extend(  # type: ignore[no-untyped-call]  # its stubs leave it so
    Draft202012Validator,
    validators={"type": _type_errors, "pattern": _pattern_errors},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


# ======== policy/values.py ============================================================================================
# The kinds of value a limit may have: each a lattice, ordered by strictness, with one grammar.
#
# A kind reads its values from text (variables) and from native values (TOML, valves), spells them again, and knows
# their order: `meet` is the loosest value that is no looser than either. `UNLIMITED` is a word of its own: neither zero
# nor `None` ever means it, and an empty set never means any.


T = TypeVar("T")
N = TypeVar("N", int, Decimal)

LONGEST_VALVE = 128 * 1024
"""Characters of a valve that are read: the longest allow-list has fewer."""

Native = bool | int | float | str | list[str]
"""What JSON and TOML can hold of a value."""


class Unlimited(Enum):
    """The loosest value a number can have."""

    UNLIMITED = "unlimited"


UNLIMITED = Unlimited.UNLIMITED


class Kind(ABC, Generic[T]):
    """A kind of value: its grammar, its order and its JSON Schema."""

    @property
    @abstractmethod
    def grammar(self) -> str:
        """What text is permitted, in words that complete "expected …"."""

    @property
    @abstractmethod
    def strictest(self) -> T:
        """The strict end of the order."""

    @abstractmethod
    def parse(self, text: str) -> T:
        """Read the value of a variable; ValueError says what is wrong."""

    @abstractmethod
    def from_native(self, value: object) -> T:
        """Read a value out of TOML or a valve; ValueError says what is wrong."""

    @abstractmethod
    def native(self, value: T) -> Native:
        """The value as JSON and TOML hold it."""

    @abstractmethod
    def meet(self, one: T, other: T) -> T:
        """The loosest value that is no looser than either."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a value."""

    def within(self, value: T, bound: T) -> bool:
        """Whether the value is no looser than the bound."""
        return self.meet(value, bound) == value

    def text(self, value: T) -> str:
        """The value as a variable holds it."""
        native = self.native(value)
        if isinstance(native, list):
            return ",".join(native) or "none"
        return str(native).lower() if isinstance(native, bool) else str(native)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Kind[bool]):
    """True or false, one of which is the strict one."""

    strict: bool
    """Which of the two is the stricter."""

    @property
    def grammar(self) -> str:
        """Either word, in any case."""
        return "true or false"

    @property
    def strictest(self) -> bool:
        """The strict word."""
        return self.strict

    def parse(self, text: str) -> bool:
        """Read `true` or `false` in any case."""
        words = {"true": True, "false": False}
        if text.lower() not in words:
            raise ValueError(f"{spelt(text)} is neither true nor false")
        return words[text.lower()]

    def from_native(self, value: object) -> bool:
        """Take a bool as it is."""
        if not isinstance(value, bool):
            raise ValueError(f"{spelt(value)} is neither true nor false")
        return value

    def native(self, value: bool) -> bool:  # noqa: FBT001 -- the value itself
        """A bool is its own native form."""
        return value

    def meet(self, one: bool, other: bool) -> bool:  # noqa: FBT001 -- the values themselves
        """The strict one wherever either is strict."""
        return self.strict if self.strict in (one, other) else not self.strict

    def schema(self) -> dict[str, Any]:
        """A JSON boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number(Kind[N | Unlimited]):
    """A number within a hard range, lower being stricter."""

    minimum: N
    """The least value, which is also the strictest."""
    maximum: N
    """The hard upper range, which no layer can exceed."""
    may_be_unlimited: bool = True
    """Whether the word `unlimited` is permitted."""

    @property
    def grammar(self) -> str:
        """The spelling, the range and whether `unlimited` is permitted."""
        word = " or unlimited" if self.may_be_unlimited else ""
        return f"{self._spelling()} from {self.minimum} to {self.maximum}{word}"

    @property
    def strictest(self) -> N | Unlimited:
        """The least value."""
        return self.minimum

    def parse(self, text: str) -> N | Unlimited:
        """Read digits, or the word `unlimited` where it is permitted."""
        if text == UNLIMITED.value and self.may_be_unlimited:
            return UNLIMITED
        return self._in_range(self._parse_digits(text))

    def from_native(self, value: object) -> N | Unlimited:
        """Read a TOML number, or the word `unlimited` where it is permitted."""
        if value == UNLIMITED.value and self.may_be_unlimited:
            return UNLIMITED
        return self._in_range(self._from_number(value))

    def native(self, value: N | Unlimited) -> Native:
        """A JSON number, whole where it is whole, or the word `unlimited`."""
        if isinstance(value, Unlimited):
            return value.value
        return int(value) if value == int(value) else float(value)

    def meet(self, one: N | Unlimited, other: N | Unlimited) -> N | Unlimited:
        """The lower of the two."""
        if isinstance(one, Unlimited):
            return other
        return one if isinstance(other, Unlimited) else min(one, other)

    def schema(self) -> dict[str, Any]:
        """A JSON number in range, or the word `unlimited`."""
        number = {
            "type": self._schema_type(),
            "minimum": self.native(self.minimum),
            "maximum": self.native(self.maximum),
        }
        if not self.may_be_unlimited:
            return number
        return {"if": {"type": "string"}, "then": {"const": UNLIMITED.value}, "else": number}

    def _in_range(self, number: N) -> N:
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"{spelt(number)} is outside {self.minimum} to {self.maximum}")
        return number

    @abstractmethod
    def _spelling(self) -> str: ...

    @abstractmethod
    def _schema_type(self) -> str: ...

    @abstractmethod
    def _parse_digits(self, text: str) -> N: ...

    @abstractmethod
    def _from_number(self, value: object) -> N: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(_Number[int]):
    """A whole number."""

    def _spelling(self) -> str:
        return "a whole number in plain digits"

    def _schema_type(self) -> str:
        return "integer"

    def _parse_digits(self, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
            raise ValueError(f"{spelt(text)} is not a whole number in plain digits")
        return int(text)

    def _from_number(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{spelt(value)} is not a whole number")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Thousandths(_Number[Decimal]):
    """A decimal number with at most three places."""

    def _spelling(self) -> str:
        return "a number with at most three decimal places"

    def _schema_type(self) -> str:
        return "number"

    def _parse_digits(self, text: str) -> Decimal:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text, re.ASCII):
            raise ValueError(f"{spelt(text)} is not a number with at most three decimal places")
        return Decimal(text)

    def _from_number(self, value: object) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{spelt(value)} is not a number")
        return Decimal(value) if isinstance(value, int) else self._parse_digits(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Kind[frozenset[str]]):
    """A set of words out of a fixed list, fewer being stricter."""

    choices: tuple[str, ...]
    """The whole list, in the order in which people see it."""

    @property
    def grammar(self) -> str:
        """The words to choose from."""
        return f"none, or words out of {', '.join(self.choices)}, separated by commas"

    @property
    def strictest(self) -> frozenset[str]:
        """The empty set."""
        return frozenset()

    def parse(self, text: str) -> frozenset[str]:
        """Read words separated by commas, or `none`."""
        return frozenset() if text == "none" else self.from_native(text.split(","))

    def from_native(self, value: object) -> frozenset[str]:
        """Read an array of words."""
        for word in _strings(value):
            if word not in self.choices:
                raise ValueError(f"{spelt(word)} is not one of {', '.join(self.choices)}")
        return frozenset(_strings(value))

    def native(self, value: frozenset[str]) -> list[str]:
        """The words in the list's order."""
        return [word for word in self.choices if word in value]

    def meet(self, one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
        """The words in both."""
        return one & other

    def schema(self) -> dict[str, Any]:
        """An array of distinct words."""
        return {"type": "array", "items": {"enum": list(self.choices)}, "uniqueItems": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations(Kind[frozenset[Destination]]):
    """A set of network destinations, fewer and narrower being stricter."""

    @property
    def grammar(self) -> str:
        """What an item may be."""
        items = "`public`, a host name, `*.domain`, an address or a CIDR, with an optional :port"
        return f"none, or items separated by commas, each {items}"

    @property
    def strictest(self) -> frozenset[Destination]:
        """The empty set."""
        return frozenset()

    def parse(self, text: str) -> frozenset[Destination]:
        """Read items separated by commas, or `none`."""
        return frozenset() if text == "none" else self.from_native(text.split(","))

    def from_native(self, value: object) -> frozenset[Destination]:
        """Read an array of items."""
        return narrowed(parse_destination(text) for text in _strings(value))

    def native(self, value: frozenset[Destination]) -> list[str]:
        """The items, sorted by their spelling."""
        return sorted(str(item) for item in value)

    def meet(self, one: frozenset[Destination], other: frozenset[Destination]) -> frozenset[Destination]:
        """What both permit, item by item."""
        return meet_of_sets(one, other)

    def schema(self) -> dict[str, Any]:
        """An array of strings; what an item means is read by `parse_destination`."""
        item = {"type": "string", "minLength": 1, "maxLength": LONGEST_DESTINATION, "format": "destination"}
        return {"type": "array", "items": item, "uniqueItems": True, "maxItems": 256}


def spelt(untrusted: object) -> str:
    """An untrusted value for a message: printable, of bounded length, however large or deep the value is."""
    longest = 80
    if isinstance(untrusted, str):
        return repr(untrusted if len(untrusted) <= longest else f"{untrusted[:longest]}…")
    if isinstance(untrusted, int) and untrusted.bit_length() > longest:
        return "a very large number"
    if isinstance(untrusted, bool):
        return str(untrusted).lower()
    if isinstance(untrusted, int | float | Decimal):
        return str(untrusted)[:longest]
    return f"a {type(untrusted).__name__}"


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{spelt(value)} is not a list of words")
    return tuple(value)


def valve_characters(untrusted: object) -> int:
    """How much text a valve holds, which anybody may have stored there."""
    if isinstance(untrusted, list):
        return len(untrusted) + sum(len(item) for item in untrusted if isinstance(item, str))
    return len(untrusted) if isinstance(untrusted, str) else 0


def from_untrusted_valve(kind: Kind[T], untrusted_value: object) -> T:
    """Read a valve, which Open WebUI may have stored as text or as a native value.

    Raises:
        ValueError: the value is neither; the message says what is wrong with it.
    """
    if valve_characters(untrusted_value) > LONGEST_VALVE:
        raise ValueError("it is longer than any value that it can have")
    if isinstance(untrusted_value, str):
        return kind.parse(untrusted_value)
    if isinstance(untrusted_value, Mapping):
        raise ValueError("a table is no value")
    return kind.from_native(untrusted_value)


# ======== policy/limits.py ============================================================================================
# The one table of limits. Environment variables, TOML keys, valves, JSON Schema, docs and plugins derive from it.
#
# To add a limit, add an entry to `LIMITS`; to enforce it is `sandbox`'s business. Each limit has one name everywhere:
# valve `MAX_RUNTIME_SECONDS`, TOML `max_runtime_seconds`, variable `SANDBOX_MAX_RUNTIME_SECONDS`. Mega and kilo are
# 2^20 and 2^10.


L = TypeVar("L")

VARIABLE_PREFIX = "SANDBOX_"


class Chooser(Enum):
    """Who has a valve for a limit."""

    PERSON = "person"
    """A person in their own valves; the administrator in the plugin's valves too."""
    ADMINISTRATOR = "administrator"
    """Only the plugin's valves."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts, for people."""

    one: str
    """Beside the number 1."""
    many: str
    """Beside every other number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit(Generic[L]):
    """One limit: everything about it that is not enforcement."""

    name: str
    """Its TOML key, in snake case; the other names derive from it."""
    kind: Kind[L]
    """The type, unit range and order of its values."""
    unit: Unit | None
    """What a number counts, for people; `None` where there is none."""
    built_in: L
    """What holds where no layer says anything, and the most a person gets unasked."""
    lockdown: L
    """What a deployment falls back to when its policy set is no longer good."""
    chosen_by: Chooser
    """Who has a valve for it."""
    may_go_unenforced: bool = False
    """Whether a run may go without it on a host that cannot enforce it, when `require_resource_limiting` is false."""
    description: str
    """One sentence for people, without full stop."""

    @property
    def variable(self) -> str:
        """The environment variable that locks it."""
        return f"{VARIABLE_PREFIX}{self.name.upper()}"

    @property
    def valve(self) -> str:
        """The valve in Open WebUI."""
        return self.name.upper()

    def words(self, value: L) -> str:
        """The value with its unit, for people."""
        text = self.kind.text(value)
        if self.unit is None or isinstance(value, Unlimited):
            return text
        return f"{text} {self.unit.one if text == '1' else self.unit.many}"


NETWORKING_ALLOWED: Limit[bool] = Limit(
    name="networking_allowed",
    kind=Switch(strict=False),
    unit=None,
    built_in=True,
    lockdown=False,
    chosen_by=Chooser.PERSON,
    description="Whether code may reach a network at all",
)
MAX_RUNTIME_SECONDS: Limit[int | Unlimited] = Limit(
    name="max_runtime_seconds",
    kind=Whole(minimum=1, maximum=86_400),
    unit=Unit("second", "seconds"),
    built_in=30,
    lockdown=10,
    chosen_by=Chooser.PERSON,
    description="Wall clock for the code, from the moment its interpreter is ready",
)
MAX_RAM_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_ram_megabytes",
    kind=Whole(minimum=32, maximum=1_048_576),
    unit=Unit("megabyte", "megabytes"),
    built_in=128,
    lockdown=128,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Memory for the code, the files it writes included",
)
AUTO_INSTALL: Limit[bool] = Limit(
    name="auto_install",
    kind=Switch(strict=False),
    unit=None,
    built_in=True,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether a missing gVisor may be downloaded",
)
NETWORK_ALLOWLIST: Limit[frozenset[Destination]] = Limit(
    name="network_allowlist",
    kind=Destinations(),
    unit=None,
    built_in=frozenset({parse_destination("public")}),
    lockdown=frozenset(),
    chosen_by=Chooser.ADMINISTRATOR,
    description="Where code may reach when it may reach a network",
)
NETWORK_PRIVATE_ALLOWED: Limit[bool] = Limit(
    name="network_private_allowed",
    kind=Switch(strict=False),
    unit=None,
    built_in=False,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether code may reach loopback, LAN, link-local and metadata addresses too",
)
MAX_CPUS: Limit[Decimal | Unlimited] = Limit(
    name="max_cpus",
    kind=Thousandths(minimum=Decimal("0.01"), maximum=Decimal(1024)),
    unit=Unit("CPU", "CPUs"),
    built_in=Decimal(1),
    lockdown=Decimal("0.5"),
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Share of the processors",
)
MAX_PROCESSES: Limit[int | Unlimited] = Limit(
    name="max_processes",
    kind=Whole(minimum=1, maximum=32_768),
    unit=Unit("process or thread", "processes and threads"),
    built_in=64,
    lockdown=32,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Processes and threads at once",
)
MAX_DISK_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_disk_megabytes",
    kind=Whole(minimum=1, maximum=1_048_576),
    unit=Unit("megabyte", "megabytes"),
    built_in=64,
    lockdown=16,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Everything the code can write to, together",
)
MAX_OUTPUT_KILOBYTES: Limit[int | Unlimited] = Limit(
    name="max_output_kilobytes",
    kind=Whole(minimum=1, maximum=65_536, may_be_unlimited=False),
    unit=Unit("kilobyte", "kilobytes"),
    built_in=256,
    lockdown=64,
    chosen_by=Chooser.PERSON,
    description="Standard output and standard error that are kept, together",
)
MAX_FILE_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_file_megabytes",
    kind=Whole(minimum=0, maximum=4_096, may_be_unlimited=False),
    unit=Unit("megabyte", "megabytes"),
    built_in=16,
    lockdown=0,
    chosen_by=Chooser.PERSON,
    description="Files handed in and out of each run",
)
MAX_CONCURRENT_RUNS: Limit[int | Unlimited] = Limit(
    name="max_concurrent_runs",
    kind=Whole(minimum=1, maximum=10_000),
    unit=Unit("run", "runs"),
    built_in=2,
    lockdown=1,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Runs at once for each person",
)
MAX_INSTANCE_RUNS: Limit[int | Unlimited] = Limit(
    name="max_instance_runs",
    kind=Whole(minimum=1, maximum=10_000),
    unit=Unit("run", "runs"),
    built_in=8,
    lockdown=2,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Runs at once on this instance",
)
LANGUAGES: Limit[frozenset[str]] = Limit(
    name="languages",
    kind=Words(choices=("python", "bash")),
    unit=None,
    built_in=frozenset({"python", "bash"}),
    lockdown=frozenset({"python", "bash"}),
    chosen_by=Chooser.PERSON,
    description="Languages that may run",
)
REQUIRE_RESOURCE_LIMITING: Limit[bool] = Limit(
    name="require_resource_limiting",
    kind=Switch(strict=True),
    unit=None,
    built_in=True,
    lockdown=True,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether to refuse a run where a RAM, CPU, process or disk limit cannot be enforced",
)
DEBUG: Limit[bool] = Limit(
    name="debug",
    kind=Switch(strict=False),
    unit=None,
    built_in=False,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether internals of the sandbox may be shown",
)

LIMITS: tuple[Limit[Any], ...] = (
    NETWORKING_ALLOWED,
    MAX_RUNTIME_SECONDS,
    MAX_RAM_MEGABYTES,
    AUTO_INSTALL,
    NETWORK_ALLOWLIST,
    NETWORK_PRIVATE_ALLOWED,
    MAX_CPUS,
    MAX_PROCESSES,
    MAX_DISK_MEGABYTES,
    MAX_OUTPUT_KILOBYTES,
    MAX_FILE_MEGABYTES,
    MAX_CONCURRENT_RUNS,
    MAX_INSTANCE_RUNS,
    LANGUAGES,
    REQUIRE_RESOURCE_LIMITING,
    DEBUG,
)
"""Every limit, in the order in which people see them."""


def limit_named(name: str) -> Limit[Any] | None:
    """The limit of this TOML key, or `None`."""
    return next((limit for limit in LIMITS if limit.name == name), None)


# ======== policy/settings.py ==========================================================================================
# The second, small table: settings that only the environment can hold, and how each is read.
#
# A setting is no limit: it says where policy files and keys are, where gVisor comes from, and how much waits for what.


S = TypeVar("S")

DOCUMENT_ID = r"[a-z0-9-]{1,64}"
"""What a policy file may call itself."""
GVISOR_PLATFORMS = ("systrap", "ptrace", "kvm")
"""What gVisor can catch system calls with; `kvm` hangs on some virtual machines, so it is never taken by itself."""
NETWORK_MODES = ("proxy", "namespace")
"""By which way code reaches what it may: an egress proxy that needs no rights, or a network namespace of its own."""
LONGEST_STALE = timedelta(days=90)
"""The longest time for which an old policy set can hold."""
LONGEST_QUEUE_WAIT = timedelta(hours=1)
"""The longest time for which a run can wait for its turn."""
LARGEST_POOL = 64
"""The most boxes that may wait for code."""
LARGEST_QUEUE = 1000
"""The most runs that can wait at once."""
MAX_DOCUMENT_BYTES = 64 * 1024
"""Size of one policy file."""
MAX_SERIAL = 2**53 - 1
"""The largest serial: the largest integer that every JSON reader holds exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[S]):
    """One setting of the environment."""

    name: str
    """In snake case; the variable is its upper case behind the prefix."""
    parse: Callable[[str], S]
    """Reads the variable; ValueError says what is wrong."""
    grammar: str
    """What text is permitted, in words that complete "expected …"."""
    default: S
    """What holds where the variable is not set."""
    description: str
    """One sentence for people, without full stop."""

    @property
    def variable(self) -> str:
        """The environment variable that holds it."""
        return f"{VARIABLE_PREFIX}{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class SettingValues:
    """What the environment says of the settings; what it leaves out has its default."""

    values: Mapping[str, Any]
    """By name, only those that are set."""

    def __getitem__(self, setting: Setting[S]) -> S:
        """The value of one setting."""
        value: S = self.values.get(setting.name, setting.default)
        return value


def _parse_text(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(f"{spelt(text)} is empty, or has space around it or control characters in it")
    return text


def _parse_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{spelt(text)} is not an absolute path")
    return _parse_text(text)


def _parse_threshold(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or int(text) < 1:
        raise ValueError(f"{spelt(text)} is not a whole number of at least 1")
    return int(text)


def _parse_ids(text: str) -> tuple[str, ...]:
    ids = tuple(text.split(","))
    for name in ids:
        if not re.fullmatch(DOCUMENT_ID, name):
            raise ValueError(f"{spelt(name)} is not a policy id")
    return ids


def _parse_serials(text: str) -> Mapping[str, int]:
    serials: dict[str, int] = {}
    for item in text.split(","):
        found = re.fullmatch(rf"({DOCUMENT_ID})=([0-9]{{1,16}})", item, re.ASCII)
        if found is None or not 1 <= int(found[2]) <= MAX_SERIAL or found[1] in serials:
            raise ValueError(f"{spelt(item)} is not a distinct id=serial")
        serials[found[1]] = int(found[2])
    return serials


def _parse_duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    found = re.fullmatch(r"([0-9]{1,7})([smhd])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{spelt(text)} is not a duration such as 24h")
    duration = timedelta(**{units[found[2]]: int(found[1])})
    if duration > LONGEST_STALE:
        raise ValueError(f"{spelt(text)} is longer than {LONGEST_STALE.days}d")
    return duration


def _parse_queue_wait(text: str) -> timedelta:
    wait = _parse_duration(text)
    if wait > LONGEST_QUEUE_WAIT:
        raise ValueError(f"{spelt(text)} is longer than 1h")
    return wait


def _parse_queue_size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or int(text) > LARGEST_QUEUE:
        raise ValueError(f"{spelt(text)} is not a whole number from 0 to {LARGEST_QUEUE}")
    return int(text)


def _parse_pool_size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or int(text) > LARGEST_POOL:
        raise ValueError(f"{spelt(text)} is not a whole number from 0 to {LARGEST_POOL}")
    return int(text)


def _parse_variable_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise ValueError(f"{spelt(name)} is not the name of a variable")
    return names


def _parse_module_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", name, re.ASCII):
            raise ValueError(f"{spelt(name)} is not the name of a Python module")
    return names


def _parse_version(text: str) -> str:
    if not re.fullmatch(r"[0-9]{8}(\.[0-9]{1,4})?", text, re.ASCII):
        raise ValueError(f"{spelt(text)} is not a gVisor version such as 20260810.0")
    return text


def _parse_word_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(f"{spelt(text)} is none of {', '.join(words)}")
    return text


def _parse_sha512(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{128}", text):
        raise ValueError(f"{spelt(text)} is not a SHA-512 in 128 lower-case hexadecimal digits")
    return text


def _parse_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9\[][!-~]*", text, re.ASCII):
        raise ValueError(f"{spelt(text)} is not an http or https address")
    return text.rstrip("/")


_SWITCH = Switch(strict=True)

POLICY_PATH: Setting[str | None] = Setting(
    name="policy_path",
    parse=_parse_path,
    grammar="the absolute path of a policy file, or of a folder of *.toml",
    default=None,
    description="Policy file, or folder of *.toml; once set, a policy is required",
)
POLICY_KEYS: Setting[str | None] = Setting(
    name="policy_keys",
    parse=_parse_text,
    grammar="the absolute path of a PEM file or folder, or ed25519:<base64> items separated by commas",
    default=None,
    description="Public keys whose signatures count",
)
POLICY_THRESHOLD: Setting[int] = Setting(
    name="policy_threshold",
    parse=_parse_threshold,
    grammar="a whole number from 1 to the number of keys",
    default=1,
    description="How many distinct keys must have signed each policy file",
)
POLICY_REQUIRED: Setting[bool] = Setting(
    name="policy_required",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Refuse to run while SANDBOX_POLICY_PATH is not set",
)
POLICY_UNSIGNED_ALLOWED: Setting[bool] = Setting(
    name="policy_unsigned_allowed",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Accept policy files without signatures",
)
POLICY_IDS: Setting[tuple[str, ...]] = Setting(
    name="policy_ids",
    parse=_parse_ids,
    grammar="policy ids separated by commas",
    default=(),
    description="Policy ids that must be present",
)
POLICY_MIN_SERIAL: Setting[Mapping[str, int]] = Setting(
    name="policy_min_serial",
    parse=_parse_serials,
    grammar="id=serial items separated by commas",
    default={},
    description="The lowest serial accepted, by policy id",
)
POLICY_MAX_STALE: Setting[timedelta] = Setting(
    name="policy_max_stale",
    parse=_parse_duration,
    grammar="a whole number followed by s, m, h or d, at most 90d",
    default=timedelta(hours=24),
    description="How long the last good policy set holds once the current one is refused or expired",
)
POLICY_STATE: Setting[str | None] = Setting(
    name="policy_state",
    parse=_parse_path,
    grammar="the absolute path of a folder that only the running user can use",
    default=None,
    description="Folder for what this instance remembers of policies; without it, old policies are not told from new",
)
INSTANCE: Setting[str | None] = Setting(
    name="instance",
    parse=_parse_text,
    grammar="a name",
    default=None,
    description="The name of this instance, held against each policy's audience",
)
FOREIGN_OK: Setting[tuple[str, ...]] = Setting(
    name="foreign_ok",
    parse=_parse_variable_names,
    grammar="names of variables separated by commas",
    default=(),
    description="SANDBOX_* variables that belong to other software",
)
GVISOR_URL: Setting[str | None] = Setting(
    name="gvisor_url",
    parse=_parse_url,
    grammar="an http or https address",
    default=None,
    description="Where gVisor releases are fetched, in place of the official address",
)
GVISOR_VERSION: Setting[str | None] = Setting(
    name="gvisor_version",
    parse=_parse_version,
    grammar="a release such as 20260810.0",
    default=None,
    description="The gVisor release to install; only together with SANDBOX_GVISOR_SHA512",
)
GVISOR_SHA512: Setting[str | None] = Setting(
    name="gvisor_sha512",
    parse=_parse_sha512,
    grammar="128 lower-case hexadecimal digits",
    default=None,
    description="SHA-512 of that release's gvisor.tar.bz2; only together with SANDBOX_GVISOR_VERSION",
)
GVISOR_MIN_VERSION: Setting[str | None] = Setting(
    name="gvisor_min_version",
    parse=_parse_version,
    grammar="a release such as 20240729",
    default=None,
    description="The oldest gVisor that may run code",
)
GVISOR_PLATFORM: Setting[str | None] = Setting(
    name="gvisor_platform",
    parse=partial(_parse_word_of, GVISOR_PLATFORMS),
    grammar=f"one of {', '.join(GVISOR_PLATFORMS)}",
    default=None,
    description="How gVisor catches system calls; unset, what works is found by trying",
)
NETWORK_MODE: Setting[str] = Setting(
    name="network_mode",
    parse=partial(_parse_word_of, NETWORK_MODES),
    grammar=f"one of {', '.join(NETWORK_MODES)}",
    default="proxy",
    description="How code reaches what it may: `proxy` needs no rights; `namespace` is for programs that know no proxy",
)
PACKAGES_PATH: Setting[str | None] = Setting(
    name="packages_path",
    parse=_parse_path,
    grammar="the absolute path of a virtual environment, or of a folder as pip install --target makes it",
    default=None,
    description="Python packages offered to code, read-only",
)
POOL_SIZE: Setting[int | None] = Setting(
    name="pool_size",
    parse=_parse_pool_size,
    grammar=f"a whole number from 0 to {LARGEST_POOL}",
    default=None,
    description="How many started boxes wait for code, all processes together; unset, as memory permits, up to 4",
)
POOL_IMPORTS: Setting[tuple[str, ...]] = Setting(
    name="pool_imports",
    parse=_parse_module_names,
    grammar="names of Python modules separated by commas",
    default=(),
    description="Modules that waiting boxes import beforehand",
)
QUEUE_SIZE: Setting[int] = Setting(
    name="queue_size",
    parse=_parse_queue_size,
    grammar=f"a whole number from 0 to {LARGEST_QUEUE}",
    default=16,
    description="How many runs may wait for their turn, a quarter of them one person's; 0 refuses at once",
)
QUEUE_MAX_WAIT: Setting[timedelta] = Setting(
    name="queue_max_wait",
    parse=_parse_queue_wait,
    grammar="a whole number followed by s, m, h or d, at most 1h",
    default=timedelta(seconds=60),
    description="How long a run waits for its turn before it is refused",
)
AUDIT_LOG: Setting[str | None] = Setting(
    name="audit_log",
    parse=_parse_path,
    grammar="the absolute path of a file",
    default=None,
    description="File that gets one line for each run",
)
AUDIT_REQUIRED: Setting[bool] = Setting(
    name="audit_required",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Refuse to run while the audit log cannot be written",
)

SETTINGS: tuple[Setting[Any], ...] = (
    POLICY_PATH,
    POLICY_KEYS,
    POLICY_THRESHOLD,
    POLICY_REQUIRED,
    POLICY_UNSIGNED_ALLOWED,
    POLICY_IDS,
    POLICY_MIN_SERIAL,
    POLICY_MAX_STALE,
    POLICY_STATE,
    INSTANCE,
    FOREIGN_OK,
    GVISOR_URL,
    GVISOR_VERSION,
    GVISOR_SHA512,
    GVISOR_MIN_VERSION,
    GVISOR_PLATFORM,
    NETWORK_MODE,
    PACKAGES_PATH,
    POOL_SIZE,
    POOL_IMPORTS,
    QUEUE_SIZE,
    QUEUE_MAX_WAIT,
    AUDIT_LOG,
    AUDIT_REQUIRED,
)
"""Every setting, in the order in which people see them."""


# ======== policy/remembered.py ========================================================================================
# What an instance remembers of policy sets: a frozen value, and the JSON in which it is kept.
#
# Absent is first contact. What is there must be exactly what was written: anything else is refused, since a policy set
# judged against half a memory could be an old one.


STATE_VERSION = 1
"""The version of the JSON below."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedPolicy:
    """One policy id that was accepted."""

    serial: int
    """Its newest accepted serial."""
    payload_sha256: str
    """SHA-256 of that serial's signed text."""
    retired_by: str | None = None
    """The policy that let it go; `None` while it must be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRefusal:
    """The refusal since which no set was accepted."""

    at: datetime
    """When, with an offset."""
    code: str
    """Its reason code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Everything that one set of policy files leaves behind for the next."""

    policies: Mapping[str, RememberedPolicy] = field(default_factory=dict)
    """By id, retired ones included; read-only."""
    newest_issued_at: datetime | None = None
    """The newest `issued_at` that was accepted; no clock before it is right."""
    first_refusal: FirstRefusal | None = None
    """Since when sets have been refused; `None` while the current one is good."""
    last_good: Mapping[str, bytes] = field(default_factory=dict)
    """The files of the last good set by name, whole; read-only. It is verified again before each use."""

    def __post_init__(self) -> None:
        """Keep what was given from changing."""
        object.__setattr__(self, "policies", MappingProxyType(dict(self.policies)))
        object.__setattr__(self, "last_good", MappingProxyType(dict(self.last_good)))


FIRST_CONTACT = Remembered()
"""What an instance remembers before it has accepted anything."""


def state_text(remembered: Remembered) -> bytes:
    """The memory as it is kept: JSON, readable by people, files in base64.

    Its digest shows damage, where a digit of a serial would still be one; it is no proof of who wrote it.
    """
    newest, first = remembered.newest_issued_at, remembered.first_refusal
    told: dict[str, Any] = {
        "version": STATE_VERSION,
        "policies": {
            policy_id: {"serial": known.serial, "payload_sha256": known.payload_sha256, "retired_by": known.retired_by}
            for policy_id, known in sorted(remembered.policies.items())
        },
        "newest_issued_at": None if newest is None else newest.isoformat(),
        "first_refusal": None if first is None else {"at": first.at.isoformat(), "code": first.code},
        "last_good": {name: base64.b64encode(data).decode() for name, data in remembered.last_good.items()},
    }
    told["sha256"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return json.dumps(told, indent=1).encode() + b"\n"


def parse_state(untrusted: bytes) -> Remembered:
    """Read what `state_text` wrote.

    Raises:
        ValueError: it is anything else, in any part.
    """
    try:
        told = json.loads(untrusted, object_pairs_hook=_distinct)
        remembered = _remembered(told)
    except (KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise ValueError(f"it is not of the known form ({type(error).__name__})") from error
    if state_text(remembered) != untrusted:
        raise ValueError("it is not as it was written")
    return remembered


def _remembered(told: Any) -> Remembered:  # noqa: ANN401 -- parsed JSON
    if told["version"] != STATE_VERSION:
        raise ValueError(f"it is of version {told['version']}, and this version knows {STATE_VERSION}")
    newest, first = told["newest_issued_at"], told["first_refusal"]
    return Remembered(
        policies={_checked_id(name): _remembered_policy(known) for name, known in told["policies"].items()},
        newest_issued_at=None if newest is None else _moment(newest),
        first_refusal=None if first is None else FirstRefusal(at=_moment(first["at"]), code=str(first["code"])),
        last_good={str(name): base64.b64decode(data, validate=True) for name, data in told["last_good"].items()},
    )


def _remembered_policy(known: Any) -> RememberedPolicy:  # noqa: ANN401 -- parsed JSON
    serial, digest, retired_by = known["serial"], known["payload_sha256"], known["retired_by"]
    if type(serial) is not int or not 1 <= serial <= MAX_SERIAL or not _DIGEST.fullmatch(digest):
        raise ValueError("a serial or digest in it is none")
    retired_by = None if retired_by is None else _checked_id(retired_by)
    return RememberedPolicy(serial=serial, payload_sha256=digest, retired_by=retired_by)


def _checked_id(text: str) -> str:
    if not re.fullmatch(DOCUMENT_ID, text):
        raise ValueError("a policy id in it is none")
    return text


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in it")
    return found


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a date in it has no offset")
    return moment


# ======== policy/schema.py ============================================================================================
# The JSON Schema of a policy file, generated from the table of limits.
#
# The published copy, `policy/policy.schema.json`, is for editors and reviewers; a test holds it equal to what is
# generated here. What breaks it is found by `policy/shape_errors.py`, that nothing does by `policy/shape.py`, which
# knows the keywords used here and no others.
#
# Source: JSON Schema 2020-12.


SCHEMA_VERSION = 1
"""The version of the policy file format, its `schema` key."""


PLAIN_TEXT = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]*$"
"""One line without control or bidirectional characters, as JSON Schema and ECMA-262 spell it."""


def document_schema() -> dict[str, Any]:
    """The JSON Schema of a whole policy file."""
    always = ["schema", "id", "serial", "issued_at", "expires_at", "audience"]
    date = {"type": "string", "format": "date-time"}
    text = plain_text_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy file of sandbox-lockdown",
        "type": "object",
        "if": {"required": ["scope"]},
        "then": {"required": always},
        "else": {"required": [*always, "limits"]},
        "additionalProperties": False,
        "properties": {
            "schema": {"type": "integer", "const": SCHEMA_VERSION, "description": "The version of this format."},
            "id": {"type": "string", "pattern": f"^{DOCUMENT_ID}$", "description": "What the policy is called."},
            "serial": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SERIAL,
                "description": "Raised with each change.",
            },
            "issued_at": {**date, "description": "When it was issued, with an offset."},
            "expires_at": {**date, "description": "When it ends, with an offset."},
            "not_before": {**date, "description": "When it begins, with an offset."},
            "audience": {
                "type": "array",
                "items": text,
                "minItems": 1,
                "uniqueItems": True,
                "description": 'Instances it is for, by SANDBOX_INSTANCE; "*" is any.',
            },
            "description": {**text, "description": "What it is for."},
            "owner": {**text, "description": "Whom to ask."},
            "requires": {**_ids_schema(), "description": "Ids of other policies that must be present."},
            "retires": {**_ids_schema(), "description": "Ids of earlier policies that may be gone from now on."},
            "rollback_of": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SERIAL,
                "description": "The earlier serial whose change this one takes back.",
            },
            "limits": _limits_schema(),
            "scope": {
                "type": "array",
                "minItems": 1,
                "items": _scope_schema(text),
                "description": "Stricter limits for some; scopes never loosen.",
            },
        },
    }


def plain_text_schema() -> dict[str, Any]:
    """A text for people: one line, in which no control or bidirectional character hides or forges anything."""
    return {"type": "string", "minLength": 1, "maxLength": 1_000, "pattern": PLAIN_TEXT}


def _ids_schema() -> dict[str, Any]:
    policy_id = {"type": "string", "pattern": f"^{DOCUMENT_ID}$"}
    return {"type": "array", "items": policy_id, "minItems": 1, "uniqueItems": True}


def _limits_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {limit.name: _limit_schema(limit) for limit in LIMITS},
    }


def _scope_schema(text: Mapping[str, Any]) -> dict[str, Any]:
    names = {"type": "array", "items": dict(text), "minItems": 1, "uniqueItems": True}
    conditions = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {name: names for name in SCOPE_ATTRIBUTES if name != "surface"}
        | {"surface": {"enum": list(SURFACES), "description": "Through the tool, or through the button."}},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["limits"],
        "anyOf": [{"required": ["match"]}, {"required": ["except"]}],
        "properties": {
            "match": {**conditions, "description": "Only for whom every key is met by one of its values."},
            "except": {**conditions, "description": "Not for whom any key is met by one of its values."},
            "description": {**text, "description": "What it is for."},
            "limits": {"$ref": "#/properties/limits"},
        },
    }


def _limit_schema(limit: Limit[Any]) -> dict[str, Any]:
    value = limit.kind.schema()
    statements = {
        "lock": {**value, "description": "Exactly this."},
        "ceiling": {**value, "description": "Nothing looser than this."},
        "default": {**value, "description": "This, where nobody chooses."},
    }
    remarks = {
        "reason": {**plain_text_schema(), "description": "Shown to people."},
        "env_may_loosen": {"type": "boolean", "description": "May an environment lock be looser? True if left out."},
    }
    table = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**statements, **remarks},
        "anyOf": [{"required": [name]} for name in statements],
        # Not dependentSchemas, which says the same: the checker behind editors passes over it.
        "if": {"required": ["lock"]},
        "then": {"properties": {"ceiling": False, "default": False}},
    }
    kind = limit.kind
    end = f" Stricter is {str(kind.strict).lower()}." if isinstance(kind, Switch) else ""
    return {
        "description": f"{limit.description}.{end} A value of its own is a lock.",
        "if": {"type": "object"},
        "then": table,
        "else": value,
    }


# ======== policy/statements.py ========================================================================================
# What layers say of limits: statements, and where each came from. Plain values between reading and resolving.


class Layer(Enum):
    """Who speaks, from the highest precedence to the lowest."""

    LOCKDOWN = "lockdown"
    """Nobody: the values that hold once a policy set has been refused for too long."""
    ENVIRONMENT = "environment"
    POLICY = "policy"
    PERSON_VALVE = "valve"
    ADMIN_VALVE = "admin-valve"
    BUILT_IN = "built-in"


class Verb(Enum):
    """What is said of a limit."""

    LOCK = "lock"
    """Exactly this."""
    CEILING = "ceiling"
    """Nothing looser than this."""
    DEFAULT = "default"
    """This, where nobody chooses."""
    CHOICE = "choice"
    """What a valve holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a statement stands."""

    layer: Layer
    """Who speaks."""
    place: str
    """The variable, `FILE:LINE`, the valve, or `built-in`."""
    reason: str = ""
    """What the policy tells people about it."""
    policy_id: str | None = None
    """The policy file's own id, for a statement out of one."""
    scope: str = ""
    """Whom the statement is for, in words, where it stands in a scope of the file."""
    serial: int | None = None
    """The policy file's serial."""
    key_ids: tuple[str, ...] = ()
    """Trusted keys that signed the policy file; empty for an unsigned one."""

    def __str__(self) -> str:
        """Name the place so that a person finds it."""
        match self.layer:
            case Layer.LOCKDOWN | Layer.ENVIRONMENT | Layer.BUILT_IN:
                return self.place
            case Layer.PERSON_VALVE | Layer.ADMIN_VALVE:
                return f"{self.layer.value} {self.place}"
            case Layer.POLICY:
                scope = f", {self.scope}" if self.scope else ""
                signed = "" if self.key_ids else ", unverified"
                return f"{self.policy_id} serial {self.serial} ({self.place}{scope}{signed})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One statement about one limit."""

    limit: Limit[Any]
    """Which limit."""
    verb: Verb
    """What is said."""
    value: Any
    """A value of the limit's kind."""
    origin: Origin
    """Where it stands."""
    environment_may_loosen: bool = True
    """Whether an environment lock may be looser than this; only policy files say no."""

    @property
    def scoped(self) -> bool:
        """Whether it holds only for some; such a statement never loosens."""
        return bool(self.origin.scope)


# ======== policy/effective.py =========================================================================================
# The effective limits: the one frozen value that policy hands to the sandbox, and how each part of it came about.
#
# The sandbox takes this type and nothing else. The digest covers the values alone, so equal limits have equal digests
# whoever decided them.
#
# Source: RFC 8785's ordering and spacing for the canonical JSON (ours holds no number that needs its number rules).


V = TypeVar("V")


class Fate(Enum):
    """What became of one candidate."""

    WON = "won"
    """It decided the value, or brought it in."""
    SHADOWED = "shadowed"
    """Another statement decided, or this ceiling did not bite."""
    CLAMPED = "clamped"
    """It was chosen, then brought within a ceiling."""
    IGNORED = "ignored"
    """It is of nobody who may speak of this limit, or of no use."""
    INVALID = "invalid"
    """It could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One statement that was weighed for a limit."""

    stated: Stated
    """What was said, and where."""
    fate: Fate
    """What became of it."""
    note: str = ""
    """Why, where its fate alone does not say it."""
    given: str = ""
    """The text it was given as, where that could not be read or did not count."""

    @property
    def verb(self) -> Verb:
        """What was said."""
        return self.stated.verb

    @property
    def origin(self) -> Origin:
        """Where it stands."""
        return self.stated.origin

    @property
    def text(self) -> str:
        """The value as it is spelt; where it could not be read or did not count, as it was given."""
        return self.given or self.stated.limit.kind.text(self.stated.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One limit's effective value, and everybody who had a say."""

    limit: Limit[Any]
    """Which limit."""
    value: Any
    """A value of the limit's kind."""
    verb: Verb
    """The kind of statement that decided it."""
    decided_by: Origin
    """Where that statement stands."""
    candidates: tuple[Candidate, ...]
    """All that was weighed, in the order of the layers."""
    notices: tuple[str, ...] = ()
    """What people should know: a valve brought in, ignored or unreadable, a policy loosened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyIdentity:
    """Which policy file took part."""

    policy_id: str
    """The file's own id."""
    serial: int
    """The file's serial."""
    payload_sha256: str
    """SHA-256 of its signed text."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimits:
    """What holds for one run: a value for every limit of the table."""

    decisions: Mapping[str, Decision]
    """By limit name, every limit, in the table's order; read-only."""
    policies: tuple[PolicyIdentity, ...] = ()
    """The policy files that took part."""

    def __post_init__(self) -> None:
        """Refuse a value that leaves a limit out or holds one outside its kind."""
        missing = [limit.name for limit in LIMITS if limit.name not in self.decisions]
        if missing:
            raise ValueError(f"effective limits lack {', '.join(missing)}")
        for limit in LIMITS:
            value = self.decisions[limit.name].value
            read_again = limit.kind.from_native(limit.kind.native(value))
            if read_again != value or type(read_again) is not type(value):
                raise ValueError(f"{value!r} is no value of {limit.name}")
        object.__setattr__(self, "decisions", MappingProxyType(dict(self.decisions)))

    def __getitem__(self, limit: Limit[V]) -> V:
        """The effective value of one limit."""
        value: V = self.decisions[limit.name].value
        return value

    def origin_of(self, limit: Limit[Any]) -> str:
        """Who decided it, for messages."""
        return str(self.decisions[limit.name].decided_by)

    @property
    def values(self) -> dict[str, Native]:
        """All values in their native form, by limit name."""
        return {name: decision.limit.kind.native(decision.value) for name, decision in self.decisions.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the values, in hexadecimal."""
        canonical = json.dumps(self.values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know, in the table's order."""
        return tuple(notice for decision in self.decisions.values() for notice in decision.notices)

    def as_json(self) -> dict[str, Any]:
        """The values with their provenance, as `policy explain --json` prints them."""
        return {
            "limits": {name: _decision_json(decision) for name, decision in self.decisions.items()},
            "digest": self.digest,
            "notices": list(self.notices),
            "policies": [
                {
                    "id": policy.policy_id,
                    "serial": policy.serial,
                    "payload_sha256": policy.payload_sha256,
                    "signed_by": list(policy.key_ids),
                }
                for policy in self.policies
            ],
        }


def fixed_limits(values: Mapping[str, Any], place: str) -> EffectiveLimits:
    """Effective limits that nobody chose: the built-ins, with some values in place of theirs.

    For runs of our own code, such as the probes of `sandbox doctor`.

    Args:
        values: by limit name, values of the limits' kinds.
        place: what they are for, as provenance.
    """
    origin = Origin(layer=Layer.BUILT_IN, place=place)
    return EffectiveLimits(
        decisions={
            limit.name: Decision(
                limit=limit,
                value=values.get(limit.name, limit.built_in),
                verb=Verb.DEFAULT,
                decided_by=origin,
                candidates=(),
            )
            for limit in LIMITS
        }
    )


def _origin_json(origin: Origin) -> dict[str, Any]:
    return {
        "place": origin.place,
        "policy": origin.policy_id,
        "serial": origin.serial,
        "scope": origin.scope or None,
        "signed_by": list(origin.key_ids),
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "value": decision.limit.kind.native(decision.value),
        "decided_by": decision.decided_by.layer.value,
        "statement": decision.verb.value,
        "origin": str(decision.decided_by),
        "source": _origin_json(decision.decided_by),
        "reason": decision.decided_by.reason,
        "candidates": [
            {
                "layer": candidate.origin.layer.value,
                "statement": candidate.verb.value,
                "value": candidate.text,
                "origin": str(candidate.origin),
                "source": _origin_json(candidate.origin),
                "fate": candidate.fate.value,
                "note": candidate.note,
            }
            for candidate in decision.candidates
        ],
    }


# ======== policy/egress_rules.py ======================================================================================
# Decides, purely, where code of one run may connect: by name before it is resolved, by address afterwards.
#
# A name that no item of the allow-list covers is refused without asking any resolver, since a question alone carries data
# out. An address that is not public is refused whatever the list says, unless the limits allow private destinations; so
# is an address of this host itself. Unusual spellings of addresses are refused as such, since programs read them
# differently.


_CLOSED_TOLD = "it is not public, and private destinations are closed"
"""Code could map the host's own network by asking for names, were it told what they lead to."""

Host = str | IPAddress
"""A name in lower-case A-labels without trailing dot, or an address; of an IPv4-mapped one, the IPv4 address."""


class EgressRefusedError(Exception):
    """A connection is not permitted.

    Args:
        reason: why, without full stop, for people and records.
        origin: who decided so; empty where it follows from the request alone.
        told: what code in the box may read of the reason, without full stop; all of it where empty.
    """

    def __init__(self, reason: str, origin: str = "", told: str = "") -> None:
        self.reason = reason
        self.origin = origin
        self.told = told or reason
        super().__init__(reason)


def parse_host(untrusted_text: str) -> Host:
    """Read the host that code wants to connect to.

    Args:
        untrusted_text: as it stands in a request, an IPv6 address with or without its brackets.

    Raises:
        EgressRefusedError: it is neither a name nor an address in its usual spelling.
    """
    if not untrusted_text.isascii():  # some letters beyond ASCII become ASCII when made lower-case
        raise EgressRefusedError("it is not in A-labels; write the form that begins with xn--")
    text = untrusted_text.lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            raise EgressRefusedError("it has brackets, which only an IPv6 address takes")
    name = text.removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _checked_host_name(name)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise EgressRefusedError("it names a zone of this host")
    return unmapped_address(address)


def _checked_host_name(name: str) -> str:
    if ends_in_a_number(name):
        raise EgressRefusedError("it is an address in an unusual spelling; write it as four decimal numbers")
    if not is_host_name(name):
        raise EgressRefusedError("it is no host name")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Where one run may connect."""

    allowed: ReachIndex
    """The allow-list."""
    private_allowed: bool
    """Whether addresses that are not public are open too."""
    list_origin: str
    """Who decided the allow-list, for messages."""
    private_origin: str
    """Who decided about private addresses, for messages."""
    lists: tuple[tuple[ReachIndex, str], ...] = ()
    """Each list that the allow-list is the meet of, and who stated it."""

    @classmethod
    def of_limits(cls, limits: EffectiveLimits) -> Self:
        """The rules that effective limits come to."""
        listed = limits[NETWORK_ALLOWLIST]
        return cls(
            allowed=ReachIndex(listed if limits[NETWORKING_ALLOWED] else ()),
            private_allowed=limits[NETWORK_PRIVATE_ALLOWED],
            list_origin=limits.origin_of(NETWORK_ALLOWLIST),
            private_origin=limits.origin_of(NETWORK_PRIVATE_ALLOWED),
            lists=tuple(
                (ReachIndex(candidate.stated.value), str(candidate.origin))
                for candidate in limits.decisions[NETWORK_ALLOWLIST.name].candidates
                if candidate.fate in {Fate.WON, Fate.CLAMPED}
            ),
        )

    def check_host(self, host: Host, port: int) -> None:
        """Refuse what no item of the allow-list covers; of a name, nothing else has been asked by then.

        Raises:
            EgressRefusedError: none does.
        """
        reach = HostName(host) if isinstance(host, str) else _network_of(host)
        if not self.allowed.permits(reach, port):
            raise self._not_listed(lambda listed: listed.permits(reach, port))

    def check_name(self, name: str) -> None:
        """Refuse a name that no item of the allow-list covers at any port.

        Raises:
            EgressRefusedError: none does.
        """
        if not any(self.allowed.ports_over(HostName(name))):
            raise self._not_listed(lambda listed: any(listed.ports_over(HostName(name))))

    def check_address(self, address: IPAddress, *, own: bool) -> None:
        """Refuse an address that is not public.

        Args:
            address: what the host's name was resolved to, or what was asked for.
            own: whether it is one of this host's own.

        Raises:
            EgressRefusedError: it is not, and private destinations are not allowed.
        """
        what = words_of_address(address) or ("one of this host's own addresses" if own else "")
        if what and not self.private_allowed:
            closed = f"{address} is {what}, and private destinations are closed"
            raise EgressRefusedError(closed, self.private_origin, _CLOSED_TOLD)

    def _not_listed(self, permits: Callable[[ReachIndex], bool]) -> EgressRefusedError:
        """The refusal, in the name of the first list that does not permit it; of the meet, where each of them does."""
        origins = (origin for listed, origin in self.lists if not permits(listed))
        return EgressRefusedError("not in the allow-list", next(origins, self.list_origin))


def _network_of(address: IPAddress) -> IPv4Network | IPv6Network:
    return IPv6Network(address) if isinstance(address, IPv6Address) else IPv4Network(address)


# ======== policy/environment.py =======================================================================================
# Reads the `SANDBOX_*` variables: statements about limits, settings, and names too close to ours to be chance.
#
# pydantic-settings reads and types the values; it cannot see names that nobody declared, so the scan for those is ours.
# Everything that is wrong is reported at once, and nothing comes out of an environment that has anything wrong in it.
#
# Source: names of other products are those their own documentation publishes (Dify's sandbox, OpenHands).


FOREIGN_NAMES = frozenset(
    {
        "SANDBOX_API_KEY",
        "SANDBOX_BASE_CONTAINER_IMAGE",
        "SANDBOX_ENABLE_NETWORK",
        "SANDBOX_HTTPS_PROXY",
        "SANDBOX_HTTP_PROXY",
        "SANDBOX_PORT",
        "SANDBOX_RUNTIME_CONTAINER_IMAGE",
        "SANDBOX_RUNTIME_EXTRA_DEPS",
        "SANDBOX_TIMEOUT",
        "SANDBOX_USER_ID",
        "SANDBOX_VOLUMES",
        "SANDBOX_WORKER_TIMEOUT",
    }
)
"""Variables of other products that share the prefix."""
_NEAR_EDITS = 2
_VERB_SUFFIXES = {Verb.LOCK: "", Verb.CEILING: "__CEILING", Verb.DEFAULT: "__DEFAULT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentLayer:
    """All that the environment says."""

    statements: tuple[Stated, ...]
    """Locks, ceilings and defaults, in the table's order."""
    settings: SettingValues
    """The settings."""
    warnings: tuple[str, ...]
    """Variables with our prefix that are not ours, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """One variable that is ours."""

    name: str
    parse: Callable[[str], Any]
    grammar: str


class _EnvironSource(PydanticBaseSettingsSource):
    """Hands pydantic-settings the variables of one given environment, by their exact names."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of one variable, as it stands."""
        return self._environ.get(field.alias or field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All declared variables that are set."""
        aliases = [field.alias or name for name, field in self.settings_cls.model_fields.items()]
        return {alias: self._environ[alias] for alias in aliases if alias in self._environ}


def read_environment(environ: Mapping[str, str]) -> EnvironmentLayer:
    """Read everything that is ours out of an environment.

    Raises:
        ConfigurationError: a variable of ours is malformed, empty or contradicts another, or a name is too close to one
            of ours; every problem is listed.
    """
    variables = {variable.name: variable for variable in _our_variables()}
    values, problems = _read_values(environ, variables)
    statements = tuple(_statements(values))
    settings = SettingValues(
        {setting.name: values[setting.variable] for setting in SETTINGS if setting.variable in values}
    )
    near, warnings = _scan_names(environ, variables, settings[FOREIGN_OK])
    problems = (*problems, *near, *_contradictions(statements))
    if problems:
        raise ConfigurationError(problems)
    return EnvironmentLayer(statements=statements, settings=settings, warnings=warnings)


def _our_variables() -> Iterator[_Variable]:
    for limit in LIMITS:
        for suffix in _VERB_SUFFIXES.values():
            yield _Variable(name=f"{limit.variable}{suffix}", parse=limit.kind.parse, grammar=limit.kind.grammar)
    for setting in SETTINGS:
        yield _Variable(name=setting.variable, parse=setting.parse, grammar=setting.grammar)


def _read_values(
    environ: Mapping[str, str], variables: Mapping[str, _Variable]
) -> tuple[Mapping[str, Any], tuple[Problem, ...]]:
    """Every readable value by variable, and a problem for each that is not."""
    try:
        model = _typed_variables(environ, variables)
    except ValidationError as error:
        bad = {str(item["loc"][0]): str(item["ctx"]["error"]) for item in error.errors()}
        malformed = tuple(_malformed(variables[name], environ[name], reason) for name, reason in bad.items())
        rest = {name: text for name, text in environ.items() if name not in bad}
        values, _ = _read_values(rest, variables)
        return values, malformed
    return {name: getattr(model, name) for name in variables if name in environ}, ()


def _typed_variables(environ: Mapping[str, str], variables: Mapping[str, _Variable]) -> BaseSettings:
    """One pydantic-settings model with a field for each variable, filled from the given environment alone."""

    class _Declared(BaseSettings):
        """The variables that are ours."""

        model_config = SettingsConfigDict(extra="forbid", frozen=True, case_sensitive=True, validate_default=False)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic-settings fixes this signature
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """No source but ours: no .env file, no secrets folder, no process environment."""
            return (_EnvironSource(settings_cls, environ),)

    fields: dict[str, Any] = {
        name: (Annotated[Any, BeforeValidator(variable.parse)], Field(default=None, alias=name))
        for name, variable in variables.items()
    }
    return create_model("Variables", __base__=_Declared, **fields)()


def _malformed(variable: _Variable, text: str, reason: str) -> Problem:
    if not text:
        reason, remedy = "it is set but empty", f"Unset it, or set {variable.grammar}"
    else:
        remedy = f"Expected {variable.grammar}"
    return _variable_problem(variable.name, reason, remedy, Flaw.MALFORMED_VARIABLE)


def _variable_problem(name: str, reason: str, remedy: str, flaw: Flaw) -> Problem:
    return Problem(key=name, origin="environment", reason=reason, remedy=remedy, flaw=flaw)


def _statements(values: Mapping[str, Any]) -> Iterator[Stated]:
    for limit in LIMITS:
        for verb, suffix in _VERB_SUFFIXES.items():
            name = f"{limit.variable}{suffix}"
            if name in values:
                origin = Origin(layer=Layer.ENVIRONMENT, place=name)
                yield Stated(limit=limit, verb=verb, value=values[name], origin=origin)


def _contradictions(statements: tuple[Stated, ...]) -> Iterator[Problem]:
    for limit in LIMITS:
        said = {statement.verb: statement for statement in statements if statement.limit is limit}
        if Verb.LOCK in said and len(said) > 1:
            others = " and ".join(said[verb].origin.place for verb in (Verb.CEILING, Verb.DEFAULT) if verb in said)
            reason, flaw = f"it locks the limit, yet {others} is set too", Flaw.CONTRADICTORY_VARIABLES
            yield _variable_problem(limit.variable, reason, "Keep one of them", flaw)
        if Verb.CEILING in said and Verb.DEFAULT in said:
            ceiling, default = said[Verb.CEILING], said[Verb.DEFAULT]
            if not limit.kind.within(default.value, ceiling.value):
                reason = f"{limit.kind.text(default.value)} is looser than {ceiling.origin.place}"
                remedy, flaw = "Lower the default, or raise the ceiling", Flaw.CONTRADICTORY_VARIABLES
                yield _variable_problem(default.origin.place, reason, remedy, flaw)


def _scan_names(
    environ: Mapping[str, str], variables: Mapping[str, _Variable], foreign_ok: tuple[str, ...]
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Names that must be a mistake, and names with our prefix that are somebody else's."""
    problems: list[Problem] = []
    warnings: list[str] = []
    for name in sorted(environ):
        if name in variables or name in FOREIGN_NAMES or name in foreign_ok:
            continue
        if _is_close(name, variables):
            remedy = _suggestion(name, variables)
            problems.append(_variable_problem(name, "there is no such variable", remedy, Flaw.MISSPELT_VARIABLE))
        elif name.startswith(VARIABLE_PREFIX):
            warnings.append(f"{name} is not a variable of sandbox-lockdown; it has no effect here.")
    return tuple(problems), tuple(warnings)


def _is_close(name: str, variables: Mapping[str, _Variable]) -> bool:
    """Whether this unknown name must be one of ours, misspelt: then going on would ignore what somebody meant."""
    upper = name.upper()
    if any(_edits(upper, known) <= _NEAR_EDITS for known in variables):
        return True
    if not upper.startswith(VARIABLE_PREFIX):
        return False
    rest = upper.removeprefix(VARIABLE_PREFIX)
    first_word = f"{VARIABLE_PREFIX}{rest.split('_')[0]}"
    return "__" in upper or any(f"{known}_".startswith(f"{first_word}_") for known in variables)


def _suggestion(name: str, variables: Mapping[str, _Variable]) -> str:
    alike = difflib.get_close_matches(name.upper(), variables, n=1)
    meant = f"Did you mean {alike[0]}? " if alike else ""
    return f"{meant}Correct it, or if it belongs to other software, name it in {FOREIGN_OK.variable}"


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance, or some number past what counts as near once it can only be past it."""
    if abs(len(one) - len(other)) > _NEAR_EDITS:
        return _NEAR_EDITS + abs(len(one) - len(other))
    previous = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        current = [row]
        for column, right in enumerate(other, 1):
            change = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, change))
        if min(current) > _NEAR_EDITS:  # no later row holds less
            return _NEAR_EDITS + 1
        previous = current
    return previous[-1]


# ======== policy/toml_words.py ========================================================================================
# What is wrong with a TOML text, or with the shape of its table, in words that need no schema to be understood.
#
# Loaded only once something is known to be wrong. A remedy names the loosest value only to whoever meant to write it.
#
# Source: TOML 1.0.0; the keywords are those of `policy/schema.py`.


_LONGEST_SHOWN_VALUE = 80
_LONGEST_SHOWN_LINE = 500
_WHOLE_HEAD = 3
_EXAMPLE_DATE = "2026-11-01T00:00:00Z"
_LONGEST_ID = 64
_QUOTED_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_QUOTED_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9:]{5})"
)
_TYPE_WORDS = MappingProxyType(
    {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "a table",
    }
)
_KIND_WORDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((dict,), "is a table"),
    ((list,), "is a list"),
    ((bool,), "is a truth value"),
    ((int,), "is a whole number"),
    ((float,), "is a number with a point"),
    ((TomlDate,), "is a date"),
    ((str,), "is a text"),
)
# How tomllib begins what it says of a key that is stated twice.
_TWICE = re.compile("Cannot overwrite|Cannot declare|Duplicate inline table key|Cannot mutate immutable namespace")
# What people write in place of TOML, by the line in which it cannot be read on: none of it is TOML anywhere.
_NAME = r"[^=#\"']*"
_SYNTAX_HINTS = (
    (r"[ \t]*[{<]", "Write lines of key = value: TOML is neither JSON nor XML"),
    ("[^#\"']*[\u2018-\u201f\u00ab\u00bb]", 'Write straight quotes: "'),
    (r"[ \t]*[\w.-]+[ \t]*:(?:[ \t]|$)", "Write key = value: TOML has no colon between them"),
    (rf"{_NAME}=[ \t]*(?:True|TRUE|False|FALSE)\b", "Write true or false in lower case"),
    (rf"{_NAME}=[ \t]*(?:#|$)", "Write a value after the ="),
    (rf"{_NAME}=[ \t]*[+-]?0[0-9]", "Write the number without zeros before it"),
    (rf"{_NAME}=[ \t]*[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}", f"Write a date that exists, such as {_EXAMPLE_DATE}"),
    (rf"{_NAME}=[ \t]*[+-]?[0-9][0-9._]*[ \t]*[A-Za-z]", "Write the number alone: its unit is in the key's name"),
    (rf"{_NAME}=[ \t]*(?!true|false|inf|nan)[A-Za-z]", "Put a text in quotes"),
    (rf"{_NAME}=[^\[{{#]*,[ \t]*(?:#|$)", "Remove the comma at the end of the line"),
    (rf"{_NAME}=[ \t]*{{", "Write { key = value, … } in one line, without a comma before its }"),
    (r"[ \t]*\[[^\]]*$", "Close the bracket of the header"),
    (r"[^=\[\]#\"']+$", "Write key = value"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlawWords:
    """One thing that is wrong, without its place."""

    flaw: Flaw
    """What kind of thing."""
    reason: str
    """Why it is refused, without full stop."""
    remedy: str
    """What to do about it, without full stop."""


# Texts that are no TOML.


def syntax_words(said: str, line: str, *, at_end: bool) -> FlawWords:
    """What keeps a text from being TOML.

    Args:
        said: what its reader says.
        line: the line that it names.
        at_end: whether nothing but blanks follows there.
    """
    if _TWICE.match(said):
        reason = f"it is not TOML, which states each key once: {said}"
        return FlawWords(flaw=Flaw.DUPLICATE_KEY, reason=reason, remedy="Keep one of the two")
    remedy = _syntax_remedy(said, line[:_LONGEST_SHOWN_LINE], at_end=at_end)
    return FlawWords(flaw=Flaw.NOT_TOML, reason=f"it is not TOML: {said}", remedy=remedy)


def _syntax_remedy(said: str, line: str, *, at_end: bool) -> str:
    if "Illegal character '\\n'" in said:
        return "Close the quotes in that line"
    foreign = re.match(r"[ \t]*\[{0,2}[^=#\"'\]\x80-\U0010ffff]*([^\x00-\x7f\u2018-\u201f])[^=#\"'\]]*[=\]]", line)
    if foreign:
        return f"Spell the key with a-z, 0-9, _ and -: it holds {character_name(foreign[1])}"
    if at_end and not line.strip():
        return "Close what was opened before: quotes, a bracket or a brace"
    hints = (remedy for pattern, remedy in _SYNTAX_HINTS if re.match(pattern, line))
    return next(hints, "Correct the syntax; https://toml.io shows it")


def character_name(character: str) -> str:
    """A character by code point and name, as Unicode has them: `U+0430 CYRILLIC SMALL LETTER A`."""
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    return f"{code} {name}" if name else code


# Keys that nobody knows.


def unknown_key_words(path: KeyPath, error: ShapeError, schema: Mapping[str, Any]) -> FlawWords:
    """What is wrong with a key that is not known where it stands."""
    key = str(path[-1])
    foreign = next((character for character in key if not character.isascii()), None)
    told = "" if foreign is None else f"; it holds {character_name(foreign)}"
    return FlawWords(
        flaw=Flaw.UNKNOWN_KEY if foreign is None else Flaw.LOOK_ALIKE_KEY,
        reason=f"there is no such key{told}",
        remedy=_key_remedy(path, error.known_keys, schema),
    )


def _key_remedy(path: KeyPath, known: Sequence[str], schema: Mapping[str, Any]) -> str:
    key = str(path[-1])
    plain = key.casefold().replace("-", "_").removeprefix("sandbox_")
    top = schema.get("properties", {})
    limits = top.get("limits", {}).get("properties", {})
    if plain in known:
        return f"You may have meant {plain}"
    if len(path) == 1 and key == "case":
        return "Keep cases for policy test in a file of their own, outside the folder of policies"
    if key in top:
        return "Move it to the top of the file: what follows a [header] belongs to that table"
    if plain in limits:
        spelt = "" if plain == key else f", as {plain}"
        return f"Write limits.{plain}" if path[0] == "scope" else f"Move it under [limits]{spelt}"
    parts = [each for each in known if f"_{plain}_" in f"_{each}_"]
    alike = parts if len(parts) == 1 else difflib.get_close_matches(plain[:_LONGEST_SHOWN_VALUE], known, n=1)
    return f"You may have meant {alike[0]}" if alike else f"Known here: {', '.join(known)}"


# Breaches of the schema.


def telling_breaches(errors: Iterable[ShapeError]) -> Iterator[ShapeError]:
    """These breaches, each of one place, without those that only repeat what another one says of the same value."""
    found = tuple(errors)
    said = {(error.path, error.rule) for error in found}
    for error in found:
        if (error.path, _said_by(error)) not in said:
            yield from _single_breaches(error)


def _said_by(error: ShapeError) -> str | None:
    """The keyword whose breach says all that this one does, where there can be one."""
    if error.rule == "format" and error.value == "":
        return "minLength"
    return "type" if error.rule == "const" else None


def _single_breaches(error: ShapeError) -> Iterator[ShapeError]:
    """One breach for each item of a list that stood before, and every other breach as it is."""
    if error.rule != "uniqueItems":
        yield error
        return
    items = error.value
    for number, item in enumerate(items):
        if item in items[:number]:
            yield replace(error, path=(*error.path, number), value=item)


def breach_words(error: ShapeError) -> FlawWords:
    """What one breach of the schema is."""
    flaw, reason, remedy = _BREACH_TEXTS.get(error.rule, _other_text)(error)
    return FlawWords(flaw=flaw, reason=reason, remedy=remedy)


def _missing_text(error: ShapeError) -> tuple[Flaw, str, str]:
    lacking = [key for key in error.expected if key not in error.value]
    remedy = "Add it" if len(lacking) == 1 else "Add them"
    if "schema" in lacking and len(lacking) >= _WHOLE_HEAD:
        remedy = "Add them; policy init writes a whole file"
    return Flaw.MISSING_KEY, f"it lacks {', '.join(lacking)}", remedy


def _type_text(error: ShapeError) -> tuple[Flaw, str, str]:
    if error.value == UNLIMITED.value and error.expected == "integer" and "limits" in error.path:
        return Flaw.WRONG_TYPE, "it cannot be unlimited", "Write a whole number"
    wanted = _TYPE_WORDS.get(error.expected, error.expected)
    remedy = _type_remedy(error) or f"Write {wanted}"
    return Flaw.WRONG_TYPE, f"{_kind_text(error.value)}, not {wanted}", remedy


def _kind_text(value: object) -> str:
    """What a value is, in words that go on with `, not …`."""
    words = next((words for types, words in _KIND_WORDS if isinstance(value, types)), "is a date or time")
    return f"it {words}" if isinstance(value, dict | list) else f"{_short_value(value)} {words}"


def _type_remedy(error: ShapeError) -> str:
    """How to write what is probably meant; empty where that cannot be told."""
    match error.value:
        case str() as text if not isinstance(text, TomlDate):
            return _text_remedy(text, error.expected)
        case float() as number if error.expected == "integer" and number.is_integer():
            return f"Write {number:.0f}"
        case dict() if error.path == ("scope",):
            return "Write [[scope]], with two brackets"
        case list() if error.path == ("limits",):
            return "Write [limits], with one bracket"
        case (int() | float() | TomlDate()) as plain if error.expected == "string":
            return f'Write "{_short_value(plain)}", in quotes'
    return ""


def _text_remedy(text: str, expected: str) -> str:
    """How to write what somebody quoted."""
    if expected in ("integer", "number") and _QUOTED_NUMBER.fullmatch(text):
        return f"Write {text} without quotes"
    if expected == "boolean" and text.lower() in ("true", "false"):
        return f"Write {text.lower()} without quotes"
    if expected == "array" and text == "none":
        return "Write [] for none"
    if expected == "array" and re.fullmatch(r'[^\\",\n]{1,60}', text):
        return f'Write ["{text}"]'
    return ""


def _format_text(error: ShapeError) -> tuple[Flaw, str, str]:
    if error.expected == "date-time":
        return Flaw.DATE_WITHOUT_OFFSET, *_offset_text(error.value)
    scheme, is_url, rest = str(error.value).partition("://")
    if not is_url:
        return Flaw.BAD_DESTINATION, error.cause, "Correct the item"
    host = re.split("[/?#]", rest.rpartition("@")[2], maxsplit=1)[0].lower()
    port = "" if ":" in host else {"https": ":443", "http": ":80"}.get(scheme.lower(), "")
    reason = f"{_short_value(error.value)} is a URL, and an item is a host with or without a port"
    return Flaw.BAD_DESTINATION, reason, f"Write {_short_value(host + port)}" if host else "Write a host"


def _offset_text(value: object) -> tuple[str, str]:
    shown = value.isoformat() if isinstance(value, date) else _short_value(value)
    match value:
        case datetime():
            return f"{shown} has no offset from UTC", f"Write {shown}Z if it is in UTC, else its offset, as in +01:00"
        case date():
            return f"{shown} has neither time nor offset from UTC", f"Write {shown}T00:00:00Z if it is in UTC"
        case str() if _QUOTED_DATE.fullmatch(value):
            return f"{shown} is a text, not a date", f"Write {value} without quotes"
    return f"{shown} is not a date with an offset", f"Write one such as {_EXAMPLE_DATE}, without quotes"


def _range_text(error: ShapeError) -> tuple[Flaw, str, str]:
    number, end = error.value, error.expected
    if error.rule == "maximum":
        return Flaw.OUT_OF_RANGE, f"{number} is above the greatest permitted value, {end}", f"Write {end} or less"
    hint = "; it does not mean unlimited" if number <= 0 and "limits" in error.path else ""
    return Flaw.OUT_OF_RANGE, f"{number} is below the least permitted value, {end}{hint}", f"Write {end} or more"


def _const_text(error: ShapeError) -> tuple[Flaw, str, str]:
    """One value alone, be it that of the schema or the word beside numbers: never ask for the loosest value."""
    if error.expected != UNLIMITED.value:
        return Flaw.BAD_VALUE, f"{_short_value(error.value)} is not {error.expected}", f"Write {error.expected}"
    reason, text = f"{_kind_text(error.value)}, not a number", str(error.value)
    remedy = _text_remedy(text, "number") or f'Write a number without quotes, or the word "{UNLIMITED.value}"'
    if text.strip().casefold() == UNLIMITED.value:
        remedy = f'Write a number, or "{UNLIMITED.value}" in lower case'
    return Flaw.WRONG_TYPE, reason, remedy


def _choice_text(error: ShapeError) -> tuple[Flaw, str, str]:
    choices = [str(choice) for choice in error.expected]
    reason = f"{_short_value(error.value)} is not one of {', '.join(choices)}"
    meant = error.value[0] if isinstance(error.value, list) and len(error.value) == 1 else error.value
    alike = difflib.get_close_matches(str(meant)[:_LONGEST_SHOWN_VALUE].lower(), choices, n=1)
    return Flaw.BAD_VALUE, reason, f'You may have meant "{alike[0]}"' if alike else "Choose among them"


def _empty_text(error: ShapeError) -> tuple[Flaw, str, str]:
    last = error.path[-1] if error.path else ""
    if error.rule == "minItems":
        reason, remedy = "it names nothing", "Name at least one, or leave the key out"
    elif error.path[:1] == ("scope",) and "limits" not in error.path:
        reason = "it does not say whom it is for"
        remedy = "Write match or except, each with roles, groups, users, models, surface"
    elif last in ("limits", "expect"):
        reason, remedy = "it says nothing", "State a limit, such as networking_allowed = false"
    else:
        reason, remedy = "it says nothing", "State a lock, a ceiling or a default"
    return Flaw.SAYS_NOTHING, reason, remedy


def _repeated_text(error: ShapeError) -> tuple[Flaw, str, str]:
    return Flaw.REPEATED_ITEM, f"{_short_value(error.value)} stands in the list already", "Remove it"


def _lock_text(_error: ShapeError) -> tuple[Flaw, str, str]:
    return Flaw.LOCK_BESIDE_OTHERS, "nothing else may be stated beside a lock", "Remove one of them"


def _other_text(error: ShapeError) -> tuple[Flaw, str, str]:
    value, expected = _short_value(error.value), error.expected
    reason, remedy = f"{value} breaks the rule {error.rule} = {_short_value(expected)}", "Correct the value"
    match error.rule:
        case "pattern" if expected == PLAIN_TEXT:
            reason = f"{value} holds a line break, a control or a bidirectional character"
            remedy = "Write plain text in one line"
        case "pattern" if expected == f"^{DOCUMENT_ID}$":
            alike = re.sub(r"[^a-z0-9]+", "-", str(error.value).lower()).strip("-")[:_LONGEST_ID]
            reason = f"{value} is no id: 1 to {_LONGEST_ID} of a-z, 0-9 and -"
            remedy = f'Write one, such as "{alike}"' if alike else "Write one"
        case "minLength":
            reason, remedy = "it is an empty text", "Write something, or leave it out"
        case "maxLength":
            reason, remedy = f"it has {len(error.value)} characters, more than {expected}", "Shorten it"
        case "maxItems":
            reason, remedy = f"it has {len(error.value)} items, more than {expected}", "Shorten the list"
    return Flaw.BAD_VALUE, reason, remedy


def _short_value(value: object) -> str:
    text = repr(value) if isinstance(value, str | list) and not isinstance(value, TomlDate) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= _LONGEST_SHOWN_VALUE else f"{text[:_LONGEST_SHOWN_VALUE]}…"


_BREACH_TEXTS: Mapping[str, Callable[[ShapeError], tuple[Flaw, str, str]]] = MappingProxyType(
    {
        "required": _missing_text,
        "type": _type_text,
        "format": _format_text,
        "minimum": _range_text,
        "maximum": _range_text,
        "const": _const_text,
        "enum": _choice_text,
        "anyOf": _empty_text,
        "minProperties": _empty_text,
        "minItems": _empty_text,
        "uniqueItems": _repeated_text,
        "false": _lock_text,
    }
)


# ======== policy/toml_text.py =========================================================================================
# Reads TOML of a known shape: bytes to a table and the place of each key, or every problem at once.
#
# For policy files, and for the files of cases they are tested with. Size and syntax are checked here, shape by a JSON
# Schema; each problem has its key path and line.
#
# Source: TOML 1.0.0.


_MAX_DEPTH = 16
_MAX_KEYS = 2_000
# How far the key that is stated twice is searched for, since a search takes the square of a line's length.
_MOST_LINES = 50
_MOST_COLUMNS = 400
_MOST_TRIED = 4
_START = Position(line=1, column=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlPlaces:
    """Where each key of one file stands."""

    origin: str
    """The file's name, for people."""
    positions: Positions
    """Where in its text each key stands."""

    def line(self, path: KeyPath) -> str:
        """`FILE:LINE` of a key, or of the nearest table that would hold it."""
        return f"{self.origin}:{self.positions.line(path)}"

    def problem(self, path: KeyPath, flaw: Flaw, *, reason: str, remedy: str) -> Problem:
        """A problem of one key, at the place where it stands."""
        position = self.positions.nearest(path)
        return Problem(
            key=path_text(path) or "the file",
            origin=f"{self.origin}:{position.line}",
            reason=reason,
            remedy=remedy,
            flaw=flaw,
            path=path,
            position=position,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlTable:
    """A table of the right shape, whose values are still to be read."""

    untrusted: Mapping[str, Any]
    """As tomllib gives it."""
    places: TomlPlaces
    """Where each key stands."""


def read_toml(origin: str, text: bytes, shape: Shape, not_yet: tuple[str, ...] = ()) -> TomlTable:
    """Read a TOML text of this shape.

    Args:
        origin: the file's name, for people.
        text: the whole text.
        shape: what the table has to look like.
        not_yet: top-level keys that a later version may know, and that this one refuses as such.

    Raises:
        DocumentError: it is too large, no TOML, or not of that shape; every problem is listed.
    """
    decoded = _decoded(origin, text)
    places = TomlPlaces(origin=origin, positions=_located(origin, decoded))
    untrusted = _parse_toml(origin, decoded)
    problems = tuple(_number_problems(untrusted, places)) if _has_odd_numbers(untrusted) else ()
    if not problems and not shape.accepts(untrusted):
        problems = tuple(dict.fromkeys(_shape_problems(untrusted, places, shape.schema, not_yet)))
    if problems:
        raise DocumentError(problems)
    return TomlTable(untrusted=untrusted, places=places)


def _decoded(origin: str, data: bytes) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        size = f"{len(data)} bytes, more than {MAX_DOCUMENT_BYTES}"
        raise _file_error(origin, Flaw.TOO_LARGE, f"it has {size}", "Split it into several files")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise _file_error(
            origin, Flaw.ENCODING, "it is not UTF-8", "Save it as UTF-8", _position_after(before)
        ) from error
    foreign = re.search("[\r\x00\ufeff]", text)
    if foreign:
        reason = "it holds a carriage return, a NUL or a byte order mark"
        remedy = "Save it with LF line ends and without a byte order mark"
        raise _file_error(origin, Flaw.ENCODING, reason, remedy, _position_after(text[: foreign.start()]))
    return text


def _position_after(before: str) -> Position:
    """Where the text goes on after these characters."""
    return Position(line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))


def _located(origin: str, text: str) -> Positions:
    """Where every key stands, of a text that is no larger than a policy may be.

    This comes before the TOML parser, whose time and memory grow with the square of a dotted key's length.
    """
    try:
        positions = locate(text)
    except ValueError as error:
        raise _syntax_error(origin, text, error) from error
    depths = {0: 0}
    for (parent, _key), node in positions.nodes.items():
        depths[node] = depths[parent] + 1
        if node > _MAX_KEYS or depths[node] > _MAX_DEPTH:
            place = _position_after(text[: positions.offsets[node]])
            reason = (
                f"it has more than {_MAX_KEYS} keys and items"
                if node > _MAX_KEYS
                else f"it nests deeper than {_MAX_DEPTH}"
            )
            raise _file_error(origin, Flaw.TOO_LARGE, reason, "A policy needs far less: simplify it", place)
    return positions


def _parse_toml(origin: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise _syntax_error(origin, text, error) from error


def _number_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    """Numbers beyond 64 bits, which Python would read but may not even be able to print, and what is no number."""
    for path, number in _odd_numbers(untrusted, ()):
        if isinstance(number, float):
            reason, remedy = f"{number} is no number that can be compared", "Write a number"
            yield places.problem(path, Flaw.NOT_FINITE, reason=reason, remedy=remedy)
        else:
            reason, remedy = "a TOML number has at most 64 bits", "Choose a value in range"
            yield places.problem(path, Flaw.OUT_OF_RANGE, reason=reason, remedy=remedy)


def _has_odd_numbers(untrusted: object) -> bool:
    """Whether `_odd_numbers` finds any, told in a third of the time."""
    waiting = [untrusted]
    while waiting:
        match waiting.pop():
            case dict() as table:
                waiting.extend(table.values())
            case list() as items:
                waiting.extend(items)
            case int() as number if not -(2**63) <= number < 2**63:
                return True
            case float() as number if not math.isfinite(number):
                return True
    return False


def _odd_numbers(untrusted: object, path: KeyPath) -> Iterator[tuple[KeyPath, int | float]]:
    children: Iterable[tuple[str | int, object]] = ()
    match untrusted:
        case dict():
            children = untrusted.items()
        case list():
            children = enumerate(untrusted)
        case int() if not -(2**63) <= untrusted < 2**63:
            yield path, untrusted
        case float() if not math.isfinite(untrusted):
            yield path, untrusted
    for key, child in children:
        yield from _odd_numbers(child, (*path, key))


def _shape_problems(
    untrusted: Mapping[str, Any], places: TomlPlaces, schema: Mapping[str, Any], not_yet: tuple[str, ...]
) -> Iterator[Problem]:
    for error in telling_breaches(shape_errors(untrusted, schema)):
        if error.rule != "additionalProperties":
            words = breach_words(error)
            yield places.problem(error.path, words.flaw, reason=words.reason, remedy=words.remedy)
            continue
        for key in (key for key in error.value if key not in error.known_keys):
            path = (*error.path, key)
            if path[:-1] == () and key in not_yet:
                reason = "it is not supported by this version"
                yield places.problem(path, Flaw.UNSUPPORTED_KEY, reason=reason, remedy="Remove it")
            else:
                words = unknown_key_words(path, error, schema)
                yield places.problem(path, words.flaw, reason=words.reason, remedy=words.remedy)


def _syntax_error(origin: str, text: str, error: ValueError) -> DocumentError:
    """What the parser says, at the place that it names last; what it quotes of the text stands before that."""
    named = re.findall(r"\bline ([0-9]+)(?:, column ([0-9]+))?", str(error))
    position = _position_after(text)
    if named:
        position = Position(line=int(named[-1][0]), column=int(named[-1][1] or 1))
    lines = text.split("\n")
    at_end = not "".join(lines[position.line - 1 :]).strip()
    words = syntax_words(str(error), lines[position.line - 1], at_end=at_end)
    repeated = _repeated_key(origin, text, position.line) if words.flaw is Flaw.DUPLICATE_KEY else None
    if repeated:
        return DocumentError((repeated,))
    return _file_error(origin, words.flaw, words.reason, words.remedy, position)


def _repeated_key(origin: str, text: str, line: int) -> Problem | None:
    """The key that the statement which ends in this line states again, where it can be told."""
    positions = locate(text)
    for start in islice(_repeated_segments(text, positions, line), _MOST_TRIED):
        path = _path_at(text, start)
        first = positions.find(path)
        if path and first:
            second = _position_after(text[:start])
            return Problem(
                key=path_text(path),
                origin=f"{origin}:{second.line}",
                reason=f"it is stated twice, first in line {first.line}; TOML states each key and each table once",
                remedy="Keep one of the two",
                flaw=Flaw.DUPLICATE_KEY,
                path=path,
                position=second,
            )
    return None


def _repeated_segments(text: str, positions: Positions, line: int) -> Iterator[int]:
    """Where segments stand that were spelled before, those first that are likeliest to be what is stated again.

    That is the last segment of a key; else the last one that another follows, which is a value then and no table.
    """
    known = frozenset(positions.offsets)
    for above in range(min(line, _MOST_LINES)):
        start = positions.line_starts[line - above - 1]
        end = start + len(text[start : start + _MOST_COLUMNS].partition("\n")[0])
        found = [each for each in TOML_SEGMENT.finditer(text, start, end) if each.start() not in known]
        # Above this line only the key of its value can be meant: a header may name again what another one implied.
        yield from (each.start() for each in found if each["end"] in ("=" if above else "=]"))
        if not above:
            yield from (each.start() for each in found[::-1] if each["end"] == ".")


def _path_at(text: str, start: int) -> KeyPath:
    """The path of the key whose last segment, spelled before, begins here; empty where none does.

    Under a name of its own the locator finds it here, and not at the first place.
    """
    segment = TOML_SEGMENT.match(text, start)
    if segment is None:
        return ()
    name = f"again-{'-' * len(segment['key'])}"
    try:
        renamed = locate(f"{text[:start]}{name}{text[segment.end('key') :]}")
    except ValueError:  # what follows is not TOML, and nobody has read it yet
        return ()
    above = {node: (parent, key) for (parent, key), node in renamed.nodes.items()}
    node = next((node for node, (_, key) in above.items() if key == name and renamed.offsets[node] == start), 0)
    if not node:
        return ()
    path: KeyPath = (tomllib.loads(f"{segment['key']} = 0").popitem()[0],)
    node = above[node][0]
    while node:
        node, key = above[node]
        path = (key, *path)
    return path


def _file_error(origin: str, flaw: Flaw, reason: str, remedy: str, position: Position = _START) -> DocumentError:
    place = origin if position is _START else f"{origin}:{position.line}"
    problem = Problem(key="the file", origin=place, reason=reason, remedy=remedy, flaw=flaw, position=position)
    return DocumentError((problem,))


# ======== policy/document.py ==========================================================================================
# Reads one policy file: bytes to a frozen document, or every problem at once, each with its key path and line.
#
# What a schema cannot say is checked here: contradictions inside one file, the order of dates. Signatures, audience and
# expiry are for whoever loads the set.
#
# Source: TOML 1.0.0; `policy/policy.schema.json`.


_NOT_YET_KEYS = ("rollout",)
_STATED_BY: Mapping[str, Verb] = MappingProxyType(
    {verb.value: verb for verb in (Verb.LOCK, Verb.CEILING, Verb.DEFAULT)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScope:
    """One `[[scope]]` of a policy file: stricter limits for some."""

    conditions: ScopeConditions
    """Whom it is for."""
    statements: tuple[Stated, ...]
    """What it says of limits, in the table's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """One policy file that is what it should be."""

    origin: str
    """The file's name, for people."""
    policy_id: str
    """Its own id."""
    serial: int
    """Raised with each change."""
    issued_at: datetime
    """With an offset."""
    not_before: datetime | None
    """With an offset; `None` where it holds from the start."""
    expires_at: datetime
    """With an offset; the first moment at which it no longer holds."""
    audience: tuple[str, ...]
    """Instances it is for; `*` is any."""
    payload_sha256: str
    """SHA-256 of the signed text, in hexadecimal."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""
    statements: tuple[Stated, ...]
    """What it says of limits for everybody, in the table's order."""
    scopes: tuple[PolicyScope, ...] = ()
    """What it says for some, in the file's order, which does not matter."""
    requires: tuple[str, ...] = ()
    """Ids that must be present beside it."""
    retires: tuple[str, ...] = ()
    """Ids that may be gone, and must be, from now on."""
    rollback_of: int | None = None
    """The earlier serial whose change this one takes back; `None` where it takes none back."""
    unknown_key_ids: tuple[str, ...] = ()
    """Keys that signed it too, and are not trusted here: not checked, and not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """The bytes of a policy file whose signatures were already dealt with."""

    origin: str
    """The file's name, for people."""
    text: bytes
    """The signed text, without its signature block."""
    payload_sha256: str
    """SHA-256 of `text`, in hexadecimal."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""
    unknown_key_ids: tuple[str, ...] = ()
    """Keys named in lines that were not checked, since they are not trusted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReading:
    """A policy file that is what it should be, beside the TOML it was read from."""

    document: PolicyDocument
    """What it says."""
    toml: TomlTable
    """How it says it, and where."""


def parse_document(source: DocumentSource) -> PolicyDocument:
    """Read a policy file.

    Raises:
        DocumentError: it is too large, no TOML, not of the schema's shape, or contradicts itself.
    """
    return read_document(source).document


def read_document(source: DocumentSource) -> DocumentReading:
    """Read a policy file, and keep where everything in it stands.

    Raises:
        DocumentError: as `parse_document`.
    """
    toml = read_toml(source.origin, source.text, _document_shape(), _NOT_YET_KEYS)
    untrusted, places = toml.untrusted, toml.places
    reader = _StatementReader(source=source, untrusted=untrusted, places=places)
    found = tuple(reader.statements(("limits",), untrusted.get("limits", {}), ""))
    scopes = tuple(reader.scope(number, scope) for number, scope in enumerate(untrusted.get("scope", ())))
    blocks = {(): found} | {("scope", number): statements for number, (_, statements) in enumerate(scopes)}
    problems = (
        *(item for block in blocks.values() for item in block if isinstance(item, Problem)),
        *(problem for path, block in blocks.items() for problem in _own_contradictions(path, _readable(block), places)),
        *_date_problems(untrusted, places),
        *_relation_problems(untrusted, places),
    )
    if problems:
        raise DocumentError(problems)
    document = PolicyDocument(
        origin=source.origin,
        policy_id=untrusted["id"],
        serial=untrusted["serial"],
        issued_at=untrusted["issued_at"],
        not_before=untrusted.get("not_before"),
        expires_at=untrusted["expires_at"],
        audience=tuple(untrusted["audience"]),
        payload_sha256=source.payload_sha256,
        key_ids=source.key_ids,
        statements=_readable(found),
        scopes=tuple(PolicyScope(conditions=who, statements=_readable(said)) for who, said in scopes),
        requires=tuple(untrusted.get("requires", ())),
        retires=tuple(untrusted.get("retires", ())),
        rollback_of=untrusted.get("rollback_of"),
        unknown_key_ids=source.unknown_key_ids,
    )
    return DocumentReading(document=document, toml=toml)


@cache
def _document_shape() -> Shape:
    return compiled_shape(document_schema())


@dataclass(frozen=True, slots=True, kw_only=True)
class _StatementReader:
    """Reads what one file says of limits, in its `[limits]` and in each scope alike."""

    source: DocumentSource
    untrusted: Mapping[str, Any]
    places: TomlPlaces

    def scope(self, number: int, untrusted: Mapping[str, Any]) -> tuple[ScopeConditions, tuple[Stated | Problem, ...]]:
        """Whom one scope is for, and what it says."""
        conditions = ScopeConditions(
            match=_named_values(untrusted.get("match", {})), excepted=_named_values(untrusted.get("except", {}))
        )
        path = ("scope", number, "limits")
        return conditions, tuple(self.statements(path, untrusted["limits"], str(conditions)))

    def statements(self, path: KeyPath, limits: Mapping[str, Any], scope: str) -> Iterator[Stated | Problem]:
        """What one table says of each limit, or why that cannot be read."""
        for limit in LIMITS:
            said = limits.get(limit.name)
            table = said if isinstance(said, dict) else {} if said is None else {"lock": said}
            for key, verb in _STATED_BY.items():
                if key in table:
                    place = (*path, limit.name, key) if table is said else (*path, limit.name)
                    yield self._statement(place, limit, verb, table[key], scope, table)

    def _statement(
        self, path: KeyPath, limit: Limit[Any], verb: Verb, native: object, scope: str, table: Mapping[str, Any]
    ) -> Stated | Problem:
        try:
            value = limit.kind.from_native(native)
        except ValueError as error:
            remedy = f"Expected {limit.kind.grammar}"
            return self.places.problem(path, Flaw.BAD_VALUE, reason=str(error), remedy=remedy)
        origin = Origin(
            layer=Layer.POLICY,
            place=self.places.line(path),
            reason=table.get("reason", ""),
            policy_id=self.untrusted["id"],
            scope=scope,
            serial=self.untrusted["serial"],
            key_ids=self.source.key_ids,
        )
        everywhere = self.untrusted.get("limits", {}).get(limit.name)
        by_file = everywhere.get("env_may_loosen", True) if isinstance(everywhere, dict) else True
        may_loosen = table.get("env_may_loosen", by_file)
        return Stated(limit=limit, verb=verb, value=value, origin=origin, environment_may_loosen=may_loosen)


def _named_values(untrusted: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Conditions by attribute; a word that stands alone is a list of one."""
    return {name: frozenset([said] if isinstance(said, str) else said) for name, said in untrusted.items()}


def _readable(found: Iterable[Stated | Problem]) -> tuple[Stated, ...]:
    return tuple(item for item in found if isinstance(item, Stated))


def _own_contradictions(path: KeyPath, statements: tuple[Stated, ...], places: TomlPlaces) -> Iterator[Problem]:
    """Defaults that their own block of statements, at this path, makes pointless."""
    said = {(statement.limit.name, statement.verb): statement for statement in statements}
    for default in (statement for statement in statements if statement.verb is Verb.DEFAULT):
        ceiling, kind = said.get((default.limit.name, Verb.CEILING)), default.limit.kind
        if ceiling is not None and not kind.within(default.value, ceiling.value):
            reason = f"its default {kind.text(default.value)} is looser than its ceiling {kind.text(ceiling.value)}"
            flaw, remedy = Flaw.DEFAULT_OUTSIDE_CEILING, "Lower it, or raise the ceiling"
        elif ceiling is None and not default.environment_may_loosen and not default.scoped:
            reason = "env_may_loosen = false stands beside a default alone, which is no bound"
            flaw, remedy = Flaw.IDLE_ENV_MAY_LOOSEN, "State a ceiling or a lock, or remove it"
        else:
            continue
        where = (*path, "limits", default.limit.name, Verb.DEFAULT.value)
        yield places.problem(where, flaw, reason=reason, remedy=remedy)


def _date_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    begins = untrusted.get("not_before", untrusted["issued_at"])
    for key in ("issued_at", "not_before"):
        if key in untrusted and untrusted[key] >= untrusted["expires_at"]:
            reason = f"it expires at {untrusted['expires_at'].isoformat()}, which is not after {key}"
            remedy = f"Choose a date after {begins}"
            yield places.problem(("expires_at",), Flaw.DATES_OUT_OF_ORDER, reason=reason, remedy=remedy)


def _relation_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    """What the file says of other files, and of its own past."""
    flaw = Flaw.CONTRADICTORY_RELATIONS
    for key in ("requires", "retires"):
        if untrusted["id"] in untrusted.get(key, ()):
            yield places.problem((key,), flaw, reason="it names the file's own id", remedy="Name other policies")
    both = sorted(set(untrusted.get("requires", ())) & set(untrusted.get("retires", ())))
    if both:
        reason = f"{', '.join(both)} is retired here and required too"
        yield places.problem(("retires",), flaw, reason=reason, remedy="Keep one of the two")
    if untrusted.get("rollback_of", 0) >= untrusted["serial"]:
        reason = f"serial {untrusted['rollback_of']} is no earlier one than this file's {untrusted['serial']}"
        remedy = "Raise the serial, and name an earlier one"
        yield places.problem(("rollback_of",), flaw, reason=reason, remedy=remedy)


# ======== policy/refusals.py ==========================================================================================
# Why a set of policy files is refused: one stable code each, and the checks on files that were already read.
#
# Pure functions of documents, settings, what is remembered, and a moment. Reading and verifying is left to `load`.


class RefusalCode(Enum):
    """Why a set of policy files is refused, in the order in which one is named where several hold."""

    POLICY_MISSING = (
        "policy-missing",
        "A policy is required, by itself or by its id, and `SANDBOX_POLICY_PATH` is not set.",
    )
    KEYS_INVALID = "keys-invalid", "The keys, or their number beside the threshold, cannot be used."
    STATE_INVALID = "state-invalid", "What this instance remembers cannot be read, written or trusted."
    WRONG_AUDIENCE = "wrong-audience", "A file is for other instances."
    UNREADABLE = "unreadable", "A file cannot be read, there is none, or others could have written it."
    SIGNATURE_INVALID = "signature-invalid", "Signatures are missing, malformed, too few, or do not verify."
    DOCUMENT_INVALID = "document-invalid", "A file is not a policy that this version understands."
    SET_INVALID = "set-invalid", "Two files contradict each other: one id, different locks, or one retires the other."
    ROLLBACK = "rollback", "A file's serial is lower than one this instance accepted before."
    SERIAL_CONFLICT = "serial-conflict", "A file has the serial of one accepted before, and another text."
    SERIAL_TOO_LOW = "serial-too-low", "A file is older than `SANDBOX_POLICY_MIN_SERIAL` permits."
    ID_MISSING = "id-missing", "An id that `SANDBOX_POLICY_IDS` or another file requires is not in the set."
    ID_GONE = "id-gone", "An id accepted before is not in the set, and no file retires it."
    EXPIRED = "expired", "A file's time is over."
    NOT_YET_VALID = "not-yet-valid", "A file's time has not come."
    CLOCK_BEHIND = "clock-behind", "This clock is behind the moment a file was issued, one accepted before included."

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        """What messages, records and programs call it."""
        self.meaning = meaning
        """One sentence for people."""


PASSING_CODES = frozenset({RefusalCode.EXPIRED, RefusalCode.NOT_YET_VALID, RefusalCode.CLOCK_BEHIND})
"""What time alone brings about: a last good set may hold for a while all the same."""

CLOCK_REMEDY = (
    "Set this host's clock right; if that policy was dated wrongly, wait until then, or move the state away, which "
    "forgets all serials"
)
"""The newest date that was accepted stays, even where its policy is forgotten."""

Refusal = tuple[RefusalCode, Problem]


def refused(refusals: Sequence[Refusal]) -> SetRefusedError:
    """The error for everything that was found, under the first code in the enum's order."""
    order = list(RefusalCode)
    code = min((code for code, _ in refusals), key=order.index)
    return SetRefusedError(code.code, tuple(problem for _, problem in refusals))


def set_refusals(documents: Sequence[PolicyDocument], settings: SettingValues, now: datetime) -> Iterator[Refusal]:
    """Everything that keeps these files from holding as one set, here and now."""
    yield from _twice_used_ids(documents)
    yield from _different_locks(documents)
    yield from _relation_refusals(documents, settings)
    for document in documents:
        yield from audience_refusal(document, settings[INSTANCE])
        yield from _date_refusals(document, now)
        least = settings[POLICY_MIN_SERIAL].get(document.policy_id, 1)
        if document.serial < least:
            reason = f"serial {document.serial} is below {least}, the least that {POLICY_MIN_SERIAL.variable} permits"
            remedy = "Ship the newer policy; this may be a rollback"
            yield RefusalCode.SERIAL_TOO_LOW, _document_problem(document, "serial", reason, remedy)


def history_refusals(documents: Sequence[PolicyDocument], remembered: Remembered, now: datetime) -> Iterator[Refusal]:
    """Everything about these files that what was accepted before forbids."""
    for document in documents:
        yield from _serial_refusal(document, remembered)
    accounted = {document.policy_id for document in documents}.union(*(document.retires for document in documents))
    for policy_id, known in sorted(remembered.policies.items()):
        if policy_id not in accounted and known.retired_by is None:
            reason = f"no file has this id, whose serial {known.serial} was accepted before, and none retires it"
            remedy = f"Ship it again, retire it in another policy, or run policy status --forget {policy_id}"
            yield RefusalCode.ID_GONE, Problem(key=policy_id, origin="policy set", reason=reason, remedy=remedy)
    if remembered.newest_issued_at is not None and now < remembered.newest_issued_at:
        newest = remembered.newest_issued_at.isoformat()
        reason = f"it is {now.isoformat(timespec='seconds')}, and a policy issued at {newest} was accepted before"
        problem = Problem(key="clock", origin="this host", reason=reason, remedy=CLOCK_REMEDY)
        yield RefusalCode.CLOCK_BEHIND, problem


def required_ids(settings: SettingValues) -> Mapping[str, str]:
    """The ids that the environment wants present, each with the variable that names it."""
    with_serial, required = settings[POLICY_MIN_SERIAL], settings[POLICY_IDS]
    return {**dict.fromkeys(with_serial, POLICY_MIN_SERIAL.variable), **dict.fromkeys(required, POLICY_IDS.variable)}


def setting_problem(variable: str, reason: str, remedy: str) -> Problem:
    """A problem that a variable has, or is the remedy for."""
    return Problem(key=variable, origin="environment", reason=reason, remedy=remedy)


def _serial_refusal(document: PolicyDocument, remembered: Remembered) -> Iterator[Refusal]:
    known = remembered.policies.get(document.policy_id)
    if known is None:
        return
    if known.retired_by is not None and document.serial <= known.serial:
        reason = f"serial {document.serial} is not above {known.serial}, at which {known.retired_by} retired it"
        remedy = "Remove the file; to bring the policy back, sign it with a higher serial"
        yield RefusalCode.ROLLBACK, _document_problem(document, "serial", reason, remedy)
    elif document.serial < known.serial:
        reason = f"serial {document.serial} is lower than {known.serial}, which this instance accepted before"
        remedy = "Ship the newer policy; to go back, sign the older text with a higher serial and rollback_of"
        yield RefusalCode.ROLLBACK, _document_problem(document, "serial", reason, remedy)
    elif document.serial == known.serial and document.payload_sha256 != known.payload_sha256:
        reason = f"serial {document.serial} was accepted before with another text"
        yield RefusalCode.SERIAL_CONFLICT, _document_problem(document, "serial", reason, "Raise the serial")


def _twice_used_ids(documents: Sequence[PolicyDocument]) -> Iterator[Refusal]:
    first: dict[str, PolicyDocument] = {}
    for document in documents:
        other = first.setdefault(document.policy_id, document)
        if other is not document:
            reason = f"{other.origin} has the id {document.policy_id} too"
            yield RefusalCode.SET_INVALID, _document_problem(document, "id", reason, "Give each file an id of its own")


def _different_locks(documents: Sequence[PolicyDocument]) -> Iterator[Refusal]:
    first: dict[str, Stated] = {}
    for document in documents:
        for stated in document.statements:
            other = first.setdefault(stated.limit.name, stated) if stated.verb is Verb.LOCK else stated
            if other.value != stated.value:
                reason = f"it locks {stated.limit.words(stated.value)}, and {other.origin.place} locks another value"
                key, place = f"limits.{stated.limit.name}", stated.origin.place
                problem = Problem(key=key, origin=place, reason=reason, remedy="Keep one of the two locks")
                yield RefusalCode.SET_INVALID, problem


def _relation_refusals(documents: Sequence[PolicyDocument], settings: SettingValues) -> Iterator[Refusal]:
    """What files say of each other, and the environment of them."""
    present = {document.policy_id for document in documents}
    for document in documents:
        for missing in sorted(set(document.requires) - present):
            reason = f"it requires {missing}, and no policy file has that id"
            problem = _document_problem(document, "requires", reason, "Ship that file too")
            yield RefusalCode.ID_MISSING, problem
        for retired in sorted(set(document.retires) & present):
            reason = f"it retires {retired}, which is still here"
            problem = _document_problem(document, "retires", reason, "Remove the retired file")
            yield RefusalCode.SET_INVALID, problem
    for missing, variable in sorted(required_ids(settings).items()):
        if missing not in present:
            reason = f"no policy file has the id {missing}"
            yield RefusalCode.ID_MISSING, setting_problem(variable, reason, "Ship that file, or correct the id")


def audience_refusal(document: PolicyDocument, instance: str | None) -> Iterator[Refusal]:
    """Whether a file is for other instances: that ends every grace, whatever else is wrong with the set."""
    if "*" not in document.audience and instance not in document.audience:
        here = f"this instance is {instance}" if instance else f"{INSTANCE.variable} is not set"
        reason = f"it is for {', '.join(document.audience)}, and {here}"
        remedy = f"Ship the policy meant for this instance, or correct {INSTANCE.variable}"
        yield RefusalCode.WRONG_AUDIENCE, _document_problem(document, "audience", reason, remedy)


def _date_refusals(document: PolicyDocument, now: datetime) -> Iterator[Refusal]:
    if now >= document.expires_at:
        reason = f"it expired at {document.expires_at.isoformat()}"
        remedy = "Issue it anew with a higher serial and a later date"
        yield RefusalCode.EXPIRED, _document_problem(document, "expires_at", reason, remedy)
    if document.not_before is not None and now < document.not_before:
        reason = f"it holds from {document.not_before.isoformat()} on"
        yield RefusalCode.NOT_YET_VALID, _document_problem(document, "not_before", reason, "Ship it later")
    if now < document.issued_at:
        reason = f"it was issued at {document.issued_at.isoformat()}, which this clock has not reached"
        yield RefusalCode.CLOCK_BEHIND, _document_problem(document, "issued_at", reason, "Set this host's clock right")


def _document_problem(document: PolicyDocument, key: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=document.origin, reason=reason, remedy=remedy)


# ======== policy/resolve.py ===========================================================================================
# Combines layers into effective limits: a pure function of values, one limit at a time.
#
# An environment lock decides; else the strictest lock of the policy files and the scopes that are for this requester;
# else whoever chooses first of the person's valve, the administrator's valve, the environment's default, the strictest
# policy default and the built-in, brought within every ceiling. Each limit's values form a lattice, so ceilings only ever
# tighten and their order never matters. Scopes only tighten: what a scope alone locks or presets is held to what the
# person could reach without it, so that nobody gains by hiding who they are.


BUILT_IN_PLACE = "built-in"
LOCKDOWN_PLACE = "lockdown"
_ELSEWHERE = "its scope is not for this request"


def _built_in(limit: Limit[Any]) -> Stated:
    origin = Origin(layer=Layer.BUILT_IN, place=BUILT_IN_PLACE)
    return Stated(limit=limit, verb=Verb.DEFAULT, value=limit.built_in, origin=origin)


def _candidate(stated: Stated, fate: Fate, note: str = "") -> Candidate:
    return Candidate(stated=stated, fate=fate, note=note)


def _unspoken(built_in: Stated) -> Decision:
    """The decision about a limit of which nobody says anything."""
    return Decision(
        limit=built_in.limit,
        value=built_in.value,
        verb=built_in.verb,
        decided_by=built_in.origin,
        candidates=(_candidate(built_in, Fate.WON),),
    )


_BUILT_INS: Mapping[str, Stated] = MappingProxyType({limit.name: _built_in(limit) for limit in LIMITS})
_UNSPOKEN: Mapping[str, Decision] = MappingProxyType({name: _unspoken(said) for name, said in _BUILT_INS.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Everything that was said, above the built-ins."""

    environment: tuple[Stated, ...] = ()
    """What the environment says."""
    documents: tuple[PolicyDocument, ...] = ()
    """The policy files, as one set; their order does not matter."""
    untrusted_person_valves: Mapping[str, object] | None = None
    """What the person's valves hold, by valve name; `None` values count as not set."""
    untrusted_admin_valves: Mapping[str, object] | None = None
    """What the plugin's valves hold, by valve name; `None` values count as not set."""
    requester: Requester = UNDETERMINED
    """Who asks; decides which scopes hold."""
    lockdown: str | None = None
    """Why the lockdown values bound everything, the environment too; `None` where they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Valve:
    """What one set of valves says of a limit."""

    stated: Stated
    """The choice; the strict end where it could not be read."""
    fate: Fate = Fate.SHADOWED
    """`IGNORED` or `INVALID`, or that nothing was decided about it yet."""
    note: str = ""
    """Why it is ignored or invalid."""
    given: str = ""
    """The text it was given as, where it is ignored or invalid."""

    @property
    def counts(self) -> bool:
        """Whether it has a say: an unreadable administrator's valve does, as the strict end of its limit."""
        unreadable_admin = self.fate is Fate.INVALID and self.stated.origin.layer is Layer.ADMIN_VALVE
        return self.fate is Fate.SHADOWED or unreadable_admin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """Everything that was said of one limit, above its built-in."""

    lockdown: list[Stated] = field(default_factory=list)
    environment: list[Stated] = field(default_factory=list)
    policy: list[Stated] = field(default_factory=list)
    """By files, and by their scopes that are for this requester."""
    elsewhere: list[Stated] = field(default_factory=list)
    """By scopes that are not for this requester, which have no say."""
    valves: list[_Valve] = field(default_factory=list)
    """The person's, then the administrator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ruling:
    """How the value of one limit came about."""

    value: Any
    """The value that holds."""
    chosen: Stated
    """Whose value it was to begin with."""
    biting: Sequence[Stated]
    """The bounds that brought it in, the first of which decided; empty where none had to."""

    @property
    def decider(self) -> Stated:
        """Who decided."""
        return self.biting[0] if self.biting else self.chosen

    def fate(self, stated: Stated) -> Fate:
        """What became of a statement that had a say."""
        if self.biting and any(stated is bound for bound in self.biting):
            return Fate.WON
        if stated is self.chosen:
            return Fate.CLAMPED if self.biting else Fate.WON
        return Fate.SHADOWED


def resolve(layers: Layers) -> EffectiveLimits:
    """The effective limits for one request."""
    documents = sorted(layers.documents, key=lambda each: (each.policy_id, each.origin, each.payload_sha256))
    said = _grouped(layers, documents)
    policies = tuple(
        PolicyIdentity(
            policy_id=document.policy_id,
            serial=document.serial,
            payload_sha256=document.payload_sha256,
            key_ids=document.key_ids,
        )
        for document in documents
    )
    decisions = {
        limit.name: _decide(limit, said[limit.name]) if limit.name in said else _UNSPOKEN[limit.name]
        for limit in LIMITS
    }
    return EffectiveLimits(decisions=decisions, policies=policies)


def _grouped(layers: Layers, documents: Iterable[PolicyDocument]) -> Mapping[str, _Said]:
    """Everything that was said, under its limit; limits of which nothing was said are left out."""
    said: dict[str, _Said] = defaultdict(_Said)
    for stated in _lockdown(layers.lockdown):
        said[stated.limit.name].lockdown.append(stated)
    for stated in layers.environment:
        said[stated.limit.name].environment.append(stated)
    for document in documents:
        for stated in document.statements:
            said[stated.limit.name].policy.append(stated)
        for scope in document.scopes:
            here = scope.conditions.hold_for(layers.requester)
            for stated in scope.statements:
                of_limit = said[stated.limit.name]
                (of_limit.policy if here else of_limit.elsewhere).append(stated)
    for valve in _valves(layers):
        said[valve.stated.limit.name].valves.append(valve)
    return said


def _lockdown(why: str | None) -> Iterator[Stated]:
    """The lockdown values as ceilings that nobody is above."""
    if why is not None:
        origin = Origin(layer=Layer.LOCKDOWN, place=LOCKDOWN_PLACE, reason=why)
        for limit in LIMITS:
            yield Stated(
                limit=limit, verb=Verb.CEILING, value=limit.lockdown, origin=origin, environment_may_loosen=False
            )


def _valves(layers: Layers) -> Iterator[_Valve]:
    """Every valve that is set: the person's, then the administrator's."""
    for layer, untrusted_valves in (
        (Layer.PERSON_VALVE, layers.untrusted_person_valves or {}),
        (Layer.ADMIN_VALVE, layers.untrusted_admin_valves or {}),
    ):
        for limit in LIMITS:
            untrusted = untrusted_valves.get(limit.valve)
            if untrusted is not None:
                yield _valve(limit, layer, untrusted)


def _valve(limit: Limit[Any], layer: Layer, untrusted: object) -> _Valve:
    """What one valve says: something readable, or something that is not."""
    value, fate, note = limit.kind.strictest, Fate.SHADOWED, ""
    if layer is Layer.PERSON_VALVE and limit.chosen_by is not Chooser.PERSON:
        fate, note = Fate.IGNORED, "only an administrator chooses this limit"
    else:
        try:
            value = from_untrusted_valve(limit.kind, untrusted)
        except ValueError as error:
            fate, note = Fate.INVALID, f"{error}; expected {limit.kind.grammar}"
    origin = Origin(layer=layer, place=limit.valve)
    stated = Stated(limit=limit, verb=Verb.CHOICE, value=value, origin=origin)
    return _Valve(stated=stated, fate=fate, note=note, given=spelt(untrusted) if note else "")


def _decide(limit: Limit[Any], said: _Said) -> Decision:
    lock = next((stated for stated in said.environment if stated.verb is Verb.LOCK), None)
    if lock is not None:
        return _decide_by_environment_lock(limit, lock, said)
    statements = [*said.lockdown, *said.environment, *said.policy]
    valves = [valve.stated for valve in said.valves if valve.counts]
    choosing = _choosing(limit, statements, valves)
    ruling = _ruling(limit, choosing, _bounds(limit, choosing, statements, valves))
    return _decision(limit, said, ruling, _valve_notices(said, ruling))


def _decide_by_environment_lock(limit: Limit[Any], lock: Stated, said: _Said) -> Decision:
    """An environment lock decides, within the bounds of policies that do not let it loosen them."""
    bounds = [stated for stated in (*said.lockdown, *said.policy) if stated.verb is not Verb.DEFAULT]
    ruling = _ruling(limit, [lock], [bound for bound in bounds if not bound.environment_may_loosen])
    loosened = [bound for bound in bounds if not limit.kind.within(ruling.value, bound.value)]
    notices = (
        f"{lock.origin} loosens {limit.name} past {bound.origin}: {limit.words(ruling.value)} instead of "
        f"{limit.words(bound.value)}."
        for bound in loosened
    )
    valve_notices = _valve_notices(said, ruling)
    return _decision(limit, said, ruling, (*_environment_notice(lock, ruling), *valve_notices, *notices))


def _environment_notice(lock: Stated, ruling: _Ruling) -> Iterator[str]:
    """What people are told about an environment lock that did not get through as it is."""
    words, decider = lock.limit.words, ruling.decider
    asked, now = f"{lock.origin} asks for {words(lock.value)}", words(ruling.value)
    if decider.origin.layer is Layer.LOCKDOWN:
        yield f"{asked}; {decider.origin} permits {now} ({decider.origin.reason})."
    elif decider is not lock:
        yield f"{asked}; {decider.origin} does not let it loosen the policy, and {now} holds."


def _choosing(limit: Limit[Any], statements: Sequence[Stated], valves: Sequence[Stated]) -> Sequence[Stated]:
    """The statements, all of one layer, whose meet is the value to begin with, before any bound."""
    locks = [stated for stated in statements if stated.verb is Verb.LOCK]
    if locks:
        return locks
    if valves:
        return valves[:1]
    for layer in (Layer.ENVIRONMENT, Layer.POLICY):
        defaults = [each for each in statements if each.verb is Verb.DEFAULT and each.origin.layer is layer]
        if defaults:
            return defaults
    return [_BUILT_INS[limit.name]]


def _bounds(
    limit: Limit[Any], choosing: Sequence[Stated], statements: Sequence[Stated], valves: Sequence[Stated]
) -> list[Stated]:
    """Every statement that the value to begin with may not be looser than."""
    ceilings = [stated for stated in statements if stated.verb is Verb.CEILING]
    scopes_alone = all(stated.scoped for stated in choosing)
    if not scopes_alone and choosing[0].origin.layer is not Layer.PERSON_VALVE:
        return ceilings
    if limit.chosen_by is not Chooser.PERSON:  # then what they could reach is what would hold without those scopes
        others = [stated for stated in statements if not any(stated is each for each in choosing)]
        instead = _choosing(limit, others, valves)
        return [*_bounds(limit, instead, others, valves), *instead]
    admin = [valve for valve in valves if valve.origin.layer is Layer.ADMIN_VALVE]
    opened = admin or any(not ceiling.scoped for ceiling in ceilings)
    return [*ceilings, *admin] if opened else [*ceilings, _BUILT_INS[limit.name]]


def _ruling(limit: Limit[Any], choosing: Sequence[Stated], bounds: Sequence[Stated]) -> _Ruling:
    """The meet of what was chosen, no looser than any bound."""
    meet = limit.kind.meet
    begun = reduce(meet, (stated.value for stated in choosing))
    value = reduce(meet, (bound.value for bound in bounds), begun)
    chosen = next((stated for stated in choosing if stated.value == begun), choosing[0])
    return _Ruling(value=value, chosen=chosen, biting=_biting(limit, begun, value, bounds))


def _biting(limit: Limit[Any], begun: Any, value: Any, bounds: Sequence[Stated]) -> Sequence[Stated]:  # noqa: ANN401
    """The bounds that brought the value in: one that does it alone, else all that had a part in it."""
    if value == begun:
        return ()
    if len(bounds) == 1:
        return bounds
    exact = next((bound for bound in bounds if bound.value == value), None)
    alone = exact or next((bound for bound in bounds if limit.kind.meet(begun, bound.value) == value), None)
    return [alone] if alone else [bound for bound in bounds if not limit.kind.within(begun, bound.value)]


def _decision(limit: Limit[Any], said: _Said, ruling: _Ruling, notices: tuple[str, ...]) -> Decision:
    """The ruling, with what became of everybody who said something, in the order of the layers."""
    holding = [*said.lockdown, *said.environment, *said.policy]
    candidates = [_weighed(stated, ruling) for stated in holding]
    candidates += [_weighed_valve(valve, ruling) for valve in said.valves]
    candidates.append(_weighed(_BUILT_INS[limit.name], ruling))
    candidates += [_candidate(stated, Fate.IGNORED, _ELSEWHERE) for stated in said.elsewhere]
    decider = ruling.decider
    return Decision(
        limit=limit,
        value=ruling.value,
        verb=decider.verb,
        decided_by=decider.origin,
        candidates=tuple(candidates),
        notices=notices,
    )


def _weighed(stated: Stated, ruling: _Ruling) -> Candidate:
    fate = ruling.fate(stated)
    clamped = fate is Fate.CLAMPED
    return _candidate(stated, fate, f"brought within {stated.limit.words(ruling.decider.value)}" if clamped else "")


def _weighed_valve(valve: _Valve, ruling: _Ruling) -> Candidate:
    stated = valve.stated
    if valve.fate is Fate.SHADOWED:
        return _weighed(stated, ruling)
    return Candidate(stated=stated, fate=valve.fate, note=valve.note, given=valve.given)


def _valve_notices(said: _Said, ruling: _Ruling) -> tuple[str, ...]:
    """What people are told about the valves, the person's first."""
    return tuple(notice for notice in (_notice(valve, ruling) for valve in said.valves) if notice)


def _notice(valve: _Valve, ruling: _Ruling) -> str:
    """What people are told about a valve that did not get its way, if the limit is locked or not."""
    stated, decider = valve.stated, ruling.decider
    fate = ruling.fate(stated) if valve.fate is Fate.SHADOWED else valve.fate
    overruled = fate is Fate.SHADOWED and ruling.chosen.verb is Verb.LOCK and stated.value != ruling.value
    if fate in (Fate.WON, Fate.SHADOWED) and not overruled:
        return ""
    limit = stated.limit
    name, now = f"{stated.origin.layer.value} {limit.valve}", limit.words(ruling.value)
    if fate is Fate.INVALID and valve.counts:
        return f"The {name} cannot be read ({valve.note}); its strict end counts, and {now} holds."
    if fate in (Fate.INVALID, Fate.IGNORED):
        return f"The {name} is ignored ({valve.note}); {now} holds."
    why = f" ({decider.origin.reason})" if decider.origin.reason else ""
    says = "locks" if decider.verb is Verb.LOCK else "permits"
    return f"The {name} asks for {limit.words(stated.value)}; {decider.origin} {says} {now}{why}."


# ======== policy/signature_block.py ===================================================================================
# A policy file's signatures as text: the block of comment lines at its end, written and split off.
#
# Pure functions on bytes, lines split at LF alone. Every block has one spelling. Nothing is verified here, and no key is
# needed: that is left to `signatures`.


MAX_SIGNATURES = 16
"""Signature lines of one file."""

BEGIN_MARKER = b"-----BEGIN POLICY SIGNATURES-----"
"""Stands once in a signed file, in a comment line of its own after the text."""

END_MARKER = b"-----END POLICY SIGNATURES-----"
"""Stands once in a signed file, in its last line."""

BEGIN_LINE = b"# " + BEGIN_MARKER + b"\n"

END_LINE = b"# " + END_MARKER + b"\n"

SIGNATURE_LINE = re.compile(rb"# ed25519 (sha256:[0-9a-f]{64}) ([A-Za-z0-9+/]{86}==)")
"""One signature line; that its spare base64 bits are zero shows when the block is written again."""

FORBIDDEN_BYTES = ((b"\r", "a carriage return"), (b"\0", "a NUL byte"), (b"\xef\xbb\xbf", "a byte order mark"))
"""Bytes that editors and parsers read differently, each with its name."""

REPAIR_BLOCK = (
    "Restore the file from its source, or remove everything from the BEGIN line on and sign again: "
    "policy sign --key NAME.key FILE"
)
"""Remedy for a block that is not one we would write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySignature:
    """One signature line."""

    key_id: str
    """Id of the key said to have made it: a hint until verified."""
    value: bytes
    """The signature, 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDocument:
    """A policy file taken apart; nothing in it is verified."""

    text: bytes
    """The TOML text: all bytes before the block."""
    signatures: tuple[PolicySignature, ...]
    """Sorted by key id; empty if the file is unsigned."""


def split_signatures(document: bytes, *, origin: str) -> SplitDocument:
    """Take a policy file apart into its text and its signatures.

    Raises:
        DocumentError: if it is too large, or holds a carriage return, NUL byte or byte order mark.
        SignatureError: if it holds a marker, but not one whole block exactly as we would write it.
    """
    check_document_bytes(document, origin)
    if BEGIN_MARKER not in document and END_MARKER not in document:
        return SplitDocument(text=document, signatures=())
    _check_markers(document, origin)
    text_bytes = document.index(BEGIN_LINE)
    lines = document[text_bytes + len(BEGIN_LINE) : -len(END_LINE)].splitlines()
    signatures = _block_signatures(lines, first_signature_line(document[:text_bytes]), origin)
    if format_signature_block(signatures) != document[text_bytes:]:
        where = Position(line=first_signature_line(document[:text_bytes]), column=1)
        raise SignatureError((signature_block_problem(origin, "it is not spelled as we would write it", where=where),))
    return SplitDocument(text=document[:text_bytes], signatures=signatures)


def text_digest(text: bytes) -> str:
    """SHA-256 of a policy's text in lower-case hex, by which two payloads are told to be the same."""
    return hashlib.sha256(text).hexdigest()


def format_signature_block(signatures: Iterable[PolicySignature]) -> bytes:
    """Write signatures as the block that ends a signed file."""
    lines = (
        b"# ed25519 %b %b\n" % (signature.key_id.encode(), base64.b64encode(signature.value))
        for signature in sorted(signatures, key=lambda signature: signature.key_id)
    )
    return BEGIN_LINE + b"".join(lines) + END_LINE


def unsigned_source(name: str, data: bytes) -> DocumentSource:
    """A policy file's text whose signatures, if it has any, are left unread and count for nothing.

    Raises:
        DocumentError: it holds bytes that no policy file may hold.
        SignatureError: it holds half a signature block.
    """
    return text_source(name, split_signatures(data, origin=name))


def text_source(name: str, split: SplitDocument) -> DocumentSource:
    """The text of a policy file that was taken apart; its signatures count for nothing."""
    return DocumentSource(origin=name, text=split.text, payload_sha256=text_digest(split.text), key_ids=())


def check_document_bytes(document: bytes, origin: str) -> None:
    """Refuse what no policy file may hold.

    Raises:
        DocumentError: it is too large, or holds a carriage return, NUL byte or byte order mark.
    """
    problems = [
        signed_file_problem(
            f"{origin}:{_position_of_byte(document, document.index(forbidden)).line}",
            f"it holds {name}",
            "Save it as UTF-8 without byte order mark, with lines that end in LF alone",
            Flaw.ENCODING,
            _position_of_byte(document, document.index(forbidden)),
        )
        for forbidden, name in FORBIDDEN_BYTES
        if forbidden in document
    ]
    if len(document) > MAX_DOCUMENT_BYTES:
        reason = f"it has {len(document)} bytes, more than {MAX_DOCUMENT_BYTES}"
        problems.append(signed_file_problem(origin, reason, "Split it into several policy files", Flaw.TOO_LARGE))
    if problems:
        raise DocumentError(tuple(problems))


def _check_markers(document: bytes, origin: str) -> None:
    """Require one whole block after the text: BEGIN and END once each, each alone in its line, END the last."""
    reasons = [
        f"the marker {marker.decode()} stands {document.count(marker)} times, not once"
        for marker in (BEGIN_MARKER, END_MARKER)
        if document.count(marker) != 1
    ]
    if not reasons and b"\n" + BEGIN_LINE not in document:
        reasons.append("BEGIN does not stand alone in a line after the text")
    if not reasons and not document.endswith(b"\n" + END_LINE):
        reasons.append("the file does not end with END and its line feed")
    if reasons:
        where = _position_of_byte(document, max(document.rfind(BEGIN_MARKER), document.rfind(END_MARKER)))
        raise SignatureError(tuple(signature_block_problem(origin, reason, where=where) for reason in reasons))


def _block_signatures(lines: list[bytes], first_line: int, origin: str) -> tuple[PolicySignature, ...]:
    """Read a block's lines, reporting all that are wrong."""
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        reason = f"it has {len(lines)} signature lines, not 1 to {MAX_SIGNATURES}"
        raise SignatureError((_line_problem(origin, first_line, reason),))
    matches = [SIGNATURE_LINE.fullmatch(line) for line in lines]
    problems = [
        _line_problem(origin, number, "the line is not: # ed25519 sha256:HEX BASE64")
        for number, match in enumerate(matches, start=first_line)
        if not match
    ]
    signatures = tuple(
        PolicySignature(key_id=match[1].decode(), value=base64.b64decode(match[2])) for match in matches if match
    )
    if not problems:
        problems.extend(_order_problems(signatures, first_line, origin))
    if problems:
        raise SignatureError(tuple(problems))
    return signatures


def _order_problems(signatures: tuple[PolicySignature, ...], first_line: int, origin: str) -> Iterable[Problem]:
    """Find lines that stand out of order, or a second time."""
    for number, (before, after) in enumerate(itertools.pairwise(signatures), start=first_line + 1):
        if before.key_id == after.key_id:
            yield _line_problem(origin, number, f"{after.key_id} signed twice")
        elif before.key_id > after.key_id:
            yield _line_problem(origin, number, "the lines are not sorted by key id")


def first_signature_line(text: bytes) -> int:
    """Number the line after BEGIN, counting from 1."""
    return text.count(b"\n") + 2


def _position_of_byte(document: bytes, offset: int) -> Position:
    line_start = document.rfind(b"\n", 0, offset) + 1
    before = document[line_start:offset].decode("utf-8", errors="replace")
    return Position(line=document.count(b"\n", 0, offset) + 1, column=len(before) + 1)


def _line_problem(origin: str, line: int, reason: str) -> Problem:
    return signature_block_problem(f"{origin}:{line}", reason, where=Position(line=line, column=1))


def signature_block_problem(
    origin: str, reason: str, remedy: str = REPAIR_BLOCK, where: Position | None = None
) -> Problem:
    """A problem of the block, or of the lack of one."""
    return Problem(
        key="signatures", origin=origin, reason=reason, remedy=remedy, flaw=Flaw.BROKEN_SIGNATURES, position=where
    )


def signed_file_problem(
    origin: str, reason: str, remedy: str, flaw: Flaw | None = None, position: Position | None = None
) -> Problem:
    """A problem of the file as a whole."""
    return Problem(key="policy file", origin=origin, reason=reason, remedy=remedy, flaw=flaw, position=position)


# ======== policy/signatures.py ========================================================================================
# Signs policy files and verifies their signatures.
#
# Pure functions on bytes, lines split at LF alone. Signed is DSSE's pre-authentication encoding of the exact bytes
# before the block; nothing is re-serialised, and whoever verified must parse the `text` returned here, not the file
# again. Every block has one spelling, so no byte of the text, nor of a trusted key's line, can change unseen; lines of
# unknown keys prove nothing and can be added or removed. Counted are keys, never people.
# Source: DSSE protocol v1 (secure-systems-lab/dsse, protocol.md).


PAYLOAD_TYPE = "application/vnd.sandbox-policy.v1+toml"
"""What is signed: purpose, version and encoding, so that no signature serves for anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDocument:
    """A policy file that enough trusted keys signed."""

    text: bytes
    """The signed bytes: parse these, and do not read the file again."""
    trusted: tuple[str, ...]
    """Ids of the trusted keys that signed."""
    unknown: tuple[str, ...]
    """Ids named in lines of keys that are not trusted here: not checked and not counted."""
    payload_sha256: str
    """SHA-256 of the text in lower-case hex: equal text is the same policy, whoever signed it."""


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Encode what is signed: type and payload, each with its length in bytes.

    Source: DSSE protocol v1, PAE.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def verify_signatures(document: bytes, keys: Sequence[PublicKey], *, threshold: int, origin: str) -> VerifiedDocument:
    """Verify that enough trusted keys signed a policy file, and give the bytes that they signed.

    Args:
        document: the whole file.
        keys: the trusted keys; one given twice counts once.
        threshold: how many of them must have signed, 1 … the number of distinct keys.
        origin: the file's name, for messages.

    Raises:
        DocumentError: if the file holds bytes that no policy file may hold.
        SignatureError: if there is no trusted key or no such threshold, if the block is broken, if the line of a
            trusted key does not verify, or if too few trusted keys signed.
    """
    trusted = {key.key_id: key for key in keys}
    _check_threshold(threshold, len(trusted), origin)
    split = split_signatures(document, origin=origin)
    _check_trusted_lines(split, trusted, origin)
    named = tuple(signature.key_id for signature in split.signatures)
    signed = {trusted[key_id].raw: key_id for key_id in named if key_id in trusted}
    unknown = tuple(key_id for key_id in named if key_id not in trusted)
    if len(signed) < threshold:
        raise SignatureError((_too_few_signed(len(signed), threshold, unknown, origin),))
    return VerifiedDocument(
        text=split.text,
        trusted=tuple(signed.values()),
        unknown=unknown,
        payload_sha256=text_digest(split.text),
    )


def policy_source(name: str, data: bytes, keys: Sequence[PublicKey], threshold: int) -> DocumentSource:
    """A policy file's text, signed by enough of the keys; where there are no keys, the text as it is.

    Raises:
        DocumentError: it holds bytes that no policy file may hold.
        SignatureError: its signatures are broken, or too few.
    """
    if keys:
        verified = verify_signatures(data, keys, threshold=threshold, origin=name)
        return DocumentSource(
            origin=name,
            text=verified.text,
            payload_sha256=verified.payload_sha256,
            key_ids=verified.trusted,
            unknown_key_ids=verified.unknown,
        )
    return unsigned_source(name, data)


def _check_threshold(threshold: int, distinct_keys: int, origin: str) -> None:
    if not distinct_keys:
        reason, remedy = "there is no trusted key to verify with", "Name at least one public key"
    elif not 1 <= threshold <= distinct_keys:
        reason = f"{threshold} signatures are required; distinct trusted keys: {distinct_keys}"
        remedy = f"Require 1 to {distinct_keys}, or name more keys"
    else:
        return
    raise SignatureError((Problem(key="threshold", origin=origin, reason=reason, remedy=remedy),))


def _check_trusted_lines(split: SplitDocument, trusted: dict[str, PublicKey], origin: str) -> None:
    """Refuse the file for any line of a trusted key that does not verify, however many others do."""
    message = pre_authentication_encoding(PAYLOAD_TYPE, split.text)
    problems = tuple(
        Problem(
            key=signature.key_id,
            origin=f"{origin}:{number}",
            reason="the signature does not verify: text or line were changed after signing",
            remedy="Restore the file from its source, or review the text and have this key sign it again",
        )
        for number, signature in enumerate(split.signatures, start=first_signature_line(split.text))
        if signature.key_id in trusted and not trusted[signature.key_id].verifies(signature.value, message)
    )
    if problems:
        raise SignatureError(problems)


def _too_few_signed(signed: int, threshold: int, unknown: tuple[str, ...], origin: str) -> Problem:
    reason = f"{signed} of the trusted keys signed it, and {threshold} must"
    if unknown:
        reason += f"; signatures of keys not trusted here: {', '.join(unknown)}"
    elif not signed:
        reason += "; it has no signature"
    remedy = "Have it signed with a trusted key: policy sign --key NAME.key FILE"
    return Problem(key="signatures", origin=origin, reason=reason, remedy=remedy)


# ======== policy/situation.py =========================================================================================
# All that holds on an instance before anybody's valves, and the limits that come out of it for each request.
#
# A situation never changes; a new policy set is a new situation. Limits once resolved are kept with it, so that a
# request seen before costs no second resolving, and nothing kept outlives the policy it came from.


MOST_KEPT_REQUESTS = 512
"""Requests whose limits are kept; past that, all are resolved anew."""
LONGEST_KEPT_VALVE = 1_024
"""Characters, items or bits of a valve's value; a request with a longer one is resolved each time."""

_ValvesKey = tuple[tuple[str, str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The last good policy set, holding in place of one that is refused."""

    refusal: SetRefusedError
    """Why the current set is refused."""
    until: datetime
    """When the lockdown values bound it."""
    locked_down: bool
    """Whether that is so already."""

    @property
    def sentence(self) -> str:
        """What administrators should know."""
        why = f"The policy set is refused [{self.refusal.code}]: {self.refusal.problems[0]}"
        if self.locked_down:
            return f"{why} The last good set holds, bounded by the lockdown values."
        return f"{why} The last good set holds until {self.until.isoformat(timespec='seconds')}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that holds on this instance, before anybody's valves."""

    environment: EnvironmentLayer
    """What the environment says."""
    documents: tuple[PolicyDocument, ...]
    """The policy files, accepted as one set."""
    stand_in: StandIn | None = None
    """Why these are not the files that lie there now; `None` where they are."""
    _resolved: dict[tuple[Requester, _ValvesKey, _ValvesKey], EffectiveLimits] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def limits(
        self,
        *,
        requester: Requester = UNDETERMINED,
        untrusted_person_valves: Mapping[str, object] | None = None,
        untrusted_admin_valves: Mapping[str, object] | None = None,
    ) -> EffectiveLimits:
        """The effective limits for this requester, beside these valves."""
        layers = Layers(
            environment=self.environment.statements,
            documents=self.documents,
            requester=requester,
            untrusted_person_valves=untrusted_person_valves,
            untrusted_admin_valves=untrusted_admin_valves,
            lockdown=self._lockdown(),
        )
        try:
            key = (requester, _valves_key(untrusted_person_valves), _valves_key(untrusted_admin_valves))
        except ValueError:
            return resolve(layers)
        kept = self._resolved.get(key)
        if kept is None:
            if len(self._resolved) >= MOST_KEPT_REQUESTS:
                self._resolved.clear()
            kept = self._resolved[key] = resolve(layers)
        return kept

    def _lockdown(self) -> str | None:
        if self.stand_in is None or not self.stand_in.locked_down:
            return None
        return f"the policy set is refused: {self.stand_in.refusal.code}"


def _valves_key(untrusted_valves: Mapping[str, object] | None) -> _ValvesKey:
    """Valves as a key in which equal values of different types stay different, as `1` and `true`.

    Raises:
        ValueError: a value is too long, or of a kind that makes no key.
    """
    if not untrusted_valves:
        return ()
    of_ours = ((limit.valve, untrusted_valves.get(limit.valve)) for limit in LIMITS)
    return tuple((name, type(value).__name__, _value_key(value)) for name, value in of_ours if value is not None)


def _value_key(untrusted: object) -> object:
    match untrusted:
        case str() | list() if valve_characters(untrusted) > LONGEST_KEPT_VALVE:
            raise ValueError("no key")
        case str():
            return untrusted
        case bool() | float():
            return untrusted
        case int() if untrusted.bit_length() <= LONGEST_KEPT_VALVE:
            return untrusted
        case list() if all(isinstance(item, str) for item in untrusted):
            return tuple(untrusted)
        case _:
            raise ValueError("no key")


# ======== plugins/valves.py ===========================================================================================
# The valves of both plugins, derived from the table of limits.
#
# Open WebUI reads a valve model's JSON Schema for its form, and rebuilds the model out of stored values at each call.
# So the schema advertises plain types, and the model accepts whatever is stored: a value that is no good is dealt with
# when limits are resolved, with a notice, and never breaks a chat. Each description says what is locked, by whom and
# why.


def valves_models(situation: Situation | PolicyError) -> tuple[type[BaseModel], type[BaseModel]]:
    """The plugin's valves and a person's own, as Open WebUI wants them on a plugin."""
    return admin_valves_model(situation), person_valves_model(situation)


def admin_valves_model(situation: Situation | PolicyError) -> type[BaseModel]:
    """The plugin's valves, which administrators set: every limit."""
    return _valves_model("Valves", LIMITS, situation, for_person=False)


def person_valves_model(situation: Situation | PolicyError) -> type[BaseModel]:
    """A person's own valves: the limits that the table leaves to people."""
    own = tuple(limit for limit in LIMITS if limit.chosen_by is Chooser.PERSON)
    return _valves_model("UserValves", own, situation, for_person=True)


def untrusted_values(valves: object) -> Mapping[str, object]:
    """What a set of valves holds, in whatever form Open WebUI hands it over."""
    if isinstance(valves, BaseModel):
        return dict(valves)
    return dict(valves) if isinstance(valves, Mapping) else {}


def _valves_model(
    name: str, limits: tuple[Limit[Any], ...], situation: Situation | PolicyError, *, for_person: bool
) -> type[BaseModel]:
    fields: dict[str, Any] = {
        limit.valve: (
            Annotated[Any, WithJsonSchema({"type": _plain_type(limit)})],
            Field(default=None, description=_description(limit, situation, for_person=for_person)),
        )
        for limit in limits
    }
    return create_model(name, **fields)


def _plain_type(limit: Limit[Any]) -> str:
    match limit.kind:
        case Switch():
            return "boolean"
        case Whole():
            return "integer"
        case Thousandths():
            return "number"
        case _:
            return "string"


def _description(limit: Limit[Any], situation: Situation | PolicyError, *, for_person: bool) -> str:
    """What the valve is, what it may be set to, and who said so."""
    what = f"{limit.description}. Expected: {limit.kind.grammar}. Unset: {limit.words(limit.built_in)}."
    warning = " **Warning: this opens your LAN and metadata services to code.**" if _opens_lan(limit) else ""
    if isinstance(situation, PolicyError):
        return f"{what}{warning} **No code runs at present: {situation.problems[0]}**"
    some = _less_for_some(limit, situation)
    aside = f" **{situation.stand_in.sentence}**" if situation.stand_in is not None else ""
    return f"{what}{warning} {_standing(limit, situation, for_person=for_person)}{some}{aside}"


def _opens_lan(limit: Limit[Any]) -> bool:
    return limit.name == "network_private_allowed"


def _standing(limit: Limit[Any], situation: Situation, *, for_person: bool) -> str:
    """How far this valve reaches here for those of whom no scope speaks."""
    documents = (stated for document in situation.documents for stated in document.statements)
    said = [stated for stated in (*situation.environment.statements, *documents) if stated.limit is limit]
    if any(stated.verb is Verb.LOCK for stated in said):
        # By a ceiling, where one is stricter than the lock.
        decision = _without_scopes(situation).limits().decisions[limit.name]
        origin = decision.decided_by
        why = f" ({origin.reason})" if origin.reason else ""
        return f"**Locked to {limit.words(decision.value)} by {origin}{why}: this valve changes nothing.**"
    ceilings = [stated for stated in said if stated.verb is Verb.CEILING]
    if ceilings:
        bound = reduce(limit.kind.meet, (stated.value for stated in ceilings))
        decider = next((stated for stated in ceilings if stated.value == bound), ceilings[0])
        why = f" ({decider.origin.reason})" if decider.origin.reason else ""
        return f"No looser than {limit.words(bound)}, by {decider.origin}{why}."
    if for_person:
        return f"No looser than what the administrator's valve says, or else {limit.words(limit.built_in)}."
    return "Nothing constrains this valve here."


def _without_scopes(situation: Situation) -> Situation:
    """What holds for everybody: a form is read by people of whom some scope speaks, and by others."""
    return replace(situation, documents=tuple(replace(document, scopes=()) for document in situation.documents))


def _less_for_some(limit: Limit[Any], situation: Situation) -> str:
    """A sentence that names the policies whose scopes are stricter about this limit, where there are any."""
    said_here = situation.environment.statements
    by_environment = any(stated.limit is limit and stated.verb is Verb.LOCK for stated in said_here)
    scoped = (
        (document.policy_id, stated)
        for document in situation.documents
        for scope in document.scopes
        for stated in scope.statements
    )
    policies = sorted(
        {
            policy_id
            for policy_id, stated in scoped
            # A default makes nothing stricter, and of an environment's lock only a firm policy takes anything away.
            if stated.limit is limit
            and stated.verb is not Verb.DEFAULT
            and not (by_environment and stated.environment_may_loosen)
        }
    )
    return f" A policy may hold some people to less ({', '.join(policies)})." if policies else ""


# ======== policy/trusted_files.py =====================================================================================
# Reading files whose content is believed, and writing files that others will believe.
#
# A path is walked once, folder by folder and link by link, each opened without following; what was opened is checked,
# never a name. Keys and unsigned policies must belong to root or the running user, and nobody else may write them,
# their folders, or a folder that holds a link on the way; a read-only mount will do instead. What is written here is
# whole or absent.
# Source: the rules are those of OpenSSH (`safe_path`) and sudo (`visudo -P`), kept by descriptor as `openat(2)` advises.


KEY_FILE_MAX_BYTES = 64 * 1024
"""Size of one key file: far more than any number of keys that makes sense."""

FOLDER_MAX_FILES = 256
"""Files read from one folder."""

LONGEST_SHOWN_PATH = 600
"""Characters of a path that a message shows."""

MAX_LINKS = 40
"""Symbolic links followed on one path. Source: path_resolution(7)."""

POLICY_SUFFIXES = (".toml",)
"""What policy files are called in a folder of them."""

PUBLIC_KEY_SUFFIXES = (".pub", ".pem")
"""What public keys are called in a folder of them."""

CONFIGMAP_DATA = "..data"
"""The link by which Kubernetes swaps all files of a mounted ConfigMap at once."""

WALK_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How folders are passed: without permission to list them, where the system has `O_PATH`."""

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How files are opened: a pipe without a writer or a terminal must not hold us up."""

LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened to be listed."""

APPEND_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How a file that grows is opened: read to find its end, and made where there is none."""

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files are made: never over another, never through a link."""

ERROR_WORDS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOENT: ("it does not exist", "Check the path"),
        errno.EACCES: ("the running user may not open it", "Permit the running user to open it and its folders"),
        errno.EPERM: ("the running user may not do this", "Do it as the file's owner"),
        errno.ENOTDIR: ("a part of its path is not a folder", "Check the path"),
        errno.EISDIR: ("it is a folder", "Name a file"),
        errno.ELOOP: ("a symbolic link in its path changed, or too many follow each other", "Name the real path"),
        errno.ENXIO: ("it is a pipe, a socket or a device", "Name a regular file"),
        errno.ENAMETOOLONG: ("its path is longer than the system permits", "Shorten it"),
        errno.EEXIST: ("it exists already, and is not overwritten", "Choose another name, or move it away"),
        errno.ENOSPC: ("the disk is full; nothing was changed", "Free some space and do it again"),
        errno.EDQUOT: ("the disk quota is used up; nothing was changed", "Free some space and do it again"),
        errno.EFBIG: ("the system permits no file of that size; nothing was changed", "Raise the limit (ulimit -f)"),
        errno.EROFS: ("it lies on a read-only file system", "Write elsewhere, or mount it writable"),
    }
)
"""What the system's errors mean here: reason and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRule:
    """What a kind of file must be before its bytes are used."""

    kind: str
    """What messages call it."""
    max_bytes: int
    """The largest size that is read."""
    owner_checked: bool
    """Whether only root and the running user may have been able to write it."""
    secret: bool
    """Whether nobody but its owner may read it."""
    error: type[DocumentError] | type[KeyFileError] | type[AuditError] | type[StateError]
    """What is raised when it is refused."""


PUBLIC_KEY_FILE = FileRule(
    kind="public key file",
    max_bytes=KEY_FILE_MAX_BYTES,
    owner_checked=True,
    secret=False,
    error=KeyFileError,
)
"""A file of keys that are trusted because an administrator put them there."""


UNSIGNED_POLICY_FILE = FileRule(
    kind="unsigned policy file",
    max_bytes=MAX_DOCUMENT_BYTES,
    owner_checked=True,
    secret=False,
    error=DocumentError,
)
"""A policy that is believed because of where it lies."""

SIGNED_POLICY_FILE = FileRule(
    kind="policy file",
    max_bytes=MAX_DOCUMENT_BYTES,
    owner_checked=False,
    secret=False,
    error=DocumentError,
)
"""A policy whose proof is its signature, or one that somebody names only to look at it."""


def read_trusted(path: Path, rule: FileRule) -> bytes:
    """Read a regular file once, whole, after checking what was opened.

    Raises:
        DocumentError, KeyFileError: as the rule says, if it cannot be read, is too large, or others could write it.
    """
    try:
        descriptor, place = _open_walking(path, rule, READ_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_file(descriptor, place, rule)
            data = _read_at_most(descriptor, rule.max_bytes + 1)
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error
    return _no_larger(data, path, rule)


def _no_larger(data: bytes, path: Path, rule: FileRule) -> bytes:
    if len(data) > rule.max_bytes:
        reason = f"it is larger than {rule.max_bytes} bytes"
        raise _distrusted(rule, path, reason, "Split it into several files", Flaw.TOO_LARGE)
    return data


def list_folder(path: Path, suffixes: tuple[str, ...], rule: FileRule) -> tuple[Path, ...]:
    """List a folder's files of these suffixes, sorted, without those whose names begin with a dot.

    The files of a mounted Kubernetes ConfigMap are given by their real paths, so that all are of one generation.

    Raises:
        DocumentError, KeyFileError: as the rule says, if the folder cannot be listed, holds no such file or too
            many, or others could add to it.
    """
    try:
        generation = path / CONFIGMAP_DATA
        descriptor, place = _open_walking(generation if generation.is_symlink() else path, rule, LIST_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_writers(descriptor, place, rule, sticky_will_do=False)
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise rule.error((_system_problem(f"folder of {rule.kind}s", path, error),)) from error
    found = tuple(place / name for name in _names_to_read(names, suffixes, rule, path))
    if not 1 <= len(found) <= FOLDER_MAX_FILES:
        wanted = " or ".join(f"*{suffix}" for suffix in suffixes)
        reason = f"the folder holds {len(found)} files {wanted}, not 1 to {FOLDER_MAX_FILES}"
        raise _distrusted(rule, path, reason, "Put the files there, or name another folder")
    return found


def _names_to_read(names: Iterable[str], suffixes: tuple[str, ...], rule: FileRule, path: Path) -> Iterator[str]:
    """Names of these suffixes that are not hidden; none of them may be passed over, or write into a log."""
    for name in names:
        if name.startswith(".") or not name.lower().endswith(suffixes):
            continue
        reason = ""
        if not name.isprintable():
            # Names stand in messages, and whoever may write the folder need not be trusted with a terminal.
            reason = f"the name {name!a} holds characters that a terminal would obey"
        elif not name.endswith(suffixes):
            reason = f"{name} would be passed over, since its ending is not in lower case"
        if reason:
            raise _distrusted(rule, path, reason, "Rename it, or move it away")
        yield name


def read_files(path: Path, suffixes: tuple[str, ...], rule: FileRule) -> Mapping[str, bytes]:
    """Read a file, or all files of a folder, sorted: each one's path as a person knows it, with its bytes.

    Raises:
        DocumentError, KeyFileError: as the rule says, with a problem for each file that is refused.
    """
    # Unlike Path.is_dir, this says no where it may not look; reading then says why.
    paths = list_folder(path, suffixes, rule) if os.path.isdir(path) else (path,)  # noqa: PTH112
    contents: dict[str, bytes] = {}
    problems: list[Problem] = []
    for each in paths:
        try:
            contents[str(each if each == path else path / each.name)] = read_trusted(each, rule)
        except (DocumentError, KeyFileError) as error:
            problems.extend(error.problems)
    if problems:
        raise rule.error(tuple(problems))
    return MappingProxyType(contents)


def read_public_key_files(path: Path) -> Mapping[str, bytes]:
    """Read the public key file, or the folder of them, at this path.

    Raises:
        KeyFileError: if any cannot be read or trusted.
    """
    return read_files(path, PUBLIC_KEY_SUFFIXES, PUBLIC_KEY_FILE)


@contextmanager
def opened_to_append(path: Path, rule: FileRule) -> Iterator[tuple[int, Path]]:
    """Open a file that grows, after checking what was opened: its descriptor, and its real path.

    One that does not exist is made, for its owner alone. What the system refuses while it is open is the rule's error
    too.

    Raises:
        AuditError: as the rule says, if it cannot be opened, read or written, or others could write it.
    """
    try:
        descriptor, place = _open_walking(path, rule, APPEND_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_file(descriptor, place, rule)
            if not os.fstat(descriptor).st_size:
                with suppress(PermissionError):  # where the folder may not be read, others made the file
                    _sync_file_folder(place.parent)
            yield descriptor, place
    except FileNotFoundError as error:
        raise _distrusted(rule, path, "its folder does not exist", "Make the folder") from error
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error


def make_private_folder(path: Path, rule: FileRule) -> None:
    """Make a folder for its owner alone where there is none, and refuse one that is not.

    Raises:
        StateError: as the rule says, if it cannot be made, opened or written, or others could use it.
    """
    if private_folder_exists(path, rule):
        return
    try:
        with suppress(FileExistsError):  # another process made it meanwhile
            path.mkdir(0o700)
        with suppress(PermissionError):  # the folder around it may be one that we may not read
            _sync_file_folder(path.parent)
    except OSError as error:
        raise rule.error((_system_problem(_folder_kind(rule), path, error),)) from error
    private_folder_exists(path, rule)


def private_folder_exists(path: Path, rule: FileRule) -> bool:
    """Whether there is a folder that its owner alone can use; where there is none, one could be made.

    Raises:
        StateError: as the rule says, if it cannot be made, opened or written, or others could use it.
    """
    exists = os.path.lexists(path)
    try:
        descriptor, place = _open_walking(path if exists else path.parent, rule, WALK_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if exists:
                _check_private(status, place, rule)
            else:
                _check_writers(descriptor, place, rule, sticky_will_do=True)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
                reason = "the running user may not write it, or it is mounted read-only"
                raise _distrusted(rule, place, reason, "Permit that, or name another folder")
    except OSError as error:
        raise rule.error((_system_problem(_folder_kind(rule), path, error),)) from error
    return exists


def replace_private_file(path: Path, data: bytes, rule: FileRule) -> None:
    """Put bytes in a file's place, at once and for its owner alone; the caller holds the lock of its folder.

    Raises:
        StateError: as the rule says, if it cannot be written; then it is as it was.
    """
    if len(data) > rule.max_bytes:
        # It could be written, and never be read again.
        raise _distrusted(rule, path, f"it would be larger than {rule.max_bytes} bytes", "Use fewer or smaller files")
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was ended while it wrote
        with ExitStack() as undo:
            _write_synced(temporary, data, 0o600)
            undo.callback(temporary.unlink, missing_ok=True)
            temporary.replace(path)
        _sync_file_folder(path.parent)
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error


def _open_walking(path: Path, rule: FileRule, last_flags: int) -> tuple[int, Path]:
    """Open a path from the root downwards, link by link, checking each folder by what was opened.

    The flags are for what the path names; a file that they make is for its owner alone. Returns the descriptor, which
    the caller closes, and the real path.
    """
    absolute = path if path.is_absolute() else Path.cwd() / path  # the working folder may be gone
    names, place, links = deque(absolute.parts), Path("/"), 0
    here = os.open("/", WALK_FLAGS)
    with ExitStack() as undo:
        undo.callback(lambda: os.close(here))
        while names:
            name = names.popleft()
            target = _link_target(name, here, may_be_missing=not names and bool(last_flags & os.O_CREAT))
            # In a sticky folder such as /tmp others may plant files and links, but cannot swap a folder of ours.
            is_folder = target is None and bool(names or last_flags & os.O_DIRECTORY)
            _check_writers(here, place, rule, sticky_will_do=is_folder)
            if target is not None:
                links += 1
                names.extendleft(reversed(target.parts))
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                continue
            opened = os.open(name, WALK_FLAGS if names else last_flags, 0o600, dir_fd=here)
            os.close(here)
            here, place = opened, place.parent if name == ".." else place / name
        undo.pop_all()
    return here, place


def _link_target(name: str, folder: int, *, may_be_missing: bool) -> Path | None:
    """Read a symbolic link in an open folder; nothing if it is none."""
    try:
        return Path(os.readlink(name, dir_fd=folder))
    except OSError as error:
        if error.errno == errno.EINVAL or (error.errno == errno.ENOENT and may_be_missing):
            return None
        raise


def _read_at_most(descriptor: int, limit: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(limit)


def _check_file(descriptor: int, place: Path, rule: FileRule) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _distrusted(rule, place, _irregular_reason(status), "Name a regular file")
    _check_writers(descriptor, place, rule, sticky_will_do=False)
    if rule.secret and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reason = f"others than its owner may use it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Take that away: chmod 600 {place}")


def _check_private(status: os.stat_result, place: Path, rule: FileRule) -> None:
    """Refuse a folder that is not the running user's alone."""
    if status.st_uid != os.geteuid():
        reason = f"it belongs to uid {status.st_uid}, and the running user is {os.geteuid()}"
        raise _distrusted(rule, place, reason, f"Run this as uid {status.st_uid}, or chown {os.geteuid()} {place}")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reason = f"others than its owner may use it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Take that away: chmod 700 {place}")


def _check_writers(descriptor: int, place: Path, rule: FileRule, *, sticky_will_do: bool) -> None:
    """Refuse what others than root and the running user can change, unless it is mounted read-only."""
    if not rule.owner_checked or os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return
    status = os.fstat(descriptor)
    what = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
    if status.st_uid not in {0, os.geteuid()}:
        reason = f"{what} belongs to uid {status.st_uid}, which is neither root nor the running user"
        raise _distrusted(rule, place, reason, f"Run chown root {place}, or mount it read-only")
    if sticky_will_do and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"others than its owner may write {what} (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Run chmod go-w {place}, or mount it read-only")


def _irregular_reason(status: os.stat_result) -> str:
    return "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe, a socket or a device"


def _write_synced(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make a file that does not exist yet, down to the disk; when this fails, none is left."""
    with ExitStack() as undo:
        descriptor = os.open(path, CREATE_FLAGS, 0o600)
        undo.callback(path.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            status = os.fstat(descriptor)
            if owner and owner != (status.st_uid, status.st_gid):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        undo.pop_all()


def _sync_file_folder(path: Path) -> None:
    """Make the folder's own entries last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_kind(rule: FileRule) -> str:
    return f"folder of the {rule.kind}"


def _distrusted(rule: FileRule, place: Path, reason: str, remedy: str, flaw: Flaw | None = None) -> PolicyError:
    return rule.error((Problem(key=rule.kind, origin=str(place), reason=reason, remedy=remedy, flaw=flaw),))


def _system_problem(kind: str, path: Path, error: OSError) -> Problem:
    unknown = (f"the system says: {error.strerror}", "")
    reason, remedy = ERROR_WORDS.get(error.errno or 0, unknown)
    shown = str(path) if len(str(path)) <= LONGEST_SHOWN_PATH else f"{str(path)[:LONGEST_SHOWN_PATH]}…"
    return Problem(key=kind, origin=shown, reason=reason, remedy=remedy)


# ======== policy/load.py ==============================================================================================
# Reads the set of policy files that the environment names: all of it, verified, or nothing.
#
# What is read is handed on as bytes with the documents in them, so that a last good set can be kept and verified again.
# Whether the set holds here and now is decided elsewhere, from values.


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReader:
    """How files are read; the real one checks who could have written them."""

    policies: Callable[[Path, bool], Mapping[str, bytes]]
    """The files at a path, by name; the flag says whether they need no signature."""
    keys: Callable[[Path], Mapping[str, bytes]]
    """The PEM files at a path, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Policy files whose signatures and shape are good."""

    contents: Mapping[str, bytes]
    """Each file whole, by name."""
    documents: tuple[PolicyDocument, ...]
    """What stands in them, in the same order."""


def trusted_reader() -> PolicyReader:
    """Read from this host's file system."""
    return PolicyReader(policies=_read_policies, keys=read_public_key_files)


def refuse_contradictions(settings: SettingValues) -> None:
    """Refuse settings that exclude each other.

    Raises:
        ConfigurationError: two settings contradict each other.
    """
    problems = []
    if settings[POLICY_UNSIGNED_ALLOWED] and settings[POLICY_KEYS] is not None:
        reason = f"it is true, yet {POLICY_KEYS.variable} names keys"
        problems.append(setting_problem(POLICY_UNSIGNED_ALLOWED.variable, reason, "Unset one of the two"))
    if settings[AUDIT_REQUIRED] and settings[AUDIT_LOG] is None:
        reason = f"it is true, yet {AUDIT_LOG.variable} is not set"
        problems.append(setting_problem(AUDIT_REQUIRED.variable, reason, "Name the log, or unset it"))
    if problems:
        raise ConfigurationError(tuple(problems))


def refuse_missing_path(settings: SettingValues) -> None:
    """Refuse settings that want a policy where no path says from where: going on would be going on without it.

    Raises:
        SetRefusedError: some setting wants one.
    """
    reasons = [f"{POLICY_REQUIRED.variable} is true"] if settings[POLICY_REQUIRED] else []
    reasons += [f"{variable} names {policy_id}" for policy_id, variable in sorted(required_ids(settings).items())]
    refusals = [
        (RefusalCode.POLICY_MISSING, setting_problem(POLICY_PATH.variable, f"{reason}, and this is not set", "Set it"))
        for reason in reasons
    ]
    if refusals:
        raise refused(refusals)


def read_keys(settings: SettingValues, reader: PolicyReader) -> tuple[PublicKey, ...]:
    """The keys that the environment trusts, at least as many as must sign; none where it names none.

    Raises:
        SetRefusedError: any of them cannot be used, or they are fewer than the threshold.
    """
    setting, threshold = settings[POLICY_KEYS], settings[POLICY_THRESHOLD]
    if setting is None and threshold == POLICY_THRESHOLD.default:
        return ()
    try:
        keys = parse_keys(setting, POLICY_KEYS.variable, reader.keys) if setting is not None else ()
    except KeyFileError as error:
        raise refused([(RefusalCode.KEYS_INVALID, problem) for problem in error.problems]) from error
    if threshold > len(keys):
        reason = f"it asks for {threshold} keys, and {POLICY_KEYS.variable} holds {len(keys)} distinct ones"
        problem = setting_problem(POLICY_THRESHOLD.variable, reason, "Lower it, or add keys")
        raise refused([(RefusalCode.KEYS_INVALID, problem)])
    return keys


def read_set(path: Path, settings: SettingValues, reader: PolicyReader) -> PolicySet:
    """Every file at the path, verified with the keys that the environment trusts, and parsed.

    Raises:
        SetRefusedError: the keys cannot be used, or any file cannot; all that is wrong is listed.
    """
    keys = _signing_keys(settings, reader)
    try:
        contents = reader.policies(path, settings[POLICY_UNSIGNED_ALLOWED])
    except DocumentError as error:
        raise refused([(RefusalCode.UNREADABLE, problem) for problem in error.problems]) from error
    return _verified(contents, settings, keys)


def verified_again(contents: Mapping[str, bytes], settings: SettingValues, reader: PolicyReader) -> PolicySet:
    """Files that were accepted once, verified with the keys that the environment trusts today.

    Raises:
        SetRefusedError: the keys cannot be used, or any file cannot; all that is wrong is listed.
    """
    return _verified(contents, settings, _signing_keys(settings, reader))


def _signing_keys(settings: SettingValues, reader: PolicyReader) -> tuple[PublicKey, ...]:
    """The keys that must have signed: none only where policies need no signature."""
    keys = read_keys(settings, reader)
    if not keys and not settings[POLICY_UNSIGNED_ALLOWED]:
        reason = f"{POLICY_PATH.variable} is set, and no key is, so no signature can count"
        problem = setting_problem(POLICY_KEYS.variable, reason, "Name the public keys that sign your policies")
        raise refused([(RefusalCode.KEYS_INVALID, problem)])
    return keys


def _verified(contents: Mapping[str, bytes], settings: SettingValues, keys: tuple[PublicKey, ...]) -> PolicySet:
    documents: list[PolicyDocument] = []
    refusals: list[Refusal] = []
    for name, data in contents.items():
        try:
            documents.append(parse_document(policy_source(name, data, keys, settings[POLICY_THRESHOLD])))
        except SignatureError as error:
            refusals.extend((RefusalCode.SIGNATURE_INVALID, problem) for problem in error.problems)
        except DocumentError as error:
            refusals.extend((RefusalCode.DOCUMENT_INVALID, problem) for problem in error.problems)
    if refusals:
        refusals.extend(refusal for each in documents for refusal in audience_refusal(each, settings[INSTANCE]))
        raise refused(refusals)
    return PolicySet(contents=contents, documents=tuple(documents))


def _read_policies(path: Path, unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's own shape
    return read_files(path, POLICY_SUFFIXES, UNSIGNED_POLICY_FILE if unsigned else SIGNED_POLICY_FILE)


# ======== policy/locks.py =============================================================================================
# Locks on files, across processes: taken within a time, so that a neighbour who holds one can hang nobody.


POLL_SECONDS = 0.005
"""How often a lock that somebody holds is tried again."""


@contextmanager
def locked_file(path: Path, rule: FileRule, seconds: float) -> Iterator[int]:
    """A file's descriptor, with its lock held; the file that others will lock too: none that was moved away meanwhile.

    One that does not exist is made, for its owner alone.

    Raises:
        AuditError, StateError: as the rule says, if it cannot be opened, others could write it, or another process has
            held its lock for that time.
    """
    deadline, held = time.monotonic() + seconds, False
    while not held:
        with opened_to_append(path, rule) as (descriptor, place):
            if not locked_within(descriptor, fcntl.LOCK_EX, deadline - time.monotonic()):
                reason = f"another process has held its lock for {seconds:g} seconds"
                remedy = "Find that process, for instance with fuser, and end it"
                raise rule.error((Problem(key=rule.kind, origin=str(place), reason=reason, remedy=remedy),))
            held = _is_still_at(place, descriptor)
            if held:
                try:
                    yield descriptor
                finally:
                    # Closing would do, but for a child that was forked meanwhile and has the descriptor too.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)


def locked_within(descriptor: int, operation: int, seconds: float) -> bool:
    """Take a file's lock, `fcntl.LOCK_EX` or `LOCK_SH`, and say whether that was possible in that time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def _is_still_at(place: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(place.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


# ======== policy/audit.py =============================================================================================
# The audit log: one line for each run, chained by hash, so that a line edited, removed or moved is noticed.
#
# A line is canonical JSON: keys sorted, no spaces, UTF-8. `hash` is the SHA-256 of the record without it, `previous` the
# `hash` of the line before, `sequence` counts from 1, `time` is UTC. The code that ran never stands in it. Appending
# takes the lock, a file beside the log that its readers cannot open, checks the last line, and leaves a whole line on
# the disk, or the log as it was. A line that a crash cut short stays; the next tells its size and SHA-256 under
# `after_torn`. Whoever may write the log can compute a chain anew: only a head kept elsewhere shows that.


AUDIT_LINE_MAX_BYTES = 16 * 1024
"""The longest line, its line feed included; a longer record is shortened."""

AUDIT_TAIL_BYTES = 4 * AUDIT_LINE_MAX_BYTES
"""How much of the log's end is read before a line is added: a whole line, and what crashes may have left behind it."""

AUDIT_LOCK_SECONDS = 5.0
"""How long a run waits for the log's lock: a line takes milliseconds, so a neighbour who holds it longer is stuck."""

GENESIS_HASH = "0" * 64
"""What the first line of a chain names as the one before it."""

ADDED_FIELDS = frozenset({"time", "sequence", "previous", "hash", "after_torn", "shortened"})
"""What the log says itself; a record may not."""

SHORTENING_STEPS = ((1024, 64), (256, 16), (128, 4))
"""Characters of a text and items of a list that a record too long keeps, tried in turn; a SHA-256 always fits."""

AUDIT_LOG_FILE = FileRule(
    kind=AUDIT_LOG.variable,
    max_bytes=AUDIT_TAIL_BYTES,
    owner_checked=True,
    secret=False,
    error=AuditError,
)
"""A file that only root and the running user can have written; it may be read by others, such as a log shipper."""

AUDIT_LOCK_FILE = FileRule(
    kind=f"lock of {AUDIT_LOG.variable}",
    max_bytes=0,
    owner_checked=True,
    secret=True,
    error=AuditError,
)
"""The empty file that is locked in the log's stead: whoever may open a file, if only to read it, can lock it for ever.

Source: flock(2), which asks for no permission to write."""

_AUDIT_HASH = re.compile(r"[0-9a-f]{64}")
_AUDIT_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MOVE_AWAY = "Look at it with `policy audit verify`, then move it away; the next run begins a new log"


class LineFault(Enum):
    """Why a line is no record of a run at all."""

    UNREADABLE = "it is no JSON: cut short or overwritten"
    """A crash may leave that."""
    FOREIGN = "it lacks what every line of a log has: sequence, previous, hash and time"
    """It is JSON that no log wrote."""
    TOO_LONG = f"it is longer than {AUDIT_LINE_MAX_BYTES} bytes"
    """No line of a log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TornBytes:
    """What crashes left of lines before a line, as that line tells it."""

    size: int
    """Bytes from the end of the last whole line to the beginning of this one, line feeds included."""
    sha256: str
    """Their SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What one line says of its place in the chain."""

    sequence: int
    """Which run of the chain it is, from 1."""
    previous: str
    """The hash of the line before."""
    digest: str
    """Its own hash."""
    time: str
    """When it was written."""
    after_torn: TornBytes | None
    """What crashes left before it."""
    edit: str
    """What shows that it is not as it was written, in words; empty where nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTail:
    """Where the next line goes."""

    size: int
    """The file's size in bytes."""
    sequence: int
    """Of the last whole line; 0 where there is none."""
    head: str
    """The hash of the last whole line."""
    torn: bytes
    """What crashes left behind that line, with the line feed that will end it."""
    line_feed: bytes
    """What ends the line that the file ends in: nothing, where it is ended."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Adds lines to one log; blocks while it writes, so an event loop calls it in a thread."""

    path: Path
    """Where it is; the file is made where it is missing, its folder is not."""
    clock: Callable[[], datetime]
    """What time it is, with an offset."""
    lock_seconds: float = AUDIT_LOCK_SECONDS
    """How long to wait for other processes."""

    def check(self) -> None:
        """Find out before a run, without a line, whether its line could be written after it.

        Raises:
            AuditError: the log cannot be opened, locked, trusted or continued, or its disk is full.
        """
        with self._locked() as descriptor:
            _audit_tail(descriptor, self.path)
            _refuse_full_disk(descriptor)

    def append(self, record: Mapping[str, Any]) -> str:
        """Write one run's line down to the disk, and return its hash: the new head of the chain.

        A record too long for a line is shortened: long texts and lists keep their beginning, and `shortened` tells
        the length of each.

        Args:
            record: what is to be said of the run, in JSON's own types; none of the log's own fields.

        Raises:
            AuditError: it was not written; the log is as it was, or ends in a line cut short that the next tells of.
            ValueError: the record is none.
        """
        if not ADDED_FIELDS.isdisjoint(record):
            raise ValueError(f"a record may not have the log's own fields {sorted(ADDED_FIELDS)}")
        with self._locked() as descriptor:
            tail = _audit_tail(descriptor, self.path)
            line, head = _chained_line(record, tail, self.clock(), self.path)
            _append_whole(descriptor, tail.line_feed + line, tail.size)
        return head

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The log's descriptor, while no other process adds a line."""
        while True:
            with opened_to_append(self.path, AUDIT_LOG_FILE) as (_, place):
                pass  # only its real path is wanted: those who name it through a link must take the same lock
            with (
                locked_file(audit_lock_path(place), AUDIT_LOCK_FILE, self.lock_seconds),
                opened_to_append(self.path, AUDIT_LOG_FILE) as (descriptor, place_now),
            ):
                if place_now == place:  # else a link was turned to another log, which has another lock
                    yield descriptor
                    return


def audit_lock_path(place: Path) -> Path:
    """Where the lock of a log is, given the log's real path."""
    return place.with_name(f"{place.name}.lock")


def read_audit_line(text: bytes) -> AuditEntry | LineFault:
    """Read one line, without its line feed, and check it by itself."""
    if len(text) >= AUDIT_LINE_MAX_BYTES:
        return LineFault.TOO_LONG
    try:
        record = json.loads(text.decode())
    except ValueError:
        return LineFault.UNREADABLE
    except RecursionError:
        return LineFault.FOREIGN
    match record:
        case {"sequence": int(sequence), "previous": str(previous), "hash": str(digest), "time": str(moment)}:
            torn = _torn_bytes(record.get("after_torn"))
            shapes = (_AUDIT_HASH.fullmatch(previous), _AUDIT_HASH.fullmatch(digest), _AUDIT_TIME.fullmatch(moment))
            if not all(shapes) or not _is_count(sequence) or ("after_torn" in record and torn is None):
                return LineFault.FOREIGN
            edit = _edit_in(text, record)
            return AuditEntry(
                sequence=sequence, previous=previous, digest=digest, time=moment, after_torn=torn, edit=edit
            )
        case _:
            return LineFault.FOREIGN


def _edit_in(text: bytes, record: Mapping[str, Any]) -> str:
    """What shows that a line was edited, in words; empty where nothing does."""
    try:
        written = _canonical_bytes(record)
        hashed = _canonical_bytes({key: value for key, value in record.items() if key != "hash"})
    except (ValueError, RecursionError):
        return "it holds what no line of a log holds"
    if hashlib.sha256(hashed).hexdigest() != record["hash"]:
        return "its hash is not that of what it says"
    return "" if written == text else "it is not written as a log writes it"


def _canonical_bytes(record: Mapping[str, Any]) -> bytes:
    """The record as lines hold it; half a surrogate pair, which UTF-8 does not know, becomes a question mark."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")


def _is_count(value: int) -> bool:
    return value >= 1 and value is not True


def _torn_bytes(value: object) -> TornBytes | None:
    match value:
        case {"bytes": int(size), "sha256": str(sha256)} if _is_count(size) and _AUDIT_HASH.fullmatch(sha256):
            return TornBytes(size=size, sha256=sha256)
        case _:
            return None


def _audit_tail(descriptor: int, path: Path) -> AuditTail:
    """Find the last whole line, from the end backwards, over what crashes left; the whole log is never read.

    Raises:
        AuditError: behind that line stands what no crash leaves, or there is no such line.
    """
    size = os.fstat(descriptor).st_size
    begin = max(0, size - AUDIT_TAIL_BYTES)
    data = os.pread(descriptor, AUDIT_TAIL_BYTES, begin)
    line_feed = b"\n" if data and not data.endswith(b"\n") else b""
    end = len(data)
    while end:
        stop = end - 1 if data.endswith(b"\n", 0, end) else end
        start = data.rfind(b"\n", 0, stop) + 1
        if start == 0 and begin > 0:
            raise _audit_error(path, f"its last {AUDIT_TAIL_BYTES} bytes hold no whole line", _MOVE_AWAY)
        line = read_audit_line(data[start:stop])
        if isinstance(line, AuditEntry) and not line.edit:
            torn = data[end:] + line_feed if data[end:] else b""
            return AuditTail(size=size, sequence=line.sequence, head=line.digest, torn=torn, line_feed=line_feed)
        if line is not LineFault.UNREADABLE or not _may_be_torn(data[start:stop]):
            reason = line.edit if isinstance(line, AuditEntry) else line.value
            raise _audit_error(path, f"its end is no audit log as it was written: {reason}", _MOVE_AWAY)
        end = start
    return AuditTail(size=size, sequence=0, head=GENESIS_HASH, torn=data + line_feed, line_feed=line_feed)


def _may_be_torn(text: bytes) -> bool:
    """Whether a crash can have left this of a line: its beginning, or zeros where its bytes did not reach the disk."""
    begins = b'{"'
    return bool(text) and (text.startswith(begins) or begins.startswith(text) or not text.strip(b"\0"))


def _chained_line(record: Mapping[str, Any], tail: AuditTail, now: datetime, path: Path) -> tuple[bytes, str]:
    """The line for a record, behind this tail, and its hash.

    Raises:
        AuditError: it is too long even when it is shortened.
    """
    added: dict[str, Any] = {
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "sequence": tail.sequence + 1,
        "previous": tail.head,
    }
    if tail.torn:
        added["after_torn"] = {"bytes": len(tail.torn), "sha256": hashlib.sha256(tail.torn).hexdigest()}
    for fields in _ever_shorter(record):
        body = {**fields, **added}
        digest = hashlib.sha256(_canonical_bytes(body)).hexdigest()
        text = _canonical_bytes({**body, "hash": digest})
        if len(text) < AUDIT_LINE_MAX_BYTES:
            entry = read_audit_line(text)
            if not isinstance(entry, AuditEntry) or entry.edit:  # a key that is no text, for instance
                raise ValueError("the record cannot be read back as it is: nobody could verify that line")
            return text + b"\n", digest
    reason = f"the run's record is longer than {AUDIT_LINE_MAX_BYTES} bytes, even when it is shortened"
    raise _audit_error(path, reason, "Please report this")


def _ever_shorter(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The record, then ever shorter ones, each telling what it leaves out."""
    yield record
    for step in SHORTENING_STEPS:
        lengths: dict[str, int] = {}
        fields = {key: _shortened(value, key, step, lengths) for key, value in record.items()}
        yield {**fields, "shortened": lengths}


def _shortened(value: object, key: str, step: tuple[int, int], lengths: dict[str, int]) -> object:
    """The value with the beginnings of its texts and lists; adds how long they were, by the path of their keys."""
    characters, items = step
    match value:
        case str() if len(value) > characters:
            lengths[key] = len(value)
            return value[:characters]
        case list() | tuple():
            if len(value) > items:
                lengths[key] = len(value)
            return [_shortened(each, f"{key}.{place}", step, lengths) for place, each in enumerate(value[:items])]
        case dict():
            return {name: _shortened(each, f"{key}.{name}", step, lengths) for name, each in value.items()}
        case _:
            return value


def _append_whole(descriptor: int, data: bytes, size: int) -> None:
    """Write all of this down to the disk, or take back what was written of it."""
    with ExitStack() as undo:
        undo.callback(os.ftruncate, descriptor, size)
        while data:  # a disk that fills up takes a part, and says why only when asked again
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
        undo.pop_all()


def _refuse_full_disk(descriptor: int) -> None:
    room = os.fstatvfs(descriptor)
    free = room.f_bfree if os.geteuid() == 0 else room.f_bavail
    if room.f_blocks and free * room.f_frsize < AUDIT_LINE_MAX_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _audit_error(path: Path, reason: str, remedy: str) -> AuditError:
    return AuditError((Problem(key=AUDIT_LOG.variable, origin=str(path), reason=reason, remedy=remedy),))


# ======== policy/standing.py ==========================================================================================
# What stands: the policy set that was found, the last good one in its place, or nothing. Pure decisions on values.
#
# A set that was found and is good is remembered. One that is refused leaves the last good set in force, verified again
# with today's keys and settings, for a time that is counted from its expiry or from the first refusal, and that nothing
# restarts; after that the lockdown values bound the result until the set is mended.


RETRY_AFTER = timedelta(minutes=1)
"""How soon a refused set is judged again where nothing seems to have changed: a clock may have been set right."""

Verify = Callable[[], PolicySet]
"""Gives a policy set, or raises `SetRefusedError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds from one moment on."""

    in_force: PolicySet | SetRefusedError
    """The set that holds, or why none does and nothing runs."""
    stand_in: StandIn | None
    """What the last good set holds in place of, where it does."""
    until: datetime
    """When it must be judged again, though nothing else may have changed."""
    remembered: Remembered
    """What is to be remembered from here on."""

    @property
    def refusal(self) -> SetRefusedError | None:
        """Why the set that was found is refused; `None` where it is in force."""
        if isinstance(self.in_force, SetRefusedError):
            return self.in_force
        return None if self.stand_in is None else self.stand_in.refusal


def standing(
    found: Verify, last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime
) -> Standing:
    """What stands at this moment.

    Args:
        found: reads and verifies the set that the environment names.
        last_good: verifies the remembered set again, with today's keys and settings.
        remembered: what was accepted before.
        settings: the environment's.
        now: with an offset.
    """
    try:
        policy_set = found()
        refusals = [
            *set_refusals(policy_set.documents, settings, now),
            *history_refusals(policy_set.documents, remembered, now),
        ]
        if refusals:
            raise refused(refusals)
    except SetRefusedError as refusal:
        return _in_its_place(refusal, last_good, remembered, settings, now)
    return Standing(
        in_force=policy_set,
        stand_in=None,
        until=min(document.expires_at for document in policy_set.documents),
        remembered=accepted(policy_set, remembered),
    )


def accepted(policy_set: PolicySet, remembered: Remembered) -> Remembered:
    """What is remembered once this set holds."""
    policies = dict(remembered.policies)
    for document in policy_set.documents:
        policies[document.policy_id] = RememberedPolicy(serial=document.serial, payload_sha256=document.payload_sha256)
        for retired in set(document.retires) & set(policies):
            policies[retired] = replace(policies[retired], retired_by=document.policy_id)
    known = () if remembered.newest_issued_at is None else (remembered.newest_issued_at,)
    return Remembered(
        policies=policies,
        newest_issued_at=max((*(document.issued_at for document in policy_set.documents), *known)),
        last_good=policy_set.contents,
    )


def _in_its_place(
    refusal: SetRefusedError, last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime
) -> Standing:
    """The last good set for as long as it may hold, or nothing."""
    first = remembered.first_refusal or FirstRefusal(at=now, code=refusal.code)
    remembered = replace(remembered, first_refusal=first)
    try:
        policy_set = _still_good(last_good, remembered, settings, now)
    except SetRefusedError as unusable:
        problems = (*refusal.problems, *unusable.problems)
        both = SetRefusedError(refusal.code, tuple(dict.fromkeys(problems)))
        return Standing(in_force=both, stand_in=None, until=now + RETRY_AFTER, remembered=remembered)
    begun = min((first.at, *(document.expires_at for document in policy_set.documents)))
    until = begun if refusal.code == RefusalCode.WRONG_AUDIENCE.code else begun + settings[POLICY_MAX_STALE]
    # A clock that was set back before the refusal that time is counted from makes no time longer.
    stand_in = StandIn(refusal=refusal, until=until, locked_down=not begun <= now < until)
    return Standing(
        in_force=policy_set,
        stand_in=stand_in,
        until=min(moment for moment in (begun, until, now + RETRY_AFTER) if moment > now),
        remembered=remembered,
    )


def _still_good(last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime) -> PolicySet:
    """The last good set, if nothing but time speaks against it today."""
    if not remembered.last_good:
        reason = "no earlier set was accepted here that could hold in place of this one"
        problem = Problem(key="last good set", origin="policy set", reason=reason, remedy="Mend the set")
        raise refused([(RefusalCode.UNREADABLE, problem)])
    policy_set = last_good()
    refusals = set_refusals(policy_set.documents, settings, now)
    lasting = [(code, problem) for code, problem in refusals if code not in PASSING_CODES]
    if lasting:
        raise refused(lasting)
    return policy_set


# ======== policy/state_folder.py ======================================================================================
# The folder in which an instance remembers policy sets, safe under many processes and through any crash.
#
# It belongs to the running user alone (0700). Every change is read, decided and written under one lock, and the file is
# replaced whole; who reads it without the lock finds the old memory or the new one.


STATE_NAME = "policies.json"
LOCK_NAME = "lock"
LOCK_SECONDS = 10
"""How long another process may hold the lock; it takes milliseconds."""
STATE_MAX_BYTES = 32 << 20
"""Room for 256 policy files of 64 KiB in base64, and for what is remembered of their ids."""

STATE_FILE = FileRule(kind="policy state", max_bytes=STATE_MAX_BYTES, owner_checked=True, secret=True, error=StateError)
"""What is believed of the past."""

Decided = TypeVar("Decided")


class Memory(Protocol):
    """Where what is remembered of policy sets is kept."""

    def read(self) -> Remembered:
        """What is remembered now."""

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, keep what is to be remembered, and give the decision."""


class ProcessMemory:
    """Remembers for as long as this process lives."""

    def __init__(self) -> None:
        self._remembered = FIRST_CONTACT

    def read(self) -> Remembered:
        """What is remembered now."""
        return self._remembered

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, and keep what is to be remembered."""
        decision, self._remembered = decide(self._remembered)
        return decision


class StateFolder:
    """Remembers in a folder, for all processes of this instance and for the next start."""

    def __init__(self, folder: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._folder = folder
        self._lock_seconds = lock_seconds
        self.file = folder / STATE_NAME

    def read(self) -> Remembered:
        """What is remembered now; nothing was where there is no file yet.

        Raises:
            StateError: it cannot be read or could not be written, is damaged, or others could have written it.
        """
        return self._read_file() if private_folder_exists(self._folder, STATE_FILE) else FIRST_CONTACT

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, keep what is to be remembered, and give the decision.

        Raises:
            StateError: it cannot be read, written, trusted or locked; then what is remembered is as it was.
        """
        make_private_folder(self._folder, STATE_FILE)
        with locked_file(self._folder / LOCK_NAME, STATE_FILE, self._lock_seconds):
            before = self._read_file()
            decision, after = decide(before)
            if after != before:
                replace_private_file(self.file, state_text(after), STATE_FILE)
        return decision

    def _read_file(self) -> Remembered:
        try:
            untrusted = read_trusted(self.file, STATE_FILE)
        except StateError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return FIRST_CONTACT
            raise
        try:
            return parse_state(untrusted)
        except ValueError as error:
            remedy = "Restore it from a backup; or move it away and begin anew, without memory of earlier serials"
            raise StateError((_state_problem(self.file, f"it is damaged: {error}", remedy),)) from error


def _state_problem(place: Path, reason: str, remedy: str) -> Problem:
    return Problem(key=STATE_FILE.kind, origin=str(place), reason=reason, remedy=remedy)


# ======== policy/live.py ==============================================================================================
# The policy set of one process, which follows the files: a change holds for the next run, without a restart.
#
# Whether anything changed is told by `stat`, which costs microseconds. What changed is read, verified and judged anew,
# and only then put in place of what stood; whoever already has a situation keeps it.


SETTLED_NANOSECONDS = 50_000_000
"""How old a change must be before a look at the files counts: within a tick of the kernel's clock, a second change of
the same size would look like the first."""
SETTLED_WHOLE_SECONDS = 2_100_000_000
"""The same where a file system keeps whole seconds, FAT every second one."""

MOST_READINGS = 5
"""How often files that change while they are read are read anew."""

Look = tuple[object, ...]
"""What `stat` says of every file that policy comes from; equal looks mean equal files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What stood when the files were last read."""

    look: Look
    """The files, just before they were read."""
    settled: bool
    """Whether a later change cannot have escaped the look."""
    since: datetime
    """When it was judged."""
    standing: Standing
    """The verdict."""
    outcome: Situation | SetRefusedError
    """What holds, or why nothing runs."""


class LivePolicy:
    """What holds on this instance now."""

    def __init__(
        self,
        environment: EnvironmentLayer,
        *,
        reader: PolicyReader,
        now: Callable[[], datetime],
        memory: Memory | None = None,
    ) -> None:
        """Follow the files that the environment names.

        Args:
            environment: what the environment says; it does not change while a process lives.
            reader: how files are read.
            now: the clock, with an offset.
            memory: where it is kept what was accepted; by default as the environment says.

        Raises:
            ConfigurationError: the environment contradicts itself.
        """
        refuse_contradictions(environment.settings)
        self._environment = environment
        self._reader = reader
        self._now = now
        self._memory = memory or memory_of(environment)
        self._judging = threading.Lock()
        self._judged: _Judged | None = None
        self._alone = Situation(environment=environment, documents=())

    def situation(self) -> Situation:
        """What holds at this moment.

        Raises:
            SetRefusedError: the policy set is refused, and no earlier one may hold in its place.
        """
        settings = self._environment.settings
        if settings[POLICY_PATH] is None:
            read_keys(settings, self._reader)  # keys that could verify nothing are an error, though nothing asks yet
            refuse_missing_path(settings)
            return self._alone
        outcome = self._current().outcome
        if isinstance(outcome, SetRefusedError):
            raise SetRefusedError(outcome.code, outcome.problems)
        return outcome

    def standing(self) -> Standing | None:
        """The verdict on the policy set; `None` where the environment names none.

        Raises:
            SetRefusedError: what was accepted before cannot be told, so there is no verdict.
        """
        return None if self._environment.settings[POLICY_PATH] is None else self._current().standing

    def _current(self) -> _Judged:
        judged = self._judged
        if judged is not None and _still(judged, self._look(), self._now()):
            return judged
        with self._judging:
            # Others may have judged while this thread waited: the moment is taken anew, or it would be before theirs.
            judged, look = self._judged, self._look()
            if judged is None or not _still(judged, look, self._now()):
                judged = self._judged = self._judge(look)
            return judged

    def _judge(self, look: Look) -> _Judged:
        settings, path = self._environment.settings, Path(self._environment.settings[POLICY_PATH] or "")
        settled = all_settled(_changes(look), time.time_ns())

        def decide(remembered: Remembered) -> tuple[tuple[datetime, Standing], Remembered]:
            now = self._now()  # once the memory's lock is ours: what it holds may be younger than the wait for it
            last_good = {f"{name} (as last accepted)": data for name, data in remembered.last_good.items()}
            verdict = standing(
                lambda: self._steady_set(path),
                lambda: verified_again(last_good, settings, self._reader),
                remembered,
                settings,
                now,
            )
            return (now, verdict), verdict.remembered

        try:
            now, verdict = self._memory.change(decide)
        except StateError as error:
            raise refused([(RefusalCode.STATE_INVALID, problem) for problem in error.problems]) from error
        return _Judged(look=look, settled=settled, since=now, standing=verdict, outcome=self._outcome(verdict))

    def _steady_set(self, path: Path) -> PolicySet:
        """The set at a path, all of one generation: read anew while files change under the reading.

        Raises:
            SetRefusedError: it is refused, or changes each time that it is read.
        """
        for _ in range(MOST_READINGS):
            before = self._look()
            try:
                found: PolicySet | SetRefusedError = read_set(path, self._environment.settings, self._reader)
            except SetRefusedError as error:
                found = error
            if self._look() != before:
                continue
            if isinstance(found, SetRefusedError):
                raise found
            return found
        reason = f"it changed {MOST_READINGS} times while it was read"
        problem = Problem(key="policy set", origin=str(path), reason=reason, remedy="Ship a whole set at once")
        raise refused([(RefusalCode.UNREADABLE, problem)])

    def _outcome(self, verdict: Standing) -> Situation | SetRefusedError:
        """What holds by a verdict; the situation that held, where it is the same, with all that it has resolved."""
        if isinstance(verdict.in_force, SetRefusedError):
            return verdict.in_force
        documents, stand_in = verdict.in_force.documents, verdict.stand_in
        now = Situation(environment=self._environment, documents=documents, stand_in=stand_in)
        return self._judged.outcome if self._judged is not None and self._judged.outcome == now else now

    def _look(self) -> Look:
        settings = self._environment.settings
        policy, keys, state = settings[POLICY_PATH], settings[POLICY_KEYS], settings[POLICY_STATE]
        parts = [*_seen(policy, POLICY_SUFFIXES)] if policy else []
        if keys is not None and keys.startswith("/"):
            parts += _seen(keys, PUBLIC_KEY_SUFFIXES)
        if state is not None:
            parts.append(_status(f"{state}/{STATE_NAME}"))
        return tuple(parts)


def current_moment() -> datetime:
    """The clock of this host, with an offset."""
    return datetime.now(UTC)


def memory_of(environment: EnvironmentLayer) -> Memory:
    """Where the environment says that accepted sets are remembered."""
    folder = environment.settings[POLICY_STATE]
    return ProcessMemory() if folder is None else StateFolder(Path(folder))


def all_settled(changes: Iterable[int], now: int) -> bool:
    """Whether files that changed at these moments, in nanoseconds, cannot have changed again within the same tick."""
    return all(
        now - changed > (SETTLED_NANOSECONDS if changed % 10**9 else SETTLED_WHOLE_SECONDS) for changed in changes
    )


def _still(judged: _Judged, look: Look, now: datetime) -> bool:
    """Whether what was judged is what stands now."""
    return judged.settled and judged.look == look and judged.since <= now < judged.standing.until


def _seen(path: str, suffixes: tuple[str, ...]) -> Iterator[object]:
    """What `stat` says of a file, or of a folder and the files in it that are read."""
    yield _status(path)
    if os.path.islink(f"{path}/{CONFIGMAP_DATA}"):  # noqa: PTH114 -- a third of pathlib's time, for each run
        path = f"{path}/{CONFIGMAP_DATA}"  # what is read is this generation, whatever links lead into it
        yield _status(path)
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(suffixes))
    except OSError as error:
        yield error.errno
        return
    for name in names:
        yield name
        yield _status(f"{path}/{name}")


def _status(path: str) -> object:
    try:
        status = os.stat(path)  # noqa: PTH116 -- half the time of pathlib's, for each run
    except OSError as error:
        return error.errno
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _changes(look: Look) -> Iterator[int]:
    """When each file in a look last changed, in nanoseconds of the kernel's clock."""
    return (seen[-1] for seen in look if isinstance(seen, tuple))


# ======== sandbox/announcing.py =======================================================================================
# Tells a person step by step what is being done for them, without anybody else waiting for their page.


Announce = Callable[[str], Awaitable[None]]


class InTurn:
    """Passes sentences on in their order, while whoever says them goes on; its context ends when all are told."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._telling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until everything is told; where something went wrong, what is not told yet no longer matters."""
        if self._telling is None:
            return
        if kind is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            return
        await self._telling

    async def tell(self, sentence: str) -> None:
        """Say a sentence after those before it."""
        self._telling = asyncio.create_task(self._told_after(self._telling, sentence))

    async def _told_after(self, before: asyncio.Task[None] | None, sentence: str) -> None:
        if before is not None:
            await before
        await self._announce(sentence)


# ======== sandbox/answer_head.py ======================================================================================
# Tells a client of the plain HTTP proxy that its connection ends with this answer, whatever the server says of its.
#
# One connection of a client carries one request, so that no second one reaches a server unseen; a client that is not told
# so would send another, and see it fail. All else of an answer passes as it came.
#
# Source: RFC 9112 section 9.6 (close) and 2.2 (line endings), RFC 9110 section 15.2 (interim answers).


_MOST_ANSWER_HEAD_BYTES = 1 << 16
"""A longer head passes as it came; nobody needs to understand it here."""
_LONGEST_HEAD_END = 4
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}")
_OF_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection"})


class AnswerHead:
    """The head of one answer, on its way to the client."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._held: bytearray | None = bytearray()
        self._searched = 0

    def passed(self, data: bytes) -> bytes:
        """What of these bytes, and of those held before, the client gets now."""
        if self._held is None:
            return data
        self._held += data
        said = bytearray()
        while (end := _HEAD_END.search(self._held, self._searched)) is not None:
            head, self._held, self._searched = bytes(self._held[: end.start()]), self._held[end.end() :], 0
            if _INTERIM.match(head) is None:
                return bytes(said) + _closing(head) + self.rest()
            said += head + b"\r\n\r\n"
        self._searched = max(0, len(self._held) - _LONGEST_HEAD_END)
        return bytes(said) + (self.rest() if len(self._held) > _MOST_ANSWER_HEAD_BYTES else b"")

    def rest(self) -> bytes:
        """What is still held; from now on everything passes as it comes."""
        held, self._held = bytes(self._held or b""), None
        return held


def _closing(head: bytes) -> bytes:
    if not head.startswith(b"HTTP/1."):
        return head + b"\r\n\r\n"
    lines = (
        line for line in _LINE_END.split(head) if line.partition(b":")[0].strip().lower() not in _OF_THE_CONNECTION
    )
    return b"\r\n".join((*lines, b"Connection: close", b"", b""))


# ======== sandbox/cgroup_files.py =====================================================================================
# The files of cgroups, read and written, and never created.
#
# Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.


def cgroup_text(path: Path) -> str:
    """Read a file whole, as it is now."""
    with path.open("rb", buffering=0) as file:
        return file.readall().decode(errors="surrogateescape")


def write_cgroup_file(path: Path, text: str) -> None:
    """Write in one call, and never create: a file that the kernel does not offer is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def cgroup_number(path: Path, key: str) -> int | None:
    """Read one number of a file of `key number` lines, or of a lone number with the empty key."""
    try:
        lines = [line.split() for line in cgroup_text(path).splitlines()]
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise  # it may well be there
        return None
    return next((int(words[-1]) for words in lines if words[:-1] == key.split()), None)


def controller_names(path: Path) -> frozenset[str]:
    """Read a list of controllers of v2: what a cgroup has, or what it hands down."""
    return frozenset(cgroup_text(path).split())


def cgroup_members(folder: Path) -> frozenset[int]:
    """The processes in one cgroup, none where it is gone; those outside our process namespace are left out.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        words = cgroup_text(folder / "cgroup.procs").split()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            return frozenset()
        raise
    return frozenset(map(int, words)) - {0}


# ======== sandbox/cleaning.py =========================================================================================
# Makes output fit to be shown: without what a terminal or a page would obey instead of showing.
#
# Source: ECMA-48 (escape sequences); Unicode Standard Annex 9 (bidirectional controls).


_ESCAPE_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    # A string that nothing ends is shown: output must not vanish because of two stray bytes in it. It holds none of
    # what could begin another, so that no character is looked at once for each beginning before it.
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])(?:[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\\\|\x9c))?"
    "|\x1b[ -/]*[0-~]"
)
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def cleaned(untrusted_output: str) -> str:
    """Output without escape sequences, control characters and bidirectional controls; line ends become LF."""
    text = _ESCAPE_SEQUENCE.sub("", untrusted_output)
    return _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


# ======== plugins/people.py ===========================================================================================
# Who asks, out of what Open WebUI hands to a plugin and what it answers about groups.
#
# What only a client claims, and what Open WebUI does not tell, stays undetermined, which tightens: every scope of a
# policy file that might be for this person holds. So no failure here stops a run, and none loosens one.
#
# Source: Open WebUI 0.12.4, `main.py`, `utils/middleware.py` (metadata of a chat), `models/groups.py`.


GroupSource = Callable[[str], Awaitable[Any]]
"""Gives the groups of a person's id, each with an `id` and a `name`."""
GROUPS_SECONDS = 2.0
"""How long Open WebUI may take to tell somebody's groups; 2 to 5 ms were seen, so each run asks anew."""
_LONGEST_REASON = 200


def requester_of(untrusted_user: object, *, surface: str, model: str | None = None) -> Requester:
    """Who asks, but for their groups, out of the server's own record of the person.

    Args:
        untrusted_user: Open WebUI's `__user__`.
        surface: `tool` or `function`.
        model: the id of the model that runs the code; `None` where only a client says which it is.
    """
    user = untrusted_user if isinstance(untrusted_user, Mapping) else {}
    return Requester(role=_text_in(user, "role"), user=_text_in(user, "id"), model=model, surface=surface)


def answering_model(untrusted_metadata: object, untrusted_task_model: object) -> str | None:
    """The id of the model that called the tool, where the server itself knows it.

    Open WebUI's `__model__` is another one: the model for its own tasks, wherever one is set. Its metadata names the
    model that the request goes to, which the server lets nobody reach who may not use it. But it carries out a call
    before it asks that model where a chat is continued, out of the stored message, which the person can write; and in
    the legacy mode, where its task model makes the calls. There the server has checked only the model that the request
    began with. Of a direct connection it knows nothing but what the browser claims.

    Args:
        untrusted_metadata: Open WebUI's `__metadata__`.
        untrusted_task_model: Open WebUI's `__model__`.
    """
    match untrusted_metadata:
        case {
            "direct": False,
            "model_id": str(answering),
            "model": {"id": checked},
            "assistant_message_id": continued,
            "params": {"function_calling": mode},
        } if answering:
            if mode == "native" and not continued:
                return answering
            task = untrusted_task_model.get("id") if isinstance(untrusted_task_model, Mapping) else None
            return answering if answering == checked == task else None
        case _:
            return None


async def open_webui_groups(user_id: str) -> Any:  # noqa: ANN401 -- whatever this Open WebUI answers
    """The groups that Open WebUI itself counts a person in, those above their own included."""
    from open_webui.models.groups import Groups  # noqa: PLC0415 -- there is none outside Open WebUI

    groups_of = Groups.get_groups_by_member_id
    # Where groups nest, Open WebUI's own access checks count the groups above too.
    options = {"include_inherited": True} if "include_inherited" in inspect.signature(groups_of).parameters else {}
    if inspect.iscoroutinefunction(groups_of):
        return await groups_of(user_id, **options)
    # Open WebUI before 0.12 asks its database without awaiting it; that may keep nobody else waiting.
    return await asyncio.to_thread(groups_of, user_id, **options)


class GroupRegister:
    """Tells which groups somebody is in; remembers nothing but what it last complained of."""

    def __init__(self, source: GroupSource, warn: Callable[[str], None], deadline_seconds: float) -> None:
        self._source = source
        self._warn = warn
        self._deadline_seconds = deadline_seconds
        self._complained_of = ""

    async def groups(self, user: str | None) -> frozenset[str] | None:
        """Ids and names of somebody's groups; `None` where they cannot be determined, whatever the reason."""
        if user is None:
            return None
        try:
            async with asyncio.timeout(self._deadline_seconds):
                known = _ids_and_names(await self._source(user))
        except TimeoutError:
            self._complain("TimeoutError", f"no answer within {self._deadline_seconds:g} seconds")
            return None
        except Exception as error:  # noqa: BLE001 -- the source is Open WebUI's, and no failure of it may stop a run
            self._complain(type(error).__name__, f"{type(error).__name__}: {error}")
            return None
        self._complained_of = ""
        return known

    def _complain(self, kind: str, reason: str) -> None:
        """Log a kind of failure once, until there is an answer again or another kind."""
        if kind != self._complained_of:
            self._complained_of = kind
            words = " ".join(cleaned(reason).split())[:_LONGEST_REASON]
            self._warn(f"Open WebUI does not tell people's groups, so every policy scope about groups holds: {words}")


def _ids_and_names(groups: Any) -> frozenset[str]:  # noqa: ANN401 -- what Open WebUI answered
    """Each group's id and name.

    Raises:
        TypeError: that is no list of groups.
        AttributeError: the same.
    """
    if not isinstance(groups, list):
        raise TypeError(f"it answered {type(groups).__name__}, not a list of groups")
    words = [word for group in groups for word in (group.id, group.name)]
    if not all(isinstance(word, str) for word in words):
        raise TypeError("it answered groups whose id or name is no text")
    return frozenset(words)


def _text_in(untrusted: Mapping[str, Any], key: str) -> str | None:
    """A text that is not empty, or nothing."""
    value = untrusted.get(key)
    return value if isinstance(value, str) and value else None


# ======== sandbox/client_hello.py =====================================================================================
# Finds the server name in the first message of a TLS client, which says in the clear whom it wants to talk to.
#
# Behind one address a content network serves many names; whoever may reach one of them could ask it for another. What is
# encrypted (Encrypted Client Hello, the `Host` inside) cannot be seen here.
#
# Source: RFC 8446 section 4.1.2 (ClientHello) and 5.1 (records), RFC 6066 section 3 (server_name).


MOST_HELLO_BYTES = 1 << 16
"""A longer first message is refused, heads of records counted; those with post-quantum keys have some 2,000 bytes."""
_RECORD_KINDS = range(20, 25)
_HANDSHAKE_RECORD = 22
_RECORD_HEAD_BYTES = 5
_TLS_MAJOR = 3
_LARGEST_RECORD_BYTES = 1 << 14
_CLIENT_HELLO = 1
_HANDSHAKE_HEAD_BYTES = 4
_VERSION_AND_RANDOM_BYTES = 34
_SERVER_NAME_EXTENSION = 0
_NAME_OF_HOST = 0

_Fields: TypeAlias = tuple[bytes, bytes]


class MalformedHelloError(Exception):
    """What begins like TLS is no ClientHello; the text says why, without full stop."""


def begins_tls(data: bytes) -> bool:
    """Whether a client that says this first speaks TLS, in any kind of record.

    Some servers pass over an alert or an empty record before the ClientHello, which must hide no name from us.
    """
    return bool(data) and data[0] in _RECORD_KINDS


class ClientHelloReader:
    """Puts a ClientHello together as it comes, whatever records and reads it is cut into, each byte looked at once."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._come_bytes = 0
        self._unread = bytearray()
        self._message = bytearray()

    def read(self, data: bytes) -> bytes | None:
        """The body of the ClientHello, once these bytes complete it.

        Returns:
            `None` while more bytes are needed.

        Raises:
            MalformedHelloError: it is none, or too long.
        """
        self._come_bytes += len(data)
        self._unread += data
        while (record := self._next_record()) is not None:
            self._message += record
            if self._message[0] != _CLIENT_HELLO:
                raise MalformedHelloError("it does not begin with a ClientHello")
            whole = _HANDSHAKE_HEAD_BYTES + int.from_bytes(self._message[1:_HANDSHAKE_HEAD_BYTES], "big")
            if len(self._message) >= max(whole, _HANDSHAKE_HEAD_BYTES):
                return bytes(self._message[_HANDSHAKE_HEAD_BYTES:whole])
        if self._come_bytes > MOST_HELLO_BYTES:
            raise MalformedHelloError("its ClientHello is too long")
        return None

    def _next_record(self) -> bytes | None:
        """The content of the next whole record; `None` while it is not there."""
        if len(self._unread) < _RECORD_HEAD_BYTES:
            return None
        kind, major, _, *length_bytes = self._unread[:_RECORD_HEAD_BYTES]
        length = int.from_bytes(length_bytes, "big")
        if kind != _HANDSHAKE_RECORD or major != _TLS_MAJOR or not 0 < length <= _LARGEST_RECORD_BYTES:
            raise MalformedHelloError("its records are malformed")
        end = _RECORD_HEAD_BYTES + length
        if len(self._unread) < end:
            return None
        record = bytes(self._unread[_RECORD_HEAD_BYTES:end])
        del self._unread[:end]
        return record


def server_name(hello: bytes) -> str | None:
    """The name that a ClientHello asks for, as it stands there; `None` where it names none.

    Raises:
        MalformedHelloError: it cannot be read, or names more than one.
    """
    _, rest = _taken(hello, _VERSION_AND_RANDOM_BYTES)
    for length_bytes in (1, 2, 1):  # session, cipher suites, compression methods
        _, rest = _vector(rest, length_bytes)
    extensions, rest = _vector(rest, 2) if rest else (b"", b"")
    if rest:
        raise MalformedHelloError("its ClientHello goes on after its end")
    names: list[str] = []
    while extensions:
        kind, extensions = _taken(extensions, 2)
        body, extensions = _vector(extensions, 2)
        if int.from_bytes(kind, "big") == _SERVER_NAME_EXTENSION:
            names.append(_host_name(body))
    if len(names) > 1:
        raise MalformedHelloError("it names more than one server")
    return names[0] if names else None


def _host_name(extension: bytes) -> str:
    listed, after = _vector(extension, 2)
    kind, listed = _taken(listed, 1)
    name, more = _vector(listed, 2)
    if kind[0] != _NAME_OF_HOST or more or after:
        raise MalformedHelloError("its server name is malformed")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedHelloError("its server name is not in A-labels") from error


def _vector(data: bytes, length_bytes: int) -> _Fields:
    """A field that begins with its own length, and what follows it."""
    length, rest = _taken(data, length_bytes)
    return _taken(rest, int.from_bytes(length, "big"))


def _taken(data: bytes, count: int) -> _Fields:
    if len(data) < count:
        raise MalformedHelloError("its ClientHello ends too soon")
    return data[:count], data[count:]


# ======== sandbox/control.py ==========================================================================================
# Asks gVisor itself how a box's first process ended, over the socket that every `runsc` subcommand uses.
#
# `runsc run` asks the same question, but then takes a box apart for some ten milliseconds before it passes the answer on.
# The answer is the wait status that gVisor's kernel keeps, never a word of the code; without an answer the exit code of
# `runsc run` counts. The open connection would hold up the box's end, so it is closed with the answer.
#
# Releases before 2023 listen under an abstract name, which any user of the same network namespace could reach and use
# to start programs in the box; a box is therefore started in a network namespace of its own, where only root comes.
# Source: https://github.com/google/gvisor, pkg/urpc/urpc.go and runsc/boot/controller.go (`containerManager.Wait`),
# runsc/sandbox/sandbox.go (where the socket is).


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


# ======== sandbox/egress_account.py ===================================================================================
# What one run reached and what it was refused, told in few words however often it tried.


_MOST_REACHED, _MOST_OTHERS = 256, 64
"""Decisions of each kind: no flood of refusals hides where code has been, and none fills the log."""
_MOST_TOLD = 10
_LONGEST_TEXT = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressDecision:
    """One destination, and what became of the attempts to reach it."""

    destination: str
    """`host:port`, as the code spelt it, with control characters replaced."""
    permitted: bool
    """Whether it was permitted."""
    reason: str
    """Why not, or why it was not reached although it was permitted; empty where it was reached. No full stop."""
    origin: str
    """Who decided that it is not permitted; empty where it is, or where that follows from the request alone."""
    times: int
    """How many attempts ended so."""

    @property
    def words(self) -> str:
        """The decision, for people."""
        if not self.reason:
            return f"{self.destination} reached"
        by = f", {self.origin}" if self.origin else ""
        return f"{self.destination} {'not reached' if self.permitted else 'refused'}: {self.reason}{by}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSummary:
    """Everything that is known of one run's connections."""

    decisions: tuple[EgressDecision, ...]
    """By destination and ending, in the order in which they were first tried."""
    untold: int
    """Attempts beyond the bound, of which only the number is kept."""
    sent_bytes: int
    """What the run sent."""
    received_bytes: int
    """What it received."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know, in sentences: what was reached, and what was not and why."""
        reached = [one.destination for one in self.decisions if not one.reason]
        failed = [one.words for one in self.decisions if one.reason]
        told = [f"{words}." for words in failed[:_MOST_TOLD]]
        more = len(failed) - len(told) + self.untold
        return (
            *((f"Reached over the network: {_first_listed(reached)}.",) if reached else ()),
            *told,
            *((f"{more} more attempts to connect are in the run's record{self._but_untold}.",) if more else ()),
        )

    @property
    def _but_untold(self) -> str:
        return f", {self.untold} of them as a mere number" if self.untold else ""

    def record(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "decisions": [asdict(decision) for decision in self.decisions],
            "untold": self.untold,
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
        }


EMPTY_EGRESS = EgressSummary(decisions=(), untold=0, sent_bytes=0, received_bytes=0)
"""Of a run without network."""


@dataclass(slots=True)
class EgressAccount:
    """Grows while a run lasts, up to a bound: code cannot fill the record by trying ever new names."""

    times: dict[tuple[str, bool, str, str], int] = field(default_factory=dict)
    """How many attempts ended in each way."""
    untold: int = 0
    """Attempts beyond the bound, of which only the number is kept."""
    sent_bytes: int = 0
    """What the run sent."""
    received_bytes: int = 0
    """What it received."""

    def note(self, destination: str, *, permitted: bool, reason: str = "", origin: str = "") -> None:
        """Count one attempt."""
        key = (_printable(destination), permitted, _printable(reason), origin)
        if key in self.times:
            self.times[key] += 1
        elif sum(bool(known[2]) is bool(reason) for known in self.times) < (_MOST_OTHERS if reason else _MOST_REACHED):
            self.times[key] = 1
        else:
            self.untold += 1

    @property
    def summary(self) -> EgressSummary:
        """What is known by now."""
        return EgressSummary(
            decisions=tuple(
                EgressDecision(destination=destination, permitted=permitted, reason=reason, origin=origin, times=times)
                for (destination, permitted, reason, origin), times in self.times.items()
            ),
            untold=self.untold,
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
        )


def _first_listed(destinations: list[str]) -> str:
    more = len(destinations) - _MOST_TOLD
    return ", ".join(destinations[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")


def _printable(untrusted_text: str) -> str:
    """What the code wrote, or what quotes it, as printable ASCII of bounded length."""
    return untrusted_text[:_LONGEST_TEXT].encode("unicode_escape").decode()[:_LONGEST_TEXT]


# ======== sandbox/egress_network.py ===================================================================================
# This host's network, as the egress proxy uses it: names resolved, own addresses known, connections made.
#
# Only what rules have permitted is asked for or connected to. Resolvers block for as long as they like, so each proxy has
# a few threads of its own for them, which no other run can use up.


EgressStreams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_RESOLVER_THREADS = 4
_BUFFER_OUT_BYTES = 1 << 18
"""Of each connection's two buffers, which the kernel lets grow to many megabytes where nobody says it; enough for five
megabytes a second from 50 milliseconds away. Source: tcp(7)."""
_MOST_ADDRESSES = 16
"""Of one name; whoever answers for it could name thousands, to be checked and tried one after the other."""
_HOSTS_FILE = Path("/etc/hosts")
_ROUTE_QUESTION = struct.Struct("=IHHIIBBBBBBBBIHH")
_ROUTE_ANSWER = struct.Struct("=IHHIIBBBBBBBBI")
_ASK_ROUTE, _ROUTE_TOLD = 26, 24
_PLAIN_REQUEST, _DESTINATION_ATTRIBUTE = 1, 1
_KINDS_THAT_STAY = frozenset({2, 3, 4})
"""Of routes: local, broadcast, anycast. Source: rtnetlink(7), linux/rtnetlink.h."""
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
_MOST_ROUTE_BYTES = 1 << 13


class UnreachableError(Exception):
    """What is permitted could not be reached; the text says why, without full stop."""


class EgressNetwork(Protocol):
    """A network."""

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """What a name is resolved to, in the order to try.

        Raises:
            UnreachableError: it is resolved to nothing.
        """
        ...

    def is_own(self, address: IPAddress) -> bool:
        """Whether it is one of this host's own addresses.

        Raises:
            UnreachableError: that cannot be found out.
        """
        ...

    async def connected(self, address: IPAddress, port: int) -> EgressStreams:
        """A connection to exactly this address.

        Raises:
            OSError: it cannot be made.
        """
        ...

    def close(self) -> None:
        """Resolve nothing any more."""
        ...


class HostNetwork:
    """That of the host, or of the container that this process is in."""

    def __init__(self) -> None:
        self._resolving: ThreadPoolExecutor | None = None

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Ask the host's resolver for exactly this name; for one without dots, as the host's programs do."""
        if self._resolving is None:
            self._resolving = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="egress-resolver")
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolving, _looked_up, name)
        except (OSError, UnicodeError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else "it is no name"
            raise UnreachableError(f"its name cannot be resolved: {words}") from error
        return found

    def is_own(self, address: IPAddress) -> bool:
        """Ask the kernel's routes, as they are now, whether what is sent there stays on this host."""
        try:
            return _route_kind(address) in _KINDS_THAT_STAY
        except OSError as error:
            words = error.strerror or "no answer"
            raise UnreachableError(f"the kernel does not tell whether {address} is this host's own: {words}") from error

    async def connected(self, address: IPAddress, port: int) -> EgressStreams:
        """Connect, with no name left to resolve."""
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                connecting.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_OUT_BYTES)
            await asyncio.get_running_loop().sock_connect(connecting, (str(address), port))
            return await asyncio.open_connection(sock=connecting)
        except BaseException:
            connecting.close()
            raise

    def close(self) -> None:
        """Leave questions that are under way to their end, and ask no more."""
        if self._resolving is not None:
            self._resolving.shutdown(wait=False, cancel_futures=True)


def _route_kind(address: IPAddress) -> int:
    """What kind of route leads to an address; 0 where none does.

    Raises:
        OSError: the kernel cannot be asked, or does not know what is asked of it.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    attribute = (4 + len(address.packed), _DESTINATION_ATTRIBUTE)
    length = _ROUTE_QUESTION.size + len(address.packed)
    head = (length, _ASK_ROUTE, _PLAIN_REQUEST, 1, 0)
    route = (family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(0)  # the answer is there once the question has been taken
        asking.sendall(_ROUTE_QUESTION.pack(*head, *route, *attribute) + address.packed)
        answer = asking.recv(_MOST_ROUTE_BYTES)
    if int.from_bytes(answer[4:6], sys.byteorder) == _ROUTE_TOLD:
        kind: int = _ROUTE_ANSWER.unpack_from(answer)[12]
        return kind
    code = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
    if code in _NO_ROUTE:
        return 0
    raise OSError(code, os.strerror(code))


def _looked_up(name: str) -> tuple[IPAddress, ...]:
    """What this host knows of a name.

    The dot at its end keeps a resolver from asking for it below the host's search domains, which nobody has permitted.
    With that no C library looks into its file of hosts. A name without dots means what the search domains make of it.
    """
    if "." in name:
        listed = _listed_in_hosts(name)
        if listed:
            return listed
    found = socket.getaddrinfo(f"{name}." if "." in name else name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(_told_address(str(entry[4][0])) for entry in found))[:_MOST_ADDRESSES]


def _listed_in_hosts(name: str) -> tuple[IPAddress, ...]:
    """What the host's own file says of a name. Source: hosts(5)."""
    listed: list[IPAddress] = []
    with suppress(OSError), _HOSTS_FILE.open(errors="replace") as lines:
        for line in lines:
            address, *names = line.lower().partition("#")[0].split() or [""]
            if name in names:
                with suppress(ValueError):
                    listed.append(_told_address(address))
    return tuple(dict.fromkeys(listed))[:_MOST_ADDRESSES]


def _told_address(text: str) -> IPAddress:
    """An address without its zone; an IPv4-mapped one as the IPv4 address it is."""
    return unmapped_address(ipaddress.ip_address(text.partition("%")[0]))


# ======== sandbox/egress_requests.py ==================================================================================
# Reads what a client inside a box asks the egress proxy for: HTTP CONNECT, plain HTTP, or SOCKS5.
#
# Nothing here reads a socket; every byte comes from the box and is believed in nothing but where it wants to go. HTTP is
# left to h11, which Open WebUI's own server uses; of SOCKS5 only CONNECT without authentication is spoken.
#
# Source: RFC 9110 section 9.3.6 (CONNECT), RFC 9112 section 3.2 (request targets), RFC 1928 (SOCKS5).


MOST_HEAD_BYTES = 1 << 16
"""A longer head of a request is refused."""
SOCKS_VERSION = 5
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")
_LARGEST_PORT = 65535
_HTTP_PORT = 80
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer upgrade".split()
)
_SOCKS_CONNECT = 1
_SOCKS_IPV4, _SOCKS_NAME, _SOCKS_IPV6 = 1, 3, 4
_SOCKS_ADDRESS_BYTES = {_SOCKS_IPV4: 4, _SOCKS_IPV6: 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a client wants to be connected."""

    untrusted_host: str
    """As the client spelt it."""
    port: int
    """1 to 65535."""


def connect_target(request: h11.Request) -> Target:
    """Where a CONNECT request wants to go.

    Raises:
        EgressRefusedError: its target is no `host:port`.
    """
    target = request.target.decode("ascii", errors="replace")
    found = _AUTHORITY.fullmatch(target)
    if found is None or found[2] is None:
        raise EgressRefusedError("its target is no host:port")
    return Target(untrusted_host=found[1], port=_port(found[2]))


def plain_target(request: h11.Request) -> tuple[Target, h11.Request]:
    """Where a plain HTTP request wants to go, and the request as that server gets it.

    The server is asked for the host that was checked, whatever the client's own `Host` says, and to close afterwards,
    so that no second request reaches it unseen.

    Raises:
        EgressRefusedError: its target is no `http://` address, or its body has two ends.
    """
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        raise EgressRefusedError("its length stands in Content-Length and in Transfer-Encoding")
    try:
        parts = urlsplit(request.target.decode("ascii"))
    except ValueError as error:
        raise EgressRefusedError("its target is no http:// address") from error
    if parts.scheme.lower() != "http" or not parts.netloc:
        raise EgressRefusedError("its target is no http:// address; https:// goes through CONNECT")
    found = _AUTHORITY.fullmatch(parts.netloc)
    if found is None:
        raise EgressRefusedError("its target holds more than a host and a port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    dropped = _dropped_headers(request)
    return Target(untrusted_host=found[1], port=_port(found[2]) if found[2] else _HTTP_PORT), h11.Request(
        method=request.method,
        target=path,
        headers=[
            (b"host", parts.netloc.encode()),
            *((name, value) for name, value in request.headers if name not in dropped),
            (b"connection", b"close"),
        ],
    )


def _dropped_headers(request: h11.Request) -> frozenset[bytes]:
    """What concerns this connection alone, and `Host` and `Expect`, which the proxy answers for itself."""
    named = (value for name, value in request.headers if name == b"connection")
    listed = (word.strip().lower() for value in named for word in value.split(b","))
    return _HOP_BY_HOP | {b"host", b"expect"} | frozenset(listed) - {b"content-length", b"transfer-encoding"}


def socks_greeting_bytes(data: bytes) -> int | None:
    """How long the greeting is that these bytes begin with; `None` while that cannot be told."""
    return 2 + data[1] if len(data) > 1 else None


def socks_request_bytes(data: bytes) -> int | None:
    """How long the request is that these bytes begin with; `None` while that cannot be told.

    Raises:
        EgressRefusedError: no request begins so.
    """
    head = 4
    if len(data) <= head:
        return None
    version, _, _, kind = data[:head]
    if version != SOCKS_VERSION or kind not in {_SOCKS_NAME, *_SOCKS_ADDRESS_BYTES}:
        raise EgressRefusedError("its SOCKS request is malformed")
    return head + (1 + data[head] if kind == _SOCKS_NAME else _SOCKS_ADDRESS_BYTES[kind]) + 2


def socks_target(request: bytes) -> Target:
    """Where a whole SOCKS5 request wants to go.

    Raises:
        EgressRefusedError: it asks for something else than a connection, or its host is no text.
    """
    _, command, _, kind = request[:4]
    if command != _SOCKS_CONNECT:
        raise EgressRefusedError("only connections are made, no datagrams and no listening")
    host, port = request[4:-2], int.from_bytes(request[-2:], "big")
    if kind != _SOCKS_NAME:
        address = ipaddress.ip_address(host)
        spelt = f"[{address}]" if kind == _SOCKS_IPV6 else str(address)
        return Target(untrusted_host=spelt, port=_port(str(port)))
    try:
        return Target(untrusted_host=host[1:].decode("ascii"), port=_port(str(port)))
    except UnicodeDecodeError as error:
        raise EgressRefusedError("its host name is not in A-labels") from error


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= _LARGEST_PORT:
        raise EgressRefusedError(f"there is no port {port}")
    return port


# ======== sandbox/egress_asking.py ====================================================================================
# Hears out a client inside a box, up to where it says whom to connect it with, and knows how to answer it.


READ_BYTES = 1 << 16
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_SOCKS_NO_AUTHENTICATION = b"\x05\x00"
_SOCKS_NONE_ACCEPTABLE = b"\x05\xff"
_SOCKS_GRANTED = b"\x05\x00\x00\x01" + bytes(6)
_SOCKS_REPLIES = {HTTPStatus.FORBIDDEN: 2, HTTPStatus.BAD_GATEWAY: 4}
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a client wants to talk to, and all that it says."""

    target: Target
    """Whom."""
    granted: bytes
    """What it is told once it is connected."""
    said: AsyncIterator[bytes]
    """What the other end is to get."""
    is_tunnel: bool
    """Whether that passes as it comes; else it is one HTTP request."""
    refusal: Callable[[HTTPStatus, str, str], bytes]
    """What it is told where it is not connected: of destination and reason, only the latter stands in a head."""
    addresses: tuple[IPAddress, ...] = ()
    """What its host is known to have been resolved to, in the order to try; empty where that is to be found out."""


class UnreadableRequestError(Exception):
    """A client says what no proxy understands.

    Args:
        reason: what is wrong, without full stop.
        answer: what it is told.
    """

    def __init__(self, reason: str, answer: bytes) -> None:
        self.reason = reason
        self.answer = answer
        super().__init__(reason)


async def asked_by(client: EgressStreams) -> Asked | None:
    """Read a client's request; `None` where it says nothing.

    Raises:
        UnreadableRequestError: there is no making sense of it.
    """
    first = await client[0].read(READ_BYTES)
    if not first:
        return None
    return await (_socks_asked if first[0] == SOCKS_VERSION else _http_asked)(first, client)


async def _http_asked(first: bytes, client: EgressStreams) -> Asked:
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
    try:
        request = await _http_request(theirs, _percent_encoded(first), client[0])
        if request.method == b"CONNECT":
            return Asked(
                target=connect_target(request),
                granted=_CONNECTED,
                said=_tunnelled(theirs.trailing_data[0], client[0]),
                is_tunnel=True,
                refusal=_http_refusal,
            )
        target, forwarded = plain_target(request)
        said = _one_request(theirs, forwarded, client)
    except (h11.ProtocolError, EgressRefusedError) as error:
        why = error if isinstance(error, EgressRefusedError) else "it is no HTTP/1.1"  # h11 cites what the client wrote
        reason = f"a request that cannot be read: {why}"
        raise UnreadableRequestError(reason, _http_refusal(HTTPStatus.BAD_REQUEST, "", reason)) from error
    return Asked(target=target, granted=b"", said=said, is_tunnel=False, refusal=_http_refusal)


def _percent_encoded(first: bytes) -> bytes:
    """The same with a first line in ASCII: some programs send a path as it was typed, which h11 refuses."""
    line, end, rest = first.partition(b"\r\n")
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line) + end + rest


async def _http_request(theirs: h11.Connection, first: bytes, reader: asyncio.StreamReader) -> h11.Request:
    theirs.receive_data(first)
    while (event := theirs.next_event()) is h11.NEED_DATA:
        theirs.receive_data(await reader.read(READ_BYTES))
    if not isinstance(event, h11.Request):
        raise EgressRefusedError("it ends before its first line does")
    return event


async def _tunnelled(first: bytes, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    if first:
        yield first
    while data := await reader.read(READ_BYTES):
        yield data


async def _one_request(theirs: h11.Connection, forwarded: h11.Request, client: EgressStreams) -> AsyncIterator[bytes]:
    """The request's head and body, framed anew, so that what follows it reaches nobody."""
    ours = h11.Connection(h11.CLIENT)
    yield ours.send(forwarded) or b""
    while True:
        event = theirs.next_event()
        if event is h11.NEED_DATA:
            if theirs.they_are_waiting_for_100_continue:
                client[1].write(theirs.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            theirs.receive_data(await client[0].read(READ_BYTES))
        elif isinstance(event, h11.Data):
            yield ours.send(event) or b""
            await asyncio.sleep(0)  # one read can hold thousands of chunks, and others wait for their turn
        elif isinstance(event, h11.EndOfMessage):
            yield ours.send(h11.EndOfMessage()) or b""
            return
        else:
            raise h11.RemoteProtocolError("the request breaks off")


def _http_refusal(status: HTTPStatus, destination: str, reason: str) -> bytes:
    """Say why in the first line too: of a refused tunnel, programs show that line alone. It quotes no request."""
    body = f"sandbox: {destination}{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase} (sandbox: {reason})\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _socks_asked(first: bytes, client: EgressStreams) -> Asked:
    try:
        greeting, rest = await _socks_part(first, socks_greeting_bytes, client[0])
        if 0 not in greeting[2:]:
            raise UnreadableRequestError("a SOCKS client that insists on authentication", _SOCKS_NONE_ACCEPTABLE)
        client[1].write(_SOCKS_NO_AUTHENTICATION)
        request, rest = await _socks_part(rest, socks_request_bytes, client[0])
        target = socks_target(request)
    except EgressRefusedError as error:
        reason = f"a request that cannot be read: {error}"
        raise UnreadableRequestError(reason, _socks_refusal(HTTPStatus.BAD_REQUEST, "", reason)) from error
    said = _tunnelled(rest, client[0])
    return Asked(target=target, granted=_SOCKS_GRANTED, said=said, is_tunnel=True, refusal=_socks_refusal)


async def _socks_part(
    data: bytes, length_of: Callable[[bytes], int | None], reader: asyncio.StreamReader
) -> tuple[bytes, bytes]:
    """One part of the dialogue, and what came after it."""
    while (length := length_of(data)) is None or len(data) < length:
        more = await reader.read(READ_BYTES)
        if not more:
            raise EgressRefusedError("it breaks off")
        data += more
    return data[:length], data[length:]


def _socks_refusal(status: HTTPStatus, _destination: str, _reason: str) -> bytes:
    general_failure = 1
    return bytes([SOCKS_VERSION, _SOCKS_REPLIES.get(status, general_failure), 0, 1, *bytes(6)])


# ======== sandbox/egress_relay.py =====================================================================================
# Passes on what a client inside a box and the server that it was connected with say to each other, and ends both.
#
# Every byte is counted before it is passed on, and too many of one run break its connections. TLS to a host that was
# permitted by its name asks for that name or for another that is permitted: else one server of many hosts would lead to
# them all. Whether a connection may be made at all is decided before, in `egress_proxy`.


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRelay:
    """Relays connections of one run."""

    rules: EgressRules
    """What the names that TLS asks for are held against."""
    account: EgressAccount
    """The run's: what passes is counted there, and what is refused is noted."""
    total_bytes: int
    """That may pass in the whole run, both ways together; then every connection breaks."""

    async def relay(self, client: EgressStreams, server: EgressStreams, *, asked: Asked, host: Host) -> None:
        """Pass on what both ends say, until both, or the one that answers, have said all.

        Args:
            client: who asked.
            server: whom it is connected with.
            asked: what it asked for, with all that it says.
            host: what that was permitted as.

        Raises:
            ConnectionAbortedError: what is said may not pass; why not is in the account.
        """
        upward = asyncio.create_task(self._passed_up(asked, host, server[1]))
        head = None if asked.is_tunnel else AnswerHead()
        downward = asyncio.create_task(self._passed_down(server[0], client[1], head))
        try:
            first, _ = await asyncio.wait((upward, downward), return_when=asyncio.FIRST_EXCEPTION)
            for task in first:
                await task
        finally:
            for task in (upward, downward):
                task.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)

    async def _passed_up(self, asked: Asked, host: Host, server: asyncio.StreamWriter) -> None:
        said = asked.said
        if asked.is_tunnel and isinstance(host, str):
            said = self._honestly_named(said, asked.target.port)
        async for data in said:
            self._count(sent=len(data))
            server.write(data)
            await server.drain()
        if asked.is_tunnel:
            _end_writing(server)

    async def _passed_down(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, head: AnswerHead | None
    ) -> None:
        while data := await server.read(READ_BYTES):
            self._count(received=len(data))
            client.write(data if head is None else head.passed(data))
            await client.drain()
        if head is not None:
            client.write(head.rest())
        _end_writing(client)

    def _count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes, and break the connection where they are too many."""
        account = self.account
        account.sent_bytes += sent
        account.received_bytes += received
        if account.sent_bytes + account.received_bytes > self.total_bytes:
            most = f"{self.total_bytes >> 20} megabytes have passed, as many as may"
            account.note("everything", permitted=False, reason=most)
            raise ConnectionAbortedError

    async def _honestly_named(self, said: AsyncIterator[bytes], port: int) -> AsyncIterator[bytes]:
        """Pass on what a client says, once it is known that TLS asks for no name that is not permitted."""
        reader = ClientHelloReader()
        held: bytearray | None = bytearray()
        async for data in said:
            if held is None:
                yield data
                continue
            held += data
            if not begins_tls(bytes(held[:1])) or self._may_pass(reader, data, port):
                yield bytes(held)
                held = None

    def _may_pass(self, reader: ClientHelloReader, data: bytes, port: int) -> bool:
        """Whether the TLS that a client begins with is known to ask for nothing else; false while that cannot be told.

        Raises:
            ConnectionAbortedError: it does; the decision is in the account.
        """
        name: str | None = None
        try:
            hello = reader.read(data)
            if hello is None:
                return False
            name = server_name(hello)
            if name is not None:
                self.rules.check_host(parse_host(name), port)
        except (MalformedHelloError, EgressRefusedError) as error:
            origin = error.origin if isinstance(error, EgressRefusedError) else ""
            reason = f"TLS asks for it: {error}" if name else f"its TLS cannot be read: {error}"
            self.account.note(f"{name or '?'}:{port}", permitted=False, reason=reason, origin=origin)
            raise ConnectionAbortedError from error
        return True


async def end_connections(*ends: asyncio.StreamWriter, at_once: bool) -> None:
    """Close each end once it has taken all that was written to it; `at_once` drops what it has not taken yet.

    How each ended is heard here: asyncio complains of errors that nobody heard.
    """
    try:
        for end in ends:
            end.close()
        if at_once:
            _drop_unsent(ends)
        await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)
    finally:
        _drop_unsent(ends)


def _drop_unsent(ends: tuple[asyncio.StreamWriter, ...]) -> None:
    for end in ends:
        if end.transport.get_write_buffer_size():  # asyncio fails where one that has closed itself is aborted
            end.transport.abort()


def _end_writing(end: asyncio.StreamWriter) -> None:
    """Say that no more will come; to an end that is gone nothing can be said, and uvloop raises RuntimeError there."""
    if not end.is_closing():
        end.write_eof()


# ======== sandbox/elf.py ==============================================================================================
# Reads from ELF files which shared libraries they ask for, without running anything.
#
# Only 64-bit little-endian files are read: the machines that boxes run on. What is no such file, or is damaged, asks for
# nothing. Source: elf(5), System V ABI chapter 5 (dynamic section).


_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_HEADER_BYTES = 64
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_MOST_SEGMENTS = 1_024
_MOST_TABLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _ElfSegment:
    kind: int
    offset: int
    address: int
    size: int


def needed_names(path: Path) -> tuple[str, ...]:
    """The names of the libraries that a file asks the loader for, in its own order."""
    try:
        with path.open("rb") as file:
            return tuple(_asked_names(file))
    except (struct.error, ValueError, PermissionError):
        return ()  # not one that a loader would take either


def outside_needs(folder: Path) -> dict[str, Path]:
    """For each library that is asked for below a folder and lies nowhere in it, one file that asks for it.

    Links are not followed: what lies behind one that leads out of the folder is not in a box either.
    """
    held: set[str] = set()
    asking: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if ".so" not in name:
                continue
            held.add(name)
            path = Path(place, name)
            for needed in () if path.is_symlink() or not path.is_file() else needed_names(path):
                asking.setdefault(needed, path)
    return {name: path for name, path in sorted(asking.items()) if name not in held}


def _asked_names(file: BinaryIO) -> Iterator[str]:
    segments = tuple(_elf_segments(file))
    for dynamic in (one for one in segments if one.kind == _PT_DYNAMIC):
        entries = tuple(_dynamic_entries(_elf_bytes_at(file, dynamic.offset, dynamic.size)))
        yield from _names_of_entries(file, entries, tuple(one for one in segments if one.kind == _PT_LOAD))


def _names_of_entries(
    file: BinaryIO, entries: tuple[tuple[int, int], ...], loaded: tuple[_ElfSegment, ...]
) -> Iterator[str]:
    """The names are in a table of texts that the entries give by its address in memory."""
    table = dict(entries)
    address = table.get(_DT_STRTAB, 0)
    offsets = [one.offset - one.address for one in loaded if one.address <= address < one.address + one.size]
    texts = _elf_bytes_at(file, offsets[0] + address, table.get(_DT_STRSZ, 0)) if offsets else b""
    for tag, value in entries:
        if tag == _DT_NEEDED:
            yield os.fsdecode(texts[value : texts.index(b"\0", value)])


def _elf_segments(file: BinaryIO) -> Iterator[_ElfSegment]:
    header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC_64_LITTLE):
        raise ValueError("it is no ELF file of this kind")
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    if size != _SEGMENT.size or count > _MOST_SEGMENTS:
        raise ValueError("its program header is of another size")
    for kind, _, offset, address, _, length, _, _ in _SEGMENT.iter_unpack(_elf_bytes_at(file, start, size * count)):
        yield _ElfSegment(kind=kind, offset=offset, address=address, size=length)


def _dynamic_entries(content: bytes) -> Iterator[tuple[int, int]]:
    for tag, value in struct.iter_unpack("<QQ", content):
        if tag == _DT_NULL:
            return
        yield tag, value


def _elf_bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _MOST_TABLE_BYTES or offset > os.fstat(file.fileno()).st_size:
        raise ValueError("it is cut short, or damaged")
    file.seek(offset)
    return file.read(size)


# ======== sandbox/errors.py ===========================================================================================
# What can go wrong outside the person's code. Code that fails is an outcome, never one of these.


class SandboxError(Exception):
    """The run was refused, or could not be carried out.

    Args:
        key: what it is about: a limit, a file, a program.
        origin: where that stands: a variable, a path, `this host`.
        reason: why, without full stop.
        remedy: what to do about it, without full stop.
    """

    def __init__(self, *, key: str, origin: str, reason: str, remedy: str) -> None:
        self.key = key
        self.origin = origin
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{key} ({origin}): {reason}. {remedy}.")


class UnenforceableError(SandboxError):
    """A limit cannot be enforced on this host, and the effective limits do not permit going without it."""


class BusyError(SandboxError):
    """As many runs as the limits permit are under way."""


class StartError(SandboxError):
    """gVisor did not bring the interpreter up.

    Args:
        reason: why, without full stop.
        detail: what gVisor itself said; an internal, for whoever may see those.
        remedy: what to do about it, without full stop.
    """

    def __init__(
        self, *, reason: str, detail: str = "", remedy: str = "`sandbox doctor` finds out what this host lacks"
    ) -> None:
        self.detail = detail
        super().__init__(key="gVisor", origin="this host", reason=reason, remedy=remedy)

    def with_internals(self) -> Self:
        """The same error, with what gVisor said in its reason."""
        return type(self)(reason=f"{self.reason} ({self.detail})", remedy=self.remedy) if self.detail else self


class InstallError(SandboxError):
    """gVisor is missing and could not be installed."""


# ======== sandbox/cgroup_places.py ====================================================================================
# Where a cgroup is and what it controls there, and what to say where a controller cannot be had.


CGROUP_MOUNT_REMEDY = (
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true` and "
    "a `hostPath` volume of `/sys/fs/cgroup` mounted there with `readOnly: false`; else mount /sys/fs/cgroup writable"
)
CGROUP_DELEGATION_REMEDY = (
    "systemd: `Delegate=yes` and `DelegateSubgroup=runner` (systemd 254 or newer) in the service, or run as root; "
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true`"
)
CGROUP_KERNEL_REMEDY = (
    "Boot the kernel with `cgroup_enable={name}` and without `cgroup_disable={name}`, or use a kernel built with it"
)


class CgroupVersion(IntEnum):
    """Which interface the files of a hierarchy have."""

    V1 = 1
    V2 = 2


class CgroupController(StrEnum):
    """A kernel controller that a limit needs."""

    MEMORY = "memory"
    CPU = "cpu"
    PIDS = "pids"


LIMIT_OF_CONTROLLER = {
    CgroupController.MEMORY: "max_ram_megabytes",
    CgroupController.CPU: "max_cpus",
    CgroupController.PIDS: "max_processes",
}
ACCOUNTING_CONTROLLER = "cpuacct"
MEMORY_LIMIT_FILES = {CgroupVersion.V1: "memory.limit_in_bytes", CgroupVersion.V2: "memory.max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlace:
    """One cgroup of one hierarchy, and what it controls there."""

    folder: Path
    """The cgroup itself: in a `CgroupParent` the one that holds `sandbox-lockdown`, in a `RunCgroup` the run's own."""
    version: CgroupVersion
    """Which interface its files have."""
    controllers: frozenset[str]
    """Names of the controllers used there; on v1 `cpuacct` may be among them, which only counts."""


def cgroup_place_of(places: tuple[CgroupPlace, ...], controller: str) -> CgroupPlace | None:
    """Where a controller is used; `None` where it is not."""
    return next((place for place in places if controller in place.controllers), None)


def unenforceable_controller(controller: CgroupController, reason: str, remedy: str) -> UnenforceableError:
    """The refusal to go without the limit that a controller is needed for."""
    return UnenforceableError(key=LIMIT_OF_CONTROLLER[controller], origin="this host", reason=reason, remedy=remedy)


# ======== sandbox/cgroup_counters.py ==================================================================================
# What the kernel counted in the cgroups of one run, and what it still permits.
#
# Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.


_MEMORY_USAGE_FILES = {CgroupVersion.V1: "memory.usage_in_bytes", CgroupVersion.V2: "memory.current"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the kernel counted for one run; read them before the cgroup is removed."""

    oom_kills: int
    """Kills because memory ran out, none of them missed; v2 counts one process twice where it ends a whole group."""
    peak_memory_bytes: int | None
    """The most memory used at once; absent where the kernel does not tell (v2 before 5.19)."""
    cpu_seconds: float | None
    """CPU time used; absent where nothing counts it."""
    pids_limit_hits: int
    """How often a new process or thread was refused."""


def counted(places: tuple[CgroupPlace, ...]) -> Counters:
    """Read what was counted so far in the cgroups of one run.

    Raises:
        UnenforceableError: the kernel does not tell whether memory ran out.
    """
    memory = cgroup_place_of(places, CgroupController.MEMORY)
    pids = cgroup_place_of(places, CgroupController.PIDS)
    return Counters(
        oom_kills=_oom_kills(memory) if memory else 0,
        peak_memory_bytes=_peak_memory_bytes(memory) if memory else None,
        cpu_seconds=cgroup_cpu_seconds(places),
        pids_limit_hits=cgroup_number(pids.folder / "pids.events", "max") or 0 if pids else 0,
    )


def cgroup_cpu_seconds(places: tuple[CgroupPlace, ...]) -> float | None:
    """Read the CPU time used: v1's `cpuacct` counts nanoseconds, v2's `cpu` microseconds."""
    accounting = cgroup_place_of(places, ACCOUNTING_CONTROLLER)
    if accounting is not None:
        nanoseconds = cgroup_number(accounting.folder / "cpuacct.usage", "")
        return None if nanoseconds is None else nanoseconds / 1e9
    unified = next((place for place in places if place.version is CgroupVersion.V2), None)
    microseconds = cgroup_number(unified.folder / "cpu.stat", "usage_usec") if unified else None
    return None if microseconds is None else microseconds / 1e6


def cgroup_memory_used_bytes(place: CgroupPlace) -> int | None:
    """Memory that cannot be had back: all that is charged but the cache of files."""
    used = _memory_usage_bytes(place)
    prefix = "total_" if place.version is CgroupVersion.V1 else ""
    cached = [cgroup_number(place.folder / "memory.stat", f"{prefix}{name}_file") for name in ("active", "inactive")]
    return None if used is None else used - sum(number or 0 for number in cached)


def memory_left_bytes(places: tuple[CgroupPlace, ...]) -> int | None:
    """Memory that the cgroups above those of runs still permit; `None` where none of them has a limit."""
    place = cgroup_place_of(places, CgroupController.MEMORY)
    lefts = (
        []
        if place is None
        else [_memory_left(place.version, folder) for folder in (place.folder, *place.folder.parents)]
    )
    return min((left for left in lefts if left is not None), default=None)


def _oom_kills(place: CgroupPlace) -> int:
    """Count kills for lack of memory; v1 tells since Linux 4.13, which is older than gVisor supports."""
    name = "memory.oom_control" if place.version is CgroupVersion.V1 else "memory.events"
    kills = cgroup_number(place.folder / name, "oom_kill")
    if kills is None:
        # Without it, running out of memory would pass for an ordinary failure.
        reason = f"{place.folder / name} tells no oom_kill"
        raise unenforceable_controller(CgroupController.MEMORY, reason, "Leave the cgroup alone while the run lasts")
    return kills


def _memory_usage_bytes(place: CgroupPlace) -> int | None:
    return cgroup_number(place.folder / _MEMORY_USAGE_FILES[place.version], "")


def _peak_memory_bytes(place: CgroupPlace) -> int | None:
    name = "memory.max_usage_in_bytes" if place.version is CgroupVersion.V1 else "memory.peak"
    return cgroup_number(place.folder / name, "")


def _memory_left(version: CgroupVersion, folder: Path) -> int | None:
    try:
        limit = cgroup_number(folder / MEMORY_LIMIT_FILES[version], "")
        used = cgroup_number(folder / _MEMORY_USAGE_FILES[version], "")
    except ValueError:  # the word `max`
        return None
    return None if limit is None or used is None else max(limit - used, 0)


# ======== sandbox/cgroup_limits.py ====================================================================================
# What one run may use, set in its cgroups and proved by reading it back.
#
# Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.


CPU_PERIOD_MICROSECONDS = 100_000
CPU_QUOTA_FLOOR_MICROSECONDS = 1_000
SOCKET_RAM_BYTES = 32 << 20
"""What the kernel may hold for the TCP sockets of a box; cgroup v1 counts it apart from all other memory."""
_SOCKET_MEMORY_FILE = "memory.kmem.tcp.limit_in_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What one run may use; `None` is no limit."""

    memory_bytes: int | None
    """RAM of all its processes, gVisor's own included, in bytes; swap is shut off beside it."""
    cpu_thousandths: int | None
    """CPU time for each unit of wall time, in thousandths of one CPU; at least 10."""
    processes_hard_stop: int | None
    """Processes and threads, gVisor's own included: a stop behind the box's own softer limit."""

    def __post_init__(self) -> None:
        """Refuse what would mean something else to the kernel than to the reader."""
        if self.memory_bytes is not None and self.memory_bytes < os.sysconf("SC_PAGE_SIZE"):
            raise ValueError("memory_bytes is less than one page")
        if self.cpu_thousandths is not None and self.cpu_quota < CPU_QUOTA_FLOOR_MICROSECONDS:
            raise ValueError("cpu_thousandths is less than the kernel's smallest quota")
        if self.processes_hard_stop is not None and self.processes_hard_stop < 1:
            raise ValueError("processes_hard_stop is less than 1")

    @property
    def memory_pages_bytes(self) -> int:
        """The memory limit as the kernel keeps it: whole pages, rounded down."""
        memory_bytes = self.memory_bytes or 0
        return memory_bytes - memory_bytes % os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_quota(self) -> int:
        """Microseconds of CPU time in each period of 100 ms."""
        return (self.cpu_thousandths or 0) * CPU_PERIOD_MICROSECONDS // 1000

    def asked_for(self, controller: CgroupController) -> bool:
        """Whether a limit here needs that controller."""
        match controller:
            case CgroupController.MEMORY:
                return self.memory_bytes is not None
            case CgroupController.CPU:
                return self.cpu_thousandths is not None
            case CgroupController.PIDS:
                return self.processes_hard_stop is not None


def set_cgroup_limit(places: tuple[CgroupPlace, ...], controller: CgroupController, limits: CgroupLimits) -> None:
    """Set and prove one limit.

    Raises:
        UnenforceableError: its controller is not used here, or the kernel did not take it.
    """
    place = cgroup_place_of(places, controller)
    if place is None:
        raise unenforceable_controller(controller, f"no cgroup controls `{controller}`", CGROUP_DELEGATION_REMEDY)
    try:
        for name, value in _cgroup_limit_files(place, controller, limits):
            write_cgroup_file(place.folder / name, value)
            taken = cgroup_text(place.folder / name).split()
            if taken[: len(value.split())] != value.split():
                raise unenforceable_controller(
                    controller, f"{place.folder / name} says {' '.join(taken)} after {value}", CGROUP_DELEGATION_REMEDY
                )
    except OSError as error:
        reason = f"{error.filename or place.folder} cannot be set: {error.strerror}"
        raise unenforceable_controller(controller, reason, CGROUP_KERNEL_REMEDY.format(name=controller)) from error


def bounds_socket_memory(places: tuple[CgroupPlace, ...]) -> bool:
    """Whether the memory limit of cgroups here bounds kernel memory of sockets too. Source: memory.rst of v1 and v2."""
    of_memory = (place for place in places if CgroupController.MEMORY.value in place.controllers)
    return all(
        place.version is CgroupVersion.V2 or (place.folder / _SOCKET_MEMORY_FILE).exists() for place in of_memory
    )


def _cgroup_limit_files(
    place: CgroupPlace, controller: CgroupController, limits: CgroupLimits
) -> Iterator[tuple[str, str]]:
    """List the files to write in this order, and what they must say afterwards."""
    match controller:
        case CgroupController.MEMORY:
            yield from _cgroup_memory_files(place, str(limits.memory_pages_bytes))
        case CgroupController.PIDS:
            yield "pids.max", str(limits.processes_hard_stop)
        case CgroupController.CPU if place.version is CgroupVersion.V1:
            yield "cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS)
            yield "cpu.cfs_quota_us", str(_permitted_quota(place.folder, limits.cpu_quota))
        case CgroupController.CPU:
            yield "cpu.max", f"{limits.cpu_quota} {CPU_PERIOD_MICROSECONDS}"
        case _:
            assert_never(controller)


def _cgroup_memory_files(place: CgroupPlace, limit: str) -> Iterator[tuple[str, str]]:
    """List the files that bound RAM and shut off swap, where the kernel has swap accounting."""
    wanted: tuple[tuple[str, str], ...]
    if place.version is CgroupVersion.V1:
        # A child inherits a switched-off killer, and would then hang at its limit instead of ending.
        wanted = (
            ("memory.limit_in_bytes", limit),
            ("memory.memsw.limit_in_bytes", limit),
            ("memory.swappiness", "0"),
            (_SOCKET_MEMORY_FILE, str(SOCKET_RAM_BYTES)),
        )
        write_cgroup_file(place.folder / "memory.oom_control", "0")
    else:
        wanted = (("memory.max", limit), ("memory.swap.max", "0"), ("memory.oom.group", "1"))
    for name, value in wanted:
        if name == MEMORY_LIMIT_FILES[place.version] or (place.folder / name).exists():
            yield name, value


def _permitted_quota(folder: Path, quota: int) -> int:
    """The CPU quota that is asked for, or what those above permit; they are looked at only where it is too much."""
    try:
        write_cgroup_file(folder / "cpu.cfs_quota_us", str(quota))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return min(quota, _quota_above(folder))
    return quota


def _quota_above(folder: Path) -> int:
    """Find the least CPU quota of the v1 cgroups above, for our period: a child with more is refused (EINVAL)."""
    quotas = [sys.maxsize]
    for above in folder.parents:
        if not (above / "cpu.cfs_quota_us").exists():
            break
        quota = int(cgroup_text(above / "cpu.cfs_quota_us"))
        period = int(cgroup_text(above / "cpu.cfs_period_us"))
        if quota > 0:
            quotas.append(max(quota * CPU_PERIOD_MICROSECONDS // period, CPU_QUOTA_FLOOR_MICROSECONDS))
    return min(quotas)


# ======== sandbox/folders.py ==========================================================================================
# The private folder of the running user, and folders that appear whole or not at all.
#
# What is run from here was checked once, so nobody else may be able to swap it afterwards: every folder on the way,
# symbolic links included, must belong to root or to the running user and be writable by nobody else. `/tmp` and its like
# are refused as a place to create anything, since a cleaner may remove what stood there and let somebody else put
# theirs. Half-made things live beside their destination under one prefix; whoever holds the lock removes the leftovers.
# Source: XDG Base Directory Specification 0.8.


PARTIAL_PREFIX = ".partial-"

_PRIVATE_FOLDER_NAME = "sandbox-lockdown"
_MOST_SYMBOLIC_LINKS = 40  # as the kernel's own ELOOP limit
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LOCK_POLL_SECONDS = 0.2


class UnsafeFolderError(SandboxError):
    """Somebody other than root and the running user could replace what stands at a path."""


def private_folder(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Path:
    """The running user's own cache folder for this project, created 0700 where missing, free of symbolic links.

    Args:
        environ: where `XDG_CACHE_HOME` and `HOME` are looked up; by default this process's.
        uid: the user it must belong to; by default the effective one.

    Raises:
        UnsafeFolderError: somebody else could replace the folder or what it holds.
        SandboxError: there is no home, or the folder cannot be made.
    """
    owner = os.geteuid() if uid is None else uid
    wanted = private_folder_path(os.environ if environ is None else environ, owner)
    try:
        folder = _made_folder(wanted, owner)
    except OSError as error:
        raise SandboxError(
            key="private folder",
            origin=str(wanted),
            reason=f"it cannot be made or read: {error.strerror}",
            remedy="Set XDG_CACHE_HOME to an absolute path that this user can write",
        ) from error
    _refuse_shared_folder(folder, owner)
    return folder


def private_folder_path(environ: Mapping[str, str], uid: int) -> Path:
    """Where the private folder of a user is or would be; nothing is made, and nothing there is trusted yet.

    Raises:
        SandboxError: there is no home.
    """
    return _cache_home(environ, uid) / _PRIVATE_FOLDER_NAME


def trusted_path(path: Path, uid: int, *, group_may_write: bool = False) -> Path:
    """The path with every symbolic link followed, none of whose folders anybody but root and `uid` can alter.

    Args:
        path: absolute; its last component may be missing, as may folders before it.
        uid: the running user.
        group_may_write: accept root's folders that a group can write, as Debian's `/usr/local` once was.

    Raises:
        UnsafeFolderError: a folder or link on the way is somebody else's, or writable by others.
    """
    here, rest, links = Path("/"), list(reversed(path.parts[1:])), 0
    while rest:
        part = rest.pop()
        following = here.parent if part == ".." else here / part
        try:
            found = following.lstat()
        except FileNotFoundError:
            return following.joinpath(*reversed(rest))
        if not stat.S_ISLNK(found.st_mode):
            _refuse_replaceable(following, found, uid, group_may_write=group_may_write)
            here = following
            continue
        links += 1
        if links > _MOST_SYMBOLIC_LINKS or found.st_uid not in {0, uid}:
            raise _unsafe_folder(following, f"it is a symbolic link of uid {found.st_uid}, or one of too many")
        target = following.readlink()
        here = Path("/") if target.is_absolute() else here
        rest.extend(reversed([part for part in target.parts if part != "/"]))
    return here


@contextmanager
def folder_lock(folder: Path, *, wait_seconds: float, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the folder's lock, and say whether somebody else held it before; leftovers of crashes are removed.

    Raises:
        TimeoutError: it stayed held for `wait_seconds`.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        waited = _flocked(descriptor, wait_seconds, on_wait)
        for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield waited
    finally:
        os.close(descriptor)  # which also unlocks


@contextmanager
def partial_folder(beside: Path) -> Iterator[Path]:
    """Lend a new empty folder (0700) in `beside`, gone again at the end unless it was published."""
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(made: Path, destination: Path) -> None:
    """Put a finished folder in its place in one step, on disk before it shows; an older one there is removed."""
    for folder, _, names in os.walk(made):
        for name in names:
            _flush_to_disk(Path(folder, name))
        _flush_to_disk(Path(folder))
    if destination.exists():
        outgoing = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=destination.parent))
        destination.rename(outgoing / "replaced")
        shutil.rmtree(outgoing, ignore_errors=True)
    made.rename(destination)
    _flush_to_disk(destination.parent)


def _cache_home(environ: Mapping[str, str], uid: int) -> Path:
    chosen = environ.get("XDG_CACHE_HOME", "")
    if chosen.startswith("/"):  # the specification has relative ones ignored
        return Path(chosen)
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        home = _home_of(uid)
    if not Path(home).is_dir():
        raise SandboxError(
            key="private folder",
            origin=home,
            reason="the running user's home does not exist",
            remedy="Set HOME or XDG_CACHE_HOME to a folder of this user",
        )
    return Path(home, ".cache")


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise SandboxError(
            key="private folder",
            origin="this host",
            reason=f"HOME is not set and uid {uid} is not in the password database",
            remedy="Set HOME or XDG_CACHE_HOME to a folder of this user",
        ) from None


def _made_folder(wanted: Path, uid: int) -> Path:
    if wanted.is_symlink():
        raise _unsafe_folder(wanted, "it is a symbolic link")
    folder = trusted_path(wanted, uid)
    missing = [folder, *folder.parents]
    for parent in reversed([path for path in missing if not path.exists()]):
        if parent.parent.stat().st_mode & stat.S_ISVTX:
            raise _unsafe_folder(parent, "it would be made in a folder where everybody makes things")
        # somebody else may be making it at this moment; whose it is gets checked below
        parent.mkdir(mode=0o700, exist_ok=True)
    return trusted_path(folder, uid)


def _refuse_shared_folder(folder: Path, uid: int) -> None:
    found = folder.lstat()
    if found.st_uid != uid:
        raise _unsafe_folder(folder, f"it belongs to uid {found.st_uid}, not to the running uid {uid}")
    if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)


def _refuse_replaceable(path: Path, found: os.stat_result, uid: int, *, group_may_write: bool) -> None:
    if found.st_uid not in {0, uid}:
        raise _unsafe_folder(path, f"it belongs to uid {found.st_uid}, who could replace what is in it")
    if group_may_write and found.st_uid == 0 and not found.st_mode & stat.S_IWOTH:
        return
    if not found.st_mode & _OTHERS_MAY_WRITE:
        _refuse_visitor(path, found, uid)
    elif not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        raise _unsafe_folder(path, f"others can write it (mode {stat.S_IMODE(found.st_mode):04o})")


def _refuse_visitor(path: Path, found: os.stat_result, uid: int) -> None:
    """Refuse what stands in a sticky folder, unless it is a private folder that this user put there on purpose."""
    if not path.parent.lstat().st_mode & stat.S_ISVTX:
        return
    if found.st_uid != uid or stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise _unsafe_folder(path, "it stands where everybody makes things, and is not a 0700 folder of this user")


def _unsafe_folder(path: Path, reason: str) -> UnsafeFolderError:
    return UnsafeFolderError(
        key="folder",
        origin=str(path),
        reason=reason,
        remedy="Mend its owner and mode, or set XDG_CACHE_HOME to a folder that only root and this user can write",
    )


def _flocked(descriptor: int, wait_seconds: float, on_wait: Callable[[], None]) -> bool:
    deadline, waited = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"somebody else held the lock for {wait_seconds:.0f} seconds") from None
        else:
            return waited
        if not waited:
            waited = True
            on_wait()
        time.sleep(_LOCK_POLL_SECONDS)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ======== sandbox/forwarder.py ========================================================================================
# The program that carries connections out of a box: from a port of its loopback to the one socket that leads outside.
#
# It is a process of its own beside the person's code, which may end it and harms only itself. Nothing it does is
# believed: whom a connection may reach is decided at the other end of that socket.
#
# Source: clone(2) and wait(2): a child that tells its parent nothing at its end is none that `wait` knows of, so code
# that waits for all its children never waits for this one. `ctypes` itself takes eight milliseconds longer to import
# than what it is made of.


EGRESS_PORT = 3128
"""On the box's loopback: what proxies commonly have."""
EGRESS_FOLDER = "/run/egress"
"""In the box: the folder that holds the socket, and nothing else."""
EGRESS_SOCKET = "proxy"
"""The socket's name in its folder."""
PROXY_URL = f"http://127.0.0.1:{EGRESS_PORT}"
PROXY_ENVIRONMENT = (
    *(f"{name}={PROXY_URL}" for name in ("http_proxy", "https_proxy", "all_proxy")),
    *(f"{name}={PROXY_URL}" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")),
    *(f"{name}=localhost,127.0.0.1,::1" for name in ("no_proxy", "NO_PROXY")),
    "NODE_USE_ENV_PROXY=1",
)
"""By what curl, pip, git, npm, requests and the like are told of a proxy; most read one spelling alone."""

FORWARDER = """
def forward(path, port):
    import _ctypes, _socket, os

    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    if _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "syscall"), (clone, 0, 0, 0, 0, 0)):
        listener.close()
        return
    import select

    nowhere = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    ends, others, unsent, ended, shut, poll = {}, {}, {}, set(), set(), select.poll()

    def joined():
        near = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0, listener._accept()[0])
        far = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        far.connect(path)
        for end, other in ((near, far), (far, near)):
            end.setblocking(False)
            number = end.fileno()
            ends[number], others[number], unsent[number] = end, other.fileno(), b""
            poll.register(number, select.POLLIN)

    def parted(number):
        for one in (number, others[number]):
            watched(one, 0)
            ended.discard(one)
            shut.discard(one)
            ends.pop(one).close()
            del others[one], unsent[one]

    def watched(number, events):
        if events:
            poll.register(number, events)
            return
        try:
            poll.unregister(number)
        except KeyError:
            pass

    def sent(number):
        try:
            unsent[number] = unsent[number][ends[number].send(unsent[number]) :]
        except BlockingIOError:
            pass

    def moved(number):
        other = others[number]
        if unsent[number]:
            sent(number)
        elif not unsent[other] and number not in ended:
            unsent[other] = ends[number].recv(65536)
            if unsent[other]:
                sent(other)
            else:
                ended.add(number)
        for one in (number, other):
            if others[one] in ended and not unsent[one] and one not in shut:
                ends[one].shutdown(_socket.SHUT_WR)
                shut.add(one)
        if number in shut and other in shut:
            parted(number)
            return
        for one in (number, other):
            reads = select.POLLIN if one not in ended and not unsent[others[one]] else 0
            watched(one, reads | (select.POLLOUT if unsent[one] else 0))

    poll.register(listener.fileno(), select.POLLIN)
    while True:
        for number, _ in poll.poll():
            try:
                if number == listener.fileno():
                    joined()
                elif number in ends:
                    moved(number)
            except BlockingIOError:
                pass
            except OSError:
                if number in ends:
                    parted(number)
"""
"""Python that defines `forward(path, port)`: afterwards the port is there, and a process of its own looks after it."""


# ======== sandbox/egress_socket.py ====================================================================================
# The socket that leads from a box to its egress proxy, in a folder of its own that is mounted into the box.
#
# Whoever is inside may connect to it, as whatever user; that nobody else on the host comes near is left to the private
# folder around it. It is bound through the open folder, so that it does not matter how long the path is.


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


# ======== sandbox/egress_proxy.py =====================================================================================
# Connects the code of one run with what it may reach, through a socket that leads from its box to here.
#
# The box has no network. A forwarder on its loopback hands each connection to this proxy, which is asked as any HTTP or
# SOCKS5 proxy is: it resolves names itself, checks every address, connects to the very address it checked, and writes
# each decision down. What follows a redirect is a new request. Until the box has been handed code nothing is permitted.


_MOST_HEARD = 2
"""Times as many connections as may be at once are heard out; one beyond is ended unheard, since each takes a descriptor
of this process. So are times as many as may be in all; then nobody listens any more, since each costs time, too."""
_ACCEPTED_AT_A_TIME = 16
"""Before others have their turn; asyncio accepts as many in one go as it is told may wait."""
_PART_FOR_BOXES = 2
"""Once half of the descriptors that this process may have are in use, boxes get no more: a server needs the rest."""
_TOO_FEW_DESCRIPTORS = "the server has too few file descriptors left"
_MOST_WAITED_FOR = 4
"""Addresses of one name for which there is time, if none answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressBounds:
    """What one run may ask of its proxy, so that it harms neither this process nor the rest of the network."""

    connections_at_once: int = 256
    """Open at a time; one more is refused."""
    connections: int = 10_000
    """In all; one more is refused."""
    connections_a_second: float = 50.0
    """Beyond the first `connections_at_once`, which need not wait, each one waits for its turn."""
    total_bytes: int = 4 << 30
    """Both ways together; then every connection ends."""
    head_seconds: float = 10.0
    """Until a client has said whom it wants to talk to."""
    connect_seconds: float = 10.0
    """Until a name is resolved and one of its addresses answers."""


class EgressProxy:
    """The only way out of one box."""

    def __init__(
        self,
        network: EgressNetwork | None = None,
        bounds: EgressBounds | None = None,
        *,
        asking: Callable[[EgressStreams], Awaitable[Asked | None]] = asked_by,
    ) -> None:
        """Listen nowhere yet.

        Args:
            network: where connections are made; this host's by default.
            bounds: how much is permitted.
            asking: how it is found out what a client wants.
        """
        self.account = EgressAccount()
        self._network = HostNetwork() if network is None else network
        self._bounds = bounds or EgressBounds()
        self._rules: EgressRules | None = None
        self._asking = asking
        self._servers: list[asyncio.Server] = []
        self._came_in_all = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._begun = 0
        self._next_turn = 0.0
        self._closed = False

    async def listen(self, folder: Path) -> Self:
        """Make the folder with the socket in it, which every user inside a box may use.

        Args:
            folder: in a private folder; nobody else on this host comes near it.
        """
        with new_socket_folder(folder) as opened:
            try:
                await self._listen_in(opened)
            except BaseException:
                self.abandon()
                raise
        return self

    async def serve(self, listening: socket.socket) -> None:
        """Serve a socket that listens already, and close it at the end."""
        await self._serving_from(
            listening,
            asyncio.start_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
        )

    async def _listen_in(self, opened: int) -> None:
        listening = bound_egress_socket(opened)
        await self._serving_from(
            listening,
            asyncio.start_unix_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
        )

    async def _serving_from(self, listening: socket.socket, making: Awaitable[asyncio.Server]) -> None:
        """Serve a socket; whoever is cancelled meanwhile leaves the event loop nothing to watch that is closed."""
        try:
            server = await making
        except BaseException:
            listening.close()
            raise
        self._servers.append(server)
        await server.start_serving()
        listening.listen(self._bounds.connections_at_once)

    def open(self, rules: EgressRules) -> None:
        """Permit what these rules do, from now on."""
        self._rules = rules
        self._next_turn = asyncio.get_running_loop().time()

    def abandon(self) -> None:
        """Let nobody in any more, waiting for nothing."""
        self._closed = True
        self._listen_no_more()
        self._network.close()

    async def close(self) -> None:
        """End every connection."""
        self.abandon()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _listen_no_more(self) -> None:
        for server in self._servers:
            server.close()

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._came_in_all += 1
        if self._came_in_all >= _MOST_HEARD * self._bounds.connections:
            self._listen_no_more()
        scarce = _takes_from_others(writer)
        if scarce:
            self.account.note("?", permitted=False, reason=_TOO_FEW_DESCRIPTORS)
        if scarce or self._closed or len(self._serving) >= _MOST_HEARD * self._bounds.connections_at_once:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._served((reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: writer.close())  # even where it was cancelled before it began

    async def _served(self, client: EgressStreams) -> None:
        try:
            await self._answered(client)
        except (OSError, TimeoutError, h11.ProtocolError):
            return  # either end is gone, or says nothing; the other is told by the closing
        finally:
            await end_connections(client[1], at_once=self._closed)

    async def _answered(self, client: EgressStreams) -> None:
        try:
            async with asyncio.timeout(self._bounds.head_seconds):
                asked = await self._asking(client)
        except UnreadableRequestError as error:
            self.account.note("?", permitted=False, reason=error.reason)
            client[1].write(error.answer)
            return
        if asked is not None:
            await self._connected_or_refused(asked, client)

    async def _connected_or_refused(self, asked: Asked, client: EgressStreams) -> None:
        destination = f"{asked.target.untrusted_host}:{asked.target.port}"
        try:
            async with asyncio.timeout(self._bounds.connect_seconds):
                host = parse_host(asked.target.untrusted_host)
                rules = self._opened_rules()
                server = await self._connected(rules, host, asked)
        except EgressRefusedError as refusal:
            self.account.note(destination, permitted=False, reason=refusal.reason, origin=refusal.origin)
            client[1].write(asked.refusal(HTTPStatus.FORBIDDEN, f"{destination} refused: ", refusal.told))
            return
        except (UnreachableError, OSError, TimeoutError) as error:
            reason = _why_unreachable(error)
            self.account.note(destination, permitted=True, reason=reason)
            client[1].write(asked.refusal(HTTPStatus.BAD_GATEWAY, f"{destination} not reached: ", reason))
            return
        self.account.note(destination, permitted=True)
        client[1].write(asked.granted)
        try:
            relay = EgressRelay(rules=rules, account=self.account, total_bytes=self._bounds.total_bytes)
            await relay.relay(client, server, asked=asked, host=host)
        finally:
            await end_connections(client[1], server[1], at_once=self._closed)

    def _opened_rules(self) -> EgressRules:
        """What permits.

        Raises:
            EgressRefusedError: nothing does yet.
        """
        if self._rules is None:
            raise EgressRefusedError("the box has not been handed any code yet")
        return self._rules

    async def _connected(self, rules: EgressRules, host: Host, asked: Asked) -> EgressStreams:
        """A connection to an address that the rules permit; of a name, one of those known, if any are.

        Raises:
            EgressRefusedError: they permit none.
            UnreachableError: none answers.
        """
        port = asked.target.port
        await self._turn()
        rules.check_host(host, port)
        found = asked.addresses or (await self._network.addresses(host) if isinstance(host, str) else (host,))
        permitted, refusal = self._permitted_addresses(rules, found)
        if refusal is not None and not permitted:
            raise refusal
        failure: OSError | None = None
        share = self._bounds.connect_seconds / max(1, min(len(permitted), _MOST_WAITED_FOR))
        for address in permitted:
            try:
                async with asyncio.timeout(share):
                    server = await self._network.connected(address, port)
            except OSError as error:
                failure = error
                continue
            if _takes_from_others(server[1]):
                server[1].transport.abort()
                raise UnreachableError(_TOO_FEW_DESCRIPTORS)
            return server
        raise UnreachableError(_why_unreachable(failure) if failure else "its name has no address")

    def _permitted_addresses(
        self, rules: EgressRules, found: tuple[IPAddress, ...]
    ) -> tuple[tuple[IPAddress, ...], EgressRefusedError | UnreachableError | None]:
        """Those that may be connected to, and why the last of the others may not."""
        permitted: list[IPAddress] = []
        refusal: EgressRefusedError | UnreachableError | None = None
        for address in found:
            try:
                rules.check_address(address, own=self._network.is_own(address))
            except (EgressRefusedError, UnreachableError) as error:
                refusal = error
            else:
                permitted.append(address)
        return tuple(permitted), refusal

    async def _turn(self) -> None:
        """Wait until one more connection may be made.

        Raises:
            EgressRefusedError: there are too many.
        """
        bounds, now = self._bounds, asyncio.get_running_loop().time()
        if len(self._serving) > bounds.connections_at_once:
            raise EgressRefusedError(f"{bounds.connections_at_once} connections are open already, as many as may be")
        self._begun += 1
        if self._begun > bounds.connections:
            raise EgressRefusedError(f"the run has made {bounds.connections} connections already, as many as may be")
        if self._begun > bounds.connections_at_once:
            self._next_turn = max(self._next_turn, now) + 1 / bounds.connections_a_second
            await asyncio.sleep(self._next_turn - now)


def _takes_from_others(end: asyncio.StreamWriter) -> bool:
    """Whether a connection's descriptor shows that so many are in use that this process needs the rest for its own.

    The kernel hands out the lowest number that is free. Source: open(2), getrlimit(2).
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number: int = end.get_extra_info("socket").fileno()
    return most != resource.RLIM_INFINITY and number >= most // _PART_FOR_BOXES


def _why_unreachable(error: Exception) -> str:
    """Why a connection failed, in words that no host name or path comes into."""
    if isinstance(error, UnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)  # into its own text asyncio puts the address
    return "it cannot be connected to"


# ======== sandbox/loopback_routes.py ==================================================================================
# Makes every destination lead to the loopback of the network namespace that the calling thread is in, by rtnetlink.
#
# Source: rtnetlink(7), netlink(7); linux/rtnetlink.h, linux/if_addr.h.


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


# ======== sandbox/name_messages.py ====================================================================================
# Reads the questions of DNS clients in a box, and writes the answers: pure functions on one message each.
#
# Only what a stub resolver says is understood: one question of the class IN, in a message with no pointers before it.
# Whatever follows the question (EDNS) is left alone, so an answer fits into 512 bytes, with as many addresses as do.
#
# Source: RFC 1035 section 4.1 (messages), RFC 3596 (AAAA), RFC 6891 section 7 (who is not told of EDNS does without).


ADDRESS_SECONDS = 30
"""How long an answer may be kept in a box."""
_HEAD_BYTES = 12
_MOST_DATAGRAM_BYTES = 512
_LONGEST_LABEL = 63
_LONGEST_WIRE_NAME = 255
_QUESTION_TAIL_BYTES = 4
_INTERNET_CLASS = 1
_IS_ANSWER, _OPCODE_BITS, _RECURSION_WANTED = 0x8000, 0x7800, 0x0100
_ANSWER_BITS = 0x8080
"""An answer, from one who asks others."""
_NAME_OF_QUESTION = b"\xc0\x0c"
"""A pointer to the question's name, which begins right behind the head."""


class RecordKind(IntEnum):
    """The kinds of records that are answered."""

    IPV4 = 1
    """A."""
    IPV6 = 28
    """AAAA."""


class NameVerdict(IntEnum):
    """How a question is answered. Source: RFC 1035 section 4.1.1 (RCODE)."""

    ANSWERED = 0
    MALFORMED = 1
    FAILED = 2
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class UnreadableQuestionError(Exception):
    """A message is no question that is answered.

    Args:
        reply: what its sender is told; empty where that is nothing.
    """

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        super().__init__("no question that is answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameQuestion:
    """One question."""

    untrusted_name: str
    """The name asked for, without a trailing dot; other bytes than ASCII's are replaced."""
    kind: int
    """Which records of it; mostly one of `RecordKind`."""
    head: tuple[int, int]
    """The message's number, and its flags."""
    wire: bytes
    """The question as it stands in the message, which the answer repeats."""


def name_question(message: bytes) -> NameQuestion:
    """Read a message.

    Raises:
        UnreadableQuestionError: it is no question, or none that is answered.
    """
    number, flags = int.from_bytes(message[:2], "big"), int.from_bytes(message[2:4], "big")
    if len(message) < _HEAD_BYTES or flags & _IS_ANSWER:
        raise UnreadableQuestionError(b"")
    if flags & _OPCODE_BITS:
        raise UnreadableQuestionError(_head(number, flags, NameVerdict.NOT_IMPLEMENTED))
    malformed = UnreadableQuestionError(_head(number, flags, NameVerdict.MALFORMED))
    if message[4:6] != b"\x00\x01" or message[6:8] != b"\x00\x00":
        raise malformed
    labels, end = _labels(message)
    tail = message[end : end + _QUESTION_TAIL_BYTES]
    if labels is None or len(tail) < _QUESTION_TAIL_BYTES or int.from_bytes(tail[2:], "big") != _INTERNET_CLASS:
        raise malformed
    return NameQuestion(
        untrusted_name=".".join(labels),
        kind=int.from_bytes(tail[:2], "big"),
        head=(number, flags),
        wire=message[_HEAD_BYTES : end + _QUESTION_TAIL_BYTES],
    )


def name_reply(question: NameQuestion, verdict: NameVerdict, addresses: Iterable[IPAddress] = ()) -> bytes:
    """The answer to a question: of these addresses those of its kind, as many as fit."""
    fitting = [
        _NAME_OF_QUESTION + b"".join(part.to_bytes(size, "big") for part, size in _record_fields(address))
        for address in addresses
        if question.kind == _kind_of(address)
    ]
    reply_bytes = _HEAD_BYTES + len(question.wire)
    room = (_MOST_DATAGRAM_BYTES - reply_bytes) // len(fitting[0]) if fitting else 0
    records = fitting[:room]
    return _head(*question.head, verdict, questions=1, answers=len(records)) + question.wire + b"".join(records)


def _record_fields(address: IPAddress) -> tuple[tuple[int, int], ...]:
    """The fields of a record behind its name, each with its size in bytes."""
    size = len(address.packed)
    return (_kind_of(address), 2), (_INTERNET_CLASS, 2), (ADDRESS_SECONDS, 4), (size, 2), (int(address), size)


def _kind_of(address: IPAddress) -> RecordKind:
    return RecordKind.IPV6 if isinstance(address, IPv6Address) else RecordKind.IPV4


def _head(number: int, flags: int, verdict: NameVerdict, *, questions: int = 0, answers: int = 0) -> bytes:
    fields = (number, _ANSWER_BITS | flags & _RECURSION_WANTED | verdict, questions, answers, 0, 0)
    return b"".join(field.to_bytes(2, "big") for field in fields)


def _labels(message: bytes) -> tuple[list[str] | None, int]:
    """The labels of the name behind a message's head, and where it ends; none where there is no such name."""
    labels: list[str] = []
    at = _HEAD_BYTES
    while at < len(message) and at - _HEAD_BYTES < _LONGEST_WIRE_NAME:
        length = message[at]
        at += 1
        if length == 0:
            return labels, at
        if length > _LONGEST_LABEL:
            break
        labels.append(_label_text(message[at : at + length]))
        at += length
    return None, at


def _label_text(label: bytes) -> str:
    """A label as text: one that has a dot in itself, or no ASCII, is spelt so that it is no label of a host name."""
    text = label.decode("ascii", errors="replace")
    return text.replace(".", "\\.")


# ======== sandbox/name_server.py ======================================================================================
# Carries DNS questions from a box to what answers them, over UDP and TCP, no more at a time than do harm.
#
# Source: RFC 1035 section 4.2 (transport), RFC 7766 (over TCP).


_MOST_DATAGRAMS_AT_ONCE = 256
_DATAGRAMS_A_TURN = 16
_MOST_MESSAGE_BYTES = 1 << 12
_MOST_CONNECTIONS_AT_ONCE = 16
_QUESTION_SECONDS = 10.0
_LENGTH_BYTES = 2
_QUESTION_PAUSE_SECONDS = 0.05
"""Between two questions of one connection: a client that sends thousands at once would have this process to itself."""

NameReply = Callable[[bytes], Awaitable[bytes]]


class NameServer:
    """Where the names of one box are asked for."""

    def __init__(self, reply: NameReply) -> None:
        """Listen nowhere yet.

        Args:
            reply: what a message is answered with; nothing is said where that is empty.
        """
        self._reply = reply
        self._bound: list[tuple[asyncio.AbstractEventLoop, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._closed = False

    def serve_datagrams(self, bound: socket.socket) -> None:
        """Serve a socket, and close it at the end."""
        bound.setblocking(False)  # noqa: FBT003 -- the standard library's
        loop = asyncio.get_running_loop()
        loop.add_reader(bound, self._came_as_datagrams, bound)
        self._bound.append((loop, bound))

    async def serve_connections(self, listening: socket.socket) -> None:
        """Serve a socket that listens already, and close it at the end."""
        self._servers.append(await asyncio.start_server(self._came_connected, sock=listening))

    def abandon(self) -> None:
        """Hear nobody any more, waiting for nothing."""
        self._closed = True
        for server in self._servers:
            server.close()
        while self._bound:
            loop, bound = self._bound.pop()
            if not loop.is_closed():
                loop.remove_reader(bound)
            bound.close()

    async def close(self) -> None:
        """Answer nobody any more."""
        self.abandon()
        answering = tuple(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    def _came_as_datagrams(self, bound: socket.socket) -> None:
        """Take what has come, some at a time: others want their turn too."""
        with suppress(OSError):
            for _ in range(_DATAGRAMS_A_TURN):
                message, sender = bound.recvfrom(_MOST_MESSAGE_BYTES)
                if len(self._answering) < _MOST_DATAGRAMS_AT_ONCE:  # of those beyond, senders ask again
                    self._begin(self._datagram_answered(message, sender, bound))

    def _came_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or self._connections >= _MOST_CONNECTIONS_AT_ONCE:
            writer.transport.abort()
            return
        self._connections += 1
        self._begin(self._connection_answered((reader, writer))).add_done_callback(lambda _: self._let_go(writer))

    def _let_go(self, writer: asyncio.StreamWriter) -> None:
        """Close a connection even where what was to answer it was cancelled before it began."""
        self._connections -= 1
        writer.close()

    def _begin(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(answering)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return task

    async def _datagram_answered(self, message: bytes, sender: tuple[Any, ...], bound: socket.socket) -> None:
        reply = await self._reply(message)
        if reply:
            with suppress(OSError):  # its sender asks again
                bound.sendto(reply, sender)

    async def _connection_answered(self, client: EgressStreams) -> None:
        try:
            while True:
                async with asyncio.timeout(_QUESTION_SECONDS):
                    length = int.from_bytes(await client[0].readexactly(_LENGTH_BYTES), "big")
                    message = await client[0].readexactly(length)
                reply = await self._reply(message)
                client[1].write(len(reply).to_bytes(_LENGTH_BYTES, "big") + reply)
                await client[1].drain()
                await asyncio.sleep(_QUESTION_PAUSE_SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # the client is gone, or says nothing more


# ======== sandbox/off_limits.py =======================================================================================
# Folders of the host that no box may see, and whether a folder that is to be offered overlaps one of them.
#
# Deciding is a pure function over values. Gathering them (password database, environment, where Open WebUI lies) is at
# the end of this module; the settings that name folders are read by the session. One folder under two names, as bind
# mounts make it, is one folder: device and inode tell.
#
# Source: Open WebUI 0.12, `env.py` (`DATA_DIR`, `DATABASE_URL`) and `__init__.py` (`WEBUI_SECRET_KEY_FILE`).


SYSTEM_FOLDERS = ("/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/var")
"""What a host keeps there is state, secrets or devices, and never packages."""
GATHERING_FOLDERS = ("/", "/media", "/mnt", "/opt", "/srv", "/tmp", "/usr", "/usr/local")  # noqa: S108 -- nothing is made in it
"""Packages may have a folder of their own in one of these; the whole holds much else, and what others put there."""
FIRST_PERSONS_UID = 1_000
NOBODY_UID = 65_534
"""Accounts of people lie between these two, and root's is 0. Source: Debian policy 9.2.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFolder:
    """A folder, or a file, and what people call it."""

    name: str
    """For the one who reads why something was refused."""
    path: Path
    """Absolute, symbolic links followed."""
    identities: tuple[tuple[int, int], ...] = ()
    """Device and inode of it and of each folder above it, nearest first; empty where it is not there."""
    inside_allowed: bool = False
    """Whether a folder within it may be offered all the same, so long as it does not hold the whole."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """It and each folder above it, nearest first."""
        return (self.path, *self.path.parents)


def overlapped(offered: NamedFolder, off_limits: tuple[NamedFolder, ...]) -> tuple[NamedFolder, str] | None:
    """The first of some folders that a folder overlaps, and how: a verb that stands between the two."""
    for named in off_limits:
        if offered.path == named.path or offered.identities[:1] == named.identities[:1] != ():
            return named, "is"
        if offered.path in named.paths or _stands_in(offered.identities[:1], named.identities):
            return named, "contains"
        within = named.path in offered.paths or _stands_in(named.identities[:1], offered.identities)
        if within and not named.inside_allowed:
            return named, "lies within"
    return None


def _stands_in(first: tuple[tuple[int, int], ...], chain: tuple[tuple[int, int], ...]) -> bool:
    return bool(first) and first[0] in chain


def named_folder(name: str, path: str | Path, *, inside_allowed: bool = False) -> NamedFolder:
    """Name a folder or file as it stands on this host; it may be missing."""
    real = Path(os.path.realpath(path))
    identities: list[tuple[int, int]] = []
    for place in (real, *real.parents):
        try:
            status = place.stat()
        except OSError:
            identities.clear()
            break
        identities.append((status.st_dev, status.st_ino))
    return NamedFolder(name=name, path=real, identities=tuple(identities), inside_allowed=inside_allowed)


def host_off_limits(environ: Mapping[str, str], private: Path) -> tuple[NamedFolder, ...]:
    """Everything that no box may see on this host, besides what settings name.

    Args:
        environ: this process's environment, where Open WebUI's own variables may name its data.
        private: the runner's own folder.
    """
    return (
        *(named_folder("where much else lies", path, inside_allowed=True) for path in GATHERING_FOLDERS),
        *(named_folder("one of the system's own folders", path) for path in SYSTEM_FOLDERS),
        named_folder("the sandbox's private folder", private),
        *_open_webui_folders(environ),
        *_homes(environ),
        named_folder("the folder that this process works in", Path.cwd(), inside_allowed=True),
    )


def _open_webui_folders(environ: Mapping[str, str]) -> Iterator[NamedFolder]:
    """Where Open WebUI keeps its data, or keeps it where nothing else is said; it is found without importing it."""
    for variable in ("DATA_DIR", "WEBUI_SECRET_KEY_FILE"):
        if path := environ.get(variable):
            yield named_folder(f"Open WebUI's own ({variable})", path)
    database = urlsplit(environ.get("DATABASE_URL", ""))
    if database.scheme.startswith("sqlite") and len(database.path) > 1:
        yield named_folder("Open WebUI's own (DATABASE_URL)", database.path[1:])
    for place in _open_webui_places():
        yield named_folder("Open WebUI itself, which holds its data", place)
        yield named_folder("Open WebUI's data", place.parent / "data")


def _open_webui_places() -> tuple[Path, ...]:
    try:
        found = find_spec("open_webui")
    except ValueError:  # loaded in a way that hides where it came from
        return ()
    return tuple(map(Path, found.submodule_search_locations or ())) if found else ()


def _homes(environ: Mapping[str, str]) -> Iterator[NamedFolder]:
    """The homes of root, of people, and of this process; an account whose home is `/` has none."""
    if environ.get("HOME", "").startswith("/"):
        yield named_folder("this process's home (HOME)", environ["HOME"], inside_allowed=environ["HOME"] == "/")
    for account in pwd.getpwall():
        person = account.pw_uid == 0 or FIRST_PERSONS_UID <= account.pw_uid < NOBODY_UID
        if person and account.pw_dir.startswith("/") and os.path.realpath(account.pw_dir) != "/":
            yield named_folder(f"the home of {account.pw_name}", account.pw_dir)


# ======== sandbox/packages.py =========================================================================================
# Packages that an administrator offers to code in boxes: one folder, mounted read-only at one place.
#
# The folder is a virtual environment's `site-packages`, or one as `pip install --target` makes. It is refused where
# somebody else could change it, where code could not read it, and where it overlaps what no box may see. Nothing in it is
# run or imported here, and `.pth` files are run nowhere: they are for an interpreter's own `site-packages` alone.
#
# Source: PEP 405 (`pyvenv.cfg`); Python's `site` module.


PACKAGES_VARIABLE = "SANDBOX_PACKAGES_PATH"
BOX_PACKAGES = "/opt/packages"
"""Where a box has them."""
COMPILED_FOLDER = "__pycache__"
"""Made and changed by whoever imports, and no package: it tells nothing of what is installed."""
_OTHERS_READ = stat.S_IROTH | stat.S_IXOTH
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagesOrder:
    """What an administrator wants offered."""

    path: Path
    """The folder, as the setting names it: absolute."""
    off_limits: tuple[NamedFolder, ...]
    """What settings name that no box may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """A folder of packages that may be offered."""

    path: Path
    """As the administrator named it."""
    folder: Path
    """What is mounted: it holds the packages themselves, and no symbolic link leads to it."""
    library_name: str
    """Of the Python that boxes run (`python3.11`)."""
    digest: str
    """SHA-256 in lower-case hexadecimal, another one as soon as something is installed, removed or replaced."""

    def unchanged(self) -> bool:
        """Whether the path still leads to the same folder with the same packages; takes about a millisecond."""
        try:
            return self == found_packages(self.path, self.library_name)
        except SandboxError:
            return False


def offered_packages(
    order: PackagesOrder, library_name: str, off_limits: tuple[NamedFolder, ...], uid: int
) -> Packages:
    """The packages of a folder, once nothing speaks against offering it.

    Args:
        order: what the administrator wants.
        library_name: of the interpreter in the box (`python3.11`).
        off_limits: what no box may see, besides what the order names.
        uid: the running user.

    Raises:
        SandboxError: it is missing, is no folder, is for another Python, others than root and this user can change it,
            code could not read it, or it overlaps something off limits.
    """
    packages = found_packages(order.path, library_name)
    # First of all, so that nobody is advised to change owners and modes of what are no packages.
    _refuse_overlap(packages, (*order.off_limits, *off_limits))
    try:
        for place in (order.path, packages.folder):
            trusted_path(place, uid)
        _refuse_unfit(packages.folder, order.path, uid)
        _refuse_sockets(packages.folder, order.path)
    except OSError as error:
        raise _unreadable_packages(order.path, error) from error
    except UnsafeFolderError as error:
        remedy = "Let root or this user own it and every folder above it, and `chmod go-w` them"
        raise _packages_error(order.path, f"{error.origin}: {error.reason}", remedy) from error
    return packages


def found_packages(path: Path, library_name: str) -> Packages:
    """Describe a folder of packages, whoever may change it and whatever it overlaps.

    Raises:
        SandboxError: it is missing, is no folder, or is for another Python.
    """
    try:
        folder = Path(os.path.realpath(_site_folder(path, library_name)))
        return Packages(path=path, folder=folder, library_name=library_name, digest=_contents_digest(folder))
    except OSError as error:
        raise _unreadable_packages(path, error) from error


def _site_folder(path: Path, library_name: str) -> Path:
    """The folder that holds the packages: of a virtual environment, the one for the box's own Python."""
    if not path.exists():
        raise _packages_error(path, "there is no such folder", "Make it, or mount it into the container")
    if not path.is_dir():
        raise _packages_error(path, "it is a file", "Name a folder: code can import no archive")
    if not (path / "pyvenv.cfg").is_file():
        return path
    site = path / "lib" / library_name / "site-packages"
    if not site.is_dir():
        others = ", ".join(sorted(one.parent.name for one in path.glob("lib/python*/site-packages"))) or "no Python"
        raise _packages_error(
            path,
            f"it is a virtual environment of {others}, and boxes run {library_name}",
            f"Make it with {library_name}: `{library_name} -m venv {path}`",
        )
    return site


def _contents_digest(folder: Path) -> str:
    with os.scandir(folder) as entries:
        lines = sorted(_entry_line(entry) for entry in entries if entry.name != COMPILED_FOLDER)
    return hashlib.sha256("\n".join((str(folder), *lines)).encode(errors="surrogateescape")).hexdigest()


def _entry_line(entry: os.DirEntry[str]) -> str:
    status = entry.stat(follow_symlinks=False)
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return f"{entry.name}\0{stat.S_IFMT(status.st_mode)}\0{status.st_mtime_ns}\0{size}"


def _refuse_overlap(packages: Packages, off_limits: tuple[NamedFolder, ...]) -> None:
    found = overlapped(named_folder("packages", packages.folder), off_limits)
    if found is not None:
        named, verb = found
        raise _packages_error(
            packages.path,
            f"it {verb} {named.path}, {named.name}, which code must not see",
            "Keep packages in a folder of their own, such as /opt/sandbox-packages",
        )


def _refuse_unfit(folder: Path, path: Path, uid: int) -> None:
    """Refuse what the box's account cannot read, being neither root nor the owner, and what others can change.

    Of what lies in the folder only the top is looked at: an installer gives everything below the same owner and mode.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _OTHERS_READ != _OTHERS_READ:
        reason = f"code in a box cannot read {folder} (mode {mode:04o})"
        raise _packages_error(path, reason, f"Open it for reading: `chmod -R a+rX {path}`")
    for place in (folder, *folder.iterdir()):
        status = place.lstat()
        if status.st_uid not in {0, uid} or (status.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(status.st_mode)):
            reason = f"others can change {place} (uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
            raise _packages_error(path, reason, f"`chown -R root {path}` and `chmod -R go-w {path}`")


def _refuse_sockets(folder: Path, path: Path) -> None:
    """Refuse a folder with a socket anywhere in it: a box with a way out may connect to what is mounted into it."""
    for place, _, names in os.walk(folder):
        for name in names:
            if stat.S_ISSOCK(Path(place, name).lstat().st_mode):
                reason = f"there is a socket in it, {place}/{name}, which code in a box could connect to"
                raise _packages_error(path, reason, "Remove it, and let no program listen there")


def _unreadable_packages(path: Path, error: OSError) -> SandboxError:
    remedy = "Make it readable for the account that runs the server"
    return _packages_error(path, f"it cannot be read: {error.strerror}", remedy)


def _packages_error(path: Path, reason: str, remedy: str) -> SandboxError:
    return SandboxError(key=PACKAGES_VARIABLE, origin=str(path), reason=reason, remedy=remedy)


# ======== sandbox/permitted_names.py ==================================================================================
# Answers DNS questions of one run: names that its rules permit, with those of their addresses that it may reach.
#
# No other name is asked for anywhere, since a question alone carries data out; it is said not to exist. What was answered
# is remembered, so that a connection to one of these addresses is known for a connection to that name.


_MOST_FINDINGS = 1_024
"""Names of which it is remembered what became of them."""
_MOST_ANSWERED = 32
"""Of one name; an answer has no room for more. Whoever answers for a name may have thousands."""
_MOST_NAMES = 64
"""Of one address, of which it is remembered that they have it."""
_MOST_REMEMBERED = 4_096
"""Addresses of which it is remembered whose they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFinding:
    """What became of one name."""

    verdict: NameVerdict
    """What its asker is told."""
    addresses: tuple[IPAddress, ...] = ()
    """Those that may be reached, of both kinds, in the order to try."""


@dataclass(slots=True)
class _Sought:
    """A name that is being resolved, or was."""

    finding: asyncio.Task[NameFinding]
    since: float


class PermittedNames:
    """The only resolver that one box has."""

    def __init__(
        self, network: EgressNetwork, account: EgressAccount, *, lookups: int = 10_000, within_seconds: float = 10.0
    ) -> None:
        """Permit nothing yet.

        Args:
            network: where permitted names are resolved.
            account: where it is written down what was refused.
            lookups: how many names may be asked for in all.
            within_seconds: how long an asker waits.
        """
        self._network = network
        self._account = account
        self._lookups_left = lookups
        self._within_seconds = within_seconds
        self._rules: EgressRules | None = None
        self._sought: dict[str, _Sought] = {}
        self._resolving: set[asyncio.Task[NameFinding]] = set()
        self._names: dict[IPAddress, dict[str, tuple[IPAddress, ...]]] = {}

    def open(self, rules: EgressRules) -> None:
        """Answer for what these rules permit, from now on."""
        self._rules = rules

    def abandon(self) -> None:
        """Answer for nothing any more."""
        self._rules = None

    async def close(self) -> None:
        """Seek nothing any more."""
        self.abandon()
        resolving = tuple(self._resolving)
        for task in resolving:
            task.cancel()
        await asyncio.gather(*resolving, return_exceptions=True)

    async def reply(self, untrusted_message: bytes) -> bytes:
        """What a client is told; empty where that is nothing."""
        try:
            question = name_question(untrusted_message)
        except UnreadableQuestionError as error:
            return error.reply
        finding = await self._found(question)
        return name_reply(question, finding.verdict, finding.addresses)

    def names_of(self, address: IPAddress) -> tuple[tuple[str, tuple[IPAddress, ...]], ...]:
        """The names that an address was the answer to, the latest first, each with all that it was answered."""
        return tuple(reversed(self._names.get(address, {}).items()))

    async def _found(self, question: NameQuestion) -> NameFinding:
        rules = self._rules
        if rules is None:
            return NameFinding(verdict=NameVerdict.REFUSED)
        try:
            name = _checked_question_name(question, rules)
        except EgressRefusedError as refusal:
            self._refused(question.untrusted_name, refusal)
            return NameFinding(verdict=NameVerdict.NO_SUCH_NAME)
        if question.kind not in set(RecordKind):
            return NameFinding(verdict=NameVerdict.ANSWERED)
        try:
            async with asyncio.timeout(self._within_seconds):
                finding = await asyncio.shield(self._seeking(name, rules))
        except TimeoutError:
            self._account.note(name, permitted=True, reason="its name was not resolved in time")
            return NameFinding(verdict=NameVerdict.FAILED)
        self._remember(name, finding.addresses)
        return finding

    def _seeking(self, name: str, rules: EgressRules) -> asyncio.Task[NameFinding]:
        """The one search for a name: what has just been found holds for a while, and for both kinds of address."""
        now = time.monotonic()
        sought = self._sought.pop(name, None)
        if sought is None or (sought.finding.done() and now - sought.since > ADDRESS_SECONDS):
            sought = _Sought(finding=asyncio.create_task(self._resolved(name, rules)), since=now)
            self._resolving.add(sought.finding)
            sought.finding.add_done_callback(self._resolving.discard)
        self._sought[name] = sought
        _forget_oldest(self._sought, _MOST_FINDINGS)
        return sought.finding

    async def _resolved(self, name: str, rules: EgressRules) -> NameFinding:
        self._lookups_left -= 1
        if self._lookups_left < 0:
            self._account.note(name, permitted=False, reason="the run has asked for as many names as it may")
            return NameFinding(verdict=NameVerdict.REFUSED)
        try:
            found = _of_each_kind(await self._network.addresses(name))
            addresses = tuple(address for address in found if self._may_answer(name, address, rules))
        except UnreachableError as error:
            self._account.note(name, permitted=True, reason=str(error))
            return NameFinding(verdict=_verdict_of(error))
        closed = found and not addresses
        return NameFinding(
            verdict=NameVerdict.NO_SUCH_NAME if closed else NameVerdict.ANSWERED,
            addresses=addresses,
        )

    def _may_answer(self, name: str, address: IPAddress, rules: EgressRules) -> bool:
        try:
            rules.check_address(address, own=self._network.is_own(address))
        except EgressRefusedError as refusal:
            self._refused(name, refusal)
            return False
        except UnreachableError as error:
            self._account.note(name, permitted=True, reason=str(error))
            return False
        return True

    def _refused(self, untrusted_name: str, refusal: EgressRefusedError) -> None:
        self._account.note(untrusted_name, permitted=False, reason=refusal.reason, origin=refusal.origin)

    def _remember(self, name: str, addresses: tuple[IPAddress, ...]) -> None:
        """Whoever asked will most likely connect next: of an address's names the one just asked for is the latest."""
        for address in addresses:
            names = self._names.pop(address, {})
            names.pop(name, None)
            names[name] = addresses
            self._names[address] = names
            _forget_oldest(names, _MOST_NAMES)
            _forget_oldest(self._names, _MOST_REMEMBERED)


def _checked_question_name(question: NameQuestion, rules: EgressRules) -> str:
    """The name that a question is about.

    Raises:
        EgressRefusedError: it is none, or not permitted.
    """
    host = parse_host(question.untrusted_name)
    if not isinstance(host, str):
        raise EgressRefusedError("it is an address, which has no addresses")
    rules.check_name(host)
    return host


def _of_each_kind(found: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """As many of both kinds as an answer has room for."""
    left = dict.fromkeys((4, 6), _MOST_ANSWERED)
    kept = []
    for address in found:
        left[address.version] -= 1
        if left[address.version] >= 0:
            kept.append(address)
    return tuple(kept)


def _verdict_of(error: UnreachableError) -> NameVerdict:
    """Whether to ask again may help."""
    cause = error.__cause__
    again = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
    return NameVerdict.FAILED if again else NameVerdict.NO_SUCH_NAME


def _forget_oldest(remembered: MutableMapping[Any, Any], most: int) -> None:
    while len(remembered) > most:
        del remembered[next(iter(remembered))]


# ======== sandbox/pipes.py ============================================================================================
# The three pipes between a runner and its box, made here so that they are pipes under every event loop.
#
# uvloop, which Open WebUI runs on, gives a child socket pairs where it is asked for pipes; those cannot be opened again
# through `/dev/stdin`, which shells and people's code do. Our ends never block the event loop, and what is in a pipe can
# be read without waiting for its end, since a box takes some time to be gone.


_READ_BYTES = 1 << 16


class _PipeEnd:
    """Our end of a pipe, which never blocks."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of it, whatever is still in it; a box that reads from it reads its end."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OutputPipe(_PipeEnd):
    """Our end of a pipe that the box writes to."""

    async def read(self, most_bytes: int = _READ_BYTES) -> bytes:
        """Wait for something to come; empty at the end."""
        while (data := self.read_now(most_bytes)) is None:
            await _ready_for(self._descriptor, writing=False)
        return data

    def read_now(self, most_bytes: int = _READ_BYTES) -> bytes | None:
        """What is there already: empty at the end, `None` where there is nothing yet."""
        try:
            return os.read(self._descriptor, most_bytes)
        except BlockingIOError:
            return None


class InputPipe(_PipeEnd):
    """Our end of a pipe that the box reads from."""

    async def write_all(self, data: bytes) -> None:
        """Write everything and close; a box that is gone takes nothing, and that is no error here."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    await _ready_for(self._descriptor, writing=True)
        except BrokenPipeError:
            return
        finally:
            self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxPipes:
    """The ends of the pipes."""

    child_ends: tuple[int, int, int]
    """Descriptors for the child's standard input, output and error."""
    stdin: InputPipe
    """Ours, to write to."""
    stdout: OutputPipe
    """Ours, to read."""
    stderr: OutputPipe
    """Ours, to read."""

    @classmethod
    def opened(cls) -> Self:
        """Make the pipes; the caller closes both sides, each at its time.

        Raises:
            OSError: this process has no descriptors left; it keeps none of these then.
        """
        with ExitStack() as opened:
            (stdin_end, own_stdin), (own_stdout, stdout_end), (own_stderr, stderr_end) = (
                _pipe(opened) for _ in range(3)
            )
            opened.pop_all()
        return cls(
            child_ends=(stdin_end, stdout_end, stderr_end),
            stdin=InputPipe(own_stdin),
            stdout=OutputPipe(own_stdout),
            stderr=OutputPipe(own_stderr),
        )

    def close_child_ends(self) -> None:
        """Leave the child's ends to the child, so that the pipes end when it does."""
        for descriptor in self.child_ends:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of our ends, whatever is still in them."""
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()


def _pipe(opened: ExitStack) -> tuple[int, int]:
    """The reading and the writing end of a new pipe, both closed with what they are noted in."""
    ends = os.pipe()
    for descriptor in ends:
        opened.callback(os.close, descriptor)
    return ends


async def _ready_for(descriptor: int, *, writing: bool) -> None:
    """Wait until a descriptor can be read or written without waiting."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(descriptor, _told, ready)
    try:
        await ready
    finally:
        remove(descriptor)


def _told(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


# ======== sandbox/processes.py ========================================================================================
# Processes of this host: who descends from whom, and ending them without mistaking a reused number for one of them.


_PINNED_AT_ONCE = 64


def process_family(process_id: int) -> frozenset[int]:
    """A process and all its descendants that have not ended. Source: proc(5), `stat`."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    itself = frozenset() if state in "ZX" else frozenset({process_id})
    return itself.union(*map(process_family, child_processes(process_id)))


def child_processes(process_id: int) -> tuple[int, ...]:
    """The children of all threads of a process. Source: proc(5), `task/[tid]/children`."""
    try:
        threads = tuple(Path(f"/proc/{process_id}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(child for thread in threads for child in _children_of_thread(thread))


def _children_of_thread(thread: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, (thread / "children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return ()


def command_line(process_id: int) -> tuple[str, ...]:
    """The words that a process was started with; none where it is gone. Source: proc(5), `cmdline`."""
    try:
        return tuple(Path(f"/proc/{process_id}/cmdline").read_text(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return ()


def signal_pinned(descriptor: int, number: signal.Signals) -> None:
    """Signal a pinned process, if it is still there.

    gVisor's kernel may run as nobody, whom root without CAP_KILL cannot signal; it dies with `runsc run` all the same.
    """
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(descriptor, number)


def kill_pinned(descriptors: Sequence[int]) -> None:
    """Kill pinned processes, waiting for nothing."""
    for descriptor in descriptors:
        signal_pinned(descriptor, signal.SIGKILL)


@contextmanager
def pinned_processes(process_ids: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Descriptors of processes, which keep meaning those processes whatever becomes of their numbers."""
    descriptors: list[int] = []
    try:
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(process_id))
        yield tuple(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def kill_members(process_ids: Sequence[int], members: Callable[[], frozenset[int]]) -> None:
    """Kill processes in this order, as far as they still belong together once they are pinned; waiting for nothing.

    Args:
        process_ids: who did just before.
        members: who does now.
    """
    for begin in range(0, len(process_ids), _PINNED_AT_ONCE):
        pinned = pinned_members(process_ids[begin : begin + _PINNED_AT_ONCE], members)
        try:
            kill_pinned(tuple(pinned.values()))
        finally:
            for descriptor in pinned.values():
                os.close(descriptor)


def pinned_members(process_ids: Iterable[int], members: Callable[[], frozenset[int]]) -> dict[int, int]:
    """Descriptors of the processes that belong together, by number, for whoever closes them.

    Args:
        process_ids: who did just before.
        members: who does now; asked once they are pinned, since a number may mean another by then.
    """
    with ExitStack() as opened:
        pinned: dict[int, int] = {}
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                pinned[process_id] = os.pidfd_open(process_id)
                opened.callback(os.close, pinned[process_id])
        strangers = pinned.keys() - members()
        opened.pop_all()
    for process_id in strangers:
        os.close(pinned.pop(process_id))
    return pinned


async def killed_processes(descriptors: Sequence[int], *, within_seconds: float) -> None:
    """Kill processes, and wait until they have ended, or could not be made to."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within_seconds, 0.001
    kill_pinned(descriptors)
    while not all(map(_has_ended, descriptors)) and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


def _has_ended(descriptor: int) -> bool:
    """Whether a pinned process is over. Source: pidfd_open(2), readable once it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


# ======== sandbox/cgroups.py ==========================================================================================
# Control groups of one run: made, held, ended and removed by the runner itself.
#
# The box's processes are born in these cgroups (a shell writes itself into `procs_files`, then becomes `runsc`), so the
# limits bind before gVisor starts, the counters outlive the box, and no process of anybody else is ever moved. What
# is made lies in a folder `sandbox-lockdown`, one folder for each run.


K = TypeVar("K", bound=Collection[object])

CGROUP_FOLDER = "sandbox-lockdown"
RUN_NAME_PATTERN = re.compile(r"[0-9a-f]{32}")
SHARED_FOLDER_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupsUnavailable:
    """No controller at all can be used here."""

    reason: str
    """Why, without full stop."""
    remedy: str
    """The exact settings that would help, without full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingController:
    """One controller that cannot be used here, though others may be."""

    controller: CgroupController
    """Which one."""
    reason: str
    """Why, without full stop."""
    remedy: str
    """The exact settings that would help, without full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCgroup:
    """The cgroups of one run. Nothing else uses them, so whatever is in them belongs to that run."""

    run_name: str
    """32 lower-case hexadecimal characters."""
    places: tuple[CgroupPlace, ...]
    """The run's own folder in each hierarchy used."""

    @property
    def procs_files(self) -> tuple[Path, ...]:
        """The files into which the run's first process writes itself, one for each hierarchy."""
        return tuple(place.folder / "cgroup.procs" for place in self.places)

    def processes(self) -> frozenset[int]:
        """All processes in the run's cgroups; zombies are not among them."""
        return frozenset().union(*(cgroup_members(place.folder) for place in self.places))

    def cpu_seconds(self) -> float | None:
        """CPU time used so far; `None` where nothing counts it."""
        return cgroup_cpu_seconds(self.places)

    def counters(self) -> Counters:
        """Read what was counted so far."""
        return counted(self.places)

    def hold_memory(self, more_bytes: int) -> int:
        """Lower the memory limit to what is used now, and so much more; returns what the limit is then.

        What the kernel caches of files counts as unused: it gives that up before it kills.

        Raises:
            UnenforceableError: the kernel does not tell what is used, or did not take the limit.
        """
        place = cgroup_place_of(self.places, CgroupController.MEMORY)
        used = cgroup_memory_used_bytes(place) if place else None
        if place is None or used is None:
            reason = f"no cgroup of {self.run_name} tells how much memory is used"
            raise unenforceable_controller(CgroupController.MEMORY, reason, CGROUP_DELEGATION_REMEDY)
        before = cgroup_number(place.folder / MEMORY_LIMIT_FILES[place.version], "") or 0
        lowered = CgroupLimits(
            memory_bytes=min(used + more_bytes, before), cpu_thousandths=None, processes_hard_stop=None
        )
        set_cgroup_limit(self.places, CgroupController.MEMORY, lowered)
        return lowered.memory_pages_bytes

    def hold_cpu(self, thousandths: int) -> None:
        """Set the CPU limit anew.

        Raises:
            UnenforceableError: the kernel did not take it.
        """
        limits = CgroupLimits(memory_bytes=None, cpu_thousandths=thousandths, processes_hard_stop=None)
        set_cgroup_limit(self.places, CgroupController.CPU, limits)

    def kill_once(self) -> frozenset[int]:
        """Send SIGKILL to each process in the run's cgroups; returns those that were there just before."""
        seen: set[int] = {os.getpid()}
        for place in self.places:
            fresh = cgroup_members(place.folder) - seen
            seen |= fresh
            if place.version is CgroupVersion.V2 and _cgroup_kill_written(place.folder):
                continue
            # gVisor's kernel before its servants, which are older.
            kill_members(sorted(fresh, reverse=True), partial(cgroup_members, place.folder))
        return frozenset(seen - {os.getpid()})

    async def kill(self, *, within_seconds: float = 5.0) -> frozenset[int]:
        """Kill again and again until nothing is left; returns what still was there when the time was over."""
        return await _repeated(self.kill_once, within_seconds)

    def remove_once(self) -> tuple[Path, ...]:
        """Try to remove each folder; returns those that are still there (a process is in one, or just left it).

        The shared folder goes with its last run, so that nothing is left in a cgroup that somebody else made.
        """
        remaining = tuple(place.folder for place in self.places if not _cgroup_folder_removed(place.folder))
        for shared in (place.folder.parent for place in self.places):
            if shared.name == CGROUP_FOLDER:
                _cgroup_folder_removed(shared)
        return remaining

    async def remove(self, *, within_seconds: float = 5.0) -> tuple[Path, ...]:
        """Remove the folders, retrying while the kernel calls them busy; returns those still there at the end."""
        return await _repeated(self.remove_once, within_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupParent:
    """Where cgroups for runs can be made on this host."""

    places: tuple[CgroupPlace, ...]
    """One for each hierarchy used; at least one."""
    missing: tuple[MissingController, ...]
    """The controllers that cannot be used, each with its reason and remedy."""

    def run_cgroup(self, run_name: str) -> RunCgroup:
        """Name the cgroups of one run, whether they exist or not."""
        if not RUN_NAME_PATTERN.fullmatch(run_name):
            raise ValueError("a run's name is 32 lower-case hexadecimal characters")
        return RunCgroup(run_name=run_name, places=tuple(_run_cgroup_place(place, run_name) for place in self.places))

    def existing_runs(self) -> tuple[RunCgroup, ...]:
        """All runs that have a folder here, those of other runners of this account included."""
        names = {
            entry.name
            for place in self.places
            if (place.folder / CGROUP_FOLDER).is_dir()
            for entry in (place.folder / CGROUP_FOLDER).iterdir()
            if RUN_NAME_PATTERN.fullmatch(entry.name) and entry.is_dir()
        }
        return tuple(self.run_cgroup(name) for name in sorted(names))

    def remove_once(self) -> tuple[Path, ...]:
        """Remove the `sandbox-lockdown` folders that hold no run; returns the others."""
        folders = (place.folder / CGROUP_FOLDER for place in self.places)
        return tuple(folder for folder in folders if not _cgroup_folder_removed(folder))


def make_cgroup_folder(folder: Path) -> None:
    """Make one cgroup, which the kernel fills with its files."""
    folder.mkdir(mode=0o755)


def make_cgroup(
    parent: CgroupParent,
    run_name: str,
    limits: CgroupLimits,
    *,
    make_folder: Callable[[Path], None] = make_cgroup_folder,
) -> RunCgroup:
    """Make the cgroups of one run and set its limits, proved by reading them back.

    Args:
        parent: from `find_cgroup_parent`.
        run_name: 32 lower-case hexadecimal characters, never used before.
        limits: each that is not `None` must be enforceable.
        make_folder: makes one cgroup.

    Raises:
        UnenforceableError: a limit's controller is missing, or the kernel did not take it; nothing is left behind.
    """
    for missing in parent.missing:
        if limits.asked_for(missing.controller):
            raise unenforceable_controller(missing.controller, missing.reason, missing.remedy)
    run = parent.run_cgroup(run_name)
    made: list[CgroupPlace] = []
    try:
        for place, run_place in zip(parent.places, run.places, strict=True):
            _make_run_folder(place, run_place.folder, make_folder)
            made.append(run_place)
            _hand_down_to_run(place, run_place.folder)
        for controller in CgroupController:
            if limits.asked_for(controller):
                set_cgroup_limit(run.places, controller, limits)
    except UnenforceableError:
        for place in made:
            _cgroup_folder_removed(place.folder)
        raise
    return run


async def _repeated(once: Callable[[], K], within_seconds: float) -> K:
    """Do something again and again, less and less often, until it leaves nothing; what it left the last time."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within_seconds, 0.001
    while remaining := once():
        if loop.time() >= deadline:
            break
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
    return remaining


def _run_cgroup_place(place: CgroupPlace, run_name: str) -> CgroupPlace:
    return replace(place, folder=place.folder / CGROUP_FOLDER / run_name)


def _first_controller(place: CgroupPlace) -> CgroupController:
    """Name the controller that a fault of the whole place is reported under."""
    return next((name for name in CgroupController if name in place.controllers), CgroupController.CPU)


def _make_run_folder(place: CgroupPlace, folder: Path, make_folder: Callable[[Path], None]) -> None:
    """Make one run's folder, and the shared one above it, which another runner may remove at the same time."""
    for try_number in range(1, SHARED_FOLDER_TRIES + 1):
        try:
            with suppress(FileExistsError):
                make_folder(folder.parent)
            if place.version is CgroupVersion.V2:
                _hand_down_controllers(place.folder, place.controllers)
            make_folder(folder)
        except OSError as error:
            # A shared folder that is gone, or on its way, is made anew; v1 says ENODEV of one on its way.
            if error.errno not in {errno.ENOENT, errno.ENODEV} or try_number == SHARED_FOLDER_TRIES:
                reason = f"the cgroup {folder} cannot be made: {error.strerror}"
                raise unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error
        else:
            return


def _hand_down_to_run(place: CgroupPlace, folder: Path) -> None:
    """Enable the controllers of a run's folder, whose being there keeps others from making the shared one anew."""
    if place.version is CgroupVersion.V1:
        return
    try:
        _hand_down_controllers(folder.parent, place.controllers)
    except OSError as error:
        reason = f"{folder.parent} cannot hand its controllers down: {error.strerror}"
        raise unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error


def _hand_down_controllers(folder: Path, controllers: frozenset[str]) -> None:
    """Enable controllers for the children of a v2 cgroup, writing only where some are not."""
    switch = folder / "cgroup.subtree_control"
    lacking = controllers - controller_names(switch)
    if lacking:
        write_cgroup_file(switch, " ".join(f"+{name}" for name in sorted(lacking)))


def _cgroup_kill_written(folder: Path) -> bool:
    """End all of a v2 cgroup in one stroke, forks under way included; tells whether the kernel can (5.14)."""
    try:
        write_cgroup_file(folder / "cgroup.kill", "1")
    except OSError:
        return False
    return True


def _cgroup_folder_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# ======== sandbox/cgroup_discovery.py =================================================================================
# Finds where this process can make cgroups for runs; it only reads.
#
# The memory, CPU and process controllers may be at a v1 hierarchy each, or together at v2; each that cannot be used is
# told with its reason and remedy. Folders are plain paths below those that `/proc/self/mountinfo` names, believed only
# where they list this process.
# Source: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5).


MEMBERSHIP_LOOKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _CgroupMount:
    """One mounted hierarchy, or part of one."""

    root: PurePosixPath
    """The cgroup that is seen at the mount point."""
    point: Path
    """Where it is mounted."""
    version: CgroupVersion
    """Which interface it has."""
    controllers: frozenset[str]
    """On v1, its controllers."""
    read_only: bool
    """Whether the mount refuses writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CgroupObstacle:
    """Why a controller cannot be used."""

    reason: str
    """Without full stop."""
    remedy: str
    """Without full stop."""


_FoundPlaces: TypeAlias = dict[str, CgroupPlace | _CgroupObstacle]


def find_cgroup_parent(*, proc_root: Path = Path("/proc"), pid: int | None = None) -> CgroupParent | CgroupsUnavailable:
    """Find where the running process can make cgroups with memory, CPU and process limits; changes nothing.

    Args:
        proc_root: where `self/mountinfo` and `self/cgroup` are read.
        pid: the process they are about, as seen in `cgroup.procs`; the running one if absent.
    """
    try:
        mounts = _parsed_cgroup_mounts(cgroup_text(proc_root / "self" / "mountinfo"))
        own_paths = _parsed_own_paths(cgroup_text(proc_root / "self" / "cgroup"))
    except (OSError, ValueError) as error:
        return CgroupsUnavailable(
            reason=f"{proc_root}/self cannot be read: {error}", remedy="Mount /proc of this container's own processes"
        )
    own_pid = os.getpid() if pid is None else pid
    found = _found_v1(mounts, own_paths, own_pid)
    found |= _found_v2(mounts, own_paths, own_pid, wanted=frozenset(CgroupController) - found.keys())
    obstacles = {name: place for name, place in found.items() if isinstance(place, _CgroupObstacle)}
    missing = tuple(
        MissingController(controller=name, reason=obstacles[name].reason, remedy=obstacles[name].remedy)
        for name in CgroupController
        if name in obstacles
    )
    if len(missing) == len(CgroupController):
        return CgroupsUnavailable(reason=missing[0].reason, remedy=missing[0].remedy)
    return CgroupParent(places=_grouped_places(found), missing=missing)


def _unescaped_mount_field(field: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _parsed_cgroup_mounts(text: str) -> tuple[_CgroupMount, ...]:
    """Read the cgroup lines of mountinfo. Source: proc_pid_mountinfo(5)."""
    mounts: list[_CgroupMount] = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, super_options = rest.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point, options = fields.split(" ")[3:6]
        mounts.append(
            _CgroupMount(
                root=PurePosixPath(_unescaped_mount_field(root)),
                point=Path(_unescaped_mount_field(point)),
                version=CgroupVersion.V1 if kind == "cgroup" else CgroupVersion.V2,
                controllers=frozenset(super_options.split(",")),
                read_only="ro" in options.split(",") or "ro" in super_options.split(","),
            )
        )
    return tuple(mounts)


def _parsed_own_paths(text: str) -> dict[str, str]:
    """Map each v1 controller, and the empty name for v2, to the process's cgroup. Source: cgroups(7)."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    return paths


def _own_folder(mount: _CgroupMount, own_path: str, pid: int) -> Path | _CgroupObstacle:
    """Find the process's own cgroup below one mount, believing it only if it lists the process."""
    path = PurePosixPath(own_path)
    if ".." in path.parts or ".." in mount.root.parts or not path.is_relative_to(mount.root):
        return _CgroupObstacle(
            reason=f"{mount.point} shows {mount.root}, which does not hold this process's cgroup {own_path}",
            remedy=CGROUP_MOUNT_REMEDY,
        )
    folder = mount.point / path.relative_to(mount.root)
    # v1 tells a long list in pieces, and may leave out one that moved in it meanwhile: seen 3 times in 7,000.
    if not any(pid in cgroup_members(folder) for _ in range(MEMBERSHIP_LOOKS)):
        return _CgroupObstacle(reason=f"{folder} does not hold this process", remedy=CGROUP_MOUNT_REMEDY)
    if mount.read_only:
        return _CgroupObstacle(reason=f"{mount.point} is mounted read-only", remedy=CGROUP_MOUNT_REMEDY)
    return folder


def _found_v1(mounts: tuple[_CgroupMount, ...], own_paths: dict[str, str], pid: int) -> _FoundPlaces:
    """Find the place of each controller that is bound to a v1 hierarchy."""
    names = (*CgroupController, ACCOUNTING_CONTROLLER)
    return {name: _v1_place(name, mounts, own_paths[name], pid) for name in names if name in own_paths}


def _v1_place(name: str, mounts: tuple[_CgroupMount, ...], own_path: str, pid: int) -> CgroupPlace | _CgroupObstacle:
    obstacle = _CgroupObstacle(reason=f"the cgroup hierarchy of `{name}` is not mounted", remedy=CGROUP_MOUNT_REMEDY)
    for mount in mounts:
        if mount.version is not CgroupVersion.V1 or name not in mount.controllers:
            continue
        folder = _own_folder(mount, own_path, pid)
        if isinstance(folder, _CgroupObstacle):
            obstacle = folder
        elif os.access(folder, os.W_OK):
            return CgroupPlace(folder=folder, version=CgroupVersion.V1, controllers=frozenset({name}))
        else:
            obstacle = _CgroupObstacle(
                reason=f"this account may not make cgroups in {folder}", remedy=CGROUP_DELEGATION_REMEDY
            )
    return obstacle


def _found_v2(
    mounts: tuple[_CgroupMount, ...], own_paths: dict[str, str], pid: int, *, wanted: frozenset[CgroupController]
) -> _FoundPlaces:
    """Find the place of the controllers that v1 does not have: one for all of them."""
    if not wanted:
        return {}
    obstacle = _CgroupObstacle(reason="no cgroup v2 hierarchy is mounted", remedy=CGROUP_MOUNT_REMEDY)
    for mount in mounts:
        if mount.version is CgroupVersion.V1 or "" not in own_paths:
            continue
        folder = _own_folder(mount, own_paths[""], pid)
        if isinstance(folder, Path):
            return _v2_places(mount.point, folder, wanted)
        obstacle = folder
    return dict.fromkeys(wanted, obstacle)


def _v2_places(mount_point: Path, own: Path, wanted: frozenset[CgroupController]) -> _FoundPlaces:
    """Choose the nearest ancestor, `own` included, whose children can have most of the wanted controllers."""
    levels = (own, *own.parents)
    candidates = levels[: levels.index(mount_point) + 1]
    best = max(candidates, key=lambda folder: len(_grantable(folder) & wanted))
    granted = _grantable(best) & wanted
    place = CgroupPlace(folder=best, version=CgroupVersion.V2, controllers=frozenset(granted))
    present = controller_names(mount_point / "cgroup.controllers")
    obstacles = {name: _v2_obstacle(name, mount_point, own, present=name in present) for name in wanted - granted}
    return dict.fromkeys(granted, place) | obstacles


def _v2_obstacle(name: str, mount_point: Path, own: Path, *, present: bool) -> _CgroupObstacle:
    if not present and _is_root_cgroup(mount_point):
        return _CgroupObstacle(
            reason=f"this kernel does not offer the cgroup controller `{name}`",
            remedy=CGROUP_KERNEL_REMEDY.format(name=name),
        )
    return _CgroupObstacle(
        reason=f"neither {own} nor a cgroup above it lets this account make a child limited by `{name}` "
        "without moving processes of others",
        remedy=CGROUP_DELEGATION_REMEDY,
    )


def _grantable(folder: Path) -> frozenset[str]:
    """Tell which controllers a new child of a v2 cgroup can have, moving nobody.

    A cgroup other than the true root cannot both hold processes and hand out controllers. A process may be
    placed only by who may write `cgroup.procs` of the nearest common ancestor, which is the folder itself.
    """
    kind = folder / "cgroup.type"
    if kind.exists() and cgroup_text(kind).strip() != "domain":
        return frozenset()
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
        return frozenset()
    switch = folder / "cgroup.subtree_control"
    free = _is_root_cgroup(folder) or not cgroup_text(folder / "cgroup.procs").split()
    if free and os.access(switch, os.W_OK):
        return controller_names(folder / "cgroup.controllers")
    return controller_names(switch)


def _is_root_cgroup(folder: Path) -> bool:
    """Tell the true root: only there the file `cgroup.type` is missing, also seen from a cgroup namespace."""
    return not (folder / "cgroup.type").exists()


def _grouped_places(found: _FoundPlaces) -> tuple[CgroupPlace, ...]:
    """Make one place of controllers that share a hierarchy."""
    grouped: dict[Path, CgroupPlace] = {}
    for place in found.values():
        if isinstance(place, CgroupPlace):
            before = grouped.get(place.folder, place)
            grouped[place.folder] = replace(place, controllers=before.controllers | place.controllers)
    return tuple(grouped.values())


# ======== sandbox/ended_family.py =====================================================================================
# A command of which nothing is left afterwards, whatever it started and however it hangs.
#
# It blocks, unlike the box's own ending, and needs no cgroup: what the command started is found below it.
# Source: pidfd_open(2), proc(5).


_FAMILY_END_SECONDS = 5.0
_FAMILY_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def ended_family(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that writes both its outputs to one pipe, and end it with all that it started."""
    process = subprocess.Popen(
        command,
        cwd="/",
        env={"PATH": _FAMILY_PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end_family(process.pid)
        process.communicate()


def _end_family(process_id: int) -> None:
    """Kill a process with all its descendants: held still first, so that none forks away meanwhile."""
    pinned: dict[int, int] = {}
    try:
        while fresh := process_family(process_id) - pinned.keys():
            for member in fresh:
                with suppress(ProcessLookupError):
                    pinned[member] = os.pidfd_open(member)
                    signal_pinned(pinned[member], signal.SIGSTOP)
        for descriptor in pinned.values():
            signal_pinned(descriptor, signal.SIGKILL)
        _wait_for_pinned(tuple(pinned.values()))
    finally:
        for descriptor in pinned.values():
            os.close(descriptor)


def _wait_for_pinned(descriptors: tuple[int, ...]) -> None:
    """Wait until processes have ended, or could not be made to. Source: pidfd_open(2)."""
    poll, deadline = select.poll(), time.monotonic() + _FAMILY_END_SECONDS
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    while left and (ended := poll.poll(max(deadline - time.monotonic(), 0.0) * 1_000)):
        for descriptor, _ in ended:
            poll.unregister(descriptor)
        left -= len(ended)


# ======== sandbox/forgotten_cgroups.py ================================================================================
# Empty cgroups of runs that no note leads to any more: a container that is made anew leaves them in its host's tree.
#
# Whoever made one cannot be asked, since its private folder is gone, so nothing is ever killed here. One goes if it is
# named as runs are, made by the running user in one of our `sandbox-lockdown` folders, empty at two looks and older than
# any start; the kernel itself refuses to remove a cgroup in which there is a process or another cgroup.


FORGOTTEN_AFTER_SECONDS = 600.0
"""How old one must be: no start takes so long, so nobody is about to put a process into it."""
SECONDS_BETWEEN_LOOKS = 1.0
"""Time for a neighbour, whose code has just ended, to read what was counted for it."""


def forgotten_cgroups(cgroups: CgroupParent | CgroupsUnavailable, *, now: float) -> tuple[Path, ...]:
    """The cgroups of runs that look forgotten: old, empty and our own; whether a lease names one is not asked here.

    Args:
        cgroups: where cgroups of runs are made.
        now: seconds since 1970, to tell their age.
    """
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    return tuple(
        folder
        for place in places
        for folder in _folders_of_runs(place.folder / CGROUP_FOLDER)
        if _is_old_and_ours(folder, now - FORGOTTEN_AFTER_SECONDS) and _is_empty(folder)
    )


async def remove_forgotten(found: tuple[Path, ...]) -> None:
    """Remove those that are still empty after a moment, and the folders above them that hold no run any more.

    Args:
        found: out of `forgotten_cgroups`, none of them named by a lease.
    """
    if not found:
        return
    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    for folder in (*found, *{folder.parent for folder in found}):
        with suppress(OSError):  # in use after all, or removed by somebody else
            folder.rmdir()


def _folders_of_runs(shared: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (folder for folder in sorted(shared.iterdir()) if RUN_NAME_PATTERN.fullmatch(folder.name))


def _is_old_and_ours(folder: Path, newest: float) -> bool:
    """Whether this user made it before then; the kernel may tell a later time than that, never an earlier one."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mtime < newest


def _is_empty(folder: Path) -> bool:
    """Whether no process is in it, those that this process namespace does not see included."""
    with suppress(OSError):
        return not (folder / "cgroup.procs").read_bytes()
    return False


# ======== sandbox/queue_lines.py ======================================================================================
# Lines of those who wait for a slot, over all processes of this user on this host: first come, first served.
#
# Whoever waits holds a ticket: an empty file with an exclusive `flock` on it, which a dead process cannot keep. Its name
# says the line, when it was drawn, whose it is and how many slots there are for it; sorted names are a line's order.
# Tickets are drawn one at a time, by renaming a file whose lock is held already: no ticket is ever seen unheld, and two
# who count at once cannot both get the last one. What somebody is called is in no name. How to wait, and what a person is
# told, is left to `slots`.
#
# Source: flock(2); clock_gettime(2) for the boot-time clock, which all processes of a kernel share.


_UNDRAWN_TICKET = "next"
"""The file that becomes the next ticket; its lock says who is drawing it."""
_TICKET_SUFFIX = ".ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """One line, as one of those who could stand in it sees it."""

    name: str
    """`instance`, or `person-` and the person's hash; one line for each set of slots."""
    person: str
    """The hash of whoever wants to stand in it, 64 hexadecimal digits."""
    slots: int
    """How many slots there are for them; others in the same line may have more or fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullQueue:
    """No ticket was to be had."""

    waiting: int
    """How many wait, all persons and lines together."""
    waiting_of_person: int
    """How many of them are this person's."""


@dataclass(slots=True, kw_only=True)
class QueueTicket:
    """A place in one line, for as long as this process lives and holds it."""

    path: Path
    """The ticket's file; its name is the place."""
    descriptor: int
    """Holds the file's lock."""

    def move(self, line: QueueLine) -> None:
        """Go to the end of another line; at every moment the ticket stands in exactly one."""
        self.path = self.path.rename(self.path.with_name(_ticket_name(line)))

    def leave(self) -> None:
        """Give the place up."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.descriptor)


def tickets_before(queue: Path, line: QueueLine, ticket: QueueTicket | None) -> frozenset[str]:
    """The names of the tickets before one, or before a newcomer to the line, of whom at least the last still waits.

    Tickets of dead processes right before one are removed. One further ahead is the business of whoever stands behind
    it, so that looking costs the same few calls in a line of any length.
    """
    begin = f"{line.name}-"
    mine = ticket.path.name if ticket is not None and ticket.path.name.startswith(begin) else None
    before = {name for name in _ticket_names(queue, begin) if mine is None or name < mine}
    while before and _removed_as_dead(queue / (last := max(before))):
        before.remove(last)
    return frozenset(before)


def slots_of_ticket(name: str) -> int:
    """How many slots there are for the holder of a ticket."""
    return int(name.removesuffix(_TICKET_SUFFIX).rpartition("-")[2])


def drawn_ticket(queue: Path, line: QueueLine, *, most: int, most_of_person: int) -> QueueTicket | FullQueue | None:
    """A place at the end of a line; `None` where another process is drawing one at this very moment.

    Args:
        queue: where the tickets are, private to the running user; made where missing.
        line: where to stand.
        most: how many may wait, all persons and lines together.
        most_of_person: how many of them may be one person's.
    """
    queue.mkdir(mode=0o700, exist_ok=True)
    undrawn = queue / _UNDRAWN_TICKET
    descriptor = _locked_undrawn(undrawn)
    if descriptor is None:
        return None
    with ExitStack() as given_back:
        given_back.callback(os.close, descriptor)
        given_back.callback(undrawn.unlink, missing_ok=True)
        full = _full_queue(queue, line.person, most, most_of_person)
        if full is not None:
            return full
        path = undrawn.rename(queue / _ticket_name(line))
        given_back.pop_all()
        return QueueTicket(path=path, descriptor=descriptor)


def _ticket_name(line: QueueLine) -> str:
    moment = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return f"{line.name}-{moment:020d}-{line.person}-{secrets.token_hex(4)}-{line.slots}{_TICKET_SUFFIX}"


def _ticket_names(queue: Path, begin: str = "") -> list[str]:
    try:
        names = os.listdir(queue)  # noqa: PTH208  five times as fast, in the path of every run
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(_TICKET_SUFFIX) and name.startswith(begin)]


def _full_queue(queue: Path, person: str, most: int, most_of_person: int) -> FullQueue | None:
    """What fills the queue; the dead do not, and are looked for only where they might matter."""
    names = _ticket_names(queue)
    if _admits(names, person, most, most_of_person) is None:
        return None
    return _admits(
        [name for name in names if not _removed_as_dead(queue / name)],
        person,
        most,
        most_of_person,
    )


def _admits(names: list[str], person: str, most: int, most_of_person: int) -> FullQueue | None:
    of_person = sum(f"-{person}-" in name for name in names)
    if len(names) < most and of_person < most_of_person:
        return None
    return FullQueue(waiting=len(names), waiting_of_person=of_person)


def _locked_undrawn(undrawn: Path) -> int | None:
    """The descriptor of the next ticket, held; `None` where somebody else draws it, or has just drawn it."""
    descriptor = os.open(undrawn, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), undrawn.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _removed_as_dead(ticket: Path) -> bool:
    """Whether nobody holds a ticket any more; then it is gone afterwards."""
    try:
        descriptor = os.open(ticket, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that two who look at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        ticket.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


# ======== sandbox/release.py ==========================================================================================
# gVisor's official release archive: which one, how it is fetched, and what is taken out of it.
#
# The SHA-512 stands here, not beside the archive: a checksum from the same host vouches for nothing. Nothing is
# decompressed before it matched. A host that cannot be reached at all is told apart (`OutOfReachError`) from one that
# answers wrongly, because only the first leads to Debian's package.
# Source: https://gvisor.dev/docs/user_guide/install/ and https://github.com/google/gvisor/issues/13718 (sidecars).


SIDECAR_FOLDER = "gvisor-bin"

_OFFICIAL_RELEASES_URL = "https://storage.googleapis.com/gvisor/releases/release"
_PINNED_RELEASE_VERSION = "20260810"
_PINNED_RELEASE_SHA512 = (
    (
        "x86_64",
        (
            "3de91138cda15682c11807387f6ecad9e7c8932262018a2813277e1b4efa03ef"
            "e33b0a948e148c6b1ccfe7345bfab5d5e0d072519505465751273898bae19c62"
        ),
    ),
    (
        "aarch64",
        (
            "dc21bdc7a4f52d049f4da74a337fc7437b2ac1465c7479816a852120a8cff529"
            "2d72ae78bc4c581f857836bc9a56a1ba18ad687e6bef13d03fdd670d6f2071f7"
        ),
    ),
)
_RELEASE_VERSION = re.compile(r"([0-9]{8})(?:\.([0-9]{1,4}))?", re.ASCII)
_DOWNLOAD_MEBIBYTE = 1 << 20
_DOWNLOAD_CHUNK_BYTES = _DOWNLOAD_MEBIBYTE
_DOWNLOAD_QUIET_SECONDS = 15.0  # without an answer, or without a byte
_DOWNLOAD_PROGRESS_SECONDS = 2.0
_HTTP_OK = 200
INSTALL_OTHERWISE = (
    "Give this host a way out (https_proxy) or a mirror (SANDBOX_GVISOR_URL), or run `apt-get install runsc` as root, "
    "or put runsc (with its gvisor-bin folder, where the release has one) into a folder of PATH"
)
"""What to do where installing failed, so that running the same again would not help."""


class OutOfReachError(InstallError):
    """The release host gave no answer at all: no name, no route, no proxy, no TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """How much is accepted from outside before the download is refused."""

    archive_bytes: int = 400 * _DOWNLOAD_MEBIBYTE
    """Largest archive."""
    unpacked_bytes: int = 2048 * _DOWNLOAD_MEBIBYTE
    """Largest sum of the archive's members, taken or not."""
    members: int = 64
    """Most members of the archive."""
    seconds: float = 1800.0
    """Longest download."""
    answer_seconds: float = 60.0
    """Longest wait for the release host's first answer: name, connections, TLS and redirects together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSource:
    """Which gVisor is wanted, and where its official archive comes from."""

    url: str = _OFFICIAL_RELEASES_URL
    """Folder of releases: https, or http on loopback; `SANDBOX_GVISOR_URL`."""
    version: str = _PINNED_RELEASE_VERSION
    """Release, `YYYYMMDD` or `YYYYMMDD.N`; `SANDBOX_GVISOR_VERSION`."""
    sha512: tuple[tuple[str, str], ...] = _PINNED_RELEASE_SHA512
    """SHA-512 of `gvisor.tar.bz2` for each machine (`uname -m`); `SANDBOX_GVISOR_SHA512`."""
    min_version: str | None = None
    """Oldest gVisor that may run code, from wherever; `SANDBOX_GVISOR_MIN_VERSION`."""
    limits: DownloadLimits = DownloadLimits()
    """How much is accepted from there."""

    def __post_init__(self) -> None:
        """Refuse what could not be fetched safely, or would be refused afterwards."""
        if not _is_fetchable(self.url):
            raise _bad_gvisor_setting("SANDBOX_GVISOR_URL", f"{self.url!r} is neither https nor on loopback")
        for variable, version in (("VERSION", self.version), ("MIN_VERSION", self.min_version)):
            if version is not None and _RELEASE_VERSION.fullmatch(version) is None:
                raise _bad_gvisor_setting(f"SANDBOX_GVISOR_{variable}", f"{version!r} is no release such as 20260810.0")
        for _, digest in self.sha512:
            if re.fullmatch(r"[0-9a-f]{128}", digest) is None:
                raise _bad_gvisor_setting("SANDBOX_GVISOR_SHA512", "it is not 128 lower-case hexadecimal digits")

    def digest_for(self, machine: str) -> str:
        """The SHA-512 of the archive for a machine, as `uname -m` names it."""
        for name, digest in self.sha512:
            if name == machine:
                return digest
        raise InstallError(
            key="gVisor",
            origin="this host",
            reason=f"no release of gVisor is known for {machine}",
            remedy="Run on x86_64 or aarch64",
        )

    def archive_url(self, machine: str) -> str:
        """Where the archive for a machine lies."""
        return f"{self.url.rstrip('/')}/{self.version}/{machine}/gvisor.tar.bz2"


def release_source(
    *,
    machine: str,
    url: str | None = None,
    version: str | None = None,
    sha512: str | None = None,
    min_version: str | None = None,
) -> ReleaseSource:
    """The source that the settings name, the pinned release where they say nothing.

    Raises:
        InstallError: version without SHA-512, or the reverse; or a value that cannot be used.
    """
    if (version is None) != (sha512 is None):
        present, absent = ("VERSION", "SHA512") if sha512 is None else ("SHA512", "VERSION")
        raise _bad_gvisor_setting(
            f"SANDBOX_GVISOR_{present}",
            f"it is set without SANDBOX_GVISOR_{absent}, and a release is only safe with its own checksum",
            "Set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 together, or neither",
        )
    return ReleaseSource(
        url=url or _OFFICIAL_RELEASES_URL,
        version=version or _PINNED_RELEASE_VERSION,
        sha512=_PINNED_RELEASE_SHA512 if sha512 is None else ((machine, sha512),),
        min_version=min_version,
    )


def release_below_minimum(source: ReleaseSource) -> InstallError | None:
    """Why no installation can help a host without a gVisor that is new enough; `None` where one can."""
    if version_reaches(source.version, source.min_version):
        return None
    return _bad_gvisor_setting(
        "SANDBOX_GVISOR_MIN_VERSION",
        f"no usable gVisor of at least version {source.min_version} is on this host, and the release to install, "
        f"{source.version}, is older",
        "Set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to a newer release, or pre-install one: put its runsc "
        "into a folder of PATH",
    )


def version_reaches(version: str, minimum: str | None) -> bool:
    """Whether a version is at least the minimum; one that cannot be read reaches none."""
    if minimum is None:
        return True
    has, needs = _RELEASE_VERSION.fullmatch(version), _RELEASE_VERSION.fullmatch(minimum)
    if has is None or needs is None:
        return False
    return (int(has[1]), int(has[2] or 0)) >= (int(needs[1]), int(needs[2] or 0))


class _HttpsRedirectsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to https and refuses every other."""

    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a target that is not https: the archive's hash would hold, but who fetches what would show."""
        if not newurl.startswith("https://"):
            raise urllib.error.HTTPError(req.full_url, code, f"it redirects to {newurl!r}, not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack_release(source: ReleaseSource, machine: str, into: Path, report: Callable[[str], None]) -> None:
    """Fetch the archive and put `runsc` and its sidecars into an empty folder.

    Raises:
        OutOfReachError: the host cannot be reached at all.
        InstallError: it can, but what it gives is refused.
    """
    expected, archive = source.digest_for(machine), into / "gvisor.tar.bz2"
    report(f"Downloading gVisor {source.version} ({machine})…")
    found = _fetch_archive(source, machine, archive, report)
    if found != expected:
        raise _refused_release(source, machine, f"its SHA-512 is {found[:16]}…, not the pinned {expected[:16]}…")
    report("Unpacking gVisor…")
    try:
        _extract_archive(archive, into, source.limits)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _refused_release(source, machine, str(error)) from error
    except OSError as error:
        if error.errno is None:  # bz2 says so of data it cannot read; what the disk says has a number
            raise _refused_release(source, machine, str(error)) from error
        raise
    finally:
        archive.unlink(missing_ok=True)


class _DownloadProgress:
    """Reports a download's percentage, at most once in two seconds."""

    def __init__(self, total: int | None, report: Callable[[str], None]) -> None:
        self._total = total
        self._report = report
        self._next = time.monotonic() + _DOWNLOAD_PROGRESS_SECONDS

    def reached(self, size: int) -> None:
        """So many bytes are there."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _DOWNLOAD_PROGRESS_SECONDS
        share = f"{100 * size // self._total} % of " if self._total else ""
        self._report(f"Downloading gVisor: {share}{(self._total or size) // _DOWNLOAD_MEBIBYTE} MB…")


def _fetch_archive(source: ReleaseSource, machine: str, archive: Path, report: Callable[[str], None]) -> str:
    """Write the archive to a file and return its SHA-512."""
    with _answered_archive(source, machine) as response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"[0-9]{1,18}", length, re.ASCII) else None
        if response.status != _HTTP_OK:
            raise _refused_release(source, machine, f"the host answered with HTTP status {response.status}")
        if total is not None and total > source.limits.archive_bytes:
            raise _refused_release(source, machine, f"it would be {total} bytes, past {source.limits.archive_bytes}")
        try:
            digest, size = _saved_archive(response, archive, source.limits, _DownloadProgress(total, report))
        except (http.client.HTTPException, ValueError) as error:
            raise _refused_release(source, machine, str(error) or type(error).__name__) from error
    if total is not None and size != total:
        raise _refused_release(source, machine, f"it ended after {size} of {total} bytes")
    return digest


def _answered_archive(source: ReleaseSource, machine: str) -> http.client.HTTPResponse:
    """The host's answer, waited for no longer than permitted.

    Asked in a thread, since a name's lookup knows no deadline, and a connection's holds for each address anew.
    """
    answer: Future[http.client.HTTPResponse] = Future()
    Thread(target=_ask_for_archive, args=(source, machine, answer), daemon=True).start()
    seconds = source.limits.answer_seconds
    try:
        return answer.result(timeout=seconds)
    except TimeoutError as error:
        if answer.cancel():
            raise _host_out_of_reach(source.archive_url(machine), f"no answer within {seconds:g} seconds") from error
        return answer.result()  # it came just now


def _ask_for_archive(source: ReleaseSource, machine: str, answer: Future[http.client.HTTPResponse]) -> None:
    try:
        response = _opened_archive(source, machine)
    except InstallError as error:
        with suppress(InvalidStateError):  # nobody waits any more
            answer.set_exception(error)
        return
    try:
        answer.set_result(response)
    except InvalidStateError:
        response.close()


def _opened_archive(source: ReleaseSource, machine: str) -> http.client.HTTPResponse:
    url = source.archive_url(machine)
    handlers: list[urllib.request.BaseHandler] = [_HttpsRedirectsOnly()]
    if url.startswith("http:"):
        handlers.append(urllib.request.ProxyHandler({}))  # loopback is never reached through a proxy
    request = urllib.request.Request(url, headers={"User-Agent": "sandbox-lockdown"})  # noqa: S310 - checked in ReleaseSource
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(
            request, timeout=_DOWNLOAD_QUIET_SECONDS
        )
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused_release(
            source, machine, f"the host answered with HTTP status {error.code} ({error.msg})"
        ) from error
    except http.client.HTTPException as error:
        if isinstance(error, ConnectionError):  # RemoteDisconnected is both
            raise _host_out_of_reach(url, error) from error
        raise _refused_release(source, machine, f"the host does not speak HTTP: {type(error).__name__}") from error
    except OSError as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise _refused_release(
                source, machine, f"the host's certificate is not valid: {cause.verify_message}"
            ) from error
        raise _host_out_of_reach(url, cause) from error
    except ValueError as error:  # no name that can be looked up
        raise _refused_release(source, machine, f"the address cannot be used: {error}") from error
    return response


def _saved_archive(
    body: IO[bytes], archive: Path, limits: DownloadLimits, progress: _DownloadProgress
) -> tuple[str, int]:
    digest, size, deadline = hashlib.sha512(), 0, time.monotonic() + limits.seconds
    with archive.open("xb") as file:
        while chunk := _read_archive(body):
            size += len(chunk)
            if size > limits.archive_bytes:
                raise ValueError(f"it goes on past {limits.archive_bytes} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"it did not come within {limits.seconds:.0f} seconds")
            digest.update(chunk)
            file.write(chunk)
            progress.reached(size)
    return digest.hexdigest(), size


def _read_archive(body: IO[bytes]) -> bytes:
    try:
        return body.read(_DOWNLOAD_CHUNK_BYTES)
    except (ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise ValueError(f"the connection broke: {error}") from error


def _extract_archive(archive: Path, into: Path, limits: DownloadLimits) -> None:
    seen: set[str] = set()
    with bz2.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=_DOWNLOAD_CHUNK_BYTES) as members:
        for member in _checked_members(members, limits):
            name = str(PurePosixPath(member.name))
            if name in seen:
                raise ValueError(f"the archive holds {name!r} twice")
            seen.add(name)
            content = members.extractfile(member) if _is_wanted_member(name) else None
            if content is not None:
                _write_program(content, into / name)
    if "runsc" not in seen or not any(_is_wanted_member(name) for name in seen - {"runsc"}):
        raise ValueError(f"the archive lacks runsc, or the programs in {SIDECAR_FOLDER} that it needs beside it")


def _checked_members(members: tarfile.TarFile, limits: DownloadLimits) -> Iterator[tarfile.TarInfo]:
    """Every regular file of the archive; anything but files and folders with plain names refuses the whole."""
    count, unpacked = 0, 0
    for member in members:
        count, unpacked = count + 1, unpacked + member.size
        if count > limits.members or unpacked > limits.unpacked_bytes:
            raise ValueError(
                f"the archive unpacks to more than {limits.members} members or {limits.unpacked_bytes} bytes"
            )
        if member.name.startswith("/") or ".." in member.name.split("/") or not member.name.isprintable():
            raise ValueError(f"the archive holds the unsafe name {member.name!r}")
        if member.isdir():
            continue
        if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise ValueError(f"the archive holds {member.name!r}, which is no regular file")
        yield member


def _is_wanted_member(name: str) -> bool:
    """`runsc` and what lies in the sidecar folder; the containerd shim and the rest stay in the archive."""
    return name == "runsc" or name.startswith(f"{SIDECAR_FOLDER}/")


def _write_program(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _DOWNLOAD_CHUNK_BYTES)
        os.fchmod(file.fileno(), 0o755)


def _is_fetchable(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.query or parts.fragment or not url.isascii():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback_host(host))


def _is_loopback_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refused_release(source: ReleaseSource, machine: str, reason: str) -> InstallError:
    return InstallError(
        key=f"gVisor {source.version}",
        origin=source.archive_url(machine),
        reason=f"the official release is refused: {reason}",
        remedy=INSTALL_OTHERWISE,
    )


def _host_out_of_reach(url: str, cause: object) -> OutOfReachError:
    return OutOfReachError(
        key="gVisor's release host",
        origin=urllib.parse.urlsplit(url).netloc,
        reason=f"the official release host is out of reach ({cause})",
        remedy=INSTALL_OTHERWISE,
    )


def _bad_gvisor_setting(variable: str, reason: str, remedy: str = "Correct or unset it") -> InstallError:
    return InstallError(key=variable, origin="environment", reason=reason, remedy=remedy)


# ======== sandbox/debian.py ===========================================================================================
# Debian's package of gVisor, fetched through apt and unpacked beside: nothing is installed system-wide.
#
# apt works in a folder of its own, so this needs no root, leaves the system's lists alone and starts from nothing. It
# takes the host's sources, keys and proxies out of `/etc/apt`, and a signed index must vouch for the package: options
# that weaken this are forced off, and a package whose source is marked `trusted=yes`, `allow-insecure` or
# the like is refused, because apt would take it unsigned.
# Source: apt.conf(5), sources.list(5), apt-secure(8), apt's doc/acquire-additional-files.md (index targets).


_APT_GET = "/usr/bin/apt-get"
_DPKG_DEB = "/usr/bin/dpkg-deb"
_DEBIAN_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")
_APT_SECONDS = 600.0
_APT_TARGET_FIELDS = ("REPO_URI", "SOURCESENTRY", "TRUSTED")
# an option of a one-line entry, or a field of a deb822 one, that has apt do without a good signature
_APT_MARK = re.compile(
    r"(?:^|[\s\[])(?:trusted|allow-(?:insecure|weak|downgrade-to-insecure))\s*[+-]?[=:]\s*(?!(?:no|false|0)(?:[\s\]]|$))",
    re.IGNORECASE | re.MULTILINE,
)
_APT_CANDIDATE = re.compile(
    r"'(?P<uri>[!-~]+)' (?P<file>runsc_[A-Za-z0-9.+~%_-]+\.deb) (?P<size>[0-9]{1,12}) "
    r"(?P<kind>SHA256|SHA512):(?P<digest>[0-9a-f]+)",
    re.ASCII,
)
_PACKAGE_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}", re.ASCII)
_MOST_PACKAGE_BYTES = 400 << 20
_APT_CONFIGURATION = """\
// Written by sandbox-lockdown; read after the host's own configuration, so that it wins.
#clear APT::Update;
#clear APT::Architectures;
#clear APT::Default-Release;
#clear Acquire::IndexTargets;
#clear Acquire::Languages;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
// only the package index: no translations, contents, sources or desktop metadata
Acquire::Languages {{ "none"; }};
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
  flatDescription "$(RELEASE) Packages";
  Optional "0";
}};
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::Retries "1";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
APT::Authentication::TrustCDROM "false";
// its own user (_apt) could not enter the private folder; what comes is believed for its signature alone
APT::Sandbox::User "root";
Dir::Etc "{etc}";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}";
Dir::Log "{state}";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AptHost:
    """What apt is told about the host."""

    machine: str
    """The machine as `uname -m` names it."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Proxy variables, the only ones that apt gets to see."""
    etc: Path = Path("/etc/apt")
    """Folder of `sources.list`, `sources.list.d` and keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """The package that apt would fetch, as its index describes it."""

    uri: str
    """Where the package lies."""
    file: str
    """File name."""
    size: int
    """Bytes."""
    kind: str
    """`SHA256` or `SHA512`."""
    digest: str
    """Its hash, lower-case hexadecimal."""


def apt_host(machine: str, environ: Mapping[str, str]) -> AptHost:
    """The host as apt shall see it.

    Of the environment only proxies count. `APT_CONFIG` is left out on purpose: what the host's administrator decided
    about apt stands in `/etc/apt`, and everything else that steers apt should be visible there.
    """
    proxies = tuple((name, environ[name]) for name in _PROXY_VARIABLES if environ.get(name))
    return AptHost(machine=machine, proxies=proxies)


def unpack_debian(host: AptHost, into: Path, report: Callable[[str], None]) -> str:
    """Fetch Debian's package and put its `runsc` into an empty folder; its version, such as `0.0~20221219.0-2+b3`.

    Raises:
        InstallError: there is no apt, no such package, or no signed index that vouches for it.
    """
    if not (Path(_APT_GET).exists() and Path(_DPKG_DEB).exists()):
        raise _debian_refused("this host has no apt-get and dpkg-deb")
    state = into / "apt"
    _prepare_apt(host, state)
    report("Fetching Debian's package index…")
    # One unsigned source of several fails the whole update; whether *our* package is vouched for is asked below.
    complaints = _apt_get(host, state, "update", must_work=False).stderr
    package = _apt_candidate(host, state, complaints)
    report(f"Downloading Debian's gVisor package ({package.size >> 20} MB)…")
    _apt_get(host, state, "download", "runsc")
    archive = state / package.file
    _refuse_altered_package(archive, package)
    _refuse_marked_source(package, _apt_targets_unsigned(host, state))
    version = _unpack_package(archive, into)
    shutil.rmtree(state)
    return version


def _prepare_apt(host: AptHost, state: Path) -> None:
    architecture = _DEBIAN_MACHINES.get(host.machine)
    if architecture is None:
        raise _debian_refused(f"Debian has no gVisor for {host.machine}")
    for name in ("lists/partial", "archives/partial", "tmp"):
        Path(state, name).mkdir(parents=True, mode=0o700)
    (state / "status").touch()
    for path in (state, host.etc):
        if not re.fullmatch(r"[^\"\\\x00-\x1f]+", str(path)):
            raise _debian_refused(f"apt cannot be told the path {str(path)!r}")
    (state / "apt.conf").write_text(_APT_CONFIGURATION.format(architecture=architecture, state=state, etc=host.etc))


def _apt_get(host: AptHost, state: Path, *arguments: str, must_work: bool = True) -> subprocess.CompletedProcess[str]:
    """Run apt-get in its own folder, with an environment that holds nothing of the host but its proxies."""
    environ = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(state), "TMPDIR": str(state / "tmp")}
    result = _run_packager(
        [_APT_GET, "-q", "-c", str(state / "apt.conf"), *arguments], state, environ | dict(host.proxies)
    )
    if must_work and result.returncode != 0:
        raise _debian_refused(f"apt-get {arguments[0]} failed: {_apt_last_words(result.stderr)}")
    return result


def _run_packager(command: list[str], cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _debian_refused(f"{Path(command[0]).name} did not end within {_APT_SECONDS:.0f} seconds") from error


def _apt_candidate(host: AptHost, state: Path, complaints: str) -> DebianPackage:
    listed = _apt_get(host, state, "download", "--print-uris", "runsc", must_work=False)
    found = _APT_CANDIDATE.search(listed.stdout)
    if listed.returncode != 0 or found is None:
        raise _debian_refused(
            f"no signed source offers it: {_apt_last_words(listed.stderr)}; {_apt_last_words(complaints)}"
        )
    if int(found["size"]) > _MOST_PACKAGE_BYTES:
        raise _debian_refused(f"it would be {found['size']} bytes, past {_MOST_PACKAGE_BYTES}")
    return DebianPackage(
        uri=found["uri"], file=found["file"], size=int(found["size"]), kind=found["kind"], digest=found["digest"]
    )


def _refuse_altered_package(archive: Path, package: DebianPackage) -> None:
    if not archive.is_file() or archive.is_symlink():
        raise _debian_refused(f"apt-get did not deliver {package.file}")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, package.kind.lower()).hexdigest()
    if found != package.digest:
        raise _debian_refused(f"its {package.kind} is {found[:16]}…, the index says {package.digest[:16]}…")


def _apt_targets_unsigned(host: AptHost, state: Path) -> tuple[Mapping[str, str], ...]:
    """What apt believes of each source once the signatures are taken away: only marked ones are still trusted."""
    for signed in (*state.glob("lists/*InRelease"), *state.glob("lists/*Release.gpg")):
        signed.unlink()
    fields = "|".join(f"$({name})" for name in _APT_TARGET_FIELDS)
    rows = _apt_get(host, state, "indextargets", "--format", fields).stdout.splitlines()
    split = [row.split("|") for row in rows]
    return tuple(
        dict(zip(_APT_TARGET_FIELDS, row, strict=True)) for row in split if len(row) == len(_APT_TARGET_FIELDS)
    )


def _refuse_marked_source(package: DebianPackage, targets: tuple[Mapping[str, str], ...]) -> None:
    uri = urllib.parse.unquote(package.uri)
    sources = [target for target in targets if uri.startswith(urllib.parse.unquote(target["REPO_URI"]))]
    if not sources:
        raise _debian_refused(f"apt does not say which source {package.uri} comes from")
    for source in sources:
        entry = source["SOURCESENTRY"]
        if source["TRUSTED"] != "no" or _APT_MARK.search(_source_entry(entry)):
            raise _debian_refused(
                f"its source ({entry}) is marked to be taken without a valid signature",
                f"Remove trusted and allow-… from {entry.rpartition(':')[0]}, and add its key",
            )


def _source_entry(entry: str) -> str:
    """What a source's file says of it: its line, or all of a deb822 file, whose entries apt does not give by line."""
    name, _, number = entry.rpartition(":")
    try:
        lines = Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise _debian_refused(f"its source {entry} cannot be read: {error.strerror}") from error
    if name.endswith(".list") and number.isdecimal() and 0 < int(number) <= len(lines):
        return lines[int(number) - 1].partition("#")[0]
    return "\n".join(line for line in lines if not line.startswith("#"))


def _unpack_package(archive: Path, into: Path) -> str:
    """Keep of the package only `runsc` and, where there are any, the sidecars beside it."""
    tree = archive.parent / "tree"
    environ = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    version = _run_packager([_DPKG_DEB, "-f", str(archive), "Version"], into, environ).stdout.strip()
    if _PACKAGE_VERSION.fullmatch(version) is None:
        raise _debian_refused(f"{version[:64]!r} is not a version that can name a folder")
    unpacked = _run_packager([_DPKG_DEB, "-x", str(archive), str(tree)], into, environ)
    if unpacked.returncode != 0:
        raise _debian_refused(f"dpkg-deb failed: {_apt_last_words(unpacked.stderr)}")
    programs = tree / "usr" / "bin"
    for path in (programs / "runsc", *sorted(programs.glob(f"{SIDECAR_FOLDER}/*"))):
        if path.is_symlink() or not path.is_file():
            raise _debian_refused(f"{path.relative_to(tree)} is missing from the package, or no regular file")
        destination = into / path.relative_to(programs)
        destination.parent.mkdir(mode=0o755, exist_ok=True)
        path.rename(destination)
        destination.chmod(0o755)
    return version


def _apt_last_words(text: str) -> str:
    """What apt complains of, as one short line without control characters."""
    lines = [line for line in text.splitlines() if line.startswith(("E:", "W:"))] or text.splitlines()
    said = " ".join(" ".join(lines[-3:]).split())
    return "".join(letter for letter in said if letter.isprintable())[:400] or "no message"


def _debian_refused(
    reason: str, remedy: str = "Run `apt-get update && apt-get install runsc` as root, or put runsc on PATH"
) -> InstallError:
    return InstallError(key="Debian's package runsc", origin="apt", reason=reason, remedy=remedy)


# ======== sandbox/request.py ==========================================================================================
# What is asked of a runner: one frozen request, checked before anything is started.


MAX_CODE_BYTES = 1 << 20
"""1 MiB: far more than anybody writes into a chat."""
LANGUAGE_NAMES = {"python": "Python", "bash": "Bash"}
"""The languages that a box can start, with their names for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Code to run, and the limits it runs under."""

    language: str
    """`python` or `bash`."""
    code: str
    """The person's text."""
    limits: EffectiveLimits
    """What policy decided for this request."""
    person: str
    """Whose run it is; counts runs at once, and tells administrators who runs what. Never used as a name."""
    surface: str | None = None
    """`tool` or `function`; `None` where it came from neither."""
    processes_hard_stop: int | None = None
    """Processes of the host that the whole box may have, in place of what follows from the limits; for probes alone."""

    def __post_init__(self) -> None:
        """Refuse what no box could run, or what the limits do not permit."""
        if self.language not in LANGUAGE_NAMES:
            known = ", ".join(LANGUAGE_NAMES)
            raise SandboxError(
                key="language",
                origin="request",
                reason=f"{_shown(self.language)} cannot run here",
                remedy=f"Use {known}",
            )
        if self.language not in self.limits[LANGUAGES]:
            allowed = LANGUAGES.words(self.limits[LANGUAGES])
            raise SandboxError(
                key=LANGUAGES.name,
                origin=self.limits.origin_of(LANGUAGES),
                reason=f"{self.language} is not among the permitted languages ({allowed})",
                remedy="Use a permitted language, or ask the administrator",
            )
        problem = _code_problem(self.code)
        if problem:
            raise SandboxError(key="code", origin="request", reason=problem[0], remedy=problem[1])

    @property
    def code_bytes(self) -> bytes:
        """The code as it is handed to the interpreter."""
        return self.code.encode()

    @property
    def code_sha256(self) -> str:
        """SHA-256 of the code, in hexadecimal: what records hold in its place."""
        return hashlib.sha256(self.code_bytes).hexdigest()


def _code_problem(code: str) -> tuple[str, str] | None:
    """Why this text cannot be handed to an interpreter, and what to do; `None` where it can."""
    if "\x00" in code:
        line = code.count("\n", 0, code.index("\x00")) + 1
        return f"it holds a NUL character in line {line}", "Remove the character"
    try:
        size = len(code.encode())
    except UnicodeEncodeError:
        return "it holds half a surrogate pair, which is no text", "Remove the character"
    if size > MAX_CODE_BYTES:
        return f"it has {size} bytes, more than {MAX_CODE_BYTES}", "Shorten it; data belongs elsewhere than in code"
    return None


def _shown(untrusted: str) -> str:
    longest = 40
    return repr(re.sub(r"[^ -~]", "?", untrusted[:longest]))


# ======== sandbox/outcome.py ==========================================================================================
# What became of a run: the outcome, the output that was kept, and the record of it.


MOST_STREAM_CHANGES = 4_096
"""How often output may change between the streams with their order kept."""

_COUNTED_ROUGHLY_BYTES = 1 << 20
"""The kernel counts memory in batches, for each processor."""


class Outcome(Enum):
    """How a run ended, told by wait status and kernel counters, never by the box."""

    OK = "ok"
    """The code ended with exit code 0."""
    ERROR = "error"
    """The code ended with another exit code, or by a signal of its own."""
    TIMED_OUT = "timed_out"
    """The code was stopped at its runtime limit."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel stopped the code at its RAM limit."""
    TOO_MANY_PROCESSES = "too_many_processes"
    """The kernel refused gVisor another thread, behind the softer limit that the code itself meets."""
    KILLED = "killed"
    """The box was ended from outside, by an administrator or by somebody else on the host."""
    GVISOR_FAILED = "gvisor_failed"
    """gVisor ended without telling how the code did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of output, in the order of its arrival."""

    stream: str
    """`stdout` or `stderr`."""
    data: bytes
    """As it came."""


@dataclass(slots=True)
class KeptOutput:
    """Output of both streams up to a limit; what comes after that is counted and thrown away.

    A piece costs much more memory than a byte, so code that changes streams with each byte gets only so many of them;
    after that each stream is still whole, and only their order among each other is lost.
    """

    limit_bytes: int
    """How much is kept, of both streams together."""
    kept_bytes: int = 0
    """How much that is."""
    seen_bytes: int = 0
    """How much came."""
    _pieces: list[tuple[str, bytearray]] = field(default_factory=list)

    def add(self, stream: str, data: bytes) -> None:
        """Keep what still fits."""
        self.seen_bytes += len(data)
        kept = data[: self.limit_bytes - self.kept_bytes]
        if kept:
            self.kept_bytes += len(kept)
            self._piece_for(stream).extend(kept)

    @property
    def full(self) -> bool:
        """Whether nothing more is kept."""
        return self.kept_bytes >= self.limit_bytes

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """What was kept, in the order of its arrival."""
        return tuple(Chunk(stream=stream, data=bytes(data)) for stream, data in self._pieces)

    def _piece_for(self, stream: str) -> bytearray:
        """The last piece if it is of this stream, else a new one, or an older one where there are too many."""
        candidates = self._pieces if len(self._pieces) >= MOST_STREAM_CHANGES else self._pieces[-1:]
        found = next((data for of, data in reversed(candidates) if of == stream), None)
        if found is None:
            found = bytearray()
            self._pieces.append((stream, found))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUsage:
    """What a run used, and of what."""

    gvisor: str
    """Version and origin of the gVisor that ran it, with its age."""
    box_digest: str
    """SHA-256 of what its box was made from, which is also in the box's annotations."""
    pooled: bool
    """Whether its box had waited for it."""
    queue_seconds: float
    """How long it waited for runs before it."""
    startup_seconds: float
    """Until the interpreter was ready."""
    wall_seconds: float
    """From then to the end."""
    cpu_seconds: float | None
    """CPU time since the code was handed over, gVisor's own included; `None` where nothing counts it."""
    peak_memory_bytes: int | None
    """The most memory at once, gVisor's own included; `None` where nothing counts it."""
    egress: EgressSummary
    """What it reached, and what it was refused."""

    def record(self) -> dict[str, Any]:
        """All of it as JSON, times to the millisecond."""
        return {
            "gvisor": self.gvisor,
            "box_digest": self.box_digest,
            "pooled": self.pooled,
            "queue_seconds": round(self.queue_seconds, 3),
            "startup_seconds": round(self.startup_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "cpu_seconds": None if self.cpu_seconds is None else round(self.cpu_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "network": self.egress.record(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(RunUsage):
    """All there is to say of a finished run."""

    outcome: Outcome
    """How it ended."""
    language: str
    """`python` or `bash`."""
    exit_code: int | None
    """The code's own; `None` where it did not come to one."""
    chunks: tuple[Chunk, ...]
    """The output that was kept, in the order of its arrival."""
    truncated: bool
    """Whether output was thrown away."""
    output_limit_kilobytes: int
    """How much output was to be kept."""
    runtime_limit_seconds: int | None
    """The runtime limit; `None` where there was none."""
    ram_limit_megabytes: int | None
    """The RAM limit; `None` where there was none."""
    process_limit: int | None
    """The limit of processes and threads; `None` where there was none."""
    memory_limit_bytes: int | None
    """What its cgroup held it to, gVisor's share included; `None` where nothing did."""
    notices: tuple[str, ...]
    """What people should know: valves brought in, network not given."""
    unenforced: tuple[str, ...]
    """Limits that this host could not enforce, where the run went on without them."""
    debug_allowed: bool
    """Whether the limits permit showing internals."""
    limits_digest: str
    """Digest of the effective limits."""
    policies: tuple[tuple[str, int], ...]
    """Id and serial of each policy file that took part."""
    ended_by_administrator: bool
    """Whether `sandbox kill` ended it."""
    code_sha256: str
    """SHA-256 of the code, in hexadecimal."""
    surface: str | None = None
    """`tool` or `function`; `None` where it came from neither."""
    policy_refusal: str | None = None
    """The reason code of a policy set that is refused, while the last good one holds in its place."""
    audit_hash: str | None = None
    """The hash of its line in the audit log; `None` where it has none."""

    @property
    def output(self) -> str:
        """Both streams as text, in the order of arrival; what is no UTF-8 is replaced."""
        decoders = {chunk.stream: getincrementaldecoder("utf-8")(errors="replace") for chunk in self.chunks}
        texts = [decoders[chunk.stream].decode(chunk.data) for chunk in self.chunks]
        return "".join((*texts, *(decoder.decode(b"", final=True) for decoder in decoders.values())))

    def stream(self, name: str) -> bytes:
        """What was kept of one stream, `stdout` or `stderr`."""
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream == name)

    @property
    def sentence(self) -> str:
        """How it ended, for the person."""
        return f"{LANGUAGE_NAMES[self.language]} code {self._end_words}."

    @property
    def _end_words(self) -> str:
        runtime = _counted(self.runtime_limit_seconds, "second")
        ram = _counted(self.ram_limit_megabytes, "megabyte")
        limit = self.process_limit
        processes = "what this host permits" if limit is None else f"{limit} processes and threads, its limit"
        outside = "by an administrator" if self.ended_by_administrator else "from outside"
        memory = f"at {ram}, its RAM limit" if self._ram_limit_reached else "because this host ran out of memory for it"
        return {
            Outcome.OK: "executed successfully",
            Outcome.ERROR: f"ended with {_exit_words(self.exit_code)}",
            Outcome.TIMED_OUT: f"was stopped after {runtime}, its runtime limit",
            Outcome.OUT_OF_MEMORY: f"was stopped {memory}",
            Outcome.TOO_MANY_PROCESSES: f"was stopped at {processes}",
            Outcome.KILLED: f"was ended {outside} before it was done",
            Outcome.GVISOR_FAILED: "was not finished: gVisor failed, or was ended from outside",
        }[self.outcome]

    @property
    def _ram_limit_reached(self) -> bool:
        """Whether the memory that it used shows that it was its own limit, and not one above, that stopped it."""
        if self.memory_limit_bytes is None or self.peak_memory_bytes is None:
            return self.ram_limit_megabytes is not None
        return self.peak_memory_bytes >= self.memory_limit_bytes - _COUNTED_ROUGHLY_BYTES

    def record(self) -> dict[str, Any]:
        """The run as JSON: everything but the output."""
        return {
            "outcome": self.outcome.value,
            "surface": self.surface,
            "language": self.language,
            "code_sha256": self.code_sha256,
            "exit_code": self.exit_code,
            "truncated": self.truncated,
            "notices": list(self.notices),
            "unenforced": list(self.unenforced),
            "limits_digest": self.limits_digest,
            "policies": [{"id": name, "serial": serial} for name, serial in self.policies],
            "policy_refusal": self.policy_refusal,
            "ended_by_administrator": self.ended_by_administrator,
            **RunUsage.record(self),
            "audit_hash": self.audit_hash,
        }


def _counted(number: int | None, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _exit_words(exit_code: int | None) -> str:
    first_signal = 128
    if exit_code is not None and exit_code > first_signal:
        return f"exit code {exit_code} (signal {exit_code - first_signal})"
    return f"exit code {exit_code}"


# ======== plugins/presentation.py =====================================================================================
# What people and models see of a run: cleaned output, and results as JSON or as Markdown.
#
# Output is untrusted. Control and bidirectional characters are removed; in a chat it stands in a fence longer than any
# inside, so no link, image or markup of it comes to life.
#
# Source: CommonMark 0.31 (fences).


STATUS_WORDS = {
    Outcome.OK: "OK",
    Outcome.ERROR: "ERROR",
    Outcome.TIMED_OUT: "TIMEOUT",
    Outcome.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    Outcome.TOO_MANY_PROCESSES: "TOO_MANY_PROCESSES",
    Outcome.KILLED: "KILLED",
    Outcome.GVISOR_FAILED: "GVISOR_FAILED",
}
REFUSED_STATUS = "REFUSED"
MOST_SHOWN_PROBLEMS = 3
"""Problems of a refused policy set that stand in a chat; `policy status` has them all."""


def shown_output(result: RunResult) -> str:
    """The run's output for people, with a mark where it was cut."""
    mark = f"\n[output cut after {result.output_limit_kilobytes} kilobytes]" if result.truncated else ""
    return cleaned(result.output) + mark


def end_json(end: RunResult | PolicyError | SandboxError) -> dict[str, Any]:
    """A run, or why there was none, for a model; a non-empty `error` is what Open WebUI shows as failed."""
    if not isinstance(end, RunResult):
        return {"status": REFUSED_STATUS, "output": "", "error": refusal_sentence(end)}
    told: dict[str, Any] = {"status": STATUS_WORDS[end.outcome], "output": shown_output(end)}
    if end.outcome is not Outcome.OK:
        told |= {"error": end.sentence, "exit_code": end.exit_code}
    if end.truncated:
        told["truncated"] = True
    if end.notices:
        told["notices"] = [cleaned(notice) for notice in end.notices]
    if end.unenforced:
        told["unenforced"] = list(end.unenforced)
    if end.debug_allowed:
        told["debug"] = end.record()
    return told


def refusal_sentence(error: PolicyError | SandboxError) -> str:
    """Why a run did not happen, and what to do, for the person."""
    if isinstance(error, SandboxError):
        return f"The code was not run. {cleaned(str(error))}"
    shown = " ".join(str(problem) for problem in listed(error.problems, MOST_SHOWN_PROBLEMS))
    return f"The code was not run. {cleaned(shown)}"


def json_text(value: dict[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)


# ======== sandbox/account.py ==========================================================================================
# What the audit log is told of one run: who asked for what, under which limits, and how it ended. Never the code.
#
# Pure: whoever runs code appends it, for every end that a run can come to.


REFUSED_OUTCOME = "refused"
"""Nothing ran."""
STOPPED_OUTCOME = "stopped"
"""Whoever asked stopped it, or its server ended; code may have run until then."""
FAILED_OUTCOME = "failed"
"""A defect of ours ended it; code may have run until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """One run, as far as it has come."""

    person: str
    """Whose run it is."""
    requester: Requester
    """Who asked, as far as it can be determined."""
    language: str
    """What it was said to be."""
    code: str
    """The person's text, of which only size and SHA-256 are told."""
    limits: EffectiveLimits | None = None
    """What it ran under; `None` where it did not come to limits."""
    policy_refusal: str | None = None
    """The reason code of a policy set that is refused, while the last good one holds in its place."""
    usage: RunUsage | None = None
    """What it used until somebody stopped it; `None` where no code ran, or a result tells."""

    def of_result(self, result: RunResult) -> dict[str, Any]:
        """The account of a run that came to a result."""
        record = result.record()
        return {**self._common(), **{name: value for name, value in record.items() if name != "audit_hash"}}

    def of_refusal(self, refusal: PolicyError | SandboxError) -> dict[str, Any]:
        """The account of a run that was refused, or that could not be carried out."""
        return {**self._common(), "outcome": REFUSED_OUTCOME, "refused_for": _refused_for(refusal)}

    def of_end(self, outcome: str) -> dict[str, Any]:
        """The account of a run that ended without a result, as stopped or failed."""
        return {**self._common(), "outcome": outcome, **(self.usage.record() if self.usage else {})}

    def _common(self) -> dict[str, Any]:
        code = str(self.code).encode(errors="surrogatepass")  # models hand over numbers too
        return {
            "person": self.person,
            "who": self.requester.as_json(),
            "language": self.language,
            "code_bytes": len(code),
            "code_sha256": hashlib.sha256(code).hexdigest(),
            "policy_refusal": self.policy_refusal,
            **_limits_account(self.limits),
        }


def _limits_account(limits: EffectiveLimits | None) -> Mapping[str, Any]:
    if limits is None:
        return {"limits_digest": None, "policies": []}
    policies = [{"id": policy.policy_id, "serial": policy.serial} for policy in limits.policies]
    return {"limits_digest": limits.digest, "policies": policies}


def _refused_for(refusal: PolicyError | SandboxError) -> str:
    """The reason code of a policy set, or the name of the thing that was refused."""
    match refusal:
        case SetRefusedError():
            return refusal.code
        case PolicyError():
            return refusal.problems[0].key
        case SandboxError():
            return refusal.key


# ======== sandbox/probes.py ===========================================================================================
# Code that tries to break one limit each, in a real box, and how one sees that it could not.
#
# The start-up probe and `sandbox doctor` hold this host against the same ones.


PROBE_PLACE = "probe of this host"
_CPU_SHARE_AT_A_FIFTH = 0.3
_PROCESSES_AT_EIGHT = 8
_HARD_STOP = 384
"""More than gVisor itself starts with (measured with two processors: 34), which grows with the processors."""
_PROCESSES_PAST_THE_STOP = 480
_STOPPED_OR_REFUSED = frozenset({Outcome.TOO_MANY_PROCESSES, Outcome.ERROR})
"""gVisor ends where it can have no more threads; should a later one tell its guest instead, the shell gives up."""
_PROBE_VALUES = {
    "require_resource_limiting": False,
    "debug": True,
    "max_concurrent_runs": UNLIMITED,
    "max_instance_runs": UNLIMITED,
}
_CALM = {"networking_allowed": False, "max_runtime_seconds": 60}  # an emulated machine needs ten times what others do


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Code that tries to break one limit, and how one sees that it could not."""

    limit: str
    """Name of the limit that it proves."""
    language: str
    """`python` or `bash`."""
    code: str
    """What it tries."""
    values: Mapping[str, Any]
    """Values of limits that differ from the built-ins."""
    processes_hard_stop: int | None = None
    """Processes of the host that the whole box may have; `None` where the limits say."""
    held: Callable[[RunResult], bool]
    """Whether the limit held."""
    shows: str
    """What it showed if it held, for people."""

    def request(self) -> RunRequest:
        """What to run."""
        limits = fixed_limits({**self.values, **_PROBE_VALUES}, PROBE_PLACE)
        return RunRequest(
            language=self.language,
            code=self.code,
            limits=limits,
            person=PROBE_PLACE,
            processes_hard_stop=self.processes_hard_stop,
        )


def _cpu_share(result: RunResult) -> float:
    """CPU time for each second that the code ran, by the kernel's count; endless where nothing counted it."""
    if result.cpu_seconds is None:
        return math.inf
    return result.cpu_seconds / result.wall_seconds


PROBES = (
    Probe(
        limit="languages",
        language="python",
        code="print(6 * 7)",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Python runs",
    ),
    Probe(
        limit="languages",
        language="bash",
        code="echo $((6 * 7))",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Bash runs",
    ),
    Probe(
        limit="networking_allowed",
        language="python",
        code="import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        "\ntry: s.connect(('192.0.2.1', 9)); print('reached')"
        "\nexcept OSError: print('closed')",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output.endswith("closed\n"),
        shows="no route leads out",
    ),
    Probe(
        limit="max_runtime_seconds",
        language="python",
        code="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        values={**_CALM, "max_runtime_seconds": 1},
        held=lambda result: result.outcome is Outcome.TIMED_OUT,
        shows="endless code was stopped after 1 second",
    ),
    Probe(
        limit="max_ram_megabytes",
        language="python",
        code="b = bytearray(256 << 20)\nprint(len(b))",
        values={**_CALM, "max_ram_megabytes": 64},
        held=lambda result: result.outcome is Outcome.OUT_OF_MEMORY,
        shows="256 megabytes were not to be had at a limit of 64",
    ),
    Probe(
        limit="max_cpus",
        language="python",
        code="import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass",
        values={**_CALM, "max_cpus": Decimal("0.2")},
        held=lambda result: _cpu_share(result) < _CPU_SHARE_AT_A_FIFTH,
        shows="a busy loop got about a fifth of a CPU",
    ),
    Probe(
        limit="max_processes",
        language="python",
        code="import os\nmade = 0\ntry:\n    while made < 40:\n        if os.fork() == 0: os.read(0, 1); os._exit(0)"
        "\n        made += 1\nexcept OSError: pass\nprint(made)",
        values={**_CALM, "max_processes": 8},
        held=lambda result: result.output.strip().isdecimal() and int(result.output) < _PROCESSES_AT_EIGHT,
        shows="no more than 8 processes were to be had",
    ),
    Probe(
        limit="max_processes",
        language="bash",
        code=f"for ((n = 0; n < {_PROCESSES_PAST_THE_STOP}; n++)); do (kill -STOP $BASHPID) & done; echo made",
        values={**_CALM, "max_processes": UNLIMITED, "max_ram_megabytes": 512},
        processes_hard_stop=_HARD_STOP,
        held=lambda result: result.outcome in _STOPPED_OR_REFUSED and result.stream("stdout") != b"made\n",
        shows=f"a box with more than {_HARD_STOP} processes on the host was stopped",
    ),
    Probe(
        limit="max_disk_megabytes",
        language="bash",
        code="head -c 16M /dev/zero > /tmp/a; head -c 16M /dev/zero > /dev/shm/b; wc -c < /tmp/a; wc -c < /dev/shm/b",
        values={**_CALM, "max_disk_megabytes": 4},
        held=lambda result: sum(int(word) for word in result.stream("stdout").split()) <= 4 << 20,
        shows="32 megabytes did not fit into 4",
    ),
    Probe(
        limit="max_output_kilobytes",
        language="bash",
        code="head -c 1M /dev/zero",
        values={**_CALM, "max_output_kilobytes": 8},
        held=lambda result: result.truncated and len(result.stream("stdout")) == 8 << 10,
        shows="of 1 megabyte, 8 kilobytes were kept",
    ),
)


# ======== sandbox/run_notes.py ========================================================================================
# What a run's folder says of the run, for `sandbox ps` and `sandbox kill`: a note, and the mark of an end by hand.
#
# Whoever holds the folder's lease writes the note, whole or not at all; it decides nothing. Whoever reads it takes it for
# untrusted text of this shape, and for nothing where it is not. Each state has a file of its own, the furthest counts:
# a rename over an older file would have ext4 write it out (measured: 0.18 ms in place of 0.02). The mark is made before a
# box is ended by hand, so that the caller can tell that end from any other.
# Source: ext4(5), `auto_da_alloc`.


ADMINISTRATOR_MARK_NAME = "ended-by-administrator"
_MOST_NOTE_BYTES = 1 << 16
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RunState(Enum):
    """How far a run has come, in this order; none goes back."""

    STARTING = "starting"
    """Its box is being started."""
    WAITING = "waiting"
    """Its box waits, in a pool, for code."""
    RUNNING = "running"
    """Its box has the person's code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNote:
    """What the caller says of one run."""

    state: RunState
    """How far it has come."""
    language: str
    """`python` or `bash`."""
    person: str | None
    """Whose run it is; absent while it is nobody's."""
    surface: str | None
    """`tool` or `function`; absent where it came from neither."""
    limits_digest: str | None
    """Digest of the effective limits; absent while nobody's limits hold."""
    box_digest: str
    """Digest of what the box was made of."""
    caller_pid: int
    """The process that holds the lease, as it sees itself."""
    since: float
    """When it came into this state, in seconds since 1970."""
    started: float
    """When the run began, in seconds since 1970."""
    cgroup_folders: tuple[str, ...] = ()
    """The run's own cgroup in each hierarchy used, as absolute paths; none where there is none."""

    def __post_init__(self) -> None:
        """Refuse what no caller can mean."""
        if self.caller_pid < 1:
            raise ValueError("caller_pid is no process")
        if not (math.isfinite(self.since) and math.isfinite(self.started)):
            raise ValueError("since and started are seconds since 1970")
        if not all(folder.startswith("/") for folder in self.cgroup_folders):
            raise ValueError("cgroup_folders are absolute paths")


def write_run_note(folder: Path, note: RunNote) -> None:
    """Write the note into a run's folder in one step; for the one caller that holds its lease.

    Raises:
        OSError: it cannot be written.
    """
    said = {
        "state": note.state.value,
        "language": note.language,
        "person": note.person,
        "surface": note.surface,
        "limits_digest": note.limits_digest,
        "box_digest": note.box_digest,
        "caller_pid": note.caller_pid,
        "since": note.since,
        "started": note.started,
        "cgroup_folders": note.cgroup_folders,
    }
    path = run_note_path(folder, note.state)
    unfinished = path.with_suffix(".new")
    # Not flushed to disk: the note means nothing any more once the caller is dead.
    with os.fdopen(os.open(unfinished, _NEW_FILE_FLAGS, 0o600), "wb") as file:
        file.write(json.dumps(said).encode())
    unfinished.rename(path)


def remove_run_notes(folder: Path) -> None:
    """Remove the notes of a run that has ended: the furthest last, so that nobody reads that it went back."""
    for state in RunState:
        with suppress(OSError):
            run_note_path(folder, state).unlink()


def read_run_note(folder: Path) -> RunNote | None:
    """Read the note of a run; `None` where there is none, or something else in its place."""
    for state in reversed(RunState):
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return _parsed_run_note(json.loads(_run_note_bytes(run_note_path(folder, state))))
    return None


def run_note_path(folder: Path, state: RunState) -> Path:
    """Where the note of one state is in a run's folder."""
    return folder / f"note-{state.value}.json"


def ended_by_administrator(folder: Path) -> bool:
    """Whether somebody ended, or is about to end, this run by hand."""
    with suppress(OSError):
        return stat.S_ISREG((folder / ADMINISTRATOR_MARK_NAME).lstat().st_mode)
    return False


def _run_note_bytes(path: Path) -> bytes:
    descriptor = os.open(path, _READ_FILE_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(_MOST_NOTE_BYTES + 1)
    if len(data) > _MOST_NOTE_BYTES:
        raise ValueError("it is too long")
    return data


def _parsed_run_note(said: dict[str, Any]) -> RunNote:
    """The note that JSON says.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it says none.
    """
    return RunNote(
        state=RunState(said["state"]),
        language=_noted_text(said["language"]),
        person=_noted_text_or_none(said["person"]),
        surface=_noted_text_or_none(said["surface"]),
        limits_digest=_noted_text_or_none(said["limits_digest"]),
        box_digest=_noted_text(said["box_digest"]),
        caller_pid=_noted_process(said["caller_pid"]),
        since=_noted_seconds(said["since"]),
        started=_noted_seconds(said["started"]),
        cgroup_folders=_noted_folders(said["cgroup_folders"]),
    )


def _noted_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value


def _noted_text_or_none(value: object) -> str | None:
    return None if value is None else _noted_text(value)


def _noted_process(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("it is no process")
    return value


def _noted_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("it is no time")
    return float(value)


def _noted_folders(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("it is no list")
    return tuple(map(_noted_text, value))


# ======== sandbox/noted_cgroups.py ====================================================================================
# The cgroups that a run's note names, as far as they are proved to be that run's own.
#
# Who cleans up or ends a run may stand in another cgroup than its caller, so the note says where the run's are. A note
# is only text: a folder counts where it is a cgroup, reached through no link, named `…/sandbox-lockdown/<run name>`, and
# made by the running user. Source: proc_pid_mountinfo(5), for the device number of each cgroup hierarchy.


_CGROUP_KINDS = {"cgroup": CgroupVersion.V1, "cgroup2": CgroupVersion.V2}


def noted_cgroup(note: RunNote | None, run_name: str) -> RunCgroup:
    """The cgroups that a note names and that are proved to be this run's; with no places where there are none.

    Args:
        note: what the run's folder says of it.
        run_name: the name of that folder, 32 lower-case hexadecimal characters.
    """
    folders = note.cgroup_folders if note is not None and RUN_NAME_PATTERN.fullmatch(run_name) else ()
    with suppress(OSError, ValueError):
        hierarchies = dict(_cgroup_hierarchies())
        places = (_proved_cgroup_place(Path(folder), run_name, hierarchies) for folder in dict.fromkeys(folders))
        return RunCgroup(run_name=run_name, places=tuple(place for place in places if place is not None))
    return RunCgroup(run_name=run_name, places=())


def every_cgroup(note: RunNote | None, run_name: str, here: CgroupParent | CgroupsUnavailable) -> RunCgroup:
    """The cgroups of one run: those of that name where this process makes cgroups, and those that the note names.

    Args:
        note: what the run's folder says of it.
        run_name: the name of that folder, 32 lower-case hexadecimal characters.
        here: where this process makes cgroups.
    """
    own = here.run_cgroup(run_name).places if isinstance(here, CgroupParent) else ()
    known = {place.folder for place in own}
    noted = (place for place in noted_cgroup(note, run_name).places if place.folder not in known)
    return RunCgroup(run_name=run_name, places=(*own, *noted))


def _proved_cgroup_place(
    folder: Path, run_name: str, hierarchies: dict[int, tuple[CgroupVersion, frozenset[str]]]
) -> CgroupPlace | None:
    if folder.name != run_name or folder.parent.name != CGROUP_FOLDER:
        return None
    # A text that is no path at all (NUL, half a surrogate pair) is a ValueError.
    with suppress(OSError, ValueError):
        found = folder.lstat()
        known = hierarchies.get(found.st_dev)
        if known is None or found.st_uid != os.geteuid() or os.path.realpath(folder) != str(folder):
            return None
        version, controllers = known
        if version is CgroupVersion.V2:
            controllers = frozenset((folder / "cgroup.controllers").read_text().split())
        return CgroupPlace(folder=folder, version=version, controllers=controllers)
    return None


def _cgroup_hierarchies() -> Iterator[tuple[int, tuple[CgroupVersion, frozenset[str]]]]:
    """Device number of each mounted cgroup hierarchy, with its interface and, on v1, its controllers."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, super_options = rest.split(" ", 2)
        version = _CGROUP_KINDS.get(kind)
        if version is not None:
            major, minor = map(int, fields.split(" ")[2].split(":"))
            yield os.makedev(major, minor), (version, frozenset(super_options.split(",")))


# ======== sandbox/leases.py ===========================================================================================
# Folders of runs, each held by a lock as long as its runner lives, and the removal of what dead runners left behind.
#
# A server that is stopped by a signal never comes to its own clean-up; its boxes die with it, but their folders and
# cgroups stay. The next runner of this user removes them. It acts only on what it can prove: a folder in our own private
# folder, named as runs are named, whose lock nobody holds, and the cgroups of that very name.
#
# Source: flock(2); the lock is on the folder itself, so there is no moment between making and locking a file in it.


RUNS_FOLDER = "runs"
"""Where the folders of runs are, in the private folder."""
_REMOVAL_SECONDS = 5.0


@contextmanager
def leased_folder(runs: Path, run_name: str) -> Iterator[Path]:
    """Make a run's folder, and hold its lock for as long as the context lasts; whoever made it removes it.

    Args:
        runs: where such folders are, private to the running user.
        run_name: 32 lower-case hexadecimal characters, never used before.
    """
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _folder_lock_held(runs, fcntl.LOCK_SH):
        folder = runs / run_name
        folder.mkdir(mode=0o700)
        try:
            descriptor = _opened_folder(folder)
        except OSError:
            folder.rmdir()
            raise
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedRun:
    """A run's folder, and whether whoever made it still lives."""

    folder: Path
    """The folder, whose name is the run's."""
    held: bool
    """Whether somebody holds its lock; who lets go of it is dead, or done with the run."""


def leased_runs(runs: Path) -> tuple[LeasedRun, ...]:
    """Every run that has a folder, with none half-made meanwhile; links are no folders of runs.

    Raises:
        OSError: the folder of runs cannot be read.
    """
    if not runs.is_dir():
        return ()
    with _folder_lock_held(runs, fcntl.LOCK_EX):
        entries = [entry for entry in sorted(runs.iterdir()) if RUN_NAME_PATTERN.fullmatch(entry.name)]
        return tuple(LeasedRun(folder=entry, held=not _is_free(entry)) for entry in entries if _is_own_folder(entry))


async def remove_leftovers(
    runs: Path, cgroups: CgroupParent | CgroupsUnavailable, *, clock: Callable[[], float] = time.time
) -> tuple[str, ...]:
    """Remove the folders and cgroups of runs whose runner is dead, and forgotten cgroups; returns the runs' names.

    Args:
        runs: where the folders are.
        cgroups: where this process makes cgroups.
        clock: tells seconds since 1970, for the age of cgroups.
    """
    # Looked for before the leases: a run has its folder before it has its cgroups.
    forgotten = await asyncio.to_thread(forgotten_cgroups, cgroups, now=clock())
    found = await asyncio.to_thread(leased_runs, runs)
    abandoned = [run for run in found if not run.held]
    for run in abandoned:
        await asyncio.to_thread(remove_leftover, run, cgroups)
    named = {run.folder.name for run in found}
    await remove_forgotten(tuple(folder for folder in forgotten if folder.name not in named))
    return tuple(run.folder.name for run in abandoned)


def remove_leftover(run: LeasedRun, cgroups: CgroupParent | CgroupsUnavailable) -> bool:
    """Remove the folder and the cgroups of one run whose runner is dead; returns whether nothing is left.

    Args:
        run: out of `leased_runs`, not held.
        cgroups: where this process makes cgroups; the run's note may name others.

    Raises:
        ValueError: it is held.
    """
    if run.held:
        raise ValueError("the run's caller lives")
    name = run.folder.name
    cgroup = every_cgroup(read_run_note(run.folder), name, cgroups)
    gone = _came_true(lambda: not cgroup.kill_once()) and _came_true(lambda: not cgroup.remove_once())
    if gone:
        # Not before: without its folder, nothing would lead to the cgroups any more.
        # The first lies in the folder and goes with it; what stands there now might be a link that leads elsewhere.
        for left in control_socket_files(run.folder / "state", name)[1:]:
            with suppress(OSError):
                left.unlink()
        shutil.rmtree(run.folder, ignore_errors=True)
    return gone and not run.folder.exists()


def _came_true(condition: Callable[[], bool]) -> bool:
    """Ask again and again, for as long as a kernel may need to end and remove what is in a cgroup."""
    deadline, pause = time.monotonic() + _REMOVAL_SECONDS, 0.001
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _is_own_folder(path: Path) -> bool:
    """Whether it is a folder that this user made: another user's is no run of ours, whatever it is called."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_free(folder: Path) -> bool:
    """Whether nobody holds a run's folder; asked with a shared lock, so that those who ask do not see each other."""
    with suppress(OSError):
        descriptor = _opened_folder(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        return True
    return False


@contextmanager
def _folder_lock_held(folder: Path, operation: int) -> Iterator[None]:
    descriptor = _opened_folder(folder)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _opened_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


# ======== sandbox/runsc_program.py ====================================================================================
# What a `runsc` program says of itself: its version, and the flags that it knows.
#
# It is started with nothing in its environment (`GVISOR_SIDECAR_BINARIES_DIR` would point it elsewhere,
# `GVISOR_ENFORCE_RELEASE` would let releases mix), with nothing to read, and a deadline.
# Source: https://github.com/google/gvisor, runsc/cli, runsc/config/flags.go and runsc/config/deprecated.go.


HOW_TO_PRE_INSTALL = (
    "Run `sandbox install` as the user that runs code (where that command is not there: "
    "`SANDBOX_AUTO_INSTALL=true python3 run_code.py --use-sample-code`), or `apt-get install runsc` as root, or put "
    "runsc (with its gvisor-bin folder, where the release has one) into a folder of PATH"
)
_RUNSC_VERSION_LINE = re.compile(
    r"^runsc version (?:release-|0\.0~)?([0-9]{8}(?:\.[0-9]{1,4})?)(?![0-9])", re.ASCII | re.MULTILINE
)
_RUNSC_OTHER_VERSION = re.compile(r"^runsc version ([!-~]{1,64})", re.ASCII | re.MULTILINE)
_RUNSC_FLAG_START = re.compile(r"^ {2}-{1,2}(?=[A-Za-z])", re.MULTILINE)
_NO_DOWNLOAD_FLAGS = {"sidecar-usage-policy": "STRICT", "download-sidecars": "NEVER"}
_RUNSC_WORDS_SECONDS = 20.0
_RUNSC_BUSY_TRIES = 20


def runsc_version(path: Path) -> str:
    """The version a `runsc` reports, `YYYYMMDD[.N]` where it holds a date.

    Raises:
        InstallError: it does not start, does not end, or says nothing of the kind.
    """
    code, said = _runsc_says(path, "--version")
    found = _RUNSC_VERSION_LINE.search(said) or _RUNSC_OTHER_VERSION.search(said)
    if code != 0 or found is None:
        raise unusable_runsc(path, f"`runsc --version` ended with {code} and names no version")
    return found[1]


def runsc_flags(path: Path) -> Mapping[str, str]:
    """The flags that a `runsc` knows and that still do something, each with what it says of it; none if it says none.

    Raises:
        InstallError: it does not start, or does not end.
    """
    code, said = _runsc_says(path, "flags")
    return current_flags(said) if code == 0 else MappingProxyType({})


def current_flags(flags_text: str) -> Mapping[str, str]:
    """The flags in what `runsc flags` prints, without deprecated ones.

    A deprecated flag changes nothing any more, and would only add a warning to what the person sees.
    """
    entries = [entry for entry in _RUNSC_FLAG_START.split(flags_text) if entry.split()]
    named = {entry.split()[0]: " ".join(entry.split()[1:]) for entry in entries}
    return MappingProxyType({name: words for name, words in named.items() if "DEPRECATED:" not in words})


def offline_arguments(flags: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments that keep a `runsc` with these flags from downloading sidecars, as far as it knows any."""
    return tuple(f"--{name}={value}" for name, value in _NO_DOWNLOAD_FLAGS.items() if name in flags)


def unusable_runsc(path: Path, reason: str) -> InstallError:
    """The error for a `runsc` that is there and cannot be used."""
    return InstallError(
        key="runsc",
        origin=str(path),
        reason=reason,
        remedy=f"Mend or remove it (a folder mounted noexec will not do). Once none is left: {HOW_TO_PRE_INSTALL}",
    )


def _runsc_says(path: Path, argument: str) -> tuple[int, str]:
    """Run `runsc` for its words: with nothing in its environment, nothing to read, and a deadline."""
    for _ in range(_RUNSC_BUSY_TRIES):
        try:
            result = subprocess.run(
                [path, argument],
                cwd="/",
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_RUNSC_WORDS_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise unusable_runsc(
                path, f"`runsc {argument}` did not end within {_RUNSC_WORDS_SECONDS:.0f} seconds"
            ) from error
        except OSError as error:
            # another thread that forks while we write a program keeps it open for writing until its child execs
            if error.errno == errno.ETXTBSY:
                time.sleep(0.05)
                continue
            raise unusable_runsc(path, f"it cannot be started: {error.strerror}") from error
        return result.returncode, result.stdout
    raise unusable_runsc(path, "it stays open for writing")


# ======== sandbox/gvisor.py ===========================================================================================
# A gVisor to run code with: found on this host, or installed into the private folder.
#
# What was installed here is a folder that holds `runsc`, its sidecars and a list of both, put in place in one step after
# `runsc --version` worked; one that lost a file counts as missing. Newer releases need the sidecars of `gvisor-bin`
# beside `runsc`, and for a while fetched missing ones themselves. So `runsc` always gets an empty environment and, where
# `runsc flags` knows them, the arguments that make it fail instead.
# Source: https://github.com/google/gvisor, runsc/gvisorbinaries/gvisorbinaries.go.


_INSTALLATION_NOTE = "installation.json"
_SYSTEM_PROGRAM_FOLDERS = ("/usr/local/bin", "/usr/bin")
_INSTALL_LOCK_SECONDS = 2400.0


class RunscOrigin(StrEnum):
    """Where a `runsc` came from."""

    RELEASE = "release"
    """gVisor's official archive, installed into the private folder."""
    DEBIAN = "debian"
    """Debian's package, unpacked into the private folder."""
    PREINSTALLED = "preinstalled"
    """Somebody put it on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runsc:
    """A `runsc` that works on this host."""

    path: Path
    """The program, without symbolic links."""
    version: str
    """`YYYYMMDD` or `YYYYMMDD.N`; what it calls itself, where that is no date."""
    origin: RunscOrigin
    """Where it came from."""
    released: date | None
    """The date in its version, where there is one."""
    arguments: tuple[str, ...] = ()
    """What must stand before every subcommand, so that it never downloads anything."""

    def age_days(self, today: date) -> int | None:
        """How many days ago it was released, where that is known."""
        return None if self.released is None else (today - self.released).days


def find_runsc(
    folder: Path, path_env: str, source: ReleaseSource, *, machine: str, uid: int | None = None
) -> Runsc | None:
    """A usable `runsc` that reaches the minimum version: the wanted release, Debian's, then one put on this host.

    Args:
        folder: the private folder.
        path_env: value of `PATH`.
        source: which release is wanted, and the minimum.
        machine: as `uname -m` names it.
        uid: the running user; by default the effective one.

    Raises:
        InstallError: the `runsc` on this host does not start, or somebody else could have put it there.
    """
    own = _installed_runsc(folder / "gvisor", source, machine)
    return own or _preinstalled_runsc(path_env, source, os.geteuid() if uid is None else uid)


def install_runsc(folder: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]) -> Runsc:
    """Install the official release; where its host is out of reach, Debian's package. Blocks, for minutes at worst.

    Args:
        folder: the private folder.
        source: the release.
        host: the machine, and what apt may know of it.
        report: gets a sentence at each step, for people.

    Raises:
        InstallError: neither could be installed, or neither would be new enough; nothing half-made is left behind.
    """
    too_old = release_below_minimum(source)
    if too_old is not None:
        raise too_old
    place = folder / "gvisor"
    with _installing_alone(place, report):
        made_meanwhile = _installed_runsc(place, source, host.machine)
        return made_meanwhile or _install_release_or_debian(place, source, host, report)


def auto_install_refused(source: ReleaseSource, origin: str) -> InstallError:
    """The error for a host without gVisor where policy does not permit fetching one.

    Args:
        source: which gVisor is wanted.
        origin: who decided so, such as `environment`.
    """
    least = f" of at least version {source.min_version}" if source.min_version else ""
    return release_below_minimum(source) or InstallError(
        key="SANDBOX_AUTO_INSTALL",
        origin=origin,
        reason=f"there is no usable gVisor{least} on this host, and installing one automatically is not permitted",
        remedy=f"{HOW_TO_PRE_INSTALL}; or permit it with SANDBOX_AUTO_INSTALL=true",
    )


@contextmanager
def _installing_alone(place: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the folder of installations; what the disk says against it becomes an error of ours."""
    with _install_disk_errors(place):
        place.mkdir(mode=0o700, exist_ok=True)
        with folder_lock(
            place,
            wait_seconds=_INSTALL_LOCK_SECONDS,
            on_wait=lambda: report("Waiting for another process that is installing gVisor…"),
        ):
            yield


def _install_release_or_debian(
    place: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]
) -> Runsc:
    try:
        return _install_release(place, source, host.machine, report)
    except OutOfReachError as unreachable:
        report("The official gVisor release is out of reach, so Debian's package is tried…")
        try:
            return _install_debian(place, source, host, report)
        except InstallError as refusal:
            raise InstallError(
                key="gVisor",
                origin="this host",
                reason=f"{unreachable.origin}: {unreachable.reason}; {refusal.key}: {refusal.reason}",
                remedy=INSTALL_OTHERWISE,
            ) from refusal


def _install_release(place: Path, source: ReleaseSource, machine: str, report: Callable[[str], None]) -> Runsc:
    with partial_folder(place) as folder:
        unpack_release(source, machine, folder, report)
        made = _verified_runsc(folder, RunscOrigin.RELEASE, source.version)
        return _published_runsc(made, place / f"{source.version}-{machine}", report)


def _install_debian(place: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]) -> Runsc:
    with partial_folder(place) as folder:
        package_version = unpack_debian(host, folder, report)
        made = _verified_runsc(folder, RunscOrigin.DEBIAN, None)
        if not version_reaches(made.version, source.min_version):
            raise InstallError(
                key="Debian's package runsc",
                origin="apt",
                reason=f"it is gVisor {made.version}, and SANDBOX_GVISOR_MIN_VERSION is {source.min_version}",
                remedy=INSTALL_OTHERWISE,
            )
        return _published_runsc(made, place / f"debian-{package_version}", report)


def _verified_runsc(folder: Path, origin: RunscOrigin, wanted: str | None) -> Runsc:
    """Start what was unpacked, check that it is what it should be, and note beside it what belongs to it."""
    path = folder / "runsc"
    version = runsc_version(path)
    if wanted is not None and version != wanted and not version.startswith(f"{wanted}."):
        raise unusable_runsc(path, f"it says that it is version {version}, not {wanted}")
    made = Runsc(
        path=path,
        version=version,
        origin=origin,
        released=_release_date(version),
        arguments=offline_arguments(runsc_flags(path)),
    )
    files = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    note = {"version": version, "origin": origin, "arguments": made.arguments, "files": files}
    (folder / _INSTALLATION_NOTE).write_text(json.dumps(note, indent=1, sort_keys=True), encoding="utf-8")
    return made


def _published_runsc(made: Runsc, destination: Path, report: Callable[[str], None]) -> Runsc:
    publish_folder(made.path.parent, destination)
    report(f"Installed gVisor {made.version} ({made.origin}).")
    return replace(made, path=destination / "runsc")


def _installed_runsc(place: Path, source: ReleaseSource, machine: str) -> Runsc | None:
    """The wanted release where it is complete, else the newest package of Debian's."""
    candidates = [place / f"{source.version}-{machine}", *place.glob("debian-*")]
    complete = [found for found in map(_read_installation, candidates) if found is not None]
    usable = [found for found in complete if version_reaches(found.version, source.min_version)]
    return max(usable, key=lambda found: (found.origin is RunscOrigin.RELEASE, found.version), default=None)


def _read_installation(folder: Path) -> Runsc | None:
    """What was installed in a folder, where each of its files is still there as it was."""
    try:
        note = json.loads((folder / _INSTALLATION_NOTE).read_text(encoding="utf-8"))
        if not all(_is_intact_program(folder / name, size) for name, size in note["files"].items()):
            return None
        return Runsc(
            path=folder / "runsc",
            version=note["version"],
            origin=RunscOrigin(note["origin"]),
            released=_release_date(note["version"]),
            arguments=tuple(note["arguments"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever happened to it, it gets installed anew


def _is_intact_program(path: Path, size: int) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_size == size and bool(found.st_mode & stat.S_IXUSR)


def _preinstalled_runsc(path_env: str, source: ReleaseSource, uid: int) -> Runsc | None:
    for path in _runsc_programs(path_env):
        try:
            trusted = trusted_path(path, uid, group_may_write=True)
        except UnsafeFolderError as error:
            raise unusable_runsc(
                path, f"somebody else could have put it there: {error.origin}: {error.reason}"
            ) from error
        if trusted.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise unusable_runsc(path, "others can write it")
        version = runsc_version(trusted)
        if version_reaches(version, source.min_version):
            return Runsc(
                path=trusted,
                version=version,
                origin=RunscOrigin.PREINSTALLED,
                released=_release_date(version),
                arguments=offline_arguments(runsc_flags(trusted)),
            )
    return None


def _runsc_programs(path_env: str) -> Iterator[Path]:
    """Each executable file called runsc on the way, once; relative entries depend on our folder and do not count."""
    for folder in dict.fromkeys([*path_env.split(":"), *_SYSTEM_PROGRAM_FOLDERS]):
        path = Path(folder, "runsc")
        if folder.startswith("/") and path.is_file() and os.access(path, os.X_OK):
            yield path


def _release_date(version: str) -> date | None:
    try:
        return datetime.strptime(version[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


@contextmanager
def _install_disk_errors(place: Path) -> Iterator[None]:
    """Say of a full or read-only disk what it is."""
    try:
        yield
    except TimeoutError as error:
        raise InstallError(
            key="gVisor",
            origin=str(place),
            reason=f"another process is installing it and does not end ({error})",
            remedy="End that process, or pre-install gVisor",
        ) from error
    except OSError as error:
        raise InstallError(
            key="gVisor",
            origin=str(error.filename or place),
            reason=f"it cannot be written: {error.strerror or error}",
            remedy="Free space there, or set XDG_CACHE_HOME to a folder with 1 GB free that permits programs",
        ) from error


# ======== sandbox/host_binding.py =====================================================================================
# What all that is found out about a host is bound to, so that it is found out anew where any of it changes.


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_binding(runsc: Runsc) -> dict[str, str]:
    """This boot, kernel and user, and this very `runsc` with its arguments, at this moment. Source: proc(5)."""
    return {
        "boot": _BOOT_ID.read_text().strip(),
        "uid": str(os.geteuid()),
        "kernel": f"{platform.release()} {platform.version()}",
        "runsc": f"{runsc.path} {runsc.version} {program_stamp(runsc.path)}",
        "arguments": " ".join(runsc.arguments),
    }


def program_stamp(path: Path) -> str:
    """What is different once a program was put in the place of another: size, time and inode.

    Raises:
        OSError: it is not there.
    """
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


# ======== sandbox/proof.py ============================================================================================
# What the start-up probe found on this host, and where that is kept until something changes that it depends on.
#
# A proof holds for one boot, user, cgroup, kernel, gVisor and file tree. It lies in the private folder, which only this
# user can write. One that found a broken limit is not kept: the next start tries again.


PROOF_FORMAT = 2
"""Raised with every change of what is probed, or how."""
PROOFS_FOLDER = "proofs"
MOST_PROOFS_KEPT = 4
"""Those used last, of this boot: one for each way in which boxes are run here."""
PROBE_AGAIN_SECONDS = 60.0
"""How long a broken limit counts as broken before the host is probed once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProof:
    """Which limits held against code that tried to break them."""

    broken: Mapping[str, str]
    """By limit, why it cannot be relied on here; empty where each held, or is known to be absent."""
    found_at: float = 0.0
    """When, on the monotonic clock."""

    def lasts(self, now: float) -> bool:
        """Whether it need not be tried again: a broken limit may have been a host that was too busy for the probe."""
        return not self.broken or now < self.found_at + PROBE_AGAIN_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofBinding:
    """Everything that a proof depends on."""

    facts: Mapping[str, str]
    """By name; if one differs, the proof is of another host."""

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, in lower-case hexadecimal."""
        return hashlib.sha256(json.dumps(dict(self.facts), sort_keys=True).encode()).hexdigest()


def proof_binding(runsc: Runsc, tree_digest: str, cgroups: CgroupParent | CgroupsUnavailable) -> ProofBinding:
    """What a proof on this host at this moment is bound to."""
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    return ProofBinding(
        facts=MappingProxyType(
            {
                **host_binding(runsc),
                "format": str(PROOF_FORMAT),
                "cgroups": " ".join(f"{place.folder}:{','.join(sorted(place.controllers))}" for place in places),
                "tree": tree_digest,
            }
        )
    )


def kept_proof(folder: Path, binding: ProofBinding) -> HostProof | None:
    """The proof of this very host, if one is kept; anything that cannot be read is none.

    Args:
        folder: the private folder.
        binding: what it must be bound to.
    """
    with suppress(OSError, ValueError):
        path = folder / PROOFS_FOLDER / f"{binding.digest}.json"
        if json.loads(path.read_text()) == dict(binding.facts):
            os.utime(path)
            return HostProof(broken=MappingProxyType({}))
    return None


def keep_proof(folder: Path, binding: ProofBinding) -> None:
    """Keep that every limit held, in the place of proofs of before; a full disk keeps none, and the next start probes.

    Args:
        folder: the private folder.
        binding: what the proof is bound to.
    """
    proofs = folder / PROOFS_FOLDER
    with suppress(OSError, ValueError):
        proofs.mkdir(mode=0o700, exist_ok=True)
        partial = proofs / f".partial-{secrets.token_hex(8)}"
        partial.write_text(json.dumps(dict(binding.facts), indent=1, sort_keys=True))
        partial.rename(proofs / f"{binding.digest}.json")
        others = [path for path in proofs.glob("*.json") if path.stem != binding.digest]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for place, path in enumerate(others, start=1):
            if place >= MOST_PROOFS_KEPT or not _is_of_boot(path, binding.facts["boot"]):
                path.unlink()


def _is_of_boot(path: Path, boot: str) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(path.read_text()).get("boot") == boot)
    return False


# ======== sandbox/enforcing.py ========================================================================================
# Which of the limits can be enforced on this host: what is found and proved here, held against what a run asks for.
#
# A RAM, CPU, process or disk limit that cannot be had is refused or named, as `require_resource_limiting` says; any other
# that does not hold is refused, whatever any setting says.


RESOURCE_LIMITS = (*LIMIT_OF_CONTROLLER.values(), MAX_DISK_MEGABYTES.name)
"""The limits that `require_resource_limiting` is about."""
_CONTROLLER_OF_LIMIT = {name: controller for controller, name in LIMIT_OF_CONTROLLER.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforced:
    """What will be enforced of one run's limits."""

    cgroup_limits: CgroupLimits
    """What can be set here."""
    unenforced: tuple[str, ...]
    """Names of the limits that go without, where that is permitted."""


def enforceable(
    wanted: CgroupLimits, limits: EffectiveLimits, cgroups: CgroupParent | CgroupsUnavailable, proof: HostProof | None
) -> Enforced:
    """Hold what a run asks for against what this host can do.

    Args:
        wanted: what its cgroup would be set to.
        limits: what policy decided.
        cgroups: where cgroups can be made, or why not.
        proof: what the start-up probe found; without one, what the kernel accepts counts as enforced.

    Raises:
        UnenforceableError: a limit cannot be enforced, and the limits do not permit going without it.
    """
    missing = _missing_controllers(wanted, cgroups) | _disproved(limits, proof)
    for name, (reason, remedy) in missing.items():
        if name not in RESOURCE_LIMITS:
            raise _unenforceable(limits, name, reason, remedy)
        if limits[REQUIRE_RESOURCE_LIMITING]:
            without = ". Or permit runs without it by SANDBOX_REQUIRE_RESOURCE_LIMITING=false"
            raise _unenforceable(limits, name, reason, f"{remedy}{without}")
    absent = {_CONTROLLER_OF_LIMIT[name] for name in missing if name in _CONTROLLER_OF_LIMIT}
    return Enforced(
        cgroup_limits=CgroupLimits(
            memory_bytes=None if CgroupController.MEMORY in absent else wanted.memory_bytes,
            cpu_thousandths=None if CgroupController.CPU in absent else wanted.cpu_thousandths,
            processes_hard_stop=None if CgroupController.PIDS in absent else wanted.processes_hard_stop,
        ),
        unenforced=tuple(name for name in RESOURCE_LIMITS if name in missing),
    )


def _missing_controllers(
    wanted: CgroupLimits, cgroups: CgroupParent | CgroupsUnavailable
) -> dict[str, tuple[str, str]]:
    """Reason and remedy for each limit whose controller is needed and cannot be had."""
    if isinstance(cgroups, CgroupsUnavailable):
        lacks = dict.fromkeys(CgroupController, (cgroups.reason, cgroups.remedy))
    else:
        lacks = {lack.controller: (lack.reason, lack.remedy) for lack in cgroups.missing}
    return {LIMIT_OF_CONTROLLER[name]: lack for name, lack in lacks.items() if wanted.asked_for(name)}


def _disproved(limits: EffectiveLimits, proof: HostProof | None) -> dict[str, tuple[str, str]]:
    """Reason and remedy for each limit that the probe broke; one that is unlimited needs no proof."""
    if proof is None:
        return {}
    broken = {}
    for name, reason in proof.broken.items():
        limit = limit_named(name)
        if limit is None or not isinstance(limits[limit], Unlimited):
            broken[name] = (reason, "`sandbox doctor` shows each probe; report this with its output")
    return broken


def _unenforceable(limits: EffectiveLimits, name: str, reason: str, remedy: str) -> UnenforceableError:
    limit = limit_named(name)
    return UnenforceableError(
        key=name,
        origin=limits.origin_of(limit) if limit else name,
        reason=f"this host cannot enforce it: {reason}",
        remedy=remedy,
    )


# ======== sandbox/shared_libraries.py =================================================================================
# Which shared libraries the programs of a box's file tree need, as the host's own loader resolves them.
#
# All of them end up flat in one folder, so one name can mean one file only: a program that would bring another file of
# the same name is left out where it is optional, and refused by name where it is required. Extension modules count as
# programs here. Source: ldd(1), ld.so(8).


LDD_PLACES = (Path("/usr/bin/ldd"), Path("/bin/ldd"))
LDD_SECONDS = 120
LOADER_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
DLOPENED_LIBRARIES = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""What glibc opens by name when a thread ends or a host name is looked up: no program lists them."""
C_LIBRARY = "libc.so.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredLibraries:
    """The libraries of a set of programs, at most one file under each name."""

    files: tuple[tuple[str, Path], ...]
    """Name in the box and file on the host, sorted by name."""
    omitted: tuple[tuple[Path, str], ...]
    """Optional programs that cannot be taken along, or libraries that are not there, each with the reason."""


def file_tree_error(origin: str, reason: str, remedy: str) -> SandboxError:
    """Name what keeps the box's own file tree from being built: without it nothing runs."""
    return SandboxError(key="file tree", origin=origin, reason=reason, remedy=remedy)


def needed_libraries(programs: Sequence[Path]) -> dict[Path, dict[str, Path | None]]:
    """Ask the host's loader what each program needs; a library it does not find is `None`.

    Raises:
        SandboxError: there is no `ldd`, or it does not answer.
    """
    ldd = next((place for place in LDD_PLACES if place.exists()), None)
    if ldd is None:
        raise file_tree_error(str(LDD_PLACES[0]), "not found", "Install the C library's tools (Debian: libc-bin)")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    try:
        # It exits 1 where any of the files is a script or static, which is no fault.
        answer = subprocess.run(
            [ldd, *programs],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LDD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise file_tree_error(str(ldd), f"does not answer: {error}", "See whether it works by hand") from error
    return parsed_ldd(answer.stdout.decode(errors="surrogateescape"), programs)


def parsed_ldd(text: str, programs: Sequence[Path]) -> dict[Path, dict[str, Path | None]]:
    """Read the answer of `ldd` about some programs; one alone has no heading."""
    needs: dict[Path, dict[str, Path | None]] = {program: {} for program in programs}
    current = programs[0]
    for line in text.splitlines():
        if not line.startswith("\t") and line.endswith(":"):
            current = Path(line[:-1])
            continue
        name, arrow, target = line.strip().rpartition(" (0x")[0].partition(" => ")
        if line.endswith("=> not found"):
            needs[current][line.strip().partition(" => ")[0]] = None
        elif arrow and target:
            needs[current][Path(name).name] = Path(target)
        elif name.startswith("/"):
            needs[current][Path(name).name] = Path(name)
    return needs


def gathered_libraries(
    required: Sequence[Path], optional: Sequence[Path], needs: Mapping[Path, Mapping[str, Path | None]]
) -> GatheredLibraries:
    """Bring together what all programs need, required ones first, so that they decide which file a name means.

    Raises:
        SandboxError: a required program lacks a library, needs another file of a name that is taken, or a loader that
            lies where the box has none.
    """
    files: dict[str, Path] = {}
    omitted: list[tuple[Path, str]] = []
    for program in required:
        if fault := _library_fault(files, needs[program]):
            remedy = "Install what is missing, or run under an interpreter of the system's own packages"
            raise file_tree_error(str(program), fault, remedy)
        files |= _found_libraries(needs[program])
    for program in optional:
        if fault := _library_fault(files, needs[program]):
            omitted.append((program, fault))
        else:
            files |= _found_libraries(needs[program])
    files = _dlopened_beside(files) | files
    return GatheredLibraries(files=tuple(sorted(files.items())), omitted=tuple(omitted))


def libraries_beside(
    taken: Mapping[str, Path],
    folder: Path,
    asking: Mapping[str, Path],
    needs: Mapping[Path, Mapping[str, Path | None]],
) -> GatheredLibraries:
    """Bring together what packages need besides what a box has already; a name that is taken stays as it is.

    Args:
        taken: what the box has, by name.
        folder: where the packages are: what the loader finds there comes with them.
        asking: by name of a library that packages ask for and do not bring along, one file of theirs that does.
        needs: the loader's answers for these files.
    """
    files = {
        name: path
        for program in asking.values()
        for name, path in needs[program].items()
        if path is not None and name not in taken and not Path(os.path.normpath(path)).is_relative_to(folder)
    }
    missing = tuple(
        (Path(name), f"{program.relative_to(folder)} asks for it, and the loader does not find it")
        for name, program in asking.items()
        if needs[program].get(name) is None
    )
    return GatheredLibraries(files=tuple(sorted(files.items())), omitted=missing)


def _found_libraries(needed: Mapping[str, Path | None]) -> dict[str, Path]:
    return {name: path for name, path in needed.items() if path is not None}


def _library_fault(taken: Mapping[str, Path], needed: Mapping[str, Path | None]) -> str:
    """Say why one program's libraries cannot join those already taken, or nothing."""
    for name, path in needed.items():
        if path is None:
            return f"its library {name} is not found"
        if name.startswith("ld") and str(path.parent) not in LOADER_FOLDERS:
            return f"its loader is {path}, which lies outside {', '.join(LOADER_FOLDERS)}"
        if name in taken and not _same_library(taken[name], path):
            return f"two different files are called {name}: {taken[name]} and {path}"
    return ""


def _same_library(first: Path, second: Path) -> bool:
    return first == second or first.samefile(second) or cmp(first, second, shallow=False)


def _dlopened_beside(files: Mapping[str, Path]) -> dict[str, Path]:
    """Find what glibc itself opens later, beside the C library that was taken."""
    if C_LIBRARY not in files:
        return {}
    folder = files[C_LIBRARY].parent
    return {name: folder / name for name in DLOPENED_LIBRARIES if (folder / name).exists()}


# ======== sandbox/slots.py ============================================================================================
# Bounds the runs at once, over all processes of this user on this host, and lets those who come too many wait in turn.
#
# A slot is a file with an exclusive `flock` on it, which a dead process cannot keep. A run needs one of its person's
# slots, then one of the instance's, and waits for each in a line of its own: nobody passes another person by sending many
# requests, since no more of theirs than they have slots stand in the instance's line. Names of files come from a hash,
# never from what a person is called.
#
# Limits may differ between callers, as policy changes or has scopes. Each takes only slots whose number is within their
# own limit: there are never more runs at once than the loosest limit in use permits, and of the runs with a limit of n or
# less never more than n. One who waits for such a low number does not hold up those who may have a higher one.


_QUEUE_FOLDER = "queue"
_INSTANCE_LINE = "instance"
_PERSONS_SLOT = "person-"
_PERSONS_SHARE = 4
"""One person may fill one part of so many of the queue."""
_POLL_SECONDS_A_PLACE = 0.02
"""How often the first of a line looks; those behind, who cannot be next so soon, look as many times less often."""
_MOST_PLACES_A_POLL = 200
"""Beyond this place they look no less often than that."""
_DRAWING_SECONDS = 0.002
"""How long to leave the next ticket to another process that draws it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """How many may wait for a slot, and for how long."""

    size: int
    """Places in the instance's queue, all persons together; 0 refuses at once. One person has a quarter, at least 1."""
    max_wait_seconds: float
    """The longest that a run waits, in seconds, before it is refused."""


@asynccontextmanager
async def taken_slots(
    folder: Path,
    person: str,
    limits: EffectiveLimits,
    *,
    bounds: QueueBounds,
    tell: Callable[[str], Awaitable[None]],
) -> AsyncIterator[None]:
    """Hold one slot of the person and one of the instance for as long as the context lasts; wait in turn for them.

    Args:
        folder: where the slot files are, private to the running user.
        person: whose run it is.
        limits: how many slots there are.
        bounds: how many may wait, and for how long.
        tell: gets a sentence for the person each time their place changes; nothing where slots are free at once.

    Raises:
        BusyError: all slots are taken, and too many wait already or it took too long.
    """
    with ExitStack() as held:
        with closing(_Applicant(folder, limits, bounds, tell)) as applicant:
            for wanted in _wanted_slots(person, limits):
                slot = await applicant.slot(wanted)
                held.callback(slot.release)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedSlot:
    """One of the two kinds of slot that a run needs."""

    limit: Limit[int | Unlimited]
    """How many there are."""
    line: QueueLine
    """Where one waits for them."""


def _wanted_slots(person: str, limits: EffectiveLimits) -> Iterator[_WantedSlot]:
    """The slots that a run needs, in the order in which everybody takes them; none where there is no limit."""
    hashed = hashlib.sha256(person.encode(errors="surrogatepass")).hexdigest()
    for name, limit in ((f"{_PERSONS_SLOT}{hashed}", MAX_CONCURRENT_RUNS), (_INSTANCE_LINE, MAX_INSTANCE_RUNS)):
        count = limits[limit]
        if not isinstance(count, Unlimited):
            yield _WantedSlot(limit=limit, line=QueueLine(name=name, person=hashed, slots=count))


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldSlot:
    """A slot that is taken."""

    path: Path
    """Its file."""
    descriptor: int
    """Holds the file's lock; never below 3."""

    def release(self) -> None:
        """Free it, also where a process that was forked meanwhile still has a copy of the descriptor.

        A person's file goes, so that not everybody who ever ran something leaves one. It goes while it is locked:
        whoever has opened it meanwhile finds out, once they get the lock, that another or no file has the name.
        """
        if self.path.name.startswith(_PERSONS_SLOT):
            with suppress(OSError):
                self.path.unlink()
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)


def remove_free_slots(folder: Path) -> None:
    """Remove the files of persons' slots that dead processes left.

    Args:
        folder: where the slot files are.
    """
    for path in folder.glob(f"{_PERSONS_SLOT}*"):
        with suppress(OSError):
            slot = _taken_slot(path)
            if slot is not None:
                slot.release()


def _taken_slot(path: Path) -> _HeldSlot | None:
    """A slot that was free, or `None`."""
    while True:
        with ExitStack() as given_back:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            given_back.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    given_back.pop_all()
                    return _HeldSlot(path=path, descriptor=descriptor)
        # Whoever held it has removed it since it was opened: there is another now, or none.


class _Applicant:
    """Somebody on the way to their slots, with at most one ticket at a time."""

    def __init__(
        self, folder: Path, limits: EffectiveLimits, bounds: QueueBounds, tell: Callable[[str], Awaitable[None]]
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._queue = folder / _QUEUE_FOLDER
        self._limits = limits
        self._bounds = bounds
        self._teller = _PlaceTeller(tell)
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + bounds.max_wait_seconds
        self._ticket: QueueTicket | None = None

    async def slot(self, wanted: _WantedSlot) -> _HeldSlot:
        """A slot, once it is this one's turn.

        Raises:
            BusyError: too many wait already, or it took too long.
        """
        slot = self._free_slot(wanted.line, self._before(wanted.line))
        if slot is not None:
            return slot
        await self._line_up(wanted)
        while True:
            before = self._before(wanted.line)
            slot = self._free_slot(wanted.line, before)
            if slot is not None:
                return slot
            place = len(before) + 1
            self._refuse_if_late(wanted, f"its turn had not come, at place {place} of the queue,")
            self._teller.say(_place_sentence(wanted, place))
            await self._pause(_poll_seconds(place))

    def close(self) -> None:
        """Leave the line, and say no more."""
        self._teller.close()
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None

    def _before(self, line: QueueLine) -> frozenset[str]:
        return tickets_before(self._queue, line, self._ticket)

    def _free_slot(self, line: QueueLine, before: frozenset[str]) -> _HeldSlot | None:
        """A slot that was free and that nobody before this one could take, or `None`."""
        first = max(map(slots_of_ticket, before), default=0)
        files = (self._folder / f"{line.name}-{number}" for number in range(first, line.slots))
        return next((found for found in map(_taken_slot, files) if found is not None), None)

    async def _line_up(self, wanted: _WantedSlot) -> None:
        """Stand at the end of a line; whoever comes out of another one has been admitted already."""
        if self._ticket is not None:
            self._ticket.move(wanted.line)
        while self._ticket is None:
            size = self._bounds.size
            of_person = min(size, max(1, size // _PERSONS_SHARE))
            drawn = drawn_ticket(self._queue, wanted.line, most=size, most_of_person=of_person)
            if isinstance(drawn, FullQueue):
                raise _busy(wanted, self._limits, _full_words(drawn, size, of_person))
            self._ticket = drawn
            if drawn is None:
                self._refuse_if_late(wanted, "no place in the queue was to be had")
                await self._pause(_DRAWING_SECONDS)

    def _refuse_if_late(self, wanted: _WantedSlot, standing: str) -> None:
        if self._clock() >= self._deadline:
            raise _busy(wanted, self._limits, f"{standing} after {self._bounds.max_wait_seconds:g} seconds")

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, self._deadline - self._clock())))


class _PlaceTeller:
    """Tells a person their place without making the line wait for it: whoever is slow to hear holds up nobody."""

    def __init__(self, tell: Callable[[str], Awaitable[None]]) -> None:
        self._tell = tell
        self._told = ""
        self._telling: asyncio.Future[None] | None = None

    def say(self, sentence: str) -> None:
        """Begin to tell a sentence, unless it was the last one told or that one is still on its way."""
        if self._telling is not None:
            if not self._telling.done():
                return
            self._telling.result()  # what went wrong there goes on here
        if sentence != self._told:
            self._told = sentence
            self._telling = asyncio.ensure_future(self._tell(sentence))

    def close(self) -> None:
        """Stop telling, since it is no longer true."""
        if self._telling is not None:
            self._telling.add_done_callback(_seen_to)
            self._telling.cancel()


def _seen_to(telling: asyncio.Future[None]) -> None:
    """Keep asyncio from reporting what failed after nobody waited for it any more."""
    if not telling.cancelled():
        telling.exception()


def _poll_seconds(place: int) -> float:
    """How long to wait before looking again; far behind it differs, so that not all who came together look together."""
    return _POLL_SECONDS_A_PLACE * min(place, _MOST_PLACES_A_POLL + place % (_MOST_PLACES_A_POLL // 2))


def _place_sentence(wanted: _WantedSlot, place: int) -> str:
    count = wanted.line.slots
    if wanted.limit is MAX_CONCURRENT_RUNS:
        return (
            f"{count} of your runs {'is' if count == 1 else 'are'} under way already: place {place} in your own queue…"
        )
    taken = "The only run of this instance is taken" if count == 1 else f"All {count} runs of this instance are taken"
    return f"{taken}: place {place} in the queue…"


def _full_words(full: FullQueue, size: int, of_person: int) -> str:
    if size == 0:
        return "no queue is permitted"
    if full.waiting < size:
        return f"{full.waiting_of_person} of this person's wait already, of at most {of_person}"
    return f"{full.waiting} wait already, of at most {size}"


def _busy(wanted: _WantedSlot, limits: EffectiveLimits, standing: str) -> BusyError:
    permitted = wanted.limit.words(wanted.line.slots)
    return BusyError(
        key=wanted.limit.name,
        origin=limits.origin_of(wanted.limit),
        reason=f"as many runs are under way as are permitted at once ({permitted}), and {standing}",
        remedy="Try again when one has ended, or stop one",
    )


# ======== sandbox/starters.py =========================================================================================
# The programs that wait inside a box: each says that its interpreter is ready, reads the code, and runs it.
#
# They run before the person's code and in its process, so nothing they say is believed except the one sign that comes
# before any of that code has been handed over.


READY = b"\x00ready\n"
"""What a starter writes to standard output once its interpreter is ready for code."""

PYTHON_STARTER = """
def preload(names):
    import os, sys

    nowhere = os.open("/dev/null", os.O_WRONLY)
    kept = {number: os.dup(number) for number in (1, 2)}
    for number in kept:
        os.dup2(nowhere, number)
    for name in names:
        try:
            __import__(name)
        except BaseException:
            pass
    for stream in (sys.__stdout__, sys.__stderr__):
        stream.flush()
    for number, descriptor in kept.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.close(nowhere)

def start():
    import atexit, builtins, gc, linecache, os, sys, traceback, types
    from _sitebuiltins import Quitter, _Helper

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    builtins.help = _Helper()
    packages, *imports = sys.argv[1:] or [""]
    if packages:
        sys.path.append(packages)
    if imports:
        preload(imports)
    sys.argv = ["<code>"]
    sys.stdout.reconfigure(line_buffering=True)
    gc.freeze()
    os.write(1, bytes([0]) + b"ready\\n")
    source = sys.stdin.buffer.read().decode()
    linecache.cache["<code>"] = (len(source), None, source.splitlines(True), "<code>")
    scope = sys.modules["__main__"].__dict__
    modules, say, lasting = sys.modules, print, (types.ModuleType, types.FunctionType, type)
    run_exit_functions, collect, leave = atexit._run_exitfuncs, gc.collect, os._exit
    del scope["start"], scope["preload"]
    try:
        exec(compile(source, "<code>", "exec", dont_inherit=True), scope)
        status = 0
    except SystemExit as leaving:
        status = leaving.code
        if status is None:
            status = 0
        elif not isinstance(status, int):
            say(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        below = error.__traceback__.tb_next
        show = traceback.print_exception if sys.excepthook is sys.__excepthook__ else sys.excepthook
        show(type(error), error.with_traceback(below), below)
        status = 1
    if "threading" in modules:
        modules["threading"]._shutdown()
    run_exit_functions()
    for name in [name for name, value in scope.items() if not isinstance(value, lasting)]:
        scope.pop(name, None)
    collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass
        except OSError:
            status = 120
    leave(status & 255)

start()
"""
"""Runs the code as `__main__`, with tracebacks that begin at the person's first line and show their own lines.

Its arguments are a folder of packages, which may be empty, and modules to import beforehand. What these print is kept
from everybody, and one that cannot be imported is left out: whoever needs it is told when they import it.

The interpreter does at its end what code can see (threads waited for, exit functions, `__del__`, streams flushed), and
leaves the rest to gVisor, which has to take its memory back anyway: that is half of the time of a short run.
"""

BASH_STARTER = r"printf '\0ready\n'; . /dev/stdin"
"""Reads all of the code before its first line runs, so the code's own commands find standard input at its end."""


_FORWARDED = f"{FORWARDER}\nforward('{EGRESS_FOLDER}/{EGRESS_SOCKET}', {EGRESS_PORT})\ndel forward\n"
_BECOME_BASH = "import os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n"


def starter_command(
    language: str,
    *,
    python: str,
    bash: str,
    packages: str = "",
    imports: tuple[str, ...] = (),
    forwards: bool = False,
) -> tuple[str, ...]:
    """The command line that waits for code of a language.

    Args:
        language: `python` or `bash`.
        python: path of the interpreter in the box.
        bash: path of the shell in the box.
        packages: folder in the box where Python looks for modules after its standard library; none where empty.
        imports: modules that Python imports before it says that it is ready.
        forwards: whether connections are carried out of the box.
    """
    forwarding = _FORWARDED if forwards else ""
    if language == "python":
        arguments = (packages, *imports) if packages or imports else ()
        return (python, "-I", "-S", "-X", "utf8", "-c", forwarding + PYTHON_STARTER, *arguments)
    waiting = (bash, "--noprofile", "--norc", "-c", BASH_STARTER)
    return (python, "-I", "-S", "-c", forwarding + _BECOME_BASH, *waiting) if forwards else waiting


# ======== sandbox/box.py ==============================================================================================
# One gVisor box: started, waiting, handed its one piece of code, and ended. It serves once and is then used up.
#
# `runsc run` stays in the foreground with a private `--root`, in cgroups made beforehand, with an empty environment and
# three pipes. It dies with the thread that started it (`PR_SET_PDEATHSIG`), so a killed caller leaves no box running.
#
# Source: prctl(2), setpriv(1); measured: SIGKILL of a foreground `runsc run` ends the whole box within 60 ms.


STARTUP_SECONDS = 30.0
"""How long gVisor and the interpreter may take until code can be handed over."""
_DRAIN_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
_MOST_START_NOISE_BYTES = 1 << 16
_READS_AT_FULL_SPEED = 64
_DRIBBLE_BYTES = 1 << 12
_BREATH_SECONDS = 0.02
_READS_BETWEEN_TURNS = 4
_PIPE_BYTES = 1 << 16
"""What a pipe holds by default. Source: pipe(7)."""
_JOIN_AND_BECOME = (
    '[ "$PPID" = "$1" ] || exit 125; shift; '
    'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec env -i "$@"'
)
"""Run once the death of its parent ends it: a parent that died even before that is not the one any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFolder:
    """The private folder of one run, with the OCI bundle and gVisor's own state in it."""

    path: Path
    """The folder, 0700, made for this run."""
    name: str
    """The box's id, which is also the folder's name."""

    @property
    def bundle(self) -> Path:
        """The OCI bundle."""
        return self.path / "bundle"

    @property
    def state(self) -> Path:
        """Where gVisor keeps its own state, its `--root`."""
        return self.path / "state"

    @property
    def egress(self) -> Path:
        """Where the socket of its proxy is, if it has one."""
        return self.path / "egress"

    def write(self, spec: dict[str, object]) -> None:
        """Make the folder with the spec in it."""
        self.bundle.mkdir(mode=0o700, parents=True)
        self.state.mkdir(mode=0o700)
        (self.bundle / "config.json").write_text(json.dumps(spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxEnd:
    """How a box ended, by the kernels' word."""

    exit_code: int
    """The code's own; else that of `runsc run`, or minus the signal that ended it."""
    told_by_gvisor: bool
    """Whether gVisor itself told that the code ended so; else its process ended first, or could not be asked."""
    timed_out: bool
    """Whether we ended it at the deadline."""


class Box:
    """A started box, waiting for code."""

    def __init__(self, process: Process, pipes: BoxPipes, folder: BoxFolder, *, rootless: bool) -> None:
        self._process = process
        self._rootless = rootless
        self._pipes = pipes
        self._folder = folder
        self._watch: ExitWatch | None = None
        self._pinned: dict[int, int] = {}  # kept from when it is ready, so that to kill it nothing more is needed

    @classmethod
    async def start(cls, runsc_command: Sequence[str], folder: BoxFolder, procs_files: Sequence[Path]) -> Self:
        """Start a box; on return it may not be ready yet.

        Args:
            runsc_command: the program with its flags, up to but without the word `run`.
            folder: where the bundle is.
            procs_files: the `cgroup.procs` files into which the box is born.
        """
        pipes = BoxPipes.opened()
        stdin, stdout, stderr = pipes.child_ends
        try:
            process = await asyncio.create_subprocess_exec(
                "setpriv",
                "--pdeathsig=KILL",
                "--",
                "/bin/sh",
                "-c",
                _JOIN_AND_BECOME,
                "sh",
                str(os.getpid()),
                *map(str, procs_files),
                "--",
                *runsc_command,
                "--ignore-cgroups",
                f"--root={folder.state}",
                "run",
                f"--bundle={folder.bundle}",
                folder.name,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            pipes.close()
            raise
        finally:
            pipes.close_child_ends()
        return cls(process, pipes, folder, rootless="--rootless" in runsc_command)

    @property
    def process_id(self) -> int:
        """The process of `runsc run`, whose descendants are the box."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether nobody has heard of its end yet; of a halted `runsc run` nobody would, so gVisor itself is asked."""
        return self._process.returncode is None and (self._watch is None or self._watch.alive)

    @property
    def answers(self) -> bool:
        """Whether gVisor will tell how the code ended; else only the exit code of `runsc run` does."""
        return self._watch is not None

    async def ready(self, *, within_seconds: float = STARTUP_SECONDS) -> None:
        """Wait until the interpreter is ready for code.

        Raises:
            StartError: gVisor ended, said something else, or took longer than that.
        """
        try:
            async with asyncio.timeout(within_seconds):
                first = await self._first_bytes(len(READY))
        except TimeoutError as error:
            raise _start_error(f"the interpreter was not ready after {within_seconds:.0f} seconds", b"") from error
        if len(first) < len(READY) and READY.startswith(first):
            noise = await self._noise()
            exit_code = self._process.returncode
            ended = "closed its output" if exit_code is None else f"ended with exit code {exit_code}"
            raise _start_error(f"gVisor {ended} before the interpreter was ready", first + noise)
        if first != READY:
            raise _start_error("gVisor said something else than that the interpreter is ready", first)

    async def watch(self, box_processes: Callable[[], frozenset[int]]) -> None:
        """Ask gVisor to tell how the code ends, once the box is ready; of its processes one must be listening.

        `runsc run` asks too, and takes the box apart with the answer; it is halted, so that ours is never lost to that.
        """
        state, name = self._folder.state, self._folder.name
        self._watch = await ExitWatch.opened(state, name, self._process.pid, box_processes())
        if self._watch is not None:
            self._pinned = pinned_members(box_processes(), box_processes)
            self._halt_waiters()

    async def serve(
        self, code: bytes, output: KeptOutput, *, within_seconds: float | None, handed_over: Callable[[], None]
    ) -> BoxEnd:
        """Hand the code over, and wait for its end or the deadline; all that it wrote is kept by then.

        The box may still be there for a moment: `close` ends it.

        Args:
            code: what it runs.
            output: where what it writes is kept.
            within_seconds: how long it may take; `None` is any time.
            handed_over: called once the box has the code, which it runs meanwhile.
        """
        keeping = [
            asyncio.create_task(_kept("stdout", self._pipes.stdout, output)),
            asyncio.create_task(_kept("stderr", self._pipes.stderr, output)),
        ]
        try:
            async with asyncio.timeout(within_seconds):
                await self._pipes.stdin.write_all(code)
                handed_over()
                end = await self._ended()
            if not end.told_by_gvisor:
                await asyncio.wait(keeping, timeout=_DRAIN_SECONDS)
        except TimeoutError:
            await self.end()
            end = BoxEnd(exit_code=await self._process.wait(), told_by_gvisor=False, timed_out=True)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        _keep_rest("stdout", self._pipes.stdout, output)
        _keep_rest("stderr", self._pipes.stderr, output)
        return end

    async def end(self) -> None:
        """Kill the box, whatever it is doing, and wait until it is gone."""
        self.kill()
        if self._process.returncode is None:
            # Without a cgroup to kill, nothing but this waits for the processes below `runsc run`. Its own process is
            # among them: asyncio's `kill` would reap one that has just ended, and then report a wrong exit code.
            try:
                with pinned_processes(process_family(self._process.pid)) as descriptors:
                    await killed_processes(descriptors, within_seconds=_DRAIN_SECONDS)
            except OSError:  # no descriptor is to be had
                if not self._pinned:
                    raise
        await self._process.wait()

    def kill(self) -> None:
        """Kill what is known of the box, at once; what it started since ends with that."""
        kill_pinned(tuple(self._pinned.values()))

    async def close(self) -> None:
        """Kill the box if it still lives, and let go of its pipes."""
        try:
            await self.end()
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Kill the box and let go of its pipes, waiting for nothing: for when nobody is left to wait."""
        self.kill()
        with suppress(OSError):
            if self._process.returncode is None:
                with pinned_processes(process_family(self._process.pid)) as descriptors:
                    kill_pinned(descriptors)
        self._let_go()

    def _let_go(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._pipes.close()
        while self._pinned:
            os.close(self._pinned.popitem()[1])

    async def _ended(self) -> BoxEnd:
        told = None if self._watch is None else await self._watch.exit_code()
        if told is not None:
            return BoxEnd(exit_code=told, told_by_gvisor=True, timed_out=False)
        for descriptor in self._pinned.values():
            signal_pinned(descriptor, signal.SIGCONT)
        return BoxEnd(exit_code=await self._process.wait(), told_by_gvisor=False, timed_out=False)

    def _halt_waiters(self) -> None:
        """Halt `runsc run`, and where it started itself again in a user namespace, that one too."""
        for process_id, descriptor in self._pinned.items():
            if process_id == self._process.pid or (self._rootless and "run" in command_line(process_id)):
                signal_pinned(descriptor, signal.SIGSTOP)

    async def _first_bytes(self, count: int) -> bytes:
        first = b""
        while len(first) < count and (data := await self._pipes.stdout.read(count - len(first))):
            first += data
            if not READY.startswith(first):
                break
        return first

    async def _noise(self) -> bytes:
        """What gVisor says on standard error before it ends, if it ends."""
        noise = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while data := await self._pipes.stderr.read():
                    noise = (noise + data)[-_MOST_START_NOISE_BYTES:]
                await self._process.wait()
        return noise


async def _kept(stream: str, pipe: OutputPipe, output: KeptOutput) -> None:
    """Keep a stream, no faster than is fair: code that floods its output waits for us, and nobody else does."""
    reads = 0
    while data := await pipe.read():
        output.add(stream, data)
        reads += 1
        dribbles = reads > _READS_AT_FULL_SPEED and len(data) < _DRIBBLE_BYTES
        if dribbles or output.full:
            await asyncio.sleep(_BREATH_SECONDS)
        elif reads % _READS_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)


def _keep_rest(stream: str, pipe: OutputPipe, output: KeptOutput) -> None:
    """Keep what is still in a pipe: no more than it holds, since a child of the code may yet be writing."""
    seen = 0
    while seen < _PIPE_BYTES and (data := pipe.read_now()):
        output.add(stream, data)
        seen += len(data)


def _start_error(reason: str, noise: bytes) -> StartError:
    lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
    return StartError(reason=reason, detail=lines[-1][:300] if lines else "")


# ======== sandbox/tree_plan.py ========================================================================================
# Lists what goes into a box's file tree, touching no file's content: what it lists is also the tree's identity.
#
# Everything in a tree comes from a list: modules that belong to the standard library, commands named below, a few files
# of data. Nothing of the caller (site-packages, working directory, home) is looked at. Shared libraries are asked for
# only when a tree is built.


TREE_FORMAT = 4
"""Raised with every change of what a tree holds."""

COMMAND_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
"""Where commands are taken from, whatever the caller's PATH says."""
REQUIRED_COMMANDS = (
    "bash sh basename cat chmod cp cut date dirname echo env expr false grep head id ln ls mkdir mktemp mv printf pwd "
    "readlink rm rmdir sed seq sleep sort stat tail tee test touch tr true uname uniq wc"
)
"""Without one of these there is no tree; separated by spaces."""
OPTIONAL_COMMANDS = (
    "[ arch awk b2sum base32 base64 bc bunzip2 bzcat bzip2 chgrp chown cksum cmp column comm csplit curl dc dd df diff "
    "diff3 dmesg du egrep expand factor fgrep find fmt fold free getent getopt gunzip gzip hexdump hostname install "
    "join jq kill link logname md5sum nice nl nohup nproc numfmt od paste patch pathchk pgrep pidof pkill printenv ps "
    "ptx realpath rev sdiff sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf split sum sync tac tar "
    "time timeout truncate tsort tty unexpand unlink unxz unzip uptime wget which whoami xargs xxd xz xzcat yes zcat "
    "zip"
)
"""Taken along where the host has them and they fit; separated by spaces."""

EXCLUDED_MODULES = frozenset(
    {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "tkinter", "turtle", "turtledemo"}
)
EXCLUDED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
EXCLUDED_EXTENSIONS = ("_test", "_ctypes_test", "_tkinter", "_xxtestfuzz", "xxlimited", "xxsubtype")
CERTIFICATE_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
BOX_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ZONES = "/usr/share/zoneinfo"
C_UTF8_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")

STANDARD_LIBRARY_REMEDY = "Run under a CPython whose standard library is installed as files beside it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A CPython on the host, as far as a box needs it."""

    executable: Path
    """The program itself: no link, no virtual environment's copy."""
    standard_library: Path
    """The folder of the pure modules; its name is the one that the program looks for (`python3.11`)."""
    platform_library: Path
    """The folder that holds `lib-dynload`; mostly the same."""
    cache_tag: str
    """What its compiled files are named by (`cpython-311`)."""
    module_names: frozenset[str]
    """Top-level names of its standard library, as it lists them itself."""

    @property
    def library_name(self) -> str:
        """What its folders of modules are called (`python3.11`), in a box and in virtual environments."""
        return self.standard_library.name

    @classmethod
    def current(cls) -> Self:
        """Describe the interpreter that runs this, or the one behind the virtual environment it runs in."""
        base = {"installed_base": sys.base_prefix, "base": sys.base_prefix}
        base |= {"installed_platbase": sys.base_exec_prefix, "platbase": sys.base_exec_prefix}
        executable = getattr(sys, "_base_executable", None) or sys.executable
        return cls(
            executable=Path(os.path.realpath(executable)),
            standard_library=Path(os.path.realpath(sysconfig.get_path("stdlib", vars=base))),
            platform_library=Path(os.path.realpath(sysconfig.get_path("platstdlib", vars=base))),
            cache_tag=sys.implementation.cache_tag or "",
            module_names=sys.stdlib_module_names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSource:
    """One file of the host that goes into the tree, and what tells that it is still the same."""

    destination: str
    """Where it goes, relative to the tree's root."""
    source: str
    """The file on the host: no link."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    inode: int
    """Tells a replaced file that kept its size and time."""

    @property
    def is_command(self) -> bool:
        """Whether it is a program to start."""
        return self.destination.startswith("usr/bin/")

    @property
    def is_extension(self) -> bool:
        """Whether it is a module of the interpreter in machine code."""
        return self.destination.endswith(".so") and "/lib-dynload/" in self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePlan:
    """What a tree will hold, shared libraries apart: those are asked for only when it is built."""

    interpreter: Interpreter
    """Whose tree it is."""
    sources: tuple[TreeSource, ...]
    """All files of the host except shared libraries, compiled modules and time zones."""
    packages: Packages | None
    """The packages offered beside it, whose shared libraries it holds too."""

    @property
    def digest(self) -> str:
        """SHA-256 over the format, the fixed parts and the identity of each file, in lower-case hexadecimal.

        Packages are not in it: they change a tree only by the libraries that they need.
        """
        return identity_digest(f"{TREE_FORMAT} {self.interpreter.executable.name}", self.sources)

    @property
    def required_destinations(self) -> frozenset[str]:
        """The programs without which there is no tree."""
        return frozenset(
            {_python_destination(self.interpreter), *(f"usr/bin/{name}" for name in REQUIRED_COMMANDS.split())}
        )


def planned_tree(interpreter: Interpreter, packages: Packages | None = None) -> TreePlan:
    """List what goes into the tree; takes a few milliseconds.

    Raises:
        SandboxError: the interpreter or a required command is not there in a form that can be copied.
    """
    sources = (
        *_interpreter_sources(interpreter),
        *_standard_library_sources(interpreter),
        *_command_sources(),
        *_data_sources(),
    )
    return TreePlan(interpreter=interpreter, sources=sources, packages=packages)


def identity_digest(heading: str, sources: tuple[TreeSource, ...]) -> str:
    """SHA-256 over a heading and the identity of some files, in lower-case hexadecimal."""
    lines = (f"{one.destination}\0{one.size}\0{one.mtime_ns}\0{one.inode}" for one in sources)
    return hashlib.sha256("\n".join((heading, *lines)).encode(errors="surrogateescape")).hexdigest()


def tree_source(destination: str, source: str, status: os.stat_result | None = None) -> TreeSource:
    """Describe a file of the host as it is now."""
    status = status or os.stat(source)  # noqa: PTH116 - hundreds of these at each start
    return TreeSource(
        destination=destination, source=source, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino
    )


def _python_destination(interpreter: Interpreter) -> str:
    return f"usr/bin/{interpreter.library_name}"


def _interpreter_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    if not _is_elf(interpreter.executable):
        raise file_tree_error(str(interpreter.executable), "is not a program in machine code", STANDARD_LIBRARY_REMEDY)
    yield tree_source(_python_destination(interpreter), str(interpreter.executable))


def _is_elf(path: Path) -> bool:
    return first_bytes(path).startswith(b"\x7fELF")


def first_bytes(path: Path) -> bytes:
    """Read as much of a file as tells what kind of program it is."""
    with path.open("rb") as file:
        return file.read(64)


def _standard_library_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    home, base = interpreter.standard_library, f"usr/lib/{interpreter.library_name}"
    for required in ("os.py", "encodings/__init__.py"):
        if not (home / required).is_file():
            raise file_tree_error(str(home / required), "not found", STANDARD_LIBRARY_REMEDY)
    with os.scandir(home) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _belongs(entry.name, interpreter.module_names):
                yield from _module_sources(entry, f"{base}/{entry.name}", str(home))
    dynamic = interpreter.platform_library / "lib-dynload"
    if dynamic.is_dir():
        with os.scandir(dynamic) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith(EXCLUDED_EXTENSIONS):
                    yield from _module_sources(entry, f"{base}/lib-dynload/{entry.name}", str(dynamic))


def _belongs(name: str, module_names: frozenset[str]) -> bool:
    """Tell whether a top-level entry is of the standard library: by its own list, not by lying in its folder."""
    module = name.partition(".")[0]
    return (module in module_names and module not in EXCLUDED_MODULES) or module.startswith("_sysconfigdata_")


def _module_sources(entry: os.DirEntry[str], destination: str, home: str) -> Iterator[TreeSource]:
    """List one module, or all modules of a package; links count only if they stay inside the library."""
    if entry.is_dir(follow_symlinks=False):
        if entry.name not in EXCLUDED_FOLDERS:
            with os.scandir(entry) as entries:
                for inner in sorted(entries, key=lambda inner: inner.name):
                    yield from _module_sources(inner, f"{destination}/{inner.name}", home)
        return
    if not entry.name.endswith((".py", ".so")) or not entry.is_file():
        return
    source = os.path.realpath(entry) if entry.is_symlink() else entry.path
    if source.startswith(f"{home}/"):
        yield tree_source(destination, source, entry.stat())


def _command_sources() -> Iterator[TreeSource]:
    required = frozenset(REQUIRED_COMMANDS.split())
    for name in sorted(required.union(OPTIONAL_COMMANDS.split())):
        found = next((f"{place}/{name}" for place in COMMAND_FOLDERS if os.access(f"{place}/{name}", os.X_OK)), None)
        if found is not None:
            yield tree_source(f"usr/bin/{name}", os.path.realpath(found))
        elif name in required:
            remedy = "Install it (Debian: bash, coreutils, grep and sed hold all that are needed)"
            raise file_tree_error(name, f"not found in {', '.join(COMMAND_FOLDERS)}", remedy)


def _data_sources() -> Iterator[TreeSource]:
    """List certificates, the C.UTF-8 locale, and of the time zones the file that names their version."""
    bundle = next((path for path in CERTIFICATE_BUNDLES if os.access(path, os.R_OK)), None)
    if bundle is not None:
        yield tree_source(BOX_CERTIFICATES, os.path.realpath(bundle))
    for version_file in ("tzdata.zi", "zone.tab"):
        if Path(ZONES, version_file).is_file():
            yield tree_source(f"usr/share/zoneinfo/{version_file}", os.path.realpath(f"{ZONES}/{version_file}"))
    locale = next((Path(path) for path in C_UTF8_LOCALES if Path(path).is_dir()), None)
    for path in sorted(locale.rglob("*")) if locale else ():
        if path.is_file() and not path.is_symlink():
            yield tree_source(f"usr/lib/locale/C.utf8/{path.relative_to(locale or path)}", str(path))


# ======== sandbox/tree_build.py =======================================================================================
# Builds a box's file tree in a folder of its own: copies what the plan lists, compiles it, and gives it its rights.
#
# No host path is in the box: compiled modules are made anew under the names that they have there. Rights, owners and
# attributes of the host's files are never taken over.


BOX_UID = 1000
COMPILE_SECONDS = 300
EXCLUDED_ZONES = frozenset({"right", "posix"})
SHELLS_OF_SCRIPTS = ("#!/bin/sh", "#!/bin/bash", "#!/usr/bin/sh", "#!/usr/bin/bash", "#!/usr/bin/env bash")

TREE_LINKS = (
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib"),
    ("usr/sbin", "bin"),
    ("usr/lib64", "lib"),
    ("usr/lib/ssl/certs", "/etc/ssl/certs"),
    ("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/tmp", "../tmp"),
    ("etc/localtime", "../usr/share/zoneinfo/Etc/UTC"),
)
TREE_FOLDERS = (
    "proc",
    "dev",
    "tmp",
    "usr/bin",
    "usr/lib/ssl",
    "etc/ssl/certs",
    "usr/share/zoneinfo",
    "var",
    BOX_PACKAGES.lstrip("/"),
    EGRESS_FOLDER.lstrip("/"),
)
BOX_ACCOUNTS = (
    "root:x:0:0:root:/:/bin/false\n"
    f"sandbox:x:{BOX_UID}:{BOX_UID}:sandbox:/tmp:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n"
)
TREE_TEXTS = (
    ("etc/passwd", BOX_ACCOUNTS),
    ("etc/group", f"root:x:0:\nsandbox:x:{BOX_UID}:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/os-release", 'NAME="Sandbox"\nID=sandbox\nPRETTY_NAME="Sandbox"\n'),
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChoice:
    """What of a plan goes into a tree, once programs and packages were asked for their shared libraries."""

    files: tuple[TreeSource, ...]
    """Everything else."""
    libraries: tuple[TreeSource, ...]
    """Shared libraries, those that packages need included."""
    omitted: tuple[str, ...]
    """Optional programs and modules that cannot come along, each with the reason."""
    missing: tuple[str, ...]
    """Libraries that packages ask for and nobody here has, each with the file that asks."""


def chosen_sources(plan: TreePlan) -> TreeChoice:
    """Decide which optional programs can come along, and with which shared libraries.

    Raises:
        SandboxError: a required program cannot come along.
    """
    unusable = {one.destination: fault for one in plan.sources if one.is_command and (fault := _command_fault(one))}
    needed = plan.required_destinations
    for destination in sorted(needed & unusable.keys()):
        raise file_tree_error(f"/{destination}", unusable[destination], "Install the distribution's own package")
    programs = [one for one in plan.sources if (one.is_command or one.is_extension) and one.destination not in unusable]
    folder = plan.packages.folder if plan.packages else Path(os.devnull)
    asking = outside_needs(folder)
    needs = needed_libraries(sorted({*(Path(one.source) for one in programs), *asking.values()}))
    gathered = gathered_libraries(
        [Path(one.source) for one in programs if one.destination in needed],
        [Path(one.source) for one in programs if one.destination not in needed],
        needs,
    )
    added = libraries_beside(dict(gathered.files), folder, asking, needs)
    faults = {str(path): reason for path, reason in gathered.omitted}
    unusable |= {one.destination: faults[one.source] for one in programs if one.source in faults}
    return TreeChoice(
        files=tuple(one for one in plan.sources if one.destination not in unusable),
        libraries=tuple(
            tree_source(f"usr/lib/{name}", os.path.realpath(path))
            for name, path in sorted((*gathered.files, *added.files))
        ),
        omitted=tuple(f"{name.rpartition('/')[2]}: {fault}" for name, fault in sorted(unusable.items())),
        missing=tuple(f"{path.name}: {reason}" for path, reason in added.omitted),
    )


def fill_tree(building: Path, interpreter: Interpreter, choice: TreeChoice) -> tuple[int, int]:
    """Make the whole tree in an empty folder; returns the number of its files and their bytes.

    Raises:
        SandboxError: a file changed meanwhile, or the interpreter does not compile.
        OSError: this host did not let it be made.
    """
    _lay_out(building, interpreter)
    _copy_sources(building, (*choice.files, *choice.libraries))
    _copy_zones(building)
    _compile_library(building, interpreter)
    return _sealed(building)


def _command_fault(command: TreeSource) -> str:
    """Say why a command could not run in the box, or nothing."""
    head = first_bytes(Path(command.source))
    if head.startswith(b"\x7fELF"):
        return ""
    line = head.partition(b"\n")[0].decode(errors="replace").replace("#! ", "#!")
    return "" if line.startswith(SHELLS_OF_SCRIPTS) else "is a script for an interpreter that the box lacks"


def _lay_out(building: Path, interpreter: Interpreter) -> None:
    """Make folders, links and the files written here."""
    for folder in (*TREE_FOLDERS, f"usr/lib/{interpreter.library_name}/lib-dynload"):
        (building / folder).mkdir(parents=True, exist_ok=True)
    binary = interpreter.library_name
    for link, target in (*TREE_LINKS, ("usr/bin/python3", binary), ("usr/bin/python", binary)):
        (building / link).symlink_to(target)
    for name, text in TREE_TEXTS:
        (building / name).write_text(text)


def _copy_sources(building: Path, sources: tuple[TreeSource, ...]) -> None:
    """Copy content and time, never rights, owners or attributes; one program under several names is kept once."""
    copies: dict[str, Path] = {}
    for one in sources:
        target = building / one.destination
        target.parent.mkdir(parents=True, exist_ok=True)
        if one.source in copies:
            target.hardlink_to(copies[one.source])
            continue
        _copy_file(one.source, target)
        target.chmod(0o755 if one.is_command or one.destination.startswith("usr/lib/ld") else 0o644)
        if one != tree_source(one.destination, one.source):
            raise file_tree_error(one.source, "changed while it was being copied", "Try again")
        copies[one.source] = target


def _copy_file(source: str, target: Path) -> None:
    status = Path(source).stat()
    shutil.copyfile(source, target)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _compile_library(building: Path, interpreter: Interpreter) -> None:
    """Compile the standard library under the names that it has in the box: the host's own files tell host paths."""
    command = [str(interpreter.executable), "-I", "-S", "-X", "utf8", "-m", "compileall", "-q"]
    library = building / "usr/lib" / interpreter.library_name
    try:
        # Its exit code tells only that some module stays uncompiled, which costs time and nothing else.
        subprocess.run(
            [*command, "-s", str(building), "-p", "/", str(library)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise file_tree_error(str(interpreter.executable), f"does not compile: {error}", "Try it by hand") from error


def _copy_zones(building: Path) -> None:
    """Copy the time zones: plain files, and links that stay among them."""
    for folder, names, files in os.walk(ZONES):
        names[:] = [name for name in names if name not in EXCLUDED_ZONES]
        target_folder = building / "usr/share/zoneinfo" / Path(folder).relative_to(ZONES)
        target_folder.mkdir(exist_ok=True)
        for path in (Path(folder, name) for name in files):
            target = target_folder / path.name
            if path.is_symlink():
                if not path.readlink().is_absolute() and path.resolve().is_relative_to(ZONES) and path.is_file():
                    target.symlink_to(path.readlink())
            elif path.is_file() and not target.exists():
                _copy_file(str(path), target)


def _sealed(building: Path) -> tuple[int, int]:
    """Give every file and folder the rights it has in the box; returns the number of files and their bytes."""
    seen: dict[int, int] = {}
    count = 0
    for folder, _, files in os.walk(building):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in files):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                path.chmod(0o755 if status.st_mode & stat.S_IXUSR else 0o644)
                seen[status.st_ino] = status.st_size
                count += 1
    return count, sum(seen.values())


# ======== sandbox/tree_marker.py ======================================================================================
# What stands beside a finished file tree and says what it was made of: a tree without it is not believed.
#
# A marker lies outside what a box sees, at `<digest>.json` beside the tree `<digest>/`. It holds the identity of every
# shared library, so that an updated one is noticed, and remembers which packages need no others: their files are read
# once, not at each start.


BUILDING_PREFIX = ".building-"
NO_PACKAGES = "none"
"""Stands for the digest where no packages are offered."""
MOST_PACKAGES_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMarker:
    """What a tree was made of."""

    plan_digest: str
    """Of the plan, libraries apart."""
    libraries: tuple[TreeSource, ...]
    """The shared libraries in it."""
    file_count: int
    """Regular files in it."""
    size_bytes: int
    """Bytes of all files in it, each counted once."""
    omitted: tuple[str, ...]
    """Optional programs and modules that could not be taken along, each with the reason."""
    packages: tuple[tuple[str, tuple[str, ...]], ...]
    """By the digest of packages that need no other libraries, the latest last: what they ask for and nobody has."""

    @property
    def digest(self) -> str:
        """What the tree is called."""
        return identity_digest(self.plan_digest, self.libraries)

    @classmethod
    def of_json(cls, read: dict[str, Any]) -> Self:
        """What JSON holds.

        Raises:
            KeyError, TypeError, ValueError: it is no marker of this version.
        """
        return cls(
            plan_digest=read["plan_digest"],
            libraries=tuple(TreeSource(**one) for one in read["libraries"]),
            file_count=read["file_count"],
            size_bytes=read["size_bytes"],
            omitted=tuple(read["omitted"]),
            packages=tuple((digest, tuple(missing)) for digest, missing in read["packages"]),
        )

    def remembering(self, packages_digest: str, missing: tuple[str, ...]) -> Self:
        """The same, for some more packages."""
        others = tuple(one for one in self.packages if one[0] != packages_digest)
        return replace(self, packages=(*others, (packages_digest, missing))[-MOST_PACKAGES_REMEMBERED:])


def ours_alone(status: os.stat_result, kind: int) -> bool:
    """Tell whether something is of one kind, this account's, and nobody else can write it."""
    mine = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return mine and stat.S_IFMT(status.st_mode) == kind


def believed_marker(path: Path, plan_digest: str) -> TreeMarker | None:
    """The marker of a plan's complete tree whose shared libraries are still those of the host."""
    root = path.with_suffix("")
    try:
        if not (ours_alone(path.lstat(), stat.S_IFREG) and ours_alone(root.lstat(), stat.S_IFDIR)):
            return None
        marker = TreeMarker.of_json(json.loads(path.read_text()))
        unchanged = all(one == tree_source(one.destination, one.source) for one in marker.libraries)
    except (OSError, ValueError, KeyError, TypeError):
        # Not a marker of this version, or not of this host any more: then there is no tree yet.
        return None
    believed = unchanged and marker.plan_digest == plan_digest and marker.digest == path.stem
    return marker if believed else None


def write_marker(path: Path, marker: TreeMarker) -> None:
    """Write a marker in one step, on disk before it has its name."""
    temporary = path.parent / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    temporary.mkdir(mode=0o700)
    with (temporary / "marker").open("x") as file:
        json.dump(asdict(marker), file, indent=1)
        os.fchmod(file.fileno(), 0o600)
        file.flush()
        os.fsync(file.fileno())
    (temporary / "marker").rename(path)
    temporary.rmdir()


# ======== sandbox/used_trees.py =======================================================================================
# Which file trees are in use, and the removal of those that nobody has used for a week.
#
# Whoever starts a box holds a shared lock on its tree for as long as the box lives, and notes the time of use on its
# marker, outside what a box sees. Whoever removes a tree needs the lock for themselves alone, and looks at the time
# only once they have it: a tree is either used in time and stays, or it is gone, marker first, for whoever comes later.
# Source: flock(2); the lock is on the tree's own folder, since a marker is replaced when more packages are known.


UNUSED_TREE_SECONDS = 7 * 86_400.0
"""How long a tree stays that nobody uses; building it again takes some seconds."""
_TREE_NAME = re.compile(r"[0-9a-f]{64}")


@contextmanager
def used_tree(root: Path) -> Iterator[None]:
    """Keep a tree from being removed for as long as the context lasts, and for a week from now.

    Args:
        root: its folder.

    Raises:
        FileNotFoundError: it is gone, or on its way.
    """
    with _tree_opened(root) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_still(root, descriptor):
            raise FileNotFoundError(errno.ENOENT, "the file tree is gone", str(root))
        with suppress(OSError):  # a full disk, or no marker: then the lock alone keeps it
            os.utime(root.with_suffix(".json"))
        yield


def remove_unused_trees(trees: Path, *, now: float) -> None:
    """Remove the trees that nobody uses nor has used for a week; the caller holds the lock under which they are built.

    Args:
        trees: where they are.
        now: seconds since 1970.
    """
    for root in sorted(trees.iterdir()):
        if _TREE_NAME.fullmatch(root.name) and _last_use(root) < now - UNUSED_TREE_SECONDS:
            with suppress(OSError):  # in use, or no folder of ours
                _remove_if_unused(root, now - UNUSED_TREE_SECONDS)


def _remove_if_unused(root: Path, before: float) -> None:
    outgoing = root.with_name(f"{BUILDING_PREFIX}{secrets.token_hex(8)}")
    with _tree_opened(root) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(root, descriptor) or _last_use(root) >= before:
            return
        root.with_suffix(".json").unlink(missing_ok=True)
        root.rename(outgoing)
    shutil.rmtree(outgoing)


def _last_use(root: Path) -> float:
    """When somebody used a tree, or built it where it has no marker; seconds since 1970."""
    for path in (root.with_suffix(".json"), root):
        with suppress(OSError):
            return path.lstat().st_mtime
    return 0.0


def _is_still(root: Path, descriptor: int) -> bool:
    """Whether what was opened still has its name: it may have been renamed before it was locked."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), root.lstat())
    return False


@contextmanager
def _tree_opened(root: Path) -> Iterator[int]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# ======== sandbox/tree.py =============================================================================================
# The box's own file tree: a copy of interpreter, standard library and listed commands, built once and only read.
#
# Nothing of the caller (site-packages, working directory, home) is in it, and no host path. A tree lies at
# `<private folder>/trees/<digest>/`, its completion marker beside it. It is built in a temporary sibling under a lock and
# appears by one rename; what a crash leaves begins with `.building-` and goes with the trees that nobody has used for a
# week, at the next preparation. Packages that an administrator offers are no part of it, but the shared libraries that
# they need are.


TREES_FOLDER = "trees"
BOX_PYTHON = "/usr/bin/python3"
BOX_BASH = "/usr/bin/bash"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTree:
    """A complete tree, to be mounted read-only as a box's root."""

    root: Path
    """Its folder on the host."""
    digest: str
    """Names everything in it: another interpreter, library or command gives another digest."""
    python: str
    """The interpreter's path in the box."""
    bash: str
    """Bash's path in the box."""
    file_count: int
    """Regular files in it."""
    size_bytes: int
    """Bytes of all files in it, each counted once."""
    omitted: tuple[str, ...]
    """Optional programs and modules of this host that could not be taken along, each with the reason, and libraries
    that offered packages ask for and this host does not have."""


def build_tree(
    folder: Path, interpreter: Interpreter, report: Callable[[str], None], packages: Packages | None = None
) -> FileTree:
    """Return the tree for an interpreter, building it if there is none yet; blocks while it does.

    Args:
        folder: the runner's private folder; made if it is not there.
        interpreter: whose standard library it is.
        report: told in a few words, only when a tree has to be built.
        packages: what is offered beside it; the libraries that they need come into the tree.

    Raises:
        SandboxError: the tree cannot be built, or the folder is open to others.
    """
    plan = planned_tree(interpreter, packages)
    try:
        trees = _folder_of_ours(folder) / TREES_FOLDER
        _folder_of_ours(trees)
        tree = _ready_tree(trees, plan)
        if tree is None:
            with _tree_lock(trees):
                # Another process may have built it while this one waited.
                tree = _ready_tree(trees, plan) or _made_tree(trees, plan, report)
    except OSError as error:
        origin = str(error.filename or folder)
        raise file_tree_error(
            origin, error.strerror or str(error), "Give this account a writable folder with space in it"
        ) from error
    _remove_useless(trees)
    return tree


def _folder_of_ours(folder: Path) -> Path:
    """Make a folder of this account's alone, or refuse the one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not ours_alone(folder.lstat(), stat.S_IFDIR):
        raise file_tree_error(
            str(folder), "is not a folder that belongs to this account alone", f"Chown it and `chmod 700 {folder}`"
        )
    return folder


def _packages_digest(plan: TreePlan) -> str:
    return plan.packages.digest if plan.packages else NO_PACKAGES


def _ready_tree(trees: Path, plan: TreePlan) -> FileTree | None:
    """Find the complete tree of a plan that is known to hold every library that its packages need."""
    plan_digest, packages_digest = plan.digest, _packages_digest(plan)
    for path in sorted(trees.glob("*.json")):
        marker = believed_marker(path, plan_digest)
        if marker is not None and packages_digest in dict(marker.packages):
            with suppress(OSError), used_tree(trees / marker.digest):  # unless it is being removed
                return _file_tree(trees, marker, packages_digest)
    return None


def _file_tree(trees: Path, marker: TreeMarker, packages_digest: str) -> FileTree:
    return FileTree(
        root=trees / marker.digest,
        digest=marker.digest,
        python=BOX_PYTHON,
        bash=BOX_BASH,
        file_count=marker.file_count,
        size_bytes=marker.size_bytes,
        omitted=(*marker.omitted, *dict(marker.packages)[packages_digest]),
    )


@contextmanager
def _tree_lock(trees: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Let one process build or remove at a time; the kernel frees the lock of one that dies."""
    descriptor = os.open(trees / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _made_tree(trees: Path, plan: TreePlan, report: Callable[[str], None]) -> FileTree:
    """Build the tree, unless the one that is there turns out to hold all that these packages need too."""
    choice, packages_digest = chosen_sources(plan), _packages_digest(plan)
    path = trees / f"{identity_digest(plan.digest, choice.libraries)}.json"
    marker = believed_marker(path, plan.digest)
    if marker is None:
        report("Building the sandbox's own file tree...")
        _remove_unfinished(trees)
        return _file_tree(trees, _built_tree(trees, plan, choice), packages_digest)
    marker = marker.remembering(packages_digest, choice.missing)
    write_marker(path, marker)
    return _file_tree(trees, marker, packages_digest)


def _remove_useless(trees: Path) -> None:
    """Remove trees that nobody uses any more, and what a crash left; while somebody builds, that is for later."""
    with suppress(OSError), _tree_lock(trees, fcntl.LOCK_EX | fcntl.LOCK_NB):
        _remove_unfinished(trees)
        remove_unused_trees(trees, now=time.time())


def _remove_unfinished(trees: Path) -> None:
    """Remove what a crashed build left: under the lock nobody else is building."""
    for leftover in trees.glob(f"{BUILDING_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _built_tree(trees: Path, plan: TreePlan, choice: TreeChoice) -> TreeMarker:
    """Build into a temporary sibling and rename it once it is complete and on disk."""
    building = trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    building.mkdir(mode=0o700)
    try:
        file_count, size_bytes = fill_tree(building, plan.interpreter, choice)
        marker = TreeMarker(
            plan_digest=plan.digest,
            libraries=choice.libraries,
            file_count=file_count,
            size_bytes=size_bytes,
            omitted=choice.omitted,
            packages=((_packages_digest(plan), choice.missing),),
        )
        root = trees / marker.digest
        os.sync()
        write_marker(root.with_suffix(".json"), marker)
        if root.exists() or root.is_symlink():
            # A tree without its marker is not believed.
            root.rename(trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}")
        building.rename(root)
        _sync_folder(trees)
    finally:
        _remove_unfinished(trees)
    return marker


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ======== sandbox/launch.py ===========================================================================================
# How boxes start on this host: with which flags, on which platform, as root or rootless. Found by starting some.
#
# Nothing is believed of a host that a small box can show: each way is tried in turn, within a deadline, and the first
# that brings a box up is taken. What hangs is killed with all that it started. The platform `kvm` hangs on some virtual
# machines and is tried only where the administrator names it.
# Source: runsc/config/flags.go and runsc/specutils/namespace.go; measured with gVisor 20221219 and 20240729.


LAUNCH_PROBE_SECONDS = 30.0
"""How long one way of starting may take; a machine that is emulated needs ten."""
_ALL_LAUNCH_PROBES_SECONDS = 90.0
_MOST_PROBE_WORDS = 1 << 14
_PROBE_SIGN = b"a box starts here"
_FALLBACK_PLATFORMS = ("systrap", "ptrace")
_NEVER_BY_ITSELF = "kvm"
_SYS_ADMIN_BIT = 21

LAUNCH_FLAGS = {
    # sockets and pipes of the host stay out of reach, whatever a later release takes for its default
    "host-uds": "none",
    "host-fifo": "none",
    # the root is read-only, and what is writable is limited; an overlay would be one more writable place, outside both
    "overlay2": "none",
    # should a spec ever carry a filter of system calls, it is never silently ignored
    "oci-seccomp": "true",
}
"""Flags that every box gets where its gVisor knows them."""
_WITHOUT_HOST_FILES = "--directfs=false"
"""gVisor's kernel then runs as nobody, without capabilities, and opens no file of the host itself. It costs a sixth at
imports, and does not work where nobody may not enter the folder of `runsc` and its sidecars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One way to start boxes."""

    arguments: tuple[str, ...]
    """All flags that stand before every subcommand, but for those that follow from a run's limits."""
    rootless: bool
    """Whether gVisor makes a user namespace first, and works with no more rights than the running user has."""
    platform: str
    """How system calls are caught: `systrap`, `ptrace`, `kvm`; `default` where this gVisor does not name its own."""

    @property
    def words(self) -> str:
        """For people."""
        files = " without host files" if _WITHOUT_HOST_FILES in self.arguments else ""
        return f"{'rootless' if self.rootless else 'as root'} on {self.platform}{files}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchAttempt:
    """One way that did not work."""

    launch: Launch
    """Which."""
    said: str
    """What gVisor said, or why it was given up, in one line."""


class LaunchError(StartError):
    """No way of starting boxes works here.

    Args:
        attempts: what was tried.
        internals: whether the text tells what gVisor said, for whoever may see that.
    """

    def __init__(self, attempts: Sequence[LaunchAttempt], *, internals: bool = False) -> None:
        self.attempts = tuple(attempts)
        said = dict.fromkeys(attempt.said for attempt in self.attempts)
        tried = "; ".join(f"{self._ways(words)}: {words}" for words in said)
        ways = tried if internals else self._ways(None)
        super().__init__(reason=f"no box starts on this host, tried {ways}", detail="" if internals else tried)

    def _ways(self, said: str | None) -> str:
        """The ways that gVisor answered with these words, or all."""
        return ", ".join(attempt.launch.words for attempt in self.attempts if said in {None, attempt.said})

    def with_internals(self) -> Self:
        """The same error, with what gVisor said."""
        return type(self)(self.attempts, internals=True)


def found_launch(
    runsc: Runsc,
    tree: FileTree,
    folder: Path,
    *,
    platform: str | None = None,
    within_seconds: float = LAUNCH_PROBE_SECONDS,
) -> Launch:
    """The first way in which a box starts here; blocks for a third of a second where that is the first tried.

    Args:
        runsc: the gVisor.
        tree: what boxes see.
        folder: the private folder.
        platform: the only one to try, where the administrator named one.
        within_seconds: deadline of each try.

    Raises:
        LaunchError: there is none.
        InstallError: this `runsc` does not even print its flags.
    """
    given_up = time.monotonic() + _ALL_LAUNCH_PROBES_SECONDS
    attempts: list[LaunchAttempt] = []
    for launch in launch_candidates(
        runsc.arguments, runsc_flags(runsc.path), platform=platform, as_root=_may_start_as_root()
    ):
        seconds = min(within_seconds, max(given_up - time.monotonic(), 0.0))
        said = _why_no_box(runsc, launch, tree, folder, seconds)
        if not said:
            return launch
        attempts.append(LaunchAttempt(launch=launch, said=said))
    raise LaunchError(attempts)


def launch_candidates(
    offline: tuple[str, ...], flags: Mapping[str, str], *, platform: str | None, as_root: bool
) -> tuple[Launch, ...]:
    """The ways to try, best first: with most walls inside, then with the platform that this gVisor prefers.

    Args:
        offline: what keeps this gVisor from downloading.
        flags: what `runsc flags` says, by flag.
        platform: the only one to try.
        as_root: whether this process has the rights that starting without `--rootless` needs.
    """
    always = (*offline, *(f"--{name}={value}" for name, value in LAUNCH_FLAGS.items() if name in flags))
    modes = ((), ("--rootless",)) if "rootless" in flags else ((),)
    files = ((_WITHOUT_HOST_FILES,), ()) if "directfs" in flags else ((),)
    return tuple(
        Launch(arguments=(*always, *mode, *named, *file), rootless=bool(mode), platform=name)
        for mode in (modes if as_root else modes[-1:])
        for name, named in _launch_platforms(flags.get("platform", ""), platform)
        for file in files
    )


def _launch_platforms(platform_flag: str, wanted: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and flags of the platforms to try; the version's own choice is tried without a flag."""
    if wanted is not None:
        yield wanted, (f"--platform={wanted}",)
        return
    preferred = platform_flag.rpartition('(default "')[2].removesuffix('")') if platform_flag.endswith('")') else ""
    if preferred != _NEVER_BY_ITSELF:
        yield preferred or "default", ()
    for name in _FALLBACK_PLATFORMS:
        if name != preferred and (name in platform_flag or not platform_flag):
            yield name, (f"--platform={name}",)


def own_network_command() -> tuple[str, ...]:
    """Goes before `runsc`: a network namespace of its own, out of reach of other users, whom its socket would obey.

    Without the right to make one there is no such word, and whoever is in the same namespace may reach that socket.
    """
    return ("unshare", "--net", "--") if _may_start_as_root() else ()


def _may_start_as_root() -> bool:
    """Whether this process is root and may make namespaces and mounts. Source: capabilities(7), proc(5)."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(effective >> _SYS_ADMIN_BIT & 1)


def _why_no_box(runsc: Runsc, launch: Launch, tree: FileTree, private: Path, seconds: float) -> str:
    """What gVisor said when it did not bring up a small box; empty where it did, and nothing is left of it."""
    try:
        with leased_folder(private / RUNS_FOLDER, secrets.token_hex(16)) as place:
            folder = BoxFolder(path=place, name=place.name)
            try:
                folder.write(_probe_spec(tree))
                return _refusal(_probe_command(runsc, launch, folder), seconds)
            finally:
                for socket_file in control_socket_files(folder.state, folder.name):
                    socket_file.unlink(missing_ok=True)  # what is killed leaves it behind
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise SandboxError(
            key="gVisor",
            origin=str(error.filename or private),
            reason=f"this host refused to try it: {error.strerror}",
            remedy="Free space there, or set XDG_CACHE_HOME to a folder with 1 GB free",
        ) from error


def _probe_command(runsc: Runsc, launch: Launch, folder: BoxFolder) -> tuple[str, ...]:
    """As boxes are started: tied to our life, with nothing in the environment, in a root of its own."""
    return (
        *("setpriv", "--pdeathsig", "KILL", "--", *own_network_command(), "env", "-i"),
        *(str(runsc.path), *launch.arguments),
        *("--network=none", "--ignore-cgroups", f"--root={folder.state}"),
        *("run", f"--bundle={folder.bundle}", folder.name),
    )


def _probe_spec(tree: FileTree) -> dict[str, Any]:
    """A box like any other, whose only deed is to say that it started."""
    nothing: list[str] = []
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": BOX_UID, "gid": BOX_UID},
            "args": [tree.bash, "--noprofile", "--norc", "-c", f"printf '{_PROBE_SIGN.decode()}'"],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), nothing),
            "noNewPrivileges": True,
        },
        "root": {"path": str(tree.root), "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},  # noqa: S108 -- the box's own
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


def _refusal(command: Sequence[str], seconds: float) -> str:
    """Run a command that should say its sign; in one line what it said instead, or that it hung."""
    deadline = time.monotonic() + seconds
    with ended_family(command) as process:
        said = _words_of_probe(process, deadline)
        try:
            code = process.wait(timeout=max(deadline - time.monotonic(), 0.001))
        except subprocess.TimeoutExpired:
            return f"it did not end within {seconds:.0f} seconds{_last_line(said, ' and said: ')}"
    if code == 0 and said == _PROBE_SIGN:
        return ""
    return _last_line(said) or f"it ended with exit code {code} and said nothing"


def _words_of_probe(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What a probe says until its output ends, the deadline passes, or it is more than anybody reads."""
    if process.stdout is None:
        raise ValueError("a probe is started with a pipe")
    pipe, poll, said = process.stdout.fileno(), select.poll(), b""
    poll.register(pipe, select.POLLIN)
    while len(said) < _MOST_PROBE_WORDS and poll.poll(max(deadline - time.monotonic(), 0.0) * 1_000):
        data = os.read(pipe, _MOST_PROBE_WORDS)
        if not data:
            break
        said += data
    return said


def _last_line(said: bytes, before: str = "") -> str:
    lines = [" ".join(line.split()) for line in said.decode(errors="replace").splitlines() if line.strip()]
    return f"{before}{lines[-1][:300]}" if lines else ""


# ======== sandbox/kept_launch.py ======================================================================================
# Keeps how boxes start here, so that only the first start after a boot has to find out.
#
# It holds for one boot, kernel, user, container, set of rights and `runsc`, and lies in the private folder, which only
# this user can write. Anything that cannot be read, or is of another place, is none.


LAUNCH_FORMAT = 1
"""Raised with every change of what is tried, or in which order."""
_LAUNCH_FILE = "launch.json"
_RIGHTS = ("CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:")


def launch_binding(runsc: Runsc, wanted_platform: str | None) -> dict[str, str]:
    """Everything that the way of starting depends on, at this moment. Source: proc(5), namespaces(7)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        **host_binding(runsc),
        "format": str(LAUNCH_FORMAT),
        "place": " ".join(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("mnt", "user")),
        "rights": " ".join(" ".join(line.split()) for line in status if line.startswith(_RIGHTS)),
        "platform": wanted_platform or "",
    }


def kept_launch(folder: Path, binding: dict[str, str]) -> Launch | None:
    """How boxes start, where that is known of this very place.

    Args:
        folder: the private folder.
        binding: what it must be bound to.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder / _LAUNCH_FILE).read_text())
        if kept["binding"] == binding:
            return Launch(arguments=tuple(kept["arguments"]), rootless=kept["rootless"], platform=kept["platform"])
    return None


def keep_launch(folder: Path, binding: dict[str, str], launch: Launch) -> None:
    """Keep how boxes start; a full disk keeps nothing, and the next start finds out again.

    Args:
        folder: the private folder.
        binding: what it is bound to.
        launch: what was found.
    """
    kept = {
        "binding": binding,
        "arguments": launch.arguments,
        "rootless": launch.rootless,
        "platform": launch.platform,
    }
    with suppress(OSError):
        partial = folder / f".{_LAUNCH_FILE}-{secrets.token_hex(8)}"
        partial.write_text(json.dumps(kept, indent=1))
        partial.rename(folder / _LAUNCH_FILE)


def forget_launch(folder: Path) -> None:
    """Have the next start find out anew."""
    with suppress(OSError):
        (folder / _LAUNCH_FILE).unlink(missing_ok=True)


# ======== sandbox/spec.py =============================================================================================
# Compiles a request, purely, to an OCI spec, `runsc` arguments and cgroup limits. Goldens show each.
#
# Nothing a person wrote enters any of them: not the code, not who asks. The box sees its own tree, read-only, and one
# writable file system whose size is limited.
#
# Source: OCI runtime specification 1.0.2; `runsc flags`.


STARTUP_RAM_BYTES = 192 << 20
"""RAM on top of the limit until a box is ready, for gVisor, the interpreter and what it imports beforehand."""
GVISOR_GROWTH_BYTES = 16 << 20
"""RAM on top of the limit and of what a ready box uses, for gVisor's own kernel, which grows while code runs."""
GVISOR_THREADS = 1_024
"""Threads on top of the limit for gVisor itself, which shares the cgroup; each guest thread needs several outside."""
HOST_THREADS_PER_GUEST_THREAD = 4
BOX_DIGEST_ANNOTATION = "io.sandbox-lockdown.box-digest"
"""Where a box says what it was made from. A box that waits is nobody's yet, so this is the digest of what it enforces
itself; the record of a run holds it beside the digest of all limits."""
BOX_ENVIRONMENT = (
    "PATH=/usr/bin",
    "HOME=/tmp",
    "TMPDIR=/tmp",
    "USER=sandbox",
    "LANG=C.UTF-8",
    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
)
THREADS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""By what numpy and its kin are told how many threads to start. Source: the manuals of OpenMP, OpenBLAS and MKL."""
_PROC_MOUNT = {"destination": "/proc", "type": "proc", "source": "proc"}
_KILOBYTE = 1 << 10
_MEGABYTE = 1 << 20
_SHARED_MEMORY_PART = 4


class NetworkMode(Enum):
    """What network a box has."""

    NONE = "none"
    """Its own loopback alone."""
    PROXY = "proxy"
    """Its own loopback, and a socket in its file system that leads to an egress proxy outside."""
    NAMESPACE = "namespace"
    """A network namespace of its own, in which every connection comes to the runner."""


_NETWORK_FLAGS = {
    NetworkMode.NONE: ("--network=none",),
    NetworkMode.PROXY: ("--network=none", "--host-uds=open"),
    NetworkMode.NAMESPACE: ("--network=host",),
}
"""`open` lets a box connect to sockets in what is mounted into it: there is one. `host` is the namespace it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Everything that gVisor and the kernel are told about one run."""

    spec: dict[str, Any]
    """The OCI spec, as `config.json` holds it but for the annotation."""
    runsc_flags: tuple[str, ...]
    """Flags before `run` that follow from the limits."""
    cgroup_limits: CgroupLimits
    """What the run's cgroup is set to."""
    network: NetworkMode
    """What network the box has."""
    network_notice: str
    """Why there is none, for people whose code failed; empty where there is one."""


def compile_run(
    language: str,
    limits: EffectiveLimits,
    tree: FileTree,
    *,
    packages: Packages | None = None,
    imports: tuple[str, ...] = (),
    way: NetworkMode = NetworkMode.PROXY,
) -> Compiled:
    """The one description of a run that follows from its language and limits.

    Args:
        language: `python` or `bash`.
        limits: what policy decided.
        tree: what the box sees.
        packages: what the administrator offers beside it.
        imports: modules that its interpreter imports before it waits for code.
        way: how it reaches what its limits permit, if they permit anything.
    """
    mode, notice = network_mode(limits, way)
    forwards = mode is NetworkMode.PROXY
    return Compiled(
        spec={
            "ociVersion": "1.0.2",
            "process": _process(
                _rlimits(limits, beside=1 if forwards else 0),
                arguments=starter_command(
                    language,
                    python=tree.python,
                    bash=tree.bash,
                    packages=BOX_PACKAGES if packages else "",
                    imports=imports,
                    forwards=forwards,
                ),
                environment=(
                    *BOX_ENVIRONMENT,
                    *_packages_environment(limits, packages),
                    *(PROXY_ENVIRONMENT if forwards else ()),
                ),
            ),
            "root": {"path": str(tree.root), "readonly": True},
            "hostname": "sandbox",
            "mounts": [_PROC_MOUNT, *_writable_mounts(limits), *_packages_mounts(packages)],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        },
        runsc_flags=_NETWORK_FLAGS[mode],
        cgroup_limits=_cgroup_limits(limits),
        network=mode,
        network_notice=notice,
    )


def network_mode(limits: EffectiveLimits, way: NetworkMode = NetworkMode.PROXY) -> tuple[NetworkMode, str]:
    """Which network a run gets, and why none where it gets none."""
    if not limits[NETWORKING_ALLOWED]:
        origin = limits.origin_of(NETWORKING_ALLOWED)
        return NetworkMode.NONE, f"The run had no network: networking_allowed is false, by {origin}."
    if not limits[NETWORK_ALLOWLIST]:
        origin = limits.origin_of(NETWORK_ALLOWLIST)
        return NetworkMode.NONE, f"The run had no network: network_allowlist, by {origin}, allows no destination."
    return way, ""


def egress_mount(folder: Path) -> dict[str, Any]:
    """The mount of one box's own folder with the socket of its proxy."""
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": EGRESS_FOLDER, "type": "bind", "source": str(folder), "options": options}


def _process(
    rlimits: list[dict[str, Any]], *, arguments: tuple[str, ...], environment: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": {"uid": BOX_UID, "gid": BOX_UID},
        "args": list(arguments),
        "env": list(environment),
        "cwd": "/tmp",  # noqa: S108 -- the box's own, empty and its only writable place
        "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "rlimits": rlimits,
        "noNewPrivileges": True,
    }


def _packages_mounts(packages: Packages | None) -> list[dict[str, Any]]:
    """The packages alone: what is mounted below them on the host is not."""
    if packages is None:
        return []
    options = ["bind", "ro", "nosuid", "nodev"]
    return [{"destination": BOX_PACKAGES, "type": "bind", "source": str(packages.folder), "options": options}]


def _packages_environment(limits: EffectiveLimits, packages: Packages | None) -> list[str]:
    """What tells programs where packages are, and how many threads a numerical library may start by itself.

    Left alone it starts one for each of the host's processors, and fails where there are more than processes permitted.
    """
    if packages is None:
        return []
    threads = _threads(limits)
    return [f"PYTHONPATH={BOX_PACKAGES}", *(f"{name}={threads}" for name in THREADS_VARIABLES if threads is not None)]


def _threads(limits: EffectiveLimits) -> int | None:
    """As many as there are processors to run them on, and processes to spare."""
    cpus, processes = limits[MAX_CPUS], limits[MAX_PROCESSES]
    bounds = [
        *(() if isinstance(cpus, Unlimited) else (math.ceil(cpus),)),
        *(() if isinstance(processes, Unlimited) else (processes // 2,)),
    ]
    return max(1, min(bounds)) if bounds else None


def _rlimits(limits: EffectiveLimits, *, beside: int) -> list[dict[str, Any]]:
    ceilings = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1_024}
    processes = limits[MAX_PROCESSES]
    if not isinstance(processes, Unlimited):
        ceilings["RLIMIT_NPROC"] = processes + beside
    return [{"type": name, "soft": value, "hard": value} for name, value in ceilings.items()]


def _writable_mounts(limits: EffectiveLimits) -> list[dict[str, Any]]:
    """Everything writable: `/tmp`, and a quarter of the limit as shared memory, which multiprocessing needs."""
    megabytes = limits[MAX_DISK_MEGABYTES]
    if isinstance(megabytes, Unlimited):
        return [_tmpfs("/tmp", None), _tmpfs("/dev/shm", None)]  # noqa: S108 -- paths inside the box
    total = megabytes * _MEGABYTE // _KILOBYTE
    shared = total // _SHARED_MEMORY_PART
    return [_tmpfs("/tmp", total - shared), _tmpfs("/dev/shm", shared)]  # noqa: S108 -- paths inside the box


def _tmpfs(destination: str, kilobytes: int | None) -> dict[str, Any]:
    size = [] if kilobytes is None else [f"size={kilobytes}k"]
    options = ["nosuid", "nodev", "mode=1777", *size]
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


def _cgroup_limits(limits: EffectiveLimits) -> CgroupLimits:
    megabytes, cpus, processes = limits[MAX_RAM_MEGABYTES], limits[MAX_CPUS], limits[MAX_PROCESSES]
    return CgroupLimits(
        memory_bytes=None if isinstance(megabytes, Unlimited) else megabytes * _MEGABYTE + STARTUP_RAM_BYTES,
        cpu_thousandths=int(cpus * 1_000) if isinstance(cpus, Decimal) else None,
        processes_hard_stop=None
        if isinstance(processes, Unlimited)
        else processes * HOST_THREADS_PER_GUEST_THREAD + GVISOR_THREADS,
    )


# ======== sandbox/equipment.py ========================================================================================
# What a host needs for running boxes, found or installed: gVisor, the file tree, cgroups, the private folder.
#
# Everything here blocks, for minutes at worst; whoever has an event loop calls it in a thread.


LAUNCHERS = ("/bin/sh", "setpriv", "unshare")
"""Programs of the host that start a box: a shell joins its cgroups, `setpriv` ties it to the caller's life,
`unshare` gives it a network namespace."""
LAUNCHER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What this host has for running boxes."""

    runsc: Runsc
    """The gVisor that runs them; its arguments are all that `launch` needs."""
    tree: FileTree
    """The file tree that they see."""
    cgroups: CgroupParent | CgroupsUnavailable
    """Where cgroups can be made, or why they cannot."""
    folder: Path
    """The private folder, for runs and slots."""
    proof: HostProof | None = None
    """What the start-up probe found; `None` where nobody probed."""
    launch: Launch | None = None
    """How boxes start here; `None` where nobody tried."""
    packages: Packages | None = None
    """What the administrator offers to code beside the tree."""
    pool_imports: tuple[str, ...] = ()
    """Modules that the interpreters of waiting boxes import beforehand."""
    runsc_stamp: str | None = None
    """The program of `runsc` as it was when it was found; `None` where nobody looked."""
    network_way: NetworkMode = NetworkMode.PROXY
    """How code reaches what its limits permit."""
    egress_network: Callable[[], EgressNetwork] = HostNetwork
    """Where one box's permitted connections are made."""

    @property
    def gvisor_words(self) -> str:
        """Version, origin and age of gVisor, for people and records."""
        return runsc_words(self.runsc)

    def intact(self) -> bool:
        """Whether what was found is still there: gVisor the same program, packages still those that were offered."""
        unchanged = self.packages is None or self.packages.unchanged()
        return unchanged and self._same_runsc() and self.tree.root.exists()

    def _same_runsc(self) -> bool:
        """Whether no other program stands in its place: what was found out of this one does not hold for that."""
        with suppress(OSError):
            return program_stamp(self.runsc.path) == self.runsc_stamp
        return False


def runsc_words(runsc: Runsc) -> str:
    """Version, origin and age of a gVisor."""
    age = runsc.age_days(datetime.now(UTC).date())
    old = "" if age is None else f", {age} days old"
    return f"{runsc.version} ({runsc.origin.value}{old})"


def found_runsc(source: ReleaseSource, environ: Mapping[str, str]) -> Runsc | None:
    """The gVisor to use, if there is one already."""
    path_env = environ.get("PATH", os.defpath)
    return find_runsc(private_folder(environ), path_env, source, machine=platform.machine())


def installed_runsc(
    source: ReleaseSource, environ: Mapping[str, str], limits: EffectiveLimits, report: Callable[[str], None]
) -> Runsc:
    """Install gVisor, where the limits permit it.

    Raises:
        InstallError: they do not, or it could not be installed.
    """
    if not limits[AUTO_INSTALL]:
        raise auto_install_refused(source, limits.origin_of(AUTO_INSTALL))
    return install_runsc(private_folder(environ), source, apt_host(platform.machine(), environ), report)


def prepared(
    runsc: Runsc,
    environ: Mapping[str, str],
    report: Callable[[str], None],
    order: PackagesOrder | None = None,
    *,
    gvisor_platform: str | None = None,
) -> Equipment:
    """Everything else that a box needs, besides gVisor.

    Args:
        runsc: the gVisor that runs it.
        environ: this process's environment.
        report: told in a few words what takes long.
        order: which packages to offer to code, if any.
        gvisor_platform: the only platform to try, where the administrator named one.

    Raises:
        LaunchError: no box starts here.
        SandboxError: something is missing that no setting can do without.
    """
    for launcher in LAUNCHERS:
        if shutil.which(launcher, path=LAUNCHER_PATH) is None:
            raise SandboxError(
                key=launcher,
                origin="this host",
                reason="it is not there, and without it no box can be started",
                remedy="Install it: on Debian `apt-get install util-linux dash`",
            )
    folder, stamp = private_folder(environ), program_stamp(runsc.path)
    interpreter = Interpreter.current()
    packages = None
    if order is not None:
        off_limits = host_off_limits(environ, folder)
        packages = offered_packages(order, interpreter.library_name, off_limits, os.geteuid())
    tree = build_tree(folder, interpreter, report, packages)
    launch = _launch_here(runsc, tree, folder, gvisor_platform)
    return Equipment(
        runsc=replace(runsc, arguments=launch.arguments),
        tree=tree,
        cgroups=find_cgroup_parent(),
        folder=folder,
        packages=packages,
        launch=launch,
        runsc_stamp=stamp,
    )


def _launch_here(runsc: Runsc, tree: FileTree, folder: Path, gvisor_platform: str | None) -> Launch:
    """How boxes start here: as it was found before, or found now."""
    binding = launch_binding(runsc, gvisor_platform)
    launch = kept_launch(folder, binding)
    if launch is None:
        launch = found_launch(runsc, tree, folder, platform=gvisor_platform)
        keep_launch(folder, binding, launch)
    return launch


# ======== sandbox/network_namespace.py ================================================================================
# A network namespace for one box: nothing leads out of it but the sockets that this process has in it.
#
# It has a loopback and no other device, no wire to the host, and no address that anybody else could reach. Every
# destination is routed to that loopback, where the kernel turns each TCP connection to a socket of ours, and each DNS
# question to another; all else is refused at once. Were these rules missing, everything would end at the loopback.
#
# The namespace has no name. It lives as long as a descriptor here or a process in it, and is gone with them.
# Source: network_namespaces(7), nft(8), RFC 7600 section 4.8 (192.0.0.8); measured with kernel 6.18.


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


# ======== sandbox/transparent_egress.py ===============================================================================
# Connects the code of one run with what it may reach, unasked: for programs that know nothing of proxies.
#
# The box is in a network namespace whose every connection the kernel turns to us, with the address that it was meant for.
# What that address was the answer to, among the names that the box asked our resolver for, is what it is taken for; the
# rest is decided and done as for the proxy. A connection is taken before it is known whether there is anything at its
# other end, so what is refused is reset.


_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class TransparentEgress:
    """The only way out of one box, through the network namespace that it is in."""

    def __init__(
        self, namespace: NetworkNamespace, network: EgressNetwork | None = None, bounds: EgressBounds | None = None
    ) -> None:
        """Serve nothing yet.

        Args:
            namespace: the box's own; closed at the end.
            network: where connections are made; this host's by default.
            bounds: how much is permitted.
        """
        bounds = bounds or EgressBounds()
        network = HostNetwork() if network is None else network
        self.namespace = namespace
        self._proxy = EgressProxy(network, bounds, asking=self._asked)
        self._names = PermittedNames(
            network, self.account, lookups=bounds.connections, within_seconds=bounds.connect_seconds
        )
        self._name_server = NameServer(self._names.reply)
        self._rules: EgressRules | None = None

    @classmethod
    async def listening(cls, network: EgressNetwork | None = None, bounds: EgressBounds | None = None) -> Self:
        """Make a namespace, and serve what comes in it; nothing is permitted until `open`.

        Raises:
            UnenforceableError: this host or this user cannot.
        """
        made = cls(await NetworkNamespace.made(), network, bounds)
        try:
            await made._listen()
        except BaseException:
            made.abandon()
            raise
        return made

    @property
    def account(self) -> EgressAccount:
        """What was reached and refused."""
        return self._proxy.account

    def open(self, rules: EgressRules) -> None:
        """Permit what these rules do, from now on."""
        self._rules = rules
        self._names.open(rules)
        self._proxy.open(rules)

    def abandon(self) -> None:
        """Let nobody in any more, waiting for nothing."""
        self._proxy.abandon()
        self._name_server.abandon()
        self._names.abandon()
        self.namespace.close()

    async def close(self) -> None:
        """End every connection, and let go of the namespace."""
        self.abandon()
        await self._proxy.close()
        await self._name_server.close()
        await self._names.close()

    async def _listen(self) -> None:
        for listening in self.namespace.connections:
            await self._proxy.serve(listening)
        for listening in self.namespace.name_connections:
            await self._name_server.serve_connections(listening)
        for bound in self.namespace.name_datagrams:
            self._name_server.serve_datagrams(bound)

    async def _asked(self, client: EgressStreams) -> Asked:
        """Whom a client wants to talk to: it told the kernel.

        Raises:
            UnreadableRequestError: it meant our own socket.
        """
        connection: socket.socket = client[1].get_extra_info("socket")
        try:
            address, port = original_destination(connection)
        except OSError as error:
            raise UnreadableRequestError("a connection to a port of the sandbox's own", b"") from error
        host, addresses = self._taken_for(address, port)
        return Asked(
            target=Target(untrusted_host=f"[{host}]" if isinstance(host, IPv6Address) else str(host), port=port),
            granted=b"",
            said=_everything_said(client[0]),
            is_tunnel=True,
            refusal=lambda _status, _destination, _reason: _reset(connection),
            addresses=addresses,
        )

    def _taken_for(self, address: IPAddress, port: int) -> tuple[Host, tuple[IPAddress, ...]]:
        """The name that an address stands for, with all that this may be reached at, the very address first; or itself.

        Of several names it is the latest that is permitted at this port. Where none is, the address itself may be.
        """
        names = self._names.names_of(address)
        permitted = [named for named in names if self._permits(named[0], port)]
        taken = permitted or ([] if self._permits(address, port) else list(names))
        if not taken:
            return address, ()
        name, addresses = taken[0]
        return name, tuple(dict.fromkeys((address, *addresses)))

    def _permits(self, host: Host, port: int) -> bool:
        if self._rules is None:
            return False
        with suppress(EgressRefusedError):
            self._rules.check_host(host, port)
            return True
        return False


async def _everything_said(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(READ_BYTES):
        yield data


def _reset(connection: socket.socket) -> bytes:
    """Let the connection's closing tell its client that it was refused; there is nothing else to say it with."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    return b""


# ======== sandbox/ready_box.py ========================================================================================
# A box that waits for code, with everything that was made for it: its folder and lease, its cgroups, its processes.
#
# Whoever starts one owns it until it is removed. It serves one request, whoever asked for it to be started.


W = TypeVar("W")

_LEAST_FREE_BYTES = 1 << 16
_LEAST_FREE_FILES = 8
_CPU_THOUSANDTHS_OF_START = 1_000
_DESCRIPTORS_TO_REMOVE = 4
"""Measured: two are enough."""
_REMOVAL_TRIES_SECONDS = 30.0
_PAUSE_BETWEEN_TRIES_SECONDS = 0.05
BOX_FORMAT = 2
"""Raised with every change of how boxes are started and served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxPlan:
    """Everything that one box is made from; boxes of equal plans can stand in for each other."""

    compiled: Compiled
    """Spec, flags and limits, none of which names a person, code or run."""
    cgroup_limits: CgroupLimits
    """What can be enforced of its cgroup limits."""
    equipment: Equipment
    """What the host has for it."""
    language: str
    """`python` or `bash`."""
    startup_seconds: float
    """How long it may take until its interpreter is ready; no part of what a box is made from."""

    @property
    def digest(self) -> str:
        """SHA-256 over all of it and the versions of gVisor and of this runner, in lower-case hexadecimal."""
        limits = self.cgroup_limits
        runsc, packages = self.equipment.runsc, self.equipment.packages
        whole = {
            "format": BOX_FORMAT,
            "spec": self.compiled.spec,
            "flags": self.compiled.runsc_flags,
            "cgroup": [limits.memory_bytes, limits.cpu_thousandths, limits.processes_hard_stop],
            "runsc": [str(runsc.path), runsc.version, runsc.arguments],
            "tree": self.equipment.tree.digest,
            "packages": None if packages is None else packages.digest,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class ReadyBox:
    """One box and what belongs to it."""

    plan_digest: str
    """Of the plan that it was made from."""
    folder: BoxFolder
    """Its own."""
    startup_seconds: float = 0.0
    """How long it took until its interpreter was ready."""
    language: str = ""
    """`python` or `bash`."""
    started_at: float = field(default_factory=time.time)
    """Seconds since 1970."""
    cgroup: RunCgroup | None = None
    """Its own, where there is one."""
    startup_cpu_seconds: float = 0.0
    """CPU time that it took until then."""
    memory_limit_bytes: int | None = None
    """What its cgroup holds it to once it is ready, gVisor's share included; `None` where nothing does."""
    egress: EgressProxy | TransparentEgress | None = None
    """Its way out; absent where it has none."""
    box: Box | None = None
    """Its process; absent until it was started."""
    lease: ExitStack = field(default_factory=ExitStack)
    """The locks on its folder and, shared, on the file tree that it sees."""
    set_aside: ExitStack = field(default_factory=ExitStack)
    """Descriptors that its removal will need, so that a process that has run out of them can still clean up."""

    @classmethod
    async def started(cls, plan: BoxPlan) -> Self:
        """Start a box and wait until it is ready; whatever goes wrong, nothing is left behind.

        Raises:
            UnenforceableError: the kernel did not take a limit.
            StartError: gVisor did not bring the interpreter up.
        """
        made = cls._leased(plan)
        path = made.folder.path
        try:
            await made._start(plan)  # noqa: SLF001 -- its own
        except StartError as error:
            full = disk_is_full(path)
            await finished_although_cancelled(made.remove())
            if full:
                raise disk_full_error(plan.equipment.folder) from error
            raise
        except BaseException:
            await finished_although_cancelled(made.remove())
            raise
        return made

    @property
    def usable(self) -> bool:
        """Whether code could be handed to it now: it lives, and no administrator is about to end it."""
        return self.box is not None and self.box.alive and not ended_by_administrator(self.folder.path)

    def processes(self) -> frozenset[int]:
        """Its processes on this host; each is in all of its cgroups."""
        if self.cgroup is not None:
            return cgroup_members(self.cgroup.places[0].folder)
        return process_family(self.box.process_id) if self.box is not None else frozenset()

    @property
    def answers(self) -> bool:
        """Whether gVisor can be asked how the code ended."""
        return self.box is not None and self.box.answers

    async def serve(
        self,
        code: bytes,
        output: KeptOutput,
        *,
        limits: EffectiveLimits,
        within_seconds: float | None,
        handed_over: Callable[[], None],
    ) -> BoxEnd:
        """Hand the code over, and wait for its end or the deadline; `handed_over` is called in between.

        The box reaches what the limits permit, from just before until its end.
        """
        if self.box is None:
            raise StartError(reason="the box was never started")
        if self.egress is None:
            return await self.box.serve(code, output, within_seconds=within_seconds, handed_over=handed_over)
        self.egress.open(EgressRules.of_limits(limits))
        try:
            return await self.box.serve(code, output, within_seconds=within_seconds, handed_over=handed_over)
        finally:
            await self.egress.close()

    def note(self, state: RunState, **who: Any) -> None:  # noqa: ANN401 -- fields of `RunNote`
        """Say in its folder what it is doing, for `sandbox ps`."""
        places = self.cgroup.places if self.cgroup else ()
        note = RunNote(
            state=state,
            language=self.language,
            box_digest=self.plan_digest,
            caller_pid=os.getpid(),
            since=time.time(),
            started=self.started_at,
            cgroup_folders=tuple(str(place.folder) for place in places),
            **{"person": None, "surface": None, "limits_digest": None, **who},
        )
        with suppress(OSError):  # a full disk is no reason to stop what runs already
            write_run_note(self.folder.path, note)

    def abandon(self) -> None:
        """Kill it, waiting for nothing: for when nobody is left to wait. What it leaves, the next start removes."""
        self.set_aside.close()
        if self.egress is not None:
            self.egress.abandon()
        if self.box is not None:
            self.box.abandon()
        self.lease.close()

    def removal(self) -> asyncio.Task[None]:
        """Remove it in the background; where the event loop ends before that has, it is abandoned."""
        removal = asyncio.get_running_loop().create_task(self._removed())
        removal.add_done_callback(lambda ended: self.abandon() if ended.cancelled() else None)
        return removal

    async def remove(self) -> None:
        """Kill it if it still lives, and leave nothing of it behind."""
        self.set_aside.close()
        given_up = time.monotonic() + _REMOVAL_TRIES_SECONDS
        with self.lease:
            while True:
                try:
                    await self._remove_once()
                except OSError:
                    # Others have taken what was set aside, or the kernel refuses for now.
                    if time.monotonic() >= given_up:
                        raise
                    await asyncio.sleep(_PAUSE_BETWEEN_TRIES_SECONDS)
                else:
                    return

    async def _removed(self) -> None:
        await finished_although_cancelled(self.remove())

    async def _remove_once(self) -> None:
        if self.egress is not None:
            await self.egress.close()
        if self.cgroup is not None:
            await self.cgroup.kill()
        if self.box is not None:
            await self.box.close()
        if self.cgroup is None or await _cgroup_removed(self.cgroup):
            await asyncio.to_thread(_folder_removed, self.folder)

    @classmethod
    def _leased(cls, plan: BoxPlan) -> Self:
        """A folder of its own with its lock, and nothing in it yet."""
        name = secrets.token_hex(16)
        with ExitStack() as set_aside, ExitStack() as lease:
            for _ in range(_DESCRIPTORS_TO_REMOVE):
                set_aside.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            lease.enter_context(used_tree(plan.equipment.tree.root))
            path = lease.enter_context(leased_folder(plan.equipment.folder / RUNS_FOLDER, name))
            return cls(
                plan_digest=plan.digest,
                folder=BoxFolder(path=path, name=name),
                language=plan.language,
                lease=lease.pop_all(),
                set_aside=set_aside.pop_all(),
            )

    async def _start(self, plan: BoxPlan) -> None:
        begun = time.monotonic()
        cgroups = plan.equipment.cgroups
        self.folder.write(await self._own_spec(plan))
        if isinstance(cgroups, CgroupParent):
            # Named before it is made: whoever kills us in between leaves a note that leads to it.
            self.cgroup = cgroups.run_cgroup(self.folder.name)
            self.note(RunState.STARTING)
            make_cgroup(cgroups, self.folder.name, _limits_of_start(plan.cgroup_limits))
        else:
            self.note(RunState.STARTING)
        box = await finished_although_cancelled(self._start_box(plan))
        await box.ready(within_seconds=plan.startup_seconds)
        if self.cgroup is not None and plan.equipment.proof is None:
            # Of a gVisor not yet tried on this host each process is looked at; once proved, it does so again.
            _prove_membership(self.cgroup, box.process_id)
        if isinstance(self.egress, TransparentEgress) and not self.egress.namespace.is_entered_by(self.processes()):
            raise StartError(reason="the box is not in the network namespace made for it")
        await box.watch(self.processes)
        self._hold(plan.cgroup_limits)
        self.startup_seconds = time.monotonic() - begun

    async def _own_spec(self, plan: BoxPlan) -> dict[str, Any]:
        """The spec with what is this box's alone."""
        compiled = plan.compiled
        spec = {**compiled.spec, "annotations": {BOX_DIGEST_ANNOTATION: self.plan_digest}}
        if compiled.network is NetworkMode.PROXY:
            self.egress = await EgressProxy(plan.equipment.egress_network()).listen(self.folder.egress)
            spec["mounts"] = [*spec["mounts"], egress_mount(self.folder.egress)]
        if compiled.network is NetworkMode.NAMESPACE:
            check_may_enter(plan.equipment)
            self.egress = await TransparentEgress.listening(plan.equipment.egress_network())
            return spec_inside(spec, self.egress.namespace)
        return spec

    def _hold(self, limits: CgroupLimits) -> None:
        """Tighten what a start had more of than any code will."""
        if self.cgroup is None:
            return
        self.startup_cpu_seconds = self.cgroup.cpu_seconds() or 0.0
        if limits.memory_bytes is not None:
            code_bytes = limits.memory_bytes - STARTUP_RAM_BYTES
            self.memory_limit_bytes = self.cgroup.hold_memory(code_bytes + GVISOR_GROWTH_BYTES)
        if limits.cpu_thousandths is not None:
            self.cgroup.hold_cpu(limits.cpu_thousandths)

    async def _start_box(self, plan: BoxPlan) -> Box:
        """Start the process; not to be cancelled, since asyncio then loses sight of one that it has just made."""
        runsc = plan.equipment.runsc
        self.box = await Box.start(
            (*own_network_command(), str(runsc.path), *runsc.arguments, *plan.compiled.runsc_flags),
            self.folder,
            self.cgroup.procs_files if self.cgroup else (),
        )
        return self.box


async def _cgroup_removed(cgroup: RunCgroup) -> bool:
    """Remove the cgroup of a box that is gone; where that fails, the folder stays to tell the next start of it."""
    if not cgroup.remove_once():
        return True
    await cgroup.kill()  # what was just being started may have joined meanwhile
    return not await cgroup.remove()


def _limits_of_start(limits: CgroupLimits) -> CgroupLimits:
    """What holds until a box is ready: a whole CPU, so that a small share of one makes no start last for minutes."""
    cpu = limits.cpu_thousandths
    return replace(limits, cpu_thousandths=None if cpu is None else max(cpu, _CPU_THOUSANDTHS_OF_START))


def _prove_membership(cgroup: RunCgroup, process_id: int) -> None:
    """Refuse a box of which any process is not where its limits are."""
    before = process_family(process_id)
    members = {place: cgroup_members(place.folder) for place in cgroup.places}
    box = before & process_family(process_id)  # those that lived all the while: what has ended is in no cgroup
    if len(box) <= 1:
        raise StartError(reason="gVisor ended as soon as the interpreter was ready")
    for place in cgroup.places:
        outside = box - members[place]
        if outside:
            controllers = ", ".join(sorted(place.controllers))
            raise StartError(
                reason=f"{len(outside)} of the box's processes are outside the cgroup made for it ({controllers})"
            )


def disk_is_full(folder: Path) -> bool:
    """Whether too little can be had there for what gVisor notes down; it tells so in words of its own."""
    try:
        left = os.statvfs(folder)
    except OSError:
        return False
    few_files = left.f_files > 0 and left.f_favail < _LEAST_FREE_FILES
    return few_files or left.f_bavail * left.f_frsize < _LEAST_FREE_BYTES


def disk_full_error(folder: Path) -> StartError:
    """What is said of a run that a full disk did not let start."""
    return StartError(
        reason=f"the disk is full ({folder})", remedy="Free space there; nothing of the run was left behind"
    )


def _folder_removed(folder: BoxFolder) -> None:
    remove_run_notes(folder.path)
    for left in control_socket_files(folder.state, folder.name):
        with suppress(OSError):
            left.unlink()
    shutil.rmtree(folder.path, ignore_errors=True)
    if folder.path.exists():
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder.path))


async def finished_although_cancelled(work: Coroutine[Any, Any, W]) -> W:
    """Carry work to its end, even where the task that waits for it is cancelled meanwhile; then pass that on."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result


# ======== sandbox/pool.py =============================================================================================
# Boxes started beforehand, each with an interpreter that waits for code, so that a run need not wait for a start.
#
# A box serves one request and is consumed at hand-over. Boxes are kept by the digest of their plan, so one can only stand
# in for a box that would have been started just so. How many wait, over all processes of this user, is bounded by locked
# files; how many of which plan follows from what was asked for last. They are refilled one at a time, off the path of any
# run, and retired when nobody asked for their plan for a while, when the policy changes, and when their owner is gone.


POOL_IDLE_SECONDS = 600.0
"""How long boxes of a plan wait for somebody to ask for it again."""
POOL_WATCH_SECONDS = 1.0
"""How soon boxes are gone once the policy has changed."""
WAITING_BOX_BYTES = 64 << 20
"""Memory that one waiting box may take: measured were 24 to 65 MiB."""
_MEMORY_PART = 8
_MOST_AUTOMATIC = 4
_PAUSE_AFTER_FAILURE_SECONDS = 30.0


def automatic_pool_size(available_bytes: int, instance_runs: int | None) -> int:
    """How many boxes wait where nobody says: what an eighth of the free memory holds, at most four.

    Args:
        available_bytes: memory that could be had now.
        instance_runs: runs permitted at once; `None` is any number.
    """
    room = available_bytes // _MEMORY_PART // WAITING_BOX_BYTES
    return min(room, _MOST_AUTOMATIC, _MOST_AUTOMATIC if instance_runs is None else instance_runs)


def shares(digests: tuple[str, ...], size: int) -> dict[str, int]:
    """How many boxes of each plan should wait: one of each that was asked for, the rest of the one asked for last.

    Args:
        digests: of the plans asked for, the last first.
        size: how many may wait in all.
    """
    served = digests[:size]
    return {digest: 1 + (size - len(served) if place == 0 else 0) for place, digest in enumerate(served)}


@dataclass(slots=True)
class _Demand:
    """What is known of one plan."""

    plan: BoxPlan
    """How a box of it is started."""
    asked_at: float
    """When somebody last asked for it, on the monotonic clock."""


@dataclass(slots=True)
class _Waiting:
    """One box that waits, and its place among all that may."""

    box: ReadyBox
    """The box."""
    place: int
    """The descriptor of the locked file; free again once it is closed."""


@dataclass(slots=True)
class _Rack:
    """What outlives the pool itself for as long as it takes to clear it: the watch holds this, and nothing else."""

    demands: OrderedDict[str, _Demand] = field(default_factory=OrderedDict)
    """By digest; the last asked for is the last."""
    waiting: dict[str, deque[_Waiting]] = field(default_factory=dict)
    """By digest; the oldest box is the first."""
    removals: set[asyncio.Task[None]] = field(default_factory=set)
    """Boxes on their way out."""
    closed: bool = False
    """Whether nothing may wait here any more."""

    def taken(self, digest: str) -> _Waiting | None:
        queue = self.waiting.get(digest)
        return queue.popleft() if queue else None

    def count(self, digest: str) -> int:
        return len(self.waiting.get(digest, ()))

    def drop(self, digest: str, *, down_to: int = 0) -> None:
        while self.count(digest) > down_to:
            self.remove_later(self.waiting[digest].popleft())

    def drop_all(self) -> None:
        for digest in tuple(self.waiting):
            self.drop(digest)

    def remove_later(self, waiting: _Waiting) -> None:
        removal = waiting.box.removal()
        removal.add_done_callback(lambda _: os.close(waiting.place))
        self.removals.add(removal)
        removal.add_done_callback(self.removals.discard)

    def watch_ended(self, watch: asyncio.Task[None]) -> None:
        """Abandon what waits where the event loop is being closed: what a box leaves, the next start removes."""
        if watch.cancelled():
            self.closed = True
            for waiting in (waiting for queue in self.waiting.values() for waiting in queue):
                waiting.box.abandon()
                os.close(waiting.place)
            self.waiting.clear()


class Pool:
    """The boxes that wait for one owner. Used on one event loop, and of no use on any other."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int,
        outdated: Callable[[], Awaitable[bool]],
        idle_seconds: float = POOL_IDLE_SECONDS,
    ) -> None:
        """Make an empty pool.

        Args:
            folder: where the locked files of waiting boxes are, shared by all processes of this user.
            size: how many boxes may wait in all those processes together.
            outdated: whether what the boxes were made under has changed, so that all are to go.
            idle_seconds: how long boxes of a plan wait for somebody to ask for it again.
        """
        self._folder = folder
        self._size = size
        self._outdated = outdated
        self._idle_seconds = idle_seconds
        self._rack = _Rack()
        self._refill: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def taken(self, plan: BoxPlan) -> ReadyBox | None:
        """A box of this plan that waits, which is the caller's from now on; `None` where there is none."""
        digest = plan.digest
        self._asked_for(plan, digest)
        while (waiting := self._rack.taken(digest)) is not None:
            if waiting.box.usable:
                os.close(waiting.place)
                return waiting.box
            self._rack.remove_later(waiting)
        return None

    def waiting_count(self) -> int:
        """How many boxes wait now, of all plans together."""
        return sum(map(len, self._rack.waiting.values()))

    def refill(self) -> None:
        """Start what should be waiting, one box at a time, in the background."""
        if self._size and not self._rack.closed and (self._refill is None or self._refill.done()):
            self._refill = asyncio.get_running_loop().create_task(self._refilled())

    def retire(self) -> None:
        """Let no box wait any longer; those that are asked for anew will."""
        self._rack.demands.clear()
        self._rack.drop_all()

    async def close(self) -> None:
        """End all that wait, and wait until they are gone."""
        self._rack.closed = True
        await _cancelled(self._refill)
        self.retire()
        await _cancelled(self._watch)
        await asyncio.gather(*self._rack.removals)

    def _asked_for(self, plan: BoxPlan, digest: str) -> None:
        demands = self._rack.demands
        demands[digest] = _Demand(plan=plan, asked_at=time.monotonic())
        demands.move_to_end(digest)
        while len(demands) > max(self._size, 1):
            self._rack.drop(demands.popitem(last=False)[0])

    async def _refilled(self) -> None:
        if time.monotonic() < self._not_before:
            return
        while (digest := self._lacking()) is not None:
            try:
                place = self._free_place()
            except OSError:
                self._not_before = time.monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
                return
            if place is None or not await self._added(digest, place):
                return

    async def _added(self, digest: str, place: int) -> bool:
        """Start one box; whether it waits now."""
        try:
            box = await ReadyBox.started(self._rack.demands[digest].plan)
        except (SandboxError, OSError):
            # Whoever runs code next starts a box himself and is told why it fails.
            self._not_before = time.monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
            os.close(place)
            return False
        except BaseException:
            os.close(place)
            raise
        waiting = _Waiting(box=box, place=place)
        if digest not in self._rack.demands or self._rack.closed:
            self._rack.remove_later(waiting)
            return not self._rack.closed
        box.note(RunState.WAITING)
        self._rack.waiting.setdefault(digest, deque()).append(waiting)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(
                _watched(weakref.ref(self), self._rack, POOL_WATCH_SECONDS)
            )
            self._watch.add_done_callback(self._rack.watch_ended)
        return True

    def _lacking(self) -> str | None:
        """The plan of which the next box should be started; those of which too many wait make room for it."""
        wanted = shares(tuple(reversed(self._rack.demands)), self._size)
        lacking = next((digest for digest, count in wanted.items() if self._rack.count(digest) < count), None)
        if lacking is not None:
            for digest in tuple(self._rack.waiting):
                self._rack.drop(digest, down_to=wanted.get(digest, 0))
        return lacking

    def _free_place(self) -> int | None:
        """Lock one of the places for waiting boxes; `None` where other processes have them all."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(self._size):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / f"waiting-{number}", flags, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            os.close(descriptor)
        return None

    async def _looked_after(self) -> None:
        """Retire what is outdated, has waited too long, or is dead."""
        if await self._outdated():
            self.retire()
        oldest = time.monotonic() - self._idle_seconds
        for digest, demand in tuple(self._rack.demands.items()):
            if demand.asked_at < oldest:
                del self._rack.demands[digest]
                self._rack.drop(digest)
        for queue in self._rack.waiting.values():
            for waiting in tuple(queue):
                if not waiting.box.usable:
                    queue.remove(waiting)
                    self._rack.remove_later(waiting)


async def _watched(pool: weakref.ref[Pool], rack: _Rack, pause_seconds: float) -> None:
    """Look after a pool while anything waits in it; where the pool itself is gone, so is whoever could use it."""
    while any(rack.waiting.values()):
        await asyncio.sleep(pause_seconds)
        owner = pool()
        if owner is None:
            rack.drop_all()
            return
        await owner._looked_after()  # noqa: SLF001 -- its own
        del owner


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ======== sandbox/runner.py ===========================================================================================
# Runs a request from beginning to end: limits held, outcome told by the kernels, nothing left behind.
#
# One `Runner` belongs to one command or one plugin instance, and ends with it. Each run has a folder, cgroups and a box
# of its own, which are gone soon after it ends, by whatever way it ends: the code's own end, the deadline, an error, or
# cancellation. A box that waits in the pool is taken where one of the same plan is there; else one is started.


_OUTPUT_UNIT_BYTES = 1 << 10
_REFILL_SECONDS = 0.1  # a short run is over by then, and has had the processor to itself
_COMPLAINTS_OF_NO_NETWORK = (
    b"name resolution",
    b"Name or service not known",
    b"Could not resolve host",
    b"Network is unreachable",
    b"No route to host",
    b"EAI_AGAIN",
)
"""What programs say of names and routes that are not there, in a box without network."""
_EXIT_OF_A_LOST_GOFER = 137
"""What gVisor itself tells where the process that serves its files is killed before it is."""
_NOTHING_COUNTED = Counters(oom_kills=0, peak_memory_bytes=None, cpu_seconds=None, pids_limit_hits=0)
_NO_QUEUE = QueueBounds(size=0, max_wait_seconds=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What is known of a run once its box has got it."""

    request: RunRequest
    """What is asked for."""
    compiled: Compiled
    """What follows from it."""
    enforced: Enforced
    """What holds here."""
    ready: ReadyBox
    """Its box."""
    pooled: bool
    """Whether that had waited for it."""
    queue_seconds: float
    """How long the run waited for a slot."""
    startup_seconds: float
    """How long it took from then until the box was there."""


class Runner:
    """Runs requests on this host."""

    def __init__(
        self,
        equipment: Equipment,
        *,
        pool: Pool | None = None,
        bounds: QueueBounds = _NO_QUEUE,
        startup_seconds: float = STARTUP_SECONDS,
    ) -> None:
        """Run on this equipment.

        Args:
            equipment: what the host has.
            pool: where boxes wait; this runner ends it. Without one each run starts a box.
            bounds: how many runs may wait for a slot, and for how long.
            startup_seconds: how long a box may take to start.
        """
        self._equipment = equipment
        self._pool = pool
        self._bounds = bounds
        self._startup_seconds = startup_seconds
        self._removals: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Use it for as long as the context lasts."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""
        await self.close()

    def retire_boxes(self) -> None:
        """Let no box wait any longer that was started before now."""
        if self._pool is not None:
            self._pool.retire()

    async def close(self) -> None:
        """End the boxes that wait, and wait until all are gone."""
        if self._pool is not None:
            await finished_although_cancelled(self._pool.close())
        await asyncio.gather(*self._removals)

    async def run(
        self,
        request: RunRequest,
        tell: Callable[[str], Awaitable[None]] | None = None,
        spent: Callable[[RunUsage], None] | None = None,
    ) -> RunResult:
        """Run a request to its end.

        Args:
            request: what to run.
            tell: gets a sentence for the person while the run has to wait for others.
            spent: gets what a run has used that is stopped before it comes to a result.

        Raises:
            UnenforceableError: a limit cannot be enforced here, and the limits do not permit going without.
            BusyError: as many runs as the limits permit are under way, and too many wait already or it took too long.
            StartError: gVisor did not bring the interpreter up.
        """
        try:
            return await self._run(request, tell or _untold, spent or _uncounted)
        except OSError as error:
            raise _host_refused(error, self._equipment.folder) from error
        except StartError as error:
            if request.limits[DEBUG]:
                raise error.with_internals() from error
            raise
        finally:
            if self._pool is not None:
                self._pool.refill()

    async def _run(
        self, request: RunRequest, tell: Callable[[str], Awaitable[None]], spent: Callable[[RunUsage], None]
    ) -> RunResult:
        equipment, clock = self._equipment, asyncio.get_running_loop().time
        compiled = compile_run(
            request.language,
            request.limits,
            equipment.tree,
            packages=equipment.packages,
            way=equipment.network_way,
        )
        enforced = enforceable(_held_to(request, compiled), request.limits, equipment.cgroups, equipment.proof)
        asked = clock()
        async with AsyncExitStack() as slots:
            folder = equipment.folder / "slots"
            await slots.enter_async_context(
                taken_slots(folder, request.person, request.limits, bounds=self._bounds, tell=tell)
            )
            permitted = clock()
            ready, pooled = await self._box_for(request, compiled, enforced)
            begun = _Begun(
                request=request,
                compiled=compiled,
                enforced=enforced,
                ready=ready,
                pooled=pooled,
                queue_seconds=permitted - asked,
                startup_seconds=clock() - permitted,
            )
            try:
                result = await self._served(begun)
            except BaseException:
                try:
                    with suppress(UnenforceableError):
                        wall_seconds = clock() - permitted - begun.startup_seconds
                        spent(self._usage(begun, _counters_of(ready), wall_seconds=wall_seconds))
                finally:
                    await finished_although_cancelled(ready.remove())
                raise
            await self._removed(ready)
            return result

    async def _box_for(self, request: RunRequest, compiled: Compiled, enforced: Enforced) -> tuple[ReadyBox, bool]:
        """A box that is ready for code, and whether it had waited for it."""
        plan = BoxPlan(
            compiled=compiled,
            cgroup_limits=enforced.cgroup_limits,
            equipment=self._equipment,
            language=request.language,
            startup_seconds=self._startup_seconds,
        )
        if self._pool is not None:
            asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._pool.refill)
            waiting = self._pool.taken(self._importing(plan, request))
            if waiting is not None:
                return waiting, True
        return await ReadyBox.started(plan), False

    def _importing(self, plan: BoxPlan, request: RunRequest) -> BoxPlan:
        """The plan of a box that waits: its interpreter has imported beforehand what the administrator lists."""
        imports = self._equipment.pool_imports
        if not imports or request.language != "python":
            return plan
        equipment = self._equipment
        compiled = compile_run(
            "python",
            request.limits,
            equipment.tree,
            packages=equipment.packages,
            imports=imports,
            way=equipment.network_way,
        )
        return replace(plan, compiled=compiled)

    async def _served(self, begun: _Begun) -> RunResult:
        """Hand the code over to a box, and say how it ended."""
        request, ready, limits = begun.request, begun.ready, begun.request.limits
        output = KeptOutput(limit_bytes=_output_bytes(limits))
        whose = {"person": request.person, "surface": request.surface, "limits_digest": limits.digest}
        clock = asyncio.get_running_loop().time
        handed_over = clock()
        end = await ready.serve(
            request.code_bytes,
            output,
            limits=limits,
            within_seconds=_runtime_seconds(limits),
            handed_over=lambda: ready.note(RunState.RUNNING, **whose),
        )
        usage = self._usage(begun, counters := _counters_of(ready), wall_seconds=clock() - handed_over)
        ended_by_hand = ended_by_administrator(ready.folder.path)
        outcome = outcome_of(end, counters, asked=ready.answers, ended_by_hand=ended_by_hand)
        return RunResult(
            outcome=outcome,
            language=request.language,
            exit_code=end.exit_code if outcome in {Outcome.OK, Outcome.ERROR} else None,
            chunks=output.chunks,
            truncated=output.seen_bytes > output.kept_bytes,
            output_limit_kilobytes=_output_bytes(limits) // _OUTPUT_UNIT_BYTES,
            runtime_limit_seconds=_finite(limits[MAX_RUNTIME_SECONDS]),
            ram_limit_megabytes=_finite(limits[MAX_RAM_MEGABYTES]),
            process_limit=_finite(limits[MAX_PROCESSES]),
            memory_limit_bytes=ready.memory_limit_bytes,
            notices=(*limits.notices, *_network_notices(begun.compiled, outcome, output), *usage.egress.notices),
            unenforced=begun.enforced.unenforced,
            debug_allowed=limits[DEBUG],
            limits_digest=limits.digest,
            policies=tuple((policy.policy_id, policy.serial) for policy in limits.policies),
            ended_by_administrator=ended_by_hand,
            code_sha256=request.code_sha256,
            **{field.name: getattr(usage, field.name) for field in fields(usage)},
        )

    def _usage(self, begun: _Begun, counters: Counters, *, wall_seconds: float) -> RunUsage:
        counted, way_out = counters.cpu_seconds, begun.ready.egress
        return RunUsage(
            gvisor=self._equipment.gvisor_words,
            box_digest=begun.ready.plan_digest,
            pooled=begun.pooled,
            queue_seconds=begun.queue_seconds,
            startup_seconds=begun.startup_seconds,
            wall_seconds=wall_seconds,
            cpu_seconds=None if counted is None else max(counted - begun.ready.startup_cpu_seconds, 0.0),
            peak_memory_bytes=counters.peak_memory_bytes,
            egress=way_out.account.summary if way_out else EMPTY_EGRESS,
        )

    async def _removed(self, ready: ReadyBox) -> None:
        """Remove a box whose code is at its end; a server that lives on does so while the result is on its way."""
        if self._pool is None:
            await finished_although_cancelled(ready.remove())
            return
        if ready.box is not None:
            ready.box.kill()  # whoever gets the slot finds none of its code running
        removal = ready.removal()
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)


def outcome_of(end: BoxEnd, counters: Counters, *, asked: bool, ended_by_hand: bool) -> Outcome:
    """How a run ended, from what the kernels say.

    Args:
        end: how its processes ended.
        counters: what was counted in its cgroups.
        asked: whether gVisor could be asked how the code ended; an exit code that it did not tell is then no code's.
        ended_by_hand: whether an administrator ended it.
    """
    if counters.oom_kills:
        return Outcome.OUT_OF_MEMORY
    if end.timed_out:
        return Outcome.TIMED_OUT
    if ended_by_hand and (not end.told_by_gvisor or end.exit_code == _EXIT_OF_A_LOST_GOFER):
        return Outcome.KILLED
    if counters.pids_limit_hits and end.exit_code and not end.told_by_gvisor:
        return Outcome.TOO_MANY_PROCESSES
    if end.told_by_gvisor or (not asked and end.exit_code >= 0):
        return Outcome.ERROR if end.exit_code else Outcome.OK
    return Outcome.KILLED if end.exit_code < 0 else Outcome.GVISOR_FAILED


def _network_notices(compiled: Compiled, outcome: Outcome, output: KeptOutput) -> tuple[str, ...]:
    """Why there was no network, where the code failed and complains of that; it is advice, no outcome."""
    if not compiled.network_notice or outcome is not Outcome.ERROR:
        return ()
    said = b"".join(chunk.data for chunk in output.chunks)
    return (compiled.network_notice,) if any(words in said for words in _COMPLAINTS_OF_NO_NETWORK) else ()


def _counters_of(ready: ReadyBox) -> Counters:
    return ready.cgroup.counters() if ready.cgroup else _NOTHING_COUNTED


def _held_to(request: RunRequest, compiled: Compiled) -> CgroupLimits:
    """What the box's cgroup is to be set to: what follows from the limits, but for what a probe asks for."""
    stop = request.processes_hard_stop
    return compiled.cgroup_limits if stop is None else replace(compiled.cgroup_limits, processes_hard_stop=stop)


async def _untold(_: str) -> None:
    """Nobody listens."""


def _uncounted(_: RunUsage) -> None:
    """Nobody wants to know."""


def _host_refused(error: OSError, folder: Path) -> StartError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_full_error(folder)
    return StartError(reason=f"this host refused: {error.strerror} ({error.filename})")


def _output_bytes(limits: EffectiveLimits) -> int:
    kilobytes = limits[MAX_OUTPUT_KILOBYTES]
    if isinstance(kilobytes, Unlimited):
        raise ValueError("the table permits no unlimited output")
    return kilobytes * _OUTPUT_UNIT_BYTES


def _runtime_seconds(limits: EffectiveLimits) -> float | None:
    seconds = _finite(limits[MAX_RUNTIME_SECONDS])
    return None if seconds is None else float(seconds)


def _finite(number: int | Unlimited) -> int | None:
    return None if isinstance(number, Unlimited) else number


# ======== sandbox/proving.py ==========================================================================================
# The start-up probe: holds this host against code that tries to break each limit, once for each boot and set-up.


_PROBES_AT_ONCE = 3


def with_kept_proof(equipment: Equipment) -> Equipment:
    """The equipment with the proof that is kept of this very host; without one where none is."""
    binding = proof_binding(equipment.runsc, equipment.tree.digest, equipment.cgroups)
    return replace(equipment, proof=kept_proof(equipment.folder, binding))


async def with_new_proof(equipment: Equipment) -> Equipment:
    """The equipment with a proof of just now, which is kept if every limit held; takes a few seconds.

    Raises:
        StartError: no box starts here at all.
    """
    # Before anything runs: a gVisor that is exchanged meanwhile does not get the proof of the one before.
    binding = proof_binding(equipment.runsc, equipment.tree.digest, equipment.cgroups)
    turns = asyncio.Semaphore(_PROBES_AT_ONCE)
    async with Runner(replace(equipment, proof=None)) as runner:
        try:
            # One alone first: where no box starts at all, that is said once.
            found = [await _broken_reason(PROBES[0], runner, turns)]
        except StartError:
            forget_launch(equipment.folder)  # what worked before does not any more: the next start looks anew
            raise
        async with asyncio.TaskGroup() as group:
            rest = [group.create_task(_broken_reason(probe, runner, turns)) for probe in PROBES[1:]]
        found += [task.result() for task in rest]
    broken = MappingProxyType({name: reason for name, reason in found if reason})
    proof = HostProof(broken=broken, found_at=time.monotonic())
    if not proof.broken:
        keep_proof(equipment.folder, binding)
    return replace(equipment, proof=proof)


async def _broken_reason(probe: Probe, runner: Runner, turns: asyncio.Semaphore) -> tuple[str, str]:
    """The name of the limit, and why it cannot be relied on; empty where it held, or is known not to be enforced."""
    async with turns:
        try:
            result = await runner.run(probe.request())
        except SandboxError as error:
            if probe is PROBES[0]:
                raise
            return probe.limit, f"the start-up probe could not try it ({error.reason})"
    if probe.limit in result.unenforced or probe.held(result):
        return probe.limit, ""
    return probe.limit, f"the start-up probe broke it ({result.sentence.removesuffix('.')})"


# ======== sandbox/prepared_runner.py ==================================================================================
# The one runner of a process: its gVisor found or installed, its host proved, its pool sized; anew where that changes.
#
# Owned by a session, and ends with it.


_MEMORY_INFORMATION = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChoices:
    """What the administrator chose for this host, beside the limits."""

    gvisor: ReleaseSource
    """Which gVisor is wanted."""
    gvisor_platform: str | None = None
    """The only platform to start it on; `None` leaves it to what works here."""
    network_way: NetworkMode = NetworkMode.PROXY
    """How code reaches what its limits permit."""
    pool_size: int | None
    """How many boxes may wait for code; `None` leaves it to the memory there is."""
    pool_imports: tuple[str, ...]
    """Modules that the interpreters of waiting boxes import beforehand."""
    packages: PackagesOrder | None
    """Which packages are offered to code, if any."""
    queue: QueueBounds
    """How many runs may wait for others."""


class PreparedRunner:
    """Prepares on first use, and again where gVisor or the file tree is gone or another event loop asks."""

    def __init__(
        self, environ: Mapping[str, str], *, keeps_boxes: bool, outdated: Callable[[], Awaitable[bool]]
    ) -> None:
        """Prepare nothing yet.

        Args:
            environ: this process's environment.
            keeps_boxes: whether boxes may wait for code; for those that run once it would be a waste.
            outdated: whether the policy has changed since somebody last ran something.
        """
        self._environ = environ
        self._keeps_boxes = keeps_boxes
        self._outdated = outdated
        self._preparing = asyncio.Lock()
        self._equipment: Equipment | None = None
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ready(self, choices: HostChoices, limits: EffectiveLimits, announce: Announce) -> Runner:
        """The runner, announcing what has to be done first.

        Raises:
            SandboxError: something is missing that no setting can do without.
        """
        async with InTurn(announce) as teller, self._preparing:
            # Whoever is slow to hear waits alone: the lock is not held for that.
            equipment = await self._prepared(choices, limits, teller.tell)
            loop = asyncio.get_running_loop()
            if self._runner is None or self._loop is not loop or self._equipment is not equipment:
                await self.close()
                self._equipment, self._loop = equipment, loop
                self._runner = self._made(equipment, choices, limits)
            return self._runner

    def retire_boxes(self) -> None:
        """Let no box wait any longer that was started before now."""
        if self._runner is not None:
            self._runner.retire_boxes()

    async def close(self) -> None:
        """End what waits; runs under way go on."""
        runner, self._runner = self._runner, None
        if runner is not None and self._loop is asyncio.get_running_loop():
            await runner.close()

    def _made(self, equipment: Equipment, choices: HostChoices, limits: EffectiveLimits) -> Runner:
        size = self._pool_size(equipment.cgroups, choices, limits)
        pool = Pool(equipment.folder / "slots", size=size, outdated=self._outdated) if size else None
        return Runner(equipment, pool=pool, bounds=choices.queue)

    def _pool_size(
        self, cgroups: CgroupParent | CgroupsUnavailable, choices: HostChoices, limits: EffectiveLimits
    ) -> int:
        if not self._keeps_boxes:
            return 0
        if choices.pool_size is not None:
            return choices.pool_size
        runs = limits[MAX_INSTANCE_RUNS]
        places = () if isinstance(cgroups, CgroupsUnavailable) else cgroups.places
        left = min(filter(None, (_available_bytes(), memory_left_bytes(places))), default=0)
        return automatic_pool_size(left, None if isinstance(runs, Unlimited) else runs)

    async def _prepared(self, choices: HostChoices, limits: EffectiveLimits, announce: Announce) -> Equipment:
        kept = self._equipment if self._equipment is not None and self._equipment.intact() else None
        runsc = kept.runsc if kept else await asyncio.to_thread(found_runsc, choices.gvisor, self._environ)
        if runsc is None:
            runsc = await self._installed(choices.gvisor, limits, announce)
        await announce("Initializing sandbox configuration...")
        await announce("Setting up sandbox environment...")
        if kept is not None and kept.proof is not None and kept.proof.lasts(time.monotonic()):
            return kept
        equipment = await self._equipped(runsc, choices, limits, announce)
        await remove_leftovers(equipment.folder / RUNS_FOLDER, equipment.cgroups)
        await asyncio.to_thread(remove_free_slots, equipment.folder / "slots")
        equipment = replace(equipment, pool_imports=choices.pool_imports, network_way=choices.network_way)
        equipment = await asyncio.to_thread(with_kept_proof, equipment)
        if equipment.proof is None:
            await announce("Proving on this host that each limit holds...")
            equipment = await with_new_proof(equipment)
        return equipment

    async def _equipped(
        self, runsc: Runsc, choices: HostChoices, limits: EffectiveLimits, announce: Announce
    ) -> Equipment:
        try:
            return await asyncio.to_thread(
                prepared,
                runsc,
                self._environ,
                _reporter(announce),
                choices.packages,
                gvisor_platform=choices.gvisor_platform,
            )
        except StartError as error:
            if limits[DEBUG]:
                raise error.with_internals() from error
            raise

    async def _installed(self, source: ReleaseSource, limits: EffectiveLimits, announce: Announce) -> Runsc:
        if limits[AUTO_INSTALL]:
            await announce("Auto-installing gVisor...")
        return await asyncio.to_thread(installed_runsc, source, self._environ, limits, _reporter(announce))


def _available_bytes() -> int | None:
    """Memory that this machine could give now. Source: proc_meminfo(5), MemAvailable."""
    with suppress(OSError, ValueError):
        for line in _MEMORY_INFORMATION.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) << 10
    return None


def _reporter(announce: Announce) -> Callable[[str], None]:
    """Announces, from the thread that works, in the loop that waits."""
    loop = asyncio.get_running_loop()

    def report(sentence: str) -> None:
        asyncio.run_coroutine_threadsafe(_announced(announce, sentence), loop)

    return report


async def _announced(announce: Announce, sentence: str) -> None:
    await announce(sentence)


# ======== sandbox/session.py ==========================================================================================
# Everything that one process holds for running code: what policy says here, and what this host has for it.
#
# One `Session` belongs to one command or one plugin instance, and goes with it. This is an edge: it reads the
# environment, the clock and policy files, and hands the sandbox nothing of them but effective limits.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """What somebody wants to run, before policy has said what holds for it."""

    language: str
    """`python` or `bash`."""
    code: str
    """The person's text."""
    person: str
    """Whose run it is."""
    requester: Requester
    """Who asks, as far as it can be determined; scopes of policy files are held against it."""
    untrusted_person_valves: Mapping[str, object]
    """What the person's valves hold, by valve name."""
    untrusted_admin_valves: Mapping[str, object]
    """What the plugin's valves hold, by valve name."""


@dataclass(slots=True)
class _Progress:
    """How far one run has come; the account of it grows on the way."""

    account: RunAccount
    notices: tuple[str, ...] = ()

    def spent(self, usage: RunUsage) -> None:
        self.account = replace(self.account, usage=usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What the environment says, and the policy set that it names."""

    settings: SettingValues
    policy: LivePolicy


def gvisor_source(settings: SettingValues) -> ReleaseSource:
    """Which gVisor the settings want."""
    return release_source(
        machine=platform.machine(),
        url=settings[GVISOR_URL],
        version=settings[GVISOR_VERSION],
        sha512=settings[GVISOR_SHA512],
        min_version=settings[GVISOR_MIN_VERSION],
    )


def packages_order(settings: SettingValues) -> PackagesOrder | None:
    """Which packages the settings offer to code, and what other settings name that code must not see."""
    path = settings[PACKAGES_PATH]
    if path is None:
        return None
    named = ((setting, settings[setting]) for setting in (POLICY_PATH, POLICY_KEYS, POLICY_STATE, AUDIT_LOG))
    return PackagesOrder(
        path=Path(path),
        off_limits=tuple(
            named_folder(f"named by {setting.variable}", value) for setting, value in named if value and value[0] == "/"
        ),
    )


def host_choices(settings: SettingValues) -> HostChoices:
    """What the settings say of this host."""
    return HostChoices(
        gvisor=gvisor_source(settings),
        gvisor_platform=settings[GVISOR_PLATFORM],
        network_way=NetworkMode(settings[NETWORK_MODE]),
        pool_size=settings[POOL_SIZE],
        pool_imports=settings[POOL_IMPORTS],
        packages=packages_order(settings),
        queue=QueueBounds(size=settings[QUEUE_SIZE], max_wait_seconds=settings[QUEUE_MAX_WAIT].total_seconds()),
    )


class Session:
    """Runs code under what policy says at that moment."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None], *, keeps_boxes: bool = False) -> None:
        """Read nothing yet.

        Args:
            environ: this process's environment.
            warn: gets sentences for administrators.
            keeps_boxes: whether boxes may wait for code; for those that run once it would be a waste.
        """
        self._environ = dict(environ)
        self._warn = warn
        self._opened: _Opened | None = None
        self._opening = threading.Lock()
        self._warned_of: tuple[str, datetime, bool] | None = None
        self._last: Situation | None = None
        self._runner = PreparedRunner(self._environ, keeps_boxes=keeps_boxes, outdated=self._outdated)

    async def __aenter__(self) -> Self:
        """Use it for as long as the context lasts."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""
        await self.close()

    async def close(self) -> None:
        """End the boxes that wait for code; a session that is only forgotten does so within a second or two."""
        await self._runner.close()

    def situation(self) -> Situation:
        """What holds here now: policy files as they are at this moment, the environment as it was at the start.

        Raises:
            PolicyError: the environment or the policy set cannot be used.
        """
        situation = self._environment().policy.situation()
        stand_in = situation.stand_in
        standing = None if stand_in is None else (stand_in.refusal.code, stand_in.until, stand_in.locked_down)
        if stand_in is not None and standing != self._warned_of:
            self._warn(stand_in.sentence)
        self._warned_of = standing
        return situation

    async def run(self, order: RunOrder, announce: Announce) -> RunResult:
        """Run code to its end, announcing each step, and leave a line in the audit log; refused and stopped runs too.

        Raises:
            PolicyError: no limits come out of environment and policy files, or the audit log is required and cannot be
                written; then a result that there is already is withheld.
            SandboxError: the run was refused, or could not be carried out.
        """
        await announce("Checking if environment supports sandboxing...")
        log = await asyncio.to_thread(self._checked_log)
        account = RunAccount(person=order.person, requester=order.requester, language=order.language, code=order.code)
        progress = _Progress(account)
        try:
            result = await self._run(order, progress, announce)
        except (PolicyError, SandboxError) as refusal:
            await self._noted(log, progress.account.of_refusal(refusal))
            raise
        except asyncio.CancelledError:
            await self._noted(log, progress.account.of_end(STOPPED_OUTCOME))
            raise
        except Exception:
            await self._noted(log, progress.account.of_end(FAILED_OUTCOME))
            raise
        result = replace(
            result,
            surface=order.requester.surface,
            policy_refusal=progress.account.policy_refusal,
            notices=(*progress.notices, *result.notices),
        )
        line = await self._noted(log, progress.account.of_result(result), withhold=True)
        return replace(result, audit_hash=line)

    def _environment(self) -> _Opened:
        """What the environment says, read once."""
        with self._opening:
            if self._opened is None:
                environment = read_environment(self._environ)
                for warning in environment.warnings:
                    self._warn(warning)
                policy = LivePolicy(environment, reader=trusted_reader(), now=current_moment)
                self._opened = _Opened(settings=environment.settings, policy=policy)
            return self._opened

    def _checked_log(self) -> AuditLog | None:
        """The audit log, if the environment names one.

        Raises:
            PolicyError: the environment cannot be used, or the log is required and cannot be written.
        """
        settings = self._environment().settings
        path = settings[AUDIT_LOG]
        if path is None:
            return None
        log = AuditLog(Path(path), current_moment)
        if settings[AUDIT_REQUIRED]:
            log.check()
        return log

    async def _noted(self, log: AuditLog | None, account: Mapping[str, Any], *, withhold: bool = False) -> str | None:
        """Append the account, also where whoever waited for it is gone; the hash of its line, where there is one.

        Raises:
            AuditError: it cannot be written, the log is required, and a result can be withheld for that.
        """
        if log is None:
            return None
        line = await asyncio.shield(asyncio.to_thread(self._appended, log, account))
        if isinstance(line, AuditError) and withhold and self._environment().settings[AUDIT_REQUIRED]:
            raise line
        return None if isinstance(line, AuditError) else line

    def _appended(self, log: AuditLog, account: Mapping[str, Any]) -> str | AuditError:
        """The hash of the account's line; where it cannot be written, that is said even if nobody waits any more."""
        try:
            return log.append(account)
        except AuditError as error:
            self._warn(f"A run is missing from the audit log: {error}")
            return error  # not raised: where nobody waits any more, nobody would hear of it

    async def _run(self, order: RunOrder, progress: _Progress, announce: Announce) -> RunResult:
        situation, limits = await asyncio.to_thread(self._limits, order)
        stand_in = situation.stand_in
        refusal = None if stand_in is None else stand_in.refusal.code
        progress.account = replace(progress.account, limits=limits, policy_refusal=refusal)
        if stand_in is not None and stand_in.locked_down:
            progress.notices = (f"The lockdown values hold: the policy set is refused ({refusal}).",)
        if self._changed(situation):
            self._runner.retire_boxes()
        request = RunRequest(
            language=order.language,
            code=order.code,
            limits=limits,
            person=order.person,
            surface=order.requester.surface,
        )
        choices = host_choices(situation.environment.settings)
        runner = await self._runner.ready(choices, limits, announce)
        await announce(f"Running {LANGUAGE_NAMES[order.language]} code in gVisor sandbox...")
        return await runner.run(request, announce, progress.spent)

    def _limits(self, order: RunOrder) -> tuple[Situation, EffectiveLimits]:
        """What holds here, and for this order; not for the event loop, since a policy may name many destinations."""
        situation = self.situation()
        return situation, situation.limits(
            requester=order.requester,
            untrusted_person_valves=order.untrusted_person_valves,
            untrusted_admin_valves=order.untrusted_admin_valves,
        )

    def _changed(self, situation: Situation) -> bool:
        """Whether another policy holds than at the last run; boxes that were started under that one go."""
        before, self._last = self._last, situation
        return before is not None and before is not situation

    async def _outdated(self) -> bool:
        """Whether another policy holds by now than at the last run."""
        try:
            return await asyncio.to_thread(self.situation) is not self._last
        except PolicyError:
            return True


# ======== plugins/host.py =============================================================================================
# Between Open WebUI and the sandbox: reads valves and the person, tells people each step, and turns ends into words.
#
# One `PluginHost` is held by each plugin instance. Open WebUI shares that instance among all requests, so nothing of a
# request is ever stored on it.


Emit = Callable[[dict[str, Any]], Awaitable[Any]]
UNKNOWN_PERSON = "unknown"
LOGGER_NAME = "sandbox_lockdown"


PluginEnd = RunResult | PolicyError | SandboxError
"""How a request to a plugin ended: with a result, or with a refusal."""


class PluginHost:
    """Runs code for one plugin."""

    def __init__(
        self,
        environ: Mapping[str, str],
        group_source: GroupSource = open_webui_groups,
        *,
        keeps_boxes: bool = False,
    ) -> None:
        """Run under this environment.

        Args:
            environ: this process's.
            group_source: who knows the groups of a person.
            keeps_boxes: whether boxes may wait for code between runs.
        """
        warn = logging.getLogger(LOGGER_NAME).warning
        self._session = Session(environ, warn, keeps_boxes=keeps_boxes)
        self._groups = GroupRegister(group_source, warn, GROUPS_SECONDS)

    async def run(self, order: RunOrder, emit: Emit | None) -> PluginEnd:
        """Run code, and say how it went; only cancellation and defects of ours come out as exceptions."""

        async def announce(description: str) -> None:
            await _emit_status(emit, "in_progress", description, done=False)

        try:
            groups = await self._groups.groups(order.requester.user)
            known = replace(order, requester=replace(order.requester, groups=groups))
            result = await self._session.run(known, announce)
        except (PolicyError, SandboxError) as refusal:
            return await _told_refusal(emit, refusal)
        except Exception as defect:
            logging.getLogger(LOGGER_NAME).exception("a run ended with a defect of sandbox-lockdown")
            return await _told_refusal(emit, _internal_error(defect))
        await _emit_status(emit, "complete", result.sentence, done=True)
        return result

    async def close(self) -> None:
        """Leave nothing behind; a host that is only forgotten does so within a second or two."""
        await self._session.close()


def run_order(
    language: str,
    code: str,
    admin_valves: object,
    untrusted_user: Mapping[str, Any] | None,
    *,
    surface: str,
    model: str | None = None,
) -> RunOrder:
    """What a person wants to run, with a snapshot of all valves; their groups are asked for when it is run.

    Args:
        language: `python` or `bash`.
        code: the person's text.
        admin_valves: the plugin's valves, as Open WebUI stored them on the instance.
        untrusted_user: Open WebUI's `__user__`.
        surface: `tool` or `function`.
        model: the id of the model that runs the code, where the server knows it.
    """
    user = untrusted_user or {}
    return RunOrder(
        language=language,
        code=code,
        person=str(user.get("id") or UNKNOWN_PERSON),
        requester=requester_of(user, surface=surface, model=model),
        untrusted_person_valves=untrusted_values(user.get("valves")),
        untrusted_admin_valves=untrusted_values(admin_valves),
    )


def situation_or_error() -> Situation | PolicyError:
    """What holds in this process, or why nothing does; for the valves' descriptions.

    Open WebUI reads these while it loads the plugin, and would show nobody why that failed; so nothing is raised here.
    """
    try:
        return Session(os.environ, _unsaid).situation()
    except PolicyError as error:
        return error
    except Exception as defect:
        logging.getLogger(LOGGER_NAME).exception("the policy could not be read for a defect of sandbox-lockdown")
        internal = _internal_error(defect)
        problem = Problem(key=internal.key, origin=internal.origin, reason=internal.reason, remedy=internal.remedy)
        return PolicyError((problem,))


async def _told_refusal(emit: Emit | None, refusal: PolicyError | SandboxError) -> PluginEnd:
    await _emit_status(emit, "error", refusal_sentence(refusal), done=True)
    return refusal


def _internal_error(defect: Exception) -> SandboxError:
    """A defect of ours in words; its particulars are for the server's log."""
    return SandboxError(
        key="sandbox-lockdown",
        origin="this plugin",
        reason=f"it failed with an internal error ({type(defect).__name__})",
        remedy="Ask the administrator to look into the server's log, and to report it",
    )


def _unsaid(_warning: str) -> None:
    """Descriptions need no warnings; the session that runs code says them once."""


async def _emit_status(emit: Emit | None, status: str, description: str, *, done: bool) -> None:
    """Tell people; where they cannot be told, the run goes on, and its result is not lost."""
    if emit is None:
        return
    try:
        await emit({"type": "status", "data": {"status": status, "description": description, "done": done}})
    except Exception:
        logging.getLogger(LOGGER_NAME).exception("a status could not be shown")


# ======== plugins/self_test.py ========================================================================================
# Runs a plugin file as a script, so that an administrator sees on the spot whether this host can run code in gVisor.
#
# Exit codes: 0 the code ran and succeeded; 1 it did not, or was refused; 2 wrong usage.


SAMPLE_CODE = {
    "python": "import datetime, subprocess\n"
    'print("Hello from the sandbox!")\n'
    'print(f"Current date and time: {datetime.datetime.now()}")\n'
    'print(subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout)\n',
    "bash": 'echo "Hello from the sandbox!"\necho "Current date and time: $(date)"\ndmesg\n',
}


def self_test(arguments: Sequence[str]) -> int:
    """Run the sample, or code from standard input, printing each event and then one line of JSON."""
    parser = argparse.ArgumentParser(
        description="Run code in a gVisor sandbox as Open WebUI would, to see whether this host can.",
        allow_abbrev=False,
        epilog="Examples: run_code.py --use-sample-code; echo 'print(6 * 7)' | run_code.py",
    )
    parser.add_argument("--use-sample-code", action="store_true", help="run a sample instead of standard input")
    parser.add_argument("--language", choices=sorted(LANGUAGE_NAMES), default="python", help="default: python")
    parser.add_argument("--debug", action="store_true", help="show internals; counts as the administrator's valve")
    options = parser.parse_args(arguments)
    admin_valves: dict[str, object] = {"DEBUG": True} if options.debug else {}
    if options.use_sample_code:
        # The sample is our own code, so it may run where limits cannot be enforced, and says which those are.
        admin_valves["REQUIRE_RESOURCE_LIMITING"] = False
        code = SAMPLE_CODE[options.language]
    else:
        code = sys.stdin.buffer.read(MAX_CODE_BYTES + 1).decode(errors="replace")
    order = RunOrder(
        language=options.language,
        code=code,
        person="self-test",
        requester=UNDETERMINED,
        untrusted_person_valves={},
        untrusted_admin_valves=admin_valves,
    )
    return asyncio.run(_tested(order))


async def _tested(order: RunOrder) -> int:
    host = PluginHost(os.environ)
    try:
        end = await host.run(order, _print_event)
    finally:
        await host.close()
    sys.stdout.write(json_text(end_json(end)) + "\n")
    return 0 if isinstance(end, RunResult) and end.outcome is Outcome.OK else 1


async def _print_event(event: dict[str, Any]) -> None:
    sys.stdout.write(f"Event: {event}\n")
    sys.stdout.flush()


# ======== plugins/tool.py =============================================================================================


class Tools:
    """What a language model can call."""

    Valves, UserValves = valves_models(situation_or_error())

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._host = PluginHost(os.environ, keeps_boxes=True)

    async def run_python_code(
        self,
        python_code: str,
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
    ) -> str:
        """
        Run Python code in a sandbox, and return what it prints. Use this to compute, to test code, and to process data.
        The sandbox is new for each call and keeps nothing. There is the standard library, and what an
        administrator added; nothing can be installed. Print what matters.

        :param python_code: The Python program to run.
        """
        model = answering_model(__metadata__, __model__)
        order = run_order("python", python_code, self.valves, __user__, surface=TOOL_SURFACE, model=model)
        return await self._run(order, __event_emitter__)

    async def run_bash_command(
        self,
        bash_command: str,
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
    ) -> str:
        """
        Run a Bash command or script in a sandbox, and return what it prints.
        The sandbox is new for each call and keeps nothing. The usual small commands are there.

        :param bash_command: The Bash command or script to run.
        """
        model = answering_model(__metadata__, __model__)
        order = run_order("bash", bash_command, self.valves, __user__, surface=TOOL_SURFACE, model=model)
        return await self._run(order, __event_emitter__)

    async def _run(self, order: RunOrder, emit: Callable[[dict[str, Any]], Awaitable[Any]] | None) -> str:
        return json_text(end_json(await self._host.run(order, emit)))


if __name__ == "__main__":
    sys.exit(self_test(sys.argv[1:]))
