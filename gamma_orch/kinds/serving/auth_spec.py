"""Who may ask a Service, as its spec says it. What is wrong only together is said here too, so that no bundle
is made that `app.auth` would refuse."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from gamma_orch.app.bundle import Algorithm
from gamma_orch.core.leaves import Unknown, leaves
from gamma_orch.kinds.serving.bounds import ApiName, Scope, SomeTime, secret
from gamma_orch.spec.written_out import WrittenOut

ANONYMOUS = "anonymous"
PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # what no public JWK has


class Holder(WrittenOut):
    """Who has roles."""

    roles: list[str] = Field(default_factory=list)
    """What it may do, by role."""
    tenant: str = ""
    """Whose answers and limits it shares."""


class Key(Holder):
    REFERS: ClassVar[frozenset[str]] = frozenset({"secret"})

    secret: Any
    """The key, as ${secret.name}. Only its sha256 comes to the API."""

    _is_secret = field_validator("secret")(secret)


class User(Holder):
    REFERS: ClassVar[frozenset[str]] = frozenset({"password"})

    password: Any
    """The password, as ${secret.name}. Only its argon2 hash comes to the API."""

    _is_secret = field_validator("password")(secret)


def _public(jwk: dict[str, Any]) -> dict[str, Any]:
    if not PRIVATE.isdisjoint(jwk):
        raise ValueError("this key is private or a secret: write its public half, and replace it")
    if any(not isinstance(leaf, Unknown) for leaf in leaves(jwk)):
        raise ValueError("a public key is written out here; a ${...} cannot stand in it")
    if not isinstance(jwk.get("kid"), str) or not jwk["kid"]:
        raise ValueError("a key needs a `kid`, by which tokens name it")
    return jwk


class Issuer(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"secret"})

    issuer: str = Field(min_length=1, pattern="^[^#]*$")
    """The claim iss of its tokens."""
    audience: str = Field(min_length=1)
    """The claim aud that they must have."""
    algorithms: list[Algorithm] = Field(min_length=1)
    """What they may be signed with: HS256 with `secret`; RS256, ES256, EdDSA with `keys`."""
    secret: Any = None
    """The secret of HS256, at least 32 bytes, as ${secret.name}."""
    keys: list[Annotated[dict[str, Any], AfterValidator(_public)]] = Field(default_factory=list)
    """Public keys as JWK, each with its `kid`: two of them while one takes the other's place."""
    roles: str = "roles"
    """The claim that names roles."""
    tenant: str = "tenant"
    """The claim that names the tenant."""

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, value: Any) -> Any:
        return value if value is None else secret(value)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.secret is None) == (not self.keys):
            raise ValueError("an issuer has either a `secret` or public `keys`")
        # A public key that is taken for a secret lets anybody sign.
        if self.secret is not None and self.algorithms != ["HS256"]:
            raise ValueError("a `secret` goes with HS256 alone")
        if self.keys and "HS256" in self.algorithms:
            raise ValueError("public `keys` do not go with HS256")
        if twice := _twice([key["kid"] for key in self.keys]):
            raise ValueError(f"the kid {', '.join(twice)} is there twice")
        return self


class Auth(WrittenOut):
    roles: dict[str, list[Scope]] = Field(default_factory=dict)
    """What each role may do: models, predict, predict:MODEL, metrics, live, security."""
    keys: dict[ApiName, Key] = Field(default_factory=dict)
    """Programs with a key, by name."""
    users: dict[ApiName, User] = Field(default_factory=dict)
    """People with a password, who get tokens at POST /v1/token."""
    issuers: list[Issuer] = Field(default_factory=list)
    """Whose JWTs are taken."""
    anonymous: list[str] = Field(default_factory=list)
    """Roles of those who give no key. Default: none, and nothing is open."""
    token: SomeTime = "15m"  # noqa: S105 - how long, not which
    """How long a token of POST /v1/token lives."""
    revoked: list[str] = Field(default_factory=list)
    """`jti` of tokens that are taken no more."""

    @model_validator(mode="after")
    def _known_roles(self) -> Self:
        named = {*self.anonymous}
        for holder in (*self.keys.values(), *self.users.values()):
            named |= {*holder.roles}
        if unknown := sorted(named - self.roles.keys()):
            raise ValueError(f"no role {', '.join(unknown)}; `roles` has {', '.join(self.roles) or 'none'}")
        return self

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        if twice := _twice([ANONYMOUS, *self.keys, *self.users]):
            raise ValueError(
                f"{', '.join(twice)} is there twice: keys, users and {ANONYMOUS} need names of their own"
            )
        if twice := _twice([one.issuer for one in self.issuers]):
            raise ValueError(f"the issuer {', '.join(twice)} is there twice")
        return self


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
