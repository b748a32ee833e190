-- What the broker lists. A row that a refresh does not change is not written: last_refreshed_at is
-- when its values last changed, and instrument_dumps tells when each exchange was last read.
CREATE TABLE instrument_registry (
    instrument_token BIGINT PRIMARY KEY,
    exchange_token BIGINT NOT NULL,
    tradingsymbol TEXT NOT NULL,
    name TEXT NOT NULL,
    underlying TEXT NOT NULL,
    segment TEXT NOT NULL,
    instrument_type TEXT NOT NULL,
    strike DOUBLE PRECISION NOT NULL,
    expiry DATE,
    tick_size DOUBLE PRECISION NOT NULL,
    lot_size INTEGER NOT NULL,
    exchange TEXT NOT NULL,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    last_refreshed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Pages go by token, so each index that narrows a search ends with it where the sort would be long.
CREATE INDEX instrument_registry_contract ON instrument_registry (exchange, tradingsymbol, expiry);
CREATE INDEX instrument_registry_chain ON instrument_registry (underlying, expiry, strike);
CREATE INDEX instrument_registry_segment ON instrument_registry (segment, instrument_token);
CREATE INDEX instrument_registry_exchange ON instrument_registry (exchange, instrument_token);
CREATE INDEX instrument_registry_expiry ON instrument_registry (expiry, instrument_token);
CREATE INDEX instrument_registry_name ON instrument_registry (name, instrument_token);
CREATE INDEX instrument_registry_prefix
    ON instrument_registry (tradingsymbol text_pattern_ops, instrument_token);

-- The last dump that was taken over, by exchange.
CREATE TABLE instrument_dumps (
    exchange TEXT PRIMARY KEY,
    day DATE NOT NULL,
    row_count INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL
);

-- Which contract each token has stood for, from the dump of first_day to that of last_day (NULL
-- while it still does). Tokens are given to other contracts after an expiry.
CREATE TABLE instrument_archive (
    spell BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instrument_token BIGINT NOT NULL,
    first_day DATE NOT NULL,
    last_day DATE,
    exchange_token BIGINT NOT NULL,
    tradingsymbol TEXT NOT NULL,
    name TEXT NOT NULL,
    segment TEXT NOT NULL,
    instrument_type TEXT NOT NULL,
    strike DOUBLE PRECISION NOT NULL,
    expiry DATE,
    tick_size DOUBLE PRECISION NOT NULL,
    lot_size INTEGER NOT NULL,
    exchange TEXT NOT NULL
);
CREATE UNIQUE INDEX instrument_archive_present
    ON instrument_archive (instrument_token) WHERE last_day IS NULL;
CREATE INDEX instrument_archive_token
    ON instrument_archive (instrument_token, first_day, spell);
CREATE INDEX instrument_archive_contract
    ON instrument_archive (exchange, tradingsymbol, expiry, first_day, spell);
