"""`policy keygen`: make a key pair."""

import json
from pathlib import Path

import click

from policy.command_line import say
from policy.keys import generate_key, private_pem, public_pem
from policy.trusted_files import write_new_files

KEY_MODE, PUBLIC_MODE = 0o600, 0o644


@click.command("keygen")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("name", type=click.Path(path_type=Path))
def keygen_command(name: Path, *, as_json: bool) -> None:
    """Make a key pair: NAME.key (keep it secret) and NAME.pub (hand it out).

    \b
    Example:
      policy keygen ops
    """
    if not name.name or name.name == "..":
        raise click.BadParameter("a name is wanted, such as ops", param_hint="'NAME'")
    key = generate_key()
    private, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    write_new_files([(private, private_pem(key), KEY_MODE), (public, public_pem(key.public), PUBLIC_MODE)])
    if as_json:
        told = {"private_key": str(private), "public_key": str(public), "key_id": key.public.key_id}
        click.echo(json.dumps(told, indent=2))
        return
    say(f"Wrote {private} (secret; sign with it) and {public} (public; verify with it).")
    say(f"Key id: {key.public.key_id}")
