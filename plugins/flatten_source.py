"""What the flattener knows of one module: its text, its top-level statements, the names they bind and use.

Everything is read from the syntax tree and nothing is run. A comment belongs to the statement that follows it
without a blank line between; a string under a constant belongs to that constant. What is said to be used is never
too little: every name that a statement mentions counts, and every string that spells one.
"""

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

PROJECT_PACKAGES = ("plugins", "policy", "sandbox")

PURE_DECORATORS = frozenset(
    {
        *("abstractmethod", "asynccontextmanager", "cache", "contextmanager", "dataclass", "final"),
        *("lru_cache", "overload", "override", "runtime_checkable", "total_ordering", "unique"),
    }
)
"""Decorators from outside that do nothing beyond what they return, so an unused definition may go with them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
AnyImport = ast.Import | ast.ImportFrom
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModule:
    """One module of the project, as text and as tree."""

    name: str
    """Dotted name, as imports say it."""
    path: str
    """Path relative to the root, with slashes."""
    text: str
    """The whole source; lines end at LF alone."""
    tree: ast.Module
    """The same, parsed."""
    late_imports: tuple[AnyImport, ...]
    """The project's own imports inside functions, which are left out: in one file, the names are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One name that an import binds."""

    bound: str
    """The name bound."""
    module: str
    """The module named in the import."""
    item: str | None
    """The name taken out of it; None for `import module`."""
    line: int
    """Where the import stands."""

    @property
    def is_project(self) -> bool:
        """Whether it comes from one of our own packages."""
        return package_of(self.module) in PROJECT_PACKAGES

    @property
    def identity(self) -> str:
        """What the bound name stands for: two imports of one identity are the same."""
        return f"import {self.bound}" if self.item is None else f"{self.module}.{self.item}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One top-level statement that is neither an import nor the module's docstring."""

    gap: tuple[str, ...]
    """Blank lines and free-standing comments before it."""
    lines: tuple[str, ...]
    """Its source, with the comments that belong to it."""
    line: int
    """Where `lines` starts in its module."""
    names: frozenset[str]
    """Names it binds at top level."""
    uses: frozenset[str]
    """Names it mentions, at any depth, also as a string."""
    required: bool
    """Whether it has, or may have, an effect beyond the names it binds."""


def package_of(dotted: str) -> str:
    """Return the top-level package of a dotted name."""
    return dotted.partition(".")[0]


def imported_names(module: SourceModule) -> tuple[Imported, ...]:
    """Return what the module's top-level imports bind, and what its functions import of the project."""
    nodes = (*(node for node in module.tree.body if isinstance(node, AnyImport)), *module.late_imports)
    return tuple(name for node in nodes for name in _bound_by_import(node))


def late_imports(tree: ast.Module) -> tuple[AnyImport, ...]:
    """Return the imports of the project's own modules that do not stand at the top level."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, AnyImport) and node not in tree.body)
    return tuple(node for node in nodes if any(name.is_project for name in _bound_by_import(node)))


def _bound_by_import(node: AnyImport) -> Iterator[Imported]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield Imported(bound=package_of(alias.name), module=alias.name, item=None, line=node.lineno)
        else:
            yield Imported(bound=alias.name, module=node.module or "", item=alias.name, line=node.lineno)


class _Binder(ast.NodeVisitor):
    """Collects the names bound in one scope, with the line of the first binding; does not enter inner scopes."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def _bind(self, name: str | None, line: int) -> None:
        if name is not None:
            self.found.setdefault(name, line)

    def _outside_of_body(self, node: Function | ast.ClassDef | ast.Lambda) -> None:
        # A walrus in a decorator, a default or a base binds in the scope around.
        for field, value in ast.iter_fields(node):
            for part in value if isinstance(value, list) else [value]:
                if field != "body" and isinstance(part, ast.AST):
                    self.visit(part)

    def _comprehension(self, node: Comprehension) -> None:
        # Its loop variables are its own; a walrus in it binds in the scope around.
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self._bind(inner.target.id, inner.lineno)

    def visit(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._bind(node.name, node.lineno)
                self._outside_of_body(node)
                return
            case ast.Lambda():
                self._outside_of_body(node)
                return
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node)
                return
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                self._bind(name, node.lineno)
            case ast.ExceptHandler(name=caught):
                self._bind(caught, node.lineno)
            case ast.MatchAs(name=matched) | ast.MatchStar(name=matched) | ast.MatchMapping(rest=matched):
                self._bind(matched, node.lineno)
            case _:
                pass
        self.generic_visit(node)


def bound_names(nodes: list[ast.stmt]) -> dict[str, int]:
    """Return the names that statements of one scope bind, imports apart, each with its first line."""
    binder = _Binder()
    for node in nodes:
        binder.visit(node)
    return binder.found


def undefined_names(text: str, path: str, known: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield each name that is looked up at top level, is bound nowhere there and is not known, with its line."""
    top = symtable.symtable(text, path, "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    loaded = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    tables = top.get_children()
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        loaded |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
    for name in sorted(loaded - defined - known):
        yield name, lines.get(name, 1)


def first_line(node: ast.stmt) -> int:
    """Return the first line of a statement, its decorators included."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def last_line(node: ast.stmt) -> int:
    """Return the last line of a statement."""
    return node.end_lineno or node.lineno


def docstring_node(tree: ast.Module) -> ast.stmt | None:
    """Return the module's docstring as a statement, or None."""
    return tree.body[0] if tree.body and _is_string(tree.body[0]) else None


def top_level_statements(module: SourceModule) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """Return the module's statements in order, and the comments after the last one."""
    lines = module.text.removesuffix("\n").split("\n")
    external = frozenset(name.bound for name in imported_names(module) if not name.is_project)
    left_out = _late_lines(module, lines)
    statements: list[Statement] = []
    gap: list[str] = []
    position = 0  # lines before it have been dealt with
    for group in _groups(module.tree):
        start = _with_comments_above(lines, first_line(group[0]) - 1, position)
        end = _with_comments_inside(lines, last_line(group[-1]))
        gap.extend(lines[position:start])
        position = end
        if not _is_left_out(group[0], module.tree):
            text = tuple(line for number, line in enumerate(lines[start:end], start) if number not in left_out)
            statements.append(_statement(group[0], tuple(gap), text, start + 1, external))
            gap = []
    return tuple(statements), (*gap, *lines[position:])


def _statement(
    node: ast.stmt, gap: tuple[str, ...], lines: tuple[str, ...], line: int, external: frozenset[str]
) -> Statement:
    names = frozenset(bound_names([node]))
    return Statement(
        gap=gap,
        lines=lines,
        line=line,
        names=names,
        uses=_mentioned(node),
        required=not _only_binds(node, external) or any(name.startswith("__") for name in names),
    )


def _late_lines(module: SourceModule, lines: list[str]) -> frozenset[int]:
    """Which lines, counted from 0, are late imports, or blank behind one."""
    taken = {number for node in module.late_imports for number in range(node.lineno - 1, last_line(node))}
    return frozenset(taken | {number + 1 for number in taken if not "".join(lines[number + 1 : number + 2]).strip()})


def _groups(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Yield each statement, a constant together with the string that documents it."""
    group: list[ast.stmt] = []
    for node in tree.body:
        if _is_string(node) and len(group) == 1 and isinstance(group[0], ast.Assign | ast.AnnAssign):
            yield [*group, node]
            group = []
            continue
        if group:
            yield group
        group = [node]
    if group:
        yield group


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_left_out(node: ast.stmt, tree: ast.Module) -> bool:
    return isinstance(node, AnyImport) or node is docstring_node(tree)


def _with_comments_above(lines: list[str], start: int, floor: int) -> int:
    while start > floor and lines[start - 1].startswith("#"):
        start -= 1
    return start


def _with_comments_inside(lines: list[str], end: int) -> int:
    """Move past indented comments: they are the end of the block above."""
    while end < len(lines) and lines[end][:1] == " " and lines[end].lstrip().startswith("#"):
        end += 1
    return end


def _mentioned(node: ast.stmt) -> frozenset[str]:
    inner = tuple(ast.walk(node))
    names = {each.id for each in inner if isinstance(each, ast.Name)}
    # A forward reference such as `Union["Limit", int]` is only a string.
    return frozenset(
        names | {each.value for each in inner if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    )


def _only_binds(node: ast.stmt, external: frozenset[str]) -> bool:
    """Whether nothing is lost with the statement if nobody uses its names.

    An assignment to plain names is taken to be a constant: the project does nothing else at import time.
    """
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return all(_is_pure(decorator, external) for decorator in node.decorator_list)
        case ast.Assign():
            return all(_is_plain_target(target) for target in node.targets)
        case ast.AnnAssign():
            return _is_plain_target(node.target)
        case _:
            return False


def _is_plain_target(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return all(_is_plain_target(element) for element in target.elts)
    return isinstance(target, ast.Name)


def _is_pure(decorator: ast.expr, external: frozenset[str]) -> bool:
    named = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return package_of(named) in external and named.rpartition(".")[2] in PURE_DECORATORS
