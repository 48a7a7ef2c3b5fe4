"""What the crash tests share: warm processes, and a server for ledgers."""

from tests.cli.gamma import gamma, server

__all__ = ["gamma", "server"]
