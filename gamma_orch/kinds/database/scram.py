"""A password as the verifier that PostgreSQL keeps of it (SCRAM-SHA-256, RFC 5802 and 7677).

Sent instead of the password, so that the password is in no log, in no pg_stat_statements and on no wire:
the server could not even check it against its own rules, and never learns it.
"""

import base64
import hashlib
import hmac
import os
import stringprep
import unicodedata

ITERATIONS = 4096  # PostgreSQL's own; more would slow each login of each pool
SALT = 16  # bytes


def verifier(password: str) -> str:
    """A new one at each call, because the salt is new."""
    salt = os.urandom(SALT)
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"


def prepared(password: str) -> str:
    """SASLprep (RFC 4013). Like PostgreSQL and its clients, a password that it forbids is used as it is."""
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one)
    )
    text = unicodedata.normalize("NFKC", mapped)
    if not text or any(_forbidden(one) for one in text):
        return password
    right_to_left = [stringprep.in_table_d1(one) for one in text]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(one) for one in text) or not right_to_left[0] or not right_to_left[-1]
    ):
        return password
    return text


def _forbidden(one: str) -> bool:
    return any(
        table(one)
        for table in (
            stringprep.in_table_a1,
            stringprep.in_table_c12,
            stringprep.in_table_c21_c22,
            stringprep.in_table_c3,
            stringprep.in_table_c4,
            stringprep.in_table_c5,
            stringprep.in_table_c6,
            stringprep.in_table_c7,
            stringprep.in_table_c8,
            stringprep.in_table_c9,
        )
    )
