"""Reports that the tests of all formats share: as they are in practice, as an attacker would have them, any at all."""

from typing import Any

from hypothesis import strategies as st

from policy.lint.findings import Edit, Finding, Fix, Location, Severity, Suppressed
from policy.lint.report import ENVIRONMENT, STANDARD_INPUT, Report, RuleFacts

RULES = (
    RuleFacts(
        id="SBP101",
        name="default-outside-ceiling",
        severity=Severity.ERROR,
        summary="A default is looser than its ceiling",
        rationale="Such a file is refused, and with it the whole set",
        help="Tighten the default:\n\n```toml\ndefault = 60\nceiling = 60\n```",
        family="contradiction",
        security=False,
        suppressible=False,
    ),
    RuleFacts(
        id="SBP203",
        name="unlimited",
        severity=Severity.WARNING,
        summary="A limit is lifted altogether",
        rationale="One run can then take all of the host",
        help="Set a number",
        family="insecure",
        security=True,
        suppressible=True,
    ),
    RuleFacts(
        id="SBP601",
        name="no-owner",
        severity=Severity.NOTE,
        summary="Nobody is named who answers for the file",
        rationale="Whoever finds something wrong knows whom to ask",
        help="Add `owner`",
        family="hygiene",
        security=False,
        suppressible=True,
    ),
)
LINE = "default = 90   # sekundi\u0301s \u6771\u4eac"
NASTY = (
    "\u202eevil\u2066",
    "\x1b[2J\x00\x07\r\n",
    "\n::error::owned",
    "::stop-commands::x",
    "%0A::error::owned",
    ",title=x:y,",
    "</failure></testcase>]]>&amp;<!--",
    "\"quoted'",
    "[click](https://evil.example) {0}",
    "\u6771\u4eac \U0001f511 e\u0301\u0308",
    "\ufffe\uffff\x0b\x85\u2028",
    "\udc80\ud800",
    "../..//./a b/\\ü?#%",
    "\\ud800",
)
"""What a file name, a key or a message can hold, each an attack on some format."""


def finding(**fields: Any) -> Finding:  # noqa: ANN401 -- any field of it
    given: dict[str, Any] = {
        "rule_id": "SBP101",
        "rule_name": "default-outside-ceiling",
        "severity": Severity.ERROR,
        "location": Location(
            file="acme.toml", line=14, column=11, end_column=13, key="limits.max_runtime_seconds.default"
        ),
        "message": "the default 90 is looser than the ceiling 60",
        "remedy": "Set the default to at most 60",
        "excerpt": LINE,
    }
    return Finding(**(given | fields))


def report(*findings: Finding, **fields: Any) -> Report:  # noqa: ANN401 -- any field of it
    given: dict[str, Any] = {"rules": RULES, "files": ("acme.toml",), "tool_version": "0.1.0"}
    return Report(findings=findings, **(given | fields))


def usual_report() -> Report:
    """One finding of each severity, one with all that a finding can have, one suppressed, one of the environment."""
    return report(
        finding(
            related=(Location(file="acme.toml", line=15, column=1, key="limits.max_runtime_seconds.ceiling"),),
            fix=Fix(description="Lower the default to 60", edits=(Edit(start=300, end=302, text="60"),)),
        ),
        finding(
            rule_id="SBP203",
            rule_name="unlimited",
            severity=Severity.WARNING,
            location=Location(file="acme.toml", line=21, column=2, end_column=18, key="limits.max_ram_megabytes"),
            message="max_ram_megabytes is unlimited",
            excerpt='\tmax_ram_megabytes = "unlimited"',
            suppressed=Suppressed(reason="GPU host, one person", until="2027-01-31", line=20),
        ),
        finding(
            rule_id="SBP601",
            rule_name="no-owner",
            severity=Severity.NOTE,
            location=Location(file="b c/ü.toml"),
            message="nobody is named who answers for this file",
            remedy="",
            excerpt="",
        ),
        finding(
            rule_id="SBP203",
            rule_name="unlimited",
            severity=Severity.WARNING,
            location=Location(file=ENVIRONMENT, key="SANDBOX_MAX_RAM_MEGABYTES"),
            message="SANDBOX_MAX_RAM_MEGABYTES is unlimited",
            remedy="Set a number",
            excerpt="",
        ),
        files=("acme.toml", "b c/ü.toml", "clean.toml"),
    )


def nasty_report() -> Report:
    """Each attack in every place where a file can put it."""
    findings = [
        finding(
            location=Location(file=f"a {attack}.toml", line=2, column=1, end_column=400, key=attack),
            message=f"{attack} is not a limit",
            remedy=f"Remove {attack}",
            related=(Location(file=attack, key=attack), Location(file=attack, key=attack)),
            fix=Fix(description=f"Remove {attack}", edits=(Edit(start=0, end=1, text=attack),)),
            suppressed=Suppressed(reason=attack, until="2027-01-31", line=1) if suppressed else None,
            excerpt=attack,
        )
        for attack in NASTY
        for suppressed in (False, True)
    ]
    return report(*findings, files=tuple(dict.fromkeys(each.location.file for each in findings)))


def suppressed_report() -> Report:
    return report(finding(suppressed=Suppressed(reason="agreed with ops", until="2027-01-31", line=13)))


_texts = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=()), max_size=8), min_size=1, max_size=3
).map("".join)
_numbers = st.integers(1, 50)
_names = _texts | st.sampled_from((ENVIRONMENT, STANDARD_INPUT, "a.toml", "./a.toml", "/etc/a.toml", "../a.toml"))
_locations = st.builds(
    Location, file=_names, line=_numbers, column=_numbers, end_column=_numbers, key=_texts | st.just("")
)
_findings = st.builds(
    Finding,
    rule_id=st.sampled_from([*(rule.id for rule in RULES), "SBP999"]),
    rule_name=st.just("some-rule"),
    severity=st.sampled_from(Severity),
    location=_locations,
    message=_texts,
    remedy=_texts | st.just(""),
    related=st.lists(_locations, max_size=2).map(tuple),
    fix=st.none()
    | st.builds(
        Fix,
        description=_texts,
        edits=st.lists(
            st.builds(Edit, start=st.integers(0, 9), end=st.integers(9, 20), text=_texts), max_size=2, unique=True
        ).map(tuple),
    ),
    suppressed=st.none() | st.builds(Suppressed, reason=_texts, until=st.just("2027-01-31"), line=_numbers),
    excerpt=_texts | st.just(""),
)
ANY_REPORT = st.builds(
    Report,
    findings=st.lists(_findings, max_size=4).map(tuple),
    rules=st.just(RULES),
    files=st.lists(_names, max_size=3).map(tuple),
    tool_version=st.just("0.1.0"),
    fixed=st.integers(0, 2),
    folder=st.sampled_from(["", "/etc", "/"]),
)
"""Any report at all."""


def many_findings(number: int) -> Report:
    """As many findings as a large set of neglected files has."""
    return report(
        *(
            finding(
                location=Location(
                    file=f"policies/team-{line % 100}.toml",
                    line=line,
                    column=11,
                    end_column=13,
                    key=f"scope[{line}].limits.max_runtime_seconds.default",
                ),
                related=(Location(file=f"policies/team-{line % 100}.toml", line=line + 1, column=1, key="id"),),
                excerpt=LINE if line % 10 == 0 else "default = 90   # seconds, agreed with the teacher",
            )
            for line in range(1, number + 1)
        ),
        files=tuple(f"policies/team-{number}.toml" for number in range(100)),
    )
