-- What was listed on a day is searched in the archive: the indexes that such pages take are there.
-- In the order in which a merge takes them.
LOCK TABLE instrument_registry, instrument_archive IN ACCESS EXCLUSIVE MODE;
DROP INDEX instrument_archive_contract;
-- Empty is for older instances that still write: the next merge amends their rows.
ALTER TABLE instrument_archive ADD COLUMN underlying TEXT NOT NULL DEFAULT '';
UPDATE instrument_archive spell
SET underlying = COALESCE(
    (
        SELECT listed.underlying FROM instrument_registry listed
        WHERE listed.instrument_token = spell.instrument_token
            AND listed.tradingsymbol = spell.tradingsymbol
            AND listed.expiry IS NOT DISTINCT FROM spell.expiry
    ),
    CASE WHEN expiry IS NOT NULL AND name <> '' THEN name ELSE tradingsymbol END
);

-- Pages go by token, so each index that narrows a search ends with it where the sort would be long.
CREATE INDEX instrument_archive_chain ON instrument_archive (underlying, expiry, strike);
CREATE INDEX instrument_archive_segment ON instrument_archive (segment, instrument_token);
CREATE INDEX instrument_archive_exchange ON instrument_archive (exchange, instrument_token);
CREATE INDEX instrument_archive_expiry ON instrument_archive (expiry, instrument_token);
CREATE INDEX instrument_archive_prefix
    ON instrument_archive (tradingsymbol text_pattern_ops, instrument_token);
DROP INDEX instrument_registry_contract;
DROP INDEX instrument_registry_segment;
DROP INDEX instrument_registry_expiry;
DROP INDEX instrument_registry_name;
DROP INDEX instrument_registry_prefix;
