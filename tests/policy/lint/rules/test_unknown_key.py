import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

UNKNOWN = {
    "misspelt": ("[limits]\nmax_cpu = 1", "limits.max_cpu", "You may have meant max_cpus"),
    "upper case": ("[limits]\nMAX_CPUS = 1", "limits.MAX_CPUS", "You may have meant max_cpus"),
    "dashes": ("[limits]\nmax-cpus = 1", "limits.max-cpus", "You may have meant max_cpus"),
    "variable": ("[limits]\nSANDBOX_MAX_CPUS = 1", "limits.SANDBOX_MAX_CPUS", "You may have meant max_cpus"),
    "half a name": ("[limits]\nram = 64", "limits.ram", "You may have meant max_ram_megabytes"),
    "limit at the top": ("max_cpus = 1\nlimits.debug = false", "max_cpus", "Move it under [limits]"),
    "variable at the top": (
        "SANDBOX_MAX_CPUS = 1\nlimits.debug = false",
        "SANDBOX_MAX_CPUS",
        "Move it under [limits], as max_cpus",
    ),
    "limit in another": (
        "[limits.max_cpus]\nceiling = 1\nmax_ram_megabytes = 64",
        "limits.max_cpus.max_ram_megabytes",
        "Move it under [limits]",
    ),
    "limit beside match": (
        "[[scope]]\nmatch.roles = ['user']\nlimits.debug = false\nmax_cpus.ceiling = 1",
        "scope[0].max_cpus",
        "Write limits.max_cpus",
    ),
    "head below a header": (
        "[limits]\ndebug = false\nretires = ['old']",
        "limits.retires",
        "Move it to the top of the file: what follows a [header] belongs to that table",
    ),
    "cases": (
        "limits.debug = false\n[[case]]\nname = 'x'",
        "case",
        "Keep cases for policy test in a file of their own, outside the folder of policies",
    ),
    "something else": (
        "[[scope]]\nmatch.roles = ['user']\nlimits.debug = false\ncolour = 1",
        "scope[0].colour",
        "Known here: match, except, description, limits",
    ),
}


@pytest.mark.parametrize(("fragment", "key", "remedy"), UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_key_is_found_with_what_may_be_meant(fragment: str, key: str, remedy: str) -> None:
    (found,) = of_rule("SBP005", findings(written(f"{fragment}\n")))

    assert (found.location.key, found.remedy) == (key, remedy)


def test_unknown_key_is_found_at_its_own_segment() -> None:
    text = written("[limits]\nmax_cpus.cieling = 1\n")

    (found,) = of_rule("SBP005", findings(text))

    where = found.location
    assert (where.line, where.column, where.end_column) == (10, 10, 17)


def test_every_known_key_is_none() -> None:
    assert not places("SBP005", written("requires = ['base']\nlimits.debug = false\n"))
