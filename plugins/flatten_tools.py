"""What Open WebUI would offer to the language model: every public callable of an instance of `Tools`.

Only the two tools may be among them. What cannot be told from the source is refused, so a helper made public by a
base class, an assignment or an attribute set on `self` never becomes something a model may call.
Source: Open WebUI 0.12.4, `utils/tools.py`, `get_functions_from_tool`: `dir(tool)`, callable, no leading
underscore, not a class.
"""

import ast
from collections.abc import Iterator, Mapping

from plugins.flatten_source import Function, SourceModule, bound_names
from policy.errors import Problem

TOOLS_CLASS = "Tools"
TOOL_NAMES = frozenset({"run_bash_command", "run_python_code"})
HOST_ATTRIBUTES = frozenset({"UserValves", "Valves", "citation", "file_handler", "valves"})
"""Public attributes that Open WebUI itself reads from a tool; none of them may be a function."""

Classes = Mapping[str, tuple[SourceModule, ast.ClassDef]]


def tools_problems(modules: tuple[SourceModule, ...]) -> Iterator[Problem]:
    """Yield each thing by which `Tools` offers, or may offer, more than the two tools."""
    classes: Classes = {
        node.name: (module, node) for module in modules for node in module.tree.body if isinstance(node, ast.ClassDef)
    }
    waiting, seen = [TOOLS_CLASS] if TOOLS_CLASS in classes else [], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        module, node = classes[name]
        waiting.extend(base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes)
        yield from _class_problems(module, node, classes)
    for module in modules:
        yield from _patch_problems(module, seen)


def _class_problems(module: SourceModule, node: ast.ClassDef, classes: Classes) -> Iterator[Problem]:
    if node.decorator_list or node.keywords:
        reason = "a decorator or metaclass may add public methods"
        yield _problem(module, node, node.name, reason, "Do without it")
    for base in node.bases:
        if not (isinstance(base, ast.Name) and (base.id in classes or base.id == "object")):
            reason = "the methods of this base class cannot be seen"
            yield _problem(module, base, ast.unparse(base), reason, "Use a class of this project, or none")
    for statement in node.body:
        yield from _member_problems(module, statement, classes.keys() | _classes_in(node))
        if isinstance(statement, Function):
            yield from _attribute_problems(module, statement, classes.keys() | _classes_in(node))


def _classes_in(node: ast.ClassDef) -> set[str]:
    return {statement.name for statement in node.body if isinstance(statement, ast.ClassDef)}


def _member_problems(module: SourceModule, statement: ast.stmt, classes: set[str]) -> Iterator[Problem]:
    match statement:
        case ast.ClassDef() | ast.AnnAssign(value=None):
            return
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ) if _is_no_function(name, value, classes):
            return
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Call()) if all(
            isinstance(name, ast.Name) and name.id in HOST_ATTRIBUTES for name in names
        ):
            return
        case _:
            for name in bound_names([statement]):
                if not name.startswith("_") and name not in TOOL_NAMES:
                    yield _offered(module, statement, name)


def _attribute_problems(module: SourceModule, method: Function, classes: set[str]) -> Iterator[Problem]:
    values = {
        target: statement.value
        for statement in ast.walk(method)
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
    }
    for node in ast.walk(method):
        match node:
            case ast.Call(func=ast.Name(id="setattr")):
                yield _problem(module, node, "setattr", "may add public methods", "Assign to a named attribute")
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                value = values.get(node)
                safe = value is not None and _is_no_function(name, value, classes)
                if not name.startswith("_") and not safe:
                    yield _offered(module, node, name)
            case _:
                pass


def _patch_problems(module: SourceModule, patched: set[str]) -> Iterator[Problem]:
    for node in ast.walk(module.tree):
        match node:
            case (
                ast.Attribute(value=ast.Name(id=name), ctx=ast.Store())
                | ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=name), *_])
            ) if name in patched:
                reason = "is changed outside its definition"
                yield _problem(module, node, name, reason, "Write it inside the class")
            case _:
                pass


def _is_no_function(name: str, value: ast.expr, classes: set[str]) -> bool:
    if isinstance(value, ast.Name):
        return value.id in classes
    if isinstance(value, ast.Call):
        return name in HOST_ATTRIBUTES
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return True


def _offered(module: SourceModule, node: ast.stmt | ast.expr, name: str) -> Problem:
    reason = "the language model would be offered it as a tool"
    return _problem(module, node, f"{TOOLS_CLASS}.{name}", reason, "Let its name begin with an underscore")


def _problem(module: SourceModule, node: ast.stmt | ast.expr, key: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=f"{module.path}:{node.lineno}", reason=reason, remedy=remedy)
