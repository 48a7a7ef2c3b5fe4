"""Ids of requests: UUIDs of version 4 (RFC 9562).

`uuid.uuid4` asks the system for each, and lets go of the interpreter meanwhile: under load the event loop
then waits for whoever took it, once a request. So they are made of randomness for many. Called by the event
loop's thread alone.
"""

import os
from collections.abc import Iterator

AT_ONCE = 256


def _ids() -> Iterator[str]:
    while True:
        random = os.urandom(16 * AT_ONCE).hex()
        for at in range(0, len(random), 32):
            one = random[at : at + 32]
            variant = "89ab"[int(one[16], 16) & 3]
            yield f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{variant}{one[17:20]}-{one[20:]}"


made = _ids().__next__
