"""Brings a data set's file as it is, so that what was read once can be read again.

The source is one of `sources`, or `{"rows": "..."}`: a JSON Lines file that the caller has put there (from
a PostgreSQL query). The bytes are not touched; `prepare_data` makes rows of them.

    params  {"source": ..., "root": "/the/project"}
    out     raw.csv, raw.jsonl, ... : one file, with the ending of the source's
    facts   {"file", "bytes", "sha256", "source", "licence", "where"}
"""

import shutil
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import licences, sources
from gamma_orch.kinds.models.passes.brought import Brought
from gamma_orch.kinds.models.passes.pickles import PICKLES, refusal
from gamma_orch.store.artifact_files import sha256_of

# Endings that tell the format; any other is kept as it is, and `format` must be given later.
KNOWN = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


def run(job: Job) -> Json:
    source = job.params.get("source") or {}
    brought = _rows(str(source["rows"])) if source.get("rows") else sources.bring(job, "dataset")
    name = _one(brought)
    path = brought.files[name]
    if not path.stat().st_size:
        raise Permanent(f"{brought.where} is empty: there is nothing to make rows of.")
    target = job.out / f"raw{Path(name).suffix.lower()}"
    job.tell(f"copying {name}", None)
    shutil.copyfile(path, target)
    return {
        "file": target.name,
        "bytes": target.stat().st_size,
        "sha256": sha256_of(target),
        "source": brought.where,
        **licences.facts(brought),
    }


def _rows(written: str) -> Brought:
    path = Path(written)
    if not path.is_file():
        raise Permanent(f"The rows of the query were to lie in {path}, and do not. Run the build again.")
    return Brought({"rows.jsonl": path}, "the rows of the query")


def _one(brought: Brought) -> str:
    """The data file among those brought; a README or a licence beside it is not meant."""
    names = list(brought.files)
    data = names if len(names) == 1 else [name for name in names if Path(name).suffix.lower() in KNOWN]
    if len(data) == 1:
        if any(Path(data[0]).match(pattern) for pattern in PICKLES):
            raise Permanent(refusal(brought.where, data))
        return data[0]
    listed = ", ".join(sorted(data or names)[:12])
    raise Permanent(
        f"{brought.where} has {len(data)} data files, and one is needed: name it in the source. "
        f"There are: {listed}"
    )
