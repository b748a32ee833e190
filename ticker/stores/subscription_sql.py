"""The statements of table ``instrument_subscriptions``."""
# ruff: noqa: S608 - composed of constants of this file alone; every value is a parameter

from collections.abc import Mapping
from typing import Final, LiteralString

CONDITIONS: Final[dict[str, LiteralString]] = {
    "status": "status = %(status)s",
    "account_id": "account_id = %(account_id)s",
    "segment": "segment = %(segment)s",
    "instrument_token": "instrument_token = %(instrument_token)s",
    "origin": "origin = %(origin)s",
    # an array, not IN: that would be a join, for which the planner likes to read the whole table
    "underlying": (
        "instrument_token = ANY(ARRAY("
        "SELECT instrument_token FROM instrument_registry WHERE underlying = %(underlying)s))"
    ),
}

COLUMNS: Final = (
    "instrument_token, exchange, tradingsymbol, segment, expiry, status, requested_mode, "
    "account_id, origin, created_at, updated_at"
)

SELECT: Final = f"SELECT {COLUMNS} FROM instrument_subscriptions"

IN_ORDER: Final = "ORDER BY instrument_token"

SELECT_ACTIVE: Final = f"{SELECT} WHERE status = 'active' {IN_ORDER}"


IS_LISTED: Final = "instrument_token = ANY(%(tokens)s::bigint[])"

SELECT_LISTED: Final = f"{SELECT} WHERE {IS_LISTED} {IN_ORDER}"

LOCK: Final = "LOCK TABLE instrument_subscriptions IN SHARE ROW EXCLUSIVE MODE"
"""One writer at a time, so that writers never deadlock; readers are not held up."""

GIVEN: Final = """
unnest(
    %(tokens)s::bigint[], %(exchanges)s::text[], %(symbols)s::text[], %(segments)s::text[],
    %(expiries)s::date[], %(modes)s::text[], %(accounts)s::text[]
) AS given (
    instrument_token, exchange, tradingsymbol, segment, expiry, requested_mode, account_id
)
"""

IS_SAME_CONTRACT: Final = """
    stored.exchange = given.exchange
    AND stored.tradingsymbol = given.tradingsymbol
    AND stored.expiry IS NOT DISTINCT FROM given.expiry
"""

DELETE_OTHER_CONTRACTS: Final = f"""
DELETE FROM instrument_subscriptions AS stored USING {GIVEN}
WHERE stored.instrument_token = given.instrument_token AND NOT ({IS_SAME_CONTRACT})
"""

MOVE_TO_TOKENS: Final = f"""
UPDATE instrument_subscriptions AS stored
SET instrument_token = given.instrument_token, updated_at = now()
FROM {GIVEN}
WHERE {IS_SAME_CONTRACT} AND stored.instrument_token <> given.instrument_token
"""

INSERT: Final = f"""
INSERT INTO instrument_subscriptions AS stored (
    instrument_token, exchange, tradingsymbol, segment, expiry, requested_mode, account_id, origin
)
SELECT given.*, %(origin)s FROM {GIVEN}
"""

INSERT_OR_REPLACE: Final = f"""
{INSERT}
ON CONFLICT (instrument_token) DO UPDATE SET
    segment = excluded.segment, status = 'active', requested_mode = excluded.requested_mode,
    account_id = excluded.account_id, origin = excluded.origin, updated_at = now()
"""

INSERT_OR_TAKE_UP: Final = (
    f"{INSERT_OR_REPLACE} WHERE stored.origin = 'rebalancer' AND stored.status = 'inactive'"
)

DEACTIVATE: Final = f"""
UPDATE instrument_subscriptions AS stored
SET status = 'inactive', origin = %(origin)s,
    updated_at = CASE WHEN status = 'active' OR origin <> %(origin)s THEN now() ELSE updated_at END
WHERE {IS_LISTED} AND (%(origin)s = 'user' OR origin = %(origin)s)
RETURNING {COLUMNS}
"""

DEACTIVATE_EXPIRED: Final = f"""
UPDATE instrument_subscriptions SET status = 'inactive', updated_at = now()
WHERE status = 'active' AND expiry < %(before)s
RETURNING {COLUMNS}
"""

TAKE_OUT: Final = f"DELETE FROM instrument_subscriptions WHERE {IS_LISTED} RETURNING {COLUMNS}"

PUT_BACK: Final = f"""
INSERT INTO instrument_subscriptions (
    instrument_token, exchange, tradingsymbol, segment, expiry, requested_mode, account_id,
    status, origin, created_at
)
SELECT * FROM unnest(
    %(tokens)s::bigint[], %(exchanges)s::text[], %(symbols)s::text[], %(segments)s::text[],
    %(expiries)s::date[], %(modes)s::text[], %(accounts)s::text[],
    %(statuses)s::text[], %(origins)s::text[], %(created)s::timestamptz[]
)
RETURNING {COLUMNS}
"""


def create_page(
    given: Mapping[str, object], limit: int, offset: int, after: int | None
) -> tuple[LiteralString, dict[str, object]]:
    """The statement of one page, and its values. ``given``: values of names in ``CONDITIONS``."""
    where = _where(given)
    if after is not None:
        where += " AND instrument_token > %(after)s"
    values = {**given, "limit": limit, "offset": offset, "after": after}
    return f"{SELECT} {where} {IN_ORDER} LIMIT %(limit)s OFFSET %(offset)s", values


def create_count(given: Mapping[str, object]) -> tuple[LiteralString, Mapping[str, object]]:
    """The statement that counts all pages' rows, and its values."""
    return f"SELECT count(*) FROM instrument_subscriptions {_where(given)}", given


def _where(given: Mapping[str, object]) -> LiteralString:
    where: LiteralString = "WHERE true"
    for name, condition in CONDITIONS.items():
        if name in given:
            where += f" AND {condition}"
    return where
