"""What `policy.lint.openings` says of bounds, held against what the resolver makes of the same statements."""

from itertools import product
from pathlib import Path

import pytest

from policy.destinations import parse_destination
from policy.document import PolicyDocument
from policy.limits import AUTO_INSTALL, DEBUG, NETWORKING_ALLOWED, REQUIRE_RESOURCE_LIMITING, Limit
from policy.lint.environments import environment_of_text
from policy.lint.files import FileResult, judged, policy_file
from policy.lint.openings import is_closed, policy_is_unknown, why_wide
from policy.lint.run import policy_sets
from policy.lint.subjects import EnvironmentSubject, PolicyFile, Setup
from policy.resolve import Layers, resolve
from tests.policy.lint.linting import NOW, written

WORDS = ("true", "false")
VERBS = ("lock", "ceiling", "default")
SWITCHES = (NETWORKING_ALLOWED, AUTO_INSTALL, REQUIRE_RESOURCE_LIMITING, DEBUG)


def environments(limit: Limit[bool]) -> list[EnvironmentSubject]:
    suffixes = {"lock": "", "ceiling": "__CEILING", "default": "__DEFAULT"}
    lines = [f"{limit.variable}{suffixes[verb]}={word}" for verb, word in product(VERBS, WORDS)]
    return [environment_of_text("prod.env", f"{line}\n".encode()) for line in ("", *lines)]


def files(limit: Limit[bool], policy_id: str) -> list[PolicyFile]:
    bounds = [f"{verb} = {word}\n" for verb, word in product(VERBS, WORDS)]
    firm = [f"{bound}env_may_loosen = false\n" for bound in bounds if not bound.startswith("default")]
    texts = ["max_cpus = 1\n", *(f"[limits.{limit.name}]\n{said}" for said in (*bounds, *firm))]
    fragments = [text if text.startswith("[") else f"[limits]\n{text}" for text in texts]
    return [
        policy_file(f"{policy_id}.toml", Path(f"{policy_id}.toml"), written(text, id=f'"{policy_id}"').encode())
        for text in fragments
    ]


def loosest_value(limit: Limit[bool], environment: EnvironmentSubject, documents: tuple[PolicyDocument, ...]) -> bool:
    """What anybody can get, with every valve wide open."""
    assert environment.layer is not None
    valves = {limit.valve: not limit.kind.strictest}
    layers = Layers(
        environment=environment.layer.statements,
        documents=documents,
        untrusted_person_valves=valves,
        untrusted_admin_valves=valves,
    )
    return resolve(layers)[limit]


@pytest.mark.parametrize("limit", SWITCHES, ids=lambda limit: limit.name)
def test_a_switch_is_closed_where_no_valve_opens_it(limit: Limit[bool]) -> None:
    sets = product(judged_files(limit, "one"), judged_files(limit, "other"))
    disagreements = [
        (environment.text, one[0].text, other[0].text)
        for (one, other), environment in product(sets, environments(limit))
        if is_closed(limit, policy_sets((one[1], other[1])), environment)
        != (loosest_value(limit, environment, (one[0].document, other[0].document)) == limit.kind.strictest)
    ]

    assert not disagreements


def judged_files(limit: Limit[bool], policy_id: str) -> list[tuple[PolicyFile, FileResult]]:
    return [(file, judged(file, Setup(now=NOW))) for file in files(limit, policy_id)]


def test_policies_are_unknown_only_where_a_path_names_some_and_none_was_given() -> None:
    loading = environment_of_text("prod.env", b"SANDBOX_POLICY_PATH=/etc/policies\n")
    plain = environment_of_text("prod.env", b"SANDBOX_DEBUG=false\n")
    sets = policy_sets(result for _, result in judged_files(DEBUG, "one"))

    assert policy_is_unknown(loading, ())
    assert not policy_is_unknown(loading, sets)
    assert not policy_is_unknown(plain, ())


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("*.com", "anybody can get a name below com"),
        ("*.amazonaws.com:443", "anybody can get a name below s3.amazonaws.com"),
        ("0.0.0.0/0", "it holds 2^32 addresses, of everybody"),
        ("2000::/3", "it holds 2^125 addresses, of everybody"),
        ("public", ""),
    ],
)
def test_why_an_item_is_wide(item: str, words: str) -> None:
    assert why_wide(parse_destination(item)) == words
