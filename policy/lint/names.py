"""The names that a policy gives to people, models and instances, and where each stands."""

from collections.abc import Iterator

from policy.lint.subjects import PolicyFile
from policy.positions import KeyPath


def instance_names(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every instance that a valid policy is for."""
    yield from ((("audience", number), name) for number, name in enumerate(file.document.audience))


def scope_names(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every role, group, user and model that the scopes of a valid policy name, as it is spelled."""
    for number, scope in enumerate(file.untrusted_table.get("scope", ())):
        for side in ("match", "except"):
            for attribute, names in scope.get(side, {}).items():
                if isinstance(names, list):  # and no surface, which is a word of ours
                    yield from ((("scope", number, side, attribute, place), name) for place, name in enumerate(names))
