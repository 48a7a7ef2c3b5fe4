"""A request over HTTP, and how it went. A wrong answer is a probe without success. Where there is none, the
collector has not collected all either: status and bytes are missing."""

import asyncio
import ssl
import time
from functools import cache

import httpx

from gamma_orch.exporter.contract import PROBE, Http, place
from gamma_orch.exporter.source import Failed, Parts, family, reason

BODY = 1_000_000  # bytes that are read, at most


class HttpSource:
    def __init__(self, http: Http) -> None:
        self._http = http
        self._where = place(http.url)

    async def collect(self, seconds: float) -> Parts:
        found = {"success": 0.0}
        fault = None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                await self._ask(found, seconds)
        except (TimeoutError, httpx.TimeoutException):
            fault = Failed(f"{self._where} gives no whole answer in {seconds:.3g} seconds.", late=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            fault = Failed(f"{self._where} cannot be asked: {reason(error)}.")
        found["seconds"] = time.perf_counter() - began
        for end, value in found.items():
            yield family(f"{self._http.name}_{end}", PROBE[end], [({"url": self._where}, value)], "gauge")
        if fault is not None:
            raise fault

    def close(self) -> None:
        pass

    async def _ask(self, found: dict[str, float], seconds: float) -> None:
        """What is known so far is in `found`, whatever comes after it."""
        http = self._http
        headers = {name: value.get_secret_value() for name, value in http.headers.items()}
        # Whole bytes, as they are sent: what a short one unpacks to is bounded by nothing.
        headers = {"Accept-Encoding": "identity", **headers}
        body = bytearray()
        async with (
            # Neither a proxy nor a password of this process's environment is of any concern to a probe.
            httpx.AsyncClient(verify=_tls(), timeout=seconds, trust_env=False) as client,
            client.stream(http.method, http.url.get_secret_value(), headers=headers) as answer,
        ):
            found["status"] = answer.status_code
            tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
            if tls is not None:
                found["certificate_expiry_seconds"] = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) >= BODY:
                    break
        found["bytes"] = len(body[:BODY])
        right = answer.status_code in http.status if http.status else answer.is_success
        found["success"] = right and http.contains.encode() in body[:BODY]


@cache
def _tls() -> ssl.SSLContext:
    """To read what this machine trusts takes long enough to do it once."""
    return ssl.create_default_context()
