-- What each provider's node has served, and what went wrong on it: reputations are made of it. Written with the charge that
-- tells of it, so that nothing counts twice.

CREATE TABLE records (
    place          TEXT PRIMARY KEY,
    served_seconds INTEGER NOT NULL DEFAULT 0 CHECK (served_seconds >= 0),
    faults         INTEGER NOT NULL DEFAULT 0 CHECK (faults >= 0),
    disagreements  INTEGER NOT NULL DEFAULT 0 CHECK (disagreements >= 0)
) STRICT, WITHOUT ROWID;
