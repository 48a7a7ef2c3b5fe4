"""A bundle made ready: everything that one request is answered by, swapped as a whole by the worker.

What two bundles have in common is taken over from the one before: loaded models, the connection to Valkey,
answers that are kept, counts of limits in process, failed logins. What is new is built before anything is
given up, so a bundle that cannot be taken changes nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gamma_orch.app import bundle as contract
from gamma_orch.app import tasks
from gamma_orch.app.address import Proxies
from gamma_orch.app.auth import Gatekeeper
from gamma_orch.app.bundle import Bundle
from gamma_orch.app.cache import Answers
from gamma_orch.app.columns import Columns
from gamma_orch.app.errors import Forbidden, NotFound
from gamma_orch.app.limits import Limiter, Who
from gamma_orch.app.login import Attempts, Login
from gamma_orch.app.records import Prediction, Record, Records
from gamma_orch.app.security import Sign
from gamma_orch.app.serving import NotServed, Served, Shelf
from gamma_orch.app.traces import Missing, Traces
from gamma_orch.app.valkey import Valkey

if TYPE_CHECKING:
    from gamma_orch.app.edge import Request
    from gamma_orch.app.metrics import Recorder


WRITES = ("text-generation", "summarization")


class Refused(Exception):
    """A bundle that cannot be taken. Its text has every fault and no secret."""


@dataclass(frozen=True, slots=True)
class Policy:
    bundle: Bundle
    gate: Gatekeeper
    login: Login | None
    attempts: Attempts
    limiter: Limiter
    answers: Answers
    valkey: Valkey | None
    records: Records | None
    models: Mapping[str, Served]
    proxies: Proxies
    traces: Traces | None

    def served(self, name: str) -> Served:
        """Raises NotFound."""
        found = self.models.get(name)
        if found is None:
            raise NotFound("There is no such model. GET /v1/models lists those that there are.")
        return found

    def permitted(self, request: "Request", name: str) -> Served:
        """The model that a request names in its body or path, if it is this principal's to ask.

        Raises Forbidden before NotFound: who may not ask does not learn what exists."""
        request.model = name
        if not request.principal.may("predict", name):
            problem = Forbidden("This needs the scope predict, or predict: with the name of the model.")
            raise problem.noted(Sign("forbidden", "scope"))
        return self.served(name)

    async def predict(self, request: "Request", body: bytes) -> tuple[str, bytes]:
        """The answer to a prediction, and the level of the cache that it is from. Raises Problem."""
        served = self.served(request.model)
        principal = request.principal
        # What decides whether there may be an answer already is known before the cache is asked: the adapter,
        # under whose digest its answers are, and whether a text is drawn.
        ahead = bool(served.model.adapters) or served.model.task in WRITES
        read = tasks.decoded(body, served.model) if ahead else None
        caller = principal.name if principal.kind != "anonymous" else ""
        digest = served.choose(caller, read.parameters.adapter if read else "")
        request.digest = digest

        async def make() -> bytes:
            asked = read or tasks.decoded(body, served.model)
            answer = await served.answer(asked, digest)
            request.tokens_in, request.tokens_out = answer.usage.input_tokens, answer.usage.output_tokens
            return tasks.encoded(answer)

        if not served.model.cached or _draws(read):
            return "", await make()
        tenant = principal.tenant if self.bundle.cache.tenants else ""
        # With the name, which the answer has in it: one artifact may have two.
        key = self.answers.key(digest, tenant, b"%b\0%b" % (served.name.encode(), body))
        answer = self.answers.near(key) or await self.answers.answer(key, make)
        if answer.negative:
            raise answer.refusal()
        return answer.level, answer.body

    def record(self, request: "Request", status: int, seconds: float) -> None:
        """A row of the request log, where the bundle wants one."""
        if self.records is None or request.route in ("health", "ready", "metrics", "page"):
            return
        principal = request.principal
        said = None
        if request.said is not None and self.bundle.log.predictions != "none":
            said = Prediction(*(part.decode("utf-8", "replace") for part in request.said))
        self.records.add(
            Record(
                request=request.id,
                service=self.bundle.service,
                route=request.route,
                model=request.model if request.model in self.models else "",
                digest=request.digest,
                principal=principal.name,
                tenant=principal.tenant,
                address=request.address,
                status=status,
                seconds=seconds,
                cache=request.cache,
                tokens_in=request.tokens_in,
                tokens_out=request.tokens_out,
            ),
            said,
        )

    async def spend(self, request: "Request") -> None:
        """Count the tokens of an answer, where limits count tokens."""
        principal = request.principal
        who = Who(principal.name, principal.tenant, request.address)
        await self.limiter.spend(request.route, request.model, who, request.tokens_in + request.tokens_out)

    @property
    def counts_tokens(self) -> bool:
        return any(limit.counts == "tokens" for limit in self.bundle.limits)

    def versions(self) -> dict[str, list[str]]:
        return {
            name: [version.digest for version in model.versions] for name, model in self.bundle.models.items()
        }

    async def aclose(self, after: "Policy | None") -> None:
        """Let go of what the policy after this one has not taken over."""
        if self.records is not None and (after is None or after.records is not self.records):
            await self.records.aclose()
        if after is None or after.answers is not self.answers:
            await self.answers.aclose()
        if self.traces is not None and (after is None or after.traces is not self.traces):
            await asyncio.to_thread(self.traces.close)
        if self.valkey is not None and (after is None or after.valkey is not self.valkey):
            await self.valkey.aclose()


def _draws(asked: tasks.Request | None) -> bool:
    """Whether the answer is drawn: another one each time is what was asked for."""
    return isinstance(asked, tasks.WriteRequest) and asked.parameters.sampling.temperature > 0


async def compiled(
    bundle: Bundle,
    secrets: Mapping[str, str],
    before: Policy | None,
    shelf: Shelf,
    recorder: "Recorder",
    tell: Callable[[str], Any],
) -> Policy:
    """Raises Refused with every fault; then nothing has changed."""
    faults = _secret_faults(bundle, secrets)
    gate = login = columns = proxies = None
    attempts = before.attempts if before else Attempts()
    try:
        gate = Gatekeeper(bundle.auth, secrets, service=bundle.service)
        if bundle.auth.users:
            login = Login(bundle.service, bundle.auth, secrets, attempts=attempts)
        if "columns" in bundle.secrets:
            columns = Columns(secrets["columns"])
        proxies = Proxies(bundle.process.trusted)
    except ValueError as error:
        faults.append(str(error))
    traces = before.traces if before else None
    if bundle.traces != (before.bundle.traces if before else contract.Traces()):
        traces = None
        try:
            traces = Traces(bundle.traces, bundle.service) if bundle.traces.endpoint else None
        except Missing as error:
            faults.append(str(error))
    models: dict[str, Served] = {}
    try:
        models = await shelf.prepare(bundle, tell)
    except NotServed as error:
        faults += error.faults
    if faults or gate is None or proxies is None:
        await shelf.release(before.bundle if before else None, 0.0)  # what was loaded for this one
        raise Refused("\n".join(faults))
    valkey = await _valkey(bundle, secrets, before)
    same_valkey = before is not None and before.valkey is valkey
    if before is not None and same_valkey and before.bundle.cache == bundle.cache:
        answers = before.answers
    else:
        answers = Answers(bundle.cache, valkey, bundle.service)
    if before is not None and same_valkey and before.bundle.limits == bundle.limits:
        limiter = before.limiter
    else:
        limiter = Limiter(bundle.limits, valkey, f"l:{bundle.service}:")
    records = _records(bundle, secrets, before, columns, recorder)
    return Policy(bundle, gate, login, attempts, limiter, answers, valkey, records, models, proxies, traces)


def _secret_faults(bundle: Bundle, secrets: Mapping[str, str]) -> list[str]:
    return [f"The secret {name} is not there." for name in bundle.secrets if name not in secrets]


async def _valkey(bundle: Bundle, secrets: Mapping[str, str], before: Policy | None) -> Valkey | None:
    if "cache" not in bundle.secrets:
        return None
    if (
        before is not None
        and before.valkey is not None
        and before.bundle.secrets.get("cache") == bundle.secrets["cache"]
    ):
        return before.valkey
    made = Valkey(secrets["cache"])
    await made.start()
    return made


def _records(
    bundle: Bundle,
    secrets: Mapping[str, str],
    before: Policy | None,
    columns: Columns | None,
    recorder: "Recorder",
) -> Records | None:
    log = bundle.log
    if not log.requests and log.predictions == "none":
        return None
    if before is not None and before.records is not None and before.bundle.log == log:
        used = ("database", "columns")
        if all(before.bundle.secrets.get(name) == bundle.secrets.get(name) for name in used):
            return before.records
    seal = columns.seal if columns else None
    return Records(log, secrets["database"], seal, schema=log.tables, dropped=recorder.dropped)
