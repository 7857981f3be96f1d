"""What rules about destinations ask alike: what is no public address, and whether a file closes it, or the network.

Source: RFC 6761 section 6.3 (`localhost`); Google Cloud's documentation of its metadata server.
"""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network

from policy.addresses import words_of_network
from policy.destinations import Domain, HostName, Reach
from policy.limits import NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED
from policy.lint.subjects import EnvironmentSubject
from policy.statements import Verb

_METADATA_NAME = "metadata.google.internal"


def what_else_than_public(reach: Reach) -> str:
    """What an item is, all of which cannot be public; empty where some of it may be."""
    match reach:
        case HostName(name) | Domain(name) if name == "localhost" or name.endswith(".localhost"):
            return "loopback"
        case HostName(name) if name == _METADATA_NAME:
            return "a cloud's metadata service"
        case IPv4Network() | IPv6Network():
            return words_of_network(reach)
        case _:
            return ""


def private_is_closed(said: Collection[bool], environment: EnvironmentSubject | None) -> bool:
    """Whether neither a file nor variables let private destinations in.

    Args:
        said: what the file says of it for everybody, whatever the verb.
        environment: the variables, if there are any to look at.
    """
    if any(said):
        return False
    return environment is None or not _opens(environment, stated=bool(said))


def _opens(environment: EnvironmentSubject, *, stated: bool) -> bool:
    """Whether variables allow private destinations, or may where the file says nothing of them."""
    opening = {verb for verb in Verb if (said := environment.stated(NETWORK_PRIVATE_ALLOWED, verb)) and said.value}
    return Verb.LOCK in opening or (not stated and bool(opening))


def variables_turn_networking_on(environment: EnvironmentSubject | None) -> bool:
    """Whether a variable says that code has a network, past what policies say where they let it."""
    lock = environment.stated(NETWORKING_ALLOWED, Verb.LOCK) if environment else None
    return lock is not None and bool(lock.value)
