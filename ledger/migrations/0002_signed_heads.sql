-- The last entry of each group that is committed is signed, and the books say which entry is the last. The hashes need no
-- index: each names the one before it.

CREATE TABLE journal_with_signers (
    sequence  INTEGER PRIMARY KEY,
    hash      BLOB NOT NULL,
    kind      TEXT NOT NULL,
    payload   TEXT NOT NULL,
    signer    BLOB,
    signature BLOB,
    CHECK ((signer IS NULL) = (signature IS NULL))
) STRICT;
INSERT INTO journal_with_signers (sequence, hash, kind, payload) SELECT sequence, hash, kind, payload FROM journal;
DROP TABLE journal;
ALTER TABLE journal_with_signers RENAME TO journal;
CREATE TRIGGER journal_is_append_only_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_append_only_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
INSERT INTO facts (name, value) SELECT 'head', sequence || ':' || lower(hex(hash)) FROM journal ORDER BY sequence DESC LIMIT 1;
