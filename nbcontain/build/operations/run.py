"""RUN: a program in the sandbox of a container, whose changes become a layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing

from nbcontain.build.graph import ExecOp, Sandbox, SecretMount
from nbcontain.build.operations.mounts import Mounting
from nbcontain.build.operations.workshop import Filesystem, Workshop, execute
from nbcontain.errors import BuildError, SetupFailed, StepFailed
from nbcontain.events import Emit, Finished, Notice, Output, Progress, Record
from nbcontain.oci.image import ImageConfig, Platform
from nbcontain.oci.spec import Spec
from nbcontain.runtime import certificates
from nbcontain.runtime.bundle import ContainerInfo
from nbcontain.runtime.bundle_writer import write
from nbcontain.runtime.cdi import Edits, chosen, edits
from nbcontain.runtime.container import Container
from nbcontain.runtime.emulation import explained
from nbcontain.runtime.generate import RunOptions, generate
from nbcontain.runtime.rungs import PRETENDED, fitted
from nbcontain.store.snapshots import Active
from nbcontain.values import replace

_HOSTNAME = "buildkitsandbox"
_TAIL_LINES = 10


@execute.register
def _(operation: ExecOp, inputs: Sequence[Filesystem], workshop: Workshop) -> Filesystem:
    workshop.require("RUN")
    host = workshop.host
    squashed, attempt = host.keeps_no_owners if host.is_root else ("", "")
    if squashed:
        squashed = f"files of the store cannot be given to others (chown): {squashed}"
        told = f"what RUN makes and changes has not the owners in the image that it should have: {squashed}"
        workshop.emit(Notice("", told, attempt))

    def run(active: Active) -> Sequence[str]:
        with ExitStack() as stack:
            path = stack.enter_context(workshop.store.bundle_directory())
            path.mkdir(mode=0o700)
            mounting = stack.enter_context(Mounting(workshop, inputs, path))
            mounting.take(operation.mounts)
            trusted = certificates.trusted(workshop.means.environ)
            config = ImageConfig(
                env=(*operation.env, *trusted.env, *operation.secret_env, *mounting.env), working_dir=operation.cwd,
                user=operation.user, entrypoint=operation.args,
                platform=Platform(architecture=operation.architecture),
            )  # fmt: skip
            sandbox = operation.sandbox or Sandbox()
            devices = _devices(operation, workshop)
            options = RunOptions(
                image="", network=operation.network, add_hosts=operation.added_hosts, ulimits=sandbox.ulimits,
                shm_size=str(sandbox.shm_bytes or ""), environment=devices.env, group_add=devices.groups,
            )  # fmt: skip
            spec = generate(config, options, workshop.host, files=path, hostname=operation.hostname or _HOSTNAME)
            process = replace(spec.process, capabilities=(*spec.process.capabilities, *_more_capabilities(spec)))
            mounts = (*spec.mounts, *trusted.mounts(path), *devices.mounts, *mounting.mounts)
            spec = fitted(replace(spec, process=process, mounts=mounts), workshop.rung)
            info = ContainerInfo(
                id=active.key, name=active.key, image="", command=operation.args, build_step=True,
                rung=workshop.rung.name, answers=workshop.rung.answers,
            )  # fmt: skip
            bundle = write(path, spec, active.mounts, info, more=trusted.files)
            bundle.is_plain = active.is_plain
            container = Container(bundle)
            with closing(container.follow()) as records:
                try:
                    container.launch(workshop.launcher, leash=workshop.leash, start=True, secrets=mounting.secrets_fd())
                    _follow(records, workshop.emit)
                except StepFailed as error:
                    container.settle()
                    error.stubs = bundle.stubs()
                    if workshop.rung.ids == "blind":
                        error.why = "; ".join(filter(None, (error.why, PRETENDED)))
                    error.why = "; ".join(filter(None, (error.why, squashed, _not_given(operation, workshop))))
                    raise
                finally:
                    # Nobody may write into the layer any more when it is packed, or thrown away.
                    container.settle()
            return bundle.stubs()

    try:
        return workshop.change(inputs[0], run, for_programs=True)
    except SetupFailed as error:
        error = explained(error, operation.platform)
        raise BuildError(error.message, why=error.why, hint=error.hint) from error


def _not_given(operation: ExecOp, workshop: Workshop) -> str:
    """What a step can do without, and perhaps could not: the secrets that the build has not."""
    wanted = [each.id for each in operation.mounts if isinstance(each, SecretMount)]
    missing = [each for each in wanted if workshop.secrets.get(each) is None]
    return f"this build was not given the secret {missing[0]} (--secret id={missing[0]},src=FILE)" if missing else ""


def _devices(operation: ExecOp, workshop: Workshop) -> Edits:
    """What the step's devices bring along. Raises UsageError for one that it cannot do without and no file has."""
    if not operation.devices:
        return Edits()
    environ = workshop.means.environ
    names = [each for name, is_required in operation.devices for each in chosen(name, environ, required=is_required)]
    found = edits(names, environ, asked="RUN --device")
    for remark in found.remarks:
        workshop.emit(Notice("", remark))
    return found


def _more_capabilities(spec: Spec) -> tuple[str, ...]:
    """What a step of docker's has besides what our containers have.

    A device node can be made for a layer and opened nowhere: everything that such a step sees is mounted nodev. Raw
    sockets are its own network's alone. Where ids are mapped none of these means anything.
    """
    if "user" in spec.linux.namespaces:
        return ()
    return ("CAP_MKNOD", "CAP_AUDIT_WRITE", *(["CAP_NET_RAW"] if "network" in spec.linux.namespaces else []))


def _follow(records: Iterable[Record], emit: Emit) -> None:
    """Pass the program's output on; raise StepFailed unless it ends well."""
    tail = b""
    for record in records:
        match record.event:
            case Output(stream=stream, data=data):
                tail = (tail + data)[-8192:]
                emit(Output("", stream, data))
            case Notice(message=message, hint=hint):
                emit(Notice("", message, hint))
            case Finished(outcome=outcome, exit_code=code) if code != 0:
                emit(Progress("", 0))  # strikes if this is the end of a cancelled build
                lines = tail.decode(errors="replace").splitlines()[-_TAIL_LINES:]
                if code is None:
                    raise BuildError(f"the program was {outcome}", output=tuple(lines), why=record.event.detail)
                raise StepFailed(
                    f"the program ended with exit code {code}", code, output=tuple(lines), why=_exit_meaning(code)
                )


def _exit_meaning(code: int) -> str:
    known = {
        126: "126: the command cannot be executed",
        127: "127: the command was not found",
        137: "137: it was killed (SIGKILL)",
    }
    return known.get(code, "")
