"""The table of docs/environments.md: python tools/environments.py PLACES [--debian TAR] [NAME…]

PLACES is a directory of programs, each of which runs a command in an imitation of one kind of place:
`PLACES/NAME --copy DIRECTORY --bind OUTSIDE:INSIDE -- COMMAND…`. In each of them a wheel of this checkout is installed
by pip and `tools/trial.py` is run, with a copy of the tests; nothing else of the checkout is there. The image that is
built there is pushed to a docker-registry that serves here, and unpacked here, by root, with skopeo and umoci, which
say whose its files are; one that could not be pushed is left in a file. Rows of places that were not tried stay as
they are. NAME+sudo is a place where sudo is used, NAME+proot one where the PRoot that the tests have (tools/proot.py)
was brought along, in PATH, NAME+preload one where their fakechroot was (tools/fakechroot.py), and is asked
for. With --table FILE… only the table is made, of results that were kept (one JSON object a file, named after the
place), such as those of real hosted notebooks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "tests"))

import fakechroot  # noqa: E402
import proot  # noqa: E402

from servers import docker_registry  # noqa: E402

PAGE = CHECKOUT / "docs" / "environments.md"
BEGIN, END = "<!-- results: tools/environments.py -->", "<!-- end of results -->"
_INSIDE = (
    "cd ~ && {path} python3 -m venv v >/dev/null && v/bin/pip install -q parcel/nbcontain-*.whl nbclient nbformat"
    " pytest pytest-timeout hypothesis dockerfile >&2"
    " && {sudo} python3 parcel/trial.py v/bin/python --tests parcel {debian}"
)
_WITH = {"": {"path": "", "sudo": ""}, "sudo": {"path": "", "sudo": "sudo"}}
_WITH["proot"] = {"path": "export PATH=$PWD/parcel/proot:$PATH &&", "sudo": ""}
_WITH["preload"] = {
    "path": "export PATH=$PWD/parcel/fakechroot/usr/bin:$PATH NBCONTAIN_ISOLATION=preload &&", "sudo": "",
}  # fmt: skip
_OUTSIDE = "/mnt"
"""Where a directory of this machine's is seen in a place."""
_WAYS = ("127.0.0.1", "10.0.2.2")
"""Where this machine's loopback is in a place: where it shares the network, and behind slirp4netns."""
_OWNERS = {"usr/bin/ssh-agent": (0, 101, 0o2755), "home/alice": (1000, 1000, 0o755)}
Results = dict[str, dict[str, object]]


def main() -> None:
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="?")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--debian", default="")
    parser.add_argument("--keep", default="", help="a directory of results, old and new")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write the table, beside what is there")
    parser.add_argument("--table", nargs="*", default=[])
    given = parser.parse_args()
    if given.keep:
        # Not to miss it after minutes.
        Path(given.keep).mkdir(parents=True, exist_ok=True)
    kept = [*given.table, *(Path(given.keep).glob("*.json") if given.keep else ())]
    results: Results = {Path(file).stem: json.loads(Path(file).read_text()) for file in kept}
    if given.places:
        places = Path(given.places)
        names = given.names or sorted(each.name for each in places.iterdir() if each.is_symlink())
        with tempfile.TemporaryDirectory() as directory:
            parcel = packed(Path(directory), given.debian)
            with docker_registry(Path(directory)) as port:
                results |= {name: tried(places, name, parcel, given.keep, port) for name in names}
    text = given.page.read_text()
    before, _, rest = text.partition(BEGIN)
    shown, _, after = rest.partition(END)
    given.page.write_text(f"{before}{BEGIN}\n\n{table(results, shown)}\n{END}{after}")


def packed(directory: Path, debian: str) -> Path:
    """What is taken along to each place: a wheel, the trial, the tests, and a Debian if there is one."""
    parcel = directory / "parcel"
    parcel.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(parcel), str(CHECKOUT)], check=True
    )
    shutil.copy2(CHECKOUT / "tools" / "trial.py", parcel)
    shutil.copy2(CHECKOUT / "pyproject.toml", parcel)
    shutil.copytree(CHECKOUT / "tests", parcel / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    if proot.PROGRAM.exists():
        (parcel / "proot").mkdir()
        shutil.copy2(proot.PROGRAM, parcel / "proot")
    if fakechroot.PROGRAM.exists():
        shutil.copytree(fakechroot.ROOT / "usr", parcel / "fakechroot" / "usr")
    if debian:
        shutil.copy2(debian, parcel / "debian.tar")
    return parcel


def tried(places: Path, name: str, parcel: Path, keep: str, port: int) -> dict[str, object]:
    """What came of it in one place; a name that ends in +sudo is for root, as sudo makes one there, the others have a
    translator of paths with them."""
    place, _, more = name.partition("+")
    has_debian = (parcel / "debian.tar").exists()
    repository = name.replace("+", "-")
    ways = ",".join(f"{each}:{port}/{repository}" for each in _WAYS)
    debian = f"--debian parcel/debian.tar --push {ways} --image {_OUTSIDE}/work.tar" if has_debian else ""
    with tempfile.TemporaryDirectory() as outside:
        os.chmod(outside, 0o777)  # noqa: S103 - who a place's user is here is the place's affair
        command = [str(places / place), "--copy", str(parcel), "--bind", f"{outside}:{_OUTSIDE}", "--", "sh", "-c"]
        done = subprocess.run(
            [*command, _INSIDE.format(debian=debian, **_WITH[more])], capture_output=True, text=True, check=False
        )
        try:
            found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            found = {"doctor": {"isolation": "?", "why": (done.stderr + done.stdout)[-300:]}}
        if found.get("apt") == "fine":
            is_pushed = found.get("pushed") == "fine"
            source = f"docker://127.0.0.1:{port}/{repository}" if is_pushed else f"docker-archive:{outside}/work.tar"
            found["owners"] = owners(Path(outside), source)
    if keep:
        Path(keep, f"{name}.json").write_text(json.dumps(found))
    return found


def owners(directory: Path, source: str) -> str:
    """Whose files an image has, as others read it: "fine", or what is wrong."""
    layout, bundle = directory / "layout", directory / "bundle"
    copied = (
        "skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", source, f"oci:{layout}:work",
    )  # fmt: skip
    for command in (copied, ("umoci", "unpack", "--image", f"{layout}:work", str(bundle))):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{command[0]}: {done.stderr[-200:]}"
    found = {name: os.lstat(bundle / "rootfs" / name) for name in _OWNERS}
    seen = {name: (each.st_uid, each.st_gid, stat.S_IMODE(each.st_mode)) for name, each in found.items()}
    return ", ".join(f"{name} {said}" for name, said in seen.items() if said != _OWNERS[name]) or "fine"


def table(results: Results, shown: str) -> str:
    """Markdown; rows that are `shown` already, and that nothing new is known of, stay."""
    titles = (
        "place", "isolation", "own namespaces", "store", "run", "/proc in it", "exec", "two containers talk",
        "notebook 01", "tests", "apt-get, useradd", "pushed", "its owners",
    )  # fmt: skip
    rows = {line.split(" | ")[0].lstrip("| "): line for line in shown.strip().splitlines()[2:]}
    for name, found in results.items():
        doctor = found["doctor"]
        assert isinstance(doctor, dict)
        namespaces = " ".join(doctor.get("namespaces", ())) or "–"
        apt = str(found.get("apt", "–"))
        cells = [
            name, doctor["isolation"], namespaces, doctor.get("storage_driver", "?"), _mark(found.get("run")),
            _mark(found.get("proc")) if _mark(found.get("run")) == "yes" else "–", _mark(found.get("exec")),
            _mark(found.get("network")), _mark(found.get("notebook")), str(found.get("tests", "–")),
            f"yes, {found['apt_s']} s{' *' * bool(found.get('apt_option'))}" if apt == "fine" else _mark(apt),
            _mark(found.get("pushed")), _mark(found.get("owners")),
        ]  # fmt: skip
        rows[name] = f"| {' | '.join(map(str, cells))} |"
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join((*head, *(rows[name] for name in sorted(rows)))) + "\n"


def _mark(said: object) -> str:
    text = str(said or "")
    return "yes" if text.endswith("fine") else "–" if text in ("", "–") else "no"


if __name__ == "__main__":
    main()
