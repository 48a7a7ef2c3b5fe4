"""What went wrong with a PostgreSQL server, as Temporary or Permanent, in sentences.

No text contains a password, a parameter or the user part of a URL. Called by `targets.postgres`.
"""

import socket
import traceback

from gamma_orch.core.provider import Permanent, ProviderError, Temporary


class MissingDatabase(Permanent):
    """The server answers, and has no database of that name."""


def translated(error: BaseException, where: str, database: str) -> ProviderError | None:
    """The error for people, or None where it comes from neither the server nor the network.

    `where` starts the sentence: which server, at which address.
    """
    if isinstance(error, ProviderError):
        return None
    return _of_connecting(error, where, database) or _of_speaking(error, where)


def _of_connecting(error: BaseException, where: str, database: str) -> ProviderError | None:
    """What keeps a connection from being made and needs a person."""
    import ssl

    import asyncpg

    match error:
        case asyncpg.InvalidCatalogNameError():
            return MissingDatabase(f"{where} has no database {database!r}.")
        case asyncpg.InvalidPasswordError():
            return Permanent(f"{where} does not accept the password. Check the secret in the target's `url`.")
        case asyncpg.InvalidAuthorizationSpecificationError():
            return Permanent(
                f"{where} does not let this user in: {said(error)}. "
                "Check the target's `url` and the server's pg_hba.conf."
            )
        case socket.gaierror() if error.errno != socket.EAI_AGAIN:
            return Permanent(f"{where} has a host name that nobody knows. Check the target's `url`.")
        case ssl.SSLError():
            return Permanent(f"{where} cannot be spoken to securely: {error}. Check `sslmode` in its `url`.")
        case asyncpg.ClientConfigurationError():
            return Permanent(f"{where} has a `url` that is none of PostgreSQL's. Check it in the target.")
    return None


def _of_speaking(error: BaseException, where: str) -> ProviderError | None:
    """What the server or the network said."""
    import asyncpg

    match error:
        case asyncpg.LockNotAvailableError() | asyncpg.QueryCanceledError():
            return Temporary(f"On {where} somebody else holds a lock that is needed: {said(error)}.")
        case asyncpg.DeadlockDetectedError() | asyncpg.SerializationError() | asyncpg.ObjectInUseError():
            return Temporary(f"On {where} somebody else is at the same objects: {said(error)}.")
        case asyncpg.TooManyConnectionsError():
            return Temporary(f"{where} has no connection left. Close some, or raise its max_connections.")
        case (
            asyncpg.CannotConnectNowError()
            | asyncpg.PostgresConnectionError()
            | asyncpg.OperatorInterventionError()
            | asyncpg.InterfaceError()
            | asyncpg.InternalClientError()  # its protocol, where a restart cuts an answer in two
            | OSError()
            | TimeoutError()
        ):
            return Temporary(f"{where} cannot be reached: {said(error)}. Check that it runs, and the target.")
        case AttributeError() if error.obj is None and _raised_in("asyncpg", error):
            # It lets a lost connection go while others are still in the middle of using it.
            return Temporary(f"{where} cannot be reached: the connection was lost. Check that it runs.")
        case asyncpg.InsufficientPrivilegeError():
            return Permanent(f"{where} refuses: {said(error)}. The target's user lacks that right.")
        case asyncpg.PostgresError():
            return Permanent(f"{where} refuses: {said(error)}.")
    return None


def _raised_in(package: str, error: BaseException) -> bool:
    last = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        last = frame
    return last is not None and str(last.f_globals.get("__name__")).partition(".")[0] == package


def said(error: BaseException) -> str:
    """The server's own words, with detail and hint, but without the contents of a whole row."""
    message = str(error.args[0]) if error.args and hasattr(error, "sqlstate") else str(error)
    more = [text for text in (getattr(error, "detail", None), getattr(error, "hint", None)) if text]
    parts = [message.strip() or type(error).__name__]
    parts += [text for text in more if not text.startswith("Failing row contains")]
    return "; ".join(part.strip().rstrip(".") for part in parts)
