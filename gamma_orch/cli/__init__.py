"""The command line: one file a command, over the engine's verbs.

`main` is the only entry. Whatever goes wrong on purpose (a GammaError) ends as whole sentences on
standard error and an exit code of `cli.contract`; nothing a user can type or break ends in a
traceback. Commands import what they need when they run, so that `gamma --help` costs nothing.
"""

import gc
import sys
from typing import Any, cast

from gamma_orch.cli.contract import Exit


def main() -> None:
    # One command builds one large tree of values, keeps it, and exits: collecting it again and again
    # while it grows finds nothing (a third of the time of a plan of 10,000 resources).
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    from typer import Abort
    from typer.exceptions import TyperException

    from gamma_orch.cli.app import app
    from gamma_orch.core.provider import GammaError

    try:
        # Not standalone: there a mistyped option would exit with 2, which says that changes are pending.
        sys.exit(app(prog_name="gamma", standalone_mode=False))
    except GammaError as error:
        from gamma_orch.cli.report import failure

        sys.exit(failure(error))
    except TyperException as error:
        cast(Any, error).show()
        sys.exit(Exit.ERROR)
    except Abort:
        sys.stderr.write("\nNothing was done.\n")
        sys.exit(Exit.ERROR)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"gamma: {place}{error.strerror or error}.\n")
        sys.exit(Exit.ERROR)
