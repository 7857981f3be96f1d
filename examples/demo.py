"""Shows the main job, for real: two commands, one signed policy, a valve that asks for too much, and code in gVisor.

Run by `make demo`. Everything it makes stands in a temporary folder. It stops with exit code 1 where anything goes
otherwise than told here.
"""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tomli_w
from rich.console import Console

COMMANDS = Path(sys.executable).parent
CURIOUS_CODE = """\
import socket
print("Hello from inside gVisor.")
try:
    socket.create_connection(("192.0.2.1", 443), timeout=1)
    print("The network is open.")
except OSError as error:
    print(f"The network is closed: {error}")
"""
HUNGRY_CODE = """\
print("Now asking for 512 megabytes…", flush=True)
hoard = bytearray(512 << 20)
"""
ENDLESS_CODE = """\
print("Now looping for ever…", flush=True)
while True:
    pass
"""
console = Console(highlight=False, width=118)


def main() -> None:
    """Tell the story, each step with its real output."""
    with tempfile.TemporaryDirectory(prefix="sandbox-demo-") as name:
        folder = Path(name)
        lockdown = {
            "SANDBOX_NETWORKING_ALLOWED": "false",
            "SANDBOX_MAX_RAM_MEGABYTES__CEILING": "96",
            "SANDBOX_POLICY_PATH": str(folder / "acme-prod.toml"),
            "SANDBOX_POLICY_KEYS": str(folder / "ops.pub"),
        }
        _signed_policy(folder)
        _chapter("2. The administrator locks the deployment by environment variables")
        for variable, value in lockdown.items():
            console.print(f"  {variable}={value.replace(name, '…')}", markup=False)
        valves = ["--valve", "MAX_RUNTIME_SECONDS=600", "--valve", "NETWORKING_ALLOWED=true"]
        _chapter("3. A person's valves ask for 600 seconds and for the network. What holds, and who decided it?")
        _run(folder, "policy", "explain", *valves, environ=lockdown)
        _chapter("4. The person's code runs in gVisor, under exactly these limits")
        _run(folder, "sandbox", "run", *valves, "-", environ=lockdown, code=CURIOUS_CODE)
        _run(folder, "sandbox", "run", "-", environ=lockdown, code=HUNGRY_CODE, expected=137)
        _run(folder, "sandbox", "run", "-", environ=lockdown, code=ENDLESS_CODE, expected=124)
        _chapter("5. Somebody edits the signed policy: nothing runs any more, and the reason is named")
        policy = folder / "acme-prod.toml"
        policy.write_text(policy.read_text().replace("ceiling = 2\n", "ceiling = 9999\n"))
        _run(folder, "sandbox", "run", "-", environ=lockdown, code=CURIOUS_CODE, expected=125)
    console.print("\n[bold green]All of that went as told.[/] Next: docs/setup.md, or `sandbox doctor` for this host.")


def _signed_policy(folder: Path) -> None:
    _chapter("1. The platform team signs a policy file")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    document = {
        "schema": 1,
        "id": "acme-prod",
        "serial": 7,
        "issued_at": today,
        "expires_at": today + timedelta(days=90),
        "audience": ["*"],
        "limits": {"max_runtime_seconds": {"ceiling": 2, "reason": "shared host"}, "max_cpus": {"default": 0.5}},
    }
    (folder / "acme-prod.toml").write_text(tomli_w.dumps(document))
    _run(folder, "policy", "keygen", "ops")
    _run(folder, "policy", "sign", "--key", "ops.key", "acme-prod.toml")
    console.print((folder / "acme-prod.toml").read_text(), markup=False, style="dim", soft_wrap=True)


def _run(
    folder: Path, *command: str, environ: dict[str, str] | None = None, code: str | None = None, expected: int = 0
) -> None:
    """Run one of our commands, show it with its output, and stop the demo where it ends otherwise than expected."""
    console.print(f"\n[bold cyan]$[/] [bold]{' '.join(command)}[/]")
    for line in (code or "").splitlines():
        console.print(f"  │ {line}", style="dim", markup=False)
    sys.stdout.flush()
    own = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    done = subprocess.run(
        [COMMANDS / command[0], *command[1:]],
        cwd=folder,
        env={**own, **(environ or {})},
        input=code,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    console.print(done.stdout.replace(str(folder), "…").rstrip(), markup=False, soft_wrap=True)
    console.print(f"[dim]exit code {done.returncode}[/]")
    if done.returncode != expected:
        console.print(f"[bold red]It ended with exit code {done.returncode}, not {expected}.[/]")
        sys.exit(1)


def _chapter(title: str) -> None:
    console.print(f"\n[bold yellow]{title}[/]")


if __name__ == "__main__":
    main()
