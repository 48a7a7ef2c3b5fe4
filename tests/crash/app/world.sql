-- Everything that Gamma may have touched, without identities (object ids, where rows lie), and without the
-- part `h` of a mark: it only spares PostgreSQL a question, and a death just before it is written may lose it.
WITH mine AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('app', 'reports', 'public', 'witness'))
SELECT json_build_object(
  'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings
               WHERE sourcefile LIKE '%postgresql.auto.conf'),
  'pending', (SELECT json_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart),
  'databases', (SELECT json_object_agg(datname, json_build_array(
                  (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(datacl) a),
                  shobj_description(oid, 'pg_database')) ORDER BY datname) FROM pg_database),
  'roles', (SELECT json_object_agg(rolname, json_build_array(rolcanlogin, rolsuper, rolconnlimit,
              shobj_description(r.oid, 'pg_authid'),
              (SELECT json_agg(g.rolname ORDER BY g.rolname) FROM pg_auth_members m
               JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)) ORDER BY rolname)
            FROM pg_roles r WHERE rolname !~ '^pg_'),
  'extensions', (SELECT json_agg(extname ORDER BY extname) FROM pg_extension),
  'schemas', (SELECT json_object_agg(nspname, json_build_array(
                (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(n.nspacl) a),
                obj_description(n.oid, 'pg_namespace')) ORDER BY nspname) FROM pg_namespace n
              WHERE n.oid IN (SELECT oid FROM mine)),
  'relations', (SELECT json_object_agg(c.oid::regclass::text, json_build_object(
      'kind', c.relkind, 'comment', regexp_replace(obj_description(c.oid, 'pg_class'), ',"h":"[0-9a-f]+"', ''),
      'acl', (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a),
      'index', CASE WHEN c.relkind = 'i' THEN (SELECT json_build_array(pg_get_indexdef(c.oid), indisvalid,
                 indisready, indislive) FROM pg_index WHERE indexrelid = c.oid) END,
      'columns', CASE WHEN c.relkind = 'r' THEN (SELECT json_agg(json_build_array(attname,
                   format_type(atttypid, atttypmod), attnotnull, attidentity,
                   pg_get_expr(adbin, adrelid)) ORDER BY attnum)
                   FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
                   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) END,
      'constraints', (SELECT json_agg(json_build_array(conname, convalidated, pg_get_constraintdef(oid))
                       ORDER BY conname) FROM pg_constraint WHERE conrelid = c.oid)
    ) ORDER BY c.oid::regclass::text) FROM pg_class c WHERE c.relnamespace IN (SELECT oid FROM mine)),
  'defaults', (SELECT json_agg(json_build_array(defaclrole::regrole::text, defaclnamespace::regnamespace::text,
                 defaclobjtype, (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(defaclacl) a)) ORDER BY defaclnamespace::regnamespace::text, defaclobjtype)
               FROM pg_default_acl)
)
