"""Making a container, which is not started: all that is decided about it, its layer, and its bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from nbcontain.proxies import told_of
from nbcontain.runtime import certificates
from nbcontain.runtime.bundle import ContainerInfo
from nbcontain.runtime.bundle_writer import is_unusual, write
from nbcontain.runtime.generate import generate
from nbcontain.runtime.lifetimes import health_of, log_of, restart_of
from nbcontain.runtime.rungs import admit, fitted
from nbcontain.runtime.users import user_mode
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.containers import Containers
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions
    from nbcontain.runtime.launcher import Foretell


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
    # Whoever asks for this machine's network has its name, too, as with docker.
    is_hosts = tuple(options.network) == ("host",) or options.network == "host"
    if keeps := user_mode(options.userns, is_root=engine.host.is_root).kept:
        engine, foretell = engine.keeping(options.userns), None
        if not (options.user or image.config.user):
            options = replace(options, user=id_ranges.user_kept(engine.host))
    options, wish, notices = engine.networks.decide(options, image.config)
    for text in notices:
        emit(Notice("", text))
    container_id = os.urandom(32).hex()
    path = engine.layout.container(container_id)
    options, brought = engine.mounter.with_devices(options, emit)
    ids = id_ranges.asked(engine, options, donors := engine.life.donors(options))
    mounting = engine.mounter.plan(options, image, container_id, maps_ids=ids.differ)
    hostname = os.uname().nodename if is_hosts else container_id[:12]
    trusted = certificates.trusted(engine.environ)
    proxies, not_told = told_of(engine.environ, shares_network=wish.mode == "host")
    told = (*trusted.env, *proxies)
    if not_told and wish.mode != "none":
        emit(Notice("", not_told, "--network host"))
    host = replace(engine.host, ids=ids.map)
    spec = generate(
        replace(image.config, env=(*image.config.env, *told)), options, host, files=path,
        hostname=hostname, environ=engine.environ, donors=donors,
        mounts=(*mounting.mounts, *brought, *trusted.mounts(path)),
    )  # fmt: skip
    spec = fitted(spec, engine.profile.rung, engine.networks.knobs(wish, host))
    runtime, makes_group = "", False
    if options.runtime:
        # Only now: it comes with all that a supervisor has, which a terminal's command would wait for.
        from nbcontain.runtime import other_runtime

        if runtime := other_runtime.found(options.runtime, engine.environ.get("PATH", os.defpath)):
            is_full = engine.profile.name == "full"
            spec = other_runtime.fitted(spec, container_id, runtime, is_full=is_full, restart=options.restart)
            makes_group = other_runtime.keeps_groups(runtime)
    differs = ids.differ or runtime or is_unusual(spec) or not engine.networks.is_born_as_said(wish)
    tells = None if differs else foretell
    text = spec_to_text(spec) if tells else ""
    if tells and not mounting.mounts:
        tells.spec(container_id, text)
    info = replace(
        _info(engine, options, image, wish),
        id=container_id, command=spec.process.args, runtime=runtime,
        limited=bool(spec.linux.resources) or makes_group, mounts=mounting.records,
    )  # fmt: skip
    more = {"userns": ids.said if ids.differ or keeps else "", **({"told": list(told)} if told else {})}
    info = replace(info, options={**info.options, **more})
    if options.replace:
        _make_way(engine, containers, options.name)
    with engine.store.shared():
        if not engine.store.snapshots.has_all(image.layers):
            engine.ordinary.stacks.unpack(image.layers)
        if not options.remove and engine.store.write_back.is_waiting:
            # What is kept has its image on the disk first, as it has its layers.
            engine.store.write_back.settle()
        files = id_ranges.files_of(engine, image)
        active = engine.store.snapshots.prepare(container_id, files, durable=not options.remove)
        try:
            with mounting.held():
                containers.refuse_taken(info.name)
                if tells and mounting.mounts:
                    # Not before somebody has looked at what it mounts: with that an automounter begins, and a copy of
                    # the mounts from before would not have it.
                    tells.spec(container_id, text)
                if tells:
                    tells.root(container_id, active.mounts, volatile=options.remove)
                settled = ids.settled(spec, engine.containers, container_id)
                bundle = write(path, settled, active.mounts, info, text, trusted.files, containers.naming)
                bundle.is_plain = active.is_plain
                mounting.furnish()
        except BaseException:
            engine.store.snapshots.discard(active)
            raise
    engine.life.made(container := Container(bundle, engine), options)
    return container


def _make_way(engine: Engine, containers: Containers[Container], name: str) -> None:
    """Remove the container that has this name, if there is one."""
    if not name:
        raise UsageError("--replace needs --name", why="of another name there is none to be replaced")
    for each in containers.all():
        if each.name == name:
            engine.remove_container(each, force=True)


def _info(engine: Engine, options: RunOptions, image: Image, wish: Wish) -> ContainerInfo:
    """What its options say of it."""
    return ContainerInfo(
        id="",
        name=options.name and checked(options.name),
        image=engine.bases.shown_name(options.image, image),
        image_id=str(image.id),
        created=timestamp(),
        remove=options.remove,
        rung=engine.profile.name,
        answers=engine.profile.rung.answers,
        terminal=options.tty,
        labels={**image.config.labels, **_pairs(options.labels)},
        stop_timeout_s=float(options.stop_timeout),
        options={
            "network": wish.mode,
            "networks": wish_to_json(wish),
            "ipc": options.ipc or "private",
            "platform": str(image.config.platform),
            "device_cgroup_rules": list(options.device_cgroup_rule),
            "said": container_facts.said(options, image.config),
        },  # fmt: skip
        restart=restart_of(options.restart, remove=options.remove),
        health=health_of(image.config, options),
        log=log_of(options),
        stop_signal=options.stop_signal or image.config.stop_signal or "SIGTERM",
    )


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in texts)
