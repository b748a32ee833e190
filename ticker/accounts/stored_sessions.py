"""Stored accounts beside those that are at work: who stays, comes and goes, with which token."""

from collections.abc import Iterable

from ticker.accounts.credentials import Credentials, create_credentials
from ticker.accounts.sessions import AccountStatus, Session, Sessions, fingerprint
from ticker.latest import Latest
from ticker.stores.accounts import AccountRow


def merge_rows(
    rows: Iterable[AccountRow], present: Sessions, now: float
) -> tuple[dict[str, Session], list[AccountStatus]]:
    """Who is there according to the settings and these rows, and which rows cannot be used.

    Sessions of the settings stay, and outrank a row of their id or api_key. A session that stays
    takes its row's token if that is the newer one. A row whose secrets cannot be opened ends no
    session that is at work.
    """
    merged = {name: one for name, one in present.items() if one.source == "settings"}
    holders = {one.credentials.value.api_key: name for name, one in merged.items()}
    broken: list[AccountStatus] = []
    for row in rows:
        known = present.get(row.account_id)
        if known is not None and known.source == "settings":
            if row.error is None and row.api_key == known.credentials.value.api_key:
                take_token(known, row, now)
            continue
        if row.origin == "settings" or not row.is_active:
            continue
        error, holder = row.error, holders.get(row.api_key)
        if error is None and holder is not None:
            error = f"account {holder!r} has the same api_key"
        if error is not None:
            broken.append(AccountStatus(row.account_id, "database", error=error))
            if row.error is not None and known is not None:
                merged[row.account_id] = known
            continue
        merged[row.account_id] = _session_of(row, known, now)
        holders[row.api_key] = row.account_id
    return merged, broken


def take_token(session: Session, row: AccountRow, now: float) -> None:
    """Make the row's token the session's if it is the better one.

    It is if the session has none, if it was issued later, or if the session's is still the one in
    the settings, whose age is unknown, and a login brought the row's after that one.
    """
    known = session.credentials.value
    if row.access_token is None or row.token_issued_at is None:
        return
    issued_at = row.token_issued_at.timestamp()
    stored = create_credentials(known.api_key, row.access_token, issued_at, now)
    if row.access_token == known.access_token or (known.access_token and stored.is_expired):
        return
    is_later = known.issued_at is None or issued_at > known.issued_at
    is_successor = fingerprint(known.access_token) == session.configured_hash == row.configured_hash
    if not known.access_token or is_later or is_successor:
        session.credentials.set(stored)


def _session_of(row: AccountRow, known: Session | None, now: float) -> Session:
    """The session that is at work if its secrets are the row's, else another."""
    credentials = Latest(Credentials(row.api_key, ""))
    if known is not None and known.credentials.value.api_key == row.api_key:
        credentials = known.credentials
    if known is None or credentials is not known.credentials or known.api_secret != row.api_secret:
        session = Session(
            account_id=row.account_id,
            credentials=credentials,
            api_secret=row.api_secret,
            source="database",
        )
    else:
        session = known
    take_token(session, row, now)
    return session
