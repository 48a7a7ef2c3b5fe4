"""The log and its projection. `append` is the only thing that ever writes either.

An append names the sequence number it expects the log to stand at and the token of its lease; both
are checked, and the log's head moved, by one UPDATE. The projection (`entries`) is written in the
same transaction from the same fold that `core.ledger` defines, so reading the present is one row a
resource and replaying the past (`past`) gives the same answer; `verify` compares the two.
"""

import json
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.event import Event, Type
from gamma_orch.core.ledger import Begun, Entry, Ledger, fold, step
from gamma_orch.core.record import Record
from gamma_orch.store.database import Database
from gamma_orch.store.errors import Conflict
from gamma_orch.store.lease import Lease, lost, rfc3339

_HEAD = "SELECT seq, state, token FROM environments WHERE environment = :environment"
_ENTRIES = "SELECT address, entry FROM entries WHERE environment = :environment"
_COLUMNS = "seq, at, type, address, plan, step, by, token, data"
_EVENTS = f"SELECT {_COLUMNS} FROM events WHERE environment = :environment AND seq > :after ORDER BY seq"
_LAST = f"""SELECT {_COLUMNS} FROM events WHERE environment = :environment AND type <> 'begun'
ORDER BY seq DESC LIMIT :limit"""
_OF = f"""SELECT {_COLUMNS} FROM events WHERE environment = :environment AND address = :address
ORDER BY seq DESC LIMIT :limit"""
_RELEASED = """SELECT data FROM events WHERE environment = :environment AND type = 'released'
ORDER BY seq DESC LIMIT 1"""
_PLANNED = f"""SELECT {_COLUMNS} FROM events WHERE environment = :environment AND type = 'planned'
ORDER BY seq DESC LIMIT 1"""
_DRIFTS = f"""SELECT {_COLUMNS} FROM events WHERE environment = :environment AND type = 'drifted'
AND at >= :since ORDER BY seq DESC"""
_MOVE = """UPDATE environments SET seq = :seq, state = :state
WHERE environment = :environment AND seq = :expected AND token = :token"""
_ADD = f"""INSERT INTO events (environment, {_COLUMNS})
VALUES (:environment, :seq, :at, :type, :address, :plan, :step, :by, :token, :data)"""
_PUT = """INSERT INTO entries (environment, address, entry) VALUES (:environment, :address, :entry)
ON CONFLICT (environment, address) DO UPDATE SET entry = excluded.entry"""


def present(database: Database, environment: str) -> tuple[Ledger, int]:
    """The ledger as it is, and the sequence number of the last event. Empty where there is none."""
    head = database.read(_HEAD, environment=environment)
    if not head:
        return Ledger(environment), 0
    rows = database.read(_ENTRIES, environment=environment)
    # One document for all rows: parsing 10,000 of them one by one costs three times as much.
    bodies = json.loads("[" + ",".join(row[1] for row in rows) + "]")
    entries = {
        Address(*row[0].split("/", 1)): decode_entry(body) for row, body in zip(rows, bodies, strict=True)
    }
    return Ledger(environment, head[0][1], entries), head[0][0]


def events(database: Database, environment: str, after: int = 0) -> list[Event]:
    """All events with a greater sequence number, in order."""
    return [_event(row) for row in database.read(_EVENTS, environment=environment, after=after)]


def latest(database: Database, environment: str, limit: int, address: Address | None = None) -> list[Event]:
    """The newest events, newest first: of one address in full, of all without the Begun ones."""
    if address is not None:
        rows = database.read(_OF, environment=environment, address=str(address), limit=limit)
    else:
        rows = database.read(_LAST, environment=environment, limit=limit)
    return [_event(row) for row in rows]


def released(database: Database, environment: str) -> str:
    """The commit of the last plan that was carried out whole; "" before the first."""
    rows = database.read(_RELEASED, environment=environment)
    return str(json.loads(rows[0][0]).get("commit", "")) if rows else ""


def last_planned(database: Database, environment: str) -> Event | None:
    """The newest Planned event."""
    rows = database.read(_PLANNED, environment=environment)
    return _event(rows[0]) if rows else None


def drifts(database: Database, environment: str, since: datetime) -> list[Event]:
    """The Drifted events from a moment on, newest first."""
    rows = database.read(_DRIFTS, environment=environment, since=rfc3339(since))
    return [_event(row) for row in rows]


def past(database: Database, environment: str, moment: datetime) -> Ledger:
    """The ledger as it was at a moment: the fold of the events up to it."""
    until = rfc3339(moment)
    return fold(Ledger(environment), [e for e in events(database, environment) if e.at <= until])


def verify(database: Database, environment: str) -> list[str]:
    """Where the projection is not the fold of the log; empty when all is well."""
    stored, last = present(database, environment)
    log = events(database, environment)
    wrong = []
    if [event.seq for event in log] != list(range(1, last + 1)):
        wrong.append(f"the log has gaps: it should count from 1 to {last}")
    folded = fold(Ledger(environment), log)
    if folded.state != stored.state:
        wrong.append(f"the state stands at {stored.state}, and the log says {folded.state}")
    addresses = sorted({*folded.entries, *stored.entries})
    differ = [a for a in addresses if folded.entries.get(a) != stored.entries.get(a)]
    return wrong + [f"{address}: the projection differs from the log" for address in differ]


class Log:
    """The environment's log, open for appending under a lease."""

    def __init__(self, database: Database, lease: Lease, by: str) -> None:
        self._database = database
        self._lease = lease
        self._by = by
        ledger, self.seq = present(database, lease.environment)
        self._state, self._entries = ledger.state, dict(ledger.entries)

    @property
    def ledger(self) -> Ledger:
        """The present, as of the last append. It moves on with the next: do not keep it."""
        return Ledger(self._lease.environment, self._state, self._entries)

    def append(self, batch: Sequence[Event], now: datetime) -> list[Event]:
        """Append all or none, durably; the events as stored, with seq, token, time and author.

        Raises LeaseLost if the token is not the newest any more, Conflict if the log has grown. Under
        a lease that several processes share the log may grow, but for these very addresses.
        """
        while True:
            try:
                return self._append(batch, rfc3339(now))
            except Conflict:
                if not self._lease.run:
                    raise
                self._catch_up(batch)

    def announce(self, plan: Event, now: datetime) -> Event:
        """Append the Planned event of a run, unless one of its processes has: then that one. Under a
        lease that several processes share. Raises LeaseLost."""
        while True:
            # Whatever is appended between this look and the append makes it a conflict, and is looked at.
            first = last_planned(self._database, self._lease.environment)
            if first and first.token == self._lease.token:
                return first
            try:
                return self._append([plan], rfc3339(now))[0]
            except Conflict:
                self._catch_up([plan])

    def _catch_up(self, batch: Sequence[Event]) -> None:
        """Take in what the others of this run have written. Raises Conflict if it is about the same."""
        ledger, seq = present(self._database, self._lease.environment)
        for address in {event.address for event in batch if event.address}:
            if ledger.entries.get(address) != self._entries.get(address):
                raise Conflict(f"Another worker of run {self._lease.run} has gone on with {address}.")
        self._state, self.seq, self._entries = ledger.state, seq, dict(ledger.entries)

    def _append(self, batch: Sequence[Event], at: str) -> list[Event]:
        state, seq = self._state, self.seq
        stored: list[Event] = []
        touched: dict[Address, Entry] = {}
        entries = ChainMap(touched, self._entries)
        for seq, given in enumerate(batch, start=self.seq + 1):
            event = replace(given, seq=seq, token=self._lease.token, at=at, by=given.by or self._by)
            stored.append(event)
            changed = step(entries, event)
            touched.update(changed)
            state = seq if changed else state
        self._write(stored, touched, seq, state)
        self._entries.update(touched)
        self._state, self.seq = state, seq
        return stored

    def _write(self, stored: Sequence[Event], touched: dict[Address, Entry], seq: int, state: int) -> None:
        environment, lease = self._lease.environment, self._lease
        with self._database.transaction() as writing:
            moved = writing.change(
                _MOVE, environment=environment, expected=self.seq, token=lease.token, seq=seq, state=state
            )
            if not moved:
                token = writing.rows(_HEAD, environment=environment)[0][2]
                if token != lease.token:
                    raise lost(writing, lease)
                raise Conflict(f"The log of {environment} has grown while this process was at work on it.")
            writing.insert(_ADD, [{"environment": environment, **_columns(event)} for event in stored])
            writing.insert(
                _PUT,
                [
                    {
                        "environment": environment,
                        "address": str(address),
                        "entry": canonical(encode_entry(entry)),
                    }
                    for address, entry in touched.items()
                ],
            )


def _columns(event: Event) -> dict[str, Any]:
    body = event.encoded()
    return {**body, "data": canonical(event.data)}


def _event(row: Sequence[Any]) -> Event:
    seq, at, kind, address, plan, step_key, by, token, data = row
    return Event(
        type=Type(kind),
        address=Address.parse(address) if address else None,
        plan=plan,
        step=step_key,
        data=json.loads(data),
        seq=seq,
        token=token,
        at=at,
        by=by,
    )


def encode_entry(entry: Entry) -> Json:
    """Only what is there, so that the common row is the record and two numbers."""
    body: dict[str, Json] = {"done": entry.done, "since": entry.since}
    if entry.record:
        body["record"] = entry.record.encoded()
    if entry.error:
        body["error"] = entry.error
    if entry.consent:
        body["consent"] = entry.consent
    if entry.begun:
        begun = entry.begun
        body["begun"] = {
            "key": begun.key,
            "plan": begun.plan,
            "opcode": begun.opcode,
            "seq": begun.seq,
            "attempt": begun.attempt,
            "planned": begun.planned,
            "before": begun.before,
            "record": begun.record,
            "movedFrom": str(begun.moved_from) if begun.moved_from else None,
        }
    return body


def decode_entry(body: Json) -> Entry:
    begun = None
    if "begun" in body:
        moved = body["begun"].pop("movedFrom")
        begun = Begun(**body["begun"], moved_from=Address.parse(moved) if moved else None)
    return Entry(
        record=Record.decoded(body["record"]) if "record" in body else None,
        done=body["done"],
        begun=begun,
        error=body.get("error", ""),
        consent=body.get("consent", ""),
        since=body["since"],
    )
