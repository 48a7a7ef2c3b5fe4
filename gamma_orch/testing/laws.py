"""The laws that every provider keeps, as a suite that anybody who writes a kind can run.

    from gamma_orch.testing.laws import LAWS, Sample, Subject, check

    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    def test_law(law, tmp_path):
        check(law, Subject(traits=KIND.traits, open=..., samples=(Sample(...), ...), unreadable=...))

Give each law a `Subject` of its own, on a world in which none of the samples exists; the target
should be the real one, not an imitation. A law that does not hold raises `LawBroken`, which says
what was done and what came of it. Nothing here needs pytest.

The engine relies on each law: a provider that keeps them all can be resumed after a crash at any
point, planned again at any time, and shown to anybody.
"""

import asyncio
import contextlib
import copy
import io
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence

from gamma_orch.core.canonical import canonical
from gamma_orch.core.leaves import Secret, encode, leaves
from gamma_orch.core.observation import Absent, Seen, Unreadable
from gamma_orch.core.provider import Asked, Provider, ProviderError, Task
from gamma_orch.testing.subject import (
    LawBroken,
    Sample,
    Subject,
    deletion,
    life,
    live_fields,
    look,
    make,
    require,
    require_as_planned,
)

__all__ = ["LAWS", "Law", "LawBroken", "Sample", "Subject", "check"]

Law = Callable[[Subject], Awaitable[None]]


def check(law: Law, subject: Subject) -> None:
    """Hold one provider to one law. Raises LawBroken."""
    if len(subject.samples) < 2:
        raise ValueError("a subject needs two samples: one to break, one to look at meanwhile")

    async def held() -> None:
        await law(subject)

    asyncio.run(held())


async def normalising_is_pure_and_idempotent(subject: Subject) -> None:
    """The same spec gives the same fields, untouched by the call; fields normalise to themselves."""
    for sample in subject.samples:
        for spec in (sample.spec, sample.changed, sample.replaced):
            if spec is None:
                continue
            before = canonical(spec)
            first, second = subject.fields(sample, spec), subject.fields(sample, copy.deepcopy(spec))
            require(canonical(spec) == before, sample, "normalise changed the spec that it was given")
            require(canonical(first) == canonical(second), sample, "normalise gave two answers to one spec")
            if subject.spec_shaped:
                again = subject.fields(sample, dict(first))
                what = f"normalising twice is not normalising once: {first!r} became {again!r}"
                require(canonical(again) == canonical(first), sample, what)


async def a_read_after_apply_equals_the_plan(subject: Subject) -> None:
    """What was asked for is found, on everything that can be read: made, changed and replaced."""
    for sample in subject.samples:
        fields = subject.fields(sample, sample.spec)
        found = await look(subject, sample.address, fields, None)
        require(isinstance(found, Absent), sample, f"it is there before it was made: {found!r}")
        async for stage in life(subject, sample):
            async with subject.open() as provider:
                await provider.apply(stage.task)
            found = await look(subject, sample.address, stage.fields, stage.fields)
            require_as_planned(sample, f"after {stage.task.opcode}", stage.fields, found, stage.was)


async def applying_twice_is_once(subject: Subject) -> None:
    """The same task again, by the same process or by the next, changes nothing and is no error."""
    for sample in subject.samples:
        async for stage in life(subject, sample):
            async with subject.open() as provider:
                await provider.apply(stage.task)
                once = await look(subject, sample.address, stage.fields, None)
                effects = subject.effect_count()
                await _again(sample, provider.apply, stage.task)
            async with subject.open() as provider:
                await _again(sample, provider.apply, stage.task)
            twice = await look(subject, sample.address, stage.fields, None)
            opcode = stage.task.opcode
            require(once == twice, sample, f"{opcode} twice is not once: {once!r} became {twice!r}")
            require(subject.effect_count() == effects, sample, f"{opcode} a second time had an effect")


async def deleting_twice_is_once(subject: Subject) -> None:
    """After a delete it is absent; the same delete again is no error, nor one of what never was."""
    for sample in subject.samples:
        fields = subject.fields(sample, sample.spec)
        async with subject.open() as provider:
            await _again(
                sample, provider.delete, deletion(subject, sample, fields, None), "of what never was"
            )
        await make(subject, sample)
        live = live_fields(await look(subject, sample.address, fields, fields))
        task = deletion(subject, sample, fields, live)
        async with subject.open() as provider:
            await provider.delete(task)
            found = await look(subject, sample.address, fields, fields)
            require(isinstance(found, Absent), sample, f"it was deleted, and is {found!r}")
            effects = subject.effect_count()
            await _again(sample, provider.delete, task)
        found = await look(subject, sample.address, fields, fields)
        require(isinstance(found, Absent), sample, f"it was deleted twice, and is {found!r}")
        require(subject.effect_count() == effects, sample, "deleting a second time had an effect")


async def a_record_is_enough(subject: Subject) -> None:
    """What is no longer in the specs is found, and deleted, by what the ledger knew of it."""
    for sample in subject.samples:
        fields = await make(subject, sample)
        found = await look(subject, sample.address, None, fields)
        require_as_planned(sample, "looked for by its record", fields, found, {})
        async with subject.open() as provider:
            await provider.delete(deletion(subject, sample, fields, live_fields(found)))
        found = await look(subject, sample.address, None, fields)
        require(isinstance(found, Absent), sample, f"it was deleted by its record, and is {found!r}")


async def an_effect_without_a_record_is_found(subject: Subject) -> None:
    """A process killed between effect and record: the next one, knowing only the specs, sees it."""
    for sample in subject.samples:
        fields = await make(subject, sample)
        found = await look(subject, sample.address, fields, None)
        require_as_planned(sample, "made and not recorded", fields, found, {})


async def unreadable_is_not_absent(subject: Subject) -> None:
    """What cannot be read is Unreadable with a reason, and spoils no other; observing never raises."""
    broken, asked = subject.samples[0], []
    for sample in subject.samples:
        fields = encode(await make(subject, sample))
        asked.append(Asked(sample.address, fields, fields))
    with subject.unreadable(broken.address) as hidden:
        if broken.address not in hidden:
            raise ValueError(f"`unreadable` was to hide {broken.address}, and does not say that it did")
        async with subject.open() as provider:
            try:
                found = await provider.observe(asked)
            except Exception as error:
                raise LawBroken(f"{broken.address}: observe raised {error!r}") from error
    for sample in subject.samples:
        answer = found.get(sample.address)
        if sample.address in hidden:
            told = isinstance(answer, Unreadable) and answer.error.strip() != ""
            require(told, sample, f"it cannot be read, and the answer is {answer!r}")
        else:
            spared = isinstance(answer, Seen)
            require(spared, sample, f"while {broken.address} cannot be read, the answer is {answer!r}")


async def every_address_is_answered(subject: Subject) -> None:
    """One call for all: an answer for each address asked, there or not; none asked is no error."""
    first = subject.samples[0]
    await make(subject, first)
    asked = [Asked(s.address, encode(subject.fields(s, s.spec)), None) for s in subject.samples]
    async with subject.open() as provider:
        found = await provider.observe(asked)
        await provider.observe([])
    for sample in subject.samples:
        expected = Seen if sample is first else Absent
        answer = found.get(sample.address)
        require(
            isinstance(answer, expected), sample, f"it is {expected.__name__}, and the answer is {answer!r}"
        )


async def no_secret_is_shown(subject: Subject) -> None:
    """Nothing returned, raised, logged or printed holds a secret; errors are ProviderErrors."""
    used = {leaf.name for s in subject.samples for leaf in leaves(s.spec) if isinstance(leaf, Secret)}
    if missing := sorted(set(subject.secrets) - used):
        raise ValueError(f"no sample is made with {missing}: there is nothing that could be shown")
    with _listening() as heard:
        for sample in subject.samples:
            async for stage in life(subject, sample):
                asked = Asked(sample.address, encode(stage.fields), stage.was or None)
                with subject.unreadable(sample.address):
                    async with subject.open() as provider:
                        heard.write(await _failure(sample, provider, stage.task))
                        heard.write(repr(await provider.observe([asked])))
                async with subject.open() as provider:
                    await provider.apply(stage.task)
                heard.write(repr(await look(subject, sample.address, stage.fields, stage.fields)))
    shown = heard.getvalue()
    for name, secret in subject.secrets.items():
        before, found, _ = shown.partition(secret)
        require(not found, subject.samples[0], f"secret {name!r} is shown, right after: {before[-80:]!r}")


LAWS: Sequence[Law] = (
    normalising_is_pure_and_idempotent,
    a_read_after_apply_equals_the_plan,
    applying_twice_is_once,
    deleting_twice_is_once,
    a_record_is_enough,
    an_effect_without_a_record_is_found,
    unreadable_is_not_absent,
    every_address_is_answered,
    no_secret_is_shown,
)


async def _again(
    sample: Sample, act: Callable[[Task], Awaitable[None]], task: Task, what: str = "a second time"
) -> None:
    try:
        await act(task)
    except ProviderError as error:
        raise LawBroken(f"{sample.address}: {task.opcode} {what} is an error: {error}") from error


async def _failure(sample: Sample, provider: Provider, task: Task) -> str:
    """All that a person could read of a task that fails: its traceback, with every cause."""
    try:
        await provider.apply(task)
    except ProviderError as error:
        return "".join(traceback.format_exception(error))
    except Exception as error:
        what = f"{task.opcode} raised {type(error).__name__}, which is no ProviderError"
        raise LawBroken(f"{sample.address}: {what}") from error
    return ""


@contextlib.contextmanager
def _listening() -> Iterator[io.StringIO]:
    """Everything that is logged or printed meanwhile."""
    heard, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(heard), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
