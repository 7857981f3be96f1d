"""What programs need is read out of the loader's answers, and one name means one file."""

from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.shared_libraries import gathered_libraries, parsed_ldd

LDD_ANSWER = """/usr/bin/one:
\tlinux-vdso.so.1 (0x00007f34b225b000)
\tlibfirst.so.1 => /lib/libfirst.so.1 (0x00007f34b1c00000)
\tlibgone.so.2 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f34b225d000)
/usr/bin/static:
\tstatically linked
/usr/bin/script:
\tnot a dynamic executable
"""


def test_ldd_answer_about_several_programs_is_read() -> None:
    programs = [Path("/usr/bin/one"), Path("/usr/bin/static"), Path("/usr/bin/script")]

    assert parsed_ldd(LDD_ANSWER, programs) == {
        programs[0]: {
            "libfirst.so.1": Path("/lib/libfirst.so.1"),
            "libgone.so.2": None,
            "ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
        },
        programs[1]: {},
        programs[2]: {},
    }


@pytest.fixture
def two_libraries(tmp_path: Path) -> dict[Path, dict[str, Path | None]]:
    needs: dict[Path, dict[str, Path | None]] = {}
    for name, content in (("a", "one"), ("b", "two"), ("c", "one")):
        library = tmp_path / name / "libx.so.1"
        library.parent.mkdir()
        library.write_text(content)
        needs[Path(f"/usr/bin/{name}")] = {"libx.so.1": library}
    return needs


def test_two_different_libraries_of_one_name_are_refused_naming_both(
    two_libraries: dict[Path, dict[str, Path | None]],
) -> None:
    with pytest.raises(SandboxError, match=r"a/libx\.so\.1 and .*b/libx\.so\.1"):
        gathered_libraries([Path("/usr/bin/a"), Path("/usr/bin/b")], [], two_libraries)


def test_optional_program_with_another_library_of_a_taken_name_is_left_out(
    two_libraries: dict[Path, dict[str, Path | None]],
) -> None:
    gathered = gathered_libraries([Path("/usr/bin/a")], [Path("/usr/bin/b"), Path("/usr/bin/c")], two_libraries)

    assert [str(program) for program, _ in gathered.omitted] == ["/usr/bin/b"]
    assert [name for name, _ in gathered.files] == ["libx.so.1"]


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        pytest.param({"liby.so": None}, "liby.so is not found", id="missing-library"),
        pytest.param({"ld-linux.so.2": Path("/nix/store/x/ld-linux.so.2")}, "its loader is", id="loader-elsewhere"),
    ],
)
def test_required_program_that_could_not_start_in_the_box_is_refused(
    needed: dict[str, Path | None], reason: str
) -> None:
    with pytest.raises(SandboxError, match=reason):
        gathered_libraries([Path("/usr/bin/a")], [], {Path("/usr/bin/a"): needed})
