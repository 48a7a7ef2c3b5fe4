"""Runs a model that lies in a folder: the one way in which models are loaded, for measuring and for serving.

The folder says what it holds in `gamma-model.json` (`runtimes.folder.Card`); `runtimes.load` opens it
with the runtime named there: PyTorch, ONNX Runtime or OpenVINO. Imports nothing of the rest of Gamma, so
that an API process needs neither the language nor the engine, and each runtime's library only when a
model asks for it.
"""
