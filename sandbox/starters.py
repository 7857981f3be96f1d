"""The programs that wait inside a box: each says that its interpreter is ready, reads the code, and runs it.

They run before the person's code and in its process, so nothing they say is believed except the one sign that comes
before any of that code has been handed over.
"""

from sandbox.forwarder import EGRESS_FOLDER, EGRESS_PORT, EGRESS_SOCKET, FORWARDER

READY = b"\x00ready\n"
"""What a starter writes to standard output once its interpreter is ready for code."""

PYTHON_STARTER = """
def preload(names):
    import os, sys

    nowhere = os.open("/dev/null", os.O_WRONLY)
    kept = {number: os.dup(number) for number in (1, 2)}
    for number in kept:
        os.dup2(nowhere, number)
    for name in names:
        try:
            __import__(name)
        except BaseException:
            pass
    for stream in (sys.__stdout__, sys.__stderr__):
        stream.flush()
    for number, descriptor in kept.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.close(nowhere)

def start():
    import atexit, builtins, gc, linecache, os, sys, traceback, types
    from _sitebuiltins import Quitter, _Helper

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    builtins.help = _Helper()
    packages, *imports = sys.argv[1:] or [""]
    if packages:
        sys.path.append(packages)
    if imports:
        preload(imports)
    sys.argv = ["<code>"]
    sys.stdout.reconfigure(line_buffering=True)
    gc.freeze()
    os.write(1, bytes([0]) + b"ready\\n")
    source = sys.stdin.buffer.read().decode()
    linecache.cache["<code>"] = (len(source), None, source.splitlines(True), "<code>")
    scope = sys.modules["__main__"].__dict__
    modules, say, lasting = sys.modules, print, (types.ModuleType, types.FunctionType, type)
    run_exit_functions, collect, leave = atexit._run_exitfuncs, gc.collect, os._exit
    del scope["start"], scope["preload"]
    try:
        exec(compile(source, "<code>", "exec", dont_inherit=True), scope)
        status = 0
    except SystemExit as leaving:
        status = leaving.code
        if status is None:
            status = 0
        elif not isinstance(status, int):
            say(status, file=sys.stderr)
            status = 1
    except BaseException as error:
        below = error.__traceback__.tb_next
        show = traceback.print_exception if sys.excepthook is sys.__excepthook__ else sys.excepthook
        show(type(error), error.with_traceback(below), below)
        status = 1
    if "threading" in modules:
        modules["threading"]._shutdown()
    run_exit_functions()
    for name in [name for name, value in scope.items() if not isinstance(value, lasting)]:
        scope.pop(name, None)
    collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass
        except OSError:
            status = 120
    leave(status & 255)

start()
"""
"""Runs the code as `__main__`, with tracebacks that begin at the person's first line and show their own lines.

Its arguments are a folder of packages, which may be empty, and modules to import beforehand. What these print is kept
from everybody, and one that cannot be imported is left out: whoever needs it is told when they import it.

The interpreter does at its end what code can see (threads waited for, exit functions, `__del__`, streams flushed), and
leaves the rest to gVisor, which has to take its memory back anyway: that is half of the time of a short run.
"""

BASH_STARTER = r"printf '\0ready\n'; . /dev/stdin"
"""Reads all of the code before its first line runs, so the code's own commands find standard input at its end."""


_FORWARDED = f"{FORWARDER}\nforward('{EGRESS_FOLDER}/{EGRESS_SOCKET}', {EGRESS_PORT})\ndel forward\n"
_BECOME_BASH = "import os, sys\nos.execv(sys.argv[1], sys.argv[1:])\n"


def starter_command(
    language: str,
    *,
    python: str,
    bash: str,
    packages: str = "",
    imports: tuple[str, ...] = (),
    forwards: bool = False,
) -> tuple[str, ...]:
    """The command line that waits for code of a language.

    Args:
        language: `python` or `bash`.
        python: path of the interpreter in the box.
        bash: path of the shell in the box.
        packages: folder in the box where Python looks for modules after its standard library; none where empty.
        imports: modules that Python imports before it says that it is ready.
        forwards: whether connections are carried out of the box.
    """
    forwarding = _FORWARDED if forwards else ""
    if language == "python":
        arguments = (packages, *imports) if packages or imports else ()
        return (python, "-I", "-S", "-X", "utf8", "-c", forwarding + PYTHON_STARTER, *arguments)
    waiting = (bash, "--noprofile", "--norc", "-c", BASH_STARTER)
    return (python, "-I", "-S", "-c", forwarding + _BECOME_BASH, *waiting) if forwards else waiting
