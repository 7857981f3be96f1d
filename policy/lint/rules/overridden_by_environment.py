"""SBP117: a statement that a variable makes pointless."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.idle import is_idle_beside, said_words
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PlacedStatement, PolicyFile, Setup
from policy.statements import Stated, Verb


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    environment = setup.environment
    if environment is None or environment.layer is None:
        return
    said: dict[str, list[Stated]] = {}
    for stated in environment.layer.statements:
        said.setdefault(stated.limit.name, []).append(stated)
    for placed in file.statements if said else ():
        for stated in said.get(placed.stated.limit.name, ()):
            if _overrides(stated, placed) and not _agree(stated, placed):
                yield _found(placed, stated, environment)
                break


def _overrides(variable: Stated, placed: PlacedStatement) -> bool:
    """Whether a statement changes nothing beside a variable; what no variable may loosen has a use of its own."""
    match variable.verb:
        case Verb.LOCK:
            return placed.verb is Verb.DEFAULT or placed.stated.environment_may_loosen
        case Verb.DEFAULT:
            return placed.verb is Verb.DEFAULT
        case _:
            return is_idle_beside(placed.limit, placed.stated, variable, scoped=placed.scope is not None)


def _agree(variable: Stated, placed: PlacedStatement) -> bool:
    """Whether both say the same, so that nobody who reads one of them is misled."""
    alike = variable.verb is placed.verb or Verb.DEFAULT not in (variable.verb, placed.verb)
    return alike and variable.value == placed.value


def _found(placed: PlacedStatement, variable: Stated, environment: EnvironmentSubject) -> Found:
    limit, name = placed.limit, variable.origin.place
    there = environment.location(name)
    where = f"{there.file}:{there.line}" if environment.text else there.file
    why = {
        Verb.LOCK: f"locks the limit to {limit.words(variable.value)}",
        Verb.CEILING: f"permits no more than {limit.words(variable.value)}",
    }.get(variable.verb, "comes before every policy's default")
    return Found(
        path=placed.path,
        message=f"{said_words(limit, placed.stated)} of {limit.name} has no effect: {name} ({where}) {why}",
        remedy=(
            "Remove one of the two"
            if placed.verb is Verb.DEFAULT
            else "Remove one of the two, or state env_may_loosen = false if the policy is to bound the variable"
        ),
        related=(there,),
    )


RULE = DocumentRule(
    id="SBP117",
    name="overridden-by-environment",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="A variable makes a statement of a policy pointless.",
    rationale=(
        "The environment comes before policy files: its lock decides alone, unless a file says `env_may_loosen = "
        "false`; its default comes before theirs; beside its ceiling a looser one bounds nothing. Whoever reads or "
        "changes the file then believes in a value that nobody gets. Where both say the same, nobody is misled, and "
        "nothing is found; nor are bounds that the environment may not loosen: they are there for variables to come."
    ),
    bad=Example(policy="[limits.max_ram_megabytes]\nceiling = 512\n", environment="SANDBOX_MAX_RAM_MEGABYTES=1024\n"),
    good=Example(
        policy="[limits.max_ram_megabytes]\nceiling = 512\nenv_may_loosen = false\n",
        environment="SANDBOX_MAX_RAM_MEGABYTES=1024\n",
    ),
    check=_check,
)
