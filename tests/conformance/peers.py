"""The builders that cases are built with: nbcontain, docker (BuildKit) on a daemon of its own, and buildah.

Each gives the facts of a case's image, or why there is none. Nothing of theirs touches the machine's own
daemons, images or networks, and nothing stays.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cases import Case, base_tar, write_context
from facts import Base, Facts, Tree, apply_layer, facts_of

import needs

IGNORE = "Dockerfile.dockerignore"
BEFORE = "Dockerfile.before"
"""A case's file that is built first: the Dockerfile may say FROM before."""
_BUILD_S = 120


class Refused(Exception):
    """There is no image."""


class NotStarted(Refused):
    """A daemon does not answer; what it said last."""


def _write(case: Case, directory: Path) -> tuple[Path, Path]:
    """The context, and the directory with the Dockerfiles beside it."""
    context, texts = directory / f"{case.name}.context", directory / f"{case.name}.texts"
    write_context(case, context)
    texts.mkdir()
    (texts / "Dockerfile").write_bytes(case.dockerfile.replace(b"FROM before", f"FROM before-{case.name}".encode()))
    for name in (BEFORE, IGNORE):
        if (context / name).exists():
            (context / name).rename(texts / name)
            os.utime(context, (981_173_106, 981_173_106))
    return context, texts


def _run(command: Sequence[str], env: dict[str, str] | None = None, timeout_s: float = _BUILD_S) -> str:
    """What a program says. Raises Refused with its last lines."""
    ended = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
    )
    if ended.returncode:
        raise Refused((ended.stderr + ended.stdout).decode(errors="replace")[-2000:])
    return ended.stdout.decode(errors="replace")


def _base_of(config: dict[str, Any], layer: IO[bytes]) -> Base:
    tree: Tree = {}
    apply_layer(tree, layer)
    return Base(tree, config["rootfs"]["diff_ids"], len(config.get("history") or []))


def _attempted(build: Any, case: Case) -> Facts:
    try:
        found: Facts = build(case)
    except Refused as error:
        return {"fails": str(error).strip()}
    return found


# --- ours -------------------------------------------------------------------------------------


class Ours:
    """nbcontain, through its engine."""

    def __init__(self, directory: Path, busybox: Path) -> None:
        from nbcontain.engine import Engine

        self.directory = directory
        self.engine = Engine(directory / "store")
        tar = directory / "base.tar"
        tar.write_bytes(base_tar(busybox))
        image = self.engine.archives.import_image(str(tar), "base").result()
        blob = self.engine.store.blobs.path(image.manifest.layers[0].digest)
        with blob.open("rb") as layer:
            self.base = _base_of(json.loads(image.raw_config), layer)

    def facts(self, case: Case) -> Facts:
        """One case's, or {"fails": why}."""
        return _attempted(self._facts, case)

    def _facts(self, case: Case) -> Facts:
        from nbcontain.build.plan import BuildOptions
        from nbcontain.errors import NbcontainError

        context, texts = _write(case, self.directory)
        try:
            if (texts / BEFORE).exists():
                options = BuildOptions(context=context, tags=(f"before-{case.name}",), network="none")
                self.engine.build((texts / BEFORE).read_text(), options).result()
            options = BuildOptions(
                context=context, network="none", build_args=tuple(case.build_args), target=case.target
            )
            image = self.engine.build((texts / "Dockerfile").read_bytes().decode(), options).result()
        except NbcontainError as error:
            raise Refused(f"{type(error).__name__}: {error} {getattr(error, 'why', '')}") from error
        finally:
            shutil.rmtree(context)
        blobs = self.engine.store.blobs
        layers = [blobs.path(layer.descriptor.digest) for layer in image.layers]
        return facts_of(json.loads(image.raw_config), [lambda path=path: path.open("rb") for path in layers], self.base)

    def close(self) -> None:
        self.engine.close()


# --- docker -----------------------------------------------------------------------------------


class Docker:
    """Debian's docker with BuildKit, on a daemon of its own that hears nothing but a socket in `directory`."""

    client = "/usr/bin/docker"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "BUILDX_"))}
        # A home of its own: no credentials, no plugins.
        self.env |= {"DOCKER_BUILDKIT": "1", "HOME": str(directory), "BUILDKIT_PROGRESS": "plain"}
        self.base: Base | None = None

    def __call__(self, *words: str) -> str:
        return _run([self.client, "-H", f"unix://{self.socket}", *words], self.env)

    def import_base(self, busybox: Path) -> None:
        """Make the image `base`."""
        tar = self.directory / "base.tar"
        tar.write_bytes(base_tar(busybox))
        self("import", str(tar), "base")
        [(config, layers)] = self.saved("base").values()
        self.base = _base_of(config, io.BytesIO(layers[0]))

    def facts_of_all(self, cases: Sequence[Case]) -> dict[str, Facts]:
        """Each case's facts: built some at a time, and saved in few archives."""
        with ThreadPoolExecutor(4) as pool:
            refused = dict(zip([case.name for case in cases], pool.map(self._built, cases), strict=True))
        found = {name: {"fails": why} for name, why in refused.items() if why}
        names = [name for name, why in refused.items() if not why]
        for start in range(0, len(names), 40):
            for name, (config, layers) in self.saved(*(f"case-{each}" for each in names[start : start + 40])).items():
                opened = [lambda data=data: io.BytesIO(data) for data in layers]
                found[name.removeprefix("case-")] = facts_of(config, opened, self.base)
        return found

    def _built(self, case: Case) -> str:
        context, texts = _write(case, self.directory)
        try:
            if (texts / BEFORE).exists():
                self.build(context, texts / BEFORE, f"before-{case.name}")
            flags = [f"--build-arg={each}" for each in case.build_args]
            if case.target:
                flags.append(f"--target={case.target}")
            self.build(context, texts / "Dockerfile", f"case-{case.name}", *flags)
        except Refused as error:
            return str(error)
        finally:
            shutil.rmtree(context)
        return ""

    def build(self, context: Path, dockerfile: Path, tag: str, *flags: str) -> None:
        self("build", "--network=none", "-q", "-f", str(dockerfile), "-t", tag, *flags, str(context))

    def saved(self, *names: str) -> dict[str, tuple[dict[str, Any], list[bytes]]]:
        """Config and layers by name."""
        with tempfile.NamedTemporaryFile(dir=self.directory, suffix=".tar") as file:
            self("save", "-o", file.name, *names)
            with tarfile.open(file.name) as tar:

                def read(name: str) -> bytes:
                    stream = tar.extractfile(name)
                    assert stream is not None
                    return stream.read()

                found = {}
                layers: dict[str, bytes] = {}
                for entry in json.loads(read("manifest.json")):
                    for name in entry["Layers"]:
                        if name not in layers:
                            layers[name] = read(name)
                    config = json.loads(read(entry["Config"]))
                    for tag in entry["RepoTags"]:
                        found[tag.rpartition(":")[0]] = (config, [layers[name] for name in entry["Layers"]])
        return found


@contextmanager
def running(peer: Docker, command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[None]:
    """Its daemon while this is open, which has its pid file in the same directory. Raises NotStarted."""
    log = peer.directory / "log"
    with log.open("wb") as file:
        daemon = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            with suppress(Refused):
                peer("version")
                break
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(log.read_text()[-500:])
            time.sleep(0.1)
        yield
    finally:
        # Not whoever was begun here: it may only wait for the daemon.
        if daemon.poll() is None:
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((peer.directory / "pid").read_text()), signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            # Its containerd and shims too: they are of this session and of no other.
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


@contextmanager
def docker(directory: Path, *, sees_loopback: bool = False) -> Iterator[Docker]:
    """A daemon while this is open, which may see this machine's registries. Ends the test where there is none to start.
    """
    needs.program("dockerd", "docker.io")
    needs.program("unshare", "util-linux")
    if os.geteuid():
        needs.missing("dockerd runs only as root")
    if not Path(Docker.client).exists():
        needs.missing("/usr/bin/docker is not installed (Debian package docker.io)")
    directory.mkdir(parents=True)
    peer = Docker(directory)
    # Mounts of its own, which go with it, and a network without a way out.
    command = [
        "unshare", "--mount", *(() if sees_loopback else ("--net",)), "--propagation=private",
        shutil.which("dockerd") or "dockerd", "--host", f"unix://{peer.socket}",
        "--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"),
        "--pidfile", str(directory / "pid"), "--config-file", str(directory / "no-config.json"),
        "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2",
    ]  # fmt: skip
    (directory / "no-config.json").write_text("{}")
    try:
        with running(peer, command):
            yield peer
    except NotStarted as error:
        needs.missing(f"dockerd does not start here: {error}")


# --- buildah ----------------------------------------------------------------------------------


class Buildah:
    """Debian's buildah with a storage of its own."""

    def __init__(self, directory: Path, busybox: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.env = dict(os.environ) | {"HOME": str(directory), "TMPDIR": str(directory)}
        (directory / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (directory / "registries.conf").write_text('unqualified-search-registries=["localhost"]\n')
        (directory / "containers.conf").write_text(
            '[engine]\ncgroup_manager="cgroupfs"\n[containers]\ndefault_ulimits=["nofile=1024:1024"]\n'
        )
        self.env |= {"CONTAINERS_CONF": str(directory / "containers.conf")}
        (directory / "base.tar").write_bytes(base_tar(busybox))
        (directory / "Base").write_text("FROM scratch\nADD base.tar /\n")
        self.build(directory, directory / "Base", "localhost/base")
        config, layers = self.saved("localhost/base")
        self.base = _base_of(config, layers[0].open("rb"))

    def __call__(self, *words: str, timeout_s: float = _BUILD_S) -> str:
        storage = ["--root", str(self.directory / "root"), "--runroot", str(self.directory / "run")]
        command = ["buildah", *storage, "--storage-driver", "overlay", "--registries-conf",
                   str(self.directory / "registries.conf"), *words]  # fmt: skip
        return _run(command, self.env, timeout_s)

    def build(self, context: Path, dockerfile: Path, tag: str, *flags: str) -> None:
        self(
            "bud", "-q", "--identity-label=false", "--isolation=chroot", "--pull=never", "--network=host",
            "--format=docker", "--signature-policy", str(self.directory / "policy.json"),
            "-f", str(dockerfile), "-t", tag, *flags, str(context),
        )  # fmt: skip

    def facts(self, case: Case) -> Facts:
        """One case's, or {"fails": why}."""
        return _attempted(self._facts, case)

    def _facts(self, case: Case) -> Facts:
        context, texts = _write(case, self.directory)
        try:
            if (texts / BEFORE).exists():
                self.build(context, texts / BEFORE, f"localhost/before-{case.name}")
            flags = [f"--build-arg={each}" for each in case.build_args]
            if case.target:
                flags.append(f"--target={case.target}")
            self.build(context, texts / "Dockerfile", f"localhost/case-{case.name}", *flags)
            config, layers = self.saved(f"localhost/case-{case.name}")
        finally:
            shutil.rmtree(context)
            # With many images in its store buildah takes seconds to find one.
            with suppress(Refused):
                self("rmi", "--force", f"localhost/case-{case.name}")
        found = facts_of(config, [lambda path=path: path.open("rb") for path in layers], self.base)
        # Touched by each of its RUNs.
        found.pop("tree:/run", None)
        return found

    def saved(self, name: str) -> tuple[dict[str, Any], list[Path]]:
        """Config and layers."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        self("push", "-q", "-D", "--signature-policy", str(self.directory / "policy.json"), name, f"dir:{directory}")
        manifest = json.loads((directory / "manifest.json").read_bytes())

        def blob(descriptor: dict[str, Any]) -> Path:
            return directory / descriptor["digest"].removeprefix("sha256:")

        config = json.loads(blob(manifest["config"]).read_bytes())
        return config, [_plain(blob(each)) for each in manifest["layers"]]

    def close(self) -> None:
        """Take away the mounts that buildah leaves."""
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed(points):
            if Path(point).is_relative_to(self.directory):
                subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)


def _plain(path: Path) -> Path:
    if path.read_bytes()[:2] == b"\x1f\x8b":
        import gzip

        path.write_bytes(gzip.decompress(path.read_bytes()))
    return path
