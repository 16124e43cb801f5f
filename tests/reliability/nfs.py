"""A home and a store on NFS, for real: `python tests/reliability/nfs.py`, as root, on Debian.

Few kernels of test machines have a client of NFS. So a Linux that has one is run as a process (user-mode-linux): it
serves a disk of its own to itself, and does there what a user would. Its packages are fetched and unpacked, not
installed. The files of this machine are seen inside as they are, and cannot be written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PLACE = CHECKOUT / ".cache" / "nfs"
PACKAGES = (
    "user-mode-linux", "nfs-kernel-server", "nfs-common", "kmod", "libkmod2", "keyutils", "libkeyutils1", "rpcbind",
    "libtirpc3", "libwrap0", "libnfsidmap1", "libdevmapper1.02.1", "libevent-core-2.1-7",
)  # fmt: skip
UNPACKED = PLACE / "unpacked"
MODULES = ("overlay", "nfsd", "nfs", "nfsv4", "nf_tables", "veth", "bridge", "nft_ct", "nft_masq", "nft_nat")
INIT = f"""\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mkdir /dev/shm
for each in /run /tmp /var/lib /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs $each; done
{sys.executable} -B {Path(__file__).resolve()} inside
sync; echo o > /proc/sysrq-trigger; sleep 60
"""
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo one > /one"]
RUN ["/bin/busybox", "rm", "/one"]
CMD ["/bin/busybox", "echo", "from the network"]
"""
SAID = "things that do not hold:"


def main() -> int:
    """On this machine: fetch, and boot. The number of what does not hold, or 99 if it did not come so far."""
    PLACE.mkdir(parents=True, exist_ok=True)
    if not UNPACKED.exists():
        subprocess.run(["apt-get", "-q", "download", *PACKAGES], cwd=PLACE, check=True)
        for package in PLACE.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(UNPACKED)], check=True)
        # Where modprobe looks, and by which name kmod is modprobe.
        (UNPACKED / "lib/modules").symlink_to("../usr/lib/uml/modules")
        (UNPACKED / "modprobe").symlink_to("bin/kmod")
    with (PLACE / "disk").open("wb") as disk:
        disk.truncate(3 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(PLACE / "disk")], check=True)
    (PLACE / "init").write_text(INIT)
    (PLACE / "init").chmod(0o755)
    booted = subprocess.Popen(
        [str(UNPACKED / "usr/bin/linux.uml"), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "mem=2G",
         f"ubd0={PLACE / 'disk'}", f"init={PLACE / 'init'}", "con=null", "con0=null,fd:1", "quiet",
         f"uml_dir={PLACE}/"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={"HOME": str(PLACE), "PATH": os.defpath},
    )  # fmt: skip
    assert booted.stdout is not None
    bad = 99
    for line in booted.stdout:
        print(line, end="", flush=True)
        if line.startswith(SAID):
            bad = int(line.removeprefix(SAID))
    booted.wait()
    (PLACE / "disk").unlink()
    return bad


# --- inside -----------------------------------------------------------------------------------------------------------


def serve() -> None:
    """The disk is served by NFS 4.2, and mounted from there at /run/nfs."""
    os.environ["LD_LIBRARY_PATH"] = f"{UNPACKED}/usr/lib/x86_64-linux-gnu:{UNPACKED}/lib/x86_64-linux-gnu"
    os.environ["PATH"] += f":{UNPACKED}/sbin:{UNPACKED}/usr/sbin"
    for module in MODULES:
        subprocess.run([str(UNPACKED / "modprobe"), "-d", str(UNPACKED), module], check=False)
    export = Path("/run/disk/export")
    for directory in ("/run/disk", "/run/nfs", "/var/lib/nfs/rpc_pipefs", "/var/lib/nfs/v4recovery"):
        os.makedirs(directory)
    control = Path("/proc/fs/nfsd")
    for words in (
        "ip link set lo up", "hostname nfs", "mount -t ext4 /dev/ubda /run/disk", f"mount -t nfsd nfsd {control}",
        f"mkdir -m 1777 {export}", "touch /var/lib/nfs/etab /var/lib/nfs/rmtab",
    ):  # fmt: skip
        subprocess.run(words.split(), check=True)
    # Nobody has locks from before that might be claimed again: for those a server waits a minute and a half.
    (control / "nfsv4leasetime").write_text("10")
    (control / "nfsv4gracetime").write_text("10")
    share = "rw,no_root_squash,insecure,fsid=0,no_subtree_check,async"
    # It misses the file /etc/exports, and does it all the same.
    subprocess.run(["exportfs", "-o", share, f"127.0.0.1:{export}"], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rpc.mountd", "-N", "3"], check=True)
    subprocess.run(["rpc.nfsd", "-N", "3", "-V", "4.2", "2"], check=True)
    (control / "v4_end_grace").write_text("Y")
    subprocess.run(["mount.nfs4", "127.0.0.1:/", "/run/nfs", "-o", "vers=4.2"], check=True)


def let_pass() -> None:
    """The interpreter is often below /root, where a user may not pass: there is nothing else there then."""
    prefix = Path(sys.base_prefix).resolve()
    if prefix.parts[1] == "root":
        for words in (f"mkdir /run/kept {prefix}", f"mount --bind {prefix} /run/kept",
                      "mount -t tmpfs -o mode=755 tmpfs /root", f"mkdir -p {prefix}",
                      f"mount --bind /run/kept {prefix}"):  # fmt: skip
            subprocess.run(words.split(), check=False, stderr=subprocess.DEVNULL)


class User:
    """Somebody at a terminal; what does not hold is counted."""

    bad = 0

    def __call__(self, command: str, wanted: str = "", status: int = 0, **more: str) -> str:
        """Give a command, of which this is to be said."""
        as_user = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"] * ("USER" in more)
        done = subprocess.run(
            [*as_user, sys.executable, "-B", "-m", "nbcontain", *command.split()], text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": "/run/nfs/home",
                 "NBCONTAIN_NETWORK": "none", "NBCONTAIN_ROOT": "/run/nfs/store", **more},
        )  # fmt: skip
        holds = wanted in done.stdout and done.returncode == status and "Traceback" not in done.stdout
        self.bad += not holds
        print(f"{'yes' if holds else 'NO '} {command}", flush=True)
        if not holds:
            print(f"    wanted {wanted!r} and {status}, got {done.returncode}: {done.stdout[-1500:]}", flush=True)
        return done.stdout


    def sees_go(self, directory: str) -> None:
        """What is in it is being removed, and not kept as somebody's open file."""
        until = time.monotonic() + 10
        while (there := os.listdir(directory)) and time.monotonic() < until:
            time.sleep(0.1)
        self.bad += bool(there)
        print(f"{'NO ' if there else 'yes'} {directory} is empty: {there}", flush=True)


def inside() -> None:
    """In the Linux of its own."""
    serve()
    let_pass()
    user = User()
    os.makedirs("/run/nfs/home/user")
    os.chown("/run/nfs/home/user", 1234, 1234)
    elsewhere = "is on a file system of a network (nfs4): images and containers are kept in /var/tmp/nbcontain-1234"
    user("info", elsewhere, USER="user", HOME="/run/nfs/home/user", NBCONTAIN_ROOT="")
    user("info", "storage driver  copy (no overlay can be mounted there")
    context = Path("/tmp/context")
    context.mkdir()
    shutil.copy2(shutil.which("busybox") or "busybox", context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    user(f"build -q -t box {context}", "sha256:")
    user("run --name kept box", "from the network")
    user("run --rm box /bin/busybox ls /", "bin")
    user.sees_go("/run/nfs/store/tmp")
    user("run --name changed box /bin/busybox touch /new")
    user("diff changed", "/new")
    user("commit changed made", "sha256:")
    user("run -d --name waits box /bin/busybox sleep 1000")
    user("rmi box", "waits (running)", 1)
    user("rm -f waits kept changed", "waits")
    user("image verify made", "is whole")
    user("save -q -o /tmp/made.tar made")
    user("rmi box made", "Deleted: sha256:")
    user("load -i /tmp/made.tar", "Loaded image: made:latest")
    user("run --rm made /bin/busybox ls /new", "/new")
    user("run --rm no/such/image", "no image", 125)
    user("system prune -af")
    user("system check --full", "clean: 0 images, 0 blobs, 0 layers, 0 containers")
    left = [str(path) for path in Path("/run/nfs/store").rglob(".nfs*")]
    print(f"left of removed files: {left}")
    print(SAID, user.bad + len(left), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        inside()
    else:
        sys.exit(main())
