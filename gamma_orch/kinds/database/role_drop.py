"""What stands in the way of dropping a role: what it owns, and its privileges, in every database.

PostgreSQL keeps both in one list that all databases share. Called by `role`.
"""

from typing import TYPE_CHECKING

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.database import sql

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres


async def check_owns_nothing(postgres: "Postgres", name: str, what: str) -> None:
    """Raises Permanent where the role owns something in any database: dropping it would drop that."""
    query = """
        select coalesce(d.datname, '') as database, s.classid, s.objid, s.objsubid
        from pg_shdepend s left join pg_database d on d.oid = s.dbid
        where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o'
          and s.refobjid = (select oid from pg_roles where rolname = $1)"""
    async with postgres.connection() as connection:
        owned = await connection.fetch(query, name)
    if not owned:
        return
    where = sorted({row["database"] for row in owned})
    first = where[-1]
    async with postgres.connection(first or None) as connection:
        shown = [
            await connection.fetchval("select pg_describe_object($1, $2, $3)", *list(row)[1:])
            for row in owned
            if row["database"] == first
        ]
    others = ", ".join(sorted(text for text in shown if text)[:5])
    raise Permanent(
        f"{what} owns {others}{f' in database {first!r}' if first else ''}, so it is not dropped. "
        f"Give what it owns to another role (REASSIGN OWNED BY {sql.ident(name)} TO ..., in each "
        "database), then apply again."
    )


async def databases_with_rights(postgres: "Postgres", name: str) -> list[str]:
    """The databases in which the role has privileges on something."""
    query = """
        select distinct coalesce(d.datname, o.datname) as name
        from pg_shdepend s
        left join pg_database d on d.oid = s.dbid
        left join pg_database o on s.dbid = 0 and s.classid = 'pg_database'::regclass and o.oid = s.objid
        where s.refclassid = 'pg_authid'::regclass and s.deptype <> 'o'
          and s.refobjid = (select oid from pg_roles where rolname = $1)
          and coalesce(d.datname, o.datname) is not null"""
    async with postgres.connection() as connection:
        return sorted(row["name"] for row in await connection.fetch(query, name))
