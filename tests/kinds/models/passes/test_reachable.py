"""What `reachable` calls out of reach is in no text's tokens; what it does not, some text comes to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from gamma_orch.kinds.models.passes.reachable import unreachable

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEVER = {"[unused1]", "...", "n't", "Film", "é", "##é", "##山", "##山a", "##.", "a b", "##_", "##B", "山川"}
EVER = {"film", "##ing", "山", ".", "_", "[", "a", "##a", "жук", "##жук", "ß", "##ß", "œ", "ɐ", "##1"}
SPECIAL = {"[UNK]", "[CLS]", "[MASK]"}


def tokenizer(**normalizer):
    continuing = {"##" + letter for letter in LETTERS}
    words = sorted(SPECIAL) + sorted((NEVER | EVER | continuing | set(LETTERS)) - SPECIAL)
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(**normalizer)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(sorted(SPECIAL))
    return made


def names(made):
    numbers = unreachable(made, json.loads(made.to_str()))
    return {made.id_to_token(number) for number in numbers}


UNCASED = tokenizer()
OUT = unreachable(UNCASED, json.loads(UNCASED.to_str()))
FRAGMENTS = st.sampled_from(sorted(word.removeprefix("##") for word in NEVER | EVER | SPECIAL))


def test_which_they_are():
    assert names(UNCASED) == NEVER


def test_a_cased_vocabulary_keeps_its_capitals():
    assert names(tokenizer(lowercase=False, strip_accents=False)) == NEVER - {"Film", "##B", "é", "##é"}


@given(st.lists(FRAGMENTS | st.text(max_size=4)).map("".join))
def test_no_text_comes_to_one(text):
    assert OUT.isdisjoint(UNCASED.encode(text).ids)


@pytest.mark.parametrize("word", sorted(EVER))
def test_some_text_comes_to_each_of_the_others(word):
    text = "q" + word[2:] if word.startswith("##") else word
    assert UNCASED.token_to_id(word) in UNCASED.encode(text).ids


def test_normalizing_twice_is_normalizing_once():
    """What the rule rests on: what a character comes to is left alone when it comes again."""
    normal = UNCASED.normalizer.normalize_str
    for point in range(0x110000):
        if not 0xD800 <= point < 0xE000:
            once = normal(chr(point))
            assert normal(once).split() == once.split(), f"U+{point:04X}"


def test_a_tokenizer_with_rules_of_its_own_loses_nothing():
    other = tokenizer()
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert names(other) == set()
    bytes_ = Tokenizer(models.BPE({"a": 0, "[unused1]": 1}, []))
    assert unreachable(bytes_, json.loads(bytes_.to_str())) == set()
