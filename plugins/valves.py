"""The valves of both plugins, derived from the table of limits.

Open WebUI reads a valve model's JSON Schema for its form, and rebuilds the model out of stored values at each call.
So the schema advertises plain types, and the model accepts whatever is stored: a value that is no good is dealt with
when limits are resolved, with a notice, and never breaks a chat. Each description says what is locked, by whom and
why.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema, create_model

from policy.errors import PolicyError
from policy.limits import LIMITS, Chooser, Limit
from policy.situation import Situation
from policy.statements import Verb
from policy.values import Switch, Thousandths, Whole


def valves_models(situation: Situation | PolicyError) -> tuple[type[BaseModel], type[BaseModel]]:
    """The plugin's valves and a person's own, as Open WebUI wants them on a plugin."""
    return admin_valves_model(situation), person_valves_model(situation)


def admin_valves_model(situation: Situation | PolicyError) -> type[BaseModel]:
    """The plugin's valves, which administrators set: every limit."""
    return _valves_model("Valves", LIMITS, situation, for_person=False)


def person_valves_model(situation: Situation | PolicyError) -> type[BaseModel]:
    """A person's own valves: the limits that the table leaves to people."""
    own = tuple(limit for limit in LIMITS if limit.chosen_by is Chooser.PERSON)
    return _valves_model("UserValves", own, situation, for_person=True)


def untrusted_values(valves: object) -> Mapping[str, object]:
    """What a set of valves holds, in whatever form Open WebUI hands it over."""
    if isinstance(valves, BaseModel):
        return dict(valves)
    return dict(valves) if isinstance(valves, Mapping) else {}


def _valves_model(
    name: str, limits: tuple[Limit[Any], ...], situation: Situation | PolicyError, *, for_person: bool
) -> type[BaseModel]:
    fields: dict[str, Any] = {
        limit.valve: (
            Annotated[Any, WithJsonSchema({"type": _plain_type(limit)})],
            Field(default=None, description=_description(limit, situation, for_person=for_person)),
        )
        for limit in limits
    }
    return create_model(name, **fields)


def _plain_type(limit: Limit[Any]) -> str:
    match limit.kind:
        case Switch():
            return "boolean"
        case Whole():
            return "integer"
        case Thousandths():
            return "number"
        case _:
            return "string"


def _description(limit: Limit[Any], situation: Situation | PolicyError, *, for_person: bool) -> str:
    """What the valve is, what it may be set to, and who said so."""
    what = f"{limit.description}. Expected: {limit.kind.grammar}. Unset: {limit.words(limit.built_in)}."
    warning = " **Warning: this opens your LAN and metadata services to code.**" if _opens_lan(limit) else ""
    if isinstance(situation, PolicyError):
        return f"{what}{warning} **No code runs at present: {situation.problems[0]}**"
    some = _less_for_some(limit, situation)
    aside = f" **{situation.stand_in.sentence}**" if situation.stand_in is not None else ""
    return f"{what}{warning} {_standing(limit, situation, for_person=for_person)}{some}{aside}"


def _opens_lan(limit: Limit[Any]) -> bool:
    return limit.name == "network_private_allowed"


def _standing(limit: Limit[Any], situation: Situation, *, for_person: bool) -> str:
    """How far this valve reaches here for those of whom no scope speaks."""
    documents = (stated for document in situation.documents for stated in document.statements)
    said = [stated for stated in (*situation.environment.statements, *documents) if stated.limit is limit]
    if any(stated.verb is Verb.LOCK for stated in said):
        # By a ceiling, where one is stricter than the lock.
        decision = _without_scopes(situation).limits().decisions[limit.name]
        origin = decision.decided_by
        why = f" ({origin.reason})" if origin.reason else ""
        return f"**Locked to {limit.words(decision.value)} by {origin}{why}: this valve changes nothing.**"
    ceilings = [stated for stated in said if stated.verb is Verb.CEILING]
    if ceilings:
        bound = reduce(limit.kind.meet, (stated.value for stated in ceilings))
        decider = next((stated for stated in ceilings if stated.value == bound), ceilings[0])
        why = f" ({decider.origin.reason})" if decider.origin.reason else ""
        return f"No looser than {limit.words(bound)}, by {decider.origin}{why}."
    if for_person:
        return f"No looser than what the administrator's valve says, or else {limit.words(limit.built_in)}."
    return "Nothing constrains this valve here."


def _without_scopes(situation: Situation) -> Situation:
    """What holds for everybody: a form is read by people of whom some scope speaks, and by others."""
    return replace(situation, documents=tuple(replace(document, scopes=()) for document in situation.documents))


def _less_for_some(limit: Limit[Any], situation: Situation) -> str:
    """A sentence that names the policies whose scopes are stricter about this limit, where there are any."""
    said_here = situation.environment.statements
    by_environment = any(stated.limit is limit and stated.verb is Verb.LOCK for stated in said_here)
    scoped = (
        (document.policy_id, stated)
        for document in situation.documents
        for scope in document.scopes
        for stated in scope.statements
    )
    policies = sorted(
        {
            policy_id
            for policy_id, stated in scoped
            # A default makes nothing stricter, and of an environment's lock only a firm policy takes anything away.
            if stated.limit is limit
            and stated.verb is not Verb.DEFAULT
            and not (by_environment and stated.environment_may_loosen)
        }
    )
    return f" A policy may hold some people to less ({', '.join(policies)})." if policies else ""
