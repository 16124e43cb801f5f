"""What docker's API says that images, containers, networks and volumes have: its Go types, by the names of its JSON.

The one place that knows what `inspect --format` answers of a field that is not set. Fields stand in the order of
docker 28's types, which is the order that Go writes a struct in.
"""

from __future__ import annotations

from nbcontain.display.typed import Duration, ListOf, MapOf, Pointer, Struct, Time, Type

_TEXTS, _LABELS = ListOf(""), MapOf("")
_SET = MapOf(Struct({}))
_NEVER = Time("0001-01-01T00:00:00Z")


def _struct(also: dict[str, str] | None = None, **fields: Type) -> Struct:
    return Struct(fields, also or {})


# Such keys are no texts in Go: `index` with a text makes docker look at the JSON instead.
_PORT_SET = MapOf(Struct({}), by_text=False)
_PORTS = MapOf(ListOf(_struct({"HostIP": "HostIp"}, HostIp="", HostPort="")), by_text=False)
_PLATFORM = Struct(
    {"architecture": "", "os": "", "os.version": "", "os.features": _TEXTS, "variant": ""},
    {"Architecture": "architecture", "OS": "os", "OSVersion": "os.version", "OSFeatures": "os.features",
     "Variant": "variant"},
)  # fmt: skip
_DESCRIPTOR = _struct(
    {"MediaType": "mediaType", "Digest": "digest", "Size": "size", "URLs": "urls", "Annotations": "annotations",
     "Data": "data", "Platform": "platform", "ArtifactType": "artifactType"},
    mediaType="", digest="", size=0, urls=_TEXTS, annotations=_LABELS, data=_TEXTS, platform=Pointer(_PLATFORM),
    artifactType="",
)  # fmt: skip
_GRAPH = _struct(Data=_LABELS, Name="")

_HEALTHCHECK = _struct(
    Test=_TEXTS, Interval=Duration(), Timeout=Duration(), StartPeriod=Duration(), StartInterval=Duration(), Retries=0
)  # fmt: skip
_CONFIG = _struct(
    Hostname="", Domainname="", User="", AttachStdin=False, AttachStdout=False, AttachStderr=False,
    ExposedPorts=_PORT_SET, Tty=False, OpenStdin=False, StdinOnce=False, Env=_TEXTS, Cmd=_TEXTS,
    Healthcheck=Pointer(_HEALTHCHECK), ArgsEscaped=False, Image="", Volumes=_SET, WorkingDir="", Entrypoint=_TEXTS,
    NetworkDisabled=False, MacAddress="", OnBuild=_TEXTS, Labels=_LABELS, StopSignal="", StopTimeout=Pointer(0),
    Shell=_TEXTS,
)  # fmt: skip

IMAGE = _struct(
    {"ID": "Id", "VirtualSize": "Size"},
    Id="", RepoTags=_TEXTS, RepoDigests=_TEXTS, Parent="", Comment="", Created="", Container="",
    ContainerConfig=_CONFIG, DockerVersion="", Author="", Config=_CONFIG, Architecture="", Variant="", Os="",
    OsVersion="", Size=0, GraphDriver=_GRAPH, RootFS=_struct(Type="", Layers=_TEXTS),
    Metadata=_struct(LastTagTime=_NEVER), Descriptor=Pointer(_DESCRIPTOR), Manifests=ListOf(None),
)  # fmt: skip
"""types/image, InspectResponse."""

_STATE = _struct(
    Status="", Running=False, Paused=False, Restarting=False, OOMKilled=False, Dead=False, Pid=0, ExitCode=0, Error="",
    StartedAt="", FinishedAt="",
    Health=Pointer(_struct(
        Status="", FailingStreak=0, Log=ListOf(_struct(Start=_NEVER, End=_NEVER, ExitCode=0, Output=""))
    )),
)  # fmt: skip
_MOUNT_ASKED = _struct(
    Type="", Source="", Target="", ReadOnly=False, Consistency="",
    BindOptions=Pointer(_struct(
        Propagation="", NonRecursive=False, CreateMountpoint=False, ReadOnlyNonRecursive=False,
        ReadOnlyForceRecursive=False,
    )),
    VolumeOptions=Pointer(_struct(
        NoCopy=False, Labels=_LABELS, Subpath="", DriverConfig=Pointer(_struct(Name="", Options=_LABELS))
    )),
    ImageOptions=Pointer(_struct(Subpath="")),
    TmpfsOptions=Pointer(_struct(SizeBytes=0, Mode=0, Options=ListOf(_TEXTS))), ClusterOptions=Pointer(_struct()),
)  # fmt: skip
_THROTTLE = ListOf(_struct(Path="", Rate=0))
_HOST_CONFIG = _struct(
    {
        "DNS": "Dns", "DNSOptions": "DnsOptions", "DNSSearch": "DnsSearch", "CPUShares": "CpuShares",
        "NanoCPUs": "NanoCpus", "CPUPeriod": "CpuPeriod", "CPUQuota": "CpuQuota", "CPUCount": "CpuCount",
        "CPURealtimePeriod": "CpuRealtimePeriod", "CPURealtimeRuntime": "CpuRealtimeRuntime",
        "CPUPercent": "CpuPercent",
    },
    Binds=_TEXTS, ContainerIDFile="", LogConfig=_struct(Type="", Config=_LABELS), NetworkMode="", PortBindings=_PORTS,
    RestartPolicy=_struct(Name="", MaximumRetryCount=0), AutoRemove=False, VolumeDriver="", VolumesFrom=_TEXTS,
    ConsoleSize=ListOf(0), Annotations=_LABELS, CapAdd=_TEXTS, CapDrop=_TEXTS, CgroupnsMode="", Dns=_TEXTS,
    DnsOptions=_TEXTS, DnsSearch=_TEXTS, ExtraHosts=_TEXTS, GroupAdd=_TEXTS, IpcMode="", Cgroup="", Links=_TEXTS,
    OomScoreAdj=0, PidMode="", Privileged=False, PublishAllPorts=False, ReadonlyRootfs=False, SecurityOpt=_TEXTS,
    StorageOpt=_LABELS, Tmpfs=_LABELS, UTSMode="", UsernsMode="", ShmSize=0, Sysctls=_LABELS, Runtime="",
    Isolation="", CpuShares=0, Memory=0, NanoCpus=0, CgroupParent="", BlkioWeight=0,
    BlkioWeightDevice=ListOf(_struct(Path="", Weight=0)), BlkioDeviceReadBps=_THROTTLE, BlkioDeviceWriteBps=_THROTTLE,
    BlkioDeviceReadIOps=_THROTTLE, BlkioDeviceWriteIOps=_THROTTLE, CpuPeriod=0, CpuQuota=0, CpuRealtimePeriod=0,
    CpuRealtimeRuntime=0, CpusetCpus="", CpusetMems="",
    Devices=ListOf(_struct(PathOnHost="", PathInContainer="", CgroupPermissions="")), DeviceCgroupRules=_TEXTS,
    DeviceRequests=ListOf(_struct(
        Driver="", Count=0, DeviceIDs=_TEXTS, Capabilities=ListOf(_TEXTS), Options=_LABELS
    )),
    KernelMemory=0, KernelMemoryTCP=0, MemoryReservation=0, MemorySwap=0, MemorySwappiness=Pointer(0),
    OomKillDisable=Pointer(False), PidsLimit=Pointer(0), Ulimits=ListOf(_struct(Name="", Hard=0, Soft=0)), CpuCount=0,
    CpuPercent=0, IOMaximumIOps=0, IOMaximumBandwidth=0, Mounts=ListOf(_MOUNT_ASKED), MaskedPaths=_TEXTS,
    ReadonlyPaths=_TEXTS, Init=Pointer(False),
)  # fmt: skip
_ADDRESSES = ListOf(_struct(Addr="", PrefixLen=0))
_ENDPOINT = _struct(
    IPAMConfig=Pointer(_struct(IPv4Address="", IPv6Address="", LinkLocalIPs=_TEXTS)), Links=_TEXTS, Aliases=_TEXTS,
    MacAddress="", DriverOpts=_LABELS, GwPriority=0, NetworkID="", EndpointID="", Gateway="", IPAddress="",
    IPPrefixLen=0, IPv6Gateway="", GlobalIPv6Address="", GlobalIPv6PrefixLen=0, DNSNames=_TEXTS,
)  # fmt: skip

CONTAINER = _struct(
    {"ID": "Id"},
    Id="", Created="", Path="", Args=_TEXTS, State=_STATE, Image="", ResolvConfPath="", HostnamePath="", HostsPath="",
    LogPath="", Name="", RestartCount=0, Driver="", Platform="", MountLabel="", ProcessLabel="", AppArmorProfile="",
    ExecIDs=_TEXTS, HostConfig=_HOST_CONFIG, GraphDriver=_GRAPH, SizeRw=Pointer(0), SizeRootFs=Pointer(0),
    Mounts=ListOf(_struct(
        Type="", Name="", Source="", Destination="", Driver="", Mode="", RW=False, Propagation=""
    )),
    Config=_CONFIG,
    NetworkSettings=_struct(
        Bridge="", SandboxID="", SandboxKey="", Ports=_PORTS, HairpinMode=False, LinkLocalIPv6Address="",
        LinkLocalIPv6PrefixLen=0, SecondaryIPAddresses=_ADDRESSES, SecondaryIPv6Addresses=_ADDRESSES, EndpointID="",
        Gateway="", GlobalIPv6Address="", GlobalIPv6PrefixLen=0, IPAddress="", IPPrefixLen=0, IPv6Gateway="",
        MacAddress="", Networks=MapOf(Pointer(_ENDPOINT)),
    ),
    ImageManifestDescriptor=Pointer(_DESCRIPTOR),
)  # fmt: skip
"""types/container, InspectResponse."""

NETWORK = _struct(
    {"ID": "Id"},
    Name="", Id="", Created=_NEVER, Scope="", Driver="", EnableIPv4=False, EnableIPv6=False,
    IPAM=_struct(
        Driver="", Options=_LABELS,
        Config=ListOf(_struct(
            {"AuxAddress": "AuxiliaryAddresses"}, Subnet="", IPRange="", Gateway="", AuxiliaryAddresses=_LABELS
        )),
    ),
    Internal=False, Attachable=False, Ingress=False, ConfigFrom=_struct(Network=""), ConfigOnly=False,
    Containers=MapOf(_struct(Name="", EndpointID="", MacAddress="", IPv4Address="", IPv6Address="")), Options=_LABELS,
    Labels=_LABELS, Peers=ListOf(_struct(Name="", IP="")),
    Services=MapOf(_struct(VIP="", Ports=_TEXTS, LocalLBIndex=0, Tasks=ListOf(None))),
)  # fmt: skip
"""types/network, Inspect."""

VOLUME = _struct(
    ClusterVolume=Pointer(_struct()), CreatedAt="", Driver="", Labels=_LABELS, Mountpoint="", Name="", Options=_LABELS,
    Scope="", Status=MapOf(None), UsageData=Pointer(_struct(RefCount=0, Size=0)),
)  # fmt: skip
"""types/volume, Volume."""

TYPES = {"image": IMAGE, "container": CONTAINER, "network": NETWORK, "volume": VOLUME}
"""By what is inspected."""
