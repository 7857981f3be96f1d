"""The programs that wait inside a box: each says that its interpreter is ready, reads the code, and runs it.

They run before the person's code and in its process, so nothing they say is believed except the one sign that comes
before any of that code has been handed over.
"""

READY = b"\x00ready\n"
"""What a starter writes to standard output once its interpreter is ready for code."""

PYTHON_STARTER = """
def start():
    import builtins, linecache, os, sys, traceback
    from _sitebuiltins import Quitter, _Helper

    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    builtins.help = _Helper()
    sys.argv = ["<code>"]
    sys.stdout.reconfigure(line_buffering=True)
    os.write(1, bytes([0]) + b"ready\\n")
    source = sys.stdin.buffer.read().decode()
    linecache.cache["<code>"] = (len(source), None, source.splitlines(True), "<code>")
    scope = sys.modules["__main__"].__dict__
    del scope["start"]
    try:
        exec(compile(source, "<code>", "exec", dont_inherit=True), scope)
    except SystemExit:
        raise
    except BaseException as error:
        below = error.__traceback__.tb_next
        show = traceback.print_exception if sys.excepthook is sys.__excepthook__ else sys.excepthook
        show(type(error), error.with_traceback(below), below)
        sys.exit(1)

start()
"""
"""Runs the code as `__main__`, with tracebacks that begin at the person's first line and show their own lines."""

BASH_STARTER = r"printf '\0ready\n'; . /dev/stdin"
"""Reads all of the code before its first line runs, so the code's own commands find standard input at its end."""


def starter_command(language: str, *, python: str, bash: str) -> tuple[str, ...]:
    """The command line that waits for code of a language.

    Args:
        language: `python` or `bash`.
        python: path of the interpreter in the box.
        bash: path of the shell in the box.
    """
    if language == "python":
        return (python, "-I", "-S", "-X", "utf8", "-c", PYTHON_STARTER)
    return (bash, "--noprofile", "--norc", "-c", BASH_STARTER)
