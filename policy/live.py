"""The policy set of one process, which follows the files: a change holds for the next run, without a restart.

Whether anything changed is told by `stat`, which costs microseconds. What changed is read, verified and judged anew,
and only then put in place of what stood; whoever already has a situation keeps it.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from policy.environment import EnvironmentLayer
from policy.errors import Problem, SetRefusedError, StateError
from policy.load import (
    PolicyReader,
    PolicySet,
    read_keys,
    read_set,
    refuse_contradictions,
    refuse_missing_path,
    trusted_reader,
    verified_again,
)
from policy.refusals import RefusalCode, refused
from policy.remembered import Remembered
from policy.settings import POLICY_KEYS, POLICY_PATH, POLICY_STATE
from policy.situation import Situation
from policy.standing import Standing, standing
from policy.state_folder import STATE_NAME, Memory, OnlookerMemory, ProcessMemory, StateFolder
from policy.trusted_files import CONFIGMAP_DATA, POLICY_SUFFIXES, PUBLIC_KEY_SUFFIXES

SETTLED_NANOSECONDS = 50_000_000
"""How old a change must be before a look at the files counts: within a tick of the kernel's clock, a second change of
the same size would look like the first."""
SETTLED_WHOLE_SECONDS = 2_100_000_000
"""The same where a file system keeps whole seconds, FAT every second one."""

MOST_READINGS = 5
"""How often files that change while they are read are read anew."""

Look = tuple[object, ...]
"""What `stat` says of every file that policy comes from; equal looks mean equal files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What stood when the files were last read."""

    look: Look
    """The files, just before they were read."""
    settled: bool
    """Whether a later change cannot have escaped the look."""
    since: datetime
    """When it was judged."""
    standing: Standing
    """The verdict."""
    outcome: Situation | SetRefusedError
    """What holds, or why nothing runs."""


class LivePolicy:
    """What holds on this instance now."""

    def __init__(
        self,
        environment: EnvironmentLayer,
        *,
        reader: PolicyReader,
        now: Callable[[], datetime],
        memory: Memory | None = None,
    ) -> None:
        """Follow the files that the environment names.

        Args:
            environment: what the environment says; it does not change while a process lives.
            reader: how files are read.
            now: the clock, with an offset.
            memory: where it is kept what was accepted; by default as the environment says.

        Raises:
            ConfigurationError: the environment contradicts itself.
        """
        refuse_contradictions(environment.settings)
        self._environment = environment
        self._reader = reader
        self._now = now
        self._memory = memory or memory_of(environment)
        self._judging = threading.Lock()
        self._judged: _Judged | None = None
        self._alone = Situation(environment=environment, documents=())

    def situation(self) -> Situation:
        """What holds at this moment.

        Raises:
            SetRefusedError: the policy set is refused, and no earlier one may hold in its place.
        """
        settings = self._environment.settings
        if settings[POLICY_PATH] is None:
            read_keys(settings, self._reader)  # keys that could verify nothing are an error, though nothing asks yet
            refuse_missing_path(settings)
            return self._alone
        outcome = self._current().outcome
        if isinstance(outcome, SetRefusedError):
            raise SetRefusedError(outcome.code, outcome.problems)
        return outcome

    def standing(self) -> Standing | None:
        """The verdict on the policy set; `None` where the environment names none.

        Raises:
            SetRefusedError: what was accepted before cannot be told, so there is no verdict.
        """
        return None if self._environment.settings[POLICY_PATH] is None else self._current().standing

    def _current(self) -> _Judged:
        judged = self._judged
        if judged is not None and _still(judged, self._look(), self._now()):
            return judged
        with self._judging:
            # Others may have judged while this thread waited: the moment is taken anew, or it would be before theirs.
            judged, look = self._judged, self._look()
            if judged is None or not _still(judged, look, self._now()):
                judged = self._judged = self._judge(look)
            return judged

    def _judge(self, look: Look) -> _Judged:
        settings, path = self._environment.settings, Path(self._environment.settings[POLICY_PATH] or "")
        settled = all_settled(_changes(look), time.time_ns())

        def decide(remembered: Remembered) -> tuple[tuple[datetime, Standing], Remembered]:
            now = self._now()  # once the memory's lock is ours: what it holds may be younger than the wait for it
            last_good = {f"{name} (as last accepted)": data for name, data in remembered.last_good.items()}
            verdict = standing(
                lambda: self._steady_set(path),
                lambda: verified_again(last_good, settings, self._reader),
                remembered,
                settings,
                now,
            )
            return (now, verdict), verdict.remembered

        try:
            now, verdict = self._memory.change(decide)
        except StateError as error:
            raise refused([(RefusalCode.STATE_INVALID, problem) for problem in error.problems]) from error
        return _Judged(look=look, settled=settled, since=now, standing=verdict, outcome=self._outcome(verdict))

    def _steady_set(self, path: Path) -> PolicySet:
        """The set at a path, all of one generation: read anew while files change under the reading.

        Raises:
            SetRefusedError: it is refused, or changes each time that it is read.
        """
        for _ in range(MOST_READINGS):
            before = self._look()
            try:
                found: PolicySet | SetRefusedError = read_set(path, self._environment.settings, self._reader)
            except SetRefusedError as error:
                found = error
            if self._look() != before:
                continue
            if isinstance(found, SetRefusedError):
                raise found
            return found
        reason = f"it changed {MOST_READINGS} times while it was read"
        problem = Problem(key="policy set", origin=str(path), reason=reason, remedy="Ship a whole set at once")
        raise refused([(RefusalCode.UNREADABLE, problem)])

    def _outcome(self, verdict: Standing) -> Situation | SetRefusedError:
        """What holds by a verdict; the situation that held, where it is the same, with all that it has resolved."""
        if isinstance(verdict.in_force, SetRefusedError):
            return verdict.in_force
        documents, stand_in = verdict.in_force.documents, verdict.stand_in
        now = Situation(environment=self._environment, documents=documents, stand_in=stand_in)
        return self._judged.outcome if self._judged is not None and self._judged.outcome == now else now

    def _look(self) -> Look:
        settings = self._environment.settings
        policy, keys, state = settings[POLICY_PATH], settings[POLICY_KEYS], settings[POLICY_STATE]
        parts = [*_seen(policy, POLICY_SUFFIXES)] if policy else []
        if keys is not None and keys.startswith("/"):
            parts += _seen(keys, PUBLIC_KEY_SUFFIXES)
        if state is not None:
            parts.append(_status(f"{state}/{STATE_NAME}"))
        return tuple(parts)


def onlooker(environment: EnvironmentLayer) -> LivePolicy:
    """What holds on this instance, for a command that only looks: nothing is remembered of it.

    Raises:
        ConfigurationError: the environment contradicts itself.
    """
    memory = OnlookerMemory(memory_of(environment))
    return LivePolicy(environment, reader=trusted_reader(), now=current_moment, memory=memory)


def current_moment() -> datetime:
    """The clock of this host, with an offset."""
    return datetime.now(UTC)


def memory_of(environment: EnvironmentLayer) -> Memory:
    """Where the environment says that accepted sets are remembered."""
    folder = environment.settings[POLICY_STATE]
    return ProcessMemory() if folder is None else StateFolder(Path(folder))


def all_settled(changes: Iterable[int], now: int) -> bool:
    """Whether files that changed at these moments, in nanoseconds, cannot have changed again within the same tick."""
    return all(
        now - changed > (SETTLED_NANOSECONDS if changed % 10**9 else SETTLED_WHOLE_SECONDS) for changed in changes
    )


def _still(judged: _Judged, look: Look, now: datetime) -> bool:
    """Whether what was judged is what stands now."""
    return judged.settled and judged.look == look and judged.since <= now < judged.standing.until


def _seen(path: str, suffixes: tuple[str, ...]) -> Iterator[object]:
    """What `stat` says of a file, or of a folder and the files in it that are read."""
    yield _status(path)
    if os.path.islink(f"{path}/{CONFIGMAP_DATA}"):  # noqa: PTH114 -- a third of pathlib's time, for each run
        path = f"{path}/{CONFIGMAP_DATA}"  # what is read is this generation, whatever links lead into it
        yield _status(path)
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(suffixes))
    except OSError as error:
        yield error.errno
        return
    for name in names:
        yield name
        yield _status(f"{path}/{name}")


def _status(path: str) -> object:
    try:
        status = os.stat(path)  # noqa: PTH116 -- half the time of pathlib's, for each run
    except OSError as error:
        return error.errno
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _changes(look: Look) -> Iterator[int]:
    """When each file in a look last changed, in nanoseconds of the kernel's clock."""
    return (seen[-1] for seen in look if isinstance(seen, tuple))
