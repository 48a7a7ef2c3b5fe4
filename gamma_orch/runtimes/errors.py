"""What can go wrong when a model is opened or asked.

ModelError                 anything this package raises on purpose; its text is for people
├── ModelBroken            the folder is not a whole, safe model: do not retry, build or fetch it anew
└── WrongTask              the model is whole, and does something else than what it was asked for
"""


class ModelError(ValueError):
    """A model cannot do what it was asked for. The text says what is wrong, where, and what to do."""


class ModelBroken(ModelError):
    """The folder is no whole model: a file is missing, cut off, unreadable, or of a kind that is refused."""


class WrongTask(ModelError):
    """Embeddings of a classifier, text of an encoder, and the like."""
