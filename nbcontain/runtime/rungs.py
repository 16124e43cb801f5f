"""The ladder of isolation: how a container is shut in where less is allowed than everything. Pure.

A rung is a value that the kernel chooses (`profiles`) and the stage and init obey. What a rung cannot give is refused
here, with the reason, before anything is made.
"""

from __future__ import annotations

from types import MappingProxyType

from nbcontain.errors import Unavailable
from nbcontain.oci.spec import Spec
from nbcontain.values import dataclass, replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from nbcontain.runtime.generate import RunOptions

    Root = Literal["pivot", "move", "chroot", "proot", "preload"]

_NO_ESCAPE = frozenset({"CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"})
"""What would lead out of a root that is only a chroot (chroot(2)), or to the host's devices."""
_KERNELS_OWN = frozenset({"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"})
FURNITURE = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})
CERTIFICATES = "/dev/nbcontain/certificates.pem"
"""Where a container sees those of this machine, if it is to; below /dev, which is no part of any image."""
DOCUMENTS = "/dev/pipes/"
"""Where the documents of RUN <<EOF are seen (BuildKit's place for them)."""
OURS = FURNITURE | {CERTIFICATES}
"""Files of ours that containers see."""
_NOTHING: Mapping[str, str] = MappingProxyType({})
_EVERY = ("mount", "pid", "ipc", "uts", "cgroup", "user", "network")
ALONE = ("blind", "translated", "peers")
"""What `Rung.answers` says where nobody answers: then it is a filter, and nothing else."""
PRETENDED = "users other than root are only pretended here: apt-get needs -o APT::Sandbox::User=root"
"""Why a program may have failed where `Rung.ids` is "blind"."""
RUNG = "org.nbcontain.isolation"
"""The annotation that names the rung a container was made for, for whoever reads its spec."""
TRANSLATOR = "org.nbcontain.translator"
"""And who translates its paths there."""


@dataclass(frozen=True, slots=True)
class Rung:
    """How containers are shut in on one rung."""

    name: str = "full"
    namespaces: tuple[str, ...] = _EVERY
    """Those that can be real, in the words of the runtime specification."""
    root: Root = "pivot"
    """pivot_root(2); a mount that is moved over the root; or a chroot(2), and nothing can be mounted at all. Or no root
    is changed, and a program's paths are translated, by PRoot on the way, or by a library that is loaded into it:
    nothing of ours can be inside.
    """
    translator: str = ""
    """Where that program, or library, is."""
    proc: bool = True
    """/proc is mounted."""
    ids: Literal["", "notify", "blind"] = ""
    """Users other than root: real; or kept in mind by a process that answers for the kernel; or only pretended."""
    serves: bool = False
    """That process opens files of /proc and /dev for the container, which has none mounted."""
    joins: bool = True
    """A process can enter a container that runs, as `exec` does (setns(2))."""

    @property
    def mounts(self) -> bool:
        """Whether anything can be mounted."""
        return self.root in ("pivot", "move")

    @property
    def enters(self) -> bool:
        """Whether a process of ours can have a container's root for its own."""
        return self.root not in ("proot", "preload")

    @property
    def answers(self) -> str:
        """Which groups of calls are answered for the kernel, as `answered_calls` names them; "blind" where all that is
        left is to pretend, "translated" or "peers" alone where nobody answers, and some calls are refused; "" for none.
        """
        if self.ids == "blind":
            return "blind"
        found = ["ids"] * (self.ids == "notify") + ["files"] * self.serves + ["translated"] * (not self.enters)
        found += ["strays"] * (self.root == "preload")
        found += ["guard"] * (self.serves and "user" not in self.namespaces)
        return " ".join(found + ["peers"] * (self.enters and "pid" not in self.namespaces))

    def numbers(self) -> dict[str, Any]:
        """Itself for another process."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> Rung:
        """The rung whose `numbers` these are."""
        return cls(**{**numbers, "namespaces": tuple(numbers["namespaces"])})


_ROOTS = tuple(name for name in _EVERY if name != "user")
RUNGS = {
    each.name: each
    for each in (
        Rung("full", _ROOTS),
        Rung("rootless-range", _EVERY),
        Rung("rootless-single", _EVERY),
        Rung("root-noproc", _ROOTS, "move", proc=False),
        Rung("userns-chroot", ("pid", "ipc", "uts", "user", "network"), "chroot", proc=False),
        Rung("chroot", (), "chroot", proc=False),
        Rung("proot", (), "proot"),
        Rung("preload", (), "preload"),
        Rung("none", (), "chroot", proc=False),
    )
}
"""From the best one down, each as it is where all that it can have is allowed."""


def is_ours(path: str) -> bool:
    """Whether a file that had to be made there is no change of the container's, whatever it says by now."""
    return path in OURS or path.startswith(DOCUMENTS)


def named(name: str) -> Rung:
    """The rung of this name; for a container that was made before they had names, the first one."""
    return RUNGS.get(name) or RUNGS["full"]


def admit(options: RunOptions, rung: Rung) -> None:
    """Raise Unavailable for what is asked for and could only be passed over on this rung."""
    if "uts" not in rung.namespaces and (options.hostname or options.domainname):
        raise _refused(rung, "a name of its own (--hostname, --domainname)")
    if rung.mounts:
        return
    if options.privileged:
        raise powerless(rung, "--privileged")
    asked = {f"CAP_{each.upper().removeprefix('CAP_')}" for each in options.cap_add}
    if asked & (_NO_ESCAPE | {"CAP_ALL"}):
        raise powerless(rung, f"--cap-add {' '.join(options.cap_add)}")


def powerless(rung: Rung, what: str) -> Unavailable:
    """The refusal of more power than is good for a chroot."""
    why = "what leads out of a chroot, or to devices, is taken from all programs"
    return Unavailable(f"{what} cannot be had with isolation {rung.name}", why=why)


def fitted(spec: Spec, rung: Rung, usual: Mapping[str, str] = _NOTHING) -> Spec:
    """`spec` as this rung gives it. Raises Unavailable, with the reason, for what it cannot give.

    `usual` are settings of the kernel's that nobody asked for: what was asked for comes before them.
    """
    # Who may mount, and has all the others, may have these too, where somebody asks for them.
    asked = {"user", "time"} if rung.proc and rung.mounts else set()
    kept = tuple(name for name in spec.linux.namespaces if name in rung.namespaces or name in asked)
    if "network" in spec.linux.namespaces and "network" not in kept:
        raise _refused(rung, "a network of its own (--network none)", "--network host")
    if (not rung.proc or not rung.mounts) and spec.linux.sysctl:
        raise _refused(rung, "--sysctl")
    knobs = {**usual, **spec.linux.sysctl} if rung.proc and rung.mounts else {}
    linux = replace(spec.linux, namespaces=kept, sysctl=knobs)
    spec = replace(
        spec, annotations={**spec.annotations, RUNG: rung.name, **_translator(rung)}, linux=linux,
        hostname=spec.hostname if "uts" in rung.namespaces else "",
    )  # fmt: skip
    if not rung.proc:
        spec = _without_proc(spec)
    return spec if rung.mounts else _unmounted(spec, rung)


def _translator(rung: Rung) -> dict[str, str]:
    return {TRANSLATOR: rung.translator} if rung.translator else {}


def _without_proc(spec: Spec) -> Spec:
    def elsewhere(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(path for path in paths if not path.startswith("/proc/"))

    linux = replace(
        spec.linux, masked_paths=elsewhere(spec.linux.masked_paths), readonly_paths=elsewhere(spec.linux.readonly_paths)
    )
    return replace(spec, linux=linux, mounts=tuple(each for each in spec.mounts if each.destination != "/proc"))


def _unmounted(spec: Spec, rung: Rung) -> Spec:
    wanted = [each for each in spec.mounts if each.destination not in _KERNELS_OWN | OURS]
    for each in wanted:
        if not each.destination.startswith(DOCUMENTS):
            what = f"a mount at {each.destination} (-v, --mount, --tmpfs, --device)"
            raise _refused(rung, what, "COPY the files into the image, or cp them before and after")
    if spec.root_readonly:
        raise _refused(rung, "--read-only")
    process = replace(
        spec.process,
        capabilities=tuple(each for each in spec.process.capabilities if each not in _NO_ESCAPE),
        # Without CAP_SYS_ADMIN that is what a filter takes.
        no_new_privileges=spec.process.no_new_privileges or "user" not in rung.namespaces,
    )
    mounts = tuple(each for each in spec.mounts if each in wanted or each.destination in OURS)
    linux = replace(spec.linux, masked_paths=(), readonly_paths=())
    return replace(spec, process=process, linux=linux, mounts=mounts)


def _refused(rung: Rung, what: str, hint: str = "") -> Unavailable:
    why = "this machine lets nobody make one"
    if "of its own" not in what:
        why = "nothing can be mounted here" if not rung.mounts else "no /proc can be mounted here"
    return Unavailable(f"{what} cannot be had with isolation {rung.name}", why=why, hint=hint)
