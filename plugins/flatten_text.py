"""The flattened file as text: frontmatter, contents with line numbers, merged imports, then each module in turn.

Statements and the comments that belong to them stand as they were written; only imports move to the top, and module
docstrings become comments.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from plugins.flatten_source import (
    Imported,
    SourceModule,
    Statement,
    docstring_node,
    imported_names,
    last_line,
    package_of,
    top_level_statements,
)

LINE_LENGTH = 120


def rendered(modules: Sequence[SourceModule], kept: Mapping[str, list[Statement]], *, title: str) -> str:
    """Return the file: the entry's docstring, contents, imports, and the kept statements module by module."""
    shown = [module for module in modules if kept[module.name]]
    entry = modules[-1]
    docstring = docstring_node(entry.tree)
    opening = entry.text.split("\n")[: last_line(docstring)] if docstring else []
    imports = ["", *_import_lines(_needed_imports(shown, kept))]
    sections = [_section(module, kept[module.name], is_entry=module is entry) for module in shown]
    position = len(opening) + len(_summary(title, [(module.path, 0) for module in shown])) + len(imports)
    contents = []
    for module, section in zip(shown, sections, strict=True):
        contents.append((module.path, position + section.index(_header(module)) + 1))
        position += len(section)
    lines = [*opening, *_summary(title, contents), *imports]
    for section in sections:
        lines += section
    return "\n".join(lines) + "\n"


def _summary(title: str, contents: Sequence[tuple[str, int]]) -> list[str]:
    width = max(len(path) for path, _ in contents) + 3
    return [
        "",
        f"# Generated from {len(contents)} modules of {title} by `make plugins`; do not edit.",
        "# To verify it against a checkout of that version: python -m plugins.flatten --check",
        "# Definitions that nothing here reaches are left out; all else reads as it does there.",
        "#",
        *(f"#   {f'{path} ':.<{width}} line {line}" for path, line in contents),
    ]


def _needed_imports(modules: Sequence[SourceModule], kept: Mapping[str, list[Statement]]) -> list[Imported]:
    needed = []
    for module in modules:
        used = frozenset[str]().union(*(statement.uses for statement in kept[module.name]))
        needed += [one for one in imported_names(module) if not one.is_project and one.bound in used]
    return needed


def _import_lines(imports: Sequence[Imported]) -> list[str]:
    """Merge imports into two groups, the standard library's and others', each `import` before `from`, sorted."""
    lines: list[str] = []
    for is_standard in (True, False):
        group = [one for one in imports if (package_of(one.module) in sys.stdlib_module_names) == is_standard]
        plain = sorted({f"import {one.module}" for one in group if one.item is None})
        items = sorted({(one.module, one.item) for one in group if one.item is not None})
        taken = [_from_line(module, [item for _, item in some]) for module, some in groupby(items, lambda one: one[0])]
        chunk = [*plain, *(line for one in taken for line in one)]
        lines += ["", *chunk] if lines and chunk else chunk
    return lines


def _from_line(module: str, items: Sequence[str]) -> list[str]:
    line = f"from {module} import {', '.join(items)}"
    if len(line) <= LINE_LENGTH:
        return [line]
    return [f"from {module} import (", *(f"    {item}," for item in items), ")"]


def _header(module: SourceModule) -> str:
    return f"# ======== {module.path} ".ljust(LINE_LENGTH, "=")


def _section(module: SourceModule, kept: Sequence[Statement], *, is_entry: bool) -> list[str]:
    """Return a module as it stands in the file; the entry's docstring stands at the top already."""
    docstring = None if is_entry else ast.get_docstring(module.tree)
    lines = ["", "", _header(module)]
    lines += [f"# {line}".rstrip() for line in (docstring or "").split("\n") if docstring]
    every, tail = top_level_statements(module)
    kept_lines = {statement.line for statement in kept}
    gap: list[str] = ["", ""]
    for statement in every:
        gap += statement.gap
        if statement.line in kept_lines:
            lines += [*_without_long_gaps(gap), *statement.lines]
            gap = []
    lines += _without_long_gaps([*gap, *tail])
    while not lines[-1]:
        lines.pop()
    return lines


def _without_long_gaps(lines: Sequence[str]) -> Iterator[str]:
    blanks = 0
    for line in lines:
        blanks = 0 if line else blanks + 1
        if blanks <= 2:  # noqa: PLR2004 - two blank lines part definitions
            yield line
