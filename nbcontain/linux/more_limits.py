"""What may be limited besides what `limits` names, as config.json says it (config-linux.md#control-groups). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nbcontain.errors import BadDocument
from nbcontain.linux.limits import Setting
from nbcontain.oci.strict_json import Fields
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class MoreLimits:
    """`resources` of config.json, for what `limits.Limits` has no name for."""

    top: Fields

    def settings(self, version: int) -> list[Setting]:
        """Everything to be written, in order. Raises BadDocument for what is not of its kind."""
        return list(self._first() if version == 1 else self._second())

    def _first(self) -> Iterator[Setting]:
        memory, cpu, io = self.top.object("memory"), self.top.object("cpu"), self.top.object("blockIO")
        for key, file in (("kernel", "kmem.limit_in_bytes"), ("kernelTCP", "kmem.tcp.limit_in_bytes")):
            if (value := memory.amount(key)) is not None:
                # Kernels give them up one by one, and nobody is hurt by a limit that is not kept there.
                yield Setting("memory", f"memory.{file}", str(value), needed=False)
        if (swappiness := memory.amount("swappiness")) is not None:
            yield Setting("memory", "memory.swappiness", str(swappiness))
        if memory.flag("disableOOMKiller"):
            yield Setting("memory", "memory.oom_control", "1")
        for key, file in (("realtimePeriod", "rt_period_us"), ("realtimeRuntime", "rt_runtime_us")):
            if (value := cpu.amount(key)) is not None:
                yield Setting("cpu", f"cpu.{file}", str(value))
        if (burst := cpu.amount("burst")) is not None:
            yield Setting("cpu", "cpu.cfs_burst_us", str(burst))
        if (idle := cpu.amount("idle")) is not None:
            yield Setting("cpu", "cpu.idle", str(idle))
        if (leaf := io.amount("leafWeight")) is not None:
            yield Setting("blkio", "blkio.leaf_weight", str(leaf))
        for each in io.objects("weightDevice"):
            device = f"{each.count('major')}:{each.count('minor')}"
            if (weight := each.amount("weight")) is not None:
                yield Setting("blkio", "blkio.bfq.weight_device|blkio.weight_device", f"{device} {weight}")
            if (leaf := each.amount("leafWeight")) is not None:
                yield Setting("blkio", "blkio.leaf_weight_device", f"{device} {leaf}")
        for each in self.top.objects("hugepageLimits"):
            size, limit = _size(each), each.count("limit", required=True, below=1 << 64)
            yield Setting("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit))
            yield Setting("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", str(limit), needed=False)
        network = self.top.object("network")
        if (number := network.amount("classID")) is not None:
            yield Setting("net_cls", "net_cls.classid", str(number))
        for each in network.objects("priorities"):
            name, priority = each.text("name", required=True), each.count("priority")
            yield Setting("net_prio", "net_prio.ifpriomap", f"{name} {priority}")
        yield from self._rdma()

    def _second(self) -> Iterator[Setting]:
        memory, cpu, io = self.top.object("memory"), self.top.object("cpu"), self.top.object("blockIO")
        for controller, key, where in (
            ("cpu", "realtimePeriod", cpu), ("cpu", "realtimeRuntime", cpu), ("io", "leafWeight", io),
            ("memory", "swappiness", memory),
        ):  # fmt: skip
            if where.amount(key) is not None:
                yield _missing(controller, where, key)
        if memory.flag("disableOOMKiller"):
            yield _missing("memory", memory, "disableOOMKiller")
        if (burst := cpu.amount("burst")) is not None:
            yield Setting("cpu", "cpu.max.burst", str(burst))
        if (idle := cpu.amount("idle")) is not None:
            yield Setting("cpu", "cpu.idle", str(idle))
        for each in io.objects("weightDevice"):
            if (weight := each.amount("weight")) is not None:
                device = f"{each.count('major')}:{each.count('minor')}"
                yield Setting("io", "io.bfq.weight|io.weight", f"{device} {weight}")
        for each in self.top.objects("hugepageLimits"):
            size, limit = _size(each), each.count("limit", required=True, below=1 << 64)
            yield Setting("hugetlb", f"hugetlb.{size}.max", str(limit))
            yield Setting("hugetlb", f"hugetlb.{size}.rsvd.max", str(limit), needed=False)
        network = self.top.object("network")
        if network.amount("classID"):
            yield _missing("net_cls", network, "classID")
        if network.objects("priorities"):
            yield _missing("net_prio", network, "priorities")
        yield from self._rdma()
        for name, value in self.top.texts_by_name("unified").items():
            if "/" in name or "." not in name:
                raise BadDocument(f"resources.unified has no file {name!r}")
            for line in value.splitlines():
                yield Setting(name.partition(".")[0], name, line)

    def _rdma(self) -> Iterator[Setting]:
        for name in self.top.values_of("rdma"):
            each = self.top.object("rdma").object(name)
            words = [
                f"{file}={each.count(key)}"
                for key, file in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
                if key in each.values
            ]
            yield Setting("rdma", "rdma.max", " ".join([name, *words]))


def more_limits(document: Mapping[str, object]) -> MoreLimits:
    """Those of `linux.resources`; raises BadDocument."""
    return MoreLimits(Fields(document, "resources"))


def _missing(controller: str, where: Fields, key: str) -> Setting:
    return Setting(controller, "", f"{where.place}.{key}: control groups of version 2 have no such limit")


def _size(fields: Fields) -> str:
    size = fields.text("pageSize", required=True)
    if not size.isalnum():
        raise BadDocument(f"{fields.place}.pageSize {size!r} is no size")
    return size
