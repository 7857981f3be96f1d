"""Everything that one process holds for running code: what policy says here, and what this host has for it.

One `Session` belongs to one command or one plugin instance, and goes with it. This is an edge: it reads the
environment, the clock and policy files, and hands the sandbox nothing of them but effective limits.
"""

import asyncio
import platform
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from policy.audit import AuditLog
from policy.effective import EffectiveLimits
from policy.environment import read_environment
from policy.errors import AuditError, PolicyError
from policy.limits import AUTO_INSTALL
from policy.live import LivePolicy, current_moment
from policy.load import trusted_reader
from policy.requester import Requester
from policy.settings import (
    AUDIT_LOG,
    AUDIT_REQUIRED,
    GVISOR_MIN_VERSION,
    GVISOR_SHA512,
    GVISOR_URL,
    GVISOR_VERSION,
    SettingValues,
)
from policy.situation import Situation
from sandbox.account import FAILED_OUTCOME, STOPPED_OUTCOME, RunAccount
from sandbox.equipment import Equipment, found_runsc, installed_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.gvisor import Runsc
from sandbox.leases import RUNS_FOLDER, remove_leftovers
from sandbox.outcome import RunResult
from sandbox.release import ReleaseSource, release_source
from sandbox.request import LANGUAGE_NAMES, RunRequest
from sandbox.runner import Runner

Announce = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """What somebody wants to run, before policy has said what holds for it."""

    language: str
    """`python` or `bash`."""
    code: str
    """The person's text."""
    person: str
    """Whose run it is."""
    requester: Requester
    """Who asks, as far as it can be determined; scopes of policy files are held against it."""
    untrusted_person_valves: Mapping[str, object]
    """What the person's valves hold, by valve name."""
    untrusted_admin_valves: Mapping[str, object]
    """What the plugin's valves hold, by valve name."""


@dataclass(slots=True)
class _Progress:
    """How far one run has come; the account of it grows on the way."""

    account: RunAccount
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What the environment says, and the policy set that it names."""

    settings: SettingValues
    policy: LivePolicy


class Session:
    """Runs code under what policy says at that moment."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None]) -> None:
        self._environ = dict(environ)
        self._warn = warn
        self._opened: _Opened | None = None
        self._opening = threading.Lock()
        self._warned_of: tuple[str, datetime, bool] | None = None
        self._equipment: Equipment | None = None
        self._preparing = asyncio.Lock()

    def situation(self) -> Situation:
        """What holds here now: policy files as they are at this moment, the environment as it was at the start.

        Raises:
            PolicyError: the environment or the policy set cannot be used.
        """
        situation = self._environment().policy.situation()
        stand_in = situation.stand_in
        standing = None if stand_in is None else (stand_in.refusal.code, stand_in.until, stand_in.locked_down)
        if stand_in is not None and standing != self._warned_of:
            self._warn(stand_in.sentence)
        self._warned_of = standing
        return situation

    async def run(self, order: RunOrder, announce: Announce) -> RunResult:
        """Run code to its end, announcing each step, and leave a line in the audit log; refused and stopped runs too.

        Raises:
            PolicyError: no limits come out of environment and policy files, or the audit log is required and cannot be
                written; then a result that there is already is withheld.
            SandboxError: the run was refused, or could not be carried out.
        """
        await announce("Checking if environment supports sandboxing...")
        log = await asyncio.to_thread(self._checked_log)
        account = RunAccount(person=order.person, requester=order.requester, language=order.language, code=order.code)
        progress = _Progress(account)
        try:
            result = await self._run(order, progress, announce)
        except (PolicyError, SandboxError) as refusal:
            await self._noted(log, progress.account.of_refusal(refusal))
            raise
        except asyncio.CancelledError:
            await self._noted(log, progress.account.of_end(STOPPED_OUTCOME))
            raise
        except Exception:
            await self._noted(log, progress.account.of_end(FAILED_OUTCOME))
            raise
        result = replace(
            result,
            surface=order.requester.surface,
            policy_refusal=progress.account.policy_refusal,
            notices=(*progress.notices, *result.notices),
        )
        line = await self._noted(log, progress.account.of_result(result), withhold=True)
        return replace(result, audit_hash=line)

    def _environment(self) -> _Opened:
        """What the environment says, read once."""
        with self._opening:
            if self._opened is None:
                environment = read_environment(self._environ)
                for warning in environment.warnings:
                    self._warn(warning)
                policy = LivePolicy(environment, reader=trusted_reader(), now=current_moment)
                self._opened = _Opened(settings=environment.settings, policy=policy)
            return self._opened

    def _checked_log(self) -> AuditLog | None:
        """The audit log, if the environment names one.

        Raises:
            PolicyError: the environment cannot be used, or the log is required and cannot be written.
        """
        settings = self._environment().settings
        path = settings[AUDIT_LOG]
        if path is None:
            return None
        log = AuditLog(Path(path), current_moment)
        if settings[AUDIT_REQUIRED]:
            log.check()
        return log

    async def _noted(self, log: AuditLog | None, account: Mapping[str, Any], *, withhold: bool = False) -> str | None:
        """Append the account, also where whoever waited for it is gone; the hash of its line, where there is one.

        Raises:
            AuditError: it cannot be written, the log is required, and a result can be withheld for that.
        """
        if log is None:
            return None
        line = await asyncio.shield(asyncio.to_thread(self._appended, log, account))
        if isinstance(line, AuditError) and withhold and self._environment().settings[AUDIT_REQUIRED]:
            raise line
        return None if isinstance(line, AuditError) else line

    def _appended(self, log: AuditLog, account: Mapping[str, Any]) -> str | AuditError:
        """The hash of the account's line; where it cannot be written, that is said even if nobody waits any more."""
        try:
            return log.append(account)
        except AuditError as error:
            self._warn(f"A run is missing from the audit log: {error}")
            return error  # not raised: where nobody waits any more, nobody would hear of it

    async def _run(self, order: RunOrder, progress: _Progress, announce: Announce) -> RunResult:
        situation, limits = await asyncio.to_thread(self._limits, order)
        stand_in = situation.stand_in
        refusal = None if stand_in is None else stand_in.refusal.code
        progress.account = replace(progress.account, limits=limits, policy_refusal=refusal)
        if stand_in is not None and stand_in.locked_down:
            progress.notices = (f"The lockdown values hold: the policy set is refused ({refusal}).",)
        request = RunRequest(language=order.language, code=order.code, limits=limits, person=order.person)
        async with self._preparing:
            equipment = await self._prepared(situation, limits, announce)
        await announce(f"Running {LANGUAGE_NAMES[order.language]} code in gVisor sandbox...")
        return await Runner(equipment).run(request)

    def _limits(self, order: RunOrder) -> tuple[Situation, EffectiveLimits]:
        """What holds here, and for this order; not for the event loop, since a policy may name many destinations."""
        situation = self.situation()
        return situation, situation.limits(
            requester=order.requester,
            untrusted_person_valves=order.untrusted_person_valves,
            untrusted_admin_valves=order.untrusted_admin_valves,
        )

    async def _prepared(self, situation: Situation, limits: EffectiveLimits, announce: Announce) -> Equipment:
        source = gvisor_source(situation)
        runsc = self._equipment.runsc if self._equipment is not None and self._equipment.intact() else None
        runsc = runsc or await asyncio.to_thread(found_runsc, source, self._environ)
        if runsc is None:
            runsc = await self._installed(source, limits, announce)
        await announce("Initializing sandbox configuration...")
        await announce("Setting up sandbox environment...")
        if self._equipment is None or self._equipment.runsc != runsc or not self._equipment.intact():
            self._equipment = await asyncio.to_thread(prepared, runsc, self._environ, _reporter(announce))
            await remove_leftovers(self._equipment.folder / RUNS_FOLDER, self._equipment.cgroups)
        return self._equipment

    async def _installed(self, source: ReleaseSource, limits: EffectiveLimits, announce: Announce) -> Runsc:
        if limits[AUTO_INSTALL]:
            await announce("Auto-installing gVisor...")
        return await asyncio.to_thread(installed_runsc, source, self._environ, limits, _reporter(announce))


def gvisor_source(situation: Situation) -> ReleaseSource:
    """Which gVisor the settings want."""
    settings = situation.environment.settings
    return release_source(
        machine=platform.machine(),
        url=settings[GVISOR_URL],
        version=settings[GVISOR_VERSION],
        sha512=settings[GVISOR_SHA512],
        min_version=settings[GVISOR_MIN_VERSION],
    )


def _reporter(announce: Announce) -> Callable[[str], None]:
    """Announces, from the thread that works, in the loop that waits."""
    loop = asyncio.get_running_loop()

    def report(sentence: str) -> None:
        asyncio.run_coroutine_threadsafe(_announced(announce, sentence), loop)

    return report


async def _announced(announce: Announce, sentence: str) -> None:
    await announce(sentence)
