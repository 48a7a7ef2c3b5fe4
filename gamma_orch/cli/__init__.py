"""The command line: one file a command, over the engine's verbs.

`main` is the only entry. Whatever goes wrong on purpose (a GammaError) ends as whole sentences on
standard error and an exit code of `cli.contract`; nothing a user can type or break ends in a
traceback. Commands import what they need when they run, so that `gamma --help` costs nothing.
"""

import gc
import sys

from gamma_orch.cli.contract import Exit


def main() -> None:
    # One command builds one large tree of values, keeps it, and exits: collecting it again and again
    # while it grows finds nothing (a third of the time of a plan of 10,000 resources).
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
    from gamma_orch.cli.app import app
    from gamma_orch.core.provider import GammaError

    try:
        app()
    except GammaError as error:
        from gamma_orch.cli.report import failure

        sys.exit(failure(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left: `gamma plan | head`
        sys.stderr.close()
        sys.exit(Exit.OK)
