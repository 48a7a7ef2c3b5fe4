"""Ids of requests are UUIDs like those of the standard library, each another one."""

import uuid

from gamma_orch.app import ids


def test_they_are_random_uuids() -> None:
    made = [ids.made() for _ in range(5 * ids.AT_ONCE)]
    assert len(set(made)) == len(made)
    for one in made:
        found = uuid.UUID(one)
        assert (str(found), found.version, found.variant) == (one, 4, uuid.RFC_4122)
    values = [uuid.UUID(one).int for one in made]
    free = [bit for bit in range(128) if bit not in (62, 63, *range(76, 80))]  # variant and version are fixed
    for bit in free:
        assert 0.4 < sum(value >> bit & 1 for value in values) / len(values) < 0.6
