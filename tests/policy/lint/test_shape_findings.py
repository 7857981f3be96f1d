"""Whatever is done to a valid policy: it stays one, or an error says where it went wrong, at a place that is there."""

import re
import tomllib
from dataclasses import replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policy.document import read_document
from policy.errors import PolicyError
from policy.limits import LIMITS
from policy.lint.findings import Location, Severity
from policy.lint.subjects import Setup
from policy.positions import KeyPath, Position, locate, path_text
from policy.signature_block import unsigned_source
from tests.policy.factories import policy_sets, written
from tests.policy.lint.linting import NOW, fixed, linted_files

POLICIES = policy_sets(LIMITS[:6], most_files=2, most_scopes=2).flatmap(
    lambda documents: st.sampled_from([written(each) for each in documents if each.statements] or [PLAIN])
)
PLAIN = """\
schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-02-01T00:00:00Z
audience = ["prod-eu", "*"]
requires = ["base"]

[limits]
networking_allowed = false
network_allowlist = ["pypi.org:443", "10.0.0.0/8"]
max_cpus = { default = 0.5, ceiling = 2 }
[limits.max_runtime_seconds]
ceiling = 60
reason = "shared \\u0068ost" # 'for' "all"

[[scope]]
match.groups = ["students"]
limits.max_runtime_seconds.ceiling = 10
[[scope]]
except = { "roles" = ["admin"] }
[scope.limits]
languages = ["python"]
"""
FRAGMENTS = (
    '"60"', "'false'", "nan", "0", "-1", "true", "99999999999999999999", "[]", "{}", "{ lock = 1 }", '""',
    '"unlimited"', "2026-11-01", "2026-11-01T00:00:00", '["a", "a"]', '["Example.com"]', '["10.0.0.1/8"]',
    '"\\u202e"', "\u0430", "\u200b", "#", "=", "[", "]", '"', "'", '"""', ",", ".", "\n", "\r\n", "\ufeff", "\0",
    "max_cpus", "[limits]", "[[scope]]", "[rollout]", "\ncolour = 1\n", "\x1b",
    "# -----BEGIN POLICY SIGNATURES-----",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid policy after a few small changes, of lines and of characters."""
    swaps = st.sampled_from([("a", "\u0430"), ("_", "-"), ('"', ""), ("s", "S")])
    text = draw(st.just(PLAIN) | POLICIES)
    for _ in range(draw(st.integers(1, 3))):
        lines = text.split("\n")
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case 2:
                key, sign, _ = lines[at].partition("=")
                lines[at] = f"{key}{sign}{draw(st.sampled_from(FRAGMENTS))}"
            case 3:
                lines[at] = lines[at].replace(*draw(swaps))
            case 4:
                cut = draw(st.integers(0, len(lines[at])))
                lines[at] = f"{lines[at][:cut]}{draw(st.sampled_from(FRAGMENTS))}{lines[at][cut:]}"
            case _:
                start = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:start] + lines[at][start + draw(st.integers(1, 5)) :]
        text = "\n".join(lines)
    return text


def is_valid(text: str) -> bool:
    try:
        read_document(unsigned_source("acme.toml", text.encode()))
    except PolicyError:
        return False
    return True


def paths_of(text: str) -> dict[str, KeyPath]:
    """Every key path of a text that can be located, by its spelling in findings."""
    nodes = locate(text).nodes
    above = {node: (parent, key) for (parent, key), node in nodes.items()}
    paths: dict[int, KeyPath] = {0: ()}
    for node, (parent, key) in above.items():
        paths[node] = (*paths[parent], key)
    return {path_text(path): path for path in paths.values()}


def key_at(text: str, where: Location) -> str:
    """The segment of a key that is spelled at a location."""
    rest = text.split("\n")[where.line - 1][where.column - 1 :]
    spelled = re.match(r"[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*'", rest)
    return tomllib.loads(f"{spelled[0]} = 0").popitem()[0] if spelled else ""


def check_place(text: str, where: Location) -> None:
    lines = text.split("\n")
    assert 1 <= where.line <= len(lines)
    assert 1 <= where.column <= len(lines[where.line - 1]) + 1
    assert where.column <= where.end_column
    if not where.key:
        return
    path = paths_of(text)[where.key]
    if isinstance(path[-1], int):
        assert locate(text).find(path) == Position(line=where.line, column=where.column)
    else:
        assert key_at(text, where) == path[-1]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=mutated())
@example(text=PLAIN)
@example(text="")
@example(text=PLAIN.replace("serial = 7", 'serial = 7\n"seri\\u0061l" = 7'))
@example(text=PLAIN.replace("max_cpus = {", "max_cpus = 1\nmax_cpus = {"))
def test_changed_policy_is_valid_or_has_an_error_at_a_place_that_is_there(text: str) -> None:
    found = linted_files({"acme.toml": text}, Setup(now=NOW))

    assert is_valid(text) or any(each.severity is Severity.ERROR for each in found)
    for each in found:
        for where in (each.location, *each.related):
            check_place(text, where)
        assert not each.message.endswith(".")
        assert not each.remedy.endswith(".")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=mutated())
@example(text="\ufeff" + PLAIN.replace("\n", "\r\n"))
@example(text=PLAIN.replace("= 60", "= '60'").replace('"pypi.org:443"', '"Pypi.org:443", "pypi.org:443"'))
def test_fixes_end_and_take_no_valid_policy_away(text: str) -> None:
    mended = fixed(text)

    if is_valid(text):
        before, after = (read_document(unsigned_source("acme.toml", each.encode())).document for each in (text, mended))
        assert replace(after, payload_sha256="", statements=(), scopes=()) == replace(
            before, payload_sha256="", statements=(), scopes=()
        )
        assert [(each.limit, each.verb, each.value) for each in after.statements] == [
            (each.limit, each.verb, each.value) for each in before.statements
        ]
        assert [each.conditions for each in after.scopes] == [each.conditions for each in before.scopes]
    assert fixed(mended) == mended
