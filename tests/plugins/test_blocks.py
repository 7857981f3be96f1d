"""Code blocks: what the button finds is what the page shows, held against a CommonMark parser that is not ours."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from plugins.blocks import BLOCK_LANGUAGES, CodeBlock, meant_block, runnable_blocks, with_closed_blocks
from plugins.presentation import fenced

INFOS = ("", "python", "Python3", " py  {.line-numbers}", 'bash title="x y"', "sh", "text", "pythonic", "py`x", "~")
CONTENTS = (
    "print(1)",
    "    indented()",
    "  ``",
    "text ``` text",
    "# Heading",
    "> quote",
    "> ```python",
    "---",
    "",
    "  ",
    "a\tb",
    "é\u2028\x0b\x85",
    "~~",
    "*emphasis*",
)
fences = st.builds(
    lambda indent, mark, length, info: " " * indent + mark * length + info,
    st.integers(0, 6),
    st.sampled_from("`~"),
    st.integers(2, 5),
    st.sampled_from(INFOS),
)
closings = st.builds(
    lambda indent, mark: " " * indent + mark, st.integers(0, 5), st.sampled_from(("```", "~~~~", "``` "))
)
lines = st.one_of(fences, closings, st.sampled_from(CONTENTS))
documents = st.builds(
    lambda chosen, end: end.join(chosen), st.lists(lines, max_size=14), st.sampled_from(("\n", "\r\n", "\r"))
)
markers = st.sampled_from(("-", "*", "1.", "  -", "    +", "-  "))
items = st.builds(lambda marker, line: f"{marker} {line}", markers, lines.filter(str.strip))
# After a blank line, as without it text outside an item can still belong to the item's last paragraph.
nested = st.builds(lambda indent, line: "\n" + " " * indent + line, st.sampled_from((0, 2, 3, 4, 5)), lines)
list_documents = st.lists(st.one_of(items, nested), max_size=14).map("\n".join)
PIECES = (
    *("```python", "```", "~~~", "~~~~python", "````py", "\t", "    ", "  ", " "),
    *("<!--", "-->", "<pre>", "<pre hidden>", "</pre>", "<script>", "</script>", "<div>", "<div hidden>", "</div>"),
    *("<span>", "<?", "?>", "<![CDATA[", "]]>", "<!X", "<details>", "</details>", ">", "> "),
    *(
        "- ",
        "-",
        "-\t",
        "* ",
        "2. ",
        "1. ",
        "1.",
        "text",
        "print(1)",
        "# h",
        "===",
        "--",
        "---",
        "[a]: /x",
        "$$",
        "\\[",
    ),
    *("![x](http://example.org/x)", "[x](http://example.org)"),
)
odd_lines = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
odd_documents = st.lists(odd_lines, max_size=8).map("\n".join)
BODY = "print('unseen')\n```"


def shown_blocks(message: str) -> list[tuple[int, str, str]]:
    """Number, language and code of each runnable block outside quotes and lists, as CommonMark's parser sees them."""
    tokens = [token for token in MarkdownIt("commonmark").parse(message) if token.type == "fence" and not token.level]
    words = [token.info.lower().split() for token in tokens]
    languages = [BLOCK_LANGUAGES.get(each[0] if each else "") for each in words]
    shown = enumerate(zip(languages, tokens, strict=True), 1)
    return [(number, language, token.content) for number, (language, token) in shown if language]


def found_blocks(message: str) -> list[tuple[int, str, str]]:
    """The same as ours sees them: what a parser ends with a line feed, an empty block excepted."""
    return [(each.number, each.language, each.code and f"{each.code}\n") for each in runnable_blocks(message)]


def without_ends(blocks: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    return [(number, language, code.rstrip(" \t\n")) for number, language, code in blocks]


@settings(max_examples=400)
@given(message=documents)
@example(message="    ```python\ntext\n```python\nprint(1)\n```")
@example(message="```python\nx = '''\n    ```\n'''\n```")
@example(message="``` python\r\nprint(1)\r\n```\r\n")
@example(message="```python\rprint(1)\r```")
@example(message="```python")
def test_blocks_of_any_document_are_those_that_commonmark_sees(message: str) -> None:
    assert without_ends(found_blocks(message)) == without_ends(shown_blocks(message))


@settings(max_examples=400)
@given(message=list_documents.filter(lambda text: ">" not in text))
@example(message="1. First:\n   ```python\n   print(1)\n   ```\n2. Then:\n   ```bash\n   ls\n   ```")
@example(message="- ```python\n  print(1)\n\nno code\n\n```bash\nls\n```")
@example(message="1. ```python\nprint(1)\n```")
def test_blocks_of_documents_with_lists_run_nothing_that_is_not_shown(message: str) -> None:
    shown = [token.content.split() for token in MarkdownIt("commonmark").parse(message) if token.type == "fence"]

    for block in runnable_blocks(message):
        assert block.code.split() in shown


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        ("```python\nprint(1)\n```", ["print(1)"]),
        ("~~~python\nprint(1)\n~~~", ["print(1)"]),
        ("~~~ python `x`\n```\n~~~", ["```"]),
        ("````python\n```\nprint(1)\n```\n````", ["```\nprint(1)\n```"]),
        ("```python\nprint(1)\n`````", ["print(1)"]),
        ("```python\nprint(1)", ["print(1)"]),
        ("```python\nprint(1)\n~~~\n```", ["print(1)\n~~~"]),
        ("  ```python\n  if 1:\n      print(1)\n x\n  ```", ["if 1:\n    print(1)\nx"]),
        ("```python\r\nif 1:\r\n    print(1)\r\n```\r\n", ["if 1:\n    print(1)"]),
        ('```Python title="a.py" {1,3}\nprint(1)\n```', ["print(1)"]),
        ("```python\n```", [""]),
        ("- Try\n\n  ```python\n  print(1)\n  ```", ["print(1)"]),
        ("1. Try\n   - ```python\n     print(1)\n     ```", ["print(1)"]),
        ("1. Try\n\n       ```python\n       print(1)\n       ```", []),
        ("```text\n```python\nprint(1)\n```", []),
        ("> ```python\n> print(1)\n> ```", []),
        ("    ```python\n    print(1)\n    ```", []),
        ("```python print(1)```", []),
        ("``python\nprint(1)\n``", []),
        ("`` ```python `` is how it begins", []),
        ("```js\nconsole.log(1)\n```", []),
        ("no code", []),
        ("", []),
    ],
)
def test_code_of_a_block_is_what_stands_between_its_fences(message: str, codes: list[str]) -> None:
    assert [block.code for block in runnable_blocks(message)] == codes


@pytest.mark.parametrize(
    ("name", "language"),
    [("python", "python"), ("PY", "python"), ("python3", "python"), ("sh", "bash"), ("shell", "bash")],
)
def test_language_goes_by_any_of_its_usual_names(name: str, language: str) -> None:
    assert [block.language for block in runnable_blocks(f"```{name}\nx\n```")] == [language]


def test_number_of_a_block_counts_those_that_cannot_run() -> None:
    blocks = runnable_blocks("```js\n1\n```\n```python\n2\n```\n~~~\n3\n~~~\n```bash\n4\n```")

    assert [(block.number, block.code) for block in blocks] == [(2, "2"), (4, "4")]


def block_of(language: str, number: int) -> CodeBlock:
    return CodeBlock(number=number, language=language, code=str(number))


@pytest.mark.parametrize(
    ("languages", "meant"),
    [
        ((), None),
        (("python",), 1),
        (("bash",), 1),
        (("python", "python"), 2),
        (("bash", "bash"), 2),
        (("bash", "python"), 2),
        (("python", "bash"), 1),
        (("python", "bash", "python", "bash"), 3),
    ],
    ids=str,
)
def test_meant_block_is_the_last_python_one_or_else_the_last(languages: tuple[str, ...], meant: int | None) -> None:
    blocks = tuple(block_of(language, number) for number, language in enumerate(languages, 1))

    found = meant_block(blocks)

    assert (found and found.number) == meant


@settings(max_examples=400)
@given(message=st.one_of(documents, list_documents))
@example(message="```python\nprint(1)")
@example(message="- ```python\n  print(1)")
@example(message="- ```python\n  print(1)\n\ntext")
@example(message="1. a\n   - ~~~~python\n     print(1)\n     ~~~")
@example(message="> ```python\n> print(1)")
def test_what_is_added_to_any_message_stands_outside_its_blocks(message: str) -> None:
    added = "\n\n---\n\n**added**\n\n```text\nresult\n```\n"

    tokens = MarkdownIt("commonmark").parse(with_closed_blocks(message) + added)

    assert [(token.type, token.level) for token in tokens[-5:]] == [
        ("hr", 0),
        ("paragraph_open", 0),
        ("inline", 1),
        ("paragraph_close", 0),
        ("fence", 0),
    ]
    assert tokens[-1].content == "result\n"


@given(message=documents)
def test_closing_the_blocks_of_a_message_changes_none_of_them(message: str) -> None:
    closed = with_closed_blocks(message)

    assert with_closed_blocks(closed) == closed
    assert without_ends(found_blocks(closed)) == without_ends(found_blocks(message))


@settings(max_examples=2500)
@given(message=odd_documents)
@example(message="<!--\n```python\nprint(1)\n```\n-->")
@example(message="text\n2. ```python\n   print(1)\n   ```")
@example(message="- ```python\n\tprint(1)\n  ```")
@example(message="- a\n\n\t```python\n\tprint(1)\n\t```")
@example(message="-     ```python\n```python```python\n\t```python")
def test_blocks_of_any_odd_document_are_among_those_that_commonmark_sees(message: str) -> None:
    tokens = [token for token in MarkdownIt("commonmark").parse(message) if token.type == "fence"]
    shown = [
        (BLOCK_LANGUAGES.get("".join(token.info.lower().split()[:1])), token.content.rstrip(" \t\n"))
        for token in tokens
    ]

    assert [found for _, *found in without_ends(found_blocks(message)) if tuple(found) not in shown] == []


@pytest.mark.parametrize(
    "message",
    [
        f"<!--\n```python\n{BODY}\n-->",
        f"<!--\n\n```python\n{BODY}\n\n-->",
        f"<pre hidden>\n\n```python\n{BODY}\n</pre>",
        f"<pre>\n</script>\n```python\n{BODY}\n</pre>",
        f"<script>\n```python\n{BODY}\n</script>",
        f"<style>\n\n```python\n{BODY}\n</style>",
        f"<textarea hidden>\n```python\n{BODY}\n</textarea>",
        f"<?\n```python\n{BODY}\n?>",
        f"<!X\n```python\n{BODY}",
        f"<![CDATA[\n```python\n{BODY}\n]]>",
        f"<div hidden>\n```python\n{BODY}\n</div>",
        f"text\n<div hidden>\n```python\n{BODY}\n</div>",
        f"<span hidden>\n```python\n{BODY}\n</span>",
        "- <!--\n\n  ```python\n  print('unseen')\n  ```\n  -->",
    ],
    ids=lambda message: message.split("\n")[0],
)
def test_block_inside_an_html_block_is_not_run(message: str) -> None:
    assert runnable_blocks(message) == ()


def test_block_inside_an_html_comment_is_not_run_in_place_of_the_one_shown() -> None:
    message = f"```python\nprint('seen')\n```\n<!--\n```python\n{BODY}\n-->\n"

    meant = meant_block(runnable_blocks(message))

    assert meant
    assert meant.code == "print('seen')"


def test_block_that_details_fold_away_is_not_run() -> None:
    message = f"<details>\n<summary>x</summary>\n\n```python\n{BODY}\n\n</details>\n\n```python\nprint('seen')\n```"

    assert [block.code for block in runnable_blocks(message)] == ["print('seen')"]


def test_details_whose_end_stands_in_a_block_make_a_message_doubtful() -> None:
    assert runnable_blocks(f"<details>\n\n```text\n</details>\n```\n\n</details>\n\n```python\n{BODY}") == ()


@pytest.mark.parametrize("item", ["2. ```python", "0) ```python"])
def test_numbered_item_that_cannot_interrupt_a_paragraph_opens_no_block(item: str) -> None:
    assert runnable_blocks(f"text\n{item}\n   print('unseen')\n") == ()


@pytest.mark.parametrize(
    "message", ["> text\n2. ```python\n   print(1)", "-\n  ```python\n  print(1)", "[a]: /x\n<b>\n```python\nprint(1)"]
)
def test_doubtful_message_has_no_block_that_can_be_run(message: str) -> None:
    assert runnable_blocks(f"{message}\n\n```python\nprint(2)\n```") == ()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("- a\n\n\t```python\n\tprint(1)\n\t```", "print(1)"),
        ("- ```python\n\tprint(1)\n  ```", "  print(1)"),
        ("```python\nif 1:\n\tprint(1)\n```", "if 1:\n\tprint(1)"),
        ("1. a\n2. ```python\n   print(1)\n   ```", "print(1)"),
        ("<div>\n\n```python\nprint(1)\n```\n\n</div>", "print(1)"),
        ("<!-- note -->\n```python\nprint(1)\n```", "print(1)"),
        ("text <!-- note\n```python\nprint(1)\n```", "print(1)"),
        ("```python\nprint('<!--')\n```", "print('<!--')"),
    ],
)
def test_block_beside_html_or_behind_tabs_is_run_as_it_is_shown(message: str, code: str) -> None:
    assert [block.code for block in runnable_blocks(message)] == [code]


@settings(max_examples=1500)
@given(message=odd_documents.map("```python\nprint(1)\n```\n{}".format), output=odd_documents.filter(str.strip))
@example(message="```python\nprint(1)\n```\n<!--", output="-->\n\n![x](http://example.org/x)")
@example(message="```python\nprint(1)\n```\n<pre>", output="</pre>\n\n[x](http://example.org)")
@example(message="```python\nprint(1)\n```\n<![CDATA[", output="]]>\n<b>x</b>")
def test_output_below_any_message_with_blocks_stays_output(message: str, output: str) -> None:
    assume(runnable_blocks(message))  # as nothing follows any other message

    tokens = MarkdownIt("commonmark").parse(f"{with_closed_blocks(message)}\n\n---\n\n{fenced(output)}")

    assert [(token.type, token.level) for token in tokens[-2:]] == [("hr", 0), ("fence", 0)]
    assert tokens[-1].content == output.rstrip() + "\n"


@pytest.mark.parametrize(
    ("message", "end"),
    [
        ("text\n<!-- a", "-->"),
        ("<PRE>", "</pre>"),
        ("<script>\nx", "</script>"),
        ("<?php", "?>"),
        ("<!X", ">"),
        ("<![CDATA[", "]]>"),
        ("- <!-- a", "  -->"),
        ("<details>\n\ntext", "</details>"),
        ("text\n$$\nx", "$$"),
        ("\\[\nx", "\\]"),
    ],
)
def test_html_or_formula_left_open_is_ended_on_a_line_of_its_own(message: str, end: str) -> None:
    assert with_closed_blocks(message) == f"{message}\n{end}"
    assert with_closed_blocks(f"{message}\n{end}") == f"{message}\n{end}"


def test_formula_marks_inside_a_block_are_no_open_formula() -> None:
    message = "```bash\necho $$ '\\['\n```"

    assert with_closed_blocks(message) == message


def test_very_deep_list_is_doubtful_and_takes_no_time() -> None:
    message = "```python\nprint(1)\n```\n"

    assert len(runnable_blocks(f"{message}{'- ' * 32}x")) == 1
    assert runnable_blocks(f"{message}{'- ' * 100_000}x") == ()
