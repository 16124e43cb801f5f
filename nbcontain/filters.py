"""docker's --filter: which images, containers and networks are meant.

Values of one name are alternatives, names are conditions. Labels are the exception: all of them must hold.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from nbcontain.errors import UsageError, did_you_mean
from nbcontain.oci.image import Image
from nbcontain.oci.reference import Reference
from nbcontain.runtime.container import Container
from nbcontain.truth import truth
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.build.patterns import Glob
    from nbcontain.engine import Engine
    from nbcontain.network.model import Network

C = TypeVar("C", bound=Container)
Named = tuple[Reference | None, Image]

IMAGES = ("dangling", "label", "label!", "before", "since", "reference", "until")
CONTAINERS = (
    "id", "name", "label", "label!", "exited", "status", "ancestor", "before", "since", "network", "publish", "expose",
    "until", "volume", "health",
)  # fmt: skip
NETWORKS = ("name", "id", "driver", "label", "label!", "scope", "type", "dangling")
NETWORKS_PRUNING = ("label", "label!")
VOLUMES = ("dangling", "driver", "label", "label!", "name")
PRUNING = ("label", "label!", "until")
_NOT_HERE = {
    "isolation": "that is for Windows", "is-task": "there is no swarm here",
}  # fmt: skip
_STATUSES = ("created", "running", "exited", "lost", "dead", "paused", "restarting", "removing")
_HEALTH = ("starting", "healthy", "unhealthy", "none")
_DURATION = r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h|d|w))+"
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for: name and value, in the order of the command line."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str], known: Sequence[str]) -> Filters:
        """Read `name=value` each; `label!=x` is `label!`. Raises UsageError for a name that is none of `known`."""
        pairs = []
        for word in words:
            name, equals, value = word.partition("=")
            name = name.strip().lower()
            if name not in known:
                near = did_you_mean(name, known, shown="{}=".format)
                listed = "there are " + ", ".join(f"{each}=" for each in known)
                raise UsageError(
                    f"--filter {word}: there is no filter {name!r}", why=_NOT_HERE.get(name, ""),
                    hint=f"{near}   {listed}" if near else listed,
                )  # fmt: skip
            if not equals:
                raise UsageError(f"--filter {word}: what should it be?", hint=f"--filter {name}=VALUE")
            pairs.append((name, value.strip()))
        return cls(tuple(pairs))

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for each, value in self.pairs if each == name)

    def flag(self, name: str) -> bool | None:
        """A value that is true or false, as Go reads it; None if it was not asked for. Raises UsageError."""
        found = None
        for value in self.all(name):
            found = truth(value)
            if found is None:
                raise UsageError(f"--filter {name}={value}: that is neither true nor false", hint=f"{name}=true")
        return found

    def labels_hold(self, labels: Mapping[str, str]) -> bool:
        """All of `label`, and none of `label!`."""
        return all(_has_label(labels, each) for each in self.all("label")) and not any(
            _has_label(labels, each) for each in self.all("label!")
        )


def texts_of(given: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Filters as `name=value` each, also where they are docker-py's: {"status": "exited", "label": ["a", "b"]}."""
    if not isinstance(given, Mapping):
        return [given] if isinstance(given, str) else [*given]
    several = {name: value if isinstance(value, list | tuple) else [value] for name, value in given.items()}
    return [f"{name}={str(each).lower() if isinstance(each, bool) else each}"
            for name, values in several.items() for each in values]  # fmt: skip


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


# --- images ---


def chosen_images(engine: Engine, found: Sequence[Named], filters: Filters) -> list[Named]:
    """Those of `found` that all filters let pass. Raises UsageError, and ImageNotFound for before= and since=."""
    tests: list[Callable[[Reference | None, Image], bool]] = []
    dangling = filters.flag("dangling")
    if dangling is not None:
        tests.append(lambda name, image: (name is None) == dangling)
    if filters.all("label") or filters.all("label!"):
        tests.append(lambda name, image: filters.labels_hold(image.config.labels))
    if before := [moment(engine.image(name).config.created) for name in filters.all("before")]:
        tests.append(lambda name, image: any(moment(image.config.created) < each for each in before))
    if since := [moment(engine.image(name).config.created) for name in filters.all("since")]:
        tests.append(lambda name, image: any(moment(image.config.created) > each for each in since))
    if until := [instant(each) for each in filters.all("until")]:
        tests.append(lambda name, image: any(moment(image.config.created) < each for each in until))
    if patterns := [_glob(each) for each in filters.all("reference")]:
        tests.append(lambda name, image: name is not None and any(_matches(each, name) for each in patterns))
    return [(name, image) for name, image in found if all(test(name, image) for test in tests)]


def _glob(text: str) -> Glob:
    from nbcontain.build.patterns import BadPattern, Glob

    try:
        return Glob.compile(text)
    except BadPattern as error:
        raise UsageError(f"--filter reference={text}: {error.message}", hint="busybox*, */app:1, [ab]*") from None


def _matches(pattern: Glob, name: Reference) -> bool:
    """reference.FamiliarMatch: the name as people write it, with its tag or without."""
    return pattern.matches(name.familiar) or pattern.matches(name.familiar_repository)


def named(name: Reference, asked: str) -> bool:
    """Whether `images NAME` means it: a repository stands for all its tags, and patterns are allowed."""
    if any(each in asked for each in "*?["):
        return _matches(_glob(asked), name)
    wanted = Reference.parse(asked)
    tagged = ":" in asked.rpartition("/")[2] or "@" in asked
    return (name.registry, name.repository) == (wanted.registry, wanted.repository) and (
        not tagged or (name.tag, name.digest) == (wanted.tag, wanted.digest) or name.tag == wanted.tag is not None
    )


# --- containers ---


def _has_mount(container: Container, wanted: str) -> bool:
    """Whether a volume of that name is in it, or something is mounted at that path."""
    mounts = container.info.mounts
    return any(wanted in (each.get("Name"), each.get("Destination"), each.get("Source")) for each in mounts)


def _is_one_of(container: Container, statuses: Sequence[str]) -> bool:
    """docker counts a paused one as paused, and not as running."""
    status = container.status
    if status == "running" and container.is_paused:
        return "paused" in statuses
    return status in statuses or (status == "lost" and "dead" in statuses)


def chosen_containers(engine: Engine, found: Sequence[C], filters: Filters) -> list[C]:
    """Those of `found` that all filters let pass. Raises UsageError, ContainerNotFound."""
    tests: list[Callable[[Container], bool]] = []
    if ids := filters.all("id"):
        tests.append(lambda each: any(each.id.startswith(one) for one in ids))
    if patterns := [_expression(text) for text in filters.all("name")]:
        # docker's names begin with a slash inside, and people write ^/web$ for that.
        tests.append(lambda each: any(one.search(each.name) or one.search(f"/{each.name}") for one in patterns))
    if filters.all("label") or filters.all("label!"):
        tests.append(lambda each: filters.labels_hold(each.info.labels))
    if codes := [_number("exited", text) for text in filters.all("exited")]:
        tests.append(lambda each: each.status == "exited" and each.state().exit_code in codes)
    if statuses := filters.all("status"):
        for status in statuses:
            if status not in _STATUSES:
                raise UsageError(f"--filter status={status}: there is no such status", hint=", ".join(_STATUSES))
        tests.append(lambda each: _is_one_of(each, statuses))
    if conditions := filters.all("health"):
        for one in conditions:
            if one not in _HEALTH:
                raise UsageError(f"--filter health={one}: there is no such health", hint=", ".join(_HEALTH))
        tests.append(lambda each: str((each.health() or {"Status": "none"})["Status"]) in conditions)
    if ancestors := filters.all("ancestor"):
        stacks = [engine.image(name).config.diff_ids for name in ancestors]
        standing = {
            str(image.id) for _, image in engine.images()
            for below in stacks if image.config.diff_ids[: len(below)] == below
        }  # fmt: skip
        tests.append(lambda each: each.info.image_id in standing or each.image in ancestors)
    if before := [moment(engine.container(name).info.created) for name in filters.all("before")]:
        tests.append(lambda each: any(moment(each.info.created) < one for one in before))
    if since := [moment(engine.container(name).info.created) for name in filters.all("since")]:
        tests.append(lambda each: any(moment(each.info.created) > one for one in since))
    if until := [instant(text) for text in filters.all("until")]:
        tests.append(lambda each: any(moment(each.info.created) < one for one in until))
    if volumes := filters.all("volume"):
        tests.append(lambda each: any(_has_mount(each, one) for one in volumes))
    if networks := filters.all("network"):
        tests.append(lambda each: bool(set(networks) & engine.networks.names(each)))
    if published := filters.all("publish"):
        tests.append(lambda each: any(engine.networks.publishes(each, one) for one in published))
    if exposed := filters.all("expose"):
        tests.append(lambda each: any(engine.networks.exposes(each, one) for one in exposed))
    return [each for each in found if all(test(each) for test in tests)]


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--filter name={text}: that is no regular expression", why=str(error)) from None


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--filter {name}={text}: that is no number", hint=f"--filter {name}=0") from None


# --- networks ---


def chosen_networks(engine: Engine, found: Sequence[Network], filters: Filters) -> list[Network]:
    """Those of `found` that all filters let pass. Raises UsageError."""
    tests: list[Callable[[Network], bool]] = [lambda each: filters.labels_hold(each.labels)]
    if names := filters.all("name"):
        tests.append(lambda each: any(one in each.name for one in names))
    if ids := filters.all("id"):
        tests.append(lambda each: any(each.id.startswith(one) for one in ids))
    if drivers := filters.all("driver"):
        tests.append(lambda each: each.driver in drivers)
    if scopes := filters.all("scope"):
        tests.append(lambda each: "local" in scopes)
    if types := filters.all("type"):
        tests.append(lambda each: ("builtin" if each.is_built_in else "custom") in types)
    dangling = filters.flag("dangling")
    if dangling is not None:
        occupied = engine.networks.occupied()
        tests.append(lambda each: dangling == (not each.is_built_in and each.id not in occupied))
    return [each for each in found if all(test(each) for test in tests)]


# --- times ---


def moment(created: str) -> float:
    """An RFC 3339 time in seconds since the epoch; long ago if it is none."""
    try:
        from datetime import datetime

        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return float("-inf")


def instant(text: str, now: float | None = None, *, word: str = "until") -> float:
    """`word`=: a duration before now ("24h", "1h30m", "7d"), a date or time, or seconds since the epoch.

    Gives seconds since the epoch. Raises UsageError.
    """
    if re.fullmatch(_DURATION, text):
        amount = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
        return (time.time() if now is None else now) - (-amount if text.startswith("-") else amount)
    if re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text):
        return float(text)
    try:
        from datetime import datetime

        # Without a zone it is meant as it is here.
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        hint = "24h, 7d, 1h30m, 2024-05-01, 2024-05-01T12:00:00Z, or seconds since 1970"
        raise UsageError(f"{word}={text}: that is no time", hint=hint) from None
