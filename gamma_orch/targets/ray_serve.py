"""Ray Serve on a cluster that runs, through the REST API of Ray's dashboard.

Serve takes the configuration of all its applications at once, and deletes those that are not in it. What
always holds:

- The applications of others are sent back as they were read. What cannot be sent back stops the change.
- Serve's own options (address, capacity) are sent only where it does not run yet, or as they were read.
- Each call ends in time. A URL's user and password are in no message.

All methods block; call them in a thread. `merged` and `without` are pure.
"""

import base64
import http.client
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary

READ = 20.0  # seconds
WRITE = 90.0  # the first one starts Serve
PLACE = "/api/serve/applications/"
HIDDEN = "<redacted>"  # what Ray shows some callers in the place of values
WORDS = 500  # characters of an answer that are told, at most
_writing = threading.Lock()  # two changes of this process would each send the other's application as it was


class RayServe:
    def __init__(self, url: str) -> None:
        """Raises Permanent for what is no URL of a dashboard."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Permanent("The URL of Ray's dashboard begins with http:// or https://, and names a host.")
        place = parts.netloc.rpartition("@")[2]
        self.shown = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        self._headers = {"Content-Type": "application/json"}
        if parts.username is not None:
            user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
            given = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {given}"

    def read(self) -> Json:
        """What Serve says of itself and all applications. Raises Temporary or Permanent."""
        text = self._ask("GET", READ)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("applications"), dict):
            raise Permanent(f"What answers at {self.shown} is not Ray's dashboard. Correct `ray.url`.")
        return found

    def deploy(self, application: Json, host: str, port: int) -> None:
        """`host` and `port`: where Serve listens. Raises Temporary, or Permanent where it does so elsewhere
        or the application's name is somebody else's."""
        self._change(lambda details: merged(details, application, host, port))

    def remove(self, name: str, home: str) -> None:
        """The application of that name, if it is the one whose folder is `home`. Absence is success."""

        def change(details: Json) -> Json:
            found = details["applications"].get(name)
            return without(details, name) if found and is_of(found, home) else None

        self._change(change)

    def _change(self, change: Callable[[Json], Json]) -> None:
        with _writing:
            config = change(self.read())
            if config is not None:
                self._ask("PUT", WRITE, config)

    def _ask(self, method: str, seconds: float, body: Json = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self.shown + PLACE, data, self._headers, method=method
        )
        try:
            with urllib.request.urlopen(asked, timeout=seconds) as answer:  # noqa: S310 - as above
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "reason", None) or error
            raise Temporary(
                f"Ray's dashboard at {self.shown} cannot be asked: {said}. Does the cluster run? "
                "`ray start --head` starts one."
            ) from None

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        try:
            text = error.read().decode("utf-8", "replace").strip()[-WORDS:]
        except (OSError, http.client.HTTPException):
            text = ""
        said = f"Ray's dashboard at {self.shown} answers {error.code}"
        match error.code:
            case 401 | 403:
                return Permanent(f"{said}: it wants other credentials. Give them in `ray.url`, as a secret.")
            case 404 | 405:
                return Permanent(f"{said}: it has no REST API of Serve. Correct `ray.url`.")
            case 501:
                return Permanent(f"{said}: {text} That is needed on each node, as is `gamma-orch[ray]`.")
            case code if code >= 500:
                return Temporary(f"{said}: {text}")
            case _:
                return Permanent(f"{said}: {text}")


def merged(details: Json, application: Mapping[str, Json], host: str, port: int) -> Json:
    """The configuration of everything with this application in it. Raises Permanent."""
    name, home = application["name"], application["args"]["home"]
    there = details["applications"].get(name)
    if there and not ends(there) and not is_of(there, home):
        raise Permanent(
            f"Ray Serve has an application {name} already, which is not this project's. Give the Service or "
            "the environment another name, or remove that application."
        )
    if serves := details.get("http_options"):
        if (serves.get("host"), serves.get("port")) != (host, port):
            raise Permanent(
                f"Ray Serve on the cluster listens on {serves.get('host')}:{serves.get('port')}, and the "
                f"Service on {host}:{port}. Write that into `listen`, or end Serve there (`serve shutdown`)."
            )
        own: dict[str, Any] = {}
    else:
        own = {"http_options": {"host": host, "port": port}}
    return {**_rest(details, name, [application]), **own}


def without(details: Json, name: str) -> Json:
    """The configuration of everything else. Raises Permanent."""
    return _rest(details, name, [])


def ends(found: Json) -> bool:
    """Whether an application is being deleted. Then Serve does not say any more what it was."""
    return bool(found.get("status") == "DELETING")


def is_of(found: Json, home: str) -> bool:
    """Whether an application runs from this folder."""
    config = found.get("deployed_app_config") or {}
    return bool((config.get("args") or {}).get("home") == home)


def _rest(details: Json, name: str, more: list[Any]) -> Json:
    others = [_kept(other, found) for other, found in details["applications"].items() if other != name]
    own = {} if details.get("target_capacity") is None else {"target_capacity": details["target_capacity"]}
    return {**own, "applications": [*(one for one in others if one), *more]}


def _kept(name: str, found: Json) -> Json:
    """What has to be sent of somebody's application so that it stays; None: nothing. Raises Permanent."""
    if found.get("source") == "imperative" or ends(found):
        return None  # Serve deletes only those that came by the REST API
    config = found.get("deployed_app_config")
    if not config or HIDDEN in json.dumps(config):
        raise Permanent(
            f"Ray does not say how its application {name} was deployed, so a change would lose it. "
            "Deploy that one again, or serve this Service on a cluster of its own."
        )
    return config
