"""The loop that trains: AdamW, a schedule, measuring, an early stop, and going on after a kill.

Called by `finetune` and `distil`, which say what the loss of a batch is. A training is a function of its
course, its rows and the number of threads: killed at any moment and started again, it ends with the very
bytes of one that nobody disturbed. For that, everything that a step depends on is either in a checkpoint
(weights, AdamW's moments, the state of the random generator) or follows from the number of the step (the
learning rate, the batches). This is also why the loop is not transformers.Trainer's, whose checkpoints are
pickles and are written piece by piece.
"""

import contextlib
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
import transformers

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import batches, checkpoints, objective
from gamma_orch.kinds.models.passes.checkpoints import Checkpoints

CHECKPOINT_SECONDS = 60.0  # between two, unless the validation split is looked at sooner
_POINTS = 200  # of the loss curve
_TELL_SECONDS = 0.5
_SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant_with_warmup",
}  # transformers' names
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's, by weight

# Of the examples with these indices, and how far the training is: from 0 to 1.
Loss = Callable[[np.ndarray, float], torch.Tensor]
Measure = Callable[[Callable[[int], None]], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Course:
    """How it is trained. The field names are the parameters of the passes in Python's spelling."""

    epochs: float = 2.0
    max_steps: int | None = None
    batch: int = 32
    accumulate: int = 1  # batches whose gradients make one step
    learning_rate: float = 5e-4
    schedule: str = "linear"
    warmup: float = 0.06  # share of the steps
    weight_decay: float = 0.01
    clip: float = 1.0  # the greatest norm of all gradients together
    seed: int = 0
    precision: str = "float32"
    every: int | None = None  # steps between looks at the validation split; None: once an epoch
    patience: int | None = None  # looks without a better one, after which it ends
    metric: str = ""

    @classmethod
    def of(cls, params: Json, task: str, **defaults: Any) -> Self:
        """Raises Permanent for what no training can be done with."""
        early = params.get("earlyStop") or {}
        said = {
            "epochs": params.get("epochs"),
            "max_steps": params.get("maxSteps"),
            "batch": params.get("batch"),
            "accumulate": params.get("gradientAccumulation"),
            "learning_rate": params.get("learningRate"),
            "schedule": params.get("schedule"),
            "warmup": params.get("warmup"),
            "weight_decay": params.get("weightDecay"),
            "clip": params.get("clip"),
            "seed": params.get("seed"),
            "precision": params.get("precision"),
            "every": params.get("evaluateEvery"),
            "patience": early.get("patience", 3 if early else None),
            "metric": early.get("metric") or objective.MEASURES[task][0],
        }
        course = cls(**{**defaults, **{name: value for name, value in said.items() if value is not None}})
        if course.metric not in objective.MEASURES[task]:
            raise Permanent(
                f"earlyStop looks at {course.metric!r}, which {task} does not have; it has: "
                f"{', '.join(objective.MEASURES[task])}."
            )
        if course.schedule not in _SCHEDULES:
            raise Permanent(f"There is no schedule {course.schedule!r}: {', '.join(_SCHEDULES)}.")
        if course.precision not in ("float32", "bfloat16"):
            raise Permanent(f"There is no precision {course.precision!r} to train in: float32 or bfloat16.")
        return course


@dataclass(slots=True)
class _Progress:
    """What a checkpoint keeps beside the tensors."""

    step: int = 0
    total_loss: float = 0.0  # of the steps since the last point of the curve
    points: int = 0
    curve: list[list[float]] = field(default_factory=list)
    looks: list[list[float]] = field(default_factory=list)
    best: list[float] | None = None  # step, value
    worse: int = 0
    stopped: bool = False
    seconds: float = 0.0


@contextlib.contextmanager
def settled(threads: int, seed: int) -> Iterator[None]:
    """Every source of chance set, and left as it was found afterwards."""
    had, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(max(1, threads))
    torch.use_deterministic_algorithms(True)
    filling, torch.utils.deterministic.fill_uninitialized_memory = (
        torch.utils.deterministic.fill_uninitialized_memory,
        False,
    )
    transformers.set_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(had)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = filling
        torch.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(numpy)


def train(
    job: Job, course: Course, model: Any, lengths: Sequence[int], loss: Loss, measure: Measure | None
) -> Json:
    """Train the parameters of `model` that want a gradient; `lengths` are those of the examples.

    With `patience` the model ends as it was at its best look at the validation split, otherwise as the last
    step left it. Answers the facts: loss, validation, best, steps, seconds, stoppedEarly, trainable, of.
    Raises Permanent where the loss is no number any more.
    """
    return _Training(job, course, model, lengths, loss, measure).run()


class _Training:
    def __init__(
        self,
        job: Job,
        course: Course,
        model: Any,
        lengths: Sequence[int],
        loss: Loss,
        measure: Measure | None,
    ) -> None:
        self.job, self.course, self.model, self.lengths = job, course, model, lengths
        self.loss, self.measure = loss, measure
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.weights.values() if p.ndim > 1]},
                # A bias or a scale that decays is only held back.
                {"params": [p for p in self.weights.values() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=course.learning_rate,
            weight_decay=course.weight_decay,
            fused=True,  # 16 ms a step for the 23 million weights of MiniLM, and 100 ms otherwise
        )
        count = math.ceil(len(lengths) / course.batch)
        self.per_epoch = math.ceil(count / course.accumulate)
        steps = max(1, math.ceil(course.epochs * self.per_epoch - 1e-9))
        self.total = min(steps, course.max_steps or steps)
        schedule = transformers.get_scheduler(
            _SCHEDULES[course.schedule], self.optimizer, math.ceil(course.warmup * self.total), self.total
        )
        self.factor = schedule.lr_lambdas[0]
        self.checkpoints = Checkpoints(
            job.work / "checkpoints", {**asdict(course), "rows": len(lengths), "total": self.total}
        )
        self.progress = _Progress()
        self.epoch, self.batches = -1, [np.zeros(0)]
        self.told = 0.0

    def run(self) -> Json:
        self._resume()
        self.began, self.first = time.monotonic(), self.progress.step
        self.before, saved = self.progress.seconds, time.monotonic()
        every = self.course.every or self.per_epoch
        while self.progress.step < self.total and not self.progress.stopped:
            self._step()
            look = self.progress.step % every == 0 or self.progress.step == self.total
            if look and self.measure is not None:
                self._look()
            if look or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        if self.course.patience is not None and self.progress.best is not None:
            self._restore_best()
        self.model.eval()
        return self._facts()

    def _step(self) -> None:
        epoch, place = divmod(self.progress.step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.batches = batches.order(self.lengths, self.course.batch, self.course.seed, epoch)
        group = self.batches[place * self.course.accumulate : (place + 1) * self.course.accumulate]
        rate = self.course.learning_rate * self.factor(self.progress.step)
        for part in self.optimizer.param_groups:
            part["lr"] = rate
        self.model.train()
        value = 0.0
        for index in group:
            with objective.autocast(self.course.precision):
                loss = self.loss(index, self.progress.step / self.total) / len(group)
            value += loss.item()
            self._sound(value, rate)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.course.clip)
        self._sound(norm.item(), rate, "norm of its gradient")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self._note(value)

    def _sound(self, value: float, rate: float, what: str = "loss") -> None:
        if not math.isfinite(value):
            raise Permanent(
                f"The {what} became {value} at step {self.progress.step + 1} of {self.total}, with a "
                f"learning rate of {rate:.2g}. Try learningRate {self.course.learning_rate / 10:.0e}, a "
                "longer warmup, or precision float32; if it is so from the first step, the weights "
                "themselves hold no numbers."
            )

    def _note(self, value: float) -> None:
        now = self.progress
        now.total_loss += value
        now.points += 1
        if now.step % math.ceil(self.total / _POINTS) == 0 or now.step == self.total:
            now.curve.append([now.step, round(now.total_loss / now.points, 6)])
            now.total_loss, now.points = 0.0, 0
        moment = time.monotonic()
        now.seconds = self.before + moment - self.began
        if moment - self.told >= _TELL_SECONDS or now.step == self.total:
            self.told = moment
            left = (moment - self.began) / (now.step - self.first) * (self.total - now.step)
            self.job.tell(
                f"epoch {self.epoch + 1} of {math.ceil(self.total / self.per_epoch)}, step {now.step} of "
                f"{self.total}, loss {value:.3g}, {duration(left)} left",
                now.step / self.total,
            )

    def _look(self) -> None:
        """Measure on the validation split, and remember what is the best so far."""
        assert self.measure is not None
        now, metric = self.progress, self.course.metric
        self.model.eval()
        value = self.measure(
            every(
                self.job.tell,
                lambda n: f"step {now.step} of {self.total}, validation: {n} rows",
                now.step / self.total,
            )
        )[metric]
        now.looks.append([now.step, value])
        sign = -1 if metric in objective.FALLING else 1
        if now.best is None or sign * value > sign * now.best[1]:
            now.best, now.worse = [now.step, value], 0
            if self.course.patience is not None:
                checkpoints.put(self._best_path(), {}, self.weights)
        else:
            now.worse += 1
            now.stopped = self.course.patience is not None and now.worse >= self.course.patience

    def _best_path(self) -> Any:
        assert self.progress.best is not None
        return self.checkpoints.folder / f"best-{int(self.progress.best[0]):09}.safetensors"

    def _save(self) -> None:
        tensors = {f"weight/{name}": p for name, p in self.weights.items()}
        for name, p in self.weights.items():
            # A weight that no loss has reached has none.
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[p].items()}
        self.checkpoints.save(
            self.progress.step, asdict(self.progress), {**tensors, "random": torch.get_rng_state()}
        )
        if self.course.patience is not None and self.progress.best is not None:
            # The checkpoint before this one may name the best before this one: one more is kept.
            for old in sorted(self.checkpoints.folder.glob("best-*.safetensors"))[:-2]:
                old.unlink()

    def _resume(self) -> None:
        found = self.checkpoints.newest()
        if found is None:
            return
        state, tensors = found
        self.progress = _Progress(**state)
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(tensors[f"weight/{name}"])
                if f"step/{name}" in tensors:
                    self.optimizer.state[p] = {key: tensors[f"{key}/{name}"].clone() for key in _MOMENTS}
        torch.set_rng_state(tensors["random"])
        self.job.tell(
            f"going on from the checkpoint of step {self.progress.step} of {self.total}",
            self.progress.step / self.total,
        )

    def _restore_best(self) -> None:
        found = checkpoints.get(self._best_path())
        if found is None:
            raise Permanent(
                f"The weights of the best step are damaged ({self._best_path()}). Remove the folder "
                f"{self.checkpoints.folder} and build again."
            )
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(found[1][name])

    def _facts(self) -> Json:
        now = self.progress
        return {
            "loss": now.curve,
            "metric": self.course.metric,
            "validation": now.looks,
            "best": {"step": int(now.best[0]), "value": now.best[1]} if now.best else None,
            "steps": now.step,
            "seconds": round(now.seconds, 1),
            "stoppedEarly": now.stopped,
            "trainable": sum(p.numel() for p in self.weights.values()),
            "of": sum(p.numel() for p in self.model.parameters()),
        }


def every(tell: Tell, text: Callable[[int], str], fraction: float | None = None) -> Callable[[int], None]:
    """Tell how many rows are done, twice a second at most."""
    told = 0.0

    def hear(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL_SECONDS:
            told = time.monotonic()
            tell(text(done), fraction)

    return hear


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
