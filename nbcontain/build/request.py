"""What the user of a build can ask for, written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nbcontain.build.named import context_name
from nbcontain.oci.image import Platform
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    # What most builds do not ask for is not imported for them.
    from nbcontain.build.caches import CachePlace
    from nbcontain.build.named import NamedSource
    from nbcontain.build.outputs import Output
    from nbcontain.build.provenance import ProvenanceOptions
    from nbcontain.build.secrets import Secret
    from nbcontain.build.sources import Source
    from nbcontain.dockerfile import ast


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the user of a build can ask for."""

    tags: tuple[str, ...] = ()
    context: Source | None = None
    """A directory, a tar archive, names and what is in them, a git repository, or what a server gives."""
    contexts: Mapping[str, NamedSource] = field(default_factory=dict)
    """More of them by name, for FROM, COPY --from and RUN --mount=from; images too."""
    ignore: str | None = None
    """What to read for the context's .dockerignore: the text of the file that belongs to the Dockerfile alone."""
    build_args: tuple[str, ...] = ()
    """NAME=value, or NAME for the value it has in the environment."""
    target: str = ""
    """A stage's name or number; "" is the last one."""
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    """Stages whose steps run in any case, by name or number."""
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    """[LEVEL:]NAME=value, for the manifest unless another level is named."""
    outputs: tuple[Output, ...] = ()
    provenance: ProvenanceOptions | None = None
    dockerfile_name: str = "Dockerfile"
    """What the Dockerfile is called where one is told of it."""
    remarks: tuple[ast.Remark, ...] = ()
    """What there is to say before anything begins."""
    hints: bool = False
    """Whether our own hints are told of, too."""
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()
    id_file: str = ""
    """Where to write the image's id."""
    metadata_file: str = ""
    """Where to write what was built, as buildx names it."""
    platform: Platform = field(default_factory=Platform.here)
    platforms: tuple[Platform, ...] = ()
    """Those that were asked for; several give an index."""
    network: str = "host"
    """Of every RUN that does not say: "host" or "none"."""
    add_hosts: tuple[str, ...] = ()
    """NAME:ADDRESS, for every RUN."""
    automounts: tuple[str, ...] = ()
    """What every RUN sees besides its own mounts, in the notation of RUN --mount."""
    shm_size: str = ""
    ulimits: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    """What the Dockerfile may do besides: device, device=NAME, network.host, onbuild.secrets."""
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pull: str = "missing"
    """When FROM asks the registry: always, missing, never or newer."""

    def with_contexts(self, context: Source | None, contexts: Mapping[str, NamedSource]) -> BuildOptions:
        """The same with another context, unless it is None, and with these besides."""
        named = {context_name(name): source for name, source in contexts.items()}
        return replace(
            self, context=self.context if context is None else context, contexts={**self.contexts, **named}
        )
