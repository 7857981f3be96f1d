"""Real containers for the claims of docs/setup.md: run by `make containers`, and left alone by `make test`."""

from pathlib import Path

import pytest

from tests.containers.engines import Engine, docker, make_skeleton, podman


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collect these only where somebody names this folder: they take minutes."""
    here = Path(__file__).parent
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(here) for path in named) else True


@pytest.fixture(scope="session", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Podman, and Docker where a daemon answers."""
    skeleton = make_skeleton(tmp_path_factory.mktemp("skeleton"))
    cache = tmp_path_factory.mktemp("cache")
    if request.param == "podman":
        return podman(skeleton, cache)
    found = docker(skeleton, cache)
    if found is None:
        pytest.skip("no Docker daemon answers")
    return found
