-- Candles; time is their start. resolution in minutes, prices in rupees.
CREATE TABLE minute_bars (
    symbol TEXT NOT NULL,
    resolution INTEGER NOT NULL DEFAULT 1 CHECK (resolution > 0),
    time TIMESTAMPTZ NOT NULL,
    open DOUBLE PRECISION NOT NULL,
    high DOUBLE PRECISION NOT NULL,
    low DOUBLE PRECISION NOT NULL,
    close DOUBLE PRECISION NOT NULL,
    volume BIGINT NOT NULL DEFAULT 0,
    metadata JSONB NOT NULL DEFAULT '{}',
    PRIMARY KEY (symbol, resolution, time)
);
