"""What networks decide before anything is done: words, addresses, names, rules, files."""

from __future__ import annotations

import struct
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcontain.display.topology import Topology
from nbcontain.errors import AddressesExhausted, AddressTaken, NetworkError, UsageError
from nbcontain.network import addresses, dns, etc, nft, ruleset, words
from nbcontain.network.documents import port_document, shown_ports
from nbcontain.network.model import (
    Endpoint,
    Network,
    PortMapping,
    Sandbox,
    Wish,
    bridge_name,
    link_name,
    network_from_json,
    network_to_json,
    sandbox_from_json,
    sandbox_to_json,
)
from nbcontain.network.netlink import encoded
from nbcontain.network.tunnels import has_default
from nbcontain.values import replace

LAB = Network("lab", "ab" * 32, subnets=(addresses.subnet_of("10.5.0.0/24"), addresses.subnet_of("fd00:5::/64")))
SHUT = Network("shut", "cd" * 32, subnets=(addresses.subnet_of("10.6.0.0/24"),), internal=True)


def sandbox(name: str, address: str, network: Network = LAB, **more: object) -> Sandbox:
    place = Endpoint(network.id, network.name, "eth0", f"v{name}", "02:42:00:00:00:01", address, prefix=24,
                     aliases=("both",))  # fmt: skip
    return Sandbox(name * 12, name, f"host-{name}", 1, 1, (place,), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", "127.0.0.1:0->80/tcp"),
        ("8080:80", "127.0.0.1:8080->80/tcp"),
        ("0.0.0.0:8080:80/udp", "0.0.0.0:8080->80/udp"),
        ("127.0.0.1::80", "127.0.0.1:0->80/tcp"),
        ("[::1]:8080:80", "[::1]:8080->80/tcp"),
        ("8000-8001:80-81", "127.0.0.1:8000->80/tcp 127.0.0.1:8001->81/tcp"),
        ("8000-8010:80", "127.0.0.1:8000->80/tcp"),
        ("published=8080,target=80,protocol=udp", "127.0.0.1:8080->80/udp"),
    ],
)
def test_ports_are_read_in_all_of_dockers_forms(text: str, ports: str) -> None:
    assert " ".join(map(str, words.published(text))) == ports


@pytest.mark.parametrize(
    "text", ["", "0", "70000", "80/icmp", "80/sctp", "a:80", "1-3:1-2", "::1:80:80", "x=1", "8080:"]
)
def test_what_is_no_port_is_told_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError):
        words.published(text)


@given(st.text(max_size=40))
def test_whatever_is_said_of_ports_and_networks_is_read_or_refused(text: str) -> None:
    for read in (words.published, words.exposed, words.attachment, words.mac_address):
        try:
            read(text)
        except UsageError:
            pass


def test_a_new_network_overlaps_nothing_and_addresses_go_round() -> None:
    first = addresses.free_block([], large=True)
    taken = [first, *(addresses.free_block([]),) * 1]
    assert not any(addresses.free_block(taken).overlaps(each) for each in taken)
    with pytest.raises(AddressesExhausted):
        addresses.free_block([ip_network("0.0.0.0/1"), ip_network("128.0.0.0/1")])
    subnet = addresses.subnet_of("10.9.0.0/29")
    network = Network("n", "ef" * 32, subnets=(subnet,))
    given_: list[str] = []
    for _ in range(5):
        given_.append(addresses.given(network, subnet, given_, given_[-1] if given_ else ""))
    assert given_ == [f"10.9.0.{n}" for n in (2, 3, 4, 5, 6)]
    with pytest.raises(AddressesExhausted):
        addresses.given(network, subnet, given_)
    assert addresses.given(network, subnet, given_[1:], given_[-1]) == "10.9.0.2"
    with pytest.raises(AddressTaken):
        addresses.wanted(network, "10.9.0.1", ())
    with pytest.raises(NetworkError):
        addresses.wanted(network, "10.9.0.7", ())


def test_names_of_links_fit_and_are_the_same_each_time() -> None:
    assert len(bridge_name("12345", LAB.id)) <= 15 >= len(link_name("12345", "c" * 64, LAB.id))
    assert link_name("12345", "c", LAB.id) == link_name("12345", "c", LAB.id) != link_name("12345", "d", LAB.id)


def test_what_is_written_is_read_again() -> None:
    one = sandbox("one", "10.5.0.2", ports=(PortMapping(80, "tcp", "0.0.0.0", 8080),))
    assert sandbox_from_json(sandbox_to_json(one)) == one
    assert network_from_json(network_to_json(LAB)) == LAB


# --- names ---


def question(name: str, kind: int = dns.A, extra: bytes = b"") -> bytes:
    count = 1 if extra else 0
    flags = 0x0100
    return (
        struct.pack("!HHHHHH", 7, flags, 1, 0, 0, count) + dns.encoded_name(name) + struct.pack("!HH", kind, 1) + extra
    )


def asked(names: dns.Names, name: str, kind: int = dns.A, source: str = "10.5.0.2", network: Network = LAB) -> object:
    return names.ask(dns.parse(question(name, kind)), names.view(network.id, source))


NAMES = dns.Names(
    [LAB, SHUT], [sandbox("db", "10.5.0.2"), sandbox("web", "10.5.0.3"), sandbox("deep", "10.6.0.2", SHUT)]
)


def test_a_container_hears_of_its_own_networks_only() -> None:
    assert asked(NAMES, "web") == ([(dns.A, bytes([10, 5, 0, 3]))], 0) == asked(NAMES, "WEB.lab")
    assert asked(NAMES, "web", dns.AAAA) == ([], 0)
    assert len(asked(NAMES, "both")[0]) == 2  # type: ignore[index]
    assert asked(NAMES, "deep") is None and asked(NAMES, "example.org") is None
    assert asked(NAMES, "nobody.lab") == ([], dns.NO_SUCH_NAME)
    assert asked(NAMES, "web", source="10.6.0.2", network=SHUT) == ([], dns.NO_SUCH_NAME)
    assert asked(NAMES, "example.org", source="10.6.0.2", network=SHUT) == ([], dns.NO_SUCH_NAME)
    assert asked(NAMES, "3.0.5.10.in-addr.arpa", dns.PTR) == ([(dns.PTR, dns.encoded_name("web.lab"))], 0)
    assert asked(NAMES, "9.0.5.10.in-addr.arpa", dns.PTR) == ([], dns.NO_SUCH_NAME)
    assert asked(NAMES, "9.9.9.9.in-addr.arpa", dns.PTR) is None


def test_what_does_not_fit_is_cut_and_says_so() -> None:
    query = dns.parse(question("x"))
    records = [(dns.A, bytes(4))] * 100
    cut, whole = dns.answer(query, records), dns.answer(query, records, over_tcp=True)
    assert len(cut) <= 512 and cut[2] & 0x02 and not whole[2] & 0x02 and len(whole) > 1600
    roomy = dns.parse(question("x", extra=b"\0\0\x29\x10\0\0\0\0\0\0\0"))
    assert not dns.answer(roomy, records)[2] & 0x02


@given(st.binary(max_size=600))
def test_no_bytes_do_harm(data: bytes) -> None:
    try:
        query = dns.parse(data)
    except dns.BadQuery:
        assert len(dns.refusal(data, dns.FORMAT_ERROR)) in (0, 12)
        return
    found = NAMES.ask(query, NAMES.view(LAB.id, "10.5.0.2"))
    assert dns.answer(query, *found or ((), 2))[:2] == data[:2]


@given(st.binary(max_size=80), st.integers(0, 65535))
def test_no_question_does_harm(name: bytes, kind: int) -> None:
    data = struct.pack("!HHHHHH", 7, 0, 1, 0, 0, 0) + name + b"\0" + struct.pack("!HH", kind, 1)
    test_no_bytes_do_harm.hypothesis.inner_test(data)  # type: ignore[attr-defined]


# --- the packet filter, and files ---


def test_what_is_published_on_loopback_is_no_business_of_the_filter() -> None:
    ports = (PortMapping(80, "tcp", "127.0.0.1", 8080), PortMapping(81, "udp", "0.0.0.0", 8081))
    found = ruleset.elements("12345", [LAB, SHUT], [sandbox("web", "10.5.0.3", ports=ports)])
    keys = {each.set: each for each in found}
    assert keys["any4"].key == b"\x11\0\0\0" + struct.pack("!HH", 8081, 0) and len([e for e in found if e.data]) == 1
    assert keys["internal"].key.rstrip(b"\0").decode() == bridge_name("12345", SHUT.id)
    assert {each.key for each in found if each.set == "masq4"} == {bytes([10, 5, 0, 0])}
    assert nft.changed("t", found, ()) and not nft.changed("t", (), ())


def test_attributes_are_padded_and_nested() -> None:
    assert encoded([(1, b"abc"), (2, [(3, 7)])]) == (
        struct.pack("=HH", 7, 1)
        + b"abc\0"
        + struct.pack("=HH", 12, 2 | 0x8000)
        + struct.pack("=HH", 8, 3)
        + b"\0\0\0\7"
    )


def test_resolv_conf_by_dockers_rules() -> None:
    host = etc.Resolver.parse("nameserver 127.0.0.53\nnameserver 9.9.9.9 # x\nsearch a b\noptions ndots:2\njunk\n")
    assert etc.resolver(Wish(), host, ["10.5.0.1"], has_names=True).text() == (
        "nameserver 10.5.0.1\nsearch a b\noptions ndots:2\n"
    )
    assert etc.resolver(Wish(), host, [], has_names=False).servers == ("9.9.9.9",)
    assert etc.resolver(Wish(), host, ["10.5.0.1"], has_names=False).servers == ("10.5.0.1",)
    assert etc.resolver(Wish(servers=("1.1.1.1",), search=(".",)), host, [], has_names=False).text() == (
        "nameserver 1.1.1.1\noptions ndots:2\n"
    )


def test_hosts_keep_what_others_wrote() -> None:
    one = replace(sandbox("web", "10.5.0.3"), hostname="web-host")
    text = etc.hosts(one, [("gate", "host-gateway"), ("x", "1.2.3.4")], "10.5.0.1") + "9.9.9.9 mine\n"
    assert "10.5.0.1\tgate\n1.2.3.4\tx\n10.5.0.3\tweb-host\n" in text
    after = etc.changed_hosts(text, one, replace(sandbox("web", "10.5.0.9"), hostname="web-host"))
    assert "10.5.0.9\tweb-host" in after and "10.5.0.3" not in after and "9.9.9.9 mine" in after


@pytest.mark.parametrize(
    ("hostname", "domainname", "called"),
    [("web", "", "web"), ("web", "example.org", "web.example.org web"), ("a.b.c", "", "a.b.c a")],
)
def test_the_name_with_its_domain_comes_first_in_hosts(hostname: str, domainname: str, called: str) -> None:
    """Else `hostname -f` does not know it."""
    one = replace(sandbox("web", "10.5.0.3"), hostname=hostname, domainname=domainname)
    assert etc.hosts(one, (), "").endswith(f"\n10.5.0.3\t{called}\n")


def test_neighbouring_ports_are_shown_as_one_range() -> None:
    ports = [PortMapping(80 + n, "tcp", "127.0.0.1", 8080 + n) for n in range(3)] + [PortMapping(53, "udp", "::", 53)]
    assert shown_ports(("80/tcp", "443/tcp"), ports) == "127.0.0.1:8080-8082->80-82/tcp, [::]:53->53/udp, 443/tcp"
    exposed = [f"{number}/{protocol}" for number in range(1, 65536) for protocol in ("tcp", "udp")]
    assert shown_ports(exposed, ()) == "1-65535/tcp, 1-65535/udp"
    assert shown_ports(("9/udp", "10/tcp", "8/udp", "7/tcp"), ()) == "7/tcp, 8-9/udp, 10/tcp"
    assert port_document(("443/tcp",), ports[:1]) == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "443/tcp": None,
    }


def test_a_route_that_refuses_is_no_way_out() -> None:
    any_ = "0" * 32
    led = f"{any_} 00 {any_} 00 fd990000000000000000000000000002 00000400 00000001 00000000 00000003     wire"
    near = f"fd990000000000000000000000000000 40 {any_} 00 {any_} 00000100 00000001 00000000 00000001     wire"
    refusing = f"{any_} 00 {any_} 00 {any_} ffffffff 00000001 00000000 00200200       lo"
    assert has_default(f"{near}\n{led}\n{refusing}\n")
    assert not has_default(f"{near}\n{refusing}\n") and not has_default("")


def test_the_picture_and_its_twin_show_hostile_names_as_text() -> None:
    bad = Sandbox("c" * 12, "<script>alert(1)</script>\x1b[31m", "h", 1, 1, sandbox("x", "10.5.0.3").endpoints)
    drawn = Topology((LAB, SHUT), (bad,))
    assert "<script>" not in drawn.html() and "\x1b" not in drawn.html() + drawn.text()
    # In the frame that cards have, as wide as its place.
    assert drawn.html().startswith('<div class="nbc ') and "<svg" not in drawn.html()
    assert "&lt;script&gt;" in drawn.html() and "nobody" in drawn.text() and "10.5.0.3" in drawn.text()


@pytest.mark.parametrize("label", [b"ff", b"-1", b"x", "é".encode(), b""])
def test_what_only_looks_like_an_address_backwards_is_none(label: bytes) -> None:
    assert dns.pointed([label] * 32 + [b"ip6", b"arpa"]) is None
    assert dns.pointed([label] * 4 + [b"in-addr", b"arpa"]) is None
