-- What went back to an account from a lane, by cuts of the arbiter and refunds, and what the lane's cases have cost: as totals, as
-- the chain has them. What came back is part of deposited again, and the fees are part of it no more.
CREATE TABLE cases (
    funding  TEXT NOT NULL REFERENCES fundings (id),
    payee    INTEGER NOT NULL CHECK (payee > 0),
    clawback INTEGER NOT NULL CHECK (clawback >= 0),
    fees     INTEGER NOT NULL CHECK (fees >= 0),
    PRIMARY KEY (funding, payee)
) STRICT, WITHOUT ROWID;
