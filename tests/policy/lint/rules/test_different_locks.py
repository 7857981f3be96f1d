from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, linted_files, of_rule, written

OTHER = {"id": '"acme-other"'}


def test_the_later_lock_is_found_and_the_first_one_named_beside_it() -> None:
    text = written("[limits]\nmax_cpus = 1\n")
    other = written("[limits.max_cpus]\nlock = 0.5\n", **OTHER)

    (found,) = of_rule("SBP103", findings(text, other=other))

    assert found.message == "max_cpus is locked to 0.5 CPUs here, and to 1 CPU in acme.toml"
    assert (found.location.file, found.location.line, found.location.key) == ("other.toml", 10, "limits.max_cpus.lock")
    assert [(place.file, place.line, place.key) for place in found.related] == [("acme.toml", 10, "limits.max_cpus")]


def test_equal_locks_in_two_spellings_are_not_found() -> None:
    text = written('[limits]\nmax_cpus = 1\nnetwork_allowlist = ["10.0.0.1"]\n')
    other = written('[limits]\nmax_cpus = 1.0\nnetwork_allowlist = ["::ffff:10.0.0.1"]\n', **OTHER)

    assert not of_rule("SBP103", findings(text, other=other))


def test_a_lock_beside_a_ceiling_default_or_scoped_lock_of_another_file_is_not_found() -> None:
    text = written("[limits]\nmax_cpus = 1\n")
    rest = '[limits.max_cpus]\nceiling = 2\ndefault = 2\n[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus = 0.5\n'

    assert not of_rule("SBP103", findings(text, other=written(rest, **OTHER)))


def test_of_three_files_each_that_differs_from_the_first_is_found() -> None:
    files = {f"{value}.toml": written(f"[limits]\nmax_cpus = {value}\n", id=f'"p-{value}"') for value in (1, 2, 3)}

    found = of_rule("SBP103", linted_files(files, Setup(now=NOW)))

    assert [each.location.file for each in found] == ["2.toml", "3.toml"]
