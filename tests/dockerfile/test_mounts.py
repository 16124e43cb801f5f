"""RUN --mount: its notation, defaults and mistakes, as BuildKit's commands_runmount.go has them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from nbcontain.dockerfile.ast import RunMount
from nbcontain.dockerfile.mounts import mount_flag, run_mount
from nbcontain.dockerfile.words import expand
from nbcontain.errors import DockerfileError

VARIABLES = {"DIR": "/d", "N": "7", "KIND": "cache"}


def read(text: str) -> RunMount:
    return run_mount(mount_flag(text), lambda word: expand(word, VARIABLES))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("target=/x", {"target": "/x"}),
        ("type=bind,source=a,target=/x", {"source": "a", "target": "/x"}),
        ("TYPE=Bind,SRC=a,DST=/x", {"source": "a", "target": "/x"}),
        ("src=a,destination=/x,rw", {"source": "a", "target": "/x", "read_only": False}),
        ("target=/x,readwrite=true", {"target": "/x", "read_only": False}),
        ("target=/x,rw=false", {"target": "/x"}),
        ("target=/x,ro=0", {"target": "/x", "read_only": False}),
        ("target=/x,readonly", {"target": "/x"}),
        ("from=build,target=/x", {"from_": "build", "target": "/x"}),
        ("type=cache,target=/x", {"type": "cache", "target": "/x", "read_only": False}),
        ("type=cache,target=/x,ro", {"type": "cache", "target": "/x"}),
        ("type=cache,target=/x,sharing=Locked,id=a", {"type": "cache", "target": "/x", "sharing": "locked", "id": "a",
                                                     "read_only": False}),
        ("type=cache,target=/x,mode=0755,uid=1,gid=2", {"type": "cache", "target": "/x", "mode": 0o755, "uid": 1,
                                                        "gid": 2, "read_only": False}),
        ("type=tmpfs,target=/x,size=64m,ro", {"type": "tmpfs", "target": "/x", "size_bytes": 64 << 20}),
        ("type=tmpfs,target=/x,size=1.5GiB,ro", {"type": "tmpfs", "target": "/x", "size_bytes": 3 << 29}),
        ("type=tmpfs,target=/x,size=10", {"type": "tmpfs", "target": "/x", "size_bytes": 10, "read_only": False}),
        ("type=secret,id=a", {"type": "secret", "id": "a"}),
        ("type=secret,id=a,env=A,required", {"type": "secret", "id": "a", "env": "A", "required": True}),
        ("type=secret,id=a,required=false", {"type": "secret", "id": "a"}),
        ("type=secret,target=/x,mode=400", {"type": "secret", "target": "/x", "mode": 0o400}),
        ("type=ssh", {"type": "ssh"}),
        ("type=ssh,id=a,required=true", {"type": "ssh", "id": "a", "required": True}),
        ("type=$KIND,target=$DIR/x,uid=$N", {"type": "cache", "target": "/d/x", "uid": 7, "read_only": False}),
        ('"target=/a,b",type=bind', {"target": "/a,b"}),
        ('target=/x,"source=a ""b"""', {"target": "/x", "source": "a b"}),
    ],
)  # fmt: skip
def test_a_mount_says(text: str, wanted: dict[str, Any]) -> None:
    default = RunMount()
    found = read(text)
    assert {
        each.name: getattr(found, each.name)
        for each in dataclasses.fields(found)
        if getattr(found, each.name) != getattr(default, each.name)
    } == wanted


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=bnd,target=/x", 'unsupported mount type "bnd"', "did you mean bind?"),
        ("type=volume,target=/x", 'unsupported mount type "volume"', "One of"),
        ("type=cache,sharing=lock,target=/x", 'unsupported sharing value "lock"', "did you mean locked?"),
        ("tarqet=/x", "unexpected key 'tarqet'", "did you mean target?"),
        ("type=cache,target=/x,colour=red", "unexpected key 'colour'", "--mount takes"),
        ("target", "'target' must be a key=value pair", "target=…"),
        ("target=/x,required", "unexpected key 'required' for mount type 'bind'", "type comes first"),
        ("target=/x,size=1m", "unexpected key 'size' for mount type 'bind'", ""),
        ("env=A,type=secret,id=a", "unexpected key 'env' for mount type 'bind'", ""),
        ("target=/x,ro=perhaps", "invalid value for ro: perhaps", ""),
        ("type=tmpfs,target=/x,size=big", "invalid value for size: big", ""),
        ("type=cache,target=/x,mode=8", "invalid value 8 for mode", ""),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid", ""),
        ("type=cache,target=/x,gid=4294967296", "invalid value 4294967296 for gid", ""),
        ("target=/x,mode=755", 'mode not allowed for "bind" type mounts', ""),
        ("type=tmpfs,target=/x,uid=1", 'uid not allowed for "tmpfs" type mounts', ""),
        ("type=secret", "invalid secret mount. one of source, target required", ""),
        ("type=secret,id=a,from=b", "secret mount should not have a from", ""),
        ("type=secret,id=a,source=b", "both source and id can't be set", ""),
        ("type=secret,id=a,sharing=locked", "secret mount should not define sharing", ""),
        ("target=/x,sharing=locked", "invalid cache sharing set for bind mount", ""),
        ("from=$N,target=/x", "'from' doesn't support variable expansion, define alias stage instead", ""),
        ('target="/x', "cannot be read", ""),
        ("", "--mount has no value", ""),
        ("target=" + "x" * 140_000, "too long", ""),
    ],
)
def test_a_mistake_in_a_mount_is_told_as_buildkit_tells_it(text: str, message: str, hint: str) -> None:
    """testMountInvalid, testMountFromError"""
    with pytest.raises(DockerfileError, match=re.escape(message)) as caught:
        read(text)
    assert hint in caught.value.hint
