from tests.policy.lint.linting import HEAD, findings, of_rule, places, written


def test_all_that_a_file_lacks_is_one_finding() -> None:
    (found,) = of_rule("SBP008", findings("[limits]\ndebug = false\n"))

    assert found.message == "the file: it lacks schema, id, serial, issued_at, expires_at, audience"
    assert found.remedy == "Add them; policy init writes a whole file"
    assert (found.location.line, found.location.column, found.location.key) == (1, 1, "")


def test_scope_that_lacks_limits_is_found_at_its_header() -> None:
    text = written("[limits]\ndebug = false\n[[scope]]\nmatch.roles = ['user']\n")

    assert places("SBP008", text) == [(11, 3, "scope[0]")]


def test_file_that_speaks_in_scopes_alone_lacks_nothing() -> None:
    assert not places("SBP008", written("[[scope]]\nmatch.roles = ['user']\nlimits.debug = false\n"))


def test_one_key_is_named_alone() -> None:
    text = written("limits.debug = false\n").replace(f"serial = {HEAD['serial']}\n", "")

    (found,) = of_rule("SBP008", findings(text))

    assert (found.message, found.remedy) == ("the file: it lacks serial", "Add it")
