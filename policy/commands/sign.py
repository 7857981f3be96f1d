"""`policy sign`: add a signature to a policy file."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from policy.command_line import READABLE_FILE, say
from policy.document import parse_document
from policy.errors import PolicyError
from policy.keys import load_private_key
from policy.lint.run import errors_in
from policy.signature_block import split_signatures, unsigned_source
from policy.signatures import add_signature
from policy.trusted_files import PRIVATE_KEY_FILE, SIGNED_POLICY_FILE, read_trusted, replace_file


@click.command("sign")
@click.option("--key", "key_path", type=READABLE_FILE, required=True, help="Private key, as `policy keygen` writes it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("file", type=READABLE_FILE)
def sign_command(key_path: Path, file: Path, *, as_json: bool) -> None:
    """Add a signature to FILE in place; its text stays as it is, byte for byte.

    A file that is not a valid policy, or in which `policy lint` finds an error, is not signed.

    \b
    Example:
      policy sign --key ops.key prod.toml
    """
    if key_path.suffix == ".pub":  # whose mode would be refused first, with a remedy that leads nowhere
        raise click.BadParameter(f"{key_path} is a public key; sign with the private one, NAME.key", param_hint="--key")
    key = load_private_key(read_trusted(key_path, PRIVATE_KEY_FILE), str(key_path))
    untrusted = read_trusted(file, SIGNED_POLICY_FILE)
    document = parse_document(unsigned_source(str(file), untrusted))
    errors = errors_in(str(file), untrusted, datetime.now(UTC))
    if errors:
        raise PolicyError(errors)
    signed = add_signature(untrusted, key, origin=str(file))
    replace_file(file, signed)
    if as_json:
        told = {
            "file": str(file),
            "id": document.policy_id,
            "serial": document.serial,
            "payload_sha256": document.payload_sha256,
            "key_id": key.public.key_id,
            "signed_by": [signature.key_id for signature in split_signatures(signed, origin=str(file)).signatures],
        }
        click.echo(json.dumps(told, indent=2))
        return
    say(f"Signed {file} ({document.policy_id}, serial {document.serial}) with {key.public.key_id}.")
