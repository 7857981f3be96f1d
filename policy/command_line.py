"""What both commands do alike at their edge."""

from collections.abc import Sequence

import click

from policy.limits import LIMITS


def parsed_valves(texts: Sequence[str]) -> dict[str, object]:
    """Valves given as NAME=VALUE, by name; their values are read when limits are resolved.

    Raises:
        click.BadParameter: one is not of that form, or names no limit.
    """
    known = {limit.valve for limit in LIMITS}
    valves: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE, where NAME is one of {', '.join(sorted(known))}")
        valves[name] = value
    return valves


def unstyled(text: str) -> str:
    """Text that rich shows as it is, whatever brackets are in it."""
    return text.replace("[", "\\[")
