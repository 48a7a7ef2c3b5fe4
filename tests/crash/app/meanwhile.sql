-- What others did since the last apply. The rows are what must not be lost, and what indexes are built over.
INSERT INTO app.accounts (email, name) SELECT 'a' || n || '@example.org', 'name ' || n FROM generate_series(1, 300) n;
INSERT INTO app.orders (account_id, total, note) SELECT 1 + n % 300, n, 'note ' || n FROM generate_series(1, 900) n;
INSERT INTO app.logs (line) SELECT 'line ' || n FROM generate_series(1, 900) n;
DROP INDEX app.orders_total;
CREATE INDEX orders_note ON app.orders (note);
ALTER ROLE api CONNECTION LIMIT 5;
REVOKE SELECT ON app.orders FROM readers;
ALTER SYSTEM SET work_mem = '5MB';
SELECT pg_reload_conf();
CREATE TABLE app.theirs (x integer);
CREATE INDEX theirs_x ON app.theirs (x);
