"""-v and --mount are read as docker reads them, with its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbcontain.errors import UsageError
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.mount_points import MountPoint
from nbcontain.runtime.mounts import asked, of_image
from nbcontain.store.volumes import checked_name, checked_options


def one(*, v: str = "", mount: str = "", tmpfs: str = "") -> MountPoint:
    words = {"volumes": (v,) * bool(v), "mount": (mount,) * bool(mount), "tmpfs": (tmpfs,) * bool(tmpfs)}
    (found,) = asked(RunOptions(image="x", command=(), **words))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("text", "kind", "source", "target"),
    [
        ("/data", "volume", "", "/data"),
        ("name:/data", "volume", "name", "/data"),
        ("n.a-m_e9:/data", "volume", "n.a-m_e9", "/data"),
        ("/host:/data", "bind", "/host", "/data"),
        ("./here:/data", "bind", "./here", "/data"),
        ("../up:/data", "bind", "../up", "/data"),
        (".:/data", "bind", ".", "/data"),
        ("~/x:/data", "bind", str(Path.home() / "x"), "/data"),
        ("name:/a/../b//c/", "volume", "name", "/b/c"),
        ("/host:/data:ro", "bind", "/host", "/data"),
    ],
)
def test_v_names_a_volume_or_a_directory(text: str, kind: str, source: str, target: str) -> None:
    point = one(v=text)
    assert (point.type, point.source, point.target) == (kind, source, target)
    assert point.is_readonly == text.endswith(":ro")
    assert point.makes_source == (kind == "bind")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid volume specification"),
        (":/data", "invalid volume specification"),
        ("name:", "invalid volume specification"),
        ("a:/b:ro:x", "invalid volume specification"),
        ("/data:ro", "invalid volume specification"),
        ("name:data", "mount path must be absolute"),
        ("/host:/data:rx", "invalid mode: rx"),
        ("/host:/data:ro,rw", "invalid mode: ro,rw"),
        ("/host:/data:z,Z", "invalid mode"),
        ("/host:/data:shared,private", "invalid mode"),
        ("name:/data:rshared", "invalid mode: rshared"),
        ("/host:/data:nocopy", "invalid mode: nocopy"),
        ("/host:/data:", "invalid mode"),
        ("/host:/", "cannot be covered"),
        ("/host:/proc/x", "cannot be covered"),
        ("name:/x/../sys", "cannot be covered"),
        ("/host:/data:O,ro", "cannot be together"),
    ],
)
def test_v_that_makes_no_sense_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked(RunOptions(image="x", command=(), volumes=(text,)))


@pytest.mark.parametrize("text", ["a/b", "-x", ".x", "x:y", "ä", "a", "", "x" * 300, "a b"])
def test_a_name_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UsageError):
        checked_name(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("type=bind,source=/h,target=/d", {"type": "bind", "source": "/h", "target": "/d"}),
        ("type=bind,src=/h,dst=/d,ro", {"is_readonly": True}),
        ("type=bind,src=/h,destination=/d,readonly=false", {"is_readonly": False}),
        ("type=bind,src=/h,dst=/d,bind-propagation=rslave", {"propagation": "rslave"}),
        ("type=bind,src=/h,dst=/d,bind-nonrecursive", {"recursive": False}),
        ("type=bind,src=/h,dst=/d,bind-recursive=disabled", {"recursive": False}),
        ("type=bind,src=/h,dst=/d,ro,bind-recursive=writable", {"readonly_below": False, "is_readonly": True}),
        ("type=bind,src=/h,dst=/d,ro,bind-propagation=rprivate,bind-recursive=readonly", {"readonly_below": True}),
        ("type=volume,src=name,dst=/d,volume-subpath=a/./b", {"subpath": "a/b", "source": "name"}),
        ("dst=/d", {"type": "volume", "source": ""}),
        ("src=name,dst=/d,volume-nocopy=true,volume-label=a=b", {"copies": False, "labels": {"a": "b"}}),
        ('src=name,dst=/d,"volume-opt=o=a,b"', {"driver_options": {"o": "a,b"}}),
        ("type=tmpfs,dst=/d,tmpfs-size=64m,tmpfs-mode=1770", {"type": "tmpfs"}),
        ("type=image,src=i,dst=/d", {"type": "image", "is_readonly": True}),
        ("type=image,src=i,dst=/d,rw=true", {"is_readonly": False}),
        ("type=image,src=i,dst=/d,subpath=x", {"subpath": "x"}),
        ("TYPE=bind,SOURCE=/h,TARGET=/d,Readonly", {"is_readonly": True}),
        ("type=bind,src=/h,dst=/d,exec=false,suid", {"flags": ("nodev", "noexec")}),
        ("type=bind,src=/h,dst=/d,consistency=cached,U", {"owns": True}),
    ],
)
def test_mount_takes_dockers_keys_and_their_other_names(text: str, fields: dict[str, object]) -> None:
    point = one(mount=text)
    assert {name: getattr(point, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,src=/h,dst=/d,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("type=bind,src=/h,dst=/d,foo", "invalid field 'foo' must be a key=value pair"),
        ("type=bind,src=/h", "target is required"),
        ("type=bind,dst=/d", "source is required"),
        ("type=npipe,src=/h,dst=/d", "invalid mount type"),
        ("type=bind,src=/h,dst=/d,volume-nocopy", "cannot mix 'volume-.' options with mount type 'bind'"),
        ("type=volume,src=xx,dst=/d,bind-propagation=shared", "cannot mix"),
        ("type=bind,src=/h,dst=/d,readonly=maybe", "invalid value for readonly"),
        ("type=bind,src=/h,dst=/d,bind-recursive=readonly", "requires 'readonly'"),
        ("type=bind,src=/h,dst=/d,ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
        ("type=bind,src=/h,dst=/d,bind-propagation=sideways", "invalid propagation mode"),
        ("type=tmpfs,src=/h,dst=/d", "cannot specify 'source'"),
        ("type=tmpfs,dst=/d,tmpfs-size=much", "invalid value for tmpfs-size"),
        ("type=tmpfs,dst=/d,tmpfs-mode=9", "invalid value for tmpfs-mode"),
        ("type=volume,src=xx,dst=/d,volume-subpath=../x", "invalid subpath"),
        ("type=volume,src=xx,dst=/d,volume-subpath=/x", "invalid subpath"),
        ("type=volume,src=xx,dst=/d,volume-driver=nfs", "plugin 'nfs' not found"),
        ("type=bind,src=/h,dst=d", "must be absolute"),
        ("type=bind,src=,dst=/d", "value is empty"),
        ('type=bind,src="/h,dst=/d', "cannot be read"),
        ("", "no mount"),
    ],
)
def test_mount_that_makes_no_sense_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        asked(RunOptions(image="x", command=(), mount=(text,)))


def test_a_place_can_be_asked_for_once() -> None:
    with pytest.raises(UsageError, match="Duplicate mount point: /d"):
        asked(RunOptions(image="x", command=(), volumes=("aa:/d",), tmpfs=("/d/",)))


@pytest.mark.parametrize("path", ["/../..", "/proc", "/proc/self/fd/3", "relative", "", "/sys/../proc/x", "/\0x"])
def test_a_volume_of_the_image_that_means_harm_is_named(path: str) -> None:
    with pytest.raises(UsageError, match="the image's VOLUME"):
        of_image((path,), ())


def test_volumes_of_the_image_give_way_to_what_was_asked_for() -> None:
    assert [each.target for each in of_image(("/a", "/b/", "/b", "/c"), ("/c",))] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "1g"}, "cannot be given a size"),
        ({"colour": "red"}, "invalid option: 'colour'"),
        ({"type": "tmpfs"}, "missing required option: 'device'"),
        ({"device": "/x"}, "missing required option: 'type'"),
        ({"o": "bind"}, "missing required option: 'device'"),
    ],
)
def test_options_of_a_volume_are_locals(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_options(options)
