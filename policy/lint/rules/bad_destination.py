"""SBP014: an item of the allow-list that names no destination."""

import tomllib
from dataclasses import replace

from policy.destinations import Domain, HostName, parse_destination
from policy.errors import Flaw
from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible
from policy.lint.spans import value_span
from policy.lint.subjects import PolicyFile


def _fixed(file: PolicyFile, found: Found) -> Found:
    positions = file.located
    span = value_span(file.text, positions, found.path) if positions else None
    if span is None:
        return found
    spelling = file.text[span.start : span.end]
    lowered = spelling.lower()
    if "\\" in spelling or not _is_host_name(lowered):
        return found
    edit = Edit(start=span.start, end=span.end, text=lowered)
    return replace(found, fix=Fix(description=f"Write {lowered} in lower case", edits=(edit,)))


def _is_host_name(spelling: str) -> bool:
    """Whether a TOML value is a host name or `*.domain`; `public` is neither, and is looser than any."""
    try:
        destination = parse_destination(str(tomllib.loads(f"item = {spelling}")["item"]))
    except ValueError:
        return False
    return isinstance(destination.reach, HostName | Domain)


RULE = FlawRule(
    id="SBP014",
    name=Flaw.BAD_DESTINATION.value,
    flaw=Flaw.BAD_DESTINATION,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="An item of `network_allowlist` is no destination.",
    rationale=(
        "An item is `public`, a host name, `*.domain`, an address or a CIDR, with or without a port, in one "
        "spelling: another one would never match, or match more than it shows. A server refuses the file."
    ),
    bad=Example(policy='[limits]\nnetwork_allowlist = ["Pypi.org:443"]\n'),
    good=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443"]\n'),
    fix="Writes a host name in lower case.",
    suppressible=Suppressible.NEVER,
    fixed=_fixed,
)
