-- What an account holds is an asset: where it moves, its symbol and its decimals. Before, the symbol stood alone: it is on the
-- account's own chain, or granted, and every token had six decimals.

UPDATE fundings SET asset = CASE WHEN id LIKE 'chain:%' THEN substr(id, 1, 5 + instr(substr(id, 7), ':')) ELSE 'internal' END || '/' || asset || '/6';
