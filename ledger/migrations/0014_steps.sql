-- Of each lane the vouchers that lead to its newest total in steps: the contract credits no more than an account's burst at a time.
-- Each says how far it is at most from the one below. Those from before stood alone, however much they were for.
CREATE TABLE vouchers_in_steps (
    funding   TEXT NOT NULL REFERENCES fundings (id),
    payee     INTEGER NOT NULL CHECK (payee > 0),
    total     INTEGER NOT NULL CHECK (total > 0),
    step      INTEGER NOT NULL CHECK (step > 0),
    chain_id  INTEGER NOT NULL,
    contract  TEXT NOT NULL,
    signer    TEXT NOT NULL,
    signature BLOB NOT NULL,
    signed_at INTEGER NOT NULL,
    PRIMARY KEY (funding, payee, total)
) STRICT, WITHOUT ROWID;
INSERT INTO vouchers_in_steps (funding, payee, total, step, chain_id, contract, signer, signature, signed_at) SELECT funding, payee, total, 9223372036854775807, chain_id, contract, signer, signature, signed_at FROM vouchers;
DROP TABLE vouchers;
ALTER TABLE vouchers_in_steps RENAME TO vouchers;
CREATE INDEX vouchers_by_payee ON vouchers (payee, funding);
