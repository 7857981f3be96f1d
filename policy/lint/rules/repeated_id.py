"""SBP107: two files of a set with one id."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import FileFacts, PolicySet, Setup


def _check(policy_set: PolicySet, _setup: Setup) -> Iterator[Found]:
    first: dict[str, FileFacts] = {}
    for file in policy_set.files:
        other = first.setdefault(file.policy_id, file)
        if other is not file:
            yield Found(
                message=f"the id {file.policy_id} is that of {other.name} too",
                remedy="Give one of the two files another id, or remove the one that is out of date",
                location=file.id_place.location,
                related=(other.id_place.location,),
            )


RULE = SetRule(
    id="SBP107",
    name="repeated-id",
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="Two files of one folder have the same id.",
    rationale=(
        "Serials are counted by id, so nobody could tell which of the two is newer; usually one is a copy that was "
        "forgotten. A server refuses the whole set."
    ),
    bad=Example(
        policy='id = "acme-prod"\n[limits]\nnetworking_allowed = false\n',
        other='id = "acme-prod"\n[limits]\nmax_cpus = 1\n',
    ),
    good=Example(
        policy='id = "acme-prod"\n[limits]\nnetworking_allowed = false\n',
        other='id = "acme-prod-cpus"\n[limits]\nmax_cpus = 1\n',
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
