"""Keyword arguments of Python as a command's options: docker-py's names and values, and ours.

The options are described once, by their dataclasses: what can be said in Python are their fields and their flags.
`_RENAMED` has only what docker-py calls otherwise.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from nbcontain.docker_words import KNOWN_FLAGS
from nbcontain.errors import UsageError, did_you_mean
from nbcontain.values import Field, fields

T = TypeVar("T")

_RENAMED = {
    "auto_remove": "remove", "buildargs": "build_args", "cpuset": "cpuset_cpus", "devices": "device",
    "dns_opt": "dns_option", "enable_ipv6": "ipv6", "extra_hosts": "add_hosts", "ipc_mode": "ipc",
    "mem_limit": "memory", "mem_reservation": "memory_reservation", "memswap_limit": "memory_swap", "mounts": "mount",
    "nano_cpus": "cpus", "network_mode": "network", "nocache": "no_cache", "pid_mode": "pid", "ports": "publish",
    "publish_all_ports": "publish_all", "restart_policy": "restart", "shmsize": "shm_size", "stdin_open": "interactive",
    "sysctls": "sysctl", "userns_mode": "userns", "uts_mode": "uts", "working_dir": "workdir",
}  # fmt: skip


def names_of(options_type: type) -> dict[str, Field[Any]]:
    """Every keyword that these options can be given by: fields, long flags with _ for -, docker-py's names."""
    found: dict[str, Field[Any]] = {}
    for each in fields(options_type):
        if each.metadata:
            flags = [flag[2:].replace("-", "_") for flag in each.metadata.get("flags", ()) if flag.startswith("--")]
            found.update(dict.fromkeys(flags, each))
    found.update((each.name, each) for each in fields(options_type) if each.metadata)
    found.update((name, found[field]) for name, field in _RENAMED.items() if field in found)
    return found


def options_of(options_type: type[T], verb: str, given: Mapping[str, Any]) -> T:
    """The options that these keywords say; None is "not given". Raises UsageError, also for what there is not.

    `verb` is the command, as in "container run".
    """
    known = names_of(options_type)
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name)
        if field is None:
            raise _unknown(name, verb, known)
        if value is None:
            continue
        if field.name in values:
            raise UsageError(f"{_short(verb)}: {name} is said twice", why=f"it is another name of {field.name}")
        values[field.name] = _value(name, field, value)
    return options_type(**values)


def _short(verb: str) -> str:
    return verb.rpartition(" ")[2]


def _unknown(name: str, verb: str, known: Mapping[str, Field[Any]]) -> UsageError:
    flag = f"--{name.replace('_', '-')}"
    if reason := KNOWN_FLAGS.get(verb, {}).get(flag):
        return UsageError(f"{_short(verb)}: docker's {flag} is not here", why=reason)
    hint = did_you_mean(name, known, f"%{verb} --help lists the flags, which are keywords too", "{}=".format)
    return UsageError(f"{_short(verb)}: there is no keyword {name!r}", hint=hint)


def _value(name: str, field: Field[Any], value: Any) -> Any:
    """A keyword's value as the field's type has it."""
    special = _SPECIAL.get(name) or _SPECIAL.get(field.name)
    kind = str(field.type)
    if special is not None and not isinstance(value, str):
        value = special(value)
    if kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"{name}={value!r}: True or False")
        return value
    if kind.startswith("tuple["):
        return tuple(_texts(name, value))
    if kind in ("int", "int | None"):
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f"{name}={value!r}: a whole number")
        return value
    if isinstance(value, list | tuple):
        return shlex.join(map(str, value))
    if isinstance(value, Mapping):
        raise UsageError(f"{name}={value!r}: a text, as in the flag {field.metadata['flags'][-1]}")
    return str(value)


def _texts(name: str, value: Any) -> Iterator[str]:
    """One text, several, or names and their values."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key) if each is None else f"{key}={each}"
    elif isinstance(value, str | int | float):
        yield str(value)
    else:
        try:
            yield from (_mount(each) if isinstance(each, Mapping) else str(each) for each in value)
        except TypeError:
            raise UsageError(f"{name}={value!r}: a text, a list of them, or a dictionary") from None


def command_of(command: Any) -> tuple[str, ...]:
    """A program and its arguments: a list of words, or one text, split by the shell's rules as docker-py does."""
    if command is None:
        return ()
    if isinstance(command, str):
        try:
            return tuple(shlex.split(command))
        except ValueError as error:
            raise UsageError(f"cannot read the command {command!r}", why=str(error)) from error
    return tuple(map(str, command))


# --- docker-py's values that are no texts --------------------------------------------------------


def _ports(value: Any) -> Any:
    """{"80/tcp": 8080, 53: ("127.0.0.1", 5353), 8000: None, 90: [9090, 9091]}."""
    if not isinstance(value, Mapping):
        return value
    found = []
    for inside, outside in value.items():
        for each in outside if isinstance(outside, list) else [outside]:
            place = ":".join(map(str, each)) if isinstance(each, tuple) else "" if each is None else str(each)
            found.append(f"{place}:{inside}" if place else str(inside))
    return found


def _volumes(value: Any) -> Any:
    """{"/here": {"bind": "/there", "mode": "ro"}, "data": "/data"}."""
    if not isinstance(value, Mapping):
        return value
    found = []
    for source, target in value.items():
        place, mode = (target["bind"], target.get("mode", "")) if isinstance(target, Mapping) else (str(target), "")
        found.append(f"{source}:{place}:{mode}" if mode else f"{source}:{place}")
    return found


def _mount(value: Mapping[str, Any]) -> str:
    """docker-py's Mount, which is a dictionary with the names of docker's interface."""
    parts = [f"{key.lower()}={each}" for key, each in value.items()
             if key in ("Type", "Source", "Target") and each]  # fmt: skip
    return ",".join([*parts, *(["readonly"] if value.get("ReadOnly") else [])])


def _colons(value: Any) -> Any:
    """{"/run": "size=64m"} of tmpfs, {"db": "10.0.0.1"} of extra_hosts."""
    if not isinstance(value, Mapping):
        return value
    return [f"{name}:{each}" if each else str(name) for name, each in value.items()]


def _restart(value: Any) -> Any:
    """{"Name": "on-failure", "MaximumRetryCount": 5}."""
    if not isinstance(value, Mapping):
        return value
    count = value.get("MaximumRetryCount")
    return f"{value.get('Name', '')}:{count}" if count else str(value.get("Name", ""))


def _ulimits(value: Any) -> Any:
    """docker-py's Ulimit, {"Name": "nofile", "Soft": 1024, "Hard": 2048}, or {"nofile": 1024}."""
    if isinstance(value, Mapping) and "Name" not in value:
        return value
    found = []
    for each in [value] if isinstance(value, Mapping) else value:
        if isinstance(each, Mapping):
            soft, hard = each.get("Soft"), each.get("Hard")
            each = f"{each['Name']}={hard if soft is None else soft}" + (f":{hard}" if hard is not None else "")
        found.append(each)
    return found


def _billionths(value: Any) -> Any:
    return f"{value / 1e9:g}" if isinstance(value, int) else value


_SPECIAL: Mapping[str, Callable[[Any], Any]] = {
    "nano_cpus": _billionths, "publish": _ports, "volumes": _volumes, "tmpfs": _colons, "add_hosts": _colons,
    "restart": _restart, "ulimits": _ulimits,
}  # fmt: skip
"""By keyword or field: what makes texts of a value that is none."""
