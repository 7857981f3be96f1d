from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, linted_files, of_rule, written


def test_the_later_file_is_found_and_the_first_one_named_beside_it() -> None:
    (found,) = of_rule("SBP107", findings(written(""), other=written("serial = 8\n")))

    assert found.message == "the id acme-prod is that of acme.toml too"
    assert (found.location.file, found.location.line, found.location.key) == ("other.toml", 2, "id")
    assert [(place.file, place.key) for place in found.related] == [("acme.toml", "id")]


def test_of_three_copies_each_but_the_first_is_found() -> None:
    found = of_rule("SBP107", linted_files(dict.fromkeys(("a.toml", "b.toml", "c.toml"), written("")), Setup(now=NOW)))

    assert [each.location.file for each in found] == ["b.toml", "c.toml"]


def test_ids_of_which_one_begins_the_other_are_not_found() -> None:
    assert not of_rule("SBP107", findings(written(""), other=written("", id='"acme-prod-2"')))


def test_no_comment_takes_out_what_a_server_refuses() -> None:
    ignored = '"acme-prod" # policy: ignore[SBP107] reason="later" until=2027-01-01'

    assert of_rule("SBP107", findings(written(""), other=written("", id=ignored)))
