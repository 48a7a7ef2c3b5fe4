"""Hypothesis strategies for the core's values."""

from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Ref, Secret, Template, Unknown

# Texts that can be written down: half a surrogate pair cannot.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = texts.filter(lambda key: not key.startswith("$"))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)


def trees(leaf=scalars):
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


addresses = st.builds(Address, st.sampled_from(["Thing", "Model"]), st.sampled_from(list("abcd")))
refs = st.builds(Ref, addresses, st.sampled_from(["id", "url"]))
open_leaves = refs | st.builds(Secret, texts, texts) | st.builds(Unknown, texts)
templates = st.builds(
    lambda before, leaf, after: Template((*before, leaf, *after)),
    st.lists(texts | open_leaves, max_size=2),
    open_leaves,
    st.lists(texts, min_size=1, max_size=1),
)
specs = trees(scalars | open_leaves | templates)
