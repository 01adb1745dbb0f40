"""The program that deploys certificates, on real certificates made by openssl."""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

_FILES = Path(__file__).parents[1] / "files"


def _load(name):
    spec = importlib.util.spec_from_file_location(name, _FILES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


deploy = _load("mongooseim_deploy_certificate")
make = _load("make_test_certificate")

NAME = "xmpp.example.org"
GROUP = grp.getgrgid(os.getgid()).gr_name


class Pair:
    """The files of a certificate."""

    def __init__(self, folder, names):
        make.ensure(folder, names, 90, 30)
        self.chain, self.key, self.ca = (
            folder / names[0] / "fullchain.cer",
            folder / names[0] / "private.key",
            folder / "ca.cer",
        )


def pair(folder, *names):
    return Pair(folder, list(names or (NAME, "example.org")))


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("other"))


@pytest.fixture
def etc(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    return folder


@pytest.fixture
def run(etc, capsys):
    def run(chain, key, ca=None, *more, name=NAME):
        arguments = [
            f"--name={name}",
            "--chain",
            str(chain),
            "--key",
            str(key),
            "--directory",
            str(etc),
            "--group",
            GROUP,
        ]
        status = deploy.main([*arguments, *(["--ca", str(ca)] if ca else []), *more])
        out, err = capsys.readouterr()
        return status, out + err

    return run


def contents(etc):
    return {path.name: path.read_text() for path in etc.iterdir() if path.is_symlink()}


def test_four_files_are_deployed(run, etc, good):
    status, said = run(good.chain, good.key, good.ca)
    assert (status, said.split(":")[0]) == (0, "deployed")
    chain, key = good.chain.read_text(), good.key.read_text()
    assert contents(etc) == {
        f"{NAME}.cer": chain,
        f"{NAME}.key": key,
        "fullchain_key.pem": chain + key,
        "ca.cer": good.ca.read_text(),
    }
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in etc.iterdir() if path.is_symlink()}
    assert modes == {f"{NAME}.cer": 0o644, f"{NAME}.key": 0o640, "fullchain_key.pem": 0o640, "ca.cer": 0o644}


def test_the_same_again_changes_nothing(run, etc, good):
    run(good.chain, good.key, good.ca)
    before = {path: os.lstat(path).st_mtime_ns for path in etc.rglob("*")}
    assert run(good.chain, good.key, good.ca)[1].startswith("unchanged:")
    assert {path: os.lstat(path).st_mtime_ns for path in etc.rglob("*")} == before


def test_a_new_one_takes_its_place_and_the_old_one_is_kept(run, etc, good, other, tmp_path):
    run(good.chain, good.key, good.ca)
    first = (etc / "certificates/current").readlink()
    assert run(other.chain, other.key, other.ca)[1].startswith("deployed:")
    assert (etc / f"{NAME}.key").read_text() == other.key.read_text()
    assert (etc / "certificates/previous").readlink() == first
    third = pair(tmp_path / "third")
    run(third.chain, third.key, third.ca)
    assert {path.name for path in (etc / "certificates").iterdir()} == {
        "current",
        "previous",
        str((etc / "certificates/current").readlink()),
        str((etc / "certificates/previous").readlink()),
    }
    assert not (etc / "certificates" / first).exists()


def test_modes_and_links_are_repaired(run, etc, good):
    run(good.chain, good.key, good.ca)
    (etc / f"{NAME}.key").resolve().chmod(0o644)
    (etc / "ca.cer").unlink()
    assert run(good.chain, good.key, good.ca)[1].startswith("repaired:")
    assert stat.S_IMODE((etc / f"{NAME}.key").stat().st_mode) == 0o640
    assert (etc / "ca.cer").read_text() == good.ca.read_text()


def test_plain_files_of_the_old_installation_are_replaced(run, etc, good):
    (etc / f"{NAME}.cer").write_text("old")
    assert run(good.chain, good.key, good.ca)[0] == 0
    assert (etc / f"{NAME}.cer").read_text() == good.chain.read_text()


def test_links_of_a_former_name_go_away(run, etc, tmp_path):
    both = pair(tmp_path / "both", "new.example.org", NAME)
    run(both.chain, both.key, both.ca)
    run(both.chain, both.key, both.ca, name="new.example.org")
    assert set(contents(etc)) == {"new.example.org.cer", "new.example.org.key", "fullchain_key.pem", "ca.cer"}


def refused(run, etc, good, *arguments, **keywords):
    """What is said, after it was checked that the old certificate stays."""
    run(good.chain, good.key, good.ca)
    before = contents(etc)
    status, said = run(*arguments, **keywords)
    assert status == 1
    assert said.startswith("Refused, the old certificate stays: ")
    assert contents(etc) == before
    return said


def test_a_pair_that_does_not_belong_together_is_refused(run, etc, good, other):
    assert "do not belong together" in refused(run, etc, good, good.chain, other.key, good.ca)


def test_a_certificate_for_other_names_is_refused(run, etc, good):
    said = refused(run, etc, good, good.chain, good.key, good.ca, "--also", "www.example.org", "--also", "example.org")
    assert "not for www.example.org:" in said


def test_another_issuer_is_refused(run, etc, good, other):
    assert "issuer" in refused(run, etc, good, good.chain, good.key, other.ca)


def test_a_leaf_without_its_issuer_is_refused(run, etc, good):
    assert "--ca" in refused(run, etc, good, good.chain, good.key)


def test_a_certificate_that_ends_too_soon_is_refused(run, etc, good):
    assert "too soon" in refused(run, etc, good, good.chain, good.key, good.ca, "--days", "100")


@pytest.mark.parametrize(("days", "reason"), [(200, "has expired"), (-1, "not valid before")])
def test_a_certificate_that_is_not_valid_now_is_refused(good, days, reason):
    material = deploy.read_material(good.chain.read_text(), good.key.read_text(), good.ca.read_text())
    now = datetime.now(UTC)
    assert deploy.check(material, [NAME], now, timedelta()) > now
    with pytest.raises(deploy.RefusedError, match=reason):
        deploy.check(material, [NAME], now + timedelta(days=days), timedelta())


def test_an_encrypted_key_is_refused(run, etc, good, tmp_path):
    key = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkey", "-in", str(good.key), "-aes256", "-passout", "pass:x", "-out", str(key)], check=True
    )
    assert "pass phrase" in refused(run, etc, good, good.chain, key, good.ca)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "nonsense"])
def test_what_is_no_certificate_is_refused(run, etc, good, tmp_path, text):
    chain = tmp_path / "chain"
    chain.write_text(text)
    refused(run, etc, good, chain, good.key, good.ca)


def test_two_keys_are_refused(run, etc, good, other, tmp_path):
    key = tmp_path / "keys"
    key.write_text(good.key.read_text() + other.key.read_text())
    assert "holds 2" in refused(run, etc, good, good.chain, key, good.ca)


def test_a_chain_that_is_not_in_order_is_refused(run, etc, good, other, tmp_path):
    chain = tmp_path / "chain"
    chain.write_text(good.chain.read_text() + other.ca.read_text() + good.ca.read_text())
    assert "certificate 1 is not signed by certificate 2" in refused(run, etc, good, chain, good.key, good.ca)


def test_the_issuer_is_the_end_of_the_chain(run, etc, good, tmp_path):
    chain = tmp_path / "chain"
    chain.write_text(good.chain.read_text() + good.ca.read_text())
    assert run(chain, good.key)[0] == 0
    assert (etc / "ca.cer").read_text() == good.ca.read_text()


def test_wild_cards_hold_for_names_below(run, tmp_path):
    wild = pair(tmp_path / "wild", "*.example.org")
    assert run(wild.chain, wild.key, wild.ca)[0] == 0


def test_names_of_other_scripts_are_encoded(run, tmp_path):
    made = pair(tmp_path / "idn", "xn--bcher-kva.example")
    assert run(made.chain, made.key, made.ca, name="bücher.example")[0] == 0


@pytest.mark.parametrize("name", ["../etc", "a b", "", "-x.example.org", "a..b"])
def test_a_name_that_is_none_is_refused(run, good, name):
    assert run(good.chain, good.key, good.ca, name=name)[0] == 1


def test_only_checking_deploys_nothing(run, etc, good):
    status, said = run(good.chain, good.key, good.ca, "--check")
    assert (status, said.split(":")[0]) == (0, "valid")
    assert not list(etc.iterdir())


def test_a_pair_by_the_standard_input(etc, good, capsys, monkeypatch, tmp_path):
    given = {"chain": good.chain.read_text(), "key": good.key.read_text(), "ca": good.ca.read_text()}
    path = tmp_path / "given"
    path.write_text(json.dumps(given))
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert deploy.main(["--json", "--name", NAME, "--directory", str(etc), "--group", GROUP]) == 0
    assert capsys.readouterr().out.startswith("deployed:")


def test_a_link_in_the_way_leads_nowhere(run, etc, good, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (etc / "certificates").symlink_to(elsewhere)
    assert run(good.chain, good.key, good.ca)[0] == 1
    assert not list(elsewhere.iterdir())


def test_a_test_certificate_is_made_once(tmp_path):
    assert make.ensure(tmp_path, [NAME], 90, 30)
    assert not make.ensure(tmp_path, [NAME], 90, 30)


def test_a_test_certificate_is_made_anew_in_time_and_for_other_names(tmp_path):
    make.ensure(tmp_path, [NAME], 20, 10)
    authority = (tmp_path / "ca.cer").read_text()
    assert make.ensure(tmp_path, [NAME], 90, 30)
    assert make.ensure(tmp_path, [NAME, "example.org"], 90, 30)
    (tmp_path / NAME / "private.key").unlink()
    assert make.ensure(tmp_path, [NAME, "example.org"], 90, 30)
    assert (tmp_path / "ca.cer").read_text() == authority
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
