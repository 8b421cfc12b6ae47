-- The books. The database holds the rules too: what would break one is refused here, whoever wrote the code above it.

CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- What pays. deposited and withdrawn only rise; the rest is where the money stands.
CREATE TABLE fundings (
    id        TEXT PRIMARY KEY,
    asset     TEXT NOT NULL,
    deposited INTEGER NOT NULL DEFAULT 0 CHECK (deposited >= 0),
    withdrawn INTEGER NOT NULL DEFAULT 0 CHECK (withdrawn >= 0),
    available INTEGER NOT NULL DEFAULT 0 CHECK (available >= 0),
    reserved  INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    owed      INTEGER NOT NULL DEFAULT 0 CHECK (owed >= 0),
    posted    INTEGER NOT NULL DEFAULT 0 CHECK (posted >= 0),
    CHECK (deposited = withdrawn + available + reserved + owed + posted)
) STRICT, WITHOUT ROWID;

-- One a work. Rows stand in the order of time, so that those that change together share pages. detail is the placement's truth: what the operator needs to find its pods again.
CREATE TABLE reservations (
    work     TEXT PRIMARY KEY,
    funding  TEXT NOT NULL REFERENCES fundings (id),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    charged  INTEGER NOT NULL DEFAULT 0 CHECK (charged >= 0),
    exact    TEXT NOT NULL DEFAULT '0',
    split    TEXT NOT NULL DEFAULT '{}',
    absorbed INTEGER NOT NULL DEFAULT 0 CHECK (absorbed >= 0),
    open     INTEGER NOT NULL CHECK (open IN (0, 1)),
    detail   TEXT NOT NULL,
    CHECK (open = 1 OR reserved = 0)
) STRICT;
CREATE INDEX reservations_open ON reservations (work) WHERE open = 1;

-- The outbox: one a post of an account's rows, and at most one that is not finished.
CREATE TABLE posts (
    id           TEXT PRIMARY KEY,
    funding      TEXT NOT NULL REFERENCES fundings (id),
    state        TEXT NOT NULL CHECK (state IN ('PLANNED', 'SIGNED', 'MINED', 'FINAL', 'VOID')),
    rows         TEXT NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount > 0),
    lines_root   BLOB NOT NULL,
    journal_head BLOB NOT NULL,
    winner       TEXT,
    block        INTEGER,
    planned_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX posts_open ON posts (funding) WHERE state IN ('PLANNED', 'SIGNED', 'MINED');

-- One a segment that was charged: the primary key is why nothing is charged twice.
CREATE TABLE charges (
    segment  TEXT PRIMARY KEY,
    work     TEXT NOT NULL REFERENCES reservations (work),
    funding  TEXT NOT NULL REFERENCES fundings (id),
    attempt  INTEGER NOT NULL,
    seconds  INTEGER NOT NULL CHECK (seconds >= 0),
    evidence TEXT NOT NULL,
    amount   INTEGER NOT NULL CHECK (amount >= 0),
    salt     BLOB NOT NULL,
    post     TEXT REFERENCES posts (id)
) STRICT;
CREATE INDEX charges_by_work ON charges (work);
CREATE INDEX charges_unposted ON charges (funding) WHERE post IS NULL;

-- What an account owes a payee in all, what of it a post carries, and what is final on the chain.
CREATE TABLE lanes (
    funding TEXT NOT NULL REFERENCES fundings (id),
    payee   INTEGER NOT NULL CHECK (payee > 0),
    total   INTEGER NOT NULL CHECK (total >= planned),
    planned INTEGER NOT NULL DEFAULT 0 CHECK (planned >= posted),
    posted  INTEGER NOT NULL DEFAULT 0 CHECK (posted >= 0),
    PRIMARY KEY (funding, payee)
) STRICT, WITHOUT ROWID;

-- Every transaction that was ever signed for a post, written before it was sent.
CREATE TABLE attempts (
    hash      TEXT PRIMARY KEY,
    post      TEXT NOT NULL REFERENCES posts (id),
    signer    TEXT NOT NULL,
    nonce     INTEGER NOT NULL,
    raw       BLOB NOT NULL,
    max_fee   TEXT NOT NULL,
    fence     INTEGER NOT NULL,
    signed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_post ON attempts (post);

-- Append-only, each entry naming the one before it.
CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY,
    hash     BLOB NOT NULL UNIQUE,
    kind     TEXT NOT NULL,
    payload  TEXT NOT NULL
) STRICT;
CREATE TRIGGER journal_is_append_only_update BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_append_only_delete BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
