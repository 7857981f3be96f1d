"""`policy schema`: the published JSON Schema."""

from pathlib import Path

from tests.policy.commands.conftest import Command


def test_schema_is_the_published_one(policy: Command) -> None:
    assert policy.good("schema") == (Path(__file__).parents[3] / "policy/policy.schema.json").read_text()
