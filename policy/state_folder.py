"""The folder in which an instance remembers policy sets, safe under many processes and through any crash.

It belongs to the running user alone (0700). Every change is read, decided and written under one lock, and the file is
replaced whole; who reads it without the lock finds the old memory or the new one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from policy.errors import Problem, StateError
from policy.locks import locked_file
from policy.remembered import FIRST_CONTACT, Remembered, parse_state, state_text
from policy.trusted_files import (
    FileRule,
    make_private_folder,
    private_folder_exists,
    read_trusted,
    replace_private_file,
)

STATE_NAME = "policies.json"
LOCK_NAME = "lock"
LOCK_SECONDS = 10
"""How long another process may hold the lock; it takes milliseconds."""
STATE_MAX_BYTES = 32 << 20
"""Room for 256 policy files of 64 KiB in base64, and for what is remembered of their ids."""

STATE_FILE = FileRule(kind="policy state", max_bytes=STATE_MAX_BYTES, owner_checked=True, secret=True, error=StateError)
"""What is believed of the past."""

Decided = TypeVar("Decided")


class Memory(Protocol):
    """Where what is remembered of policy sets is kept."""

    def read(self) -> Remembered:
        """What is remembered now."""

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, keep what is to be remembered, and give the decision."""


class ProcessMemory:
    """Remembers for as long as this process lives."""

    def __init__(self) -> None:
        self._remembered = FIRST_CONTACT

    def read(self) -> Remembered:
        """What is remembered now."""
        return self._remembered

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, and keep what is to be remembered."""
        decision, self._remembered = decide(self._remembered)
        return decision


class OnlookerMemory:
    """Shows what another memory holds, and keeps nothing: for commands that only look."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def read(self) -> Remembered:
        """What is remembered now."""
        return self._memory.read()

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, and leave it as it is."""
        return decide(self.read())[0]


class StateFolder:
    """Remembers in a folder, for all processes of this instance and for the next start."""

    def __init__(self, folder: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._folder = folder
        self._lock_seconds = lock_seconds
        self.file = folder / STATE_NAME

    def read(self) -> Remembered:
        """What is remembered now; nothing was where there is no file yet.

        Raises:
            StateError: it cannot be read or could not be written, is damaged, or others could have written it.
        """
        return self._read_file() if private_folder_exists(self._folder, STATE_FILE) else FIRST_CONTACT

    def change(self, decide: Callable[[Remembered], tuple[Decided, Remembered]]) -> Decided:
        """Decide from what is remembered, keep what is to be remembered, and give the decision.

        Raises:
            StateError: it cannot be read, written, trusted or locked; then what is remembered is as it was.
        """
        make_private_folder(self._folder, STATE_FILE)
        with locked_file(self._folder / LOCK_NAME, STATE_FILE, self._lock_seconds):
            before = self._read_file()
            decision, after = decide(before)
            if after != before:
                replace_private_file(self.file, state_text(after), STATE_FILE)
        return decision

    def _read_file(self) -> Remembered:
        try:
            untrusted = read_trusted(self.file, STATE_FILE)
        except StateError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return FIRST_CONTACT
            raise
        try:
            return parse_state(untrusted)
        except ValueError as error:
            remedy = "Restore it from a backup; or move it away and begin anew, without memory of earlier serials"
            raise StateError((_state_problem(self.file, f"it is damaged: {error}", remedy),)) from error


def _state_problem(place: Path, reason: str, remedy: str) -> Problem:
    return Problem(key=STATE_FILE.kind, origin=str(place), reason=reason, remedy=remedy)
