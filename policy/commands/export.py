"""`policy export`: a signed policy file in a format that other tools read."""

from pathlib import Path

import click

from policy.command_line import READABLE_FILE, say
from policy.dsse import dsse_envelope
from policy.trusted_files import SIGNED_POLICY_FILE, read_trusted, write_new_file

ENVELOPE_MODE = 0o644


@click.command("export")
@click.option("--dsse", is_flag=True, help="As a DSSE v1 envelope, which is JSON. Required: the one format there is.")
@click.option("--output", type=click.Path(path_type=Path), help="A new file to write to, in place of standard output.")
@click.argument("file", type=READABLE_FILE)
def export_command(*, dsse: bool, output: Path | None, file: Path) -> None:
    """Write the signed policy FILE, its text and its signatures, in a format that other tools read.

    Nothing is verified here: `policy verify` does that, of the file and of the envelope alike.

    \b
    Examples:
      policy export --dsse prod.toml
      policy export --dsse --output prod.dsse.json prod.toml
    """
    if not dsse:
        raise click.UsageError("In which format? --dsse is the one there is.")
    envelope = dsse_envelope(read_trusted(file, SIGNED_POLICY_FILE), origin=str(file))
    if output is None:
        click.echo(envelope.decode("ascii"), nl=False)
        return
    write_new_file(output, envelope, ENVELOPE_MODE)
    say(f"Wrote {output}, a DSSE envelope of {file}.")
