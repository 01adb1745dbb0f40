"""distribute_by: rows land where they should, those that were there stay, and what cannot work is refused."""

from __future__ import annotations

import psycopg2
import pytest

pytestmark = pytest.mark.integration


@pytest.fixture
def numbers(database):
    database.run("create table numbers (id bigint primary key, name text not null default 'none')")
    database.run("insert into numbers select n, 'name ' || n from generate_series(-10, 100) n")
    return database


@pytest.fixture
def events(database):
    database.run("create table events (what text)")
    return database


def distribution(database, table):
    rows = database.run(
        "select kind, column_name, parts, servers from dbcl.distribution where table_name = %s::regclass", table
    )
    return rows[0] if rows else None


def refusal(database, statement):
    with pytest.raises(psycopg2.errors.RaiseException) as caught:
        database.run(statement)
    return str(caught.value).partition("\n")[0]


# -- kinds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_name", ["smallint", "integer", "bigint"])
def test_modulo_is_the_remainder(database, type_name):
    database.run(f"create table numbers (id {type_name} primary key)")
    database.run("select dbcl.distribute_by('numbers', 'modulo', 'id', 5)")
    database.run("insert into numbers select generate_series(-7, 23)")
    expected = {f"numbers_p{part}": [n for n in range(-7, 24) if abs(n) % 5 == part] for part in range(5)}
    assert database.where("numbers", "id") == expected


@pytest.mark.parametrize(
    ("type_name", "value"),
    [("bigint", -(2**63)), ("bigint", 2**63 - 1), ("integer", -(2**31)), ("smallint", -(2**15))],
)
def test_modulo_of_the_least_and_the_greatest(database, type_name, value):
    database.run(f"create table numbers (id {type_name} primary key)")
    database.run("select dbcl.distribute_by('numbers', 'modulo', 'id', 7)")
    database.run("insert into numbers values (%s)", value)
    assert database.where("numbers", "id") == {f"numbers_p{abs(value) % 7}": [value]}


def test_modulo_reads_one_part_only(numbers):
    numbers.run("select dbcl.distribute_by('numbers', 'modulo', 'id', 4)")
    plan = "\n".join(line for (line,) in numbers.run("explain select * from numbers where id = 42"))
    assert "numbers_p2" in plan
    assert "numbers_p1" not in plan


def test_hash_puts_equal_values_together(database):
    database.run("create table words (word text, place integer, primary key (word, place))")
    database.run("select dbcl.distribute_by('words', 'hash', 'word', 3)")
    database.run("insert into words select 'word ' || n % 50, n from generate_series(1, 500) n")
    parts = database.where("words", "word")
    assert set(parts) == {"words_p0", "words_p1", "words_p2"}
    assert sum(len(set(words)) for words in parts.values()) == 50


def test_roundrobin_fills_all_parts_alike(events):
    events.run("select dbcl.distribute_by('events', 'roundrobin', parts => 3)")
    events.run("insert into events (what) select 'same' from generate_series(1, 300)")
    assert {part: len(rows) for part, rows in events.where("events", "what").items()} == {
        "events_p0": 100,
        "events_p1": 100,
        "events_p2": 100,
    }
    assert distribution(events, "events") == ("roundrobin", "dbcl_turn", 3, ["local"] * 3)


def test_replicated_leaves_a_table_as_it_is(numbers):
    before = numbers.one("select 'numbers'::regclass::oid")
    assert numbers.one("select dbcl.distribute_by('numbers', 'replicated')") == 0
    assert numbers.one("select 'numbers'::regclass::oid") == before
    assert distribution(numbers, "numbers") is None


# -- tables with rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [["hash"], ["modulo"], ["hash", "modulo"], ["modulo", "replicated"]])
def test_rows_keys_and_defaults_survive(numbers, kinds):
    before = numbers.run("select * from numbers order by id")
    for kind in kinds:
        column = None if kind == "replicated" else "id"
        assert numbers.one("select dbcl.distribute_by('numbers', %s, %s)", kind, column) == len(before)
    assert numbers.run("select * from numbers order by id") == before
    with pytest.raises(psycopg2.errors.UniqueViolation):
        numbers.run("insert into numbers values (1)")
    numbers.run("insert into numbers (id) values (101)")
    assert numbers.one("select name from numbers where id = 101") == "none"
    expected = None if kinds[-1] == "replicated" else (kinds[-1], "id", 4, ["local"] * 4)
    assert distribution(numbers, "numbers") == expected


def test_roundrobin_and_back(events):
    events.run("insert into events select 'event ' || n from generate_series(1, 10) n")
    events.run("select dbcl.distribute_by('events', 'roundrobin', parts => 2)")
    events.run("select dbcl.distribute_by('events', 'roundrobin', parts => 5)")
    assert [len(rows) for rows in events.where("events", "what").values()] == [2] * 5
    events.run("select dbcl.distribute_by('events', 'replicated')")
    assert events.one("select count(*) from events") == 10
    assert [
        name
        for (name,) in events.run(
            "select attname from pg_attribute where attrelid = 'events'::regclass and attnum > 0 and not attisdropped"
        )
    ] == ["what"]


def test_indexes_privileges_comments_and_sequences_survive(database):
    database.run(
        "create table t (id integer generated by default as identity, n serial, word text, check (word <> ''))"
    )
    database.run("alter table t add primary key (id)")
    database.run("create index by_word on t (lower(word))")
    database.run("comment on table t is 'words'")
    database.run(f"grant select on t to {database.server.user}")
    database.run("insert into t (word) select 'w' from generate_series(1, 20)")

    database.run("select dbcl.distribute_by('t', 'hash', 'id')")

    database.run("insert into t (word) values ('next')")
    assert database.run("select id, n from t order by id desc limit 1") == [(21, 21)]
    assert database.one("select obj_description('t'::regclass)") == "words"
    assert database.one(f"select has_table_privilege('{database.server.user}', 't', 'select')")
    assert database.one("select count(*) from pg_indexes where indexname = 'by_word' and tablename = 't'") == 1
    assert (
        database.one("select conname from pg_constraint where conrelid = 't'::regclass and contype = 'p'") == "t_pkey"
    )
    with pytest.raises(psycopg2.errors.CheckViolation):
        database.run("insert into t (word) values ('')")


def test_names_that_need_quotes(database):
    database.run('create schema "Old Schema"')
    database.run('create table "Old Schema"."My Table" ("The Key" integer primary key)')
    database.run('insert into "Old Schema"."My Table" select generate_series(1, 9)')
    database.run("""select dbcl.distribute_by('"Old Schema"."My Table"', 'modulo', 'The Key', 2)""")
    assert database.one('select count(*) from "Old Schema"."My Table_p1"') == 5


def test_a_failure_changes_nothing(numbers):
    refusal(numbers, "select dbcl.distribute_by('numbers', 'hash', 'id', servers => array['local', 'nowhere'])")
    assert numbers.one("select count(*) from numbers") == 111
    assert distribution(numbers, "numbers") is None


def test_the_functions_may_be_installed_again(numbers):
    numbers.run("select dbcl.distribute_by('numbers', 'modulo', 'id')")
    numbers.install()
    assert numbers.one("select count(*) from numbers") == 111


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("'numbers', 'mirrored'", "There is no kind mirrored"),
        ("'numbers', 'hash'", "hash needs a column"),
        ("'numbers', 'hash', 'colour'", "numbers has no column colour"),
        ("'numbers', 'modulo', 'name'", "modulo needs a column of whole numbers; public.numbers.name is text"),
        ("'numbers', 'hash', 'name'", "The key public.numbers_pkey of public.numbers does not contain name"),
        ("'numbers', 'roundrobin'", "numbers has the key public.numbers_pkey"),
        ("'numbers', 'roundrobin', 'id'", "roundrobin takes no column"),
        ("'numbers', 'hash', 'id', 0", "1 to 1024 parts"),
        ("'numbers', 'replicated', null, 3", "replicated has neither parts nor servers"),
        ("'numbers', 'hash', 'id', servers => array['east']", "There is no server east"),
    ],
)
def test_what_cannot_work_is_refused(numbers, call, sentence):
    assert sentence in refusal(numbers, f"select dbcl.distribute_by({call})")


@pytest.mark.parametrize(
    ("preparation", "sentence"),
    [
        ("create view v as select * from numbers", "The view public.v reads public.numbers"),
        ("create table r (id bigint references numbers)", "public.r refers to public.numbers by a foreign key"),
        (
            "create table o (id bigint primary key); alter table numbers add foreign key (id) references o not valid",
            "numbers has the constraint numbers_id_fkey",
        ),
        (
            "create trigger t before update on numbers for each row execute function suppress_redundant_updates_trigger()",
            "numbers has the trigger or policy t",
        ),
        ("create table child () inherits (numbers)", "numbers inherits, or is inherited from"),
    ],
)
def test_what_would_be_lost_is_refused(numbers, preparation, sentence):
    numbers.run(preparation)
    assert sentence in refusal(numbers, "select dbcl.distribute_by('numbers', 'hash', 'id')")


def test_what_is_no_table_of_ours_is_refused(database):
    database.run("create table years (y integer) partition by range (y)")
    assert "partitioned by somebody else" in refusal(database, "select dbcl.distribute_by('years', 'hash', 'y')")
    database.run("create temporary table mine (id integer)")
    assert "not an ordinary table" in refusal(database, "select dbcl.distribute_by('mine', 'hash', 'id')")


# -- other clusters ----------------------------------------------------------------------------------------------


@pytest.fixture
def east(database, elsewhere):
    """Another cluster that is known as `east`."""
    database.run(
        "select dbcl.add_server('east', '127.0.0.1', %s, %s, 'owner', port => %s, sslmode => 'disable')",
        elsewhere.name,
        elsewhere.owner,
        elsewhere.server.port,
    )
    return elsewhere


def tables(there):
    return there.run(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1"
    )


def test_parts_on_another_cluster(numbers, east):
    assert numbers.one("select dbcl.distribute_by('numbers', 'modulo', 'id', 4, array['local', 'east'])") == 111
    numbers.run("insert into numbers values (1001, 'odd'), (1002, 'even')")

    assert distribution(numbers, "numbers") == ("modulo", "id", 4, ["local", "east", "local", "east"])
    assert numbers.where("numbers", "id")["numbers_p1"] == [n for n in [*range(-10, 101), 1001] if abs(n) % 4 == 1]
    names = [name for (name,) in tables(east)]
    assert [name[:10] for name in names] == ["numbers_p1", "numbers_p3"]
    there = [value for name in names for (value,) in east.run(f"select id from {name}")]  # noqa: S608 - from the catalogue
    assert sorted(there) == sorted(n for n in [*range(-10, 101), 1001] if n % 2)
    for taken in (1, 2):
        with pytest.raises(psycopg2.errors.UniqueViolation):
            numbers.run("insert into numbers values (%s)", taken)


def test_from_another_cluster_and_back(numbers, east):
    before = numbers.run("select * from numbers order by id")
    numbers.run("create index by_name on numbers (name)")
    numbers.run("select dbcl.distribute_by('numbers', 'hash', 'id', 2, array['east', 'local'])")
    assert east.one("select count(*) from pg_indexes where indexdef like '%(name)%'") == 1
    numbers.run("select dbcl.distribute_by('numbers', 'modulo', 'id', 3, array['east'])")
    numbers.run("select dbcl.distribute_by('numbers', 'replicated')")
    assert numbers.run("select * from numbers order by id") == before
    with pytest.raises(psycopg2.errors.UniqueViolation):
        numbers.run("insert into numbers values (1)")
    assert numbers.one("select dbcl.drop_leftovers()") == 4
    assert tables(east) == []


def test_a_server_can_be_changed(database, elsewhere):
    for port in (1, elsewhere.server.port):
        database.run(
            "select dbcl.add_server('east', '127.0.0.1', %s, %s, 'owner', port => %s, sslmode => 'disable')",
            elsewhere.name,
            elsewhere.owner,
            port,
        )
    database.run("create table numbers (id integer primary key)")
    database.run("select dbcl.distribute_by('numbers', 'hash', 'id', servers => array['east'])")
    assert len(tables(elsewhere)) == 1


def test_the_names_of_servers_are_plain(database):
    assert "The name of a server" in refusal(database, "select dbcl.add_server('No Way', 'h', 'd', 'u', 'p')")
    assert "The name of a server" in refusal(database, "select dbcl.add_server('local', 'h', 'd', 'u', 'p')")
