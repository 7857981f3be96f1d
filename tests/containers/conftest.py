"""Real containers for the claims of docs/setup.md: run by `make containers`, and left alone by `make test`."""

from pathlib import Path

import pytest

from tests.containers.engines import Engine, docker_answers, made_engine
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE

ENGINES = ("podman", "docker") if docker_answers() else ("podman",)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collect these only where somebody names this folder: they take minutes."""
    here = Path(__file__).parent
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(here) for path in named) else True


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where skeletons and private folders of containers are; a user namespace's root must get there."""
    made = tmp_path_factory.mktemp("containers")
    for path in (made, *made.parents[:2]):
        path.chmod(path.stat().st_mode | 0o111)
    return made


def _engines(suite: str) -> list[tuple[str, str]]:
    return [(engine, suite) for engine in ENGINES]


def _named(parameter: tuple[str, str]) -> str:
    return f"{parameter[0]} with gVisor {GVISOR_OF_SUITE[parameter[1]]}"


@pytest.fixture(scope="session", params=_engines("bookworm"), ids=_named)
def old(request: pytest.FixtureRequest, folder: Path) -> Engine:
    """Each engine here with the gVisor of 2022."""
    engine, suite = request.param
    return made_engine(engine, suite, folder)


@pytest.fixture(scope="session", params=_engines("trixie"), ids=_named)
def new(request: pytest.FixtureRequest, folder: Path) -> Engine:
    """Each engine here with the gVisor of 2024."""
    engine, suite = request.param
    return made_engine(engine, suite, folder)


@pytest.fixture(scope="session", params=[*_engines("bookworm"), *_engines("trixie")], ids=_named)
def either(request: pytest.FixtureRequest, folder: Path) -> Engine:
    """Each engine here with either gVisor."""
    engine, suite = request.param
    return made_engine(engine, suite, folder)
