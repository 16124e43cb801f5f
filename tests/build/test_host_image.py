"""The host image, proved by unpacking it and running what is in it; and the ELF reader against pyelftools."""

from __future__ import annotations

import glob
import io
import os
import shutil
import ssl
import struct
import subprocess
import sys
import sysconfig
import tarfile
from functools import cache
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import nbcontain
from nbcontain.build.elf import Loader, parse_cache, read_elf, without_sections
from nbcontain.build.host_image import HostImage, make_host_tar
from nbcontain.build.host_tree import MTIME_S, Directory, HostTree, Link
from nbcontain.errors import BuildError

_CONFINE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--mount", "--pid", "--fork")
_IMPORTS = "import ssl, sqlite3, json, ctypes, lzma, zlib, hashlib, asyncio, subprocess"
_EXTENSIONS = sorted(glob.glob(f"{sysconfig.get_path('platstdlib')}/lib-dynload/*.so")) or sorted(
    glob.glob(f"{sys.base_prefix}/lib/python3*/lib-dynload/*.so")
)

needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a program with")


class Unpacked:
    """An image on disk, and a way to run programs in it."""

    def __init__(self, root: Path, programs: tuple[str, ...] = (), python: Path | None = None) -> None:
        written = io.BytesIO()
        self.image: HostImage = make_host_tar(programs, written.write, python=python)
        self.tar = written.getvalue()
        self.root = root
        with tarfile.open(fileobj=io.BytesIO(self.tar)) as archive:
            self.members = {member.name: member for member in archive.getmembers()}
        root.mkdir()
        command = ["tar", "-x", "--no-same-owner", "-C", str(root)]
        subprocess.run(command, input=self.tar, check=True)

    def run(self, *argv: str) -> str:
        """What the program prints; fails with what it complains of."""
        return run_in(self.root, self.image.env, *argv)


def run_in(root: Path, env: tuple[str, ...], *argv: str) -> str:
    """What the program prints with `root` as its root; fails with what it complains of."""
    if not can_confine():
        pytest.skip(f"{' '.join(_CONFINE)} is not allowed here")
    # With a /proc, as every container has one: the dynamic loader reads there what $ORIGIN is.
    command = [*_CONFINE, f"--mount-proc={root}/proc", "chroot", str(root), *argv]
    variables = dict(each.split("=", 1) for each in env)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def can_confine() -> bool:
    return subprocess.run([*_CONFINE, "--mount-proc", "chroot", "/", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    return Unpacked(tmp_path_factory.mktemp("host") / "root")


def compiled(path: Path, source: str, *arguments: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-x", "c", "-", "-o", str(path), *arguments], input=source, text=True, check=True)
    return path


# --- what runs in it --------------------------------------------------------------------------


def test_the_shell_and_its_companions_run(unpacked: Unpacked) -> None:
    script = "echo one two | sed s/one/three/ | awk '{print $1}' | grep thr; find /etc -name passwd; ls /"
    assert unpacked.run("sh", "-c", script).split()[:2] == ["three", "/etc/passwd"]


def test_python_imports_what_its_host_can(unpacked: Unpacked) -> None:
    assert unpacked.run("python3", "-c", f"{_IMPORTS}; print(subprocess.check_output('pwd'))") == "b'/\\n'\n"


def test_python_is_the_running_one(unpacked: Unpacked) -> None:
    assert unpacked.run("python3", "-c", "import sys; print(sys.version)").strip() == sys.version


def test_python_knows_where_it_is_now(unpacked: Unpacked) -> None:
    asked = "import sys, sysconfig; print(sys.prefix == sysconfig.get_config_var('prefix') != '')"
    assert unpacked.run("python3", "-c", asked) == "True\n"


def test_python_speaks_utf_8(unpacked: Unpacked) -> None:
    assert unpacked.run("python3", "-c", "import locale; print(locale.getpreferredencoding(), '∀')") == "UTF-8 ∀\n"


@pytest.mark.skipif(not ssl.create_default_context().cert_store_stats()["x509_ca"], reason="the host has no CA bundle")
def test_python_trusts_the_certificates_of_its_host(unpacked: Unpacked) -> None:
    asked = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 0)"
    assert unpacked.run("python3", "-c", asked) == "True\n"


def test_every_program_in_it_has_all_its_libraries(unpacked: Unpacked) -> None:
    paths = [name for name, member in unpacked.members.items() if member.isfile() and "bin/" in name]
    lacking = []
    for name in paths:
        elf = read_elf(str(unpacked.root / name))
        if elf and elf.interpreter and "not found" in unpacked.run(elf.interpreter, "--list", f"/{name}"):
            lacking.append(name)
    assert lacking == []


def test_the_library_that_ends_threads_is_there_though_nothing_asks_for_it(unpacked: Unpacked) -> None:
    unpacked.run("python3", "-c", "import ctypes; ctypes.CDLL('libgcc_s.so.1')")


@pytest.mark.slow
def test_a_second_python_goes_by_its_own_name(tmp_path: Path) -> None:
    system, running = os.path.realpath("/usr/bin/python3"), os.path.realpath(sys.executable)
    if system == running or not os.path.exists(system):
        pytest.skip("there is one Python on this machine")
    image = Unpacked(tmp_path / "root", (system,))
    asked = "import sys; print(sys.version)"
    here = subprocess.run([system, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert image.run(system, "-c", asked) == here
    assert image.run("python3", "-c", asked).strip() == sys.version


@pytest.mark.slow
@pytest.mark.parametrize("python", sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.1[1-9]*/bin/python3"))))
def test_a_python_built_by_its_user_moves_to_usr_local(tmp_path: Path, python: str) -> None:
    image = Unpacked(tmp_path / "root", python=Path(python))
    assert image.run("python3", "-c", f"{_IMPORTS}, sys; print(sys.prefix)") == "/usr/local\n"
    assert image.image.size_bytes <= 60_000_000


@pytest.mark.slow
def test_the_python_of_the_system_stays_where_it_is(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("the system has no Python of its own")
    image = Unpacked(tmp_path / "root", python=python)
    assert image.run("python3", "-c", f"{_IMPORTS}, sys; print(sys.prefix)") == "/usr\n"


@pytest.mark.slow
def test_where_only_busybox_is_busybox_stands_in(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None or (elf := read_elf(busybox)) is None or elf.interpreter:
        pytest.skip("no static busybox to make such a machine with")
    machine = Unpacked(tmp_path / "machine")
    for path in (machine.root / "usr/bin").iterdir():
        if not path.name.startswith("python"):
            path.unlink()
    shutil.copy(busybox, machine.root / "usr/bin/busybox")
    # In the very directory that it was installed in, as the tests may run from the source or not.
    shutil.copytree(Path(nbcontain.__file__).parent, machine.root / "opt/nbcontain")
    made = "import sys; sys.path[:0] = ['/opt']; from nbcontain.build.host_image import make_host_tar as make; "
    machine.run("python3", "-c", made + "file = open('/out.tar', 'wb'); make((), file.write); file.close()")
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["tar", "-xf", str(machine.root / "out.tar"), "--no-same-owner", "-C", str(inner)], check=True)
    script = f"ls /; python3 -c '{_IMPORTS}'; echo well"
    assert run_in(inner, machine.image.env, "sh", "-ec", script).endswith("well\n")


# --- what is in it ----------------------------------------------------------------------------


def test_two_runs_give_the_same_bytes(unpacked: Unpacked) -> None:
    again = io.BytesIO()
    make_host_tar((), again.write)
    assert again.getvalue() == unpacked.tar


def test_an_ordinary_user_gets_the_same_bytes_as_root(tmp_path: Path) -> None:
    python, source = "/usr/bin/python3", Path(nbcontain.__file__).parent.parent
    asks = f"import sys; sys.path[:0] = ['{source}']; from nbcontain.build.host_image import make_host_tar as make; "
    asks += "from hashlib import sha256; bytes = sha256(); make((), bytes.update); print(bytes.hexdigest())"
    as_nobody = ["runuser", "-u", "nobody", "--", python, "-c"]
    if os.geteuid() or subprocess.run([*as_nobody, asks.split("from hashlib")[0]], capture_output=True).returncode:
        pytest.skip("needs root, and a Python and a source directory that everybody may read")
    by_root = subprocess.run([python, "-c", asks], capture_output=True, check=True, cwd="/").stdout
    assert subprocess.run([*as_nobody, asks], capture_output=True, check=True, cwd="/").stdout == by_root


def test_it_is_small(unpacked: Unpacked) -> None:
    assert unpacked.image.size_bytes == len(unpacked.tar) <= 60_000_000


def test_its_entries_are_sorted_and_of_one_time(unpacked: Unpacked) -> None:
    names = [name.split("/") for name in unpacked.members]
    assert names == sorted(names)
    assert {member.mtime for member in unpacked.members.values()} == {MTIME_S}
    assert len(names) == unpacked.image.entries


def test_each_entry_comes_after_its_directory(unpacked: Unpacked) -> None:
    names = list(unpacked.members)
    places = {name: number for number, name in enumerate(names)}
    assert [n for n in names if "/" in n and places.get(os.path.dirname(n), len(names)) > places[n]] == []


def test_no_link_leads_nowhere(unpacked: Unpacked) -> None:
    links = [f"/{name}" for name, member in unpacked.members.items() if member.issym()]
    asked = "import os, sys; print([each for each in sys.argv[1:] if not os.path.exists(each)])"
    assert unpacked.run("python3", "-c", asked, *links) == "[]\n"


def test_nothing_in_it_changes_the_user_or_belongs_to_another(unpacked: Unpacked) -> None:
    assert not any(member.mode & 0o6000 for member in unpacked.members.values())
    assert {name for name, member in unpacked.members.items() if member.uid} == {"home/user"}


def test_it_holds_no_account_and_no_secret_of_the_host(unpacked: Unpacked) -> None:
    accounts = (unpacked.root / "etc/passwd").read_text().splitlines()
    assert [line.split(":")[0] for line in accounts] == ["root", "daemon", "nobody", "user"]
    words = (
        "shadow",
        ".ssh",
        "private",
        "machine-id",
        "pycache",
        "site-packages",
        os.path.expanduser("~").strip("/") + "/",
    )
    assert [name for name in unpacked.members if any(word in name for word in words)] == []


def test_the_directories_for_everybody_are_sticky(unpacked: Unpacked) -> None:
    assert unpacked.members["tmp"].mode == unpacked.members["var/tmp"].mode == 0o1777


def test_programs_that_a_distribution_stripped_stay_byte_for_byte(unpacked: Unpacked) -> None:
    assert (unpacked.root / "usr/bin/cat").resolve().read_bytes() == Path("/usr/bin/cat").resolve().read_bytes()


# --- programs that are asked for --------------------------------------------------------------


@needs_cc
def test_a_program_of_a_home_brings_the_libraries_beside_it(tmp_path: Path) -> None:
    library = "int answer(void) { return 42; }"
    compiled(tmp_path / "tool/lib/libanswer.so", library, "-shared", "-fPIC")
    program = compiled(
        tmp_path / "tool/bin/ask", '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d", answer()); }',
        f"-L{tmp_path}/tool/lib", "-lanswer", "-Wl,-rpath,$ORIGIN/../lib",
    )  # fmt: skip
    image = Unpacked(tmp_path / "root", (str(program),))
    assert image.run("ask") == "42"
    assert image.image.notices == ()


@needs_cc
@pytest.mark.parametrize("tags", ["--enable-new-dtags", "--disable-new-dtags"])
def test_a_library_that_was_named_by_its_old_path_is_found_all_the_same(tmp_path: Path, tags: str) -> None:
    compiled(tmp_path / "tool/lib/libanswer.so", "int answer(void) { return 42; }", "-shared", "-fPIC")
    program = compiled(
        tmp_path / "tool/bin/ask", '#include <stdio.h>\nint answer(void);\nint main(void) { printf("%d", answer()); }',
        f"-L{tmp_path}/tool/lib", "-lanswer", f"-Wl,{tags},-rpath,{tmp_path}/tool/lib",
    )  # fmt: skip
    image = Unpacked(tmp_path / "root", (str(program),))
    assert image.run("ask") == "42"
    assert not any(str(tmp_path).strip("/") in name for name in image.members)


@needs_cc
def test_a_library_that_is_missing_on_the_host_is_told_of(tmp_path: Path) -> None:
    library = compiled(tmp_path / "lib/libgone.so", "int gone(void) { return 1; }", "-shared", "-fPIC")
    program = compiled(
        tmp_path / "bin/lost", "int gone(void); int main(void) { return gone(); }", f"-L{library.parent}", "-lgone"
    )
    library.unlink()
    made = make_host_tar((str(program),), lambda _: None)
    assert made.notices == (f"{program} needs libgone.so, which this machine does not have",)


def test_a_script_brings_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "greet"
    script.parent.mkdir()
    script.write_text("#!/usr/bin/env python3\nprint('hello')\n")
    script.chmod(0o755)
    assert Unpacked(tmp_path / "root", (str(script),)).run("greet") == "hello\n"


def test_a_program_that_is_nowhere_is_refused_before_anything_is_written() -> None:
    written: list[bytes] = []
    with pytest.raises(BuildError, match="no program grepp") as caught:
        make_host_tar(("grepp",), written.append)
    assert "grep" in caught.value.hint
    assert written == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/tmp", "/proc/self/mem"])
def test_what_may_not_be_executed_is_no_program(path: str) -> None:
    with pytest.raises(BuildError, match="no program"):
        make_host_tar((path,), lambda _: None)


def test_what_is_no_python_is_said_to_be_none() -> None:
    with pytest.raises(BuildError, match="no Python"):
        make_host_tar((), lambda _: None, python=Path("/bin/false"))


# --- the tree ---------------------------------------------------------------------------------


def test_two_names_of_one_file_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/a").write_text("x")
    os.link(tmp_path / "bin/a", tmp_path / "bin/b")
    tree = HostTree()
    tree.move(str(tmp_path))
    tree.add(str(tmp_path / "bin/a"))
    tree.add(str(tmp_path / "bin/b"))
    written = io.BytesIO()
    tree.write(written.write)
    written.seek(0)
    link = tarfile.open(fileobj=written).getmember("usr/local/bin/b")
    assert (link.islnk(), link.linkname) == (True, "usr/local/bin/a")


def test_a_file_longer_than_a_chunk_arrives_whole(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom((1 << 20) + 5))
    tree = HostTree()
    tree.move(str(tmp_path))
    tree.add(str(tmp_path / "large"))
    written = io.BytesIO()
    tree.write(written.write)
    written.seek(0)
    copied = tarfile.open(fileobj=written).extractfile("usr/local/large")
    assert copied is not None
    assert copied.read() == (tmp_path / "large").read_bytes()


def test_a_path_is_resolved_through_links_that_lead_up() -> None:
    tree = HostTree()
    tree.put("/usr/lib/x", Directory())
    tree.put("/lib", Link("usr/lib"))
    tree.put("/usr/bin/up", Link("../../lib/../lib/x"))
    assert tree.resolve("/usr/bin/up/.") == "/usr/lib/x"


def test_links_in_a_circle_lead_nowhere() -> None:
    tree = HostTree()
    tree.put("/a", Link("b"))
    tree.put("/b", Link("a"))
    assert tree.resolve("/a/c") == ""


# --- ELF --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*_EXTENSIONS[::8], os.path.realpath(sys.executable), os.path.realpath("/bin/sh")])
def test_an_elf_file_is_read_as_pyelftools_reads_it(path: str) -> None:
    elf = read_elf(path)
    with open(path, "rb") as file:
        oracle = ELFFile(file)
        parts = [part for part in oracle.iter_segments() if isinstance(part, DynamicSegment)]
        tags = [tag for part in parts for tag in part.iter_tags()]
    assert elf is not None
    assert elf.needed == tuple(tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED")
    assert elf.runpath == tuple(p for tag in tags if tag.entry.d_tag == "DT_RUNPATH" for p in tag.runpath.split(":"))


def test_a_text_is_no_elf_file() -> None:
    assert read_elf(__file__) is None


def test_a_file_without_its_sections_reads_the_same(tmp_path: Path) -> None:
    path = os.path.realpath("/bin/sh")
    elf = read_elf(path)
    assert elf is not None
    (tmp_path / "cut").write_bytes(without_sections(Path(path).read_bytes(), elf))
    assert read_elf(str(tmp_path / "cut")) == elf


_HEAD = Path("/bin/sh").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4096), changes=st.dictionaries(st.integers(4, 2000), st.integers(0, 255), max_size=8))
@example(cut=4096, changes={54: 0, 55: 0})
def test_a_damaged_elf_file_is_refused_or_read(tmp_path: Path, cut: int, changes: dict[int, int]) -> None:
    damaged = bytearray(_HEAD if cut == 4096 else _HEAD[:cut])
    for at, value in changes.items():
        damaged[at : at + 1] = bytes([value])
    (tmp_path / "damaged").write_bytes(damaged)
    try:
        elf = read_elf(str(tmp_path / "damaged"))
    except BuildError as error:
        assert "damaged ELF file" in error.message
    else:
        assert elf is None or isinstance(elf.needed, tuple)


# --- the loader's cache -----------------------------------------------------------------------


def _cache(*entries: tuple[str, str, int]) -> bytes:
    table = struct.Struct("=iIIIQ")
    strings, rows = b"", b""
    base = 48 + table.size * len(entries)
    for name, path, hardware in entries:
        name_at = base + len(strings)
        strings += os.fsencode(name) + b"\0"
        rows += table.pack(0x303, name_at, base + len(strings), 0, hardware)
        strings += os.fsencode(path) + b"\0"
    head = b"glibc-ld.so.cache1.1" + struct.pack("=II", len(entries), len(strings)) + bytes(20)
    return head + rows + strings


def test_the_cache_names_libraries_but_none_for_special_processors() -> None:
    data = _cache(("libz.so.1", "/lib/v3/libz.so.1", 1 << 62), ("libz.so.1", "/lib/libz.so.1", 0))
    assert parse_cache(data) == {"libz.so.1": ["/lib/libz.so.1"]}


def test_the_cache_may_lie_behind_one_of_the_old_format() -> None:
    old = b"ld.so-1.7.0\0" + struct.pack("=I", 0)
    assert parse_cache(old + _cache(("liba.so", "/liba.so", 0))) == {"liba.so": ["/liba.so"]}


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_damaged_cache_counts_for_what_is_left_of_it(noise: bytes, cut: int) -> None:
    data = _cache(("libz.so.1", "/lib/libz.so.1", 0))
    assert isinstance(parse_cache(data[:cut] + noise), dict)


def test_a_program_for_musl_searches_the_directories_of_musl() -> None:
    assert Loader("/lib/ld-musl-none.so.1", {}).defaults == ("/lib", "/usr/local/lib", "/usr/lib")


# --- packages of Python's ---
