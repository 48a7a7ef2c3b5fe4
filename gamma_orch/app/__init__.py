"""The running system: the HTTP API that serves the models, as its bundle says.

A worker (`worker`) is one process. It loads a *bundle* (`bundle`), the whole policy as one immutable value,
and answers requests by it until it is given another. In here is no policy and no knowledge of specs, ledger
or reconciler: the Service kind writes bundles, and asks each worker through its control socket (`control`)
which one it runs.

The way of a request: `wire` reads it; `edge` (a plain ASGI callable, ahead of everything else) finds who
asks (`auth`), whether they may and how often (`limits`), answers a prediction from a cache (`cache`) or from
a model (`serving`, `batching`), and leaves every other path to the FastAPI application (`api`).
"""
