-- What a receipt is made of: with each charge what was metered, and which entry of the journal it is; and every rate card that
-- anything was reserved by.

ALTER TABLE charges ADD COLUMN metered TEXT;
ALTER TABLE charges ADD COLUMN entry INTEGER;
-- Proofs of usage lines need all the lines of a post.
CREATE INDEX charges_by_post ON charges (post) WHERE post IS NOT NULL;
CREATE TABLE cards (
    hash TEXT PRIMARY KEY,
    card TEXT NOT NULL
) STRICT, WITHOUT ROWID;
