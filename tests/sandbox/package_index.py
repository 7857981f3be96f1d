"""An index of one package, and pip as an administrator offers it to boxes."""

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.packages import found_packages
from sandbox.tree_plan import Interpreter
from tests.sandbox.conftest import Place
from tests.sandbox.egress_world import Authority, World, served, web

INSTALL_AND_IMPORT = """
cat > /tmp/authority.pem <<END
{authority}END
python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --cert /tmp/authority.pem \
    --retries 0 --index-url https://index.example/simple/ --target /tmp/installed greeting 2>&1 | tail -n 1
PYTHONPATH=/tmp/installed python3 -c 'import greeting; print(greeting.WORDS)'
"""
_WHEEL_NAME = "greeting-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def pip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pip, as a folder of packages that an administrator offers."""
    found = importlib.util.find_spec("ensurepip._bundled")
    bundled = (
        [path for place in (found.submodule_search_locations or ()) for path in Path(place).glob("pip-*.whl")]
        if found
        else []
    )
    if not bundled:
        pytest.skip("this Python comes without pip")
    folder = tmp_path_factory.mktemp("offered") / "packages"
    with zipfile.ZipFile(bundled[0]) as archive:
        archive.extractall(folder)
    folder.chmod(0o755)
    return folder


def offering(place: Place, folder: Path) -> Place:
    """The place, whose boxes have a folder of packages."""
    packages = found_packages(folder, Interpreter.current().library_name)
    return Place(equipment=replace(place.equipment, packages=packages))


@asynccontextmanager
async def package_index(world: World, authority: Authority) -> AsyncIterator[None]:
    """`index.example:443`, which has `greeting`."""
    data = _wheel()
    link = f'<a href="/files/{_WHEEL_NAME}#sha256={hashlib.sha256(data).hexdigest()}">{_WHEEL_NAME}</a>'
    listing = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
    pages = {
        "/simple/greeting/": ("200 OK\r\nContent-Type: text/html", listing),
        f"/files/{_WHEEL_NAME}": ("200 OK", data),
    }
    async with served(web(pages), tls=authority.for_server) as door:
        world.place("index.example", door, port=443)
        yield


def _wheel() -> bytes:
    """A package of one module."""
    files = {
        "greeting.py": "WORDS = 'good day'\n",
        "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "greeting-1.0.dist-info/RECORD": "greeting.py,,\n",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()
