"""The table, and what is complained about."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from load import accounts, table
from load.ledger import Findings
from load.login import condition
from load.round import Report

GOOD = Report("power off", 60, 200, Findings(sent=5, acknowledged=5), interruption=3.2, untouched=0.5, touched=67)


def test_a_line_for_each_round():
    header, line = table.header(), table.line(GOOD.as_json())
    assert len(header) == len(line)
    assert line.split() == ["power", "off", "5", "0", "0", "0", "0", "0", "0", "0", "3.20", "s", "0.50", "s"]


def test_a_report_as_json():
    report = replace(GOOD, ends=Counter({"time-out": 2}), findings=Findings(bounced=Counter({"gone": 3})))
    words = json.loads(json.dumps(report.as_json()))
    assert words["ends"] == {"time-out": 2}
    assert words["findings"]["bounced"] == {"gone": 3}
    assert words["untouched"] == 0.5


def test_nothing_to_complain_about():
    assert table.complaints(GOOD.as_json(), longest=30, longest_untouched=2) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"findings": Findings(sent=5, acknowledged=5, lost=2)}, "2 acknowledged messages were lost"),
        ({"findings": Findings(sent=5, acknowledged=4, unacknowledged=1)}, "1 messages are not acknowledged"),
        ({"findings": Findings()}, "no message was acknowledged"),
        ({"ghosts": ["a sees b"]}, "1 contacts are seen that are not there"),
        ({"unseen": ["a does not see b"]}, "1 contacts are not seen that are there"),
        ({"incomplete": ["not online: a"]}, "not online: a"),
        ({"interruption": 31.0}, "the longest interruption took 31.0 s, more than 30 s"),
        (
            {"untouched": 2.5},
            "the longest interruption of clients that nothing had happened to took 2.5 s, more than 2 s",
        ),
    ],
)
def test_complaints(changes, complaint):
    assert table.complaints(replace(GOOD, **changes).as_json(), longest=30, longest_untouched=2) == [complaint]


def test_accounts_in_a_file(tmp_path):
    made = accounts.make(3, "example.org")
    accounts.write(tmp_path / "accounts", made)
    assert (tmp_path / "accounts").stat().st_mode & 0o777 == 0o600
    assert accounts.read(tmp_path / "accounts") == made
    (tmp_path / "accounts").write_text("alice@example.org secret\nbob\n")
    with pytest.raises(ValueError, match="line 2"):
        accounts.read(tmp_path / "accounts")


@pytest.mark.parametrize(
    ("element", "found"),
    [
        (b"<failed xmlns='urn:xmpp:sm:3' h='5'><item-not-found xmlns='x'/></failed>", "item-not-found"),
        (b"<stream:error><conflict xmlns='x'/></stream:error>", "conflict"),
        (b"<iq type='error'><bind/><error type='cancel'><not-allowed xmlns='x'/></error></iq>", "not-allowed"),
        (b"<failure xmlns='x'><text>no</text><not-authorized/></failure>", "not-authorized"),
        (b"<failed/>", ""),
    ],
)
def test_conditions(element, found):
    assert condition(element) == found
