"""Flattens an entry module and all it imports of this project into one file, which people paste into Open WebUI.

    python -m plugins.flatten [--check] [--root FOLDER]

The modules follow one another, imported ones first, as they were written; a definition that nothing reaches is left
out, so that a reviewer reads what runs and no more. The same sources give the same bytes. Refusals are in
`flatten_checks` and `flatten_tools`; exit codes are 0 done or equal, 1 refused or different, 2 usage or unreadable.
"""

import argparse
import ast
import difflib
import heapq
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from plugins.flatten_checks import (
    KNOWN_NAMES,
    entry_problems,
    module_problems,
    program_problems,
    rewritten_texts,
    text_problems,
)
from plugins.flatten_source import (
    SourceModule,
    Statement,
    bound_names,
    imported_names,
    late_imports,
    top_level_statements,
    undefined_names,
)
from plugins.flatten_text import rendered
from plugins.flatten_tools import TOOLS_CLASS, tools_problems
from policy.errors import Problem

DIFF_LINES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file to generate."""

    entry: str
    """The module it starts at."""
    output: str
    """Where the file goes, relative to the root."""
    class_name: str
    """The class that Open WebUI looks for in it."""


TARGETS = (
    Target(entry="plugins.tool", output="plugins/generated/tools/run_code.py", class_name=TOOLS_CLASS),
    Target(entry="plugins.function", output="plugins/generated/functions/run_code.py", class_name="Action"),
)


class FlattenError(Exception):
    """The sources cannot become one file; carries every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnreadableError(FlattenError):
    """A source is missing, or is not Python."""


def flatten(root: Path, target: Target) -> str:
    """Return the text of the target's file.

    Raises:
        UnreadableError: a source cannot be read.
        FlattenError: the sources break a rule.
    """
    project, version = _project(root)
    modules = in_import_order(_reached_modules(root, target.entry))
    entry = modules[-1]
    problems = [problem for module in modules for problem in module_problems(module, is_entry=module is entry)]
    problems += (*entry_problems(entry, version=version), *program_problems(modules), *tools_problems(modules))
    if not any(target.class_name in bound_names(module.tree.body) for module in modules):
        remedy = f"Define it in {entry.path}"
        problems.append(_problem(entry.path, 1, target.class_name, "Open WebUI looks for this class", remedy))
    if problems:
        raise FlattenError(problems)
    text = rendered(modules, kept_statements(modules), title=f"{project} {version}")
    _check_output(text, target.output)
    return text


def in_import_order(modules: Mapping[str, SourceModule]) -> tuple[SourceModule, ...]:
    """Return the modules so that each follows all it imports; the first by name where several may come next."""
    imports = {
        name: sorted({imported.module for imported in imported_names(module) if imported.is_project})
        for name, module in sorted(modules.items())
    }
    sorter = TopologicalSorter(imports)
    try:
        sorter.prepare()
    except CycleError as error:
        raise FlattenError([_cycle_problem(modules, error.args[1])]) from error
    ordered: list[SourceModule] = []
    ready: list[str] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready, name)
        name = heapq.heappop(ready)
        ordered.append(modules[name])
        sorter.done(name)
    return tuple(ordered)


def kept_statements(modules: Sequence[SourceModule]) -> dict[str, list[Statement]]:
    """Return each module's statements that run or are reached out of the last module, which is kept whole."""
    statements = {module.name: top_level_statements(module)[0] for module in modules}
    defining: dict[str, list[tuple[str, Statement]]] = {}
    for name, members in statements.items():
        for statement in members:
            for bound in statement.names:
                defining.setdefault(bound, []).append((name, statement))
    visible = {module.name: _visible_names(module) for module in modules}
    entry = modules[-1].name
    waiting = [(name, one) for name, members in statements.items() for one in members if one.required or name == entry]
    kept: set[tuple[str, int]] = set()
    while waiting:
        name, statement = waiting.pop()
        if (name, statement.line) not in kept:
            kept.add((name, statement.line))
            for used in statement.uses & visible[name]:
                waiting.extend(defining.get(used, ()))
    return {name: [one for one in members if (name, one.line) in kept] for name, members in statements.items()}


def _visible_names(module: SourceModule) -> frozenset[str]:
    return frozenset(bound_names(module.tree.body)) | {imported.bound for imported in imported_names(module)}


def _project(root: Path) -> tuple[str, str]:
    path = root / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return str(project["name"]), str(project["version"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        remedy = "Run it at the root of the checkout, or name that with --root"
        raise UnreadableError([_problem(path.name, 1, "project", f"cannot be read ({error})", remedy)]) from error


def _reached_modules(root: Path, entry: str) -> dict[str, SourceModule]:
    """Read the entry module and every module of the project that it imports, directly or not."""
    origin = Problem(key=entry, origin=entry, reason="there is no such module", remedy="Write it")
    waiting, modules = [(entry, origin)], dict[str, SourceModule]()
    while waiting:
        name, if_missing = waiting.pop()
        if name in modules:
            continue
        modules[name] = module = _read_module(root, name, if_missing)
        for imported in imported_names(module):
            if imported.is_project:
                reason = f"there is no module {imported.module}"
                missing = _problem(module.path, imported.line, "import", reason, "Correct the import")
                waiting.append((imported.module, missing))
    return modules


def _read_module(root: Path, name: str, if_missing: Problem) -> SourceModule:
    stem = name.replace(".", "/")
    path = next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if (root / path).is_file()), None)
    if path is None:
        raise UnreadableError([if_missing])
    try:
        text = (root / path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError([_problem(path, 1, name, f"cannot be read ({error})", "Write it as UTF-8")]) from error
    if problems := list(text_problems(path, text)):
        raise FlattenError(problems)
    try:
        tree = ast.parse(text, path)
        compile(tree, path, "exec", dont_inherit=True)  # some errors are found by the compiler alone
    except SyntaxError as error:
        reason = f"is not Python ({error.msg})"
        raise UnreadableError([_problem(path, error.lineno or 1, name, reason, "Mend it")]) from error
    return SourceModule(name=name, path=path, text=text, tree=tree, late_imports=late_imports(tree))


def _cycle_problem(modules: Mapping[str, SourceModule], cycle: list[str]) -> Problem:
    chain = cycle[:0:-1]  # the sorter names what is imported first, and the first one twice
    start = chain.index(min(chain))
    chain = [*chain[start:], *chain[:start], chain[start]]
    first = modules[chain[0]]
    line = next(imported.line for imported in imported_names(first) if imported.module == chain[1])
    reason = f"modules import one another: {' → '.join(chain)}"
    return _problem(first.path, line, "import", reason, "Move what they share into a module of its own")


def _check_output(text: str, path: str) -> None:
    """Refuse a result that does not compile, looks up a name it does not hold, or would be rewritten."""
    try:
        compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        reason = f"does not compile ({error.msg})"
        raise FlattenError([_problem(path, error.lineno or 1, "output", reason, "Mend the sources")]) from error
    problems = [
        problem for number, line in enumerate(text.split("\n"), 1) for problem in rewritten_texts(path, number, line)
    ]
    for name, line in undefined_names(text, path, KNOWN_NAMES):
        problems.append(_problem(path, line, name, "was left out though it is used", "Report it: that is our fault"))
    if problems:
        raise FlattenError(problems)


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", newline="\n", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _difference(path: Path, name: str, text: str) -> str:
    """Return the first lines of the difference between a file and what it should hold, empty where there is none."""
    committed = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    if committed == text:
        return ""
    diff = list(difflib.unified_diff(committed.split("\n"), text.split("\n"), name, "generated now", lineterm="", n=1))
    more = [f"… {len(diff) - DIFF_LINES} more lines"] if len(diff) > DIFF_LINES else []
    return "\n".join([*diff[:DIFF_LINES], *more, f"{name} differs from its sources; run make plugins."]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the generated plugins, or compare them."""
    parser = argparse.ArgumentParser(prog="python -m plugins.flatten", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files there are, and write nothing")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="the checkout (default: here)")
    options = parser.parse_args(arguments)
    try:
        texts = _texts(options.root)
        return _compared(options.root, texts) if options.check else _written(options.root, texts)
    except FlattenError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, UnreadableError) else 1
    except OSError as error:
        sys.stderr.write(f"{error.filename2 or error.filename}: cannot be read or written ({error.strerror}).\n")
        return 2


def _texts(root: Path) -> dict[str, str]:
    """Flatten every target, so that nothing is written where one is refused; problems of both are told at once."""
    texts: dict[str, str] = {}
    errors: list[FlattenError] = []
    for target in TARGETS:
        try:
            texts[target.output] = flatten(root, target)
        except FlattenError as error:
            errors.append(error)
    if errors:
        unreadable = any(isinstance(error, UnreadableError) for error in errors)
        problems = tuple(dict.fromkeys(problem for error in errors for problem in error.problems))
        raise (UnreadableError if unreadable else FlattenError)(problems)
    return texts


def _compared(root: Path, texts: Mapping[str, str]) -> int:
    differences = [_difference(root / output, output, text) for output, text in texts.items()]
    sys.stderr.write("".join(differences))
    return 1 if any(differences) else 0


def _written(root: Path, texts: Mapping[str, str]) -> int:
    for output, text in texts.items():
        _write_atomically(root / output, text)
        sys.stdout.write(f"{output}: {text.count(chr(10))} lines\n")
    return 0


def _problem(path: str, line: int, key: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=f"{path}:{line}", reason=reason, remedy=remedy)


if __name__ == "__main__":
    sys.exit(main())
