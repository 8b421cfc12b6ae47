-- Whose each charge is, as far as that is noted: what is owed to a payee that the contract does not know waits, and with it the usage
-- lines of what was charged for it.

ALTER TABLE charges ADD COLUMN payee INTEGER;
