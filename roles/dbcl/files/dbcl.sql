-- How the rows of a table are distributed: schema dbcl, for owners of tables. docs/dbcl-tables.md says which kind to choose.
--
--   select dbcl.distribute_by('messages', 'hash', 'username');
--   select dbcl.distribute_by('readings', 'modulo', 'device', parts => 8);
--   select dbcl.distribute_by('events', 'roundrobin', servers => array['local', 'east']);
--   select dbcl.distribute_by('messages', 'replicated');
--   select * from dbcl.distribution;
--
-- May be run again at any time.

create schema if not exists dbcl;
create extension if not exists postgres_fdw;
create extension if not exists dblink;

-- Keys of tables that have parts on other servers: PostgreSQL has them on the parts only.
create table if not exists dbcl.keys (
    table_name regclass primary key,
    definitions jsonb not null
);
-- Tables on other servers that nothing here refers to any more.
create table if not exists dbcl.leftovers (
    server text,
    table_name text,
    primary key (server, table_name)
);

-- ---------------------------------------------------------------------------------------------------------------
-- modulo: native hash partitioning, by operator classes whose hash of a number is the number itself.
--
-- PostgreSQL starts from 0 and combines the hash of each column with it: for one column, the result is the hash plus the
-- constant below. Taking it away beforehand leaves the number, and the partition is abs(number) % parts. Unlike a list of
-- (number % parts), this may be a primary key, and the planner leaves out partitions that cannot match.

create or replace function dbcl.modulo_hash(value bigint, seed bigint) returns bigint
    language sql immutable strict parallel safe
    -- The absolute value of the least number does not fit into a bigint; its difference does.
    return case when value = -9223372036854775808 then 3917862445420009245
                else abs(value) - 5305509591434766563 end;

create or replace function dbcl.modulo_hash(value integer, seed bigint) returns bigint
    language sql immutable strict parallel safe
    return abs(value::bigint) - 5305509591434766563;

create or replace function dbcl.modulo_hash(value smallint, seed bigint) returns bigint
    language sql immutable strict parallel safe
    return abs(value::bigint) - 5305509591434766563;

-- One family, so that a bigint column that is compared with an integer is understood as well.
do $$
declare
    types text[] := array['smallint', 'integer', 'bigint'];
    one text;
    other text;
begin
    if exists (select from pg_opfamily where opfnamespace = 'dbcl'::regnamespace and opfname = 'modulo') then
        return;
    end if;
    create operator family dbcl.modulo using hash;
    foreach one in array types loop
        execute format('create operator class dbcl.%I for type %s using hash family dbcl.modulo as '
                       'operator 1 =, function 2 dbcl.modulo_hash(%2$s, bigint)', 'modulo_' || one, one);
    end loop;
    foreach one in array types loop
        foreach other in array types loop
            continue when one = other;
            execute format('alter operator family dbcl.modulo using hash add operator 1 = (%s, %s)', one, other);
        end loop;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- What is distributed how.

create or replace view dbcl.distribution as
select p.partrelid::regclass as table_name,
       case when c.opcnamespace <> 'dbcl'::regnamespace then 'hash'
            when a.attname = 'dbcl_turn' then 'roundrobin'
            else 'modulo' end as kind,
       a.attname as column_name,
       i.parts,
       i.servers
  from pg_partitioned_table p
  join pg_opclass c on c.oid = p.partclass[0]
  join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
  cross join lateral (
        select count(*)::integer as parts, array_agg(coalesce(s.srvname::text, 'local') order by h.inhrelid) as servers
          from pg_inherits h
          left join pg_foreign_table f on f.ftrelid = h.inhrelid
          left join pg_foreign_server s on s.oid = f.ftserver
         where h.inhparent = p.partrelid) i
 where p.partstrat = 'h' and p.partnatts = 1;

-- ---------------------------------------------------------------------------------------------------------------
-- Other clusters.

create or replace function dbcl.add_server(
    name text, host text, dbname text, username text, password text,
    port integer default 5432, sslmode text default 'verify-full', sslrootcert text default '/etc/dbcl/ca.crt'
) returns void
    language plpgsql
    set search_path = pg_catalog, dbcl, public as $$
-- Makes another cluster known, or changes what is known of it. `host` may be several addresses with commas between them; the
-- one that accepts writes is used. What is read and written there is so as `username`, in its database `dbname`.
begin
    if name !~ '^[a-z_][a-z0-9_]{0,40}$' or name = 'local' then
        raise exception 'The name of a server consists of lower-case letters, digits and _, and is not "local": %', name;
    end if;
    if exists (select from pg_foreign_server where srvname = name) then
        execute format('drop user mapping if exists for current_user server %I', name);
        execute format('alter server %I options (set host %L, set port %L, set dbname %L, set sslmode %L, set sslrootcert %L)',
                       name, host, port, dbname, sslmode, sslrootcert);
    else
        execute format(
            'create server %I foreign data wrapper postgres_fdw options (host %L, port %L, dbname %L, sslmode %L, sslrootcert %L, '
            'target_session_attrs ''read-write'', connect_timeout ''3'', tcp_user_timeout ''10000'', async_capable ''true'', '
            'batch_size ''500'')', name, host, port, dbname, sslmode, sslrootcert);
    end if;
    execute format('create user mapping for current_user server %I options (user %L, password %L)', name, username, password);
end $$;

create or replace function dbcl.drop_leftovers() returns integer
    language plpgsql
    set search_path = pg_catalog, dbcl, public as $$
-- Drops the tables on other servers that were emptied by an earlier distribute_by; not in the same transaction. Returns how many.
declare
    each record;
    dropped integer := 0;
begin
    for each in select * from leftovers loop
        perform dblink_exec(each.server, format('drop table if exists %I', each.table_name));
        delete from leftovers l where l.server = each.server and l.table_name = each.table_name;
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- What is refused.

create or replace function dbcl._check_table(target regclass) returns void
    language plpgsql stable as $$
declare
    relation pg_class := (select c from pg_class c where c.oid = target);
    found text;
begin
    if relation.relkind not in ('r', 'p') or relation.relispartition or relation.relpersistence <> 'p' then
        raise exception '% is not an ordinary table: views, partitions, foreign, temporary and unlogged tables cannot be distributed.',
            target;
    end if;
    if relation.relkind = 'p' and not exists (select from dbcl.distribution where table_name = target) then
        raise exception '% is partitioned by somebody else; dbcl.distribute_by leaves it alone.', target;
    end if;
    select conrelid::regclass::text into found from pg_constraint
     where confrelid = target and contype = 'f' and conparentid = 0 and conrelid <> target limit 1;
    if found is not null then
        raise exception '% refers to % by a foreign key: take the key away first, and add it again afterwards.', found, target;
    end if;
    select conname into found from pg_constraint
     where conrelid = target and contype in ('f', 'x') and conparentid = 0 limit 1;
    if found is not null then
        raise exception '% has the constraint %, a foreign key or an exclusion: take it away first, and add it again afterwards.',
            target, found;
    end if;
    select r.ev_class::regclass::text into found from pg_depend d join pg_rewrite r on r.oid = d.objid
     where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = target
       and r.ev_class <> target limit 1;
    if found is not null then
        raise exception 'The view % reads %: drop it first, and make it again afterwards.', found, target;
    end if;
    select coalesce((select tgname from pg_trigger where tgrelid = target and not tgisinternal limit 1),
                    (select polname from pg_policy where polrelid = target limit 1)) into found;
    if found is not null then
        raise exception '% has the trigger or policy %: drop it first, and make it again afterwards.', target, found;
    end if;
    select inhrelid::regclass::text into found from pg_inherits
     where (inhparent = target and relation.relkind = 'r') or inhrelid = target limit 1;
    if found is not null then
        raise exception '% inherits, or is inherited from.', target;
    end if;
end $$;

create or replace function dbcl._check_column(target regclass, kind text, column_name name) returns void
    language plpgsql stable as $$
declare
    type_name text;
    bad text;
begin
    if kind in ('replicated', 'roundrobin') then
        if column_name is not null then
            raise exception '% takes no column.', kind;
        end if;
        select i.indexrelid::regclass::text into bad from pg_index i where i.indrelid = target and i.indisunique limit 1;
        if kind = 'roundrobin' and bad is not null then
            raise exception '% has the key %: rows that come in turn can be anywhere, so nobody could keep a key unique. Take hash.',
                target, bad;
        end if;
        return;
    end if;
    if column_name is null then
        raise exception '% needs a column: dbcl.distribute_by(''%'', ''%'', ''column'').', kind, target, kind;
    end if;
    select format_type(atttypid, null) into type_name from pg_attribute
     where attrelid = target and attname = column_name and attnum > 0 and not attisdropped;
    if type_name is null then
        raise exception '% has no column %.', target, column_name;
    end if;
    if kind = 'modulo' and type_name not in ('smallint', 'integer', 'bigint') then
        raise exception 'modulo needs a column of whole numbers; %.% is %. Take hash.', target, column_name, type_name;
    end if;
    select i.indexrelid::regclass::text into bad from pg_index i
     where i.indrelid = target and i.indisunique
       and (i.indexprs is not null or not exists (
            select from unnest(i.indkey::smallint[]) with ordinality k(attnum, place)
              join pg_attribute a on a.attrelid = target and a.attnum = k.attnum
             where a.attname = column_name and k.place <= i.indnkeyatts))
     limit 1;
    if bad is not null then
        raise exception 'The key % of % does not contain %: a part could not tell whether a value is in another one. '
            'Distribute by a column of the key, or have the key contain it.', bad, target, column_name;
    end if;
end $$;

create or replace function dbcl._check_servers(servers text[]) returns void
    language plpgsql stable as $$
declare
    bad text;
begin
    select s into bad from unnest(servers) s
     where s is null or (s <> 'local' and not exists (select from pg_foreign_server where srvname = s)) limit 1;
    if found then
        raise exception 'There is no server %: make it known by dbcl.add_server, or take ''local''.', coalesce(bad, 'null');
    end if;
end $$;

-- ---------------------------------------------------------------------------------------------------------------
-- The steps of distribute_by.

create or replace function dbcl._make_remote(server text, remote text, target regclass, fresh regclass, keys jsonb)
    returns void
    language plpgsql
    set search_path = pg_catalog, dbcl, public as $$
-- Makes the empty table of a part on another server: columns, keys and indexes. Defaults are filled in here.
declare
    ddl text;
begin
    select format('create table %I (%s)', remote, string_agg(
               format('%I %s%s', attname, format_type(atttypid, atttypmod), case when attnotnull then ' not null' else '' end),
               ', ' order by attnum))
      into ddl from pg_attribute where attrelid = fresh and attnum > 0 and not attisdropped;
    perform dblink_exec(server, ddl);
    for ddl in select format('alter table %I add %s', remote, value ->> 'definition') from jsonb_array_elements(keys) loop
        perform dblink_exec(server, ddl);
    end loop;
    for ddl in select regexp_replace(definition, '^CREATE INDEX \S+ ON (ONLY )?\S+ ', format('create index on %I ', remote))
                 from _indexes(target) loop
        perform dblink_exec(server, ddl);
    end loop;
end $$;

create or replace function dbcl._keys(target regclass) returns jsonb
    language sql stable as $$
    -- Primary key and unique constraints, as PostgreSQL has them or as they were noted.
    select coalesce(
        (select definitions from dbcl.keys where table_name = target),
        (select jsonb_agg(jsonb_build_object('name', conname, 'definition', pg_get_constraintdef(oid)))
           from pg_constraint where conrelid = target and contype in ('p', 'u')),
        '[]')
$$;

create or replace function dbcl._indexes(target regclass) returns table (name text, definition text)
    language sql stable as $$
    -- Indexes that are not a constraint's.
    select c.relname, pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = target and not exists (select from pg_constraint where conindid = i.indexrelid)
$$;

create or replace function dbcl._copy_settings(target regclass, fresh regclass) returns void
    language plpgsql
    set search_path = pg_catalog as $$
-- Gives the new table what `like` does not copy: privileges, comment, owner, the sequences' positions and who owns them.
declare
    each record;
    last bigint;
    called boolean;
begin
    for each in select case when grantee = 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end as grantee,
                       privilege_type, is_grantable
                  from pg_class, aclexplode(relacl) where oid = target loop
        execute format('grant %s on %s to %s%s', each.privilege_type, fresh, each.grantee,
                       case when each.is_grantable then ' with grant option' else '' end);
    end loop;
    execute format('comment on table %s is %L', fresh, obj_description(target, 'pg_class'));
    for each in select attname, attidentity, pg_get_serial_sequence(target::text, attname) as sequence from pg_attribute
                 where attrelid = target and attnum > 0 and not attisdropped and attname <> 'dbcl_turn' loop
        continue when each.sequence is null;
        if each.attidentity = '' then
            execute format('alter sequence %s owned by %s.%I', each.sequence, fresh, each.attname);
        else
            execute format('select last_value, is_called from %s', each.sequence) into last, called;
            perform setval(pg_get_serial_sequence(fresh::text, each.attname), last, called);
        end if;
    end loop;
end $$;

create or replace function dbcl._make_fresh(target regclass, kind text, column_name name) returns regclass
    language plpgsql
    set search_path = pg_catalog, dbcl as $$
-- Makes the new table, without parts, keys and rows, beside the present one.
declare
    space text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target);
    name text := format('dbcl_fresh_%s', target::oid);
    turn text := format('dbcl_turn_%s', target::oid);
    type_name text;
    fresh regclass;
begin
    type_name := (select format_type(atttypid, null) from pg_attribute where attrelid = target and attname = column_name);
    execute format('create table %I.%I (like %s including all excluding indexes%s) %s', space, name, target,
        case when kind = 'roundrobin' then format(', %I bigint not null', turn) else '' end,
        case kind when 'replicated' then ''
                  when 'hash' then format('partition by hash (%I)', column_name)
                  when 'modulo' then format('partition by hash (%I dbcl.%I)', column_name, 'modulo_' || type_name)
                  else format('partition by hash (%I dbcl.modulo_bigint)', turn) end);
    fresh := format('%I.%I', space, name)::regclass;
    if exists (select from pg_attribute where attrelid = fresh and attname = 'dbcl_turn' and not attisdropped) then
        execute format('alter table %s drop column dbcl_turn', fresh);
    end if;
    if kind = 'roundrobin' then
        execute format('alter table %s rename column %I to dbcl_turn', fresh, turn);
        execute format('create sequence %I.%I minvalue 0 owned by %s.dbcl_turn', space, turn || '_' || fresh::oid, fresh);
        execute format('alter table %s alter column dbcl_turn set default nextval(%L)', fresh,
                       format('%I.%I', space, turn || '_' || fresh::oid));
    end if;
    return fresh;
end $$;

create or replace function dbcl._make_parts(
    target regclass, fresh regclass, base text, parts integer, servers text[], keys jsonb
) returns void
    language plpgsql
    set search_path = pg_catalog, dbcl as $$
-- Makes the parts: the first one on the first server, the next one on the next server, and so on around.
declare
    space text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = fresh);
    part text;
    server text;
    remote text;
begin
    for number in 0 .. parts - 1 loop
        part := format('%s_p%s', base, number);
        server := servers[1 + number % cardinality(servers)];
        if server = 'local' then
            execute format('create table %I.%I partition of %s for values with (modulus %s, remainder %s)',
                           space, part, fresh, parts, number);
        else
            remote := format('%s_%s', part, fresh::oid);
            perform _make_remote(server, remote, target, fresh, keys);
            execute format('create foreign table %I.%I partition of %s for values with (modulus %s, remainder %s) server %I '
                           'options (table_name %L)', space, part, fresh, parts, number, server, remote);
        end if;
    end loop;
end $$;

create or replace function dbcl._move_rows(target regclass, fresh regclass) returns bigint
    language plpgsql
    set search_path = pg_catalog, dbcl as $$
declare
    columns text;
    moved bigint;
begin
    select string_agg(quote_ident(attname), ', ' order by attnum) into columns from pg_attribute
     where attrelid = target and attnum > 0 and not attisdropped and attgenerated = '' and attname <> 'dbcl_turn';
    execute format('insert into %s (%s) overriding system value select %s from %s', fresh, columns, columns, target);
    get diagnostics moved = row_count;
    return moved;
end $$;

create or replace function dbcl._add_keys(fresh regclass, foreign_parts boolean, keys jsonb) returns void
    language plpgsql
    set search_path = pg_catalog, dbcl as $$
-- Adds the keys; where parts are on other servers, to each part that is here, and notes them.
declare
    key record;
    part regclass;
begin
    if foreign_parts then
        insert into keys values (fresh, keys);
    end if;
    for key in select value ->> 'name' as name, value ->> 'definition' as definition from jsonb_array_elements(keys) loop
        if not foreign_parts then
            execute format('alter table %s add constraint %I %s', fresh, key.name, key.definition);
            continue;
        end if;
        for part in select inhrelid::regclass from pg_inherits join pg_class on oid = inhrelid
                     where inhparent = fresh and relkind = 'r' loop
            execute format('alter table %s add %s', part, key.definition);
        end loop;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------

create or replace function dbcl.distribute_by(
    target regclass, kind text, column_name name default null, parts integer default null,
    servers text[] default null
) returns bigint
    language plpgsql
    set search_path = pg_catalog, dbcl as $$
-- Distributes the rows of a table, those that it has and those to come. Returns how many were moved.
--
-- kind     replicated  not at all: the whole table is on every member of the cluster, as everything is
--          hash        by the hash of a column
--          modulo      by the remainder of a column of whole numbers: abs(column) % parts
--          roundrobin  one after the other, whatever is in them
-- parts    how many; 4, or as many as there are servers
-- servers  where they are, taken in turn: 'local' and names of dbcl.add_server
--
-- Nobody reads or writes the table meanwhile; all of it is one transaction, except empty tables on other servers that a
-- failure leaves behind.
declare
    base text := (select relname from pg_class where oid = target);
    space text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target);
    owner text := (select pg_get_userbyid(relowner) from pg_class where oid = target);
    places text[] := coalesce(servers, array['local']);
    number integer := coalesce(parts, cardinality(servers), 4);
    foreign_parts boolean := exists (select from unnest(places) place where place <> 'local');
    fresh regclass;
    keys jsonb;
    indexes text[];
    each record;
    moved bigint;
begin
    if kind not in ('replicated', 'hash', 'modulo', 'roundrobin') or kind is null then
        raise exception 'There is no kind %: take replicated, hash, modulo or roundrobin.', coalesce(kind, 'null');
    end if;
    if number not between 1 and 1024 or (kind = 'replicated' and (parts is not null or servers is not null)) then
        raise exception 'A table has 1 to 1024 parts; replicated has neither parts nor servers.';
    end if;
    if length(base) > 40 then
        raise exception 'The name of % is too long for those of its parts: 40 letters at most.', target;
    end if;
    execute format('lock table %s in access exclusive mode', target);
    perform _check_table(target), _check_servers(places), _check_column(target, kind, column_name);
    if kind = 'replicated' and (select relkind from pg_class where oid = target) = 'r' then
        return 0;
    end if;

    -- The names are for the new ones.
    for each in select inhrelid::regclass as part, c.relkind, s.srvname, o.option_value as remote
                  from pg_inherits
                  join pg_class c on c.oid = inhrelid
                  left join pg_foreign_table f on f.ftrelid = inhrelid
                  left join pg_foreign_server s on s.oid = f.ftserver
                  left join lateral pg_options_to_table(f.ftoptions) o on o.option_name = 'table_name'
                 where inhparent = target loop
        execute format('alter table %s rename to %I', each.part, format('dbcl_old_%s', each.part::oid));
        if each.relkind = 'f' then
            insert into leftovers values (each.srvname, each.remote);
        end if;
    end loop;

    if foreign_parts and exists (select from _indexes(target) where definition like 'CREATE UNIQUE %') then
        raise exception '% has a unique index that is no constraint: make it one, since parts on other servers need it as such.', target;
    end if;
    keys := _keys(target);
    indexes := array(select definition from _indexes(target));
    fresh := _make_fresh(target, kind, column_name);
    execute format('alter table %s owner to %I', fresh, owner);
    if kind <> 'replicated' then
        perform _make_parts(target, fresh, base, number, places, keys);
    end if;
    moved := _move_rows(target, fresh);
    perform _copy_settings(target, fresh);
    delete from keys k where k.table_name = target;
    execute format('drop table %s', target);
    execute format('alter table %s rename to %I', fresh, base);
    perform _add_keys(fresh, foreign_parts, keys);
    for index in 1 .. cardinality(indexes) loop
        execute replace(indexes[index], ' ON ONLY ', ' ON ');
    end loop;
    execute format('analyze %s', fresh);
    return moved;
end $$;
