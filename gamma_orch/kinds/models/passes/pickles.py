"""Files whose loading can run code, and what is said of them."""

from collections.abc import Iterable

PICKLES = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib"]


def refusal(where: str, names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return (
        f"{where[:1].upper()}{where[1:]} has {listed}: a pickle, which can run code when it is loaded, "
        "and is never read here. "
        "Convert it to safetensors where you trust it (transformers: `model.save_pretrained(folder)`), "
        "or name a revision that has model.safetensors."
    )
