"""Commands that look after a service: its tables, its keys, the daily login."""

from enum import StrEnum
from typing import Annotated

import typer

from ticker.commands.output import writing_to_stdout

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="API keys: who may call the API, and for what.")
app.add_typer(keys, name="keys")


class KeyScope(StrEnum):
    """What an API key may be for."""

    READ = "read"
    TRADE = "trade"
    ADMIN = "admin"


@app.command()
def migrate() -> None:
    """Bring the tables of DATABASE_URL up to date, as every start does by itself."""
    from ticker.commands import store
    from ticker.environment import load_settings

    store.migrate_database(load_settings(), typer.echo)


@app.command()
def login(
    account: Annotated[
        str | None, typer.Argument(help="Its id; not needed if there is one account only.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Receive the broker's redirect on this port of 127.0.0.1, as registered for the "
            "API key. Default: paste the address that the browser was sent to.",
        ),
    ] = None,
) -> None:
    """Log an account in at the broker, as has to be done each day.

    Its access token goes to the account's token file if it has one, else, encrypted, to the
    database. A running service uses it within seconds.
    """
    from nurseries.login import log_in
    from ticker.environment import load_settings

    log_in(load_settings(), account, port=port, say=typer.echo)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[KeyScope],
        typer.Option(help="What it may: admin includes trade, and trade includes read."),
    ],
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires. Default: never.")
    ] = None,
) -> None:
    """Create an API key and print it: this once, because only its hash is kept."""
    import msgspec

    from ticker.commands import store
    from ticker.environment import load_settings
    from ticker.stores.api_keys import Scope

    scopes = msgspec.convert([each.value for each in scope], list[Scope])
    store.create_key(load_settings(), name, scopes, days, typer.echo)


@keys.command("list")
def list_keys() -> None:
    """Print every API key's id, name, scopes and use, newest first."""
    from ticker.commands import store
    from ticker.environment import load_settings

    with writing_to_stdout():
        store.list_keys(load_settings(), typer.echo)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As keys list prints it.")],
) -> None:
    """End an API key. Running instances follow within seconds."""
    from ticker.commands import store
    from ticker.environment import load_settings

    store.revoke_key(load_settings(), key_id, typer.echo)


@app.command("rotate-keys")
def rotate_keys() -> None:
    """Encrypt every stored secret anew, with the first key of ACCOUNT_ENCRYPTION_KEY.

    To replace a key: put the other in front of it, run this, then take the old one away.
    """
    from ticker.commands import store
    from ticker.environment import load_settings

    store.rotate_secrets(load_settings(), typer.echo)


@app.command("encryption-key")
def encryption_key() -> None:
    """Print a random key for ACCOUNT_ENCRYPTION_KEY."""
    from ticker.accounts.secrets_box import create_encryption_key

    typer.echo(create_encryption_key())
