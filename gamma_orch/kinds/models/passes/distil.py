"""Teach a smaller model to answer as its teacher does.

Inputs `model` (the student), `teacher` and `data`; output a PyTorch folder.

The loss is soft x (Kullback-Leibler divergence of the answers at `temperature`, times its square: Hinton et
al., 2015) + hard x (cross entropy with the labels) + hidden x (squared distance of the hidden states, as a
share of the teacher's own squares). For embeddings, soft weighs 1 - cosine of the vectors. Killed and
started again, it ends with the bytes of one that nobody disturbed, as `training` says.

Parameters: temperature (2), hard (0.3), soft (1 - hard), hidden (1), hiddenLayers: "last", or "all" (each
layer of the student learns from the one of the teacher at the same share of the depth), or pairs [[student,
teacher], ...] in which 0 is the embedding layer; hiddenTokens: "summary" (the first token and the mean: the
teacher is asked once of each text), "first", or "all" (asked at every step); hiddenUntil: the share of the
steps in which the weight of the hidden states falls to nothing; lora: {rank, alpha, dropout, targets} or
None for all weights; frozen: ends of the names of weights that stay as they are; steps instead of epochs;
windows, length, modelDropout (0), and those of `training.Course`. Facts: those of `training.train`, and the
teacher's own measures.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import batches, checkpoints, lora, objective, torch_folder, training
from gamma_orch.kinds.models.passes.batches import IGNORED, Encoding, Example
from gamma_orch.kinds.models.passes.checkpoints import Tensors
from gamma_orch.kinds.models.passes.training import Course
from gamma_orch.runtimes.folder import Card

_SHARD = 4096  # examples whose answers are kept in one file
_ROWS = 64
_TOKENS = ("summary", "first", "all")
_ONE_ANSWER = ("text-classification", "embeddings")  # few numbers a text: the teacher is asked once


@dataclass(frozen=True, slots=True)
class Weights:
    temperature: float
    soft: float
    hard: float
    hidden: float
    layers: Json
    tokens: str
    until: float | None  # share of the steps after which hidden weighs nothing; None: it stays

    @classmethod
    def of(cls, params: Json, task: str) -> "Weights":
        hard = 0.0 if task == "embeddings" else _or(params.get("hard"), 0.3)
        tokens = params.get("hiddenTokens") or ("summary" if task in _ONE_ANSWER else "all")
        if tokens not in _TOKENS:
            raise Permanent(f"`hiddenTokens` is {tokens!r}: {', '.join(_TOKENS)}.")
        return cls(
            temperature=_or(params.get("temperature"), 2.0),
            soft=_or(params.get("soft"), 1 - hard),
            hard=hard,
            hidden=_or(params.get("hidden"), 1.0),
            layers=params.get("hiddenLayers") or "last",
            tokens=tokens,
            until=params.get("hiddenUntil"),
        )


def run(job: Job) -> Json:
    """Raises Permanent where student and teacher do not answer the same question, and as `finetune` does."""
    folder, params = job.inputs["model"], dict(job.params)
    card, above = torch_folder.card(folder), torch_folder.card(job.inputs["teacher"])
    if (card.task, card.labels) != (above.task, above.labels):
        raise Permanent(
            f"The student is for {card.task} with the labels {list(card.labels)}, the teacher for "
            f"{above.task} with {list(above.labels)}. A student learns from a teacher of the same task and "
            "labels."
        )
    if params.get("steps") is not None:
        params |= {"maxSteps": params["steps"], "epochs": params.get("epochs") or float(params["steps"])}
    course = Course.of(params, card.task, epochs=4.0, learning_rate=2e-4)
    job.tell("reading the data", None)
    rows = batches.rows(job.inputs["data"], "train", card.task)
    held = batches.rows(job.inputs["data"], "validation", card.task)
    with training.settled(job.threads, course.seed):
        model, news = torch_folder.load_to_train(folder, card, course.precision)
        teacher = torch_folder.load(job.inputs["teacher"], above).requires_grad_(False)
        how = batches.encoding(folder, card, model, params)
        if len(how.tokenizer) != len(torch_folder.tokenizer(job.inputs["teacher"])):
            raise Permanent(
                "Student and teacher have different vocabularies. Distil before the vocabulary is trimmed."
            )
        batches.encoding(job.inputs["teacher"], above, teacher, params)  # can it see as much?
        train = batches.encode(rows, how)
        validation = batches.encode(held, replace(how, windows=0))
        torch_folder.set_dropout(model, _or(params.get("modelDropout"), 0.0))
        if params.get("lora"):
            model = lora.Lora.of(params["lora"]).attach(model, news, card.task)
        _freeze(model, params.get("frozen") or [])
        lesson = _Lesson(job, how, card, model, teacher, Weights.of(params, card.task), course, train)
        facts: Json = {}
        if card.task != "embeddings":
            facts["teacher"] = _measured(job, teacher, validation, how, course.precision)
        facts |= training.train(
            job,
            course,
            model,
            [len(example.tokens) for example in train],
            lesson.loss,
            lesson.measure(validation),
        )
        if params.get("lora"):
            model = model.merge_and_unload(safe_merge=True)
        torch_folder.write(model, card, folder, job.out)
    return {**facts, "rows": {"train": len(rows), "examples": len(train), "validation": len(validation)}}


def _measured(job: Job, teacher: Any, validation: Sequence[Example], how: Encoding, precision: str) -> Json:
    """The teacher's measures, kept in the work folder too."""
    path = job.work / "teacher" / "measures.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    hear = training.every(job.tell, lambda n: f"the teacher on the validation split: {n} rows")
    found = objective.measure(teacher, validation, how, precision, hear)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
    path.with_suffix(".part").replace(path)
    return found


class _Lesson:
    """What the student is to answer to a batch."""

    def __init__(
        self,
        job: Job,
        how: Encoding,
        card: Card,
        model: Any,
        teacher: Any,
        weights: Weights,
        course: Course,
        examples: Sequence[Example],
    ) -> None:
        self.job, self.how, self.card, self.course = job, how, card, course
        self.model, self.teacher, self.weights, self.examples = model, teacher, weights, examples
        self.pairs = _pairs(weights.layers, model.config, teacher.config) if weights.hidden else []
        self.known = self._answers("train", examples, self.pairs) if how.task in _ONE_ANSWER else None
        # What is kept of the teacher is enough, unless an answer or a state a token is wanted.
        self.asks = self.known is None or (bool(self.pairs) and weights.tokens == "all")

    def loss(self, index: np.ndarray, done: float) -> torch.Tensor:
        batch, rows = batches.collate([self.examples[i] for i in index], self.how), torch.from_numpy(index)
        theirs = None
        if self.asks:
            with torch.no_grad():
                theirs = objective.forward(self.teacher, batch, self.how, hidden=bool(self.pairs))
        ours = objective.forward(self.model, batch, self.how, hidden=bool(self.pairs))
        known = None if self.known is None else self.known["answers"][rows]
        total = self._answer_loss(ours, theirs, known, batch)
        w = self.weights
        weight = w.hidden if w.until is None else w.hidden * max(0.0, 1 - done / w.until)
        if self.pairs and weight:
            total = total + weight * self._hidden_loss(ours, theirs, rows, batch["attention_mask"])
        return total

    def _hidden_loss(self, ours: Any, theirs: Any, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs of |student - teacher|^2 / |teacher|^2."""
        total, tokens = torch.zeros(()), self.weights.tokens
        for n, (mine, its) in enumerate(self.pairs):
            a = _seen(_states(ours)[mine], mask, tokens)
            if theirs is not None:
                b = _seen(_states(theirs)[its], mask, tokens)
            else:
                assert self.known is not None
                b = self.known["states"][rows, n].float()
            total = total + (a - b).square().sum() / b.square().sum().clamp(min=1e-6)
        return total / len(self.pairs)

    def _answer_loss(
        self, ours: Any, theirs: Any, known: torch.Tensor | None, batch: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        w = self.weights
        if self.how.task == "embeddings":
            vectors = objective.pooled(ours.last_hidden_state, batch["attention_mask"], self.card.pooling)
            return w.soft * (1 - (vectors * known).sum(-1)).mean()
        logits, labels = objective.aligned(ours.logits, batch["labels"], self.how)
        if known is not None:
            return w.soft * _divergence(logits, known, w.temperature) + w.hard * objective.cross_entropy(
                logits, labels
            )
        wanted, _ = objective.aligned(theirs.logits, batch["labels"], self.how)
        real = labels != IGNORED
        return w.soft * _divergence(
            logits[real], wanted[real], w.temperature
        ) + w.hard * objective.cross_entropy(logits, labels)

    def measure(self, validation: Sequence[Example]) -> training.Measure:
        if self.how.task != "embeddings":
            return partial(objective.measure, self.model, validation, self.how, self.course.precision)
        wanted = self._answers("validation", validation, [])["answers"]

        def cosine(tell: Callable[[int], None]) -> dict[str, float]:
            return {
                "cosine": float(
                    (self._ask(self.model, validation, [], tell)["answers"] * wanted).sum(-1).mean()
                )
            }

        return cosine

    def _answers(self, split: str, examples: Sequence[Example], pairs: Sequence[tuple[int, int]]) -> Tensors:
        """The teacher's logits, or vectors, of all examples: `answers` [examples, width]; and of the pairs'
        layers, unless all tokens are compared, `states` [examples, pairs, 1 or 2, width]. Kept in the work
        folder.
        """
        folder, layers = self.job.work / "teacher", [its for _, its in pairs]
        if self.weights.tokens == "all":
            layers = []
        folder.mkdir(parents=True, exist_ok=True)
        parts: list[Tensors] = []
        for start in range(0, len(examples), _SHARD):
            path = folder / f"{split}-{start:09}.safetensors"
            said = {
                "examples": len(examples),
                "length": self.how.length,
                "layers": layers,
                "tokens": self.weights.tokens,
            }
            found = checkpoints.get(path)
            if found is None or found[0] != said:
                hear = training.every(self.job.tell, partial(_answered, start, len(examples)))
                found = said, self._ask(self.teacher, examples[start : start + _SHARD], layers, hear)
                checkpoints.put(path, *found)
            parts.append(found[1])
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _ask(
        self,
        model: Any,
        examples: Sequence[Example],
        layers: Sequence[int],
        tell: Callable[[int], None],
    ) -> Tensors:
        """What a model says to the examples, in their order; the states of `layers` in half precision."""
        answers, states, places, done = [], [], [], 0
        with torch.no_grad(), objective.autocast(self.course.precision):
            for index in batches.sorted_batches([len(example.tokens) for example in examples], _ROWS):
                batch = batches.collate([examples[i] for i in index], self.how)
                mask = batch["attention_mask"]
                outputs = objective.forward(model, batch, self.how, hidden=bool(layers))
                answers.append(
                    objective.pooled(outputs.last_hidden_state, mask, self.card.pooling)
                    if self.how.task == "embeddings"
                    else outputs.logits.float()
                )
                if layers:
                    seen = [_seen(_states(outputs)[layer], mask, self.weights.tokens) for layer in layers]
                    states.append(torch.stack(seen, 1).half())
                places.append(torch.from_numpy(index))
                done += len(index)
                tell(done)
        back = torch.argsort(torch.cat(places))
        made = {"answers": torch.cat(answers)[back]}
        return {**made, "states": torch.cat(states)[back]} if layers else made


def _answered(start: int, count: int, done: int) -> str:
    return f"the teacher answers: {start + done} of {count} texts"


def _divergence(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher, student) of [n, classes] logits, the mean over n, times temperature squared."""
    return (
        functional.kl_div(
            functional.log_softmax(ours / temperature, -1),
            functional.log_softmax(theirs.float() / temperature, -1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )


def _states(outputs: Any) -> Sequence[torch.Tensor]:
    """All hidden states, the embeddings first; of an encoder-decoder, the encoder's."""
    found = getattr(outputs, "hidden_states", None) or outputs.encoder_hidden_states
    return tuple(found)


def _seen(states: torch.Tensor, mask: torch.Tensor, tokens: str) -> torch.Tensor:
    """What is compared of hidden states [rows, tokens, width], in float32: the first token and the mean of
    all (summary), the first alone, or all that are no padding."""
    states, weight = states.float(), mask.unsqueeze(-1).float()
    match tokens:
        case "all":
            return states * weight
        case "first":
            return states[:, :1]
    mean = (states * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([states[:, :1], mean], 1)


def _pairs(said: Json, student: Any, teacher: Any) -> list[tuple[int, int]]:
    """Which hidden states of the student go with which of the teacher."""
    if student.hidden_size != teacher.hidden_size:
        raise Permanent(
            f"The student's hidden states have {student.hidden_size} numbers, the teacher's "
            f"{teacher.hidden_size}: they cannot be compared. Set `hidden` to 0."
        )
    few, many = student.num_hidden_layers, teacher.num_hidden_layers
    if said == "last":
        return [(few, many)]
    if said == "all":
        return [(i, round(i * many / few)) for i in range(1, few + 1)]
    if not isinstance(said, list) or any(not 0 <= a <= few or not 0 <= b <= many for a, b in said):
        raise Permanent(
            f"`hiddenLayers` is {said!r}: last, all, or pairs of a student's layer (0 to {few}) and a "
            f"teacher's (0 to {many})."
        )
    return [(a, b) for a, b in said]


def _freeze(model: Any, ends: Sequence[str]) -> None:
    for end in ends:
        found = [p for name, p in model.named_parameters() if f".{name}".endswith(f".{end}")]
        if not found:
            raise Permanent(f"`frozen` names {end!r}, and the model has no weights whose name ends so.")
        for p in found:
            p.requires_grad_(False)


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)
