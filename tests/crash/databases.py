"""The scenario on PostgreSQL: a project as it was, what happened since, and what it becomes.

Settings that are reloaded and one that restarts the server, an extension, schemas, tables that are
made and tables that grow, indexes that are built, swapped, renamed, adopted and dropped while the
table is in use, roles with grants and passwords, and drift of each sort.
"""

from collections.abc import Mapping

CANARY = "canary-of-databases"
BEFORE, AFTER = (f"{CANARY}-{version}" for version in (1, 2))

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets:
    api-password: {env: API_PASSWORD}
  targets:
    main: {type: postgres, embedded: true}
"""


def resource(kind: str, name: str, spec: str, metadata: str = "") -> str:
    return f"---\napiVersion: gamma/v1\nkind: {kind}\nmetadata: {{name: {name}{metadata}}}\nspec: {spec}\n"


def database(settings: str, extensions: str) -> str:
    spec = f"{{settings: {{{settings}}}, extensions: [{extensions}], allowRestart: true}}"
    return resource("Database", "app", spec, ", lifecycle: {protect: true}")


def schema(name: str) -> str:
    return resource("Schema", name, "{database: app}")


def table(name: str, columns: str, rest: str = "", metadata: str = "") -> str:
    given = f"id: {{type: bigint, identity: always}}, {columns}"
    spec = f"{{database: app, schema: app, columns: {{{given}}}, primaryKey: [id]{rest}}}"
    return resource("Table", name, spec, metadata)


def index(name: str, on: str, columns: str, rest: str = "", metadata: str = "") -> str:
    return resource("Index", name, f"{{table: {on}, columns: [{columns}]{rest}}}", metadata)


def role(name: str, spec: str) -> str:
    return resource("Role", name, spec)


def grant(on: str, privileges: str, rest: str = "") -> str:
    return f"{{on: {on}, database: app, schema: app, privileges: [{privileges}]{rest}}}"


TEXT, WHOLE = "{type: text}", "{type: integer, default: 0}"
ACCOUNT = "account_id: {type: bigint}"
OF_ACCOUNT = ", foreignKeys: [{columns: [account_id], references: accounts, onDelete: cascade}]"


def before() -> dict[str, str]:
    """The project as it was applied last."""
    parts = [database("work_mem: 4MB, log_min_duration_statement: 500ms", "pg_trgm"), schema("app")]
    parts += [
        table("accounts", f"email: {TEXT}, name: {TEXT}"),
        table("orders", f"{ACCOUNT}, total: {WHOLE}, note: {TEXT}", OF_ACCOUNT),
        table("logs", f"at: {{type: timestamptz, default: now()}}, line: {TEXT}"),
        table("scratch", f"x: {WHOLE}"),
        table("archive", f"x: {WHOLE}", metadata=", lifecycle: {retain: true}"),
        index("accounts-email", "accounts", "email"),
        index("accounts-name", "accounts", "name"),
        index("orders-account", "orders", "account_id"),
        index("orders-total", "orders", "total"),
        index("orders-old", "orders", "note, total"),
        index("logs-at", "logs", "at"),
        index("logs-line", "logs", "line"),
        index("logs-text", "logs", "{expression: lower(line)}"),
        role("readers", f"{{login: false, grants: [{grant('schema', 'usage')}, "
             f"{{on: table, tables: [accounts, orders], privileges: [select]}}]}}"),
        role("api", "{password: '${secret.api-password}', memberOf: [readers], connectionLimit: 20}"),
        role("leaving", f"{{grants: [{grant('schema', 'usage')}]}}"),
    ]  # fmt: skip
    return {"environments/dev/environment.yaml": ENVIRONMENT, "specs/app.yaml": "".join(parts)}


def after() -> dict[str, str]:
    """The project as it is to be applied."""
    settings = "work_mem: 8MB, log_min_duration_statement: 250ms, max_connections: 40"
    parts = [database(settings, "pg_trgm, btree_gin"), schema("app"), schema("reports")]
    parts += [
        table("accounts", f"email: {TEXT}, name: {TEXT}, plan: {{type: text, default: \"'free'\"}}",
              ", checks: {known_plan: \"plan in ('free', 'paid')\"}"),
        table("orders", f"{ACCOUNT}, total: {WHOLE}, note: {TEXT}, paid: {WHOLE}", OF_ACCOUNT),
        table("journal", f"at: {{type: timestamptz, default: now()}}, line: {TEXT}",
              metadata=", moved: {from: Table/logs}").replace("schema: app,", "schema: app, name: logs,"),
        table("items", "order_id: {type: bigint}",
              ", foreignKeys: [{columns: [order_id], references: orders}]"),
        table("parts", "item_id: {type: bigint}", ", foreignKeys: [{columns: [item_id], references: items}]"),
        table("days", "day: {type: date}", ", unique: [[day]]").replace("schema: app", "schema: reports"),
        index("accounts-email", "accounts", "{expression: lower(email)}", ", unique: true"),
        index("accounts-name", "accounts", "name", ", include: [email]"),
        index("accounts-plan", "accounts", "plan", ", where: \"plan <> 'free'\""),
        index("orders-account", "orders", "account_id, {column: total, order: desc}"),
        index("orders-total", "orders", "total"),
        index("orders-note", "orders", "note"),
        index("journal-at", "journal", "at", metadata=", moved: {from: Index/logs-at}"),
        index("logs-line", "journal", "line"),
        index("logs-text", "journal", "{expression: lower(line)}"),
        index("items-order", "items", "order_id"),
        index("parts-item", "parts", "item_id"),
        index("parts-brin", "parts", "id", ", method: brin"),
        role("readers", f"{{login: false, grants: [{grant('schema', 'usage')}, "
             "{on: table, tables: [accounts, orders, items, parts], privileges: [select]}], "
             "defaultPrivileges: [{on: table, database: app, schema: app, privileges: [select]}]}"),
        role("writers", f"{{login: false, memberOf: [readers], grants: [{grant('schema', 'usage')}, "
             "{on: table, tables: [orders, items], privileges: [insert, update]}]}"),
        role("api", "{password: '${secret.api-password}', memberOf: [writers], connectionLimit: 30}"),
        role("reporting", "{password: '${secret.api-password}', builtinRoles: [pg_monitor], "
             f"grants: [{grant('schema', 'usage', ', schema: reports').replace('schema: app, ', '')}]}}"),
    ]  # fmt: skip
    return {"environments/dev/environment.yaml": ENVIRONMENT, "specs/app.yaml": "".join(parts)}


# What others did since. The rows are what must not be lost, and what an index is built over.
MEANWHILE = (
    "INSERT INTO app.accounts (email, name) SELECT 'a' || n || '@example.org', 'name ' || n "
    "FROM generate_series(1, 300) n",
    "INSERT INTO app.orders (account_id, total, note) SELECT 1 + n % 300, n, 'note ' || n "
    "FROM generate_series(1, 900) n",
    "INSERT INTO app.logs (line) SELECT 'line ' || n FROM generate_series(1, 900) n",
    "DROP INDEX app.orders_total",
    "CREATE INDEX orders_note ON app.orders (note)",
    "ALTER ROLE api CONNECTION LIMIT 5",
    "REVOKE SELECT ON app.orders FROM readers",
    "ALTER SYSTEM SET work_mem = '5MB'",
    "SELECT pg_reload_conf()",
    "CREATE TABLE app.theirs (x integer)",
    "CREATE INDEX theirs_x ON app.theirs (x)",
)

# A log of what was done to the database, kept by the database: an effect that is done twice shows.
WITNESS = """
CREATE SCHEMA witness;
CREATE TABLE witness.log (tag text, what text);
CREATE FUNCTION witness.saw() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE one record;
BEGIN
  FOR one IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
    INSERT INTO witness.log VALUES (one.command_tag, one.object_identity);
  END LOOP;
END $$;
CREATE EVENT TRIGGER witness ON ddl_command_end EXECUTE FUNCTION witness.saw();
"""

# All of a database and its server that Gamma may have touched, without identities.
WORLD = """
WITH mine AS (SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('app', 'reports', 'public', 'witness'))
SELECT json_build_object(
  'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings
               WHERE sourcefile LIKE '%postgresql.auto.conf'),
  'pending', (SELECT json_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart),
  'databases', (SELECT json_object_agg(datname, json_build_array(datacl::text,
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
      'kind', c.relkind, 'comment', obj_description(c.oid, 'pg_class'),
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
                 defaclobjtype, defaclacl::text) ORDER BY defaclnamespace::regnamespace::text, defaclobjtype)
               FROM pg_default_acl)
)"""


def variables(password: str) -> Mapping[str, str]:
    return {"API_PASSWORD": password}
