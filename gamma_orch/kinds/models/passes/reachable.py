"""Which tokens no text can ever come to, whatever it says: their embeddings are weight that is never read.

BERT's vocabularies have a thousand of them: `[unused7]`, which is cut at its brackets before it is looked
up, and `##山`, where the character always stands alone and so never continues a word. Only what follows from
the tokenizer's own rules counts, so the answer holds for every text, not for those of some data; what no rule
here speaks of is reachable.
"""

from typing import Any


def unreachable(tokenizer: Any, body: Any) -> set[int]:
    """The ids of such tokens. `body`: the tokenizer.json of `tokenizer`.

    Known for WordPiece behind BERT's normalizer and cutter alone: both look at one character at a time, so
    that how a piece is cut does not hang on what is around it.
    """
    kinds = [(body.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        return set()
    prefix = body["model"]["continuing_subword_prefix"]
    # Added tokens are found before the text is cut, wherever they stand.
    added = {token["id"] for token in body.get("added_tokens") or []}

    def is_cut(word: str) -> bool:
        """Whether the word is never looked up whole: changed, or cut."""
        normal = tokenizer.normalizer.normalize_str(word)
        return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)] != [word]

    return {
        number
        for token, number in body["model"]["vocab"].items()
        if number not in added
        # A token that continues a word has letters before it: any will do.
        and is_cut("a" + token.removeprefix(prefix) if token.startswith(prefix) else token)
    }
