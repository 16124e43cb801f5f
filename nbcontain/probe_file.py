"""All that was found out about a place, as a document for others: nothing private is in it.

Only what is chosen here goes in. What the kernel said may name files, and those name users, jobs and pods: of paths
only those stay that every machine has.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain import __version__
from nbcontain.diagnosis import ladder, refusal_of
from nbcontain.errors import UsageError
from nbcontain.host import Ability
from nbcontain.profiles import storage_driver
from nbcontain.store import destinations
from nbcontain.store.place import file_system_of

if TYPE_CHECKING:
    from nbcontain.engine import Engine

_EVERYWHERE = frozenset({"/", "/dev/null", "/etc/subgid", "/etc/subuid", "/proc", "/sys", "/sys/fs/cgroup", "/tmp"})
_PATH = re.compile(r"(?<![\w.~-])/[^\s:;,()'\"]*")
_SURROUNDINGS = {
    "COLAB_RELEASE_TAG": "Colab", "KAGGLE_KERNEL_RUN_TYPE": "Kaggle", "BINDER_LAUNCH_HOST": "Binder",
    "CODESPACES": "Codespaces", "JUPYTERHUB_API_URL": "JupyterHub", "KUBERNETES_SERVICE_HOST": "Kubernetes",
    "SLURM_JOB_ID": "Slurm", "WSL_DISTRO_NAME": "WSL", "DEEPNOTE_PROJECT_ID": "Deepnote",
}  # fmt: skip
"""Where one is, by variables that are there; what they say is nobody's business."""
_STATUS = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
_KNOBS = (
    "user/max_user_namespaces", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/yama/ptrace_scope",
)  # fmt: skip


def write(engine: Engine, path: Path) -> Path:
    """Write it to a file, whole or not at all; one that is there is replaced. Raises UsageError."""
    text = json.dumps(document(engine), indent=2, ensure_ascii=False) + "\n"
    try:
        destinations.write(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}", why=error.strerror or "", hint="name another file") from error
    return path


def document(engine: Engine) -> dict[str, object]:
    """Everything is tried anew."""
    host, profile = engine.fresh_host(), engine.profile
    driver, why = storage_driver(host, engine.environ, profile)
    private = (str(engine.layout.root), os.uname().nodename)
    return {
        "nbcontain": __version__,
        "python": sys.version.split()[0],
        "kernel": re.sub(r"[^\w.+-].*", "", host.kernel),
        "machine": os.uname().machine,
        "is_root": host.is_root,
        "isolation": profile.name,
        "namespaces": list(profile.rung.namespaces),
        "answers": profile.rung.answers,
        "storage_driver": driver,
        "storage_why": plain(why, private),
        "store_is_moved": bool(engine.place.why),
        "file_system": file_system_of(engine.layout.root),
        "cgroup": host.cgroup,
        "containers": plain(refusal_of(engine), private) or ("yes" if profile.runs else "no"),
        "abilities": {each.name: [host.can(each), plain(host.abilities[each].why, private)] for each in Ability},
        "ladder": {each.what: [each.state, plain(each.why, private)] for each in ladder(host, profile)},
        "surroundings": surroundings(engine.environ),
        "process": {name: value for name, value in _status().items() if name in _STATUS},
        "settings": {name: value for name in _KNOBS if (value := _knob(name)) is not None},
    }


def plain(text: str, private: tuple[str, ...]) -> str:
    """What the kernel said, without the words of `private`, and without paths that not every machine has. Pure."""
    for name in private:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text) if name else text
    return _PATH.sub(lambda found: found[0] if (found[0].rstrip("/.") or "/") in _EVERYWHERE else "/…", text)


def surroundings(environ: Mapping[str, str]) -> list[str]:
    """The kinds of places that this is, as far as they tell. Pure."""
    return [kind for variable, kind in _SURROUNDINGS.items() if variable in environ]


def _status() -> dict[str, str]:
    try:
        lines = Path("/proc/self/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _knob(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None
