"""What a prediction is asked with and answered with, for each task: the JSON of it, and its limits.

Called by `edge` and `api` (`decoded`, `encoded`, `components` for OpenAPI) and by `loaded`, which makes the
outputs from what a model says. What always holds: a field that nobody knows is refused; what is wrong is said
with the place where it is, and never with what was sent.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import mul
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gamma_orch.app.bundle import Model, Task
from gamma_orch.app.errors import Malformed, TooLarge, Unprocessable
from gamma_orch.runtimes.generator import Finish
from gamma_orch.runtimes.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np

NEW_TOKENS = 64  # where the request does not say how many
GREEDY_BELOW = 0.01  # a temperature that leaves the likeliest token alone, and logits divided by it finite
FAULTS = 16  # that one answer lists, at most
DIGITS = 6  # of a score or of a number in a vector
ALIKE = 0.99  # the cosine from which two vectors agree

# --- requests -------------------------------------------------------------------------------------


Adapter = Annotated[str, Meta(description="Which adapter of the model answers. Default: the model itself.")]


class ReadParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """How to read the texts."""

    adapter: Adapter = ""


class WriteParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """How to write. Without a temperature, always the likeliest token; the same seed, the same text."""

    max_new_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    adapter: Adapter = ""

    @property
    def sampling(self) -> Sampling:
        warm = self.temperature >= GREEDY_BELOW
        return Sampling(self.temperature if warm else 0.0, self.top_p, self.seed)


class ReadRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One text, or several, each of which gets an output of its own."""

    inputs: str | list[str]
    parameters: ReadParameters = ReadParameters()

    @property
    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class WriteRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """One text to go on from or to sum up, or several, each of which gets an output of its own."""

    inputs: str | list[str]
    parameters: WriteParameters = WriteParameters()

    @property
    def texts(self) -> list[str]:
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


Request = ReadRequest | WriteRequest

# --- answers --------------------------------------------------------------------------------------


class Usage(Struct, frozen=True):
    """Tokens that the model read, and that it wrote."""

    input_tokens: int
    output_tokens: int = 0


class Classified(Struct, frozen=True):
    """The likeliest label, and the probability of each."""

    label: str
    score: float
    scores: dict[str, float]


class Entity(Struct, frozen=True):
    """A part of the text. `start` and `end` count characters (Unicode code points) from 0, the end after the
    last."""

    start: int
    end: int
    text: str
    label: str
    score: float


class Written(Struct, frozen=True):
    """`finish_reason`: `stop` at the end that the model has found, `length` at the limit."""

    text: str
    finish_reason: Finish
    tokens: int


Output = Classified | list[Entity] | list[float] | Written


class ClassificationAnswer(Struct, frozen=True):
    model: str
    digest: str
    outputs: list[Classified]
    usage: Usage


class EntitiesAnswer(Struct, frozen=True):
    model: str
    digest: str
    outputs: list[list[Entity]]
    usage: Usage


class EmbeddingsAnswer(Struct, frozen=True):
    model: str
    digest: str
    outputs: list[list[float]]
    usage: Usage


class TextAnswer(Struct, frozen=True):
    model: str
    digest: str
    outputs: list[Written]
    usage: Usage


Answer = ClassificationAnswer | EntitiesAnswer | EmbeddingsAnswer | TextAnswer

REQUESTS: Mapping[Task, type[Request]] = {
    "text-classification": ReadRequest,
    "token-classification": ReadRequest,
    "embeddings": ReadRequest,
    "text-generation": WriteRequest,
    "summarization": WriteRequest,
}
ANSWERS: Mapping[Task, type[Any]] = {
    "text-classification": ClassificationAnswer,
    "token-classification": EntitiesAnswer,
    "embeddings": EmbeddingsAnswer,
    "text-generation": TextAnswer,
    "summarization": TextAnswer,
}
_DECODERS: Mapping[type[Request], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (ReadRequest, WriteRequest)
}
_encoder = msgspec.json.Encoder()
encoded = _encoder.encode


def components(template: str = "#/components/schemas/{name}") -> dict[str, Any]:
    """The JSON schemas of all requests and answers by name, for OpenAPI."""
    kinds = dict.fromkeys([*REQUESTS.values(), *ANSWERS.values()])
    return msgspec.json.schema_components(kinds, ref_template=template)[1]


# --- reading a request ----------------------------------------------------------------------------


def decoded(body: bytes, model: Model) -> Request:
    """Raises Malformed, TooLarge or Unprocessable, with each place that is wrong."""
    try:
        request: Request = _DECODERS[REQUESTS[model.task]].decode(body)
    except msgspec.ValidationError as error:
        raise Malformed("The body is not what this route takes.", faults=[_fault(str(error))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("The body is not JSON in UTF-8.") from None
    check(request, model)
    return request


def check(request: Request, model: Model) -> None:
    """Raises TooLarge or Unprocessable where a request is beyond what the bundle allows."""
    texts, most = request.texts, min(model.texts, model.queue)
    if not texts:
        raise Unprocessable("There is no text to answer.", faults=[_at("/inputs", "It is empty.")])
    if len(texts) > most:
        says = f"It has {len(texts)} texts, and at most {most} are taken at once."
        raise TooLarge("There are too many texts. Send several requests.", faults=[_at("/inputs", says)])
    if faults := list(islice(_long(request, model.characters), FAULTS)):
        raise TooLarge("A text is too long. Send a part of it, or several.", faults=faults)
    if isinstance(request, WriteRequest) and (request.parameters.max_new_tokens or 0) > model.new_tokens:
        says = f"At most {model.new_tokens} tokens are written."
        raise Unprocessable(
            "More is asked for than is written.", faults=[_at("/parameters/max_new_tokens", says)]
        )


def _long(request: Request, most: int) -> Iterator[Mapping[str, object]]:
    for number, text in enumerate(request.texts):
        if len(text) > most:
            at = "/inputs" if isinstance(request.inputs, str) else f"/inputs/{number}"
            yield _at(at, f"It has {len(text)} characters, and at most {most} are taken.")


def _at(pointer: str, says: str) -> Mapping[str, object]:
    return {"at": pointer, "says": says}


def _fault(said: str) -> Mapping[str, object]:
    """What msgspec said, with a JSON pointer, and without the name of a field that it does not know: that is
    a part of what was sent."""
    what, _, path = said.partition(" - at ")
    pointer = "".join(f"/{part}" for part in re.findall(r"[^`$.\[\]]+", path))
    if what.startswith("Object contains unknown field"):
        what = "It has a field that is not known here"
    return _at(pointer, f"{what.replace('`', '')}.")


# --- making outputs -------------------------------------------------------------------------------


def probabilities(logits: "np.ndarray") -> "np.ndarray":
    """Over the last axis, float64."""
    import numpy as np

    wide: np.ndarray = logits.astype(np.float64)
    likely: np.ndarray = np.exp(wide - wide.max(axis=-1, keepdims=True))
    likely /= likely.sum(axis=-1, keepdims=True)
    return likely


def classified(likely: Sequence[float], labels: Sequence[str]) -> Classified:
    scores = {label: round(score, DIGITS) for label, score in zip(labels, likely, strict=True)}
    label = max(scores, key=scores.__getitem__)
    return Classified(label, scores[label], scores)


def vector(numbers: "np.ndarray") -> list[float]:
    import numpy as np

    rounded: list[float] = np.round(numbers.astype(np.float64), DIGITS).tolist()
    return rounded


# A word runs from blank to blank, without the punctuation at its ends, as data sets of entities have it; an
# ideograph is one.
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"[^\W{_IDEOGRAPHS}]"
_WORD = re.compile(rf"{_LETTER}(?:[^\s{_IDEOGRAPHS}]*{_LETTER})?|\S")


def entities(
    text: str, spans: Sequence[tuple[int, int]], likely: "np.ndarray", labels: Sequence[str]
) -> list[Entity]:
    """From the probabilities of each token's labels [tokens, labels]. A word has the label of its first
    token, as in training and in evaluation; words go together as their prefixes say (IOB, IOE, BIOES), and
    labels without prefixes are one entity a word."""
    prefixed = all(label == "O" or label[:2] in ("B-", "I-", "E-", "S-") for label in labels)
    found: list[Entity] = []
    scores: list[float] = []  # of the words of the last entity, while it is open
    for start, end, number, score in _words(text, spans, likely):
        prefix, name = _parted(labels[number], prefixed)
        if name == "":
            scores = []
            continue
        if scores and prefix in "IE" and name == found[-1].label:
            start = found.pop().start  # noqa: PLW2901 - the word goes on with what is open
        else:
            scores = []
        scores.append(score)
        mean = round(sum(scores) / len(scores), DIGITS)
        found.append(Entity(start, end, text[start:end], name, mean))
        if prefix in "ES":
            scores = []
    return found


def _parted(label: str, prefixed: bool) -> tuple[str, str]:
    if label == "O":
        return "", ""
    return (label[0], label[2:]) if prefixed else ("S", label)


def _words(
    text: str, spans: Sequence[tuple[int, int]], likely: "np.ndarray"
) -> Iterator[tuple[int, int, int, float]]:
    """Start and end of each word, and the label of its first token with its probability; none for words that
    no token begins in, for they were cut off."""
    best = likely.argmax(axis=-1)
    words = _WORD.finditer(text)
    word = next(words, None)
    for token, (start, end) in enumerate(spans):
        while start < end and text[start].isspace():
            start += 1  # noqa: PLW2901 - the blank before a word belongs to its token, and to no word
        if start == end:
            continue
        while word is not None and word.end() <= start:
            word = next(words, None)
        if word is None:
            return
        if word.start() <= start:
            yield word.start(), word.end(), int(best[token]), float(likely[token, best[token]])
            word = next(words, None)


def agree(one: Output, other: Output) -> bool:
    """Whether two versions of a model said the same: labels, entities and texts as they are, vectors by
    their cosine."""
    if isinstance(one, list) and isinstance(other, list):
        return _alike(one, other)
    if isinstance(one, Classified) and isinstance(other, Classified):
        return one.label == other.label
    return isinstance(one, Written) and isinstance(other, Written) and one.text == other.text


def _alike(one: Sequence[Any], other: Sequence[Any]) -> bool:
    if len(one) != len(other):
        return False
    if not one or isinstance(one[0], Entity):
        return [(e.start, e.end, e.label) for e in one] == [(e.start, e.end, e.label) for e in other]
    dot: float = sum(map(mul, one, other))
    return dot >= ALIKE * math.hypot(*one) * math.hypot(*other)
