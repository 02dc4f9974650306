"""How services are reached: addresses, limits of messages, TLS."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from alpagym.interop.alpasim.address import address_of

LOOPBACK = "127.0.0.1"
"""Where servers listen unless told otherwise: this machine alone reaches them."""
MAX_MESSAGE_MIB = 64
"""Largest message in either direction: AlpaSim's own bound for images."""
REQUESTS_AT_ONCE = 10_000
"""Calls under way at a server; more end with RESOURCE_EXHAUSTED."""
LONGEST_WAIT_S = 600
"""For a server to begin with a call."""
REDIALED_MS = 100
"""Pause before a channel dials anew who was not there [ms], shorter than those of who calls."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM format; empty for none. Without any of them channels are in the clear."""

    certificate: str = ""
    """Own certificate chain; a server's is required."""
    key: str = ""
    """Its private key."""
    authority: str = ""
    """Certificates of who signs the other side's. Of a server: then clients must show one."""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            given = "certificate" if self.certificate else "key"
            raise ValueError(f"tls: expected a certificate and its key, got only a {given}")

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authority, key and certificate, None where there is none.

        Raises:
            OSError: a file cannot be read.
        """
        names = (self.authority, self.key, self.certificate)
        authority, key, certificate = (Path(n).read_bytes() if n else None for n in names)
        return authority, key, certificate


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def safety_of(host: str, tls: Tls) -> str:
    """Who can reach a server at an address, for the line that it prints when it is ready."""
    if tls.certificate:
        return "TLS"
    return "no TLS" if is_loopback(host) else "no TLS, open to all who reach this address"


def limits(max_message_mib: int = MAX_MESSAGE_MIB) -> list[tuple[str, int]]:
    """Options of servers and channels: the largest message in both directions."""
    size = max_message_mib * 2**20
    return [("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)]


def make_server(
    *handlers: grpc.GenericRpcHandler, max_message_mib: int = MAX_MESSAGE_MIB
) -> grpc.aio.Server:
    """A server that has not begun; call `listen`, then `await server.start()`."""
    options = [
        *limits(max_message_mib),
        ("grpc.so_reuseport", 0),  # two servers must not share a port without knowing it
        # Calls that come all at once wait for their turn; by default those are cancelled that have
        # waited for 30 s, and of more than 1000 some are refused.
        ("grpc.server_max_unrequested_time_in_server", LONGEST_WAIT_S),
        ("grpc.server.max_pending_requests", REQUESTS_AT_ONCE),
        ("grpc.server.max_pending_requests_hard_limit", REQUESTS_AT_ONCE),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=REQUESTS_AT_ONCE)
    server.add_generic_rpc_handlers(handlers)
    return server


def listen(
    server: grpc.aio.Server, host: str = LOOPBACK, port: int = 0, tls: Tls | None = None
) -> int:
    """Bind a server and return its port; 0 takes a free one.

    Raises:
        ValueError: the address cannot be had.
        OSError: a file of `tls` cannot be read.
    """
    address = address_of(host, port)
    try:
        if tls is None or not tls.certificate:
            if tls is not None and tls.authority:
                raise ValueError("tls: a server needs a certificate and its key, got none")
            bound = server.add_insecure_port(address)
        else:
            authority, key, certificate = tls.read()
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], authority, require_client_auth=authority is not None
            )
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ValueError(f"{address}: expected an address to listen at: {error}") from error
    if not bound:
        raise ValueError(f"{address}: expected an address to listen at, could not bind to it")
    return int(bound)


def dial(
    address: str, tls: Tls | None = None, *, max_message_mib: int = MAX_MESSAGE_MIB
) -> grpc.aio.Channel:
    """A channel to `host:port`; nothing is sent before the first call."""
    options: list[tuple[str, Any]] = [
        *limits(max_message_mib),
        # By default whoever was not there is dialed again after 1 s or more, and calls until then
        # fail without a try.
        ("grpc.initial_reconnect_backoff_ms", REDIALED_MS),
        ("grpc.max_reconnect_backoff_ms", REDIALED_MS),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*tls.read()), options)
