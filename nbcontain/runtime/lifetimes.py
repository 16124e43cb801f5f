"""What `run` and `create` are told of a container's life: restarts, health, its log, files about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nbcontain.errors import UsageError
from nbcontain.oci.image import Healthcheck, ImageConfig
from nbcontain.options import option, with_defaults
from nbcontain.runtime import limits
from nbcontain.runtime.restarts import Policy
from nbcontain.values import dataclass

DRIVERS = ("json-file", "local", "none")
_NANO = 10**9
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": _NANO, "m": 60 * _NANO, "h": 3600 * _NANO}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_LOG_OPTS = ("max-size", "max-file", "mode", "max-buffer-size", "labels", "labels-regex", "env", "env-regex", "tag",
             "compress")  # fmt: skip
_LOCAL = {"max-size": "20m", "max-file": "5"}
"""What docker's driver `local` does unless told."""
_MILLISECOND = 10**6


@dataclass(frozen=True, kw_only=True)
@with_defaults
class LifeOptions:
    """What `run` and `create` can be told of it."""

    heading = "restarts, health, records"

    restart: str = option("--restart", help="when it ends: no, on-failure[:n], always or unless-stopped",
                          metavar="POLICY")  # fmt: skip
    health_cmd: str = option("--health-cmd", help="a shell's command that says whether it is well", metavar="COMMAND")
    health_test: tuple[str, ...] = ()
    """docker's Test of a health check in place of a shell's command: CMD and words, or CMD-SHELL and a text."""
    health_interval: str = option("--health-interval", help="how often (30s)", metavar="DURATION")
    health_timeout: str = option("--health-timeout", help="how long one check may take (30s)", metavar="DURATION")
    health_retries: int = option("--health-retries", help="so many failures in a row make it unhealthy (3)")
    health_start_period: str = option("--health-start-period", help="in which failures do not count (0s)",
                                      metavar="DURATION")  # fmt: skip
    health_start_interval: str = option("--health-start-interval", help="how often in the start period (5s)",
                                        metavar="DURATION")  # fmt: skip
    no_healthcheck: bool = option("--no-healthcheck", help="none, though the image has one")
    log_driver: str = option("--log-driver", help=f"what becomes of its output: {', '.join(DRIVERS)}", metavar="DRIVER")
    log_opts: tuple[str, ...] = option("--log-opt", help="max-size=10m, max-file=3, mode=non-blocking …",
                                       metavar="NAME=VALUE")  # fmt: skip
    cidfile: str = option("--cidfile", help="write its id to this file, which must not exist", metavar="FILE")
    label_file: tuple[str, ...] = option("--label-file", help="a file of NAME=value lines", metavar="FILE")
    annotations: tuple[str, ...] = option("--annotation", help="NAME=value for the runtime's document",
                                          metavar="NAME=VALUE")  # fmt: skip


def restart_of(text: str, *, remove: bool) -> str:
    """The policy as container.json has it, of what --restart was told; "" for none. Raises UsageError."""
    policy = Policy.parse(text)
    if policy.name == "no":
        return ""
    if remove:
        raise UsageError("--restart and --rm exclude each other", why="what is started again cannot be forgotten")
    return str(policy)


# --- health ---------------------------------------------------------------------------------------


def nanoseconds(text: str, flag: str) -> int:
    """A duration as Go reads it: 30s, 1m30s, 500ms. Raises UsageError."""
    if text == "0":
        return 0
    if not text or re.sub(_PART, "", text):
        raise UsageError(f"{flag} {text}: that is no duration", hint=f"{flag} 30s, 1m30s or 500ms")
    return int(sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text)))


def health_of(config: ImageConfig, options: LifeOptions) -> dict[str, Any]:
    """How its health is checked: docker's Healthcheck, and `args`, the program that does it; {} where it is not.

    What the options do not say the image does. Raises UsageError.
    """
    flags = ("health_interval", "health_timeout", "health_start_period", "health_start_interval")
    told = {name: getattr(options, name) for name in flags if getattr(options, name)}
    if options.no_healthcheck:
        if options.health_cmd or told or options.health_retries:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {}
    if options.health_retries < 0:
        raise UsageError("--health-retries cannot be negative")
    times = {name: nanoseconds(text, f"--{name.replace('_', '-')}") for name, text in told.items()}
    for name, value in times.items():
        if 0 < value < _MILLISECOND:
            raise UsageError(f"--{name.replace('_', '-')} cannot be less than 1ms")
    image = config.healthcheck or Healthcheck()
    test = options.health_test or (("CMD-SHELL", options.health_cmd) if options.health_cmd else image.test)
    if not test or test[0] == "NONE":
        return {}
    if test[0] == "CMD-SHELL":
        args = (*(config.shell or ("/bin/sh", "-c")), *test[1:])
    else:
        args = test[1:] if test[0] == "CMD" else test
    if not args:
        return {}
    said = {
        "Test": list(test), "args": list(args),
        "Interval": times.get("health_interval", image.interval_ns),
        "Timeout": times.get("health_timeout", image.timeout_ns),
        "StartPeriod": times.get("health_start_period", image.start_period_ns),
        "StartInterval": times.get("health_start_interval", image.start_interval_ns),
        "Retries": options.health_retries or image.retries,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value}


def health_from(said: Mapping[str, Any]) -> Healthcheck:
    """What `health_of` said, as an image says it; {} is that there is to be no check."""
    test = tuple(said.get("Test", ())) or ("NONE",)
    names = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    return Healthcheck(test, *(int(said.get(name, 0)) for name in names))


# --- the log --------------------------------------------------------------------------------------


def log_of(options: LifeOptions) -> dict[str, Any]:
    """What becomes of the output: `driver`, `options` as told, `max_bytes`, `files`.

    {} where nothing was told: all of it is kept. Raises UsageError.
    """
    if not options.log_driver and not options.log_opts:
        return {}
    driver = options.log_driver or "json-file"
    if driver not in DRIVERS:
        raise UsageError(
            f"--log-driver {driver} is not here", why="output is kept in a file of the container's, or not at all",
            hint=f"--log-driver {', '.join(DRIVERS)}",
        )  # fmt: skip
    told: dict[str, str] = dict(_LOCAL) if driver == "local" else {}
    for entry in options.log_opts:
        name, equals, value = entry.partition("=")
        if name not in _LOG_OPTS:
            hint = ", ".join(f"{each}=" for each in _LOG_OPTS)
            raise UsageError(f"--log-opt {entry}: unknown log opt {name!r} for {driver} log driver", hint=hint)
        if not equals:
            raise UsageError(f"--log-opt {entry}: what should it be?", hint=f"--log-opt {name}=VALUE")
        told[name] = value
    found: dict[str, Any] = {"driver": driver, "options": told, "files": 1}
    if size := told.get("max-size"):
        found["max_bytes"] = limits.size_bytes(size, "--log-opt max-size")
        if found["max_bytes"] <= 0:
            raise UsageError("--log-opt max-size must be a positive number")
    if files := told.get("max-file"):
        if not (files.isascii() and files.isdecimal()) or int(files) < 1:
            raise UsageError("--log-opt max-file cannot be less than 1")
        found["files"] = int(files)
    mode = told.get("mode", "blocking")
    if mode == "non-blocking" or "max-buffer-size" in told:
        raise UsageError(
            "--log-opt mode=non-blocking is not here", why="output goes to a file, and waits for nobody but the disk",
            hint="leave it out",
        )  # fmt: skip
    if mode != "blocking":
        raise UsageError(f"--log-opt mode={mode}: blocking or non-blocking")
    if told.get("compress", "false").lower() not in ("false", "0", "f"):
        raise UsageError("--log-opt compress is not here", why="rotated logs stay readable as they are")
    return found


def details(log: Mapping[str, Any], labels: Mapping[str, str], env: Sequence[str]) -> dict[str, str]:
    """What `logs --details` says of each line: the labels and variables that --log-opt names."""
    told: Mapping[str, str] = log.get("options", {})
    variables = dict(entry.partition("=")[::2] for entry in env)
    found: dict[str, str] = {}
    for name, known in (("labels", labels), ("env", variables)):
        for each in told.get(name, "").split(","):
            if each in known:
                found[each] = known[each]
        if pattern := told.get(f"{name}-regex"):
            try:
                expression = re.compile(pattern)
            except (re.error, RecursionError, OverflowError):
                continue
            found.update({each: value for each, value in known.items() if expression.search(each)})
    if "tag" in told:
        found["tag"] = told["tag"]
    return found
