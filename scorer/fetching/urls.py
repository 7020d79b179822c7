"""Parse image URLs and classify addresses, refusing what the fetcher must not open. Nothing here connects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final
from urllib.parse import quote, urlsplit

from scorer.errors import FailureCode, RowError

Address = IPv4Address | IPv6Address

MAX_URL: Final = 8192
"""The most characters of a URL; signed URLs of object stores take about 2,000."""
PORTS: Final = {"http": 80, "https": 443}
UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
AUTHORITY: Final = re.compile(r"([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")
# At least two labels, the last starting with a letter. So no form of an IPv4 address (decimal, octal, hexadecimal,
# shortened) counts as a name, and neither does a name with a trailing dot.
NAME: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
_SAFE: Final = "%:@!$&'()*+,;=~"
"""Characters of a path or query that stay unchanged; anything that is not ASCII is percent-encoded."""

_NOT_PUBLIC_V4: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # looks public, but is Azure's internal service for its virtual machines
    )
)
# Everything outside 2000::/3 is refused: loopback, local, IPv4-mapped and -compatible addresses, NAT64, multicast.
_GLOBAL_V6: Final = ip_network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    ip_network(text)
    for text in (
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )  # Teredo etc., examples, 6to4, examples
)


@dataclass(frozen=True, slots=True)
class Url:
    """The checked parts of a URL, from which alone a request is built.

    Attributes:
        host: a DNS name in lower case, never an address.
        target: path and query, percent-encoded ASCII.
    """

    scheme: str
    host: str
    port: int
    target: str


def parse_url(text: str) -> Url:
    """Parse and check a URL.

    Raises:
        RowError: ``image_url_refused`` if the scheme is not http or https, there is a user name, the host is an address
            in any notation or not a DNS name, or programs disagree about how to read a character.
    """
    if not isinstance(text, str) or len(text) > MAX_URL:
        raise refused(text, f"it is not a string of at most {MAX_URL} characters")
    if UNSAFE.search(text):
        raise refused(text, "it holds a space, a control character or a backslash; percent-encode them")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise refused(text, str(error)) from error
    if parts.scheme not in PORTS:
        raise refused(text, f"its scheme is {parts.scheme!r}; only http and https are fetched")
    authority = AUTHORITY.fullmatch(parts.netloc)
    if authority is None:
        user, at, host = parts.netloc.rpartition("@")
        shown = f"…@{host}" if at else parts.netloc  # a password may stand there
        raise refused(
            text.replace(f"{user}@", "…@") if at else text,
            f"its authority is {shown!r}; a DNS name and an optional port are needed",
        )
    host = authority[1].lower()
    if len(host) > 253 or not NAME.fullmatch(host):
        raise refused(text, f"its host is {host!r}, which is not a full DNS name; addresses are not allowed")
    port = int(authority[2] or PORTS[parts.scheme])
    if not 0 < port < 2**16:
        raise refused(text, f"its port is {port}; a port is 1 to 65535")
    query = f"?{quote(parts.query, safe=_SAFE + '/?')}" if parts.query else ""
    return Url(parts.scheme, host, port, (quote(parts.path, safe=_SAFE + "/") or "/") + query)


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet, per IANA's registries of special-purpose addresses."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def short(text: object) -> str:
    """Return a URL as messages name it: quoted and cut, since it is data and may be long."""
    return f"image {str(text)[:200]!r}"


def refused(text: object, reason: str) -> RowError:
    """Return the error for a URL that a rule forbids."""
    return RowError(FailureCode.IMAGE_URL_REFUSED, f"{short(text)} is not fetched: {reason}")
