"""Reads the `SANDBOX_*` variables: statements about limits, settings, and names too close to ours to be chance.

pydantic-settings reads and types the values; it cannot see names that nobody declared, so the scan for those is ours.
Everything that is wrong is reported at once, and nothing comes out of an environment that has anything wrong in it.

Source: names of other products are those their own documentation publishes (Dify's sandbox, OpenHands).
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from policy.errors import ConfigurationError, Flaw, Problem
from policy.limits import LIMITS, VARIABLE_PREFIX
from policy.settings import FOREIGN_OK, SETTINGS, SettingValues
from policy.statements import Layer, Origin, Stated, Verb

FOREIGN_NAMES = frozenset(
    {
        "SANDBOX_API_KEY",
        "SANDBOX_BASE_CONTAINER_IMAGE",
        "SANDBOX_ENABLE_NETWORK",
        "SANDBOX_HTTPS_PROXY",
        "SANDBOX_HTTP_PROXY",
        "SANDBOX_PORT",
        "SANDBOX_RUNTIME_CONTAINER_IMAGE",
        "SANDBOX_RUNTIME_EXTRA_DEPS",
        "SANDBOX_TIMEOUT",
        "SANDBOX_USER_ID",
        "SANDBOX_VOLUMES",
        "SANDBOX_WORKER_TIMEOUT",
    }
)
"""Variables of other products that share the prefix."""
_NEAR_EDITS = 2
_VERB_SUFFIXES = {Verb.LOCK: "", Verb.CEILING: "__CEILING", Verb.DEFAULT: "__DEFAULT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentLayer:
    """All that the environment says."""

    statements: tuple[Stated, ...]
    """Locks, ceilings and defaults, in the table's order."""
    settings: SettingValues
    """The settings."""
    warnings: tuple[str, ...]
    """Variables with our prefix that are not ours, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """One variable that is ours."""

    name: str
    parse: Callable[[str], Any]
    grammar: str


class _EnvironSource(PydanticBaseSettingsSource):
    """Hands pydantic-settings the variables of one given environment, by their exact names."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of one variable, as it stands."""
        return self._environ.get(field.alias or field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All declared variables that are set."""
        aliases = [field.alias or name for name, field in self.settings_cls.model_fields.items()]
        return {alias: self._environ[alias] for alias in aliases if alias in self._environ}


def read_environment(environ: Mapping[str, str]) -> EnvironmentLayer:
    """Read everything that is ours out of an environment.

    Raises:
        ConfigurationError: a variable of ours is malformed, empty or contradicts another, or a name is too close to one
            of ours; every problem is listed.
    """
    variables = {variable.name: variable for variable in _our_variables()}
    values, problems = _read_values(environ, variables)
    statements = tuple(_statements(values))
    settings = SettingValues(
        {setting.name: values[setting.variable] for setting in SETTINGS if setting.variable in values}
    )
    near, warnings = _scan_names(environ, variables, settings[FOREIGN_OK])
    problems = (*problems, *near, *_contradictions(statements))
    if problems:
        raise ConfigurationError(problems)
    return EnvironmentLayer(statements=statements, settings=settings, warnings=warnings)


def _our_variables() -> Iterator[_Variable]:
    for limit in LIMITS:
        for suffix in _VERB_SUFFIXES.values():
            yield _Variable(name=f"{limit.variable}{suffix}", parse=limit.kind.parse, grammar=limit.kind.grammar)
    for setting in SETTINGS:
        yield _Variable(name=setting.variable, parse=setting.parse, grammar=setting.grammar)


def _read_values(
    environ: Mapping[str, str], variables: Mapping[str, _Variable]
) -> tuple[Mapping[str, Any], tuple[Problem, ...]]:
    """Every readable value by variable, and a problem for each that is not."""
    try:
        model = _typed_variables(environ, variables)
    except ValidationError as error:
        bad = {str(item["loc"][0]): str(item["ctx"]["error"]) for item in error.errors()}
        malformed = tuple(_malformed(variables[name], environ[name], reason) for name, reason in bad.items())
        rest = {name: text for name, text in environ.items() if name not in bad}
        values, _ = _read_values(rest, variables)
        return values, malformed
    return {name: getattr(model, name) for name in variables if name in environ}, ()


def _typed_variables(environ: Mapping[str, str], variables: Mapping[str, _Variable]) -> BaseSettings:
    """One pydantic-settings model with a field for each variable, filled from the given environment alone."""

    class _Declared(BaseSettings):
        """The variables that are ours."""

        model_config = SettingsConfigDict(extra="forbid", frozen=True, case_sensitive=True, validate_default=False)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic-settings fixes this signature
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """No source but ours: no .env file, no secrets folder, no process environment."""
            return (_EnvironSource(settings_cls, environ),)

    fields: dict[str, Any] = {
        name: (Annotated[Any, BeforeValidator(variable.parse)], Field(default=None, alias=name))
        for name, variable in variables.items()
    }
    return create_model("Variables", __base__=_Declared, **fields)()


def _malformed(variable: _Variable, text: str, reason: str) -> Problem:
    if not text:
        reason, remedy = "it is set but empty", f"Unset it, or set {variable.grammar}"
    else:
        remedy = f"Expected {variable.grammar}"
    return _variable_problem(variable.name, reason, remedy, Flaw.MALFORMED_VARIABLE)


def _variable_problem(name: str, reason: str, remedy: str, flaw: Flaw) -> Problem:
    return Problem(key=name, origin="environment", reason=reason, remedy=remedy, flaw=flaw)


def _statements(values: Mapping[str, Any]) -> Iterator[Stated]:
    for limit in LIMITS:
        for verb, suffix in _VERB_SUFFIXES.items():
            name = f"{limit.variable}{suffix}"
            if name in values:
                origin = Origin(layer=Layer.ENVIRONMENT, place=name)
                yield Stated(limit=limit, verb=verb, value=values[name], origin=origin)


def _contradictions(statements: tuple[Stated, ...]) -> Iterator[Problem]:
    for limit in LIMITS:
        said = {statement.verb: statement for statement in statements if statement.limit is limit}
        if Verb.LOCK in said and len(said) > 1:
            others = " and ".join(said[verb].origin.place for verb in (Verb.CEILING, Verb.DEFAULT) if verb in said)
            reason, flaw = f"it locks the limit, yet {others} is set too", Flaw.CONTRADICTORY_VARIABLES
            yield _variable_problem(limit.variable, reason, "Keep one of them", flaw)
        if Verb.CEILING in said and Verb.DEFAULT in said:
            ceiling, default = said[Verb.CEILING], said[Verb.DEFAULT]
            if not limit.kind.within(default.value, ceiling.value):
                reason = f"{limit.kind.text(default.value)} is looser than {ceiling.origin.place}"
                remedy, flaw = "Lower the default, or raise the ceiling", Flaw.CONTRADICTORY_VARIABLES
                yield _variable_problem(default.origin.place, reason, remedy, flaw)


def _scan_names(
    environ: Mapping[str, str], variables: Mapping[str, _Variable], foreign_ok: tuple[str, ...]
) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Names that must be a mistake, and names with our prefix that are somebody else's."""
    problems: list[Problem] = []
    warnings: list[str] = []
    for name in sorted(environ):
        if name in variables or name in FOREIGN_NAMES or name in foreign_ok:
            continue
        if _is_close(name, variables):
            remedy = _suggestion(name, variables)
            problems.append(_variable_problem(name, "there is no such variable", remedy, Flaw.MISSPELT_VARIABLE))
        elif name.startswith(VARIABLE_PREFIX):
            warnings.append(f"{name} is not a variable of sandbox-lockdown; it has no effect here.")
    return tuple(problems), tuple(warnings)


def _is_close(name: str, variables: Mapping[str, _Variable]) -> bool:
    """Whether this unknown name must be one of ours, misspelt: then going on would ignore what somebody meant."""
    upper = name.upper()
    if any(_edits(upper, known) <= _NEAR_EDITS for known in variables):
        return True
    if not upper.startswith(VARIABLE_PREFIX):
        return False
    rest = upper.removeprefix(VARIABLE_PREFIX)
    first_word = f"{VARIABLE_PREFIX}{rest.split('_')[0]}"
    return "__" in upper or any(f"{known}_".startswith(f"{first_word}_") for known in variables)


def _suggestion(name: str, variables: Mapping[str, _Variable]) -> str:
    alike = difflib.get_close_matches(name.upper(), variables, n=1)
    meant = f"Did you mean {alike[0]}? " if alike else ""
    return f"{meant}Correct it, or if it belongs to other software, name it in {FOREIGN_OK.variable}"


def _edits(one: str, other: str) -> int:
    """Levenshtein's distance, or some number past what counts as near once it can only be past it."""
    if abs(len(one) - len(other)) > _NEAR_EDITS:
        return _NEAR_EDITS + abs(len(one) - len(other))
    previous = list(range(len(other) + 1))
    for row, left in enumerate(one, 1):
        current = [row]
        for column, right in enumerate(other, 1):
            change = previous[column - 1] + (left != right)
            current.append(min(previous[column] + 1, current[-1] + 1, change))
        if min(current) > _NEAR_EDITS:  # no later row holds less
            return _NEAR_EDITS + 1
        previous = current
    return previous[-1]
