"""What one pass is given, and what it may do: the contract between the builder and the passes.

A pass is a module of `gamma_orch.kinds.models.passes` with a function `run(job) -> facts`. It runs in
a worker process of its own (`worker.py`), reads the folders of `inputs`, and fills `out`; what lies
there when it returns becomes an artifact. Always:

- A pass is a function of its parameters and inputs: the same ones give the same bytes, as far as the
  tools allow. Where they do not, the pass's docstring says which bytes differ, and why.
- `inputs` are verified and never written to. `out` begins empty. `work` outlives a kill: the next build
  of the same key finds there what this one left (checkpoints, downloads), and must not trust half a file.
- What is wrong with the input or the parameters is raised as `Permanent`, what may pass (a network, a
  full disk) as `Temporary`; each text says what, where, why, and what to do.
- Facts (accuracies, counts, seconds, losses) are JSON. They are kept beside the artifact and are no part
  of its digest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Tell


@dataclass(frozen=True, slots=True)
class Job:
    params: Json
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    threads: int
    tell: Tell


Pass = Callable[[Job], Json]
