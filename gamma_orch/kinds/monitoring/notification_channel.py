"""The kind NotificationChannel: a place where people or programs are told of alerts, as a receiver of an
Alertmanager. Who is told of what, and when, an EscalationPolicy says."""

from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.kinds.monitoring import routing
from gamma_orch.kinds.monitoring.parts import PartProvider, target
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.urls import url
from gamma_orch.spec.written_out import WrittenOut


class Email(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"password"})

    to: list[str] = Field(min_length=1)
    """Addresses."""
    sender: str = Field(alias="from", pattern=r"^[^\s@]+@[^\s@]+$")
    """The address that it comes from."""
    server: str = Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")
    """The mail server, as host:port."""
    user: str | None = None
    """Who sends, where the server asks."""
    password: Any = None
    """A secret."""
    tls: bool = True
    """Whether the server must speak TLS (STARTTLS)."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("`user` and `password` go together")
        return self


class Slack(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url"})

    url: Any
    """The incoming webhook: a secret."""
    channel: str | None = None
    """Where it is written. Default: where the webhook leads."""

    _is_url = field_validator("url")(url("http", "https"))


class Discord(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url"})

    url: Any
    """The webhook of the channel: a secret."""

    _is_url = field_validator("url")(url("http", "https"))


class Webhook(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url"})

    url: Any
    """Who gets the alerts as JSON, in Alertmanager's form (version 4)."""

    _is_url = field_validator("url")(url("http", "https"))


class PagerDuty(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"key"})

    key: Any
    """The integration key of Events API v2: a secret."""
    url: str | None = Field(default=None, pattern=r"^https?://")
    """Of another service that takes the same events."""


class NotificationChannelSpec(WrittenOut):
    alertmanager: str = "alertmanager"
    """The target: the name of an Alertmanager in environment.yaml."""
    email: Email | None = None
    """By mail."""
    slack: Slack | None = None
    """Into a channel of Slack."""
    discord: Discord | None = None
    """Into a channel of Discord."""
    webhook: Webhook | None = None
    """To a program, over HTTP."""
    pagerduty: PagerDuty | None = None
    """To PagerDuty, or what takes its events."""
    resolved: bool = True
    """Whether it is told too when an alert is over."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        self.one_of("a channel is", WAYS)
        return self


WAYS = ("email", "slack", "discord", "webhook", "pagerduty")


# Of Slack's messages. Alerts of a group may have nothing in common but what they are grouped by; of a storm
# the number says enough.
TITLE = '{{ or .CommonAnnotations.summary (.GroupLabels.Values | join " ") }}'
TEXT = (
    "{{ if gt (len .Alerts) 10 }}{{ len .Alerts }} alerts{{ else }}{{ range .Alerts }}"
    "{{ .Annotations.summary }}{{ with .Annotations.description }} {{ . }}{{ end }}\n{{ end }}{{ end }}"
)


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    return {name: value for name, value in spec.items() if value is not None}


def receiver(name: str, fields: Json) -> Json:
    """In Alertmanager's form, of revealed fields."""
    common = {"send_resolved": fields["resolved"]}
    way = next(one for one in WAYS if one in fields)
    said = {key: value for key, value in fields[way].items() if value is not None}
    match way:
        case "email":
            mail = {"to": ", ".join(said["to"]), "from": said["from"], "smarthost": said["server"]}
            if "user" in said:
                mail |= {"auth_username": said["user"], "auth_password": said["password"]}
            config: Json = {**mail, "require_tls": said["tls"]}
        case "slack":
            config = {"api_url": said["url"], **({"channel": said["channel"]} if "channel" in said else {})}
            config |= {"title": TITLE, "text": TEXT}
        case "discord":
            config = {"webhook_url": said["url"]}
        case "webhook":
            config = {"url": said["url"]}
        case _:
            config = {"routing_key": said["key"], **({"url": said["url"]} if "url" in said else {})}
    return {"name": name, f"{way}_configs": [{**common, **config}]}


class NotificationChannelProvider(PartProvider):
    KIND = "NotificationChannel"

    def render(self, name: str, fields: Json) -> dict[str, list[Json]]:
        return {"receivers": [receiver(name, fields)], "routes": []}


KIND = Kind(
    name="NotificationChannel",
    family="monitoring",
    summary="A place where people or programs are told of alerts: by mail, Slack, Discord, PagerDuty, HTTP.",
    spec=NotificationChannelSpec,
    provider=NotificationChannelProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=routing.channels,
)
