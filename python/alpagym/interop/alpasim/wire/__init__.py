"""AlpaSim's contract on the wire: its messages, its services, and how they are served and dialed.

The modules in here need the extra `alpasim` (grpcio, protobuf): import them in functions, after
`require`.
"""

from __future__ import annotations


def require() -> None:
    """Look whether the extra `alpasim` is installed.

    Raises:
        ValueError: it is not; one sentence that says how to install it.
    """
    try:
        import grpc.aio
        from google.protobuf.message_factory import GetMessageClass  # since 4.22

        assert grpc.aio
        assert GetMessageClass
    except ImportError as error:
        raise ValueError(
            f"AlpaSim's services need grpcio and protobuf ({error}): pip install alpagym[alpasim]"
        ) from error
