"""Whose request it is: what a proxy says is believed, and what anybody says is not."""

import pytest

from gamma_orch.app.address import UNIX, Proxies, plain

PROXY, OTHER_PROXY, CLIENT, LIE = "10.0.0.1", "10.0.0.2", "203.0.113.7", "198.51.100.9"


@pytest.fixture
def proxies() -> Proxies:
    return Proxies(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        pytest.param(PROXY, [], PROXY, id="the proxy itself asks"),
        pytest.param(PROXY, [CLIENT], CLIENT, id="one proxy"),
        pytest.param(PROXY, [f"{CLIENT}, {OTHER_PROXY}"], CLIENT, id="two proxies"),
        pytest.param(PROXY, [f"{LIE}, {CLIENT}"], CLIENT, id="the client wrote the header first"),
        pytest.param(PROXY, [f"10.9.9.9, {LIE}, {CLIENT}"], CLIENT, id="it named a proxy"),
        pytest.param(PROXY, [LIE, CLIENT], CLIENT, id="the proxy added a line of its own"),
        pytest.param(PROXY, [LIE, f"{CLIENT},{OTHER_PROXY}"], CLIENT, id="and another one a word"),
        pytest.param(CLIENT, [LIE], CLIENT, id="no proxy at all"),
        pytest.param(CLIENT, [f"{LIE}, {PROXY}"], CLIENT, id="no proxy, which names one"),
        pytest.param(PROXY, [f"{LIE}, nonsense"], PROXY, id="no address where the client's would be"),
        pytest.param(PROXY, [f"{LIE}, nonsense, {OTHER_PROXY}"], OTHER_PROXY, id="no address behind a proxy"),
        pytest.param(PROXY, [""], PROXY, id="empty"),
        pytest.param(PROXY, [f"{CLIENT},"], PROXY, id="nothing after the comma"),
        pytest.param(PROXY, ["unknown"], PROXY, id="unknown"),
        pytest.param(PROXY, ["010.0.0.1"], PROXY, id="a number that may be octal"),
        pytest.param(PROXY, [f"10.7.7.7, {OTHER_PROXY}"], "10.7.7.7", id="all are trusted"),
        pytest.param(PROXY, [f"{CLIENT}:4711"], CLIENT, id="with a port"),
        pytest.param(PROXY, ["[2001:db8:2::7]:4711"], "2001:db8:2::7", id="IPv6 with a port"),
        pytest.param(PROXY, ["[2001:db8:2::7]"], "2001:db8:2::7", id="IPv6 in brackets"),
        pytest.param(PROXY, ["2001:DB8:2:0::7"], "2001:db8:2::7", id="IPv6 in another spelling"),
        pytest.param("2001:db8:1::1", [CLIENT], CLIENT, id="an IPv6 proxy"),
        pytest.param(f"::ffff:{PROXY}", [CLIENT], CLIENT, id="a proxy that is mapped into IPv6"),
        pytest.param(PROXY, [f"{CLIENT}, ::ffff:{OTHER_PROXY}"], CLIENT, id="a mapped proxy on the way"),
        pytest.param(PROXY, [f"::ffff:{CLIENT}"], CLIENT, id="a mapped client"),
        pytest.param(PROXY, ["fe80::1%<script>"], PROXY, id="a zone, which is free text"),
        pytest.param("", [CLIENT], "", id="a Unix socket has no address"),
    ],
)
def test_the_nearest_address_that_no_proxy_has(
    proxies: Proxies, peer: str, forwarded: list[str], client: str
) -> None:
    assert proxies.client(peer, [one.encode() for one in forwarded]) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        pytest.param([CLIENT], CLIENT, id="what nginx saw"),
        pytest.param([f"{LIE}, {CLIENT}"], CLIENT, id="the client wrote the header first"),
        pytest.param([f"{CLIENT}, {PROXY}"], CLIENT, id="a trusted proxy ahead of nginx"),
        pytest.param([], "", id="nothing said"),
    ],
)
def test_behind_a_proxy_on_a_socket_of_the_workers_own(forwarded: list[str], client: str) -> None:
    behind = Proxies([UNIX, "10.0.0.0/8"])
    assert behind.trusts("")
    assert not Proxies([UNIX]).trusts(PROXY)
    assert behind.client("", [one.encode() for one in forwarded]) == client
    assert behind.client(LIE, [CLIENT.encode()]) == LIE


def test_a_header_in_any_bytes_is_no_address(proxies: Proxies) -> None:
    assert proxies.client(PROXY, [bytes(range(256))]) == PROXY


def test_without_trusted_networks_nobody_is_believed() -> None:
    nobody = Proxies([])
    assert not nobody.trusts("127.0.0.1")
    assert nobody.client("127.0.0.1", [LIE.encode()]) == "127.0.0.1"


def test_a_network_with_bits_of_a_host_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="host bits"):
        Proxies(["10.0.0.1/8"])


@pytest.mark.parametrize("text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.4/8", "::1::", "[::1", "a:1", "1.2.3.4:x"])
def test_what_is_no_address(text: str) -> None:
    assert plain(text) is None
