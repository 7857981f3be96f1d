"""What the flattener refuses, each as a `Problem` that names file, line and remedy.

Modules that share one file share one set of names, so every name must mean one thing; what was left out must be
unreachable, so nothing may reach names as text; and what Open WebUI would rewrite or misread must not occur.
Source: Open WebUI 0.12.4, `utils/plugin.py` (texts rewritten, classes looked for) and `utils/tools.py`.
"""

import ast
import builtins
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import pairwise

from plugins.flatten_source import (
    PROJECT_PACKAGES,
    Function,
    SourceModule,
    bound_names,
    docstring_node,
    first_line,
    imported_names,
    last_line,
    package_of,
    undefined_names,
)
from policy.errors import Problem

THIRD_PARTY = frozenset({"cryptography", "h11", "jsonschema", "pydantic", "pydantic_settings"})
HOST_PACKAGE = "open_webui"
HOST_MODULES = frozenset({"open_webui.models.groups"})
"""Of Open WebUI, what plugins may ask; each was read in its source, and is asked only inside a function."""
REWRITTEN_TEXTS = tuple(f"{'from'} {name}" for name in ("utils", "apps", "main", "config"))
RESERVED_NAMES = frozenset({"Event", "Filter", "Pipe"})
FRONTMATTER_KEYS = ("title", "description", "author", "version", "license")
DATA_MODULES = frozenset({"importlib.resources", "pkgutil"})

_NO_FILE = ("a plugin has no file or package once it is loaded", "Keep what it would read in a constant")
_HIDDEN_CLASS = ("makes a class count that nobody names", "List the classes in a tuple")
_HIDDEN_IMPORT = ("hides an import", "Write an import statement")
_NAME_AS_TEXT = ("reaches names as text, so what it uses cannot be seen", "Use the names themselves")
FORBIDDEN_NAMES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("__file__", "__path__", "__spec__", "__loader__", "__package__"), _NO_FILE),
    **dict.fromkeys(("__subclasses__", "__init_subclass__"), _HIDDEN_CLASS),
    **dict.fromkeys(("__import__", "import_module"), _HIDDEN_IMPORT),
    "TYPE_CHECKING": ("hides an import at run time", "Import the type like everything else"),
}
FORBIDDEN_BUILTINS = frozenset({"eval", "exec", "globals", "locals"})
KNOWN_NAMES = frozenset({*dir(builtins), *FORBIDDEN_NAMES, "__name__", "__doc__", "__module__", "__qualname__"})

_FRONTMATTER_LINE = re.compile(r"\s*([a-z_]+):\s*(.*\S)\s*")


def text_problems(path: str, text: str) -> Iterator[Problem]:
    """Yield what is wrong with a source as text."""
    if text and not text.endswith("\n"):
        yield _at(path, text.count("\n") + 1, "text", "does not end in a line feed", "Add one")
    for number, line in enumerate(text.split("\n"), start=1):
        if line != line.rstrip():
            yield _at(path, number, "text", "has white space at its end", "Remove it, or write it as an escape")
        for code_point in sorted({ord(char) for char in line if _is_invisible(char)}):
            name = f"U+{code_point:04X}"
            yield _at(path, number, name, "cannot be seen by a reviewer", "Write it as an escape, or remove it")
        yield from rewritten_texts(path, number, line)


def rewritten_texts(path: str, number: int, line: str) -> Iterator[Problem]:
    """Yield each text in the line that Open WebUI would replace, in code, strings and comments alike."""
    for text in REWRITTEN_TEXTS:
        if text in line:
            yield _at(path, number, repr(text), "is rewritten by Open WebUI", "Word it in another way")


def module_problems(module: SourceModule, *, is_entry: bool) -> Iterator[Problem]:
    """Yield what is wrong with one module by itself."""
    yield from _layout_problems(module, is_entry=is_entry)
    yield from _import_problems(module)
    yield from _late_import_problems(module)
    yield from _name_problems(module)
    yield from _annotation_problems(module)
    for name, line in undefined_names(module.text, module.path, KNOWN_NAMES):
        yield _at(module.path, line, name, "is used but neither defined nor imported", "Import or define it")


def entry_problems(entry: SourceModule, *, version: str) -> Iterator[Problem]:
    """Yield what is wrong with the frontmatter, which is the entry module's docstring."""
    docstring = docstring_node(entry.tree)
    if docstring is None or not entry.text.startswith('"""\n'):
        remedy = "Start the file with a docstring whose opening quotes stand alone on line 1"
        yield _at(entry.path, 1, "frontmatter", "Open WebUI would not read it", remedy)
        return
    block = entry.text.split("\n")[1 : last_line(docstring) - 1]
    found = {match[1]: match[2] for match in map(_FRONTMATTER_LINE.fullmatch, block) if match}
    for key in FRONTMATTER_KEYS:
        if key not in found:
            yield _at(entry.path, 1, key, "is missing in the frontmatter", f"Add a line `{key}: …`")
    if found.get("version", version) != version:
        yield _at(entry.path, 1, "version", f"is not the project's {version}", "Change the line")


def program_problems(modules: tuple[SourceModule, ...]) -> Iterator[Problem]:
    """Yield what is wrong with modules that are to share one file."""
    meanings: dict[str, tuple[str, str]] = {}  # name → what it stands for, and where that was first said
    for module in modules:
        for name, identity, line in _top_level_names(module):
            where = f"{module.path}:{line}"
            first_identity, first_where = meanings.setdefault(name, (identity, where))
            if first_identity != identity:
                yield Problem(
                    key=name, origin=where, reason=f"means something else at {first_where}", remedy="Rename one of them"
                )
            yield from _reserved_name_problems(module, name, line)
    yield from _project_import_problems(modules)


def _top_level_names(module: SourceModule) -> Iterator[tuple[str, str, int]]:
    for name, line in bound_names(module.tree.body).items():
        yield name, f"defined in {module.name}", line
    for imported in imported_names(module):
        if not imported.is_project:
            yield imported.bound, imported.identity, imported.line


def _reserved_name_problems(module: SourceModule, name: str, line: int) -> Iterator[Problem]:
    if name in RESERVED_NAMES:
        yield _at(module.path, line, name, "Open WebUI takes that for a function's type", "Use another name")
    if hasattr(builtins, name) and not name.startswith("__"):
        yield _at(module.path, line, name, "hides the builtin from all other modules", "Use another name")


def _project_import_problems(modules: tuple[SourceModule, ...]) -> Iterator[Problem]:
    defined = {module.name: bound_names(module.tree.body) for module in modules}
    for module in modules:
        for imported in imported_names(module):
            named = imported.is_project and imported.item not in {None, "*"}
            if named and imported.item not in defined.get(imported.module, {}):
                reason = f"{imported.module} does not define it"
                yield _at(module.path, imported.line, imported.bound, reason, "Import it out of where it is defined")


def _layout_problems(module: SourceModule, *, is_entry: bool) -> Iterator[Problem]:
    body = module.tree.body
    for before, after in pairwise(body):
        if first_line(after) <= last_line(before):
            yield _at(module.path, first_line(after), "line", "holds two statements", "Give each its own line")
    for node in ast.walk(module.tree):
        if not is_entry and isinstance(node, ast.If) and _mentions(node.test, "__name__"):
            remedy = "Move the main part into the entry module"
            yield _at(module.path, node.lineno, "__name__", "only the entry module may be a script", remedy)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _import_problems(module: SourceModule) -> Iterator[Problem]:
    at_top = {node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    in_functions = {
        inner
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        lazy = node in in_functions
        if not lazy and node not in at_top:
            remedy = "Move it to the top, or into a function"
            yield _at(module.path, node.lineno, "import", "stands inside another statement", remedy)
        for key, reason, remedy in _import_refusals(node, lazy=lazy):
            yield _at(module.path, node.lineno, key, reason, remedy)


def _late_import_problems(module: SourceModule) -> Iterator[Problem]:
    """Where it would change the meaning that a late import is left out, which it is by whole lines."""
    lines = module.text.split("\n")
    for node in module.late_imports:
        before = lines[node.lineno - 1].encode()[: node.col_offset].strip()
        after = lines[last_line(node) - 1].encode()[node.end_col_offset :].strip()
        if before or not (after or b"#").startswith(b"#"):
            yield _at(module.path, node.lineno, "import", "shares its line with what stays", "Give it its own line")
        around = [each for each in ast.walk(module.tree) if isinstance(each, Function) and node in ast.walk(each)]
        bound = {name for function in around for name in _own_names(function)}
        for name in sorted({alias.name for alias in node.names} & bound):
            yield _at(module.path, node.lineno, name, "means something else in this function", "Rename one of them")


def _own_names(function: Function) -> frozenset[str]:
    parameters = {inner.arg for inner in ast.walk(function.args) if isinstance(inner, ast.arg)}
    return frozenset((*parameters, *bound_names(function.body)))


def _import_refusals(node: ast.Import | ast.ImportFrom, *, lazy: bool) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, ast.ImportFrom) and node.level:
        yield "import", "is relative", "Write the whole name of the module"
        return
    for alias in node.names:
        source = alias.name if isinstance(node, ast.Import) else node.module or ""
        if alias.asname is not None:
            yield alias.asname, "`as` gives one thing two names in one file", "Import it under its own name"
        if alias.name == "*":
            yield source, "a star hides what is imported", "Name what is used"
        yield from _source_refusals(source, alias.name, plain=isinstance(node, ast.Import), lazy=lazy)


def _source_refusals(source: str, item: str, *, plain: bool, lazy: bool) -> Iterator[tuple[str, str, str]]:
    package = package_of(source)
    if package in PROJECT_PACKAGES:
        if plain:
            yield source, "is bound as a module, and a single file has none", f"Write `from {source} import …`"
    elif source == "__future__":
        yield source, "would change every other module in the file", "Do without it"
    elif source in DATA_MODULES or f"{source}.{item}" in DATA_MODULES:
        yield source, *_NO_FILE
    elif package == HOST_PACKAGE:
        if source not in HOST_MODULES:
            permitted = ", ".join(sorted(HOST_MODULES))
            yield source, "is not what plugins may ask of Open WebUI", f"Of Open WebUI, use {permitted}"
        elif not lazy:
            yield source, "exists in Open WebUI only", "Import it inside the function that needs it"
    elif package not in sys.stdlib_module_names and package not in THIRD_PARTY:
        permitted = ", ".join(sorted(THIRD_PARTY))
        yield source, "is not sure to be in Open WebUI", f"Use the standard library or one of {permitted}"


def _name_problems(module: SourceModule) -> Iterator[Problem]:
    for node in ast.walk(module.tree):
        line: int = getattr(node, "lineno", 1)
        match node:
            case ast.Global():
                yield _at(module.path, line, "global", "makes module state", "Keep it in an object with an owner")
            case ast.Name(id=name) if name in FORBIDDEN_BUILTINS:
                yield _at(module.path, line, name, *_NAME_AS_TEXT)
            case ast.Call(func=ast.Name(id="vars"), args=[]):
                yield _at(module.path, line, "vars", *_NAME_AS_TEXT)
            case (
                ast.Name(id=name)
                | ast.Attribute(attr=name)
                | ast.alias(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ) if name in FORBIDDEN_NAMES:
                yield _at(module.path, line, name, *FORBIDDEN_NAMES[name])
            case _:
                pass


def _annotation_problems(module: SourceModule) -> Iterator[Problem]:
    for node in ast.walk(module.tree):
        match node:
            case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
                pass
            case ast.FunctionDef(returns=annotation) | ast.AsyncFunctionDef(returns=annotation):
                pass
            case _:
                continue
        for string in _strings_in_annotation(annotation):
            reason = "an annotation in quotes hides the names it uses"
            yield _at(module.path, string.lineno, repr(string.value), reason, "Define the name first, or use Self")


def _strings_in_annotation(annotation: ast.AST | None) -> Iterator[ast.Constant]:
    match annotation:
        case None | ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal")):
            return
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[annotated, *_])):
            yield from _strings_in_annotation(annotated)  # what follows it are values, not types
        case ast.Constant(value=str()):
            yield annotation
        case _:
            for child in ast.iter_child_nodes(annotation):
                yield from _strings_in_annotation(child)


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"}


def _at(path: str, line: int, key: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=f"{path}:{line}", reason=reason, remedy=remedy)
