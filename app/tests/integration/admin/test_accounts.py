"""mongooseimctl: accounts."""

from __future__ import annotations

from tests.support.accounts import Account, fresh_name
from tests.support.client import SASL
from tests.support.matching import assert_matches

HOST = "localhost"


async def may_log_in(server, account: Account) -> bool:
    client = await server.stream()
    answer = await client.sasl(account)
    return bool(answer.tag == f"{{{SASL}}}success")


async def test_register(server, ctl):
    new = Account(fresh_name("new"), HOST, "open sesame")
    assert await ctl.text("register", new.user, HOST, new.password) == f"User {new.jid} successfully registered"
    await server.login(new)
    assert new.password not in server.log


async def test_register_as_json(server, ctl):
    new = Account(fresh_name("new"), HOST, "-pass--word")
    assert await ctl.json("register_identified", new.user, HOST, new.password) == (
        f"User {new.jid} successfully registered"
    )
    await server.login(new)


async def test_register_makes_a_name_up(server, ctl):
    answer = (await ctl.text("register", HOST, "sesame")).split()
    user, _, host = answer[1].partition("@")
    assert (answer[0], host, answer[2:]) == ("User", HOST, ["successfully", "registered"])
    await server.login(Account(user, HOST, "sesame"))


async def test_register_prepares_the_name(server, ctl):
    name = fresh_name("MiXeD")
    assert name.lower() in await ctl.text("register", name, HOST, "sesame")
    await server.login(Account(name.lower(), HOST, "sesame"))


async def test_register_refusals(ctl, account):
    romeo = account("romeo")
    assert await ctl.refused("register", romeo.user, HOST, "x") == f"User {romeo.jid} already registered"
    assert "is not served here" in await ctl.refused("register", "romeo", "nowhere.example", "x")
    assert "can't be the name of an account" in await ctl.refused("register", "a b", HOST, "x")
    assert "password is empty" in await ctl.refused("register", fresh_name(), HOST, "")


async def test_unregister(server, ctl, account):
    romeo, juliet = await server.login(account("romeo")), account("juliet")
    assert await ctl.text("unregister", romeo.user, HOST) == f"User {romeo.bare} successfully unregistered"
    await romeo.stream_error("not-authorized")
    assert not await may_log_in(server, romeo.account)
    assert await ctl.json("unregister", juliet.user, HOST)
    assert await ctl.refused("unregister", juliet.user, HOST) == f"User {juliet.jid} does not exist"


async def test_change_password(server, ctl, account):
    romeo = account("romeo")
    done = f"Password for user {romeo.jid} successfully changed"
    assert await ctl.text("change_password", romeo.user, HOST, "changed-1") == done
    assert not await may_log_in(server, romeo)
    assert await may_log_in(server, Account(romeo.user, HOST, "changed-1"))
    assert await ctl.json("change_password", romeo.user, HOST, "changed-2") == done
    assert "changed-" not in server.log
    assert "does not exist" in await ctl.refused("change_password", fresh_name(), HOST, "x")
    assert "empty" in await ctl.refused("change_password", romeo.user, HOST, "")


async def test_check_account(ctl, account, auth):
    romeo, nobody = account("romeo"), auth.absent()
    assert await ctl.text("check_account", romeo.user, HOST) == f"User {romeo.jid} exists"
    assert await ctl.json("check_account", romeo.user, HOST) == f"User {romeo.jid} exists"
    assert await ctl.refused("check_account", nobody.user, HOST) == f"User {nobody.jid} does not exist"


async def test_check_password(server, ctl, account, auth):
    romeo = account("romeo", password="pass-phrase")
    right = f"Password for user {romeo.jid} is correct"
    assert await ctl.text("check_password", romeo.user, HOST, romeo.password) == right
    assert await ctl.json("check_password", romeo.user, HOST, romeo.password) == right
    assert await ctl.refused("check_password", romeo.user, HOST, "wrong") == (
        f"Password for user {romeo.jid} is incorrect"
    )
    assert "does not exist" in await ctl.refused("check_password", auth.absent().user, HOST, "x")
    assert romeo.password not in server.log


async def test_ban_and_unban(server, ctl, account):
    romeo = await server.login(account("romeo"))
    assert await ctl.text("ban_account", romeo.user, HOST, "no more brawls") == (
        f"User {romeo.bare} successfully banned with reason: no more brawls"
    )
    error = await romeo.wire.event()
    assert "no more brawls" in "".join(error.itertext())
    client = await server.stream()
    assert_matches(await client.sasl(romeo.account), f"<failure xmlns='{SASL}'><account-disabled/>{{more}}</failure>")
    assert await ctl.text("unban_account", romeo.user, HOST) == f"User {romeo.bare} may log in again"
    assert await may_log_in(server, romeo.account)
    assert await ctl.json("ban_account", romeo.user, HOST, "")
    assert not await may_log_in(server, romeo.account)
    assert await ctl.json("unban_account", romeo.user, HOST)
    assert "does not exist" in await ctl.refused("ban_account", fresh_name(), HOST, "x")
    assert "does not exist" in await ctl.refused("unban_account", fresh_name(), HOST)


async def test_registered_users(server, ctl, account):
    seen, made, elsewhere = account("seen"), fresh_name("made"), account("elsewhere", host="other.example")
    await server.login(seen)
    await server.login(elsewhere)
    await ctl.text("register", made, HOST, "x")
    names = await ctl.lines("registered_users", HOST)
    assert {seen.user, made} <= set(names)
    assert elsewhere.user not in names
    assert names == sorted(names)
    assert await ctl.json("registered_users", HOST) == names
    assert "is not served here" in await ctl.refused("registered_users", "nowhere.example")


async def test_import_users(server, ctl, account):
    one, other, old = fresh_name("one"), fresh_name("other"), account("old")
    table = server.program.directory / "users.csv"
    table.write_text(f'{one},{HOST},"sesame, open"\n\n{other},{HOST},secret\n{old.user},{HOST},changed\n')
    # Relative to the directory of the caller.
    assert await ctl.lines("import_users", "users.csv") == [
        f"ok\t{one}@{HOST}",
        f"ok\t{other}@{HOST}",
        f"exists\t{old.jid}",
    ]
    assert await may_log_in(server, Account(one, HOST, "sesame, open"))
    assert await may_log_in(server, old)
    assert {row["result"] for row in await ctl.json("import_users", str(table))} == {"exists"}
    assert "sesame, open" not in server.log


async def test_import_of_rows_that_are_wrong(ctl, server):
    good = fresh_name("good")
    table = server.program.directory / "wrong.csv"
    table.write_text(f"too,few\na b,{HOST},x\nromeo,nowhere.example,x\n{fresh_name()},{HOST},\n{good},{HOST},x\n")
    done = await ctl.run("import_users", str(table))
    outcomes = [line.split("\t")[0] for line in done.out.splitlines()]
    assert (done.code, outcomes) == (1, ["bad_csv", "invalid", "invalid", "null_password", "ok"])
    assert await ctl.text("check_account", good, HOST)


async def test_import_of_a_file_that_is_not_there(ctl):
    assert "can't be read by the server" in await ctl.refused("import_users", "/nonexistent/users.csv")
