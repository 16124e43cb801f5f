"""--device vendor.com/class=name and --gpus: files of the Container Device Interface."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import Machine
from nbcontain.errors import UsageError
from nbcontain.events import Notice
from nbcontain.runtime import cdi
from nbcontain.runtime.generate import RunOptions

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "example.com/thing",
    "containerEdits": {"env": ["ALWAYS=there"]},
    "devices": [
        {
            "name": "one",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/zero"}],
                "env": ["THING=one", "LD_PRELOAD=/evil.so"],
                "hooks": [{"hookName": "createContainer", "path": "/usr/bin/evil-hook", "args": ["evil"]}],
            },
        },
        {"name": "two", "containerEdits": {"env": ["THING=two"], "additionalGids": [4242]}},
    ],
}


@pytest.fixture
def specs(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv(cdi.PLACES, f"{tmp_path}/first:{tmp_path}/second")
    (tmp_path / "library.txt").write_text("of the vendor's\n")
    document = json.loads(json.dumps(SPEC))
    document["devices"][0]["containerEdits"]["mounts"] = [
        {"hostPath": str(tmp_path / "library.txt"), "containerPath": "/usr/lib/thing/library.txt", "options": ["rw"]}
    ]
    (tmp_path / "first/thing.json").write_text(json.dumps(document))
    return tmp_path


def test_a_device_brings_its_node_its_files_and_its_variables(profile: str, machine: Machine, specs: Path) -> None:
    script = "head -c 3 /dev/thing | od -An -tx1; cat /usr/lib/thing/library.txt; env | grep -E 'THING|ALWAYS|LD_'"
    script += "; (echo x > /usr/lib/thing/library.txt) 2>&1; true"
    seen = machine.sh(script, device=("example.com/thing=one",)).split()
    assert seen[:3] == ["00", "00", "00"]
    assert "vendor's" in seen and {"THING=one", "ALWAYS=there"} <= {*seen}
    assert not any(each.startswith("LD_") for each in seen)
    assert (specs / "library.txt").read_text() == "of the vendor's\n"


def test_that_hooks_are_not_run_is_said(machine: Machine, specs: Path) -> None:
    task = machine.engine.run(
        RunOptions(image="box", command=("true",), remove=True, device=("example.com/thing=one",))
    )
    task.result()
    told = [each.event for each in task.journal.follow() if isinstance(each.event, Notice)]
    assert any("evil-hook" in each.message and "not run" in each.message for each in told)


def test_two_devices_of_one_file_and_a_file_that_counts_more(machine: Machine, specs: Path) -> None:
    groups = machine.sh("id -G; echo $THING", device=("example.com/thing=one", "example.com/thing=two"), user="0")
    assert "4242" in groups.split() and groups.split()[-1] == "two"
    other = json.loads(json.dumps(SPEC))
    other["devices"] = [{"name": "one", "containerEdits": {"env": ["THING=newer"]}}]
    (specs / "second/thing.json").write_text(json.dumps(other))
    assert machine.sh("echo $THING", device=("example.com/thing=one",)) == "newer\n"


def test_a_file_may_be_yaml(tmp_path: Path) -> None:
    text = "cdiVersion: 0.6.0\nkind: example.com/thing\ndevices:\n- name: one\n  containerEdits:\n    env: [A=b]\n"
    (tmp_path / "thing.yaml").write_text(text)
    assert cdi.edits(("example.com/thing=one",), {cdi.PLACES: str(tmp_path)}, asked="--device").env == ("A=b",)
    (tmp_path / "thing.yaml").write_text(text.replace("[A=b]", "[A=b"))
    with pytest.raises(UsageError) as caught:
        cdi.edits(("example.com/thing=one",), {cdi.PLACES: str(tmp_path)}, asked="--device")
    assert "thing.yaml" in "\n".join(caught.value.lines())


def test_what_is_not_there_is_told(machine: Machine, specs: Path) -> None:
    with pytest.raises(UsageError, match="unresolvable CDI device example.com/thing=three") as told:
        machine.sh("true", device=("example.com/thing=three",))
    assert "example.com/thing=one" in told.value.hint
    with pytest.raises(UsageError, match="could not select device driver"):
        machine.sh("true", gpus="all")
    (specs / "first/bad.json").write_text("{")
    with pytest.raises(UsageError) as told:
        machine.sh("true", device=("example.com/other=x",))
    assert "bad.json" in told.value.why


@pytest.mark.parametrize("path", ["/", "/proc/self/mem", "relative", "/sys/x", "/x/../proc"])
def test_a_file_that_names_a_place_that_is_none_is_refused(machine: Machine, specs: Path, path: str) -> None:
    document = json.loads(json.dumps(SPEC))
    document["devices"][1]["containerEdits"] = {"mounts": [{"hostPath": "/etc", "containerPath": path}]}
    (specs / "first/thing.json").write_text(json.dumps(document))
    with pytest.raises(UsageError):
        machine.sh("true", device=("example.com/thing=two",))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("all", ["all"]), ("2", ["0", "1"]), ("device=0,2", ["0", "2"]), ('"device=1"', ["1"]),
        ("device=GPU-3faa8-219", ["GPU-3faa8-219"]), ("count=1", ["0"]), ("capabilities=compute", ["all"]),
    ],
)  # fmt: skip
def test_gpus_are_named_as_docker_names_them(word: str, names: list[str]) -> None:
    assert cdi.of_gpus(word) == tuple(f"nvidia.com/gpu={each}" for each in names)


@pytest.mark.parametrize("word", ["none", "device=", "x=y", "0", "-1"])
def test_no_choice_of_gpus_is_told(word: str) -> None:
    with pytest.raises(UsageError):
        cdi.of_gpus(word)
