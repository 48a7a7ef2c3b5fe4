"""Whose request it is, behind proxies that are trusted and headers that anyone can write."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNIX = "unix"  # among the trusted: whoever comes by the worker's own Unix socket, and so has no address
# Some proxies name the port too: 203.0.113.7:1234 and [2001:db8::1]:1234.
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")


class Proxies:
    """The networks whose X-Forwarded-For is believed: everybody else's is ignored."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(one) for one in trusted if one != UNIX]
        self._unix = UNIX in trusted
        self._known = lru_cache(maxsize=10_000)(self._trusted)

    def trusts(self, address: str) -> bool:
        if not address:
            return self._unix
        return bool(self._networks) and self._known(address)

    def _trusted(self, address: str) -> bool:
        found = plain(address)
        if found is None:
            return False
        parsed = ipaddress.ip_address(found)
        return any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """The nearest address that no trusted proxy has: read from the right, for the left is the client's
        own invention. What is no address ends the walk at the last hop that was one.

        `forwarded`: the headers in their order. A proxy may add a line of its own behind the client's."""
        seen = plain(peer) or peer
        if not forwarded or not self.trusts(peer):
            return seen
        for hop in reversed(b",".join(forwarded).decode("latin-1").split(",")):
            found = plain(hop.strip())
            if found is None:
                return seen
            seen = found
            if not self.trusts(seen):
                return seen
        return seen


def plain(text: str) -> str | None:
    """The address in its one spelling: an IPv4 address as such, where it is mapped into IPv6, and without a
    port. None where it is none, or has a zone: that is free text, and of one link only."""
    if (found := _WITH_PORT.fullmatch(text)) is not None:
        text = found[1] or found[2] or ""
    if "%" in text:
        return None
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed)


@lru_cache(maxsize=10_000)
def place(address: str) -> str:
    """An IPv6 address counts by its /64: whoever has one has all of them."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
