from tests.policy.lint.linting import findings, of_rule, written


def test_a_retired_file_that_is_still_there_is_found_where_it_is_retired() -> None:
    text, other = written('retires = ["acme-2024", "acme-2025"]\n'), written("", id='"acme-2025"')

    (found,) = of_rule("SBP109", findings(text, other=other))

    assert found.message == "acme-2025 is retired, and is still here in other.toml"
    assert (found.location.line, found.location.column, found.location.key) == (9, 25, "retires[1]")
    assert [(place.file, place.key) for place in found.related] == [("other.toml", "id")]


def test_a_retired_file_that_is_gone_is_not_found() -> None:
    text, other = written('retires = ["acme-2025"]\n'), written("", id='"acme-2026"')

    assert not of_rule("SBP109", findings(text, other=other))
