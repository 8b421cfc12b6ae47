-- The newest row of each lane that was signed for its payee, who can claim with it on the chain whatever becomes of us.

CREATE TABLE vouchers (
    funding   TEXT NOT NULL REFERENCES fundings (id),
    payee     INTEGER NOT NULL CHECK (payee > 0),
    total     INTEGER NOT NULL CHECK (total > 0),
    chain_id  INTEGER NOT NULL,
    contract  TEXT NOT NULL,
    signer    TEXT NOT NULL,
    signature BLOB NOT NULL,
    signed_at INTEGER NOT NULL,
    PRIMARY KEY (funding, payee)
) STRICT, WITHOUT ROWID;
CREATE INDEX vouchers_by_payee ON vouchers (payee, funding);
