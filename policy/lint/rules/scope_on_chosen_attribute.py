"""SBP209: a scope that people can leave by choosing."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup
from policy.requester import FUNCTION_SURFACE, TOOL_SURFACE

_CHOSEN = ("models", "surface")
_THROUGH = {TOOL_SURFACE: "the tool", FUNCTION_SURFACE: "the button"}


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for number, scope in enumerate(file.document.scopes):
        conditions = scope.conditions
        for side, named in (("match", conditions.match), ("except", conditions.excepted)):
            for attribute in _CHOSEN:
                if attribute in named:
                    yield Found(
                        path=("scope", number, side, attribute),
                        message=(
                            f"whom the scope holds goes by {attribute}, which the person chooses: "
                            f"whoever {_escape(side, attribute, named[attribute])} is not held to it"
                        ),
                        remedy="Go by roles, groups or users, or state the limit for everybody",
                    )


def _escape(side: str, attribute: str, values: frozenset[str]) -> str:
    """What people do to get out of the scope."""
    if attribute == "models":
        return "picks another model" if side == "match" else "picks one of these models"
    out = [words for surface, words in _THROUGH.items() if (surface in values) == (side == "except")]
    return f"goes through {' or '.join(out)}"


RULE = DocumentRule(
    id="SBP209",
    name="scope-on-chosen-attribute",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    summary="A scope goes by the model or the surface, which the person chooses.",
    rationale=(
        "A scope holds people to something stricter. One that goes by the model ends where somebody picks another "
        "model, and who may make models in their workspace gives them the ids; one that goes by the surface ends where "
        "they press the button instead. That can be meant, for code that a model runs unread; then say so in a comment "
        "that takes the finding out."
    ),
    bad=Example(policy='[[scope]]\nmatch.models = ["small-model"]\nlimits.max_runtime_seconds.ceiling = 10\n'),
    good=Example(policy='[[scope]]\nmatch.groups = ["students"]\nlimits.max_runtime_seconds.ceiling = 10\n'),
    check=_check,
)
