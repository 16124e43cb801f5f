"""docker's images, history, inspect and ps beside ours, of the same images: the same words in, the same out."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
from nbcontain.build.plan import BuildOptions
from nbcontain.commands import parse_words
from nbcontain.display.formats import Columns
from nbcontain.display.values import InProgress, Lines
from nbcontain.engine import Engine
from nbcontain.errors import StoreError

sys.path.insert(0, str(Path(__file__).parent))

import peers  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="dockerd runs only as root")]

BOX = """\
FROM scratch
COPY busybox /bin/busybox
ENV PATH=/bin A="b c"
LABEL team=data tier=1
CMD ["sh", "-c", "echo hello   and a good deal more"]
"""
APP = """\
FROM box
RUN ["/bin/busybox", "mkdir", "-p", "/a/b/c/a-directory-with-a-name-that-is-much-longer-than-any-column"]
USER 7:8
WORKDIR /a
LABEL tier=2
"""


@pytest.fixture(scope="module")
def both(busybox_context: Path) -> Iterator[tuple[Engine, peers.Docker]]:
    """Two images of ours, and a daemon that has loaded them; a container of one in each that never ran."""
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name,
        Engine(Path(name, "root")) as engine,
        peers.docker(Path(name, "docker")) as docker,
    ):
        engine.build(BOX, BuildOptions(tags=("box",), context=busybox_context)).result()
        engine.build(APP, BuildOptions(tags=("team/app:1", "team/app:old"), context=busybox_context)).result()
        engine.archives.save(("box", "team/app"), f"{name}/images.tar").result()
        docker("load", "-i", f"{name}/images.tar")
        words = [
            "create",
            "--name",
            "web",
            "--network",
            "host",
            "--label",
            "a=b",
            "--label",
            "com.x=y",
            "box",
            "sh",
            "-c",
            "exit 3",
        ]
        docker(*words)
        command, options = parse_words("", words)
        command.function(engine, options)
        yield engine, docker
        for container in engine.containers():
            engine.remove_container(container, force=True)


def ours(engine: Engine, *words: str) -> str:
    command, options = parse_words("", words)
    value = command.function(engine, options)
    match value:
        case Lines(lines=lines):
            return "\n".join(lines) + "\n" * bool(lines)
        case InProgress(task=task):
            lines = task.result()
            assert isinstance(lines, Lines)
            return "\n".join(lines.lines) + "\n"
        case Columns():
            return value.text() + "\n"
    raise AssertionError(value)


# Sizes are not compared: docker counts unpacked files, and we the layers as they are stored.
LISTINGS = [
    ("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"),
    ("images", "--no-trunc", "--format", "{{.ID}}|{{.CreatedAt}}"),
    ("images", "--format", r"table {{.Repository}}\t{{.Tag}}\t{{.ID}}"),
    ("images", "--format", "table {{.Tag}}"),
    ("images", "--format", "table {{upper .Repository}}\\t{{truncate .ID 4}}"),
    ("images", "--format", "table {{.Repository}} {{.CreatedAt}}"),
    ("images", "--filter", "label=team=data", "--format", "{{.Repository}}:{{.Tag}}"),
    ("images", "--filter", "label=tier=2", "--filter", "label=team", "--format", "{{.Tag}}"),
    ("images", "--filter", "reference=team/*", "--format", "{{.Tag}}"),
    ("images", "--filter", "reference=*:old", "--format", "{{.Tag}}"),
    ("images", "--filter", "reference=*/*:old", "--format", "{{.Tag}}"),
    ("images", "--filter", "reference=box:latest", "--filter", "reference=team/app:1", "--format", "{{.Tag}}"),
    ("images", "--filter", "before=team/app:1", "--format", "{{.Repository}}"),
    ("images", "--filter", "since=box", "--format", "{{.Tag}}"),
    ("images", "--filter", "dangling=true", "--format", "{{.Repository}}"),
    ("images", "team/app", "--format", "{{.Tag}}"),
    ("images", "team/app:old", "--format", "{{.Tag}}"),
    ("images", "-q", "--no-trunc"),
    ("images", "-q", "box"),
    ("history", "-q", "team/app:1"),
    ("history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "team/app:1"),
    ("history", "--no-trunc", "--format", "{{.ID}}|{{.CreatedBy}}|{{.CreatedAt}}", "team/app:1"),
    ("history", "--format", r"table {{.ID}}\t{{.CreatedBy}}", "team/app:1"),
    ("history", "-H=false", "--format", "{{.CreatedSince}}", "box"),
    ("inspect", "-f", "{{.Id}} {{json .RepoTags}} {{.Architecture}} {{.Os}} {{.Author}}", "box"),
    ("inspect", "-f", "{{json .Config.Cmd}} {{json .Config.Env}} {{json .Config.Labels}}", "team/app:1"),
    ("inspect", "-f", "{{.Config.User}}", "team/app:1"),
    ("inspect", "-f", "{{json .RootFS.Layers}} {{.RootFS.Type}} {{.Config.WorkingDir}} {{.Created}}", "team/app:1"),
    ("inspect", "-f", "{{range .Config.Env}}{{.}};{{end}}{{index .Config.Labels \"team\"}}", "team/app:1"),
    ("inspect", "-f", "{{index .Config.Labels \"no-such\"}}|{{len .RootFS.Layers}}", "box"),
    ("inspect", "-f", "{{with .Config.User}}{{.}}{{else}}nobody{{end}}", "box"),
    ("image", "inspect", "-f", "{{range $i, $l := .RootFS.Layers}}{{$i}}={{$l}} {{end}}", "box", "team/app:1"),
    ("ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Status}} {{.Networks}}"),
    ("ps", "-a", "--no-trunc", "--format", "{{.Command}}"),
    ("ps", "-a", "--format", 'table {{.Names}}\\t{{.Label "a"}}\\t{{.Image}}'),
    ("ps", "--format", "{{.Names}}"),
    ("ps", "-n", "3", "--format", "{{.Names}}"),
    ("ps", "-l", "--format", "{{.Names}}"),
    ("ps", "--filter", "status=created", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "name=^/we", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "name=eb", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "label=a=b", "--format", '{{.Label "com.x"}}'),
    ("ps", "-a", "--filter", "label=a=c", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "ancestor=box", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "ancestor=team/app:1", "--format", "{{.Names}}"),
    ("ps", "-a", "--filter", "network=host", "--format", "{{.Names}}"),
    ("inspect", "-f", "{{.State.Status}} {{.State.Running}} {{.Path}} {{json .Args}}", "web"),
    # What is not set.
    ("inspect", "-f", "{{.ID}} {{.Config.ExposedPorts}} {{json .Config.ExposedPorts}} {{.Config.Healthcheck}}", "box"),
    ("inspect", "-f", "{{.Config.StopSignal}}|{{.Config.Hostname}}|{{.Config.OnBuild}}|{{.Config.Shell}}", "box"),
    ("inspect", "-f", "{{.Config.Labels.nope}} {{.Config.Entrypoint}} {{.Config.StopTimeout}} {{.OsVersion}}", "box"),
    ("inspect", "-f", "{{range $port, $_ := .Config.ExposedPorts}}{{$port}}{{else}}none{{end}}", "box"),
    ("inspect", "-f", "{{if .Config.Healthcheck}}y{{else}}n{{end}} {{.DockerVersion}} {{.Parent}}", "box"),
    ("inspect", "-f", "{{.State.Health}} {{.SizeRw}} {{.ExecIDs}} {{.Config.ExposedPorts}} {{.Mounts}}", "web"),
    ("inspect", "-f", "{{.HostConfig.StorageOpt}} {{.HostConfig.DNS}} {{.HostConfig.RestartPolicy}}", "web"),
    ("inspect", "-f", "{{.NetworkSettings.Networks.nope.IPAddress}} {{.NetworkSettings.Ports}}", "web"),
    ("network", "inspect", "-f", "{{.Peers}} {{.Services}} {{.Labels.nope}} {{.ConfigFrom}} {{.ConfigOnly}}", "host"),
]  # fmt: skip


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_the_same_words_give_the_same(both: tuple[Engine, peers.Docker], words: tuple[str, ...]) -> None:
    engine, docker = both
    theirs, mine = docker(*words), ours(engine, *words)
    if words[0] == "images":
        # Of what was made in the same second docker gives any order, and with -q an id for each of its names.
        theirs, mine = ("\n".join(sorted(set(text.splitlines()))) for text in (theirs, mine))
    assert mine == theirs


@pytest.mark.parametrize("words", [("images",), ("history", "box"), ("ps", "-a")], ids=" ".join)
def test_json_has_all_the_names_that_dockers_has(both: tuple[Engine, peers.Docker], words: tuple[str, ...]) -> None:
    engine, docker = both
    theirs = json.loads(docker(*words, "--format", "{{json .}}").splitlines()[0])
    mine = json.loads(ours(engine, *words, "--format", "{{json .}}").splitlines()[0])
    assert set(theirs) - {"Platform", "LocalVolumes", "Mounts", "Ports"} <= set(mine)


NOT_HERE = {
    # Of an older kernel's, or of Windows.
    ".HostConfig.KernelMemory", ".HostConfig.KernelMemoryTCP",
    # What is executed is not kept.
    ".ExecIDs",
    # No container's files are mounted outside of it.
    ".GraphDriver.Data.MergedDir",
    # Such limits are in Spec.
    *(f".HostConfig.BlkioDevice{each}" for each in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")),
}  # fmt: skip


def names(value: object, path: str = "") -> set[str]:
    """What a document has, as paths."""
    if isinstance(value, list):
        return {name for each in value for name in names(each, path)}
    if not isinstance(value, dict):
        return set()
    return {f"{path}.{key}" for key in value} | {
        name for key, each in value.items() if key != "Labels" for name in names(each, f"{path}.{key}")
    }


def test_inspect_of_a_container_has_all_the_names_that_dockers_has(both: tuple[Engine, peers.Docker]) -> None:
    engine, docker = both
    [theirs], mine = json.loads(docker("inspect", "web")), engine.container("web").to_dict()
    assert names(theirs) - names(mine) == NOT_HERE
    kinds = {(key, type(theirs["State"][key]), type(mine["State"][key])) for key in theirs["State"]}
    assert {each for each in kinds if each[1] is not each[2]} == set()
    for path in ("Config", "HostConfig"):
        # Lists that are empty are null with docker here and there, and "host" is its default of some.
        usual = (None, [], "", 0, False, {})
        different = {
            key for key, value in theirs[path].items()
            if key in mine[path] and value not in usual and value != mine[path][key]
        }  # fmt: skip
        # Nobody is attached to what is only made.
        attached = {"AttachStdout", "AttachStderr"}
        assert different <= {"Env", "CgroupnsMode", "Runtime", "MaskedPaths", "ReadonlyPaths", *attached}


@pytest.mark.parametrize(
    "words",
    [("images", "--format", "{{.Nope}}"), ("images", "--filter", "nope=1"), ("images", "--filter", "dangling=x"),
     ("inspect", "-f", "{{.Nope}}", "box"), ("ps", "--filter", "status=nope"), ("images", "--format", "{{")],
    ids=" ".join,
)  # fmt: skip
def test_what_docker_refuses_is_refused(both: tuple[Engine, peers.Docker], words: tuple[str, ...]) -> None:
    from nbcontain.errors import UsageError

    engine, docker = both
    with pytest.raises(peers.Refused):
        docker(*words)
    with pytest.raises(UsageError):
        ours(engine, *words)


def masked(text: str) -> list[str]:
    """Lines with ids and amounts written over; docker's line a layer is one, and their order that of its maps."""
    lines = [re.sub(r"[0-9a-f]{64}", "ID", re.sub(r"\d[\d.]*[kMG]?B$", "SIZE", line)) for line in text.splitlines()]
    return sorted(set(lines))


# In this order: each removes something.
REMOVALS = [
    ("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"),
    ("image", "prune", "-f"),
    ("rmi", "team/app:old"),
    ("image", "prune", "-a", "-f", "--filter", "label=tier=7"),
    ("image", "prune", "-a", "-f", "--filter", "label=tier=2"),
    ("container", "prune", "-f", "--filter", "label=a=c"),
    ("container", "prune", "-f"),
    ("rmi", "box"),
    ("images", "--format", "{{.Repository}}"),
]


def test_what_is_removed_is_told_as_docker_tells_it(both: tuple[Engine, peers.Docker]) -> None:
    engine, docker = both
    image = ours(engine, "images", "-q", "team/app:1").strip()
    docker("tag", "team/app:1", "elsewhere")
    engine.tag("team/app:1", "elsewhere")
    # In use, and named in two repositories: neither goes unless it is forced.
    for words in (("rmi", "box"), ("rmi", image), ("rmi", "no-such-image")):
        with pytest.raises(peers.Refused):
            docker(*words)
        with pytest.raises(StoreError):
            ours(engine, *words)
    told = []
    for words in REMOVALS:
        mine, theirs = masked(ours(engine, *words)), masked(docker(*words))
        if words[1] == "df":
            # Of what builds keep each counts its own.
            mine, theirs = ([line for line in lines if "Cache" not in line] for lines in (mine, theirs))
        told.append((words, mine, theirs))
    assert [(words, mine) for words, mine, _ in told] == [(words, theirs) for words, _, theirs in told]
