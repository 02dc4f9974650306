"""Addresses of services, as options name them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

SCHEMES = ("grpc", "grpcs")
"""In the clear, and by TLS."""


def address_of(host: str, port: int) -> str:
    """`host:port`, with brackets around a host of IPv6."""
    return f"[{host}]:{port}" if ":" in host.strip("[]") and host[0] != "[" else f"{host}:{port}"


@dataclass(frozen=True)
class Address:
    """Where a driver is."""

    host: str
    port: int
    encrypted: bool = False

    @property
    def target(self) -> str:
        """`host:port`."""
        return address_of(self.host, self.port)

    def __str__(self) -> str:
        return f"{SCHEMES[self.encrypted]}://{self.target}"


def is_address(text: str) -> bool:
    """Whether an option means an address, a good one or not."""
    return "://" in text


def parse_address(option: str, text: str) -> Address:
    """`grpc://host:port` or `grpcs://host:port`.

    Raises:
        ValueError: something else; the message names the option.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    rest = host and (parts.path or parts.query or parts.fragment or parts.username)
    if host is None or not port or rest or parts.scheme not in SCHEMES:
        raise ValueError(f"{option}: expected grpc://host:port or grpcs://host:port, got {text}")
    return Address(host, port, parts.scheme == "grpcs")
