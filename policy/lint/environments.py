"""Turns the variables of a process or a file into what rules look at."""

from collections.abc import Mapping
from dataclasses import replace

from policy.env_files import EnvFile, read_env_file
from policy.environment import read_environment
from policy.errors import PolicyError, Problem
from policy.lint.findings import Location
from policy.lint.subjects import EnvironmentSubject, Variable

PROCESS = "environment"
"""What the variables of the process are called."""


def environment_of_process(environ: Mapping[str, str]) -> EnvironmentSubject:
    """The variables of a process."""
    variables = {
        name: Variable(name=name, untrusted=value, location=Location(file=PROCESS, key=name))
        for name, value in environ.items()
    }
    return _subject(PROCESS, variables, "", ())


def environment_of_text(name: str, untrusted: bytes) -> EnvironmentSubject:
    """The variables of a file."""
    text = untrusted.decode("utf-8", errors="replace")
    try:
        file = read_env_file(untrusted, name)
    except PolicyError as error:
        return EnvironmentSubject(name=name, variables={}, text=text, problems=error.problems, layer=None)
    doubts = tuple(variable.doubt for variable in file.variables if variable.doubt)
    return _subject(name, _variables(file), text, doubts)


def _variables(file: EnvFile) -> Mapping[str, Variable]:
    return {
        each.name: Variable(
            name=each.name,
            untrusted=each.value,
            location=Location(file=file.origin, line=each.line, column=1, end_column=len(each.name) + 1, key=each.name),
        )
        for each in file.variables
    }


def _subject(
    name: str, variables: Mapping[str, Variable], text: str, problems: tuple[Problem, ...]
) -> EnvironmentSubject:
    """What they say, unless a server would refuse them."""
    plain = EnvironmentSubject(name=name, variables=variables, text=text, problems=problems, layer=None)
    doubted = {problem.key for problem in problems}
    try:
        layer = read_environment({each.name: each.untrusted for each in variables.values() if each.name not in doubted})
    except PolicyError as error:
        return replace(plain, problems=(*problems, *error.problems))
    return plain if problems else replace(plain, layer=layer)
