"""What the store refuses.

GammaError
└── StoreError         the ledger or the artifact store cannot be used as asked
    ├── LeaseHeld      somebody else is at work on this environment
    ├── LeaseLost      somebody else took over: nothing more may be appended (law 3)
    ├── Conflict       the log has grown since it was read
    ├── WrongSchema    the ledger was written by a newer Gamma
    └── Corrupt        the files of an artifact are not what was built (in `artifacts`)
"""

from gamma_orch.core.provider import GammaError


class StoreError(GammaError):
    """The ledger or the artifact store cannot be used as asked."""


class LeaseHeld(StoreError):
    """Somebody else is at work on this environment."""


class LeaseLost(StoreError):
    """The fencing token is no longer the newest: another process took over."""


class Conflict(StoreError):
    """The log has grown since it was read."""


class WrongSchema(StoreError):
    """The ledger's tables are of a newer Gamma than this one."""
