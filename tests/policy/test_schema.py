"""The JSON Schema of a policy file: published as generated, valid itself, and of one mind with the table of limits."""

import json
import tomllib
from datetime import datetime
from importlib.resources import files

from jsonschema import Draft202012Validator

from policy.document import parse_document
from policy.limits import LIMITS
from policy.schema import document_schema, schema_text
from policy.shape_errors import shape_errors
from tests.policy.factories import source_of

DESIGNED_EXAMPLE = """\
schema = 1
id = "acme-prod"                  # [a-z0-9-]{1,64}, never used as a file name
serial = 7                        # 1 ... 2^53-1
issued_at = 2026-11-01T00:00:00Z  # every date carries an offset
expires_at = 2027-02-01T00:00:00Z
audience = ["prod-eu"]            # against SANDBOX_INSTANCE; "*" = any

[limits]
networking_allowed = false
[limits.max_runtime_seconds]
default = 30
ceiling = 60
reason = "shared host"            # shown to people
env_may_loosen = false            # built-in true
[[scope]]                         # scopes only tighten
match.groups = ["students"]       # roles, groups, users (by id), models, surface = tool | function
limits.max_runtime_seconds.ceiling = 10
[[scope]]
except.groups = ["staff"]         # everybody but these
limits.networking_allowed.ceiling = false
"""


def test_published_schema_is_the_generated_one_byte_for_byte() -> None:
    published = files("policy").joinpath("policy.schema.json").read_bytes()
    assert published == schema_text().encode()


def test_published_schema_is_a_valid_2020_12_schema() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


def test_designed_example_is_accepted() -> None:
    assert list(shape_errors(tomllib.loads(DESIGNED_EXAMPLE), document_schema())) == []
    assert len(parse_document(source_of(DESIGNED_EXAMPLE)).scopes) == 2


def test_designed_example_is_accepted_by_any_validator_that_reads_the_published_schema() -> None:
    image = json.loads(json.dumps(tomllib.loads(DESIGNED_EXAMPLE), default=datetime.isoformat))
    Draft202012Validator(json.loads(schema_text())).validate(image)


def test_every_limit_is_in_the_schema_and_nothing_else() -> None:
    assert list(document_schema()["properties"]["limits"]["properties"]) == [limit.name for limit in LIMITS]
