-- What stands beside the charges: what works have used so far of what is held back for them, what an account is short of, what
-- was absorbed, and what was charged on which day.

-- One a work that runs, as it was when it was last looked at. It moves no money: the charge does, when the attempt is over.
CREATE TABLE holds (
    work   TEXT PRIMARY KEY REFERENCES reservations (work),
    used   INTEGER NOT NULL CHECK (used > 0),
    seen   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- held is a part of reserved; shortfall is the part of deposited that is not there any more, and is bound all the same.
ALTER TABLE fundings ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0 AND held <= reserved);
ALTER TABLE fundings ADD COLUMN shortfall INTEGER NOT NULL DEFAULT 0 CHECK (shortfall >= 0 AND shortfall <= deposited AND (shortfall = 0 OR available = 0));
-- What its works have cost beyond what was held back for them: borne by nobody who pays from it, and in no other sum.
ALTER TABLE fundings ADD COLUMN absorbed INTEGER NOT NULL DEFAULT 0 CHECK (absorbed >= 0);
UPDATE fundings SET absorbed = (SELECT COALESCE(SUM(absorbed), 0) FROM reservations WHERE reservations.funding = fundings.id);

-- By days of UTC, counted from 1970.
CREATE TABLE days (
    funding TEXT NOT NULL REFERENCES fundings (id),
    day     INTEGER NOT NULL,
    charged INTEGER NOT NULL CHECK (charged >= 0),
    PRIMARY KEY (funding, day)
) STRICT, WITHOUT ROWID;
