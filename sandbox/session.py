"""Everything that one process holds for running code: what policy says here, and what this host has for it.

One `Session` belongs to one command or one plugin instance, and goes with it. This is an edge: it reads the
environment, the clock and policy files, and hands the sandbox nothing of them but effective limits.
"""

import asyncio
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from policy.audit import AuditLog
from policy.effective import EffectiveLimits
from policy.environment import read_environment
from policy.errors import AuditError, PolicyError
from policy.live import LivePolicy, current_moment
from policy.load import trusted_reader
from policy.requester import Requester
from policy.settings import (
    AUDIT_LOG,
    AUDIT_REQUIRED,
    GVISOR_MIN_VERSION,
    GVISOR_PLATFORM,
    GVISOR_SHA512,
    GVISOR_URL,
    GVISOR_VERSION,
    NETWORK_MODE,
    PACKAGES_PATH,
    POLICY_KEYS,
    POLICY_PATH,
    POLICY_STATE,
    POOL_IMPORTS,
    POOL_SIZE,
    QUEUE_MAX_WAIT,
    QUEUE_SIZE,
    SettingValues,
)
from policy.situation import Situation
from sandbox.account import FAILED_OUTCOME, STOPPED_OUTCOME, RunAccount
from sandbox.announcing import Announce
from sandbox.errors import SandboxError
from sandbox.off_limits import named_folder
from sandbox.outcome import RunResult, RunUsage
from sandbox.packages import PackagesOrder
from sandbox.prepared_runner import HostChoices, PreparedRunner
from sandbox.release import ReleaseSource, release_source
from sandbox.request import LANGUAGE_NAMES, RunRequest
from sandbox.slots import QueueBounds
from sandbox.spec import NetworkMode


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

    def spent(self, usage: RunUsage) -> None:
        self.account = replace(self.account, usage=usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What the environment says, and the policy set that it names."""

    settings: SettingValues
    policy: LivePolicy


def gvisor_source(settings: SettingValues) -> ReleaseSource:
    """Which gVisor the settings want."""
    return release_source(
        machine=platform.machine(),
        url=settings[GVISOR_URL],
        version=settings[GVISOR_VERSION],
        sha512=settings[GVISOR_SHA512],
        min_version=settings[GVISOR_MIN_VERSION],
    )


def packages_order(settings: SettingValues) -> PackagesOrder | None:
    """Which packages the settings offer to code, and what other settings name that code must not see."""
    path = settings[PACKAGES_PATH]
    if path is None:
        return None
    named = ((setting, settings[setting]) for setting in (POLICY_PATH, POLICY_KEYS, POLICY_STATE, AUDIT_LOG))
    return PackagesOrder(
        path=Path(path),
        off_limits=tuple(
            named_folder(f"named by {setting.variable}", value) for setting, value in named if value and value[0] == "/"
        ),
    )


def host_choices(settings: SettingValues) -> HostChoices:
    """What the settings say of this host."""
    return HostChoices(
        gvisor=gvisor_source(settings),
        gvisor_platform=settings[GVISOR_PLATFORM],
        network_way=NetworkMode(settings[NETWORK_MODE]),
        pool_size=settings[POOL_SIZE],
        pool_imports=settings[POOL_IMPORTS],
        packages=packages_order(settings),
        queue=QueueBounds(size=settings[QUEUE_SIZE], max_wait_seconds=settings[QUEUE_MAX_WAIT].total_seconds()),
    )


class Session:
    """Runs code under what policy says at that moment."""

    def __init__(self, environ: Mapping[str, str], warn: Callable[[str], None], *, keeps_boxes: bool = False) -> None:
        """Read nothing yet.

        Args:
            environ: this process's environment.
            warn: gets sentences for administrators.
            keeps_boxes: whether boxes may wait for code; for those that run once it would be a waste.
        """
        self._environ = dict(environ)
        self._warn = warn
        self._opened: _Opened | None = None
        self._opening = threading.Lock()
        self._warned_of: tuple[str, datetime, bool] | None = None
        self._last: Situation | None = None
        self._runner = PreparedRunner(self._environ, keeps_boxes=keeps_boxes, outdated=self._outdated)

    async def __aenter__(self) -> Self:
        """Use it for as long as the context lasts."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""
        await self.close()

    async def close(self) -> None:
        """End the boxes that wait for code; a session that is only forgotten does so within a second or two."""
        await self._runner.close()

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
        if self._changed(situation):
            self._runner.retire_boxes()
        request = RunRequest(
            language=order.language,
            code=order.code,
            limits=limits,
            person=order.person,
            surface=order.requester.surface,
        )
        choices = host_choices(situation.environment.settings)
        runner = await self._runner.ready(choices, limits, announce)
        await announce(f"Running {LANGUAGE_NAMES[order.language]} code in gVisor sandbox...")
        return await runner.run(request, announce, progress.spent)

    def _limits(self, order: RunOrder) -> tuple[Situation, EffectiveLimits]:
        """What holds here, and for this order; not for the event loop, since a policy may name many destinations."""
        situation = self.situation()
        return situation, situation.limits(
            requester=order.requester,
            untrusted_person_valves=order.untrusted_person_valves,
            untrusted_admin_valves=order.untrusted_admin_valves,
        )

    def _changed(self, situation: Situation) -> bool:
        """Whether another policy holds than at the last run; boxes that were started under that one go."""
        before, self._last = self._last, situation
        return before is not None and before is not situation

    async def _outdated(self) -> bool:
        """Whether another policy holds by now than at the last run."""
        try:
            return await asyncio.to_thread(self.situation) is not self._last
        except PolicyError:
            return True
