"""`policy verify`: did enough of the given keys sign this file?"""

import json
from pathlib import Path

import click

from policy.command_line import READABLE_FILE, say
from policy.document import parse_document
from policy.dsse import POLICY_OR_ENVELOPE_FILE, as_policy_file, looks_like_envelope
from policy.keys import parse_public_pem
from policy.signature_block import unsigned_source
from policy.signatures import verify_signatures
from policy.trusted_files import read_public_key_files, read_trusted


@click.command("verify")
@click.option(
    "--key", "key_paths", type=READABLE_FILE, multiple=True, required=True, help="Public key; may be repeated."
)
@click.option(
    "--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="How many keys must have signed."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("file", type=READABLE_FILE)
def verify_command(key_paths: tuple[Path, ...], threshold: int, as_json: bool, file: Path) -> None:
    """Check that enough of the given keys signed FILE, and that it is a valid policy.

    FILE is a signed policy file, or the DSSE envelope that `policy export` makes of one. Dates and audience are for
    the instance that loads it; this command does not judge them.

    \b
    Examples:
      policy verify --key ops.pub prod.toml
      policy verify --key ops.pub --key security.pub --threshold 2 prod.toml
    """
    keys = parse_public_pem({name: data for path in key_paths for name, data in read_public_key_files(path).items()})
    given = read_trusted(file, POLICY_OR_ENVELOPE_FILE)
    origin = f"{file} (payload)" if looks_like_envelope(given) else str(file)
    untrusted = as_policy_file(given, origin=str(file))
    verified = verify_signatures(untrusted, keys, threshold=threshold, origin=origin)
    document = parse_document(unsigned_source(origin, untrusted))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "file": str(file),
                    "id": document.policy_id,
                    "serial": document.serial,
                    "payload_sha256": verified.payload_sha256,
                    "trusted": list(verified.trusted),
                    "unknown": list(verified.unknown),
                    "threshold": threshold,
                },
                indent=2,
            )
        )
        return
    signed = f"{len(verified.trusted)} of {len(keys)} keys given, {threshold} needed"
    say(f"{file}: {document.policy_id}, serial {document.serial}: signed ({signed}).")
    for key_id in verified.trusted:
        say(f"  {key_id}")
    for key_id in verified.unknown:
        say(f"  {key_id}: not among the keys given; not checked and not counted")
