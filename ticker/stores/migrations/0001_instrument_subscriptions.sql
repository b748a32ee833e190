-- What is to be streamed. The token is the broker's, who gives it to another contract after an
-- expiry; the contract itself is exchange, tradingsymbol and expiry. account_id NULL: any account.
-- origin: who decided last, a user or the strike rebalancer, whom a user's decision outranks.
CREATE TABLE instrument_subscriptions (
    instrument_token BIGINT PRIMARY KEY CHECK (instrument_token > 0),
    exchange TEXT NOT NULL,
    tradingsymbol TEXT NOT NULL,
    segment TEXT NOT NULL,
    expiry DATE,
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
    requested_mode TEXT NOT NULL DEFAULT 'FULL'
        CHECK (requested_mode IN ('FULL', 'QUOTE', 'LTP')),
    account_id TEXT,
    origin TEXT NOT NULL DEFAULT 'user' CHECK (origin IN ('user', 'rebalancer')),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX instrument_subscriptions_contract
    ON instrument_subscriptions (exchange, tradingsymbol, (coalesce(expiry, 'infinity')));
CREATE INDEX instrument_subscriptions_expiry
    ON instrument_subscriptions (expiry) WHERE status = 'active';

-- Pages go by token, so each index that narrows a list ends with it.
CREATE INDEX instrument_subscriptions_status
    ON instrument_subscriptions (status, instrument_token);
CREATE INDEX instrument_subscriptions_account
    ON instrument_subscriptions (account_id, instrument_token);
CREATE INDEX instrument_subscriptions_segment
    ON instrument_subscriptions (segment, instrument_token);
CREATE INDEX instrument_subscriptions_origin
    ON instrument_subscriptions (origin, instrument_token);

-- Which values come together: an account with no row of a segment, say. Without it a page that is
-- expected to be full soon is looked for in the whole table, in the order of the tokens.
CREATE STATISTICS instrument_subscriptions_together (mcv)
    ON status, account_id, segment, origin FROM instrument_subscriptions;
