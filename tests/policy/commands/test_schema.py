"""`policy schema`: the published JSON Schema."""

from pathlib import Path

from tests.policy.commands.conftest import Command


def test_schema_is_the_published_one(policy: Command) -> None:
    published = (Path(__file__).parents[3] / "policy/policy.schema.json").read_text()
    assert policy.good("schema") == policy.good("schema", "--json") == published
