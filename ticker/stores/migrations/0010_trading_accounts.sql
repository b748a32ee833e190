-- Broker accounts, and the newest access token of every account, also of those in the settings.
--
-- Every column of secrets holds Fernet ciphertext (ticker/accounts/secrets_box.py), never a secret.
-- origin 'settings': the account itself is configured elsewhere, the row only keeps its token.
-- api_key_hash is SHA-256 of the api_key: one account a key, decided by the database.
-- configured_token_hash is SHA-256 of the token in the settings that this row's token came after.
-- password, totp_key and token_dir belong to the table's interface; nothing here writes them.
CREATE TABLE trading_accounts (
    account_id            text PRIMARY KEY CHECK (account_id ~ '^[A-Za-z0-9_-]{1,50}$'),
    origin                text NOT NULL DEFAULT 'database'
                          CHECK (origin IN ('database', 'settings')),
    api_key               text NOT NULL,
    api_key_hash          bytea NOT NULL,
    api_secret            text,
    access_token          text,
    token_issued_at       timestamptz,
    configured_token_hash bytea NOT NULL DEFAULT '\x',
    username              text,
    password              text,
    totp_key              text,
    token_dir             text,
    is_active             boolean NOT NULL DEFAULT true,
    metadata              jsonb NOT NULL DEFAULT '{}',
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    CHECK ((access_token IS NULL) = (token_issued_at IS NULL))
);

CREATE UNIQUE INDEX trading_accounts_one_per_api_key ON trading_accounts (api_key_hash)
    WHERE is_active AND origin = 'database';
