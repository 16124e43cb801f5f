"""From compose files' tree to a project: each key that means something here has one line in a table. Pure.

A key that is not known is an error with its line; one that cannot be had here is an error, or a warning where leaving
it out changes nothing that can be seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nbcontain.compose import values
from nbcontain.compose.document import Node
from nbcontain.compose.including import Files, Place, Text
from nbcontain.compose.interpolation import env_file
from nbcontain.compose.model import CONDITIONS, Build, Dependency, Given, Joined, Project, Service, Shared
from nbcontain.compose.mounts import volume
from nbcontain.compose.relocating import place_of
from nbcontain.errors import UsageError
from nbcontain.network.words import exposed, published
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.restarts import Policy

_TEXTS = {
    "cpuset": "cpuset_cpus", "hostname": "hostname", "pid": "pid", "ipc": "ipc",
    "platform": "platform", "stop_signal": "stop_signal", "user": "user",
    "working_dir": "workdir", "mac_address": "mac_address",
    "userns_mode": "userns", "runtime": "runtime",
}  # fmt: skip
_BOOLEANS = {
    "init": "init", "privileged": "privileged", "read_only": "read_only", "stdin_open": "interactive", "tty": "tty",
}  # fmt: skip
_INTEGERS = {
    "cpu_shares": (0, 262144), "pids_limit": (-1, 1 << 31), "oom_score_adj": (-1000, 1000),
}  # fmt: skip
_CHECKED: dict[str, tuple[str, Callable[[Node], str]]] = {
    "mem_limit": ("memory", values.size), "mem_reservation": ("memory_reservation", values.size),
    "memswap_limit": ("memory_swap", values.size), "shm_size": ("shm_size", values.size),
    "cpus": ("cpus", values.processors),
    "restart": ("restart", lambda node: values.checked(node, node.text(), Policy.parse)),
}  # fmt: skip
_LISTS = {
    "cap_add": "cap_add", "cap_drop": "cap_drop", "dns": "dns", "dns_opt": "dns_option",
    "dns_search": "dns_search", "group_add": "group_add", "security_opt": "security_opt",
    "tmpfs": "tmpfs", "device_cgroup_rules": "device_cgroup_rule",
}  # fmt: skip
_PAIRS = {"annotations": "annotations", "labels": "labels", "sysctls": "sysctl"}
_OTHERS = (
    "build", "command", "configs", "container_name", "depends_on", "deploy", "devices", "entrypoint", "env_file",
    "environment", "expose", "extra_hosts", "healthcheck", "image", "logging", "network_mode", "networks", "ports",
    "profiles", "pull_policy", "scale", "secrets", "stop_grace_period", "ulimits", "volumes",
)  # fmt: skip
_WITHOUT_EFFECT = {
    "attach": "output is asked for by name", "develop": "nothing is watched here",
    "storage_opt": "there are no such options", "cgroup_parent": "its control group is nbcontain's own",
    "domainname": "", "links": "services on a network find each other by name",
}  # fmt: skip
_REFUSED = {
    "provider": "there are no plugins",
    "volumes_from": "name the volume in both services", "external_links": "put both on one external network",
    "uts": "", "blkio_config": "",
    "credential_spec": "that is for Windows", "isolation": "that is for Windows", "gpus": "",
    "post_start": "", "pre_stop": "", "models": "", "use_api_socket": "there is no daemon", "cpu_quota": "use cpus",
    "cpu_period": "use cpus", "cpu_percent": "", "cpu_count": "", "cpu_rt_runtime": "", "cpu_rt_period": "",
    "mem_swappiness": "", "oom_kill_disable": "", "label_file": "write labels", "cgroup": "", "pre_start": "",
}  # fmt: skip
_POLICIES = {
    "": "missing", "if_not_present": "missing", "build": "missing", "missing": "missing", "always": "always",
    "never": "never", "newer": "newer",
}  # fmt: skip
"""What `pull_policy` is called in run."""
_SERVICE_KEYS = frozenset((
    *_TEXTS, *_CHECKED, *_BOOLEANS, *_INTEGERS, *_LISTS, *_PAIRS, *_OTHERS, *_WITHOUT_EFFECT, *_REFUSED,
))  # fmt: skip


class Reader:
    """Reads one file: the project's name and directory, and what was remarked on the way."""

    def __init__(self, directory: Path, environ: Mapping[str, str], read: Callable[[Path], str]) -> None:
        self.directory, self.environ, self._read = directory, environ, read
        self.warnings: list[str] = []
        self.name = ""
        self.volumes: dict[str, Shared] = {}
        self.networks: dict[str, Shared] = {}
        self.files: dict[tuple[str, str], tuple[str, str]] = {}
        """Secrets and configs: ("file", its path) or ("text", what is in it)."""

    # --- the whole ---

    def project(self, files: Sequence[Text], name: str) -> tuple[Project, Node]:
        """The project of files, the later over the earlier, and their tree. Raises UsageError."""
        read = Files(self._read)
        root = read.tree(files, Place(self.directory, self.environ))
        self.warnings += [f'the variable "{each}" is not set: a blank text stands for it' for each in read.unset]
        top = root.members()
        if "version" in top:
            self.warnings.append(f"line {top['version'].line}: version is obsolete, and means nothing")
        given = name or (top["name"].text() if "name" in top else "") or values.project_name(self.directory.name)
        if given != values.project_name(given):
            raise UsageError(
                f"the project name {given!r} is none", why="it has lower-case letters, digits, - and _, a letter first",
                hint=f"-p {values.project_name(given) or 'NAME'}",
            )  # fmt: skip
        self.name = given
        self._shared(top, "networks", self.networks)
        self._shared(top, "volumes", self.volumes)
        for kind in ("configs", "secrets"):
            for key, node in top[kind].members().items() if kind in top else ():
                self.files[kind, key] = self._source(node)
        described = top["services"].members() if "services" in top else {}
        services = [self._service(key, each) for key, each in described.items()]
        if not services:
            root.wrong("there are no services", "services:\n  web:\n    image: NAME")
        if any(each.key == "default" for service in services for each in service.networks):
            self.networks.setdefault("default", Shared("default", f"{given}_default", settings={}))
        by_name = {each.name for each in services}
        for service in services:
            for each in service.depends_on:
                if each.service not in by_name and each.required:
                    described[service.name].wrong(
                        f"depends on {each.service}, and there is no such service"
                    )
        project = Project(
            given, self.directory, tuple(services), tuple(self.networks.values()), tuple(self.volumes.values()),
            tuple(self.warnings), ",".join(str(each.path) for each in files if each.path is not None),
        )  # fmt: skip
        return project, root

    # --- networks, volumes, secrets ---

    def _shared(self, top: Mapping[str, Node], kind: str, into: dict[str, Shared]) -> None:
        for key, node in top[kind].members().items() if kind in top else ():
            own = {
                "networks": ("driver", "driver_opts", "internal", "enable_ipv6", "enable_ipv4", "ipam", "attachable"),
                "volumes": ("driver", "driver_opts"),
            }[kind]
            node.only(("name", "external", "labels", *own))
            said = node.members()
            external = "external" in said and said["external"].boolean()
            default = key if external else f"{self.name}_{key}"
            settings = values.network(said) if kind == "networks" else values.options(said.get("driver_opts"))
            if (driver := said.get("driver")) is not None and driver.text() not in ("bridge", "local", ""):
                driver.wrong(f"the driver {driver.text()} is not here")
            into[key] = Shared(
                key, said["name"].text() if "name" in said else default, external,
                values.labels(said.get("labels")), settings,
            )

    def _source(self, node: Node) -> tuple[str, str]:  # noqa: RET503 - `wrong` raises
        """Where a secret or config is from."""
        node.only(("file", "environment", "content", "name", "labels", "template_driver"),
                    {"external": "it is a file, a variable, or written here", "driver": ""})  # fmt: skip
        said = node.members()
        if "file" in said:
            return "file", str(self._path(said["file"].text()))
        if "environment" in said:
            name = said["environment"].text()
            if name not in self.environ:
                node.wrong(f"the variable {name} is not set")
            return "text", self.environ[name]
        if "content" in said:
            return "text", said["content"].text()
        node.wrong("says nothing of where it is from", "file: PATH, environment: NAME or content: TEXT")

    def _path(self, text: str) -> Path:
        return place_of(text, self.directory)

    # --- a service ---

    def _service(self, name: str, node: Node) -> Service:
        if not re.fullmatch(r"[a-zA-Z0-9._-]+", name):
            node.wrong("a service's name has letters, digits, - . and _ alone")
        node.only(_SERVICE_KEYS, _REFUSED)
        said = node.members()
        for key in _WITHOUT_EFFECT:
            if key in said:
                self.warnings.append(f"line {said[key].line}: {said[key].place} has no effect: {_WITHOUT_EFFECT[key]}")
        run: dict[str, Any] = {}
        for key, field in _TEXTS.items():
            if key in said:
                run[field] = said[key].text()
        for key, field in _BOOLEANS.items():
            if key in said:
                run[field] = said[key].boolean()
        for key, (field, value_of) in _CHECKED.items():
            if key in said:
                run[field] = value_of(said[key])
        for key, (least, most) in _INTEGERS.items():
            if key in said:
                run[key] = values.number(said[key], least, most)
        for key, field in _LISTS.items():
            if key in said:
                run[field] = said[key].texts()
        for key, field in _PAIRS.items():
            if key in said:
                run[field] = tuple(f"{key}={value or ''}" for key, value in said[key].pairs().items())
        run |= self._program(said) | self._environment(said) | self._life(said) | self._limits(said)
        mounts, given = self._mounts(said)
        run |= mounts
        if "ports" in said:
            run["publish"] = tuple(map(self._port, said["ports"].items()))
        if "expose" in said:
            run["expose"] = tuple(values.checked(each, each.text(), exposed) for each in said["expose"].items())
        if "devices" in said:
            run["device"] = tuple(map(values.device, said["devices"].items()))
        if "extra_hosts" in said:
            run["add_hosts"] = values.hosts(said["extra_hosts"])
        build = self._build(said["build"]) if "build" in said else None
        image = said["image"].text() if "image" in said else ""
        if not image and build is None:
            node.wrong("has neither an image nor a build context specified", "image: NAME, or build: DIRECTORY")
        networks, mode = self._networks(said)
        if mode:
            run["network"] = (mode,)
        run["image"] = image or f"{self.name}-{name}"
        policy = said["pull_policy"].text() if "pull_policy" in said else ""
        if policy not in _POLICIES:
            said["pull_policy"].wrong(f"there is no policy {policy}", ", ".join(filter(None, _POLICIES)))
        run["pull"] = _POLICIES[policy]
        return Service(
            name=name, image=run["image"], run=RunOptions(detach=True, **run), build=build,
            container_name=said["container_name"].text() if "container_name" in said else "", networks=networks,
            depends_on=self._depends(said["depends_on"]) if "depends_on" in said else (),
            profiles=said["profiles"].texts() if "profiles" in said else (),
            given=given, replicas=self._replicas(said),
            after_entrypoint=values.words(said["entrypoint"])[1:] if run.get("entrypoint") else (),
        )  # fmt: skip

    def _program(self, said: Mapping[str, Node]) -> dict[str, Any]:
        command = values.words(said["command"]) if "command" in said and not said["command"].is_null else ()
        if "entrypoint" not in said or said["entrypoint"].is_null:
            return {"command": command}
        first, *rest = values.words(said["entrypoint"]) or ("",)
        return {"entrypoint": first, "command": (*rest, *command)}

    def _environment(self, said: Mapping[str, Node]) -> dict[str, Any]:
        found: dict[str, str | None] = {}
        for each in values.env_files(said["env_file"]) if "env_file" in said else ():
            path, required, node = each
            try:
                found |= env_file(self._read(self._path(path)), self.environ)
            except (OSError, UnicodeDecodeError) as error:
                if required:
                    node.wrong(f"cannot read {path}", str(error))
        if "environment" in said:
            found |= said["environment"].pairs()
        resolved = {name: self.environ.get(name) if value is None else value for name, value in found.items()}
        return {"environment": tuple(f"{name}={value}" for name, value in resolved.items() if value is not None)}

    def _life(self, said: Mapping[str, Node]) -> dict[str, Any]:
        run: dict[str, Any] = {}
        if "stop_grace_period" in said:
            run["stop_timeout"] = round(values.duration(said["stop_grace_period"]) / 1e9)
        if "logging" in said:
            said["logging"].only(("driver", "options"))
            logging = said["logging"].members()
            run["log_driver"] = logging["driver"].text() if "driver" in logging else ""
            run["log_opts"] = tuple(f"{name}={value}" for name, value in values.options(logging.get("options")).items())
        if "ulimits" in said:
            run["ulimits"] = tuple(values.ulimit(name, each) for name, each in said["ulimits"].members().items())
        if "healthcheck" not in said:
            return run
        check = said["healthcheck"]
        check.only(("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"))
        told = check.members()
        if "disable" in told and told["disable"].boolean():
            return {**run, "no_healthcheck": True}
        if "test" in told:
            test = told["test"]
            words = ("CMD-SHELL", test.text()) if isinstance(test.value, str) else test.texts()
            if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
                test.wrong("a list begins with CMD, CMD-SHELL or NONE", 'test: ["CMD", "program", "argument"]')
            run |= {"no_healthcheck": True} if words[0] == "NONE" else {"health_test": words}
        for key in ("interval", "timeout", "start_period", "start_interval"):
            if key in told:
                values.duration(told[key])
                run[f"health_{key}"] = told[key].text()
        if "retries" in told:
            run["health_retries"] = values.number(told["retries"], 0, 1 << 31)
        return run

    def _limits(self, said: Mapping[str, Node]) -> dict[str, Any]:
        if "deploy" not in said:
            return {}
        said["deploy"].only(("resources", "replicas", "mode", "labels", "restart_policy", "update_config",
                                     "rollback_config", "placement", "endpoint_mode"))  # fmt: skip
        deploy = said["deploy"].members()
        for key in ("restart_policy", "update_config", "rollback_config", "placement", "endpoint_mode", "mode"):
            if key in deploy:
                self.warnings.append(f"line {deploy[key].line}: {deploy[key].place} has no effect: that is for a swarm")
        run: dict[str, Any] = {}
        if "resources" in deploy:
            deploy["resources"].only(("limits", "reservations"))
            resources = deploy["resources"].members()
            limits = resources["limits"].members() if "limits" in resources else {}
            if "cpus" in limits:
                run["cpus"] = values.processors(limits["cpus"])
            if "memory" in limits:
                run["memory"] = values.size(limits["memory"])
            if "pids" in limits:
                run["pids_limit"] = values.number(limits["pids"], *_INTEGERS["pids_limit"])
            reserved = resources["reservations"].members() if "reservations" in resources else {}
            if "memory" in reserved:
                run["memory_reservation"] = values.size(reserved["memory"])
            if "devices" in reserved:
                reserved["devices"].wrong("is not here", "%container run --gpus runs one container with a GPU")
        return run

    def _replicas(self, said: Mapping[str, Node]) -> int:
        """How many containers: `scale`, or `replicas` below `deploy`."""
        deploy = said["deploy"].members() if "deploy" in said else {}
        nodes = [node for node in (said.get("scale"), deploy.get("replicas")) if node is not None]
        numbers = [node.integer() for node in nodes]
        if not nodes:
            return 1
        if numbers[0] < 0:
            nodes[0].wrong("is less than none")
        if len(set(numbers)) > 1:
            nodes[0].wrong("scale and deploy.replicas are not the same")
        if numbers[0] > 1 and "container_name" in said:
            nodes[0].wrong("several containers cannot have one container_name", "leave container_name out")
        return numbers[0]

    def _mounts(self, said: Mapping[str, Node]) -> tuple[dict[str, Any], tuple[Given, ...]]:
        """What is mounted; and of secrets and configs, what is no file here and is written into the container."""
        volumes: list[str] = []
        mounts: list[str] = []
        given: list[Given] = []
        for node in said["volumes"].items() if "volumes" in said else ():
            word, text = volume(node, self._path, self._volume)
            (volumes if word == "volumes" else mounts).append(text)
        for kind in ("configs", "secrets"):
            for source, target, node in self._uses(kind, said):
                where, what = self.files.get((kind, source)) or node.wrong(f"there is no {source} among the {kind}")
                if where == "file":
                    mounts.append(f"type=bind,source={what},target={target},readonly")
                else:
                    given.append(Given(target, what))
        return {"volumes": tuple(volumes), "mount": tuple(mounts)}, tuple(given)

    def _volume(self, key: str, node: Node) -> str:
        """The name of the project's volume; all have to be named at the top."""
        if key not in self.volumes:
            node.wrong(f"refers to undefined volume {key}", f"volumes:\n  {key}:\nat the top of the file, or ./{key}")
        return self.volumes[key].name

    def _uses(self, kind: str, said: Mapping[str, Node]) -> list[tuple[str, str, Node]]:
        found = []
        for node in said[kind].items() if kind in said else ():
            home = "/run/secrets/" if kind == "secrets" else "/"
            if isinstance(node.value, str):
                found.append((node.text(), home + node.text(), node))
                continue
            node.only(("source", "target", "uid", "gid", "mode"))
            told = node.members()
            source = told["source"].text() if "source" in told else node.wrong("source is missing")
            target = told["target"].text() if "target" in told else source
            found.append((source, target if target.startswith("/") else home + target, node))
            if {"uid", "gid", "mode"} & set(told):
                self.warnings.append(f"line {node.line}: {node.place}: uid, gid and mode have no effect: it is a file")
        return found

    def _networks(self, said: Mapping[str, Node]) -> tuple[tuple[Joined, ...], str]:
        """The networks of the project that it is on, or the mode of another kind."""
        if "network_mode" in said:
            mode = said["network_mode"].text()
            if "networks" in said:
                said["networks"].wrong("network_mode and networks exclude each other")
            if mode.startswith("service:"):
                said["network_mode"].wrong("is not here", "put both on one network")
            return (), mode
        if "networks" not in said or said["networks"].is_null:
            return (Joined("default"),), ""
        node = said["networks"]
        if isinstance(node.value, list):
            return tuple(Joined(self._network_key(each.text(), each)) for each in node.items()), ""
        found = []
        for key, each in node.members().items():
            each.only(("aliases", "ipv4_address", "ipv6_address", "mac_address", "priority", "gw_priority"))
            told = each.members()
            words = [f"alias={alias}" for alias in told["aliases"].texts()] if "aliases" in told else []
            for name, word in (("ipv4_address", "ip"), ("ipv6_address", "ip6"), ("mac_address", "mac-address")):
                if name in told:
                    words.append(f"{word}={told[name].text()}")
            found.append(Joined(self._network_key(key, each), tuple(words)))
        return tuple(found), ""

    def _network_key(self, key: str, node: Node) -> str:
        if key != "default" and key not in self.networks:
            node.wrong(f"refers to undefined network {key}", f"networks:\n  {key}:\nat the top of the file")
        return key

    def _depends(self, node: Node) -> tuple[Dependency, ...]:
        if isinstance(node.value, list):
            return tuple(map(Dependency, node.texts()))
        found = []
        for name, each in node.members().items():
            each.only(("condition", "required", "restart"))
            told = each.members()
            condition = told["condition"].text() if "condition" in told else CONDITIONS[0]
            if condition not in CONDITIONS:
                told["condition"].wrong(f"there is no condition {condition}", ", ".join(CONDITIONS))
            found.append(Dependency(name, condition, told["required"].boolean() if "required" in told else True))
        return tuple(found)

    def _port(self, node: Node) -> str:
        if isinstance(node.value, str):
            return values.checked(node, node.text(), published)
        node.only(("target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"))
        told = {name: each.text() for name, each in node.members().items()}
        if "target" not in told:
            node.wrong("target is missing", "target: 80, the port inside")
        host = told.get("host_ip", "")
        address = f"[{host}]:" if ":" in host and not host.startswith("[") else f"{host}:" if host else ""
        outside = f"{told.get('published', '')}:" if "published" in told or address else ""
        word = f"{address}{outside}{told['target']}/{told.get('protocol', 'tcp')}"
        return values.checked(node, word, published)

    def _build(self, node: Node) -> Build:
        if isinstance(node.value, str):
            return Build(self._path(node.text()))
        node.only(("context", "dockerfile", "dockerfile_inline", "args", "target", "labels", "no_cache", "tags",
                           "pull"),
                    dict.fromkeys(("additional_contexts", "cache_from", "cache_to", "entitlements", "extra_hosts",
                                   "isolation", "network", "platforms", "privileged", "provenance", "sbom", "secrets",
                                   "shm_size", "ssh", "ulimits"), "nbcontain build can"))  # fmt: skip
        told = node.members()
        texts = {name: told[name].text() for name in ("dockerfile", "dockerfile_inline", "target") if name in told}
        args = told["args"].pairs() if "args" in told else {}
        return Build(
            self._path(told["context"].text() if "context" in told else "."), texts.get("dockerfile", "Dockerfile"),
            texts.get("dockerfile_inline", ""),
            tuple(name if value is None else f"{name}={value}" for name, value in args.items()),
            texts.get("target", ""), values.labels(told.get("labels")),
            "no_cache" in told and told["no_cache"].boolean(), told["tags"].texts() if "tags" in told else (),
        )  # fmt: skip
