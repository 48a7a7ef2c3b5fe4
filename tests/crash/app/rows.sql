SELECT (SELECT array_agg(a.email || a.name ORDER BY id) FROM app.accounts a)::text,
       (SELECT sum(total) FROM app.orders),
       (SELECT count(*) FROM app.logs),
       (SELECT count(*) FROM app.archive),
       (SELECT count(*) FROM app.theirs)
