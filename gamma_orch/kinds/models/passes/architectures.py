"""What each architecture is, how it is exported, and for which tasks: the one table that the passes ask.

Proved are those listed here; an architecture beyond them is refused rather than exported unseen.
"""

from dataclasses import dataclass
from enum import StrEnum

from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes.folder import Card, Task


class Form(StrEnum):
    ENCODER = "encoder"
    DECODER = "decoder"
    ENCODER_DECODER = "encoder-decoder"


@dataclass(frozen=True, slots=True)
class Architecture:
    form: Form
    fused_as: str  # the model_type that ONNX Runtime's fusion knows it by; "" where it has none
    heads: str  # the configuration's name for the number of attention heads
    width: str  # and for the hidden size


ARCHITECTURES = {
    "bert": Architecture(Form.ENCODER, "bert", "num_attention_heads", "hidden_size"),
    "distilbert": Architecture(Form.ENCODER, "bert", "n_heads", "dim"),
    "roberta": Architecture(Form.ENCODER, "bert", "num_attention_heads", "hidden_size"),
    "gpt2": Architecture(Form.DECODER, "gpt2", "n_head", "n_embd"),
    "llama": Architecture(Form.DECODER, "", "num_attention_heads", "hidden_size"),
    "t5": Architecture(Form.ENCODER_DECODER, "", "num_heads", "d_model"),
    "bart": Architecture(Form.ENCODER_DECODER, "", "encoder_attention_heads", "d_model"),
}
TASKS: dict[Form, tuple[Task, ...]] = {
    Form.ENCODER: ("text-classification", "token-classification", "embeddings"),
    Form.DECODER: ("text-generation",),
    Form.ENCODER_DECODER: ("summarization",),
}
# optimum's names. With past keys: without them a generator reads its whole text again for each token.
EXPORTED_AS: dict[Task, str] = {
    "text-classification": "text-classification",
    "token-classification": "token-classification",
    "embeddings": "feature-extraction",
    "text-generation": "text-generation-with-past",
    "summarization": "text2text-generation-with-past",
}


def architecture(card: Card) -> Architecture:
    """Raises Permanent for one that is not proved, or not for the task."""
    found = ARCHITECTURES.get(card.architecture)
    if found is None:
        raise Permanent(
            f"A model of the architecture {card.architecture} cannot be exported: proved are "
            f"{', '.join(ARCHITECTURES)}. Use `optimize: {{level: none}}`, which runs it in PyTorch."
        )
    if card.task not in TASKS[found.form]:
        raise Permanent(
            f"{card.architecture} is {_a(found.form)}, and is not exported for {card.task}, only for "
            f"{', '.join(TASKS[found.form])}. Change the task, or take another model."
        )
    return found


def _a(form: Form) -> str:
    return f"a {form}" if form is Form.DECODER else f"an {form}"
