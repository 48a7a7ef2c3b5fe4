"""The names of all series that a worker exposes, for whoever writes rules on them before anything runs.

`metrics` makes them; a test holds the two together.
"""

_HISTOGRAMS = (
    "gamma_request_seconds",
    "gamma_batch_texts",
    "gamma_queue_wait_seconds",
    "gamma_loop_lag_seconds",
)
_COUNTERS = (
    "gamma_requests",
    "gamma_answers",
    "gamma_tokens",
    "gamma_shadow_answers",
    "gamma_refused",
    "gamma_log_rows_dropped",
    "gamma_security_events",
)
_GAUGES = (
    "gamma_bundle_info",
    "gamma_requests_in_flight",
    "gamma_live_clients",
    "gamma_queue_texts",
    "gamma_valkey_up",
)
SERIES = frozenset(
    (
        *(f"{name}_{part}" for name in _HISTOGRAMS for part in ("bucket", "sum", "count")),
        *(f"{name}_total" for name in _COUNTERS),
        *_GAUGES,
    )
)
