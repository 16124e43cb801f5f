"""docker's flags that a command here does not have, each with what to tell whoever types it."""

from __future__ import annotations

from collections.abc import Mapping

_NO_DAEMON = "there is no daemon: what happens is in each container's own journal (logs)"
_SWARM = "there is no swarm here: one machine has all there is"
_TRUST = "there is no content trust of docker's kind here: digests are verified in any case"


def _all(reason: str, *flags: str) -> dict[str, str]:
    return dict.fromkeys(flags, reason)


_RUN = (
    _all(
        "containers find each other by name on a network: %network create lab, and --network lab for both",
        "--link",
        "--link-local-ip",
    )
    | _all(
        "all containers' groups are in one place, so that none is forgotten; nbcontain-runtime puts them where "
        "config.json's cgroupsPath says",
        "--cgroup-parent",
    )
    | _all("the kernel has given that limit up; --memory counts the kernel's memory too", "--kernel-memory")
    | _all("there is no daemon and no socket of one", "--use-api-socket")
    | _all("a container's layer has no size of its own; what it writes is limited by the disk", "--storage-opt")
    | _all("there is no content trust of docker's kind here", "--disable-content-trust")
    | _all("a pull waits and tries again by itself", "--retry", "--retry-delay")
    | _all("-e TZ=Europe/Berlin says it, where the image knows time zones", "--tz")
    | _all("a program in the container counts: timeout 60 COMMAND", "--timeout")
    | _all("-v FILE:/etc/hosts:ro gives another; --add-host adds to it", "--hosts-file", "--no-hosts")
    | _all("-v FILE:/run/secrets/NAME:ro shows a file, and --put a variable of the notebook", "--secret")
    | _all("images are shared: rmi NAME afterwards, or image prune", "--rmi")
    | _all("nbcontain-runtime takes such files from config.json: linux.resources.unified", "--cgroup-conf")
    | _all("it is for Windows", "--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops")
)
_BUILD = (
    _all("BuildKit does not have it either: a last stage FROM scratch with COPY --from=… / / does it", "--squash")
    | _all(
        "BuildKit has no such limits either: start Jupyter itself with them", "-m", "--memory", "--memory-swap", "-c",
        "--cpu-shares", "--cpu-period", "--cpu-quota", "--cpuset-cpus", "--cpuset-mems", "--cgroup-parent",
    )
    | _all("a step is confined as a container is that is told nothing", "--security-opt")
    | _all(_TRUST, "--disable-content-trust")
)
_TLS = "name the registry in [registries] insecure of ~/.config/nbcontain/config.toml, or `insecure` in registries.conf"
_CREDENTIALS = "login keeps credentials; docker's config.json, auth.json and credential helpers are read"
_OF_A_PLATFORM = "of a platform --os, --arch and --variant can be said"
_TRANSFER = (
    _all(_TLS, "--tls-verify", "--insecure")
    | _all(_CREDENTIALS, "--creds", "--authfile")
    | _all("certificates are read from certs.d/HOST/ in ~/.config/nbcontain or /etc/docker", "--cert-dir")
    | _all("signatures of that kind are not made here", "--sign-by", "--signature-policy", "--remove-signatures")
)

KNOWN_FLAGS: Mapping[str, Mapping[str, str]] = {
    "container run": _RUN,
    "container create": _RUN,
    "image build": _BUILD,
    "image pull": _TRANSFER
    | _all("--platform os/architecture[/variant] says it in one word", "--arch", "--os", "--variant")
    | _all("--pull of run and create has the policies; a pull always asks", "--policy")
    | _all("a pull waits and tries again by itself", "--retry", "--retry-delay"),
    "image push": _TRANSFER
    | _all("a list is pushed with all its images; push one of them by its own name", "--platform")
    | _all(
        "the very bytes that are here are sent; %image convert compresses them in another way first",
        "--compression-format", "--compression-level", "--force-compression", "--format",
    ),
    "manifest create": _TRANSFER,
    "manifest add": _TRANSFER
    | _all(_OF_A_PLATFORM, "--os-version", "--os-features", "--features"),
    "manifest annotate": _all(_OF_A_PLATFORM, "--os-version", "--os-features", "--features"),
    "manifest inspect": _TRANSFER,
    "manifest push": _TRANSFER
    | _all("a list is pushed in its own format", "--format", "-f", "--compression-format", "--add-compression"),
    "image rm": _all("a name goes with its images for all platforms", "--platform")
    | _all("parents are shared layers here and go with their last image", "--no-prune"),
    "nbcontain login": _all(
        "a password on the command line stays in histories and notebooks; it is asked for, or --password-stdin",
        "-p",
        "--password",
    ),
    "container rm": _all("there are no links between containers", "-l", "--link"),
    "container start": _all("nothing is frozen to disk here (CRIU)", "--checkpoint", "--checkpoint-dir"),
    "container update": _all("--memory counts the kernel's memory too", "--kernel-memory")
    | _all("run says it, where control groups of version 1 are", "--cpu-rt-period", "--cpu-rt-runtime"),
    "network create": _all(_SWARM, "--attachable", "--ingress", "--scope", "--config-from", "--config-only")
    | _all("addresses outside of --ip-range are given to nobody: what others have belongs there", "--aux-address")
    | _all("addresses are given by the network's own worker", "--ipam-driver", "--ipam-opt")
    | _all("a network has IPv4; --ipv6 adds IPv6", "--ipv4"),
    "network connect": _all("containers find each other by name on a network", "--link", "--link-local-ip")
    | _all("a bridge's options are the network's: network create -o", "--driver-opt")
    | _all("the first network of a container that leads out is its default route", "--gw-priority"),
    "volume create": _all(
        _SWARM, "--availability", "--group", "--limit-bytes", "--required-bytes", "--scope", "--secret", "--sharing",
        "--topology-preferred", "--topology-required", "--type",
    ),
    "volume ls": _all(_SWARM, "--cluster"),
}

KNOWN_VERBS: Mapping[str, Mapping[str, str]] = {
    "compose": {
        "watch": "nothing is watched here; %compose up -d --build when something has changed",
        "publish": "a compose file is sent to no registry; %compose config shows it whole",
        "bridge": "there is one machine here",
    },
    "volume": {
        "update": "only volumes of a swarm can be updated, and there is none here",
        **dict.fromkeys(("mount", "unmount", "reload"), "nothing is mounted on this machine: containers mount volumes"),
    },
    "container": {},
    "": {
        "search": "no registry is searched by words; %image search-tags NAME lists the tags of one",
        **dict.fromkeys(("swarm", "service", "node", "stack"), "there is one machine here"),
        "plugin": "there are no plugins", "trust": _TRUST,
        "context": "there is no daemon to choose; NBCONTAIN_ROOT names another store",
    },
}  # fmt: skip
"""docker's verbs that are not here, by group ("" is the terminal's first word), each with what to tell."""
