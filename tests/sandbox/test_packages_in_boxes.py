"""Packages in real boxes: read-only, after the standard library, nothing outside their folder, and numpy and its kin.

numpy, pandas and matplotlib come from the package index, once, into a folder below `build/` that is named by what
`packages-requirements.txt` holds.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from policy.requester import Requester
from sandbox.equipment import Equipment
from sandbox.errors import SandboxError
from sandbox.outcome import Outcome, RunResult
from sandbox.packages import Packages, found_packages
from sandbox.session import RunOrder, Session
from sandbox.tree import build_tree
from sandbox.tree_plan import Interpreter
from tests.sandbox.conftest import Place
from tests.sandbox.trees import silent

REQUIREMENTS = Path(__file__).with_name("packages-requirements.txt")
BUILD = Path(__file__).parents[2] / "build" / "test-packages"
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps")
INSTALL_SECONDS = 600
LIBRARY = Interpreter.current().library_name
SECRET = "canary-51d2"
LOOK_AROUND = """
import os
for folder, names, files in os.walk("/opt/packages"):
    for name in (*names, *files):
        path = os.path.join(folder, name)
        try:
            with open(path) as file:
                print(name, file.read())
        except OSError as error:
            print(name, error.strerror)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few modules, as `pip install --target` lays them out."""
    made = tmp_path / "packages"
    made.mkdir()
    made.chmod(0o755)
    for name, text in {
        "greeting.py": "WORDS = 'good day'",
        "json.py": "raise ImportError('the standard library comes first')",
        "run.pth": "import os; os.system('touch /tmp/pth')",
    }.items():
        (made / name).write_text(text)
    return made


def offering(place: Place, folder: Path) -> Place:
    return Place(equipment=replace(place.equipment, packages=found_packages(folder, LIBRARY)))


@pytest.mark.gvisor
async def test_packages_can_be_imported_and_never_before_the_standard_library(place: Place, folder: Path) -> None:
    code = "import json, greeting, sys; print(greeting.WORDS, greeting.__file__, json.__file__, sys.path[-1])"

    result = await offering(place, folder).run(code)

    home = f"/usr/lib/{LIBRARY}/json/__init__.py"
    assert result.output == f"good day /opt/packages/greeting.py {home} /opt/packages\n"


@pytest.mark.gvisor
async def test_python_that_code_starts_finds_packages_too(place: Place, folder: Path) -> None:
    result = await offering(place, folder).run("python3 -c 'import greeting; print(greeting.WORDS)'", "bash")

    assert result.output == "good day\n"


@pytest.mark.gvisor
async def test_pth_files_are_run_by_no_python_in_a_box(place: Place, folder: Path) -> None:
    result = await offering(place, folder).run("python3 -c 'import greeting'; echo /tmp/*", "bash")

    assert result.output == "/tmp/*\n"


@pytest.fixture
def open_folder(folder: Path) -> Path:
    """The same with all rights for everybody, so that none of these can stand in for the mount's."""
    (folder / "greeting.py").chmod(0o666)
    folder.chmod(0o777)
    return folder


@pytest.mark.gvisor
async def test_nothing_can_be_written_into_packages(place: Place, open_folder: Path) -> None:
    before = found_packages(open_folder, LIBRARY)
    script = "touch /opt/packages/x; rm /opt/packages/greeting.py; echo >> /opt/packages/greeting.py"

    result = await offering(place, open_folder).run(f"{script}; mkdir /opt/y", "bash")

    assert result.output.count("Read-only file system") == 4
    assert found_packages(open_folder, LIBRARY) == before


@pytest.mark.gvisor
async def test_links_that_lead_out_of_packages_show_nothing_of_the_host(place: Place, folder: Path) -> None:
    outside = folder.parent / "secrets"
    outside.mkdir()
    (outside / "token.txt").write_text(SECRET)
    outside.chmod(0o755)
    for name, target in {
        "absolute": outside / "token.txt",
        "relative": Path("../secrets/token.txt"),
        "far": Path("../" * 20 + str(outside / "token.txt").lstrip("/")),
        "tree": outside,
        "whole": Path("/"),
    }.items():
        (folder / name).symlink_to(target)
    (folder / "inside").symlink_to("greeting.py")

    result = await offering(place, folder).run(
        f"{LOOK_AROUND}\nprint(os.listdir('/opt/packages/whole') == os.listdir('/'))"
    )

    assert SECRET not in result.output
    assert result.output.count("No such file or directory") == 4
    assert "inside WORDS = 'good day'" in result.output
    assert result.output.endswith("True\n")


@pytest.fixture
def mounted_below(folder: Path) -> Iterator[Path]:
    """Something else that the host has mounted in the middle of the packages."""
    below = folder / "below"
    below.mkdir()
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    subprocess.run(["/bin/sh", "-c", 'mount -t tmpfs tmpfs "$0"', below], check=True, env=environment)
    try:
        (below / "token.txt").write_text(SECRET)
        yield below
    finally:
        subprocess.run(["/bin/sh", "-c", 'umount "$0"', below], check=True, env=environment)


@pytest.mark.gvisor
async def test_what_is_mounted_below_packages_on_the_host_is_not_in_a_box(
    place: Place, folder: Path, mounted_below: Path
) -> None:
    result = await offering(place, folder).run("echo /opt/packages/*; cat /opt/packages/below/token.txt", "bash")

    assert (mounted_below / "token.txt").exists()
    assert "below" in result.output
    assert SECRET not in result.output


@pytest.mark.gvisor
async def test_box_without_packages_has_an_empty_folder_in_their_place(place: Place) -> None:
    result = await place.run("import os, sys; print(os.listdir('/opt/packages'), sys.path[-1][-11:])")

    assert result.output == "[] lib-dynload\n"


async def ran_in_session(environ: Mapping[str, str], code: str, **variables: str) -> RunResult:
    async def announce(_: str) -> None:
        """Nobody listens."""

    async with Session({**environ, **variables}, lambda _: None) as session:
        order = RunOrder(
            language="python",
            code=code,
            person="somebody",
            requester=Requester(),
            untrusted_person_valves={},
            untrusted_admin_valves={},
        )
        return await session.run(order, announce)


@pytest.mark.gvisor
async def test_variable_offers_packages_to_every_run(environ: Mapping[str, str], folder: Path) -> None:
    result = await ran_in_session(environ, "import greeting; print(greeting.WORDS)", SANDBOX_PACKAGES_PATH=str(folder))

    assert result.output == "good day\n"


@pytest.mark.gvisor
@pytest.mark.parametrize("variable", ["SANDBOX_POLICY_STATE", "SANDBOX_AUDIT_LOG", "DATA_DIR"])
async def test_packages_that_hold_what_a_variable_names_are_refused_and_nothing_runs(
    environ: Mapping[str, str], folder: Path, variable: str
) -> None:
    inside = folder / "greeting"
    with pytest.raises(SandboxError, match=r"it contains .*, which code must not see"):
        await ran_in_session(environ, "1", SANDBOX_PACKAGES_PATH=str(folder), **{variable: str(inside)})


# numpy, pandas, matplotlib


@pytest.fixture(scope="session")
def science() -> Packages:
    """The packages that people ask for most, as an administrator installs them."""
    python = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    text = f"{python.name} {sys.implementation.cache_tag}\n{REQUIREMENTS.read_text()}"
    target = BUILD / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as partial:
            installed = subprocess.run(
                [python, *INSTALL, "--target", f"{partial}/made", "-r", REQUIREMENTS],
                capture_output=True,
                check=False,
                timeout=INSTALL_SECONDS,
                text=True,
            )
            if installed.returncode:
                pytest.skip(f"numpy, pandas and matplotlib could not be installed: {installed.stderr[-300:]}")
            Path(partial, "made").rename(target)
    target.chmod(0o755)
    return found_packages(target, LIBRARY)


@pytest.fixture(scope="session")
def scientific(equipment: Equipment, science: Packages, private: Path) -> Equipment:
    """Equipment that offers them, with the libraries that they need in its tree."""
    tree = build_tree(private, Interpreter.current(), silent, science)
    return replace(equipment, packages=science, tree=tree)


@pytest.fixture
def science_place(place: Place, scientific: Equipment) -> Place:
    return Place(equipment=replace(place.equipment, packages=scientific.packages, tree=scientific.tree))


NUMPY = """
import numpy
matrix = numpy.random.default_rng(1).random((300, 300))
print(numpy.allclose(numpy.linalg.inv(matrix) @ matrix, numpy.eye(300)))
"""
PANDAS = """
import pandas
frame = pandas.DataFrame({"kind": ["a", "b", "a"], "number": [1, 2, 3]})
print(frame.groupby("kind").number.sum().to_dict())
"""
MATPLOTLIB = """
import matplotlib, matplotlib.pyplot as plot
plot.plot([1, 4, 9])
plot.title("Größe")
plot.savefig("/tmp/picture.png")
print(matplotlib.get_backend(), open("/tmp/picture.png", "rb").read(4))
"""


@pytest.mark.packages
@pytest.mark.gvisor
@pytest.mark.parametrize("processes", [2, 8, 64])
@pytest.mark.parametrize(
    ("code", "output"),
    [(NUMPY, "True\n"), (PANDAS, "{'a': 4, 'b': 2}\n"), (MATPLOTLIB, "agg b'\\x89PNG'\n")],
    ids=["numpy", "pandas", "matplotlib"],
)
async def test_packages_that_people_ask_for_work_under_the_built_in_ram(
    science_place: Place, processes: int, code: str, output: str
) -> None:
    result = await science_place.run(code, max_processes=processes, max_ram_megabytes=128, max_runtime_seconds=60)

    assert (result.outcome, result.output) == (Outcome.OK, output)


@pytest.mark.packages
@pytest.mark.gvisor
async def test_numpy_that_may_start_more_threads_than_processes_would_fail(science_place: Place) -> None:
    """Why a box is told how many threads to start: without that this is what people would see."""
    eager = f"import os\nos.environ['OPENBLAS_NUM_THREADS'] = '2'\n{NUMPY}"

    told = await science_place.run(NUMPY, max_processes=1)
    untold = await science_place.run(eager, max_processes=1)

    assert told.output == "True\n"
    assert untold.outcome is Outcome.OK or "OPENBLAS_NUM_THREADS" in untold.output  # one processor has one thread


@pytest.mark.packages
@pytest.mark.gvisor
async def test_libraries_that_packages_do_not_bring_along_come_from_the_host(science_place: Place) -> None:
    result = await science_place.run("echo /usr/lib/*.so*", "bash")

    assert {f"/usr/lib/{name}" for name in ("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1")} <= set(
        result.output.split()
    )
    assert "not find" not in " ".join(science_place.equipment.tree.omitted)
