"""Limits as control groups of version 1 and 2 want them, against trees of plain directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.errors import BadDocument, SetupFailed, UsageError
from nbcontain.linux import confine
from nbcontain.linux.cgroups import PARENT, Group, Tree, sweep
from nbcontain.linux.limits import Limits, Setting, Throttle, from_json, settings, to_json
from nbcontain.linux.more_limits import more_limits
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.resources import LimitOptions, limits_of, size_of

MIB = 1 << 20
MOUNTS = """\
30 1 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 1 0:27 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw
33 1 0:28 / /tmp rw - tmpfs tmpfs rw
"""


def asked(**flags: object) -> Limits:
    return limits_of(LimitOptions(**flags))  # type: ignore[arg-type]


def files_of(limits: Limits, version: int) -> dict[str, str]:
    return {each.file: each.value for each in settings(limits, version)}


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 * MIB), ("1.5g", 1536 * MIB), ("2G", 2048 * MIB), ("100", 100), ("7k", 7168), ("64MiB", 64 * MIB),
     ("64mb", 64 * MIB), ("-1", -1), ("", None), ("0", None), ("999999999999999t", (1 << 62) - 1)],
)  # fmt: skip
def test_sizes_are_dockers(text: str, size: int | None) -> None:
    assert size_of(text, "--memory") == size


def test_flags_become_limits() -> None:
    assert asked(memory="64m", cpus="0.5", pids_limit=0, cpuset_cpus="0-1") == Limits(
        memory=64 * MIB, memory_and_swap=128 * MIB, cpu_quota_us=50_000, cpu_period_us=100_000, cpus="0-1", pids=-1
    )
    assert asked(memory="64m", memory_swap="-1").memory_and_swap == -1
    assert asked() == asked(cpus="0") == Limits() and not asked()


@pytest.mark.parametrize(
    "flags",
    [{"memory": "lots"}, {"memory": "1m"}, {"memory_swap": "1g"}, {"memory": "64m", "memory_swap": "32m"},
     {"memory": "-2"}, {"memory": "64m", "memory_reservation": "65m"}, {"cpus": "0.001"}, {"cpus": "9999"},
     {"cpus": "nan"}, {"cpus": "1", "cpu_quota": 5000}, {"cpu_period": 10}, {"cpu_quota": 10}, {"cpu_shares": 1},
     {"blkio_weight": 5}, {"cpuset_cpus": "all"}, {"cpuset_mems": "0-"}],
)  # fmt: skip
def test_flags_that_make_no_sense_are_one_clear_error(flags: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--"):
        asked(**flags)


@pytest.mark.parametrize("word", ["/dev/null:1m", "/nowhere:1m", "1m", "/dev/null:", ":1m", "/dev/null:fast"])
def test_a_rate_of_what_is_no_disk_is_one_clear_error(word: str) -> None:
    with pytest.raises(UsageError, match="--device-read-bps"):
        limits_of(RunOptions(image="box", device_read_bps=(word,)))


# --- files ----------------------------------------------------------------------------------------

EVERYTHING = Limits(
    memory=64 * MIB, memory_and_swap=96 * MIB, memory_reservation=32 * MIB, cpu_shares=512, cpu_quota_us=50_000,
    cpu_period_us=100_000, cpus="0", memory_nodes="0", pids=20, io_weight=100,
    throttles=(Throttle("read_bps", "8:0", MIB), Throttle("write_iops", "8:16", 7)),
)  # fmt: skip


def test_the_files_of_version_1() -> None:
    assert files_of(EVERYTHING, 1) == {
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "memory.limit_in_bytes": str(64 * MIB),
        "memory.memsw.limit_in_bytes": str(96 * MIB),
        "memory.soft_limit_in_bytes": str(32 * MIB),
        "cpu.shares": "512",
        "cpu.cfs_quota_us": "50000",
        "cpu.cfs_period_us": "100000",
        "pids.max": "20",
        "blkio.bfq.weight|blkio.weight": "100",
        "blkio.throttle.read_bps_device": f"8:0 {MIB}",
        "blkio.throttle.write_iops_device": "8:16 7",
    }


def test_the_files_of_version_2() -> None:
    assert files_of(EVERYTHING, 2) == {
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "cpu.weight": "20",
        "cpu.max": "50000 100000",
        "pids.max": "20",
        "io.bfq.weight|io.weight": "100",
        "io.max": "8:16 wiops=7",
    }
    assert Setting("io", "io.max", f"8:0 rbps={MIB}") in settings(EVERYTHING, 2)


def test_no_limit_is_a_word_in_version_2() -> None:
    assert files_of(Limits(memory=-1, memory_and_swap=-1, pids=-1, cpu_quota_us=-1), 2) == {
        "memory.max": "max",
        "memory.swap.max": "max",
        "pids.max": "max",
        "cpu.max": "max 100000",
    }
    assert [files_of(Limits(cpu_shares=each), 2)["cpu.weight"] for each in (2, 1024, 262144)] == ["1", "39", "10000"]


numbers = st.none() | st.integers(-1, 1 << 50)
throttles = st.builds(
    Throttle,
    st.sampled_from(["read_bps", "write_bps", "read_iops", "write_iops"]),
    st.just("8:1"),
    st.integers(1, 1 << 40),
)


@given(st.builds(Limits, *[numbers] * 6, st.sampled_from(["", "0-3"]), st.sampled_from(["", "0"]), numbers, numbers))
def test_limits_survive_the_specs_json(limits: Limits) -> None:
    assert from_json(to_json(limits)) == limits


def test_throttles_survive_it_too() -> None:
    assert from_json(to_json(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize(
    "document", [{"memory": []}, {"memory": {"limit": "1g"}}, {"cpu": {"quota": -2}}, {"pids": {"limit": True}}]
)
def test_resources_that_are_none_are_an_error(document: dict[str, object]) -> None:
    with pytest.raises(BadDocument):
        from_json(document)


# --- trees ----------------------------------------------------------------------------------------


def test_the_hierarchies_of_a_machine_with_both_versions() -> None:
    tree = Tree.of(MOUNTS, "0::/mine\n", is_root=True)
    assert dict(tree.first) == {
        "memory": Path("/sys/fs/cgroup/memory"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct"),
    }
    assert tree.second == Path("/sys/fs/cgroup/uni fied")


def made(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("_", ".", 1)).write_text(text)
    return root


def fake_v2(root: Path, leaf: str = "one") -> Tree:
    """A hierarchy of version 2, with the files that the kernel would make in a new group."""
    control = {"cgroup_controllers": "memory pids cpu", "cgroup_subtree_control": "", "cgroup_procs": ""}
    made(root, **control)
    made(root / PARENT, **control)
    made(
        root / PARENT / leaf,
        memory_max="",
        pids_max="",
        cgroup_procs="",
        cgroup_freeze="0",
        memory_events="oom_kill 0\n",
    )
    (root / PARENT / leaf / "memory.swap.max").touch()
    return Tree({}, root)


def test_limits_are_written_where_version_2_has_them(tmp_path: Path) -> None:
    tree = fake_v2(tmp_path / "root")
    group, leaf = Group(tree, "one"), tmp_path / "root" / PARENT / "one"
    group.limit(Limits(memory=64 * MIB, memory_and_swap=64 * MIB, pids=7))
    group.enter(4711)
    assert [(leaf / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs")] == [
        str(64 * MIB),
        "0",
        "7",
        "4711",
    ]
    for part in (tmp_path / "root", tmp_path / "root" / PARENT):
        assert "+" in (part / "cgroup.subtree_control").read_text()
    (leaf / "memory.events").write_text("low 0\noom_kill 2\n")
    assert group.oom_kills() == 2


def test_a_controller_that_was_not_handed_over_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="no controller io") as error:
        Group(fake_v2(tmp_path / "root"), "one").limit(Limits(io_weight=100))
    assert "without the limit" in error.value.hint


@pytest.mark.parametrize("resources", [
    {"memory": {"swappiness": 0}}, {"memory": {"disableOOMKiller": True}}, {"cpu": {"realtimePeriod": 1000}},
    {"network": {"classID": 7}}, {"network": {"priorities": [{"name": "lo", "priority": 1}]}},
])  # fmt: skip
def test_what_only_version_1_keeps_is_refused_where_version_2_would_have_to(
    tmp_path: Path, resources: dict[str, object]
) -> None:
    more = more_limits(resources).settings
    with pytest.raises(SetupFailed) as error:
        Group(fake_v2(tmp_path / "root"), "one").limit(Limits(), more=more)
    assert "version 2" in error.value.why
    (wanted,) = more(1)
    first = tmp_path / "first"
    made(first / PARENT / "one")
    (first / PARENT / "one" / wanted.file).touch()
    Group(Tree({wanted.controller: first}, tmp_path / "root"), "one").limit(Limits(), more=more)
    assert (first / PARENT / "one" / wanted.file).read_text() == wanted.value


def test_a_machine_without_groups_is_one_clear_error() -> None:
    with pytest.raises(SetupFailed, match="no controller memory"):
        Group(Tree({}, None), "one").limit(Limits(memory=64 * MIB))
    with pytest.raises(SetupFailed, match="paused"):
        Group(Tree({}, None), "one").freezer()


def test_a_group_that_cannot_be_written_to_was_handed_over_to_nobody(tmp_path: Path) -> None:
    """As /sys/fs/cgroup in a container, which is read-only."""
    with pytest.raises(SetupFailed) as told:
        Group(Tree({}, tmp_path / "gone"), "one").limit(Limits(memory=64 * MIB))
    assert told.value.why == f"{tmp_path}/gone is nobody's here to write to"
    assert "privileged" in told.value.hint and "as root" not in told.value.hint, "root is told so, too"


def test_root_is_not_told_to_be_root_alone(tmp_path: Path) -> None:
    """Nor that somebody handed a group over: what is said holds for both."""
    for tree, why in ((fake_v2(tmp_path / "root"), f"{tmp_path}/root, where"), (Tree({}, None), "there is no group")):
        with pytest.raises(SetupFailed) as told:
            Group(tree, "one").limit(Limits(io_weight=100))
        assert told.value.why.startswith(why) and "as root on a machine" in told.value.hint
    with pytest.raises(SetupFailed) as paused:
        Group(Tree({}, None), "one").freezer()
    assert "as root on a machine" in paused.value.hint


def test_others_groups_are_below_the_highest_that_was_handed_over(tmp_path: Path) -> None:
    root = tmp_path / "root"
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    for part in (root, root / "user.slice", root / "user.slice/mine", root / "user.slice/mine/app.scope"):
        made(part, cgroup_procs="", cgroup_subtree_control="")
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (root / "user.slice" / name).chmod(0o444)
    mounts = f"32 1 0:27 / {root} rw - cgroup2 cgroup2 rw\n"
    assert Tree.of(mounts, "0::/user.slice/mine/app.scope\n", is_root=False).second == root / "user.slice/mine"


def test_groups_that_a_crash_left_are_swept(tmp_path: Path) -> None:
    tree = fake_v2(tmp_path / "root")
    empty, full = tmp_path / "root" / PARENT / "empty", tmp_path / "root" / PARENT / "full"
    made(empty)
    made(full, cgroup_procs="12\n")
    assert sweep(tree) == []
    later = empty.stat().st_ctime + 60
    assert sweep(tree, now=later) == []  # a plain directory has no cgroup.procs: nothing is known of it
    assert full.exists()


def test_the_doors_of_version_1_are_there_where_nothing_else_keeps_a_part(tmp_path: Path) -> None:
    for name in ("memory", "pids"):
        (tmp_path / name / "nbcontain" / "one").mkdir(parents=True)
        (tmp_path / name / "nbcontain" / "one" / "tasks").touch()
    first = {name: tmp_path / name for name in ("memory", "pids", "cpu")}
    doors = Group(Tree(first, None), "one").doors()
    confine.enter_groups(doors)
    # Nought is whoever writes.
    assert [(tmp_path / name / "nbcontain" / "one" / "tasks").read_text() for name in ("memory", "pids")] == ["0", "0"]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(doors[0])
    # Of version 2 somebody else has to move it, and then into all.
    assert Group(Tree(first, fake_v2(tmp_path / "root").second), "one").doors() == []
