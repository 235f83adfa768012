"""The node file as objects: sections, keys, types, ranges and defaults.

Key names are a contract (docs/operations.md). What one value must look like is here; what values
must have to do with each other is fwd/config/check.py. Lists are tuples, addresses are
``ipaddress`` objects, MACs 6 bytes. Every section carries ``line``, its line in the file.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fwd.config import values
from fwd.config.pieces import Places, format_place, where
from fwd.config.values import LINE_KEY
from fwd.model.address import derive_mac, parse_address, parse_mac, parse_network
from fwd.model.identity import IDENTITY_MAX, WIRE_MAX
from fwd.model.policy import Action, Direction, PortRange, Proto, Rule
from fwd.model.rows import Address, Network, Settings

__all__ = [
    "LINE_KEY",
    "ApiSection",
    "BackendRow",
    "ConntrackSection",
    "EndpointSection",
    "EnforceSection",
    "FeaturesSection",
    "IpcacheSection",
    "MetricsSection",
    "NodeFile",
    "NodeSection",
    "PeerSection",
    "PolicySection",
    "Section",
    "ServiceSection",
    "TunnelSection",
]

AddressField = Annotated[Address, PlainValidator(parse_address)]
UnderlayField = Annotated[IPv4Address, PlainValidator(values.underlay)]
Outside6Field = Annotated[IPv6Address, PlainValidator(values.outside6)]
AddressesField = Annotated[tuple[Address, ...], PlainValidator(values.addresses)]
NetworkField = Annotated[Network, PlainValidator(parse_network)]
NetworksField = Annotated[tuple[Network, ...], PlainValidator(values.networks)]
MacField = Annotated[bytes, PlainValidator(parse_mac)]
NameField = Annotated[StrictStr, BeforeValidator(values.name)]
IfnameField = Annotated[str, PlainValidator(values.ifname)]
PortField = Annotated[StrictInt, Field(ge=1, le=65535)]
IdentityField = Annotated[StrictInt, Field(ge=0, le=IDENTITY_MAX)]
WireIdentityField = Annotated[StrictInt, Field(ge=1, le=WIRE_MAX)]
CapacityField = Annotated[StrictInt, Field(ge=1, le=1 << 24)]
LifetimeField = Annotated[StrictInt, Field(ge=1, le=31_536_000)]
VlanField = Annotated[StrictInt, Field(ge=1, le=4094)]


class Section(BaseModel):
    """A mapping of the file; unknown keys are errors, ``key:`` without a value is no key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: int = Field(default=0, alias="\0line")  # LINE_KEY; type checkers want a literal

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if not isinstance(data, dict):
            return data
        known = [name for name, info in cls.model_fields.items() if info.alias is None]
        for key in data:
            if key in known or str(key).startswith(LINE_KEY[0]):
                continue
            near = get_close_matches(str(key), known, n=1, cutoff=0.5)
            advice = f"did you mean '{near[0]}'?" if near else f"the keys here: {', '.join(known)}"
            raise PydanticCustomError(
                "unknown_key", "unknown key, {advice}", {"key": key, "advice": advice}
            )
        return {key: value for key, value in data.items() if value is not None}


class NodeSection(Section):
    """This node."""

    name: NameField
    ip: UnderlayField
    """Underlay address: outer source of VXLAN."""
    ip6: Outside6Field | None = None
    """What IPv6 pods reach the world under; None = they keep their addresses."""
    mac: MacField | None = None
    pod_cidr: NetworksField = ()
    router_ip: AddressesField = ()
    """The pods' gateway."""
    loopback_ip: AddressesField = (Settings().loopback, Settings().loopback6)
    """Source a pod sees that reaches itself through a service; at most one a family."""

    @property
    def own(self) -> tuple[Address, ...]:
        """Every address of the node itself."""
        outside = (self.ip,) if self.ip6 is None else (self.ip, self.ip6)
        return (*outside, *self.router_ip)


class VerifySection(Section):
    """Checks on packets that arrive in the tunnel."""

    peer: StrictBool = True
    source: StrictBool = True


class TunnelSection(Section):
    """The overlay."""

    protocol: Literal["vxlan", "disabled"] = "vxlan"
    port: PortField = 8472
    mtu: Annotated[int | Literal["auto"], PlainValidator(values.mtu)] = "auto"
    """Inner MTU in bytes; auto = underlay's - 50."""
    verify: VerifySection = VerifySection()


class PeerSection(Section):
    """A remote node; ``vni`` and ``identity`` together make it a plain VXLAN peer."""

    name: NameField
    ip: UnderlayField
    pod_cidr: NetworksField = ()
    router_ip: AddressesField = ()
    """Source of what the node itself sends to our pods."""
    vni: Annotated[StrictInt, Field(ge=0, le=WIRE_MAX)] | None = None
    identity: WireIdentityField | None = None


class EnforceSection(Section):
    """Per direction: True = default deny, False = an explicit allow-all entry."""

    ingress: StrictBool = False
    egress: StrictBool = False


class EndpointSection(Section):
    """A local pod; MACs and interface name are derived from its name when left out."""

    name: NameField
    id: Annotated[StrictInt, Field(ge=1, le=65535)]
    identity: WireIdentityField = 0
    """0 = follows from the labels, which a Pod of this name may have."""
    labels: Annotated[dict[str, str], PlainValidator(values.labels)] = Field(default_factory=dict)
    ip: AddressesField
    mac: MacField = Field(default=b"", validate_default=True)
    node_mac: MacField = Field(default=b"", validate_default=True)
    ifname: IfnameField = Field(default="", validate_default=True)
    ifindex: Annotated[StrictInt, Field(ge=1, le=(1 << 31) - 1)] | None = None
    netns: StrictStr | None = None
    enforce: EnforceSection = EnforceSection()
    file: str = Field(default="", alias="\0file")
    """The manifest of a pod that only stands there."""

    @field_validator("mac", "node_mac", mode="wrap")
    @classmethod
    def _derive_mac(cls, value: Any, handler: Any, info: ValidationInfo) -> bytes:  # noqa: ANN401
        if value == b"":
            return derive_mac(str(info.field_name), str(info.data.get("name")))
        mac: bytes = handler(value)
        return mac

    @field_validator("ifname", mode="wrap")
    @classmethod
    def _derive_ifname(cls, value: Any, handler: Any, info: ValidationInfo) -> str:  # noqa: ANN401
        if value == "":
            return "lxc" + derive_mac("ifname", str(info.data.get("name"))).hex()
        ifname: str = handler(value)
        return ifname


class IpcacheSection(Section):
    """A raw ipcache row."""

    prefix: NetworkField
    identity: IdentityField = 0
    pod: NameField | None = None
    """``namespace/name`` of a manifest's Pod that is there; its identity, unless one is written."""
    tunnel_endpoint: UnderlayField | None = None
    flags: tuple[Literal["skip_tunnel"], ...] = ()


class BackendRow(Section):
    """One backend of a service."""

    ip: AddressField
    port: PortField
    state: Literal["active", "terminating", "quarantined", "maintenance"] = "active"


ServiceFlag = Literal[
    "routable", "node_port", "external_ip", "host_port", "load_balancer", "affinity",
    "ext_local", "int_local", "two_scopes", "source_range",
]  # fmt: skip


class ServiceSection(Section):
    """A raw service row."""

    name: NameField
    frontend: AddressField
    port: PortField
    proto: Literal["tcp", "udp", "sctp"] = "tcp"
    scope: Literal["external", "internal"] = "external"
    flags: tuple[ServiceFlag, ...] = ()
    affinity_timeout_s: Annotated[StrictInt, Field(ge=0, le=WIRE_MAX)] = 0
    source_ranges: NetworksField = ()
    backends: tuple[BackendRow, ...] = ()


class PolicySection(Section):
    """A policy rule; ``port`` None = any."""

    endpoint: NameField
    direction: Direction
    identity: Annotated[int | Literal["any"], PlainValidator(values.policy_identity)] = "any"
    proto: Proto = "any"
    port: Annotated[PortRange | None, PlainValidator(values.port_range)] = None
    action: Action


class CapacitySection(Section):
    """Conntrack entries."""

    tcp: CapacityField = 524288
    any: CapacityField = 262144


class LifetimesSection(Section):
    """Conntrack lifetimes in seconds."""

    tcp: LifetimeField = 8000
    tcp_syn: LifetimeField = 60
    tcp_close: LifetimeField = 10
    any: LifetimeField = 60
    service_tcp: LifetimeField = 8000
    service_any: LifetimeField = 60


class ConntrackSection(Section):
    """Conntrack sizes and lifetimes."""

    capacity: CapacitySection = CapacitySection()
    lifetimes_s: LifetimesSection = LifetimesSection()


class OffloadSection(Section):
    """Kill switches of offloads; what the kernel lacks is off in any case."""

    csum: StrictBool = True
    """Pods leave checksums to us; needed by the next two."""
    tso: StrictBool = True
    """Pods hand over TCP super-packets."""
    uso: StrictBool = True
    """Pods hand over UDP super-packets, and take them."""
    udp_segment: StrictBool = True
    """Several datagrams in one send."""
    udp_gro: StrictBool = True
    """Several datagrams in one receive."""
    merge: StrictBool = True
    """Neighbouring packets of a flow become one for their pod."""


class FeaturesSection(Section):
    """Switches of the datapath."""

    offload: OffloadSection = OffloadSection()
    spin_us: Annotated[StrictInt, Field(ge=0, le=1000)] = 50
    """Longest busy wait for the next packet after a little work, in microseconds; 0: never."""
    fragments: StrictBool = True
    icmp_frag_needed: StrictBool = True
    masquerade: StrictBool = False
    nodeport: StrictBool = False
    ttl_exceeded_reply: StrictBool = False
    """Tell senders of IPv4, too, when a packet's TTL runs out."""
    mss_clamp: StrictBool = False
    """Lower TCP's MSS to what the tunnel carries."""
    policy_audit: StrictBool = False
    """Let pass what policy denies, and report it."""
    no_backend: Literal["drop", "reject"] = "drop"
    deny: Literal["drop", "reject"] = "drop"
    vlan_allowed: tuple[VlanField, ...] = ()


class ApiSection(Section):
    """The unix socket."""

    socket: StrictStr = "/run/fwd/fwd.sock"


class MetricsSection(Section):
    """The TCP listener for scrapers; without the section there is none."""

    listen: Annotated[str, PlainValidator(values.listen)] = "127.0.0.1:9962"


class NodeFile(Section):
    """A whole node file."""

    path: Path = Field(default=Path("-"), alias="\0path")
    places: Places = Field(default=((1, "-"),), alias="\0places")
    """Files it was read from, and where their lines begin when counted through."""
    lines: dict[tuple[str | int, ...], int] = Field(default_factory=dict, alias="\0lines")
    """Key path to line, of what is written there."""
    warnings: tuple[str, ...] = Field(default=(), alias="\0warnings")
    """What is not acted on: keys with file and line, files and variables; one line each."""
    rules: tuple[Rule, ...] = Field(default=(), alias="\0rules")
    """What manifests' policies mean for the endpoints (fwd/control/manifests.py)."""
    identities: dict[int, tuple[str, ...]] = Field(default_factory=dict, alias="\0identities")
    """Identities made here, and their labels; likewise."""
    node: NodeSection
    tunnel: TunnelSection = TunnelSection()
    peers: tuple[PeerSection, ...] = ()
    endpoints: tuple[EndpointSection, ...] = ()
    ipcache: tuple[IpcacheSection, ...] = ()
    services: tuple[ServiceSection, ...] = ()
    policy: tuple[PolicySection, ...] = ()
    conntrack: ConntrackSection = ConntrackSection()
    features: FeaturesSection = FeaturesSection()
    api: ApiSection = ApiSection()
    metrics: MetricsSection | None = None
    manifests: Annotated[tuple[str, ...], PlainValidator(values.manifests)] = ()

    def where(self, line: int) -> tuple[str, int]:
        """Return file and line there of a section's ``line``."""
        return where(self.places, line)

    def place(self, line: int) -> str:
        """Return ``file:line`` of a section's ``line``, for error texts."""
        return format_place(self.places, line)
