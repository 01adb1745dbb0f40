"""The subscription state machine, against the tables of RFC 6121 appendix A as they are printed there."""

from __future__ import annotations

import pytest

from monktalk.xmpp.modules.presence import states
from monktalk.xmpp.modules.presence.states import State
from monktalk.xmpp.modules.roster.value import EMPTY, Item, Roster

CONTACT = "juliet@capulet.example"

NAMES = {
    "None": State.NONE,
    "None + Pending Out": State.NONE_OUT,
    "None + Pending In": State.NONE_IN,
    "None + Pending Out+In": State.NONE_OUT_IN,
    "To": State.TO,
    "To + Pending In": State.TO_IN,
    "From": State.FROM,
    "From + Pending Out": State.FROM_OUT,
    "Both": State.BOTH,
}

TABLES = {
    ("outbound", "subscribe"): """
        None                  | MUST     | None + Pending Out
        None + Pending Out    | MUST     | no state change
        None + Pending In     | MUST     | None + Pending Out+In
        None + Pending Out+In | MUST     | no state change
        To                    | MUST     | no state change
        To + Pending In       | MUST     | no state change
        From                  | MUST     | From + Pending Out
        From + Pending Out    | MUST     | no state change
        Both                  | MUST     | no state change
    """,
    ("outbound", "unsubscribe"): """
        None                  | MUST     | no state change
        None + Pending Out    | MUST     | None
        None + Pending In     | MUST     | no state change
        None + Pending Out+In | MUST     | None + Pending In
        To                    | MUST     | None
        To + Pending In       | MUST     | None + Pending In
        From                  | MUST     | no state change
        From + Pending Out    | MUST     | From
        Both                  | MUST     | From
    """,
    ("outbound", "subscribed"): """
        None                  | MUST NOT | pre-approval
        None + Pending Out    | MUST NOT | pre-approval
        None + Pending In     | MUST     | From
        None + Pending Out+In | MUST     | From + Pending Out
        To                    | MUST NOT | pre-approval
        To + Pending In       | MUST     | Both
        From                  | MUST NOT | no state change
        From + Pending Out    | MUST NOT | no state change
        Both                  | MUST NOT | no state change
    """,
    ("outbound", "unsubscribed"): """
        None                  | MUST NOT | no state change
        None + Pending Out    | MUST NOT | no state change
        None + Pending In     | MUST     | None
        None + Pending Out+In | MUST     | None + Pending Out
        To                    | MUST NOT | no state change
        To + Pending In       | MUST     | To
        From                  | MUST     | None
        From + Pending Out    | MUST     | None + Pending Out
        Both                  | MUST     | To
    """,
    ("inbound", "subscribe"): """
        None                  | MUST     | None + Pending In
        None + Pending Out    | MUST     | None + Pending Out+In
        None + Pending In     | MUST NOT | no state change
        None + Pending Out+In | MUST NOT | no state change
        To                    | MUST     | To + Pending In
        To + Pending In       | MUST NOT | no state change
        From                  | granted  | no state change
        From + Pending Out    | granted  | no state change
        Both                  | granted  | no state change
    """,
    ("inbound", "unsubscribe"): """
        None                  | MUST NOT | no state change
        None + Pending Out    | MUST NOT | no state change
        None + Pending In     | MUST     | None
        None + Pending Out+In | MUST     | None + Pending Out
        To                    | MUST NOT | no state change
        To + Pending In       | MUST     | To
        From                  | MUST     | None
        From + Pending Out    | MUST     | None + Pending Out
        Both                  | MUST     | To
    """,
    ("inbound", "subscribed"): """
        None                  | MUST NOT | no state change
        None + Pending Out    | MUST     | To
        None + Pending In     | MUST NOT | no state change
        None + Pending Out+In | MUST     | To + Pending In
        To                    | MUST NOT | no state change
        To + Pending In       | MUST NOT | no state change
        From                  | MUST NOT | no state change
        From + Pending Out    | MUST     | Both
        Both                  | MUST NOT | no state change
    """,
    ("inbound", "unsubscribed"): """
        None                  | MUST NOT | no state change
        None + Pending Out    | MUST     | None
        None + Pending In     | MUST NOT | no state change
        None + Pending Out+In | MUST     | None + Pending In
        To                    | MUST     | None
        To + Pending In       | MUST     | None + Pending In
        From                  | MUST NOT | no state change
        From + Pending Out    | MUST     | From
        Both                  | MUST     | From
    """,
}

ROWS = [
    pytest.param(
        stanza, *(cell.strip() for cell in row.split("|")), id="-".join((*stanza, row.partition("|")[0].strip()))
    )
    for stanza, table in TABLES.items()
    for row in table.strip().splitlines()
]


def roster_in(state: State, *, approved: bool = False, name: str = "", bystander: bool = True) -> Roster:
    """A roster with the contact in that state, and another contact who must not be touched."""
    subscription, ask, asked = state.value
    roster = EMPTY
    if bystander:
        roster = roster.with_item("nurse@capulet.example", Item("both")).with_request("tybalt@capulet.example", "")
    if subscription != "none" or ask or approved or name:
        roster = roster.with_item(CONTACT, Item(subscription, ask, approved, name))
    return roster.with_request(CONTACT, "<status>please</status>") if asked else roster


def step(stanza: tuple[str, str], roster: Roster) -> states.Outcome:
    direction, kind = stanza
    if direction == "outbound":
        return states.outbound(roster, kind, CONTACT)
    return states.inbound(roster, kind, CONTACT, "<status>please</status>", 100)


@pytest.mark.parametrize("name", ["", "Juliet"], ids=["new", "in the roster"])
@pytest.mark.parametrize(("stanza", "before", "passed", "after"), ROWS)
def test_tables(stanza, before, passed, after, name):
    roster = roster_in(NAMES[before], name=name)
    outcome = step(stanza, roster)
    expected = NAMES[before] if after in ("no state change", "pre-approval") else NAMES[after]
    assert states.state_of(outcome.roster, CONTACT) is expected
    assert outcome.passed_on is (passed == "MUST")
    assert outcome.granted is (passed == "granted")
    item = outcome.roster.items.get(CONTACT, Item())
    assert item.approved is (after == "pre-approval")
    assert item.name == name
    assert outcome.roster.items["nurse@capulet.example"] == Item("both")
    assert "tybalt@capulet.example" in outcome.roster.requests
    if after == "no state change":
        assert outcome.roster is roster


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_told_from_the_roster(state):
    assert states.state_of(roster_in(state), CONTACT) is state
    assert states.state_of(roster_in(state, name="Juliet", bystander=False), CONTACT) is state


def test_the_tables_are_complete():
    for tables in (states.OUTBOUND, states.INBOUND):
        assert set(tables) == states.KINDS
        for table in tables.values():
            assert set(table) == set(State)


def test_the_request_is_kept_as_it_came():
    outcome = step(("inbound", "subscribe"), EMPTY)
    assert outcome.roster.requests == {CONTACT: "<status>please</status>"}
    assert outcome.roster.items == {}, "nothing shows in the roster before the user has answered"


def test_nothing_is_left_of_a_request_that_was_withdrawn_or_denied():
    assert step(("inbound", "unsubscribe"), roster_in(State.NONE_IN, bystander=False)).roster == EMPTY
    assert step(("outbound", "unsubscribed"), roster_in(State.NONE_IN, bystander=False)).roster == EMPTY


# ------------------------------------------------------------------------------------------------- pre-approval


@pytest.mark.parametrize(
    ("before", "after"), [(State.NONE, State.FROM), (State.NONE_OUT, State.FROM_OUT), (State.TO, State.BOTH)]
)
def test_a_request_that_was_approved_in_advance_is_granted(before, after):
    outcome = step(("inbound", "subscribe"), roster_in(before, approved=True))
    assert (outcome.passed_on, outcome.granted) == (False, True)
    assert states.state_of(outcome.roster, CONTACT) is after
    assert outcome.roster.items[CONTACT].approved, "until the user takes it back"


@pytest.mark.parametrize("state", [state for state in State if not state.value[2]])
def test_pre_approval_is_taken_back(state):
    outcome = states.outbound(roster_in(state, approved=True), "unsubscribed", CONTACT)
    assert not outcome.roster.items[CONTACT].approved


@pytest.mark.parametrize("kind", ["unsubscribe", "unsubscribed", "subscribed"])
def test_contacts_cannot_take_pre_approval_back(kind):
    """RFC 6121, 4.3.2: above all not by answering a probe."""
    outcome = step(("inbound", kind), roster_in(State.TO, approved=True))
    assert outcome.roster.items[CONTACT].approved


# ------------------------------------------------------------------------------------------------------- bounds


def test_requests_are_bounded():
    roster = EMPTY
    for number in range(3):
        outcome = states.inbound(roster, "subscribe", f"user{number}@x.example", "", 3)
        assert not outcome.full
        roster = outcome.roster
    outcome = states.inbound(roster, "subscribe", CONTACT, "", 3)
    assert outcome.full
    assert outcome.passed_on, "clients that are there hear of it all the same"
    assert outcome.roster is roster
    again = states.inbound(roster, "subscribe", "user1@x.example", "", 3)
    assert (again.full, again.passed_on) == (False, False)


# ---------------------------------------------------------------------------- rosters that were written from outside


@pytest.mark.parametrize(
    ("item", "requested", "state"),
    [
        (Item("both", ask=True), True, State.BOTH),
        (Item("to", ask=True), True, State.TO_IN),
        (Item("from", ask=True), True, State.FROM_OUT),
    ],
)
def test_contradictions_are_resolved_in_favour_of_the_subscription(item, requested, state):
    roster = Roster({CONTACT: item}, {CONTACT: ""} if requested else {})
    assert states.state_of(roster, CONTACT) is state
    for kind in states.KINDS:
        states.outbound(roster, kind, CONTACT)
        states.inbound(roster, kind, CONTACT)
