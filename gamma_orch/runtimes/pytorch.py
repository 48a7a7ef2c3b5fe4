"""PyTorch through transformers, in eager mode: what every other runtime is compared with.

Used by the passes and by evaluation; a server uses it for adapters only. The models are those of
transformers, and only the loop around them is ours, so that all runtimes are asked the same.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator, State
from gamma_orch.runtimes.text import Marks, Text

if TYPE_CHECKING:
    import numpy as np

CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "embeddings": "AutoModel",
    "text-generation": "AutoModelForCausalLM",
    "summarization": "AutoModelForSeq2SeqLM",
}
Precision = Literal["float32", "bfloat16"]


def opened(folder: Path, card: Card, threads: int, precision: Precision = "float32") -> Encoder | Generator:
    import torch

    torch.set_num_threads(threads)  # of the process: PyTorch knows no narrower setting
    module = _module(folder, card, getattr(torch, precision))
    text, marks = Text(folder, card), Marks.read(folder)
    match card.task:
        case "text-generation":
            return TorchDecoder(card, text, marks, module)
        case "summarization":
            return TorchEncoderDecoder(card, text, marks, module)
        case _:
            return TorchEncoder(card, text, marks, module)


class TorchEncoder(Encoder):
    def __init__(self, card: Card, text: Text, marks: Marks, module: Any) -> None:
        super().__init__(card, text, marks)
        self.module = module
        self._output = "last_hidden_state" if card.task == "embeddings" else "logits"

    def run_ids(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "np.ndarray":
        import torch

        with torch.inference_mode():
            answer = self.module(
                input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask)
            )
            return _numpy(getattr(answer, self._output))


class TorchDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, module: Any) -> None:
        super().__init__(card, text, marks)
        self.module = module

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        state = State(attention_mask, None)
        return self._run(state, input_ids), state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        import numpy as np

        state.mask = np.concatenate([state.mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        return self._run(state, tokens[:, None])[:, -1]

    def _run(self, state: State, ids: "np.ndarray") -> "np.ndarray":
        import numpy as np
        import torch

        places = np.maximum(state.mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            answer = self.module(
                input_ids=torch.from_numpy(ids),
                attention_mask=torch.from_numpy(state.mask),
                position_ids=torch.from_numpy(places.copy()),
                past_key_values=state.memory,
                use_cache=True,
            )
        state.memory = answer.past_key_values
        return _numpy(answer.logits)


class TorchEncoderDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, module: Any) -> None:
        super().__init__(card, text, marks)
        self._start = marks.begin
        self.module = module

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        import numpy as np
        import torch

        with torch.inference_mode():
            source = self.module.get_encoder()(
                input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(attention_mask)
            )
        state = State(attention_mask, (source, None))
        tokens: np.ndarray = np.full(len(input_ids), self._start, dtype=np.int64)
        return self.advance(state, tokens)[:, None], state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        import torch

        source, past = state.memory
        with torch.inference_mode():
            answer = self.module(
                encoder_outputs=source,
                attention_mask=torch.from_numpy(state.mask),
                decoder_input_ids=torch.from_numpy(tokens[:, None].copy()),
                past_key_values=past,
                use_cache=True,
            )
        state.memory = (source, answer.past_key_values)
        return _numpy(answer.logits[:, -1])


def _module(folder: Path, card: Card, kind: Any) -> Any:
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        module, news = getattr(transformers, CLASSES[card.task]).from_pretrained(
            folder, dtype=kind, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelBroken(
            f"{folder} cannot be loaded for {card.task} as {card.architecture}: {lines[0].rstrip('.')[:300]}"
            ". Does config.json belong to the weights? Build or fetch the model anew."
        ) from error
    finally:
        transformers.logging.set_verbosity(before)
    if missing := sorted(news["missing_keys"]):
        raise ModelBroken(
            f"{folder} has no weights for {missing[0]} and {len(missing) - 1} others, so they would be "
            f"random. Is the model made for {card.task}?"
        )
    return module.eval()


def _numpy(tensor: Any) -> "np.ndarray":
    array: np.ndarray = tensor.float().numpy()
    return array
