"""Some things may be done in one place only, so that one place need be understood."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from package_source import PACKAGE, modules, naming


def allowed(found: dict[str, list[int]], *names: str) -> dict[str, list[int]]:
    """What was found elsewhere than in these modules."""
    return {module: lines for module, lines in found.items() if module not in {f"nbcontain.{name}" for name in names}}


def test_only_the_host_module_asks_who_we_are() -> None:
    # Whose a file is, is said by the number that root has where it is looked at, inside of a user namespace or outside.
    assert allowed(naming("os.geteuid", "os.getresuid"), "host", "linux.probe", "store.owners") == {}


def test_only_the_runtime_forks() -> None:
    # The probe is a program of its own, executed by the host module to try things out.
    places = ("runtime.zygote", "runtime.supervisor", "runtime.stage", "runtime.births",
              "runtime.contained", "linux.probe", "network.process")  # fmt: skip
    assert allowed(naming("os.fork", "os.forkpty", "multiprocessing", "pty.fork"), *places) == {}


STORE = ("store.files", "store.removal")
"""What makes, replaces and removes things of the store."""


def test_only_one_module_replaces_files() -> None:
    assert allowed(naming("os.rename", "os.replace", "os.fsync", "os.fdatasync", "shutil.move"), *STORE) == {}


INSIDE = (
    "store.unpack",
    "store.open_directories",
    "store.fitting",
    "store.plain_members",
    "store.clone",
    "build.copier",
    "linux.trees",
    "linux.probe",
    "runtime.console",
    "runtime.devices",
    "runtime.init",
    "runtime.isolation",
    "runtime.cgroup_mounts",
    "runtime.programs",
    "runtime.paths_inside",
    "runtime.rootfs",
    "runtime.mode_answers",
    "runtime.owner_answers",
    "runtime.unmounted",
    "runtime.volume_work",
)
"""What writes into a layer or a container's root, by file descriptors and names below it: the store's part is
to give the whole of it a name. And the probe, which tries things out in a directory of its own."""


SCRATCH = ("build.finish", "build.http", "build.sources", "linux.fakechroot", "linux.proot", "store.ingest")
"""What writes into a temporary directory that only it knows, or into a download that is nothing until it was verified
and published: what is half there means nothing."""


def test_only_one_module_makes_and_removes_what_is_in_the_store() -> None:
    doing = ("mkdir", "makedirs", "link", "symlink", "unlink", "remove", "rmdir", "truncate", "ftruncate", "mknod")
    named = naming(*(f"os.{each}" for each in doing), "shutil.rmtree", "shutil.copytree", "shutil.copy2", "tempfile")
    # Control groups are directories of the kernel's.
    assert allowed(named, *STORE, "linux.cgroups", *INSIDE, *SCRATCH) == {}


def test_nothing_is_opened_for_writing_elsewhere() -> None:
    # The journal has one writer, who only ever appends; orders and secrets are handed on through memory; what
    # the host module remembers is a guess that is tried again when half of it is lost; bundles and caches have locks.
    others = ("journal", "channel", "runtime.secrets", "host", "runtime.bundle", "store.cache_mounts")
    found = {
        module.name: lines
        for module in modules().values()
        if (lines := [node.lineno for node in ast.walk(module.tree) if is_writing(node)])
    }
    assert allowed(found, "store.files", *INSIDE, *SCRATCH, *others) == {}


def is_writing(node: ast.AST) -> bool:
    """open(…, "w"), fdopen(…, "wb"), Path.write_text, Path.mkdir and the like, or O_CREAT."""
    if isinstance(node, ast.Attribute) and node.attr in ("O_CREAT", "O_TRUNC", "O_TMPFILE"):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("write_text", "write_bytes", "touch", "hardlink_to", "symlink_to"):
        # Of ours, which come down to files', as do functions of a module's own.
        ours = ("files", "exports", "self._store().builds")
        return isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ours
    modes = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
    modes += [each.value.value for each in node.keywords if each.arg == "mode" and isinstance(each.value, ast.Constant)]
    return name in ("open", "fdopen") and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes)


def test_only_one_module_speaks_to_the_kernel_by_number() -> None:
    # What a forked child does is made ready beforehand, call by call.
    # And what writes a flood's lines, or makes a layer's files, is code that ctypes makes a function of.
    own_code = ("linux.code_memory", "linux.quick_lines", "store.plain_members")
    assert allowed(naming("ctypes"), "linux.syscalls", "linux.forks", *own_code) == {}
    # The pump is no module of the package and makes one call of its own.
    assert allowed(naming("_ctypes"), "runtime.pump") == {}


def test_only_one_module_makes_types_of_annotations() -> None:
    # dataclasses' own costs every process of ours more than all of its other imports.
    assert allowed(naming("dataclasses.dataclass", "dataclasses.field", "dataclasses.replace"), "values") == {}


def test_only_the_layout_names_the_store() -> None:
    written = {
        module.name: [
            number for number, line in enumerate(module.path.read_text().splitlines(), 1) if "/var/lib" in line
        ]
        for module in modules().values()
    }
    # A hint and a lesson speak of the lists that apt leaves in an image.
    speaking = ("dockerfile.hints", "lessons.bake_it_better")
    assert allowed({name: lines for name, lines in written.items() if lines}, "store.layout", *speaking) == {}


def test_nothing_runs_a_function_between_fork_and_exec() -> None:
    found = [module.name for module in modules().values() if "preexec_fn" in module.path.read_text()]
    assert found == []


def test_the_middle_never_prints() -> None:
    outer = {"display", "commands", "magics", "session", "draw", "terminal", "__main__"}
    found = [
        f"{module.name}:{number}"
        for module in modules().values()
        if module.name.split(".")[1:2]
        and module.name.split(".")[1] not in outer
        and module.name != "nbcontain.linux.probe"
        for number, line in enumerate(module.path.read_text().splitlines(), 1)
        if re.match(r"\s*print\(", line)
    ]
    assert found == []


@pytest.mark.parametrize("word", ["utils", "common", "helpers", "misc", "manager", "util"])
def test_no_module_has_a_name_that_means_nothing(word: str) -> None:
    assert [name for name in modules() if name.split(".")[-1] == word] == []


def test_no_module_holds_more_than_one_noun() -> None:
    lengths = {module.name: len(module.path.read_text().splitlines()) for module in modules().values()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_every_file_of_the_package_is_in_the_wheel() -> None:
    # hatchling packs what git does not ignore: a pattern that hits the package would lose files silently.
    files = [str(path) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *files], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""
