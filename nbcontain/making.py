"""Making a container, which is not started: all that is decided about it, its layer, and its bundle."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from nbcontain import container_facts, id_ranges
from nbcontain.errors import UsageError
from nbcontain.events import Emit, Notice
from nbcontain.handles import Container
from nbcontain.life import with_files
from nbcontain.names import checked
from nbcontain.network.model import Wish, wish_to_json
from nbcontain.oci.image import Image, timestamp
from nbcontain.oci.spec_codec import spec_to_text
from nbcontain.options import labels_of
from nbcontain.proxies import told_of
from nbcontain.runtime import certificates
from nbcontain.runtime.bundle import ContainerInfo
from nbcontain.runtime.bundle_writer import is_unusual, write
from nbcontain.runtime.generate import generate
from nbcontain.runtime.lifetimes import health_of, log_of, restart_of
from nbcontain.runtime.rungs import admit, fitted
from nbcontain.runtime.signals import signal_number
from nbcontain.runtime.users import user_mode
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.containers import Containers
    from nbcontain.engine import Engine
    from nbcontain.oci.spec import Spec
    from nbcontain.runtime.generate import RunOptions
    from nbcontain.runtime.spares import Foretell


def made(
    engine: Engine, containers: Containers[Container], options: RunOptions, emit: Emit, foretell: Foretell | None = None
) -> Container:
    """A container with its bundle, whose lock is held, and its writable layer. Raises ImageNotFound, NameTaken …

    `foretell` is told of it as soon as it is known what it will be.
    """
    options = engine.resources.with_usual(with_files(options))
    engine.profile.require(engine.host, "run")
    admit(options, engine.profile.rung)
    image = engine.bases.to_run(options, emit)
    if keeps := user_mode(options.userns, is_root=engine.host.is_root).kept:
        engine, foretell = engine.keeping(options.userns), None
        if not (options.user or image.config.user):
            options = replace(options, user=id_ranges.user_kept(engine.host))
    # Whoever asks for this machine's network has its name, too, as with docker.
    is_hosts = tuple(options.network) == ("host",) or options.network == "host"
    options, wish, notices = engine.networks.decide(options, image.config)
    for text in notices:
        emit(Notice("", text))
    planned = _Planned(engine, options, image, wish, emit, is_hosts=is_hosts, keeps=bool(keeps))
    snapshots, mounting, container_id = engine.store.snapshots, planned.mounting, planned.container_id
    # Its layer first, which a spare can mount while the rest is decided: but only of what is at hand, and takes nothing
    # from anybody. Else what is wrong with the rest is told before anything is done.
    tells = foretell if foretell is not None and planned.is_like_most else None
    if tells is None or mounting.mounts or options.replace:
        planned.decide()
    if options.replace:
        _make_way(engine, containers, options.name)
    with engine.store.shared():
        if not snapshots.has_all(image.layers):
            planned.decide()
            engine.ordinary.stacks.unpack(image.layers)
        elif tells and not mounting.mounts:
            tells.begin(container_id)
        if not options.remove and engine.store.write_back.is_waiting:
            # What is kept has its image on the disk first, as it has its layers.
            engine.store.write_back.settle()
        active = snapshots.prepare(container_id, id_ranges.files_of(engine, image), durable=not options.remove)
        try:
            if tells and not mounting.mounts:
                tells.root(container_id, active.mounts, volatile=options.remove)
            if tells and is_unusual(planned.spec):
                tells = None
            text = planned.text if tells else ""
            if tells and not mounting.mounts:
                tells.spec(container_id, text)
            with mounting.held():
                containers.refuse_taken(planned.info.name)
                if tells and mounting.mounts:
                    # Not before somebody has looked at what it mounts: with that an automounter begins, and a copy of
                    # the mounts from before would not have it.
                    tells.spec(container_id, text)
                    tells.root(container_id, active.mounts, volatile=options.remove)
                settled = planned.ids.settled(planned.spec, engine.containers, container_id)
                bundle = write(
                    planned.path, settled, active.mounts, planned.info, text, planned.trusted.files, containers.naming
                )
                bundle.is_plain = active.is_plain
                mounting.furnish()
        except BaseException:
            snapshots.discard(active)
            raise
    engine.life.made(container := Container(bundle, engine), options)
    return container


class _Planned:
    """What a container will be: decided piece by piece, each when somebody asks for it, and once.

    Raises UsageError and what is like it for what cannot be.
    """

    def __init__(
        self, engine: Engine, options: RunOptions, image: Image, wish: Wish, emit: Emit, *, is_hosts: bool, keeps: bool
    ) -> None:
        self._engine, self._image, self._wish, self._emit = engine, image, wish, emit
        self._is_hosts, self._keeps = is_hosts, keeps
        self.container_id = os.urandom(32).hex()
        self.path = engine.layout.container(self.container_id)
        self._options, self._brought = engine.mounter.with_devices(options, emit)
        self._donors = engine.life.donors(self._options)
        self.ids = id_ranges.asked(engine, self._options, self._donors)
        self.mounting = engine.mounter.plan(self._options, image, self.container_id, maps_ids=self.ids.differ)
        self.trusted = certificates.trusted(engine.environ)

    def decide(self) -> None:
        """All of it, now."""
        _ = self.info

    @cached_property
    def is_like_most(self) -> bool:
        """Whether a spare is what it needs, which has what most have. Not by its spec, which a spare is told of later:
        should that be unlike others after all, another process is it."""
        options = self._options
        shares = self._donors or "host" in (options.pid, options.ipc, options.uts)
        return not (self.ids.differ or options.runtime or shares) and self._engine.networks.is_born_as_said(self._wish)

    @cached_property
    def told(self) -> tuple[str, ...]:
        """NAME=value of what its programs are told of this machine."""
        proxies, not_told = told_of(self._engine.environ, shares_network=self._wish.mode == "host")
        if not_told and self._wish.mode != "none":
            self._emit(Notice("", not_told, "--network host"))
        return (*self.trusted.env, *proxies)

    @cached_property
    def spec(self) -> Spec:
        engine, options, image = self._engine, self._options, self._image
        host = replace(engine.host, ids=self.ids.map)
        spec = generate(
            replace(image.config, env=(*image.config.env, *self.told)), options, host, files=self.path,
            hostname=os.uname().nodename if self._is_hosts else self.container_id[:12], environ=engine.environ,
            donors=self._donors, mounts=(*self.mounting.mounts, *self._brought, *self.trusted.mounts(self.path)),
        )  # fmt: skip
        spec = fitted(spec, engine.profile.rung, engine.networks.knobs(self._wish, host))
        if not self.runtime:
            return spec
        from nbcontain.runtime import other_runtime

        is_full = engine.profile.name == "full"
        return other_runtime.fitted(spec, self.container_id, self.runtime, is_full=is_full, restart=options.restart)

    @cached_property
    def text(self) -> str:
        return spec_to_text(self.spec)

    @cached_property
    def runtime(self) -> str:
        """The other program that makes it; "" for ourselves."""
        if not self._options.runtime:
            return ""
        # Only now: it comes with all that a supervisor has, which a terminal's command would wait for.
        from nbcontain.runtime import other_runtime

        return other_runtime.found(self._options.runtime, self._engine.environ.get("PATH", os.defpath))

    @cached_property
    def info(self) -> ContainerInfo:
        engine, options, image, spec = self._engine, self._options, self._image, self.spec
        is_limited = bool(spec.linux.resources)
        if self.runtime:
            from nbcontain.runtime import other_runtime

            is_limited = is_limited or other_runtime.keeps_groups(self.runtime)
        return ContainerInfo(
            id=self.container_id,
            name=options.name and checked(options.name),
            image=engine.bases.shown_name(options.image, image),
            image_id=str(image.id),
            created=timestamp(),
            command=spec.process.args,
            remove=options.remove,
            rung=engine.profile.name,
            answers=engine.profile.rung.answers,
            runtime=self.runtime,
            limited=is_limited,
            terminal=options.tty,
            labels={**image.config.labels, **labels_of(options.labels)},
            stop_timeout_s=float(options.stop_timeout),
            options={
                "network": self._wish.mode,
                "networks": wish_to_json(self._wish),
                "ipc": options.ipc or "private",
                "platform": str(image.config.platform),
                "device_cgroup_rules": list(options.device_cgroup_rule),
                "said": container_facts.said(options, image.config),
                "userns": self.ids.said if self.ids.differ or self._keeps else "",
                **({"told": list(self.told)} if self.told else {}),
            },
            restart=restart_of(options.restart, remove=options.remove),
            health=health_of(image.config, options),
            log=log_of(options),
            stop_signal=_stop_signal(options) or image.config.stop_signal or "SIGTERM",
            mounts=self.mounting.records,
        )


def _stop_signal(options: RunOptions) -> str:
    """What --stop-signal says. Raises UsageError."""
    try:
        if options.stop_signal:
            signal_number(options.stop_signal)
    except ValueError as error:
        raise UsageError(f"--stop-signal: {error}", hint="TERM, INT, QUIT, USR1 … or a number") from None
    return options.stop_signal


def _make_way(engine: Engine, containers: Containers[Container], name: str) -> None:
    """Remove the container that has this name, if there is one."""
    if not name:
        raise UsageError("--replace needs --name", why="of another name there is none to be replaced")
    for each in containers.all():
        if each.name == name:
            engine.remove_container(each, force=True)
