"""Runs a model that lies in a folder: the one way in which models are loaded, for measuring and for serving.

The folder says what it holds in `gamma-model.json` (`runtimes.folder.Card`); `runtimes.load` opens it
with the runtime named there: PyTorch, ONNX Runtime or OpenVINO. Imports nothing of the rest of Gamma, so
that an API process needs neither the language nor the engine, and each runtime's library only when a
model asks for it.
"""

from gamma_orch.runtimes.encoder import Encoder, Tokens
from gamma_orch.runtimes.errors import ModelBroken, ModelError, WrongTask
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator
from gamma_orch.runtimes.loading import Model, load, load_encoder, load_generator
from gamma_orch.runtimes.sampling import Sampling

__all__ = [
    "Card",
    "Encoder",
    "Generator",
    "Model",
    "ModelBroken",
    "ModelError",
    "Sampling",
    "Tokens",
    "WrongTask",
    "load",
    "load_encoder",
    "load_generator",
]
