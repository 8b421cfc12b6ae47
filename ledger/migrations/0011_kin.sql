-- Works below works: what is held back for one comes out of what its parent holds. Only works that have somebody above or
-- below have a row.

CREATE TABLE kin (
    work   TEXT PRIMARY KEY REFERENCES reservations (work),
    parent TEXT REFERENCES reservations (work),
    lent   INTEGER NOT NULL DEFAULT 0 CHECK (lent >= 0),
    below  INTEGER NOT NULL DEFAULT 0 CHECK (below >= 0),
    CHECK (parent <> work)
) STRICT;
