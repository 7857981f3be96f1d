"""What people and models see: no output comes to life, in a terminal or on the page, whatever it is."""

import itertools
import json
import re
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from plugins.presentation import end_json, end_markdown, escaped_markdown, fenced, json_text
from policy.errors import ConfigurationError, Problem
from sandbox.cleaning import cleaned
from sandbox.egress_account import EMPTY_EGRESS
from sandbox.errors import BusyError
from sandbox.outcome import Chunk, Outcome, RunResult

ALIVE = ("link_open", "image", "html_inline", "em_open", "strong_open", "s_open", "code_inline", "html_block", "fence")
SPECIALS = "`~*_[]()<>!#|\\&;:/@$^{}-+=.\"' \n\t\r\x00\x07\x1b\x9b\x9c\x9d\u202e\u2066\ufeff\u2028wx1h"
any_text = st.one_of(st.text(), st.text(st.sampled_from(SPECIALS), max_size=40))
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


HOSTILE_PIECES = ("\x90", "\x98", "\x9b", "\x9c", "\x9d", "\x9f", "\x1b", "\x1b]", "\x1b[", "\x07", "x", "0;")


@pytest.mark.parametrize("first", HOSTILE_PIECES, ids=repr)
def test_cleaning_hostile_output_takes_time_in_proportion_to_its_length(first: str) -> None:
    """A quarter of a megabyte of such pieces once held up the whole server for minutes."""
    for pieces in itertools.product([first], ["", *HOSTILE_PIECES], ["", *HOSTILE_PIECES]):
        text = "".join(pieces)
        text *= (1 << 16) // len(text)
        begun = time.process_time()

        cleaned(text)

        assert time.process_time() - begun < 2, pieces  # proportional: 0.02 s; quadratic: 45 s


def result_of(output: bytes = b"42\n", **changes: Any) -> RunResult:  # noqa: ANN401 -- fields of any type
    values: dict[str, Any] = {
        "outcome": Outcome.OK,
        "language": "python",
        "exit_code": 0,
        "chunks": (Chunk(stream="stdout", data=output),),
        "truncated": False,
        "output_limit_kilobytes": 64,
        "runtime_limit_seconds": 30,
        "ram_limit_megabytes": 128,
        "process_limit": 64,
        "memory_limit_bytes": 170 << 20,
        "notices": (),
        "unenforced": (),
        "debug_allowed": False,
        "limits_digest": "d" * 64,
        "policies": (("acme", 7),),
        "gvisor": "20260810.0 (release)",
        "box_digest": "b" * 64,
        "pooled": False,
        "ended_by_administrator": False,
        "queue_seconds": 0.0,
        "startup_seconds": 0.5,
        "wall_seconds": 0.25,
        "cpu_seconds": None,
        "peak_memory_bytes": None,
        "egress": EMPTY_EGRESS,
        "code_sha256": "c" * 64,
    }
    return RunResult(**(values | changes))


def refusal(reason: str = "it is set but empty") -> ConfigurationError:
    return ConfigurationError((Problem(key="SANDBOX_DEBUG", origin="environment", reason=reason, remedy="Unset it"),))


def tokens_of(markdown: str) -> list[Token]:
    """All tokens, inline ones included, of a parser that lets through everything that a page could."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["strikethrough", "table"])
    return [token for outer in parser.parse(markdown) for token in (outer, *(outer.children or ()))]


def alive(markdown: str) -> list[str]:
    return [token.type for token in tokens_of(markdown) if token.type in ALIVE]


def shown_text(markdown: str) -> str:
    return "".join(token.content for token in tokens_of(markdown) if token.type in {"text", "text_special"})


@given(text=any_text)
@example(text="```")
@example(text="x\n```\n[evil](http://evil.example)\n````")
@example(text="~~~\n`````python\n")
def test_nothing_in_a_text_can_close_its_fence(text: str) -> None:
    shown = cleaned(text)

    parsed = MarkdownIt("commonmark").parse(fenced(shown))

    assert [token.type for token in parsed] == ["fence"]
    assert parsed[0].info == "text"
    assert parsed[0].content == f"{shown.rstrip()}\n"


@given(text=any_text)
@example(text="![x](http://evil.example/a.png)")
@example(text="[x](javascript:alert(1))")
@example(text="<img src=x onerror=alert(1)>")
@example(text="<http://evil.example>")
@example(text="[x]: http://evil.example")
@example(text="&lt;script&gt;")
@example(text="a*b*c __d__ ~~e~~ `f`")
@example(text="# heading")
@example(text="a | b\n--- | ---\n1 | 2")
def test_no_text_comes_to_life_in_markdown(text: str) -> None:
    for place in ("{}", "> {}", "**Python code block:** {}"):
        markdown = place.format(escaped_markdown(text))

        assert [name for name in alive(markdown) if name != "strong_open"] == []
        assert "heading_open" not in [token.type for token in tokens_of(markdown)]


@given(text=any_text)
@example(text="&amp; &#42;")
@example(text="SANDBOX_MAX_CPUS a_b _c_ __d__")
@example(text=r"\[x\]")
def test_escaped_text_still_reads_as_it_did(text: str) -> None:
    shown = re.sub(r"\s+", " ", shown_text(f"x{escaped_markdown(text)}").replace("\u2060", ""))

    assert shown.strip() == f"x{' '.join(cleaned(text).split())}".replace("\u2060", "").strip()


@given(text=any_text)
@example(text=r"\(x\)")
@example(text=r"\[x\]")
@example(text=r"\\[x\\]")
def test_escaped_text_holds_nothing_that_the_page_takes_for_a_formula_an_entity_or_an_address(text: str) -> None:
    # Open WebUI begins formulas with \( and \[ and $, shows entities as they are spelt, and links bare addresses.
    escaped = escaped_markdown(text)
    free = re.sub(r"\\[!-/:-@\[-`{-~]", "", escaped)  # without what a backslash escapes

    assert not re.search(r"[\\$@&<>`]|://|(?i:www)\.", free)
    assert r"\[" not in escaped
    assert "](" not in free
    assert not re.search(r"(?<!\\)(?:\\\\)*\\[(\[]", escaped)
    assert "\n" not in escaped


def test_ordinary_notices_stay_readable_in_the_source_of_a_message() -> None:
    notice = "SANDBOX_MAX_CPUS locks 0.5 CPUs (decided by acme-prod serial 7 (/etc/acme.toml:12))."

    assert escaped_markdown(notice) == notice


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("[x](http://evil.example)", r"[x\](http:\/\/evil.example)"),
        ("![x](http://evil.example/a.png)", r"\![x\](http:\/\/evil.example/a.png)"),
        ("WWW.evil.example me@evil.example", r"WWW\.evil.example me\@evil.example"),
        ("<img src=x> &lt;", r"\<img src=x\> \&lt;"),
        ("a_b _c_ *d* `e`", r"a_b \_c\_ \*d\* \`e\`"),
        ("1. one", r"1\. one"),
        ("- one", r"\- one"),
        ("$5 {{x}} [1] [^1]", r"\$5 \{\{x\}\} [1\] [\^1\]"),
        (r"\(x\)", r"\\(x\\)"),
        (r"\[x\]", "\\\\\u2060[x\\\\\\]"),
        ("a\n\n# b", r"a \# b"),
    ],
    ids=ascii,
)
def test_escaped_text_is_what_open_webuis_page_was_seen_to_show_as_it_is(text: str, escaped: str) -> None:
    assert escaped_markdown(text) == escaped


@given(text=any_text)
def test_cleaned_output_holds_no_control_and_no_bidirectional_character(text: str) -> None:
    shown = cleaned(text)

    assert not CONTROLS.search(shown)
    assert not [each for each in shown if unicodedata.bidirectional(each) in {"LRE", "RLE", "LRO", "RLO", "PDF"}]
    assert not [each for each in shown if unicodedata.bidirectional(each) in {"LRI", "RLI", "FSI", "PDI"}]
    assert not set(shown) & set("\u061c\u200e\u200f\ufeff")
    assert cleaned(shown) == shown


@given(text=st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), include_characters="\n\t")))
def test_cleaning_keeps_ordinary_text_with_its_tabs_and_lines(text: str) -> None:
    assert cleaned(text) == text


@given(before=st.text(st.characters(categories=("L", "N"))), after=st.text(st.characters(categories=("L", "N"))))
def test_cleaning_removes_a_whole_sequence_and_nothing_around_it(before: str, after: str) -> None:
    assert cleaned(f"{before}\x1b[1;31m{after}") == before + after


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;2;255;0;0mred\x1b[m", "red"),
        ("\x1b[2J\x1b[H\x1b[3Jgone?", "gone?"),
        ("\x1b[?1049hscreen\x1b[?1049l", "screen"),
        ("\x1b[6n", ""),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]2;title\x1b\\text", "text"),
        ("\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\", "click"),
        ("\x1b]8;id=1;http://evil.example\x07click\x1b]8;;\x07", "click"),
        ("\x9d8;;http://evil.example\x9cclick\x9d8;;\x9c", "click"),
        ("\x1b]52;c;ZXZpbA==\x07", ""),
        ("\x1b]1337;File=inline=1:AAAA\x07", ""),
        ("\x1bP$q\x1b\\text", "text"),
        ("\x1b_Ga=T;AAAA\x1b\\text", "text"),
        ("\x1b^private\x1b\\text", "text"),
        ("\x1bX start of string\x1b\\text", "text"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lqk\x1b(B", "lqk"),
        ("\x1b#8", ""),
        ("\x1b[31", "31"),
        ("\x1b", ""),
        ("\x1b\x1b[31mred", "red"),
        ("\x1b[\x1b[31mm", "m"),
        ("10%\r20%\r\n", "10%\n20%\n"),
        ("a\x08b\x7fc\x00d", "abcd"),
        ("\ufeffuser\u202egnp.exe", "usergnp.exe"),
        ("\u2066a\u2069\u200f\u061c", "a"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("שלום 👋🏽 ﷽", "שלום 👋🏽 ﷽"),
    ],
    ids=ascii,
)
def test_escape_sequence_is_removed_whole(output: str, shown: str) -> None:
    assert cleaned(output) == shown


@pytest.mark.parametrize(
    ("beginning", "shown"),
    [("\x1b]", ""), ("\x1b]8;;", "8;;"), ("\x1bP", ""), ("\x9d", ""), ("\x1b_G", "G")],
    ids=ascii,
)
def test_sequence_without_end_hides_nothing_of_the_output(beginning: str, shown: str) -> None:
    assert cleaned(f"before {beginning}after\nlast line") == f"before {shown}after\nlast line"


def test_many_unfinished_sequences_take_no_time() -> None:
    assert cleaned("\x1b]" * 200_000) == ""


def test_json_of_a_good_run_says_nothing_but_the_output() -> None:
    assert end_json(result_of()) == {"status": "OK", "output": "42\n"}


@pytest.mark.parametrize(
    ("outcome", "exit_code", "status", "error"),
    [
        (Outcome.ERROR, 1, "ERROR", "Python code ended with exit code 1."),
        (Outcome.ERROR, 139, "ERROR", "Python code ended with exit code 139 (signal 11)."),
        (Outcome.TIMED_OUT, None, "TIMEOUT", "Python code was stopped after 30 seconds, its runtime limit."),
        (Outcome.OUT_OF_MEMORY, None, "OUT_OF_MEMORY", "Python code was stopped at 128 megabytes, its RAM limit."),
        (Outcome.KILLED, None, "KILLED", "Python code was ended from outside before it was done."),
    ],
)
def test_json_of_any_other_end_has_an_error_that_open_webui_shows(
    outcome: Outcome, exit_code: int | None, status: str, error: str
) -> None:
    told = end_json(result_of(outcome=outcome, exit_code=exit_code))

    assert told == {"status": status, "output": "42\n", "error": error, "exit_code": exit_code}


def test_json_names_what_was_cut_noticed_and_not_enforced() -> None:
    told = end_json(result_of(truncated=True, notices=("a notice",), unenforced=("max_cpus",)))

    assert told == {
        "status": "OK",
        "output": "42\n\n[output cut after 64 kilobytes]",
        "truncated": True,
        "notices": ["a notice"],
        "unenforced": ["max_cpus"],
    }


def test_json_shows_internals_only_where_the_limits_permit() -> None:
    assert "debug" not in end_json(result_of())
    assert end_json(result_of(debug_allowed=True))["debug"]["limits_digest"] == "d" * 64


@pytest.mark.parametrize(
    "error",
    [
        refusal(),
        BusyError(key="max_concurrent_runs", origin="built-in", reason="all are taken", remedy="Wait for one to end"),
    ],
    ids=["policy", "sandbox"],
)
def test_json_of_a_refusal_says_why_and_what_to_do(error: ConfigurationError | BusyError) -> None:
    assert end_json(error) == {"status": "REFUSED", "output": "", "error": f"The code was not run. {error}"}


def test_json_of_a_refusal_holds_no_escape_sequence_of_what_it_quotes() -> None:
    assert "\x1b" not in end_json(refusal("it is \x1b]0;evil\x07 in there"))["error"]


def test_json_is_one_line_whatever_the_output() -> None:
    line = json_text(end_json(result_of("a\nb\u2028c\u0085d é".encode())))

    assert "\n" not in line
    assert json.loads(line)["output"] == "a\nb\u2028cd é"


def test_markdown_of_a_run_is_golden() -> None:
    end = result_of(
        b"```\n[evil](http://evil.example)\n",
        truncated=True,
        notices=("The valve MAX_CPUS asks for 4 CPUs; acme [x](http://evil.example) permits 1 CPU (why).",),
        unenforced=("max_cpus", "max_processes"),
    )

    assert end_markdown(end, "Python code block 1 of the 2 that can be run:") == (
        "**Python code block 1 of the 2 that can be run:** Python code executed successfully.\n\n"
        "````text\n```\n[evil](http://evil.example)\n\n[output cut after 64 kilobytes]\n````\n\n"
        "> The valve MAX_CPUS asks for 4 CPUs; acme [x\\](http:\\/\\/evil.example) permits 1 CPU (why).\n\n"
        "> Not enforced on this host: max_cpus, max_processes."
    )


def test_markdown_of_a_silent_run_says_that_it_printed_nothing() -> None:
    assert end_markdown(result_of(b" \n"), "Python code block:").endswith("*It printed nothing.*")


def test_markdown_of_a_refusal_says_why_without_markup_of_what_it_quotes() -> None:
    markdown = end_markdown(refusal("*x* <img src=x>"), "Python code block:")

    assert alive(markdown) == ["strong_open"]
    assert "The code was not run. environment: SANDBOX_DEBUG: *x* <img src=x>. Unset it." in shown_text(markdown)


@given(output=st.binary(max_size=60), notice=any_text)
def test_markdown_of_any_run_has_its_output_in_one_fence_and_nothing_alive_beside_it(
    output: bytes, notice: str
) -> None:
    markdown = end_markdown(result_of(output, notices=(notice,)), "Python code block:")

    fences = [token for token in tokens_of(markdown) if token.type == "fence"]
    rest = [name for name in alive(markdown) if name not in {"strong_open", "em_open", "fence"}]
    printed = cleaned(output.decode(errors="replace"))
    assert rest == []
    assert [token.content.strip() for token in fences] == ([printed.strip()] if printed.strip() else [])
