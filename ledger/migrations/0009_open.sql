-- What is open, in the order of time: by their names, each that is made or ends would touch a page of its own.

DROP INDEX reservations_open;
CREATE INDEX reservations_open ON reservations (open) WHERE open = 1;
