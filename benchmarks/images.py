"""Loading, pulling, pushing and committing one image, beside podman, docker and skopeo, and a C untar of its layer.

python benchmarks/images.py [ROUNDS [DEBIAN.tar [TABLE...]]] - without an archive, mmdebstrap makes one (170 MB, 8,700
files); the tables are load, push, pull, commit. As a user with a range of ids:
python tests/as_user.py rootless-range HOME python benchmarks/images.py 4 DEBIAN.tar load pull

Every store is on one disk; whole client processes, ours in a process that has done so before. What is there is
removed before each round, and not timed. None of them waits for the disk.
Needs docker-registry and skopeo; a user's docker runs in podman's user namespace.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import heading, interleaved, private_disk, ratio, row, spawned

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "conformance")]

import peers  # noqa: E402
import pytest  # noqa: E402

import servers  # noqa: E402
from nbcontain import Engine, RunOptions  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
TABLES = sys.argv[3:] or ["load", "push", "pull", "commit"]
DISK_BYTES = 20 << 30
NAME = "debian"
Case = Callable[[], float | None]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Podman:
    """podman with a store of its own."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        disk.mkdir()
        (disk / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (disk / "containers.conf").write_text(
            '[engine]\ncgroup_manager="cgroupfs"\n[containers]\ndefault_ulimits=["nofile=1024:1024"]\n'
        )
        # Of at most 50 characters: podman's rule.
        self.runs = Path(tempfile.mkdtemp(prefix="pod-", dir="/tmp"))
        self.env = os.environ | {"CONTAINERS_CONF": str(disk / "containers.conf"), "TMPDIR": str(disk)}

    def __call__(self, *words: str, stdin: Path | None = None) -> str:
        command = ["podman", "--root", str(self.disk / "root"), "--runroot", str(self.runs), "--storage-driver",
                   "overlay", "--events-backend", "none", "--cgroup-manager", "cgroupfs", *words]  # fmt: skip
        with open(stdin or os.devnull, "rb") as given:
            ended = subprocess.run(command, env=self.env, stdin=given, capture_output=True, check=False)
        if ended.returncode:
            raise peers.Refused(ended.stderr.decode(errors="replace")[-1000:])
        return ended.stdout.decode().strip()

    def close(self) -> None:
        """Take away what is not on the disk, and a user's process that holds his namespaces."""
        if os.geteuid():
            with contextlib.suppress(peers.Refused):
                self("system", "migrate")
        shutil.rmtree(self.runs, ignore_errors=True)


@contextlib.contextmanager
def registry(disk: Path) -> Iterator[tuple[str, Path]]:
    """A docker-registry on loopback: its host:port, and where its blobs are."""
    (disk / "registry").mkdir()
    with servers.docker_registry(disk) as port:
        yield f"127.0.0.1:{port}", disk / "registry"


@contextlib.contextmanager
def users_docker(directory: Path) -> Iterator[peers.Docker]:
    """A daemon of docker's in rootless mode. podman makes the user namespace, which is all that it needs to load."""
    (directory / "bin").mkdir(parents=True)
    # It asks for the program, and never runs it without ports.
    (directory / "bin" / "rootlesskit-docker-proxy").symlink_to("/bin/true")
    (directory / "no-config.json").write_text("{}")
    peer = peers.Docker(directory)
    path = f"{directory / 'bin'}:{os.environ['PATH']}"
    env = peer.env | {"PATH": path, "ROOTLESSKIT_STATE_DIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    daemon = (
        f"mount -t tmpfs tmpfs /run && exec dockerd --rootless --host unix://{peer.socket} "
        f"--data-root {directory}/data --exec-root {directory}/exec --pidfile {directory}/pid "
        f"--config-file {directory}/no-config.json --iptables=false --ip6tables=false --bridge=none "
        "--userland-proxy=false --storage-driver=overlay2"
    )
    runs = tempfile.mkdtemp(prefix="pod-", dir="/tmp")
    podman = ["podman", "--root", str(directory / "podman"), "--runroot", runs]
    command = [*podman, "unshare", "unshare", "--mount", "--propagation=private", "sh", "-c", daemon]
    try:
        with peers.running(peer, command, env):
            yield peer
    finally:
        subprocess.run([*podman, "system", "migrate"], env=env, stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(runs, ignore_errors=True)


class Bench:
    """One image in all the stores of one disk."""

    def __init__(self, disk: Path, tar: Path, stack: contextlib.ExitStack) -> None:
        self.disk, self.tar = disk, tar
        self.engine = stack.enter_context(Engine(disk / "ours"))
        self.podman = Podman(disk / "podman")
        stack.callback(self.podman.close)
        self.docker: peers.Docker | None = None
        with contextlib.suppress(pytest.skip.Exception, peers.Refused):
            begun = users_docker(disk / "docker") if os.geteuid() else peers.docker(disk / "docker", sees_loopback=True)
            self.docker = stack.enter_context(begun)
        self.untar = disk / "untar"
        subprocess.run(["gcc", "-O2", "-o", str(self.untar), str(Path(__file__).parent / "untar.c")], check=True)
        self.engine.archives.import_image(str(tar), NAME).result()
        self.saved, self.layout = disk / "docker.tar", disk / "layout"
        # docker's archives before 25 have their layers plain; an OCI layout has them compressed.
        self.podman("import", str(tar), f"localhost/{NAME}")
        self.podman("save", "-q", "--format", "docker-archive", "-o", str(self.saved), f"localhost/{NAME}")
        self.engine.archives.save([NAME], str(disk / "oci.tar")).result()
        source, target = f"oci-archive:{disk}/oci.tar", f"oci:{self.layout}:it"
        peers._run(["skopeo", "--insecure-policy", "copy", "-q", source, target])
        self.count = 0

    def forget(self) -> None:
        """What is pulled or loaded next is not there."""
        for image in {image.id for _, image in self.engine.images()}:
            self.engine.remove_image(str(image), force=True)
        self.engine.prune()

    def untarred(self) -> float:
        self.count += 1
        target = self.disk / f"untarred-{self.count}"
        target.mkdir()
        return timed(lambda: spawned([str(self.untar), str(self.tar), str(target)]))

    # --- load ---

    def loads(self) -> dict[str, Case]:
        def ours(archive: Path) -> Case:
            def case() -> float:
                self.forget()
                return timed(lambda: self.engine.archives.load(str(archive)).result())

            return case

        def podman() -> float:
            self.podman("rmi", "-f", "-a")
            return timed(lambda: self.podman("load", "-q", "-i", str(self.saved)))

        found: dict[str, Case] = {
            "untar.c of the plain tar": self.untarred,
            "here, docker's archive": ours(self.saved),
            "here, OCI archive (gzip)": ours(self.disk / "oci.tar"),
            "podman load": podman,
        }
        if (docker := self.docker) is not None:

            def load() -> float:
                with contextlib.suppress(peers.Refused):
                    docker("rmi", "-f", f"localhost/{NAME}")
                return timed(lambda: docker("load", "-q", "-i", str(self.saved)))

            found["docker load"] = load
        return found

    # --- a registry ---

    def named(self, host: str) -> str:
        """What the image is called there; it is here under that name, too."""
        self.engine.archives.load(str(self.disk / "oci.tar")).result()
        name = f"{host}/{NAME}:1"
        self.engine.tag(NAME, name)
        return name

    def pushes(self, host: str, data: Path) -> dict[str, Case]:
        def emptied(push: Callable[[], object]) -> Case:
            def case() -> float:
                shutil.rmtree(data / "docker", ignore_errors=True)
                return timed(push)

            return case

        self.podman("load", "-q", "-i", str(self.saved))
        name = self.named(host)
        source = f"oci:{self.layout}:it"
        return {
            "skopeo copy from a layout": emptied(
                lambda: peers._run(["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", source,
                                    f"docker://{name}"])),
            "podman push": emptied(lambda: self.podman("push", "-q", "--tls-verify=false", f"localhost/{NAME}", name)),
            "here, push": emptied(lambda: self.engine.registry.push(name).result()),
        }  # fmt: skip

    def pulls(self, host: str) -> dict[str, Case]:
        name = self.named(host)
        self.engine.registry.push(name).result()

        def ours() -> float:
            self.forget()
            return timed(lambda: self.engine.registry.pull(name).result())

        def podman() -> float:
            self.podman("rmi", "-f", "-a")
            return timed(lambda: self.podman("pull", "-q", "--tls-verify=false", name))

        found: dict[str, Case] = {
            "untar.c of the plain tar": self.untarred,
            "podman pull": podman,
            "here, pull": ours,
            "here, pull of what is here": lambda: timed(lambda: self.engine.registry.pull(name).result()),
        }
        if (docker := self.docker) is not None:

            def pull() -> float:
                with contextlib.suppress(peers.Refused):
                    docker("rmi", "-f", name, f"localhost/{NAME}")
                return timed(lambda: docker("pull", "-q", name))

            found["docker pull"] = pull
        return found

    # --- commit ---

    def commits(self) -> dict[str, Case]:
        busybox = self.disk / "base.tar"
        busybox.write_bytes(peers.base_tar(Path(shutil.which("busybox") or "/bin/busybox")))
        self.engine.archives.import_image(str(busybox), "base").result()
        volume = f"{self.disk}:/from:ro"
        words = ("tar", "-x", "-f", f"/from/{self.tar.name}", "-C", "/srv")
        options = RunOptions(image="base", name="full", command=("/bin/busybox", "sh", "-c",
            "mkdir -p /srv && exec /bin/busybox " + " ".join(words)), volumes=(volume,), network="none")  # fmt: skip
        self.engine.run(options).result()
        [container] = [each for each in self.engine.containers() if each.name == "full"]
        blobs = self.engine.store.blobs

        def ours() -> float:
            known = set(blobs.walk())
            took_s = timed(lambda: self.engine.archives.commit(container, "made").result())
            self.engine.remove_image("made", force=True)
            for blob in set(blobs.walk()) - known:
                blobs.remove(blob)
            return took_s

        self.podman("import", str(busybox), "localhost/base")
        self.podman("create", "--name", "full", "localhost/base", "true")
        self.podman("cp", "-", "full:/srv", stdin=self.tar)

        def podman() -> float:
            took_s = timed(lambda: self.podman("commit", "-q", "full", "localhost/made"))
            self.podman("rmi", "-f", "localhost/made")
            return took_s

        found: dict[str, Case] = {"here, commit": ours, "podman commit": podman}
        if (docker := self.docker) is not None:
            docker("import", str(busybox), "base")
            docker("create", "--name", "full", "base", "true")
            with self.tar.open("rb") as given:
                command = [docker.client, "-H", f"unix://{docker.socket}", "cp", "-", "full:/srv"]
                subprocess.run(command, env=docker.env, stdin=given, check=True)

            def commit() -> float:
                took_s = timed(lambda: docker("commit", "full", "made"))
                docker("rmi", "-f", "made")
                return took_s

            found["docker commit"] = commit
        return found


def table(label: str, cases: dict[str, Case], disk: Path, yardstick: str) -> None:
    """Measure and print."""
    times = interleaved(ROUNDS, cases, disk)
    heading(label)
    for name, found in times.items():
        row(name, found, f"{ratio(times, name, yardstick):.2f} x {yardstick}")


def debian(disk: Path) -> Path:
    """The plain tar of a small Debian."""
    made = disk / "debian.tar"
    if len(sys.argv) > 2:
        shutil.copy(sys.argv[2], made)
    else:
        subprocess.run(["mmdebstrap", "--variant=minbase", "bookworm", str(made)], check=True)
    with made.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    if is_packed:
        # By another process: what this one needs at most is a figure too.
        subprocess.run(["gzip", "-d", str(made.rename(made.with_suffix(".tar.gz")))], check=True)
    return made


def main() -> None:
    """Print the tables."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(private_disk(DISK_BYTES))
        bench = Bench(disk, debian(disk), stack)
        print(f"{NAME}: {bench.tar.stat().st_size / 1e6:.0f} MB")
        if "load" in TABLES:
            table("load", bench.loads(), disk, "untar.c of the plain tar")
        host, data = stack.enter_context(registry(disk))
        if "push" in TABLES:
            table("push to an empty registry", bench.pushes(host, data), disk, "skopeo copy from a layout")
        if "pull" in TABLES:
            table("pull", bench.pulls(host), disk, "untar.c of the plain tar")
        if "commit" in TABLES:
            table("commit", bench.commits(), disk, "here, commit")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB here")


if __name__ == "__main__":
    main()
