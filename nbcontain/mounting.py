"""What is mounted into a container that is being made: volumes, directories, images, memory. `engine.mounter`.

First it is decided (`Mounter.plan`), which gives the mounts of its config.json; then it is made to be there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import InUse, Unavailable, UsageError, VolumeNotFound
from nbcontain.events import Emit, Notice
from nbcontain.host import Ability
from nbcontain.id_ranges import files_of
from nbcontain.oci.image import Image, timestamp
from nbcontain.oci.spec import Mount
from nbcontain.runtime import mounts as asking
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.mount_points import SCRATCH, WORK, MountPoint
from nbcontain.store import files
from nbcontain.store.volumes import ANONYMOUS, FILLING, Volume, checked_name, checked_options, options_shown
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions

_OF_THE_SYSTEM = frozenset({"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"})
"""Directories of / whose files :U never gives away; and of none all."""


class Mounter:
    """Mounts for the containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def plan(self, options: RunOptions, image: Image, container_id: str, *, maps_ids: bool = False) -> Mounting:
        """What is to be mounted into a container, as its options and its image say. Raises UsageError.

        With `maps_ids` its ids are others than those of the files here: what is its own is shown with its map.
        """
        own = asking.asked(options)
        taken = {each.target for each in own}
        shared = [each for each in self._from_others(options) if each.target not in taken]
        taken |= {each.target for each in shared}
        points = [*shared, *own]
        if self.engine.profile.rung.mounts:
            # Where nothing can be mounted, what an image calls volumes is a directory like others.
            points += asking.of_image(image.config.volumes, tuple(taken))
        for each in points:
            if each.type == "volume" and each.source:
                checked_name(each.source)
            if each.type == "bind":
                _check_source(each)
            _check_label(each)
        return Mounting(self, options, image, asking.checked(points), container_id, maps_ids=maps_ids)

    def with_devices(self, options: RunOptions, emit: Emit) -> tuple[RunOptions, tuple[Mount, ...]]:
        """The options without --gpus and devices that CDI files describe, and what those bring along.

        Says what of it was left out. Raises UsageError for a device that no file has.
        """
        if not options.device and not options.gpus:
            return options, ()
        from nbcontain.runtime import cdi

        named = tuple(each for each in options.device if cdi.is_name(each))
        gpus = cdi.of_gpus(options.gpus)
        mounts: tuple[Mount, ...] = ()
        for names, asked in ((gpus, "--gpus"), (named, "--device")):
            found = cdi.edits(names, self.engine.environ, asked=asked)
            for remark in found.remarks:
                emit(Notice(options.image, remark))
            mounts += found.mounts
            options = replace(
                options, environment=(*found.env, *options.environment), group_add=(*options.group_add, *found.groups)
            )
        rest = tuple(each for each in options.device if each not in named)
        return replace(options, device=rest, gpus=""), mounts

    def _from_others(self, options: RunOptions) -> list[MountPoint]:
        found: dict[str, MountPoint] = {}
        for word in options.volumes_from:
            name, access = asking.of_container(word)
            for each in self.engine.container(name).info.mounts:
                if (point := asking.from_record(each, word, access)) is not None:
                    found[point.target] = point
        return list(found.values())

    def data(self, name: str) -> Path:
        return Volume(name, self.engine.layout.volume(name)).data

    def options_of(self, name: str, point: MountPoint) -> Mapping[str, str]:
        """What is mounted in place of the volume's own directory, as it was made, or will be."""
        if name and self.engine.store.volumes.exists(name):
            return self.engine.volumes.get(name).options
        return checked_options(point.driver_options)

    def make(self, point: MountPoint, name: str, container: str) -> None:
        """Have the volume be there."""
        volumes = self.engine.store.volumes
        if not volumes.exists(name):
            labels = dict(point.labels)
            if point.is_anonymous:
                labels[ANONYMOUS] = ""
            volumes.create(
                name, created=timestamp(), labels=labels, options=checked_options(point.driver_options),
                container=container if point.is_anonymous else "",
            )  # fmt: skip
            self.engine.events.record("volume", "create", name, {"driver": "local"})

    def fill(self, name: str, point: MountPoint, image: Image) -> None:
        """Fill an empty volume with what the image has where it is to be mounted. It is held by whoever asks."""
        volume = self.engine.volumes.get(name)
        is_cut_off = (volume.directory / FILLING).is_dir()
        copies = point.copies and not point.subpath and not volume.options and image.layers
        if not is_cut_off and (not copies or not _may_be_empty(volume.data)):
            return
        self.engine.launcher.call(
            "fill_volume", (Mount("/", "bind", str(volume.directory), ("bind",)),),
            {"path": point.target, "durable": not volume.container, "alone": not self.engine.volumes.uses().get(name)},
            source=self.view(image) if copies else (), imports=(WORK,),
        )  # fmt: skip

    def view(self, image: Image) -> tuple[Mount, ...]:
        """The mounts that show an image's files."""
        return self.engine.store.snapshots.view(files_of(self.engine, image)) if image.layers else ()

    def overlay_options(self) -> tuple[str, ...]:
        return ("userxattr",) if self.engine.store.overlays.userxattr else ("redirect_dir=off", "metacopy=off")

    def require_overlay(self, said: str) -> None:
        probe = self.engine.host.abilities[Ability.OVERLAY]
        if not probe.ok:
            raise Unavailable(
                f"{said}: no scratch can be laid over it here", why=f"no overlay can be mounted: {probe.why}",
                hint="a copy of the directory can be mounted, and thrown away afterwards",
            )  # fmt: skip


class Mounting:
    """The mounts of a container that is being made: first what they will be, then, inside of `held`, what they are."""

    def __init__(
        self, mounter: Mounter, options: RunOptions, image: Image, points: Sequence[MountPoint], container_id: str,
        *, maps_ids: bool,
    ) -> None:  # fmt: skip
        self._mounter = mounter
        self._image = image
        self._container_id = container_id if options.remove else ""
        """The container that its anonymous volumes go with."""
        self._user = options.user or image.config.user
        self._points = tuple((each, _name_of(each)) for each in points)
        """Each with its volume's name, if it is a volume."""
        self._directory = mounter.engine.layout.container(container_id)
        self._maps_ids = maps_ids
        self.mounts = tuple(self._mount(number, *each) for number, each in enumerate(self._points))

    @property
    def records(self) -> tuple[dict[str, object], ...]:
        """What the container's record says of them."""
        return tuple(self._record(mount, *each) for mount, each in zip(self.mounts, self._points, strict=True))

    def _record(self, mount: Mount, point: MountPoint, name: str) -> dict[str, object]:
        source = str(self._mounter.data(name)) if name else mount.source if point.type == "bind" else point.source
        if point.is_scratch and point.type == "bind":
            source = _real(point.source)
        words = [*(["ro"] if point.is_readonly else []), *(["O"] if point.is_scratch else []), point.relabels]
        return asking.record(point, name=name, source=source, destination_options=[each for each in words if each])

    def _mount(self, number: int, point: MountPoint, name: str) -> Mount:
        """The mount as config.json has it."""
        recursive = point.recursive and point.type == "bind"
        # `ro` is the mount's own, `rro` that of all that is mounted below it too (runtime-spec config.md#mounts).
        ro = (("rro" if recursive and point.readonly_below else "ro"),) if point.is_readonly else ()
        flags = tuple(f"r{each}" for each in point.flags) if recursive else point.flags
        part = (f"{PART}/{point.subpath}",) if point.subpath and point.subpath != "." else ()
        options = (*flags, *ro, *part)
        match point.type:
            case "tmpfs":
                return Mount(point.target, "tmpfs", "tmpfs", point.tmpfs)
            case "image":
                return self._image_mount(number, point, options)
            case "bind":
                source, recursive = _real(point.source), point.recursive
            case _:
                given = self._mounter.options_of(name, point)
                if given:
                    return _by_options(point, given, options)
                source, recursive = str(self._mounter.data(name)), False
        if point.is_scratch:
            return self._over(number, point.target, source, (*point.flags, *part))
        propagation = (point.propagation,) if point.propagation else ()
        ids = ("idmap",) if self._maps_ids and (point.type == "volume" or point.owns) else ()
        return Mount(point.target, "bind", source, ("rbind" if recursive else "bind", *options, *propagation, *ids))

    def _scratch(self, number: int) -> Path:
        return self._directory / SCRATCH / str(number)

    def _over(self, number: int, target: str, source: str, options: Sequence[str]) -> Mount:
        """A scratch laid over a directory."""
        self._mounter.require_overlay(target)
        if set(source) & set(":\\,\n"):
            raise UsageError(f"{source}: O cannot be here", why="overlayfs reads : and \\ and , as something else")
        place = self._scratch(number)
        return Mount(
            target, "overlay", "overlay",
            (f"lowerdir={source}", f"upperdir={place / 'upper'}", f"workdir={place / 'work'}",
             *self._mounter.overlay_options(), *options),
        )  # fmt: skip

    def _image_mount(self, number: int, point: MountPoint, options: Sequence[str]) -> Mount:
        engine = self._mounter.engine
        image = engine.image(point.source)
        if not image.layers:
            raise UsageError(f"{point.said}: the image {point.source} has no files")
        with engine.store.shared():
            if not engine.store.snapshots.has_all(image.layers):
                engine.ordinary.stacks.unpack(image.layers)
            (view,) = engine.store.snapshots.view(files_of(engine, image))
        if point.is_readonly and not point.is_scratch:
            return replace(view, destination=point.target, options=(*view.options, *options))
        if view.type == "bind":
            return self._over(number, point.target, view.source, options)
        place = self._scratch(number)
        self._mounter.require_overlay(point.said)
        upper = (f"upperdir={place / 'upper'}", f"workdir={place / 'work'}")
        return replace(view, destination=point.target, options=(*view.options, *upper, *options))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have everything be there: volumes made and filled, directories made. They stay there until the end.

        What was made for this container alone goes if what happens inside raises.
        """
        engine = self._mounter.engine
        made: list[str] = []
        with ExitStack() as stack:
            try:
                for point, name in self._points:
                    if point.type == "bind":
                        _prepare_source(point)
                    elif point.type == "volume":
                        self._mounter.make(point, name, self._container_id)
                        if point.is_anonymous:
                            made.append(name)
                names = [name for _, name in self._points if name]
                stack.enter_context(engine.store.volumes.held(names))
                for point, name in self._points:
                    if point.type == "volume":
                        self._mounter.fill(name, point, self._image)
                    if point.owns:
                        self._own(point, name)
                yield
            except BaseException:
                stack.close()
                for name in made:
                    with suppress(InUse, VolumeNotFound, OSError):
                        engine.store.volumes.remove(name, list)
                raise

    def furnish(self) -> None:
        """Make the directories of the scratches, in the bundle that is there by now."""
        launcher = self._mounter.engine.launcher
        for number, mount in enumerate(self.mounts):
            if any(each.startswith("upperdir=") for each in mount.options):
                place = self._scratch(number)
                files.make_directory(place, durable=False)
                lowers = next(each for each in mount.options if each.startswith("lowerdir="))
                lower = lowers.removeprefix("lowerdir=").split(":")[0]
                launcher.call(
                    "make_scratch", (Mount("/", "bind", str(place), ("bind",)),), {},
                    source=(Mount("/", "bind", lower, ("bind", "ro")),), imports=(WORK,),
                )  # fmt: skip

    def _own(self, point: MountPoint, name: str) -> None:
        source = str(self._mounter.data(name)) if name else _real(point.source)
        parts = Path(source).parts[1:]
        if not name and (len(parts) < (3 if parts[:1] == ("var",) else 2) or parts[0] in _OF_THE_SYSTEM):
            raise UsageError(f"{point.said}: {source} is not given away", why="all of it would get another owner")
        launcher = self._mounter.engine.launcher
        launcher.call(
            "own_tree", (Mount("/", "bind", source, ("bind",)),), {"user": self._user},
            source=self._mounter.view(self._image), imports=(WORK,),
        )  # fmt: skip


def _name_of(point: MountPoint) -> str:
    return (point.source or os.urandom(32).hex()) if point.type == "volume" else ""


def _by_options(point: MountPoint, given: Mapping[str, str], options: Sequence[str]) -> Mount:
    """The mount that a volume's type, device and o say. Made in the container, by its init."""
    words = [each for each in given.get("o", "").split(",") if each]
    kind, device = given["type"], given["device"]
    if kind in ("none", "bind") or {"bind", "rbind"} & set(words):
        if not {"bind", "rbind"} & set(words) or not device.startswith("/"):
            raise UsageError(
                f"{point.said}: type={kind} wants o=bind and an absolute device", why=f"it has {options_shown(given)}"
            )
        if not os.path.exists(device):
            raise UsageError(f"{point.said}: there is no {device} here", why="the volume's device says so")
        how = "rbind" if "rbind" in words else "bind"
        access = ("ro", "rro") if "ro" in words and "ro" not in options else ()
        return Mount(point.target, "bind", device, (how, *options, *access))
    if point.subpath or point.is_scratch or point.owns:
        raise UsageError(f"{point.said}: subpath, O and U are for volumes whose files are here")
    kept = [each for each in options if each != "rro"]
    return Mount(point.target, kind, device, (*kept, *words))


def _real(path: str) -> str:
    return str(Path(path).resolve())


def _check_source(point: MountPoint) -> None:
    if "\0" in point.source:
        raise UsageError(f"{point.said}: that is no path")
    try:
        found = os.stat(point.source)
    except FileNotFoundError:
        if point.makes_source:
            return
        raise UsageError(
            f"{point.said}: invalid mount config for type \"bind\": bind source path does not exist: {point.source}",
            hint=f"mkdir -p {point.source}; -v makes a directory that is missing",
        ) from None
    except OSError as error:
        raise UsageError(f"{point.said}: {point.source}: {error.strerror}") from None
    if point.is_scratch and not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{point.said}: {point.source} is no directory", why="a scratch is laid over one")


def _prepare_source(point: MountPoint) -> None:
    """The directory that -v names is made if it is missing."""
    path = Path(point.source).absolute()
    if point.makes_source and not os.path.exists(path):
        try:
            files.make_directory(path, 0o755, durable=False)
        except OSError as error:
            missing = error.filename or path
            raise UsageError(f"{point.said}: cannot make {missing}", why=error.strerror or "") from error


def _check_label(point: MountPoint) -> None:
    if point.relabels and Path("/sys/fs/selinux/enforce").exists():
        raise UsageError(
            f"{point.said}: {point.relabels} is not here", why="SELinux's labels of files are not changed by nbcontain",
            hint=f"chcon -Rt container_file_t {point.source}",
        )  # fmt: skip


def _may_be_empty(directory: Path) -> bool:
    """False if it is clear that something is in there."""
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is None
    except PermissionError:
        return True
