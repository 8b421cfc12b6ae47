-- No entry is put in the place of another: whoever replaces a row is asked neither by the trigger of updates nor, as SQLite is set
-- up by itself, by that of deletions.

CREATE TRIGGER journal_is_append_only_insert BEFORE INSERT ON journal WHEN EXISTS (SELECT 1 FROM journal WHERE sequence = NEW.sequence) BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
