"""The one query by which a database is read: everything the family compares, as one JSON text.

Works on PostgreSQL 15 to 18, for any user who can connect. Nothing that a user may not see, and
nothing that takes locks beyond those of reading the catalogs.
"""

QUERY = r"""
with
user_schemas as (
  select oid, nspname, nspowner, nspacl from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'
),
relations as (
  select c.oid, n.nspname, c.relname, c.relkind, c.relacl, c.relowner
  from pg_class c join user_schemas n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
),
acls as (
  select case when relkind = 'S' then 'sequence' else 'table' end as kind,
         nspname as schema, relname as name, a.*
  from relations, aclexplode(relacl) a
  union all
  select 'schema', nspname, nspname, a.* from user_schemas, aclexplode(nspacl) a
  union all
  select 'database', '', datname, a.*
  from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
  where datname = current_database()
)
select jsonb_build_object(
'version', current_setting('server_version'),
'version_num', current_setting('server_version_num')::int,
'database', current_database(),
'me', current_user,
'settings', (
  select jsonb_object_agg(name, jsonb_build_array(
    setting, unit, context, vartype, enumvals, min_val, max_val, source, pending_restart,
    current_setting(name, true),
    coalesce(sourcefile ~ 'postgresql[.]auto[.]conf$', source = 'configuration file')))
  from pg_settings),
'databases', (
  select jsonb_object_agg(datname, shobj_description(oid, 'pg_database')) from pg_database),
'roles', (
  select jsonb_object_agg(r.rolname, jsonb_build_object(
    'comment', shobj_description(r.oid, 'pg_authid'),
    'login', r.rolcanlogin,
    'limit', r.rolconnlimit,
    'attributes', jsonb_build_object('superuser', r.rolsuper, 'createdb', r.rolcreatedb,
      'createrole', r.rolcreaterole, 'replication', r.rolreplication, 'bypassrls', r.rolbypassrls),
    'memberOf', (select coalesce(jsonb_agg(distinct g.rolname), '[]')
      from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid)))
  from pg_roles r where r.rolname !~ '^pg_'),
'extensions', (select jsonb_agg(extname) from pg_extension),
'schemas', (
  select coalesce(jsonb_object_agg(nspname, jsonb_build_object(
    'comment', obj_description(oid, 'pg_namespace'), 'owner', pg_get_userbyid(nspowner))), '{}')
  from user_schemas),
'relations', (
  select coalesce(jsonb_agg(jsonb_build_array(
    case when relkind = 'S' then 'sequence' else 'table' end, nspname, relname,
    pg_get_userbyid(relowner))), '[]')
  from relations),
'tables', (
  select coalesce(jsonb_agg(jsonb_build_object(
    'schema', t.nspname, 'name', t.relname, 'comment', obj_description(t.oid, 'pg_class'),
    'columns', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'notNull', a.attnotnull,
        'identity', a.attidentity, 'generated', a.attgenerated,
        'default', pg_get_expr(d.adbin, d.adrelid)) order by a.attnum), '[]')
      from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
    'constraints', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'name', k.conname, 'type', k.contype, 'valid', k.convalidated,
        'columns', (select jsonb_agg(a.attname order by u.n)
          from unnest(k.conkey) with ordinality u(attnum, n)
          join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum),
        'check', case when k.contype = 'c' then pg_get_expr(k.conbin, k.conrelid) end,
        'references', case when k.contype = 'f' then jsonb_build_object(
          'schema', fn.nspname, 'table', f.relname,
          'columns', (select jsonb_agg(a.attname order by u.n)
            from unnest(k.confkey) with ordinality u(attnum, n)
            join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum),
          'onDelete', k.confdeltype, 'onUpdate', k.confupdtype) end) order by k.conname), '[]')
      from pg_constraint k
      left join pg_class f on f.oid = k.confrelid
      left join pg_namespace fn on fn.oid = f.relnamespace
      where k.conrelid = t.oid and k.contype in ('p', 'u', 'c', 'f')))), '[]')
  from relations t where t.relkind in ('r', 'p')),
'indexes', (
  select coalesce(jsonb_agg(jsonb_build_object(
    'schema', n.nspname, 'table', t.relname, 'name', i.relname,
    'comment', obj_description(i.oid, 'pg_class'),
    'valid', x.indisvalid and x.indisready, 'unique', x.indisunique,
    'nullsNotDistinct', x.indnullsnotdistinct,
    'method', am.amname, 'where', pg_get_expr(x.indpred, x.indrelid),
    'with', coalesce(to_jsonb(i.reloptions), '[]'),
    'constraint', (select conname from pg_constraint k
      where k.conindid = i.oid and k.contype in ('p', 'u', 'x') limit 1),
    'keys', (
      select jsonb_agg(jsonb_build_object(
        'column', a.attname,
        'expression', case when k.attnum = 0 then pg_get_indexdef(i.oid, p::int, false) end,
        'option', case when p <= x.indnkeyatts then x.indoption[p - 1] else 0 end,
        'opclass', case when p <= x.indnkeyatts then
          (select jsonb_build_array(o.opcname, o.opcdefault)
           from pg_opclass o where o.oid = x.indclass[p - 1]) end,
        'included', p > x.indnkeyatts) order by p)
      from unnest(x.indkey::int2[]) with ordinality as k(attnum, p)
      left join pg_attribute a on a.attrelid = t.oid and a.attnum = k.attnum and k.attnum <> 0))), '[]')
  from pg_index x
  join pg_class i on i.oid = x.indexrelid
  join pg_class t on t.oid = x.indrelid
  join user_schemas n on n.oid = t.relnamespace
  join pg_am am on am.oid = i.relam),
'grants', (
  select coalesce(jsonb_agg(jsonb_build_array(
    kind, schema, name, pg_get_userbyid(grantee), lower(privilege_type), is_grantable)), '[]')
  from acls where grantee <> 0),
'defaults', (
  select coalesce(jsonb_agg(jsonb_build_array(
    pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype, pg_get_userbyid(a.grantee),
    lower(a.privilege_type), a.is_grantable)), '[]')
  from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
  where a.grantee <> 0)
)::text
"""
