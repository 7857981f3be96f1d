"""`policy schema`: print the JSON Schema of a policy file."""

import click

from policy.schema import schema_text


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a policy file, for editors and reviewers.

    \b
    Example:
      policy schema > policy.schema.json
    """
    click.echo(schema_text(), nl=False)
