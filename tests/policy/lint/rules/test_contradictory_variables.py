from tests.policy.lint.linting import findings, of_rule, places


def test_a_lock_beside_a_ceiling_or_default_is_found_at_the_lock() -> None:
    environment = "SANDBOX_MAX_CPUS__CEILING=2\nSANDBOX_MAX_CPUS__DEFAULT=1\nSANDBOX_MAX_CPUS=1\n"

    assert places("SBP403", environment=environment) == [(3, 1, "SANDBOX_MAX_CPUS")]


def test_a_default_past_its_ceiling_is_found_at_the_default() -> None:
    environment = "SANDBOX_MAX_CPUS__CEILING=2\nSANDBOX_MAX_CPUS__DEFAULT=2.001\n"

    assert places("SBP403", environment=environment) == [(2, 1, "SANDBOX_MAX_CPUS__DEFAULT")]


def test_a_default_at_its_ceiling_and_other_limits_are_not_found() -> None:
    environment = "SANDBOX_MAX_CPUS__CEILING=2\nSANDBOX_MAX_CPUS__DEFAULT=2\nSANDBOX_MAX_PROCESSES=4\n"

    assert not places("SBP403", environment=environment)


def test_the_message_names_both_variables() -> None:
    found = of_rule("SBP403", findings(environment="SANDBOX_DEBUG=true\nSANDBOX_DEBUG__CEILING=true\n"))

    assert "SANDBOX_DEBUG" in found[0].message
    assert "SANDBOX_DEBUG__CEILING" in found[0].message
