"""Runners whose boxes wait for code, for tests; and how many of them wait at this moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sandbox.pool import Pool
from sandbox.request import RunRequest
from sandbox.run_notes import RunState, read_run_note
from sandbox.runner import Runner
from tests.sandbox.conftest import PATIENCE, Place, eventually, request_of


def states_of_runs(place: Place) -> list[RunState]:
    """How far each run at a place has come, by its own note."""
    with suppress(FileNotFoundError):  # one may be going at this moment, or none was ever there
        notes = map(read_run_note, place.runs.iterdir())
        return [note.state for note in notes if note is not None]
    return []


def waiting_boxes(place: Place) -> int:
    return states_of_runs(place).count(RunState.WAITING)


async def up_to_date() -> bool:
    return False


@asynccontextmanager
async def pooled_runner(
    place: Place, *, size: int = 1, like: RunRequest | None = None, settled: bool = True
) -> AsyncIterator[Runner]:
    """A runner for which so many boxes wait already.

    Args:
        place: where.
        size: how many.
        like: a run of the kind that they wait for.
        settled: whether to wait until that run is gone.
    """
    pool = Pool(place.equipment.folder / "slots", size=size, outdated=up_to_date)
    async with Runner(place.equipment, pool=pool) as runner:
        await runner.run(like or request_of("pass"))
        await eventually(lambda: waiting_boxes(place) == size, 20 * PATIENCE)
        if settled:
            await eventually(lambda: len(states_of_runs(place)) == size, 5 * PATIENCE)
        await asyncio.sleep(0)
        yield runner
