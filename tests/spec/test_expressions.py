"""Reading `${…}` and its bounds. What expressions mean is in cases/resolve/expressions*."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Ref, Secret, Template, encode
from gamma_orch.spec.codes import Code
from gamma_orch.spec.expressions import Evaluation, Expression, Form, Malformed, parse
from tests.spec.shown import DEV, DEV_FILE, run


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain $ {x} $x }", ("plain $ {x} $x }",)),
        ("${var.a}", (Expression(Form.VARIABLE, ("a",), None, 0),)),
        ("a${var.a-b.c_d.0}b", ("a", Expression(Form.VARIABLE, ("a-b", "c_d", "0"), None, 0), "b")),
        ("${ env.name }", (Expression(Form.ENVIRONMENT, (), None, 0),)),
        ("${secret.a.b}", (Expression(Form.SECRET, ("a.b",), None, 0),)),
        ("${Item/a.b.c}", (Expression(Form.OUTPUT, ("c",), Address("Item", "a.b"), 0),)),
        ("$${var.a}", ("${", "var.a}")),
        ("$$${var.a}", ("$", "${", "var.a}")),
        ("$${${var.a}", ("${", Expression(Form.VARIABLE, ("a",), None, 1))),
    ],
)
def test_parts(text: str, parts: tuple[object, ...]) -> None:
    assert parse(text) == parts


MALFORMED = [
    "var",
    "var.",
    "var..a",
    "var.1a",
    "var.a.",
    "secret.",
    "secret",
    "secret.-",
    "env",
    "env.x",
    "Item/a",
    "Item/.x",
    "item/a.b",
    "Item/A.b",
    "Item/a.b-c",
    "/",
    "x",
    "x.y",
    "${",
    "Var.a",
]


@pytest.mark.parametrize("body", [*MALFORMED, "", " ", "var.a b"])
def test_malformed(body: str) -> None:
    (part, *_) = parse("${" + body + "}")
    assert isinstance(part, Malformed)
    assert part.message[-1] == "."


def evaluate(tree: object, **variables: object) -> object:
    evaluation = Evaluation(
        lambda names: variables[names[0]], lambda name: Secret(name, "d"), lambda address, output: None, "dev"
    )
    faults: list[object] = []
    result = evaluation.document(tree, ("spec",), faults.append)
    assert not faults
    return result


def test_what_holds_no_expression_is_not_copied() -> None:
    tree = {"a": [1, {"b": "x"}], "c": "$ {"}
    assert evaluate(tree) is tree
    changed = evaluate({"same": tree, "new": "${var.n}"}, n=1)
    assert isinstance(changed, dict)
    assert changed["same"] is tree


def test_templates_are_flat() -> None:
    inner = Template(("x", Secret("s", "d"), "y"))
    assert evaluate("a${var.t}${var.n}${Item/a.url}$${", t=inner, n=1.5) == Template(
        ("ax", Secret("s", "d"), "y1.5", Ref(Address("Item", "a"), "url"), "${")
    )
    assert evaluate("${var.t}", t=inner) is inner


@given(st.text(alphabet="${}var.secnItem/ab ", max_size=60))
def test_any_text_is_parsed(text: str) -> None:
    parts = parse(text)
    literal = "".join(part for part in parts if isinstance(part, str))
    if all(isinstance(part, str) for part in parts):
        assert literal == text.replace("$${", "${")


GROWING = {
    "texts": "\n".join(f"    v{n}: ${{var.v{n + 1}}}${{var.v{n + 1}}}" for n in range(30)) + "\n    v30: x",
    "lists": "\n".join(f"    v{n}: ['${{var.v{n + 1}}}', '${{var.v{n + 1}}}']" for n in range(30))
    + "\n    v30: [x]",
    "maps": "\n".join(f"    v{n}: {{a: '${{var.v{n + 1}}}', b: '${{var.v{n + 1}}}'}}" for n in range(30))
    + "\n    v30: {}",
    "depth": "\n".join(f"    v{n}: {'[' * 5}'${{var.v{n + 1}}}'{']' * 5}" for n in range(30))
    + "\n    v30: []",
    "one document": "    v0: [" + ", ".join(["'${var.big}'"] * 9) + "]\n    big: " + "x" * 600_000,
}


@pytest.mark.parametrize("name", GROWING)
def test_growth_is_bounded(name: str) -> None:
    environment = DEV + b"spec:\n  variables:\n" + GROWING[name].encode()
    box = b"apiVersion: gamma/v1\nkind: Box\nmetadata: {name: a}\nspec: {anything: '${var.v0}'}\n"
    before = time.process_time()
    found, resolution = run({DEV_FILE: environment, "specs/a.yaml": box})
    assert time.process_time() - before < 2
    assert resolution.desired is None
    assert {d.code for d in found} == {Code.EXPANSION}


def test_a_long_chain_of_variables_is_an_error_and_no_crash() -> None:
    lines = "".join(f"    v{n}: ${{var.v{n + 1}}}\n" for n in range(20_000)) + "    v20000: 1\n"
    found, resolution = run({DEV_FILE: DEV + b"spec:\n  variables:\n" + lines.encode()})
    assert resolution.desired is None
    assert found[0].code == Code.VARIABLE_CYCLE
    assert "more than 32" in found[0].message


def test_encoded_leaves_are_json() -> None:
    assert encode(evaluate(["${secret.a}", "x${Item/b.c}"])) == [
        {"$secret": "a", "digest": "d"},
        {"$template": ["x", {"$ref": "Item/b.c"}]},
    ]
