"""A pytest plugin: the same behaviour tests under every profile that this machine offers.

A test that takes the `profile` fixture exists three times: as root, as a user with a range of ids,
and as a user with one. Whatever this process cannot be, a child pytest is, started once per profile
by `as_user.py`; its reports are replayed here, so that the account looks as if all ran in one place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import as_user
import needs

PROFILES = ("root", "rootless-range", "rootless-single")
_children = pytest.StashKey[dict[tuple[str, bool], "Child"]]()
_limit_s = pytest.StashKey[float]()
BEGINNING_S = 120
"""So long a child may take, beside its test's own time, until it runs that test and a report of it is here."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nbcontain")
    group.addoption("--reports-to", type=int, default=-1, help="internal: a descriptor for reports, as JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_children] = {}
    if (fd := config.getoption("--reports-to")) >= 0:
        config.pluginmanager.register(Sender(config, fd))


def here() -> str:
    """The profile of this very process."""
    if os.geteuid() == 0:
        return "root"
    user = os.environ.get("USER", "")
    owners = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").exists() else []
    has_range = any(line.split(":")[0] in (user, str(os.getuid())) for line in owners if line)
    return "rootless-range" if has_range and shutil.which("newuidmap") else "rootless-single"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "profile" in metafunc.fixturenames:
        is_of_users = metafunc.definition.get_closest_marker("of_users") is not None
        metafunc.parametrize("profile", PROFILES[1:] if is_of_users else PROFILES, indirect=True)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> str:
    """The name of the profile this test runs under: root, rootless-range or rootless-single."""
    wanted: str = request.param
    if wanted != here() and here() == "root":
        pytest.skip(f"nobody else can be made here to run tests as {wanted}: {why_alone()}")
    if wanted != here():
        pytest.skip(f"this user runs tests as {here()}; only root can run those of {wanted}")
    return wanted


@cache
def why_alone() -> str:
    """Why nobody else's tests can be run here (as_user.py); "" where they can."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "true"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


def profile_of(item: pytest.Item) -> str | None:
    """The profile a collected test is for; None where it does not care."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("profile")


def wire_of(item: pytest.Item) -> str:
    """What its child is told to have a network namespace of its own; "" if it has none."""
    marker = item.get_closest_marker("of_users")
    if marker is None:
        return ""
    return as_user.WIRED if marker.kwargs.get("tunnel", True) else as_user.WALLED


def is_replayed(item: pytest.Item) -> bool:
    """Whether another profile's child runs it."""
    return here() == "root" and profile_of(item) not in (None, "root") and not why_alone()


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """A replayed test has its time in the child. An alarm here strikes where nothing of pytest's catches it.

    So it is the last resort, of what is torn down here once the reports came or did not.
    """
    if not is_replayed(item):
        return None
    item.stash[_limit_s] = settings.timeout + BEGINNING_S
    later = settings._replace(timeout=item.stash[_limit_s] + settings.timeout)
    item.config.pluginmanager.getplugin("timeout").pytest_timeout_set_timer(item, later)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Replay the reports of a test that another profile's child runs."""
    wanted = profile_of(item)
    if wanted is None or not is_replayed(item):
        return None
    children = item.config.stash[_children]
    key = (wanted, wire_of(item))
    if key not in children:
        nodeids = [each.nodeid for each in item.session.items if (profile_of(each), wire_of(each)) == key]
        children[key] = Child(item.config, wanted, nodeids, wire=wire_of(item))
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in children[key].reports(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What the last test that ran here left set up for its neighbours, as far as the next one has no use for it.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_unconfigure(config: pytest.Config) -> None:
    for child in config.stash.get(_children, {}).values():
        child.close()


class Sender:
    """In a child: sends each report up."""

    def __init__(self, config: pytest.Config, fd: int) -> None:
        self._config, self._stream = config, os.fdopen(fd, "wb")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._stream.write(json.dumps(data, default=str).encode() + b"\n")
        self._stream.flush()


class Child:
    """A pytest that runs the tests of one profile as the user made for it."""

    def __init__(self, config: pytest.Config, profile: str, nodeids: list[str], *, wire: str) -> None:
        self._config = config
        self._ready: dict[str, list[pytest.TestReport]] = {}
        self._ended = False
        self._changed = threading.Condition()
        uid = as_user.USERS[profile][1]
        self._home = Path(tempfile.mkdtemp(prefix=f"nbcontain-{profile}-", dir=needs.scratch()))
        os.chown(self._home, uid, uid)
        reading, writing = os.pipe()
        self._stream = os.fdopen(reading, "rb")
        self._log = (self._home / "pytest.log").open("wb")
        options = ["-p", "no:cacheprovider", f"--reports-to={writing}", f"--basetemp={self._home}/tmp", "-q"]
        if config.getoption("timeout", None) is not None:
            options.append(f"--timeout={config.getoption('timeout')}")
        pytest_child = [sys.executable, "-m", "pytest", *options, *nodeids]
        # As root once more: the wire is laid before the user is one.
        self._process = subprocess.Popen(
            [sys.executable, "-I", as_user.__file__, profile, str(self._home), *filter(None, [wire]), *pytest_child],
            cwd=config.rootpath,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[writing],
        )
        os.close(writing)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take in reports as they come, on a thread: a child that nobody listens to would run into its time-outs."""
        for line in self._stream:
            try:
                data: dict[str, Any] = json.loads(line)
            except ValueError:
                break  # killed while it wrote
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
            if isinstance(report.longrepr, list):
                # A skip's place and reason are a tuple, which JSON does not know.
                report.longrepr = tuple(report.longrepr)
            with self._changed:
                self._ready.setdefault(report.nodeid, []).append(report)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of one test, waiting for them; a failure made up where the child ended, or is silent, without."""

        def is_told() -> bool:
            done = self._ready.get(item.nodeid, [])
            return self._ended or bool(done) and done[-1].when == "teardown"

        with self._changed:
            self._changed.wait_for(is_told, item.stash.get(_limit_s, None))
            done = self._ready.pop(item.nodeid, [])
        yield from done
        if not done or done[-1].when != "teardown":
            yield self._without(item)

    def _without(self, item: pytest.Item) -> pytest.TestReport:
        ended = f"ended with {self._process.wait()}" if self._ended else "goes on"
        self._log.flush()
        tail = (self._home / "pytest.log").read_text(errors="replace")[-6000:]
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"the child pytest {ended} and no report of this test came\n{tail}",
            when="call",
        )

    def close(self) -> None:
        """End the child and remove what it left; root may remove files of subordinate ids too."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._reader.join(5)
        self._stream.close()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)
