"""`policy schema`: print the JSON Schema of a policy file."""

import click

from policy.schema import schema_text


@click.command("schema")
@click.option("--json", is_flag=True, expose_value=False, help="The schema is JSON in any case.")
def schema_command() -> None:
    """Print the JSON Schema of a policy file, for editors and reviewers.

    \b
    Example:
      policy schema > policy.schema.json
    """
    click.echo(schema_text(), nl=False)
