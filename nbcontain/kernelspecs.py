"""Which kernel an image has, and what Jupyter is told of it. Pure."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nbcontain.errors import UsageError
from nbcontain.values import dataclass

PROVISIONER = "nbcontain"
"""What the provisioner is called among jupyter_client's (pyproject.toml)."""
_KERNELS = "share/jupyter/kernels"
_PREFIXES = ("/usr/local", "/usr", "/opt/conda", "/opt/venv")
_HOMES = ("/root", "/home/jovyan", "/home/user")
_CONNECTION = "{connection_file}"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ELSEWHERE = (
    "raise SystemExit('This kernel runs in a container. What starts it has to know kernel provisioners "
    "(jupyter_client 7 or newer) and have nbcontain installed.')"
)
_COLOURS = {"python": "#3776ab", "r": "#276dc3", "julia": "#9558b2", "bash": "#4eaa25", "javascript": "#b8a200"}


@dataclass(frozen=True, slots=True)
class Found:
    """A kernel of an image: how it is executed there, and what it says of itself."""

    argv: tuple[str, ...]
    language: str
    display_name: str
    interrupt_mode: str = "signal"
    debugger: bool = False
    environment: tuple[str, ...] = ()


def searched(env: Sequence[str]) -> dict[str, list[str]]:
    """Where kernelspecs may be in an image with this environment, and where its Pythons."""
    variables = dict(each.partition("=")[::2] for each in env)
    bins = [each for each in variables.get("PATH", "").split(":") if each.startswith("/")]
    prefixes = [each.rpartition("/")[0] for each in bins if each.endswith("/bin") and each != "/bin"]
    homes = [variables.get("HOME", ""), *_HOMES]
    directories = [
        *(f"{each}/kernels" for each in variables.get("JUPYTER_PATH", "").split(":") if each.startswith("/")),
        *(f"{each}/.local/{_KERNELS}" for each in homes if each.startswith("/")),
        *(f"{each}/{_KERNELS}" for each in (*prefixes, *_PREFIXES)),
    ]
    programs = [
        f"{each}/{name}" for each in (*bins, *(f"{each}/bin" for each in _PREFIXES)) for name in ("python3", "python")
    ]
    return {"directories": list(dict.fromkeys(directories)), "programs": list(dict.fromkeys(programs))}


def chosen(found: Mapping[str, Any], wanted: str, image: str) -> Found:
    """The kernel of the image that is meant. Raises UsageError where it has none, or none of that name."""
    specs: dict[str, Found] = {}
    for each in found["specs"]:
        if each["name"] not in specs and (spec := _of_spec(each)) is not None:
            specs[each["name"]] = spec
    if wanted and wanted not in specs:
        raise UsageError(
            f"{image} has no kernel {wanted}", hint=f"--kernel {', '.join(sorted(specs))}" if specs else "leave it out"
        )
    if specs:
        return specs[wanted or ("python3" if "python3" in specs else min(specs))]
    pythons = found["pythons"]
    if python := next((each["path"] for each in pythons if each["kernel"]), ""):
        argv = (python, "-m", "ipykernel_launcher", "-f", _CONNECTION)
        return Found(argv, "python", "Python 3", debugger=True)
    if pythons:
        raise UsageError(
            f"{image} has no Jupyter kernel", why=f"there is Python ({pythons[0]['path']}), and no ipykernel for it",
            hint="add to its Dockerfile:  RUN pip install ipykernel",
        )  # fmt: skip
    raise UsageError(
        f"{image} has no Jupyter kernel", why="neither a kernelspec nor a Python was found in it",
        hint="its Dockerfile has to install the kernel of its language: ipykernel for Python, IRkernel for R …",
    )  # fmt: skip


def _of_spec(said: Mapping[str, str]) -> Found | None:
    """What a kernel.json of the image means there; None for one that means nothing. It is the image's own text."""
    try:
        spec = json.loads(said["text"])
        argv = tuple(str(each) for each in spec["argv"])
        metadata = spec.get("metadata") or {}
        given = {str(name): str(value) for name, value in (spec.get("env") or {}).items()}
        is_debugger = metadata.get("debugger") is True
        language, shown = str(spec.get("language") or ""), str(spec.get("display_name") or said["name"])
        mode = "message" if spec.get("interrupt_mode") == "message" else "signal"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if not argv or not any(_CONNECTION in each for each in argv):
        return None
    if argv[0] in ("python", "python3") and said["python"]:
        # As Jupyter does outside: the Python beside the kernelspec is meant.
        argv = (said["python"], *argv[1:])
    argv = tuple(each.replace("{resource_dir}", said["directory"]) for each in argv)
    shown = shown.removesuffix(" (ipykernel)")
    environment = tuple(f"{name}={value}" for name, value in given.items()
                        if name and "=" not in name and not _CONTROL.search(name + value))  # fmt: skip
    return Found(argv, _plain(language), _plain(shown), mode, is_debugger, environment)


def _plain(text: str) -> str:
    return _CONTROL.sub("", text)[:80]


def kernelspec(found: Found, display_name: str, image: str, words: Sequence[str], root: str) -> dict[str, Any]:
    """The kernel.json for Jupyter: the image's own words are kept where only the provisioner reads them.

    Whatever knows no provisioners executes `argv` outside of any container, and templates of `env` are filled from
    Jupyter's own environment: so the image has no say in either.
    """
    return {
        "argv": [sys.executable, "-c", _ELSEWHERE, _CONNECTION],
        "display_name": _plain(display_name),
        "language": found.language,
        "interrupt_mode": found.interrupt_mode,
        "metadata": {
            "debugger": found.debugger,
            "kernel_provisioner": {
                "provisioner_name": PROVISIONER,
                "config": {"image": image, "options": [*words], "argv": [*found.argv], "root": root},
            },
        },
    }


def logo(language: str) -> str:
    """An icon for launchers: a container with the language's first letters. SVG."""
    letters = "".join(each for each in language[:2] if each.isascii() and each.isalnum()).capitalize() or "?"
    colour = _COLOURS.get(language.lower(), "#5c6370")
    ribs = "".join(f'<path d="M{x} 16v6M{x} 42v6" stroke="#fff" stroke-opacity=".7" stroke-width="2"/>'
                   for x in range(12, 60, 8))  # fmt: skip
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" role="img">'
        f'<rect x="4" y="12" width="56" height="40" rx="4" fill="{colour}"/>{ribs}'
        '<text x="32" y="39" text-anchor="middle" font-family="sans-serif" font-weight="700" font-size="19"'
        f' fill="#fff">{letters}</text></svg>\n'
    )
