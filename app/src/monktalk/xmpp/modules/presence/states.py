"""The subscription state machine of RFC 6121, appendix A, as data and pure functions over rosters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from monktalk.xmpp.modules.roster import Item, Roster, value

SUBSCRIBE: Final = "subscribe"
SUBSCRIBED: Final = "subscribed"
UNSUBSCRIBE: Final = "unsubscribe"
UNSUBSCRIBED: Final = "unsubscribed"
KINDS: Final = frozenset({SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBE, UNSUBSCRIBED})
"""The types of presence that manage subscriptions (RFC 6121 section 3)."""


class State(Enum):
    """The nine states of a contact (A.1): subscription, pending out, pending in."""

    NONE = (value.NONE, False, False)
    NONE_OUT = (value.NONE, True, False)
    NONE_IN = (value.NONE, False, True)
    NONE_OUT_IN = (value.NONE, True, True)
    TO = (value.TO, False, False)
    TO_IN = (value.TO, False, True)
    FROM = (value.FROM, False, False)
    FROM_OUT = (value.FROM, True, False)
    BOTH = (value.BOTH, False, False)


class Step(NamedTuple):
    """One row of a table: whether the stanza is routed or delivered, and the state afterwards."""

    passed_on: bool
    state: State


Table = Mapping[State, Step]


def _table(**rows: tuple[str, str]) -> Table:
    return {State[before]: Step(passed == "MUST", State[after]) for before, (passed, after) in rows.items()}


OUTBOUND: Final[Mapping[str, Table]] = {
    # A.2.1: routed in every state, because the contact's server may know better.
    SUBSCRIBE: _table(
        NONE=("MUST", "NONE_OUT"),
        NONE_OUT=("MUST", "NONE_OUT"),
        NONE_IN=("MUST", "NONE_OUT_IN"),
        NONE_OUT_IN=("MUST", "NONE_OUT_IN"),
        TO=("MUST", "TO"),
        TO_IN=("MUST", "TO_IN"),
        FROM=("MUST", "FROM_OUT"),
        FROM_OUT=("MUST", "FROM_OUT"),
        BOTH=("MUST", "BOTH"),
    ),
    # A.2.2
    UNSUBSCRIBE: _table(
        NONE=("MUST", "NONE"),
        NONE_OUT=("MUST", "NONE"),
        NONE_IN=("MUST", "NONE_IN"),
        NONE_OUT_IN=("MUST", "NONE_IN"),
        TO=("MUST", "NONE"),
        TO_IN=("MUST", "NONE_IN"),
        FROM=("MUST", "FROM"),
        FROM_OUT=("MUST", "FROM"),
        BOTH=("MUST", "FROM"),
    ),
    # A.2.3; where nothing is pending and there is no subscription, it is a pre-approval (section 3.4).
    SUBSCRIBED: _table(
        NONE=("MUST NOT", "NONE"),
        NONE_OUT=("MUST NOT", "NONE_OUT"),
        NONE_IN=("MUST", "FROM"),
        NONE_OUT_IN=("MUST", "FROM_OUT"),
        TO=("MUST NOT", "TO"),
        TO_IN=("MUST", "BOTH"),
        FROM=("MUST NOT", "FROM"),
        FROM_OUT=("MUST NOT", "FROM_OUT"),
        BOTH=("MUST NOT", "BOTH"),
    ),
    # A.2.4; it takes a pre-approval back in any state.
    UNSUBSCRIBED: _table(
        NONE=("MUST NOT", "NONE"),
        NONE_OUT=("MUST NOT", "NONE_OUT"),
        NONE_IN=("MUST", "NONE"),
        NONE_OUT_IN=("MUST", "NONE_OUT"),
        TO=("MUST NOT", "TO"),
        TO_IN=("MUST", "TO"),
        FROM=("MUST", "NONE"),
        FROM_OUT=("MUST", "NONE_OUT"),
        BOTH=("MUST", "TO"),
    ),
}
"""What a user's server does with what the user sends, by type and state: route it or not, and the new state."""

INBOUND: Final[Mapping[str, Table]] = {
    # A.3.1; with a subscription from the contact there is nothing to ask the user: the server answers "subscribed".
    SUBSCRIBE: _table(
        NONE=("MUST", "NONE_IN"),
        NONE_OUT=("MUST", "NONE_OUT_IN"),
        NONE_IN=("MUST NOT", "NONE_IN"),
        NONE_OUT_IN=("MUST NOT", "NONE_OUT_IN"),
        TO=("MUST", "TO_IN"),
        TO_IN=("MUST NOT", "TO_IN"),
        FROM=("MUST NOT", "FROM"),
        FROM_OUT=("MUST NOT", "FROM_OUT"),
        BOTH=("MUST NOT", "BOTH"),
    ),
    # A.3.2
    UNSUBSCRIBE: _table(
        NONE=("MUST NOT", "NONE"),
        NONE_OUT=("MUST NOT", "NONE_OUT"),
        NONE_IN=("MUST", "NONE"),
        NONE_OUT_IN=("MUST", "NONE_OUT"),
        TO=("MUST NOT", "TO"),
        TO_IN=("MUST", "TO"),
        FROM=("MUST", "NONE"),
        FROM_OUT=("MUST", "NONE_OUT"),
        BOTH=("MUST", "TO"),
    ),
    # A.3.3
    SUBSCRIBED: _table(
        NONE=("MUST NOT", "NONE"),
        NONE_OUT=("MUST", "TO"),
        NONE_IN=("MUST NOT", "NONE_IN"),
        NONE_OUT_IN=("MUST", "TO_IN"),
        TO=("MUST NOT", "TO"),
        TO_IN=("MUST NOT", "TO_IN"),
        FROM=("MUST NOT", "FROM"),
        FROM_OUT=("MUST", "BOTH"),
        BOTH=("MUST NOT", "BOTH"),
    ),
    # A.3.4
    UNSUBSCRIBED: _table(
        NONE=("MUST NOT", "NONE"),
        NONE_OUT=("MUST", "NONE"),
        NONE_IN=("MUST NOT", "NONE_IN"),
        NONE_OUT_IN=("MUST", "NONE_IN"),
        TO=("MUST", "NONE"),
        TO_IN=("MUST", "NONE_IN"),
        FROM=("MUST NOT", "FROM"),
        FROM_OUT=("MUST", "FROM"),
        BOTH=("MUST", "FROM"),
    ),
}
"""What a user's server does with what a contact has sent him, by type and state: deliver it or not, and the new state."""


class Outcome(NamedTuple):
    """What a stanza makes of a roster.

    ``passed_on``: it is to be routed (outbound) or delivered (inbound). ``granted``: the server is to answer an inbound
    request with ``subscribed`` in the user's name. ``full``: the request is not kept, because too many wait.
    """

    roster: Roster
    passed_on: bool
    granted: bool = False
    full: bool = False


Transition = Callable[[Roster], Outcome]
"""What one stanza makes of any roster."""


def state_of(roster: Roster, contact: str) -> State:
    """The state of a contact, given by his bare JID."""
    item = roster.items.get(contact, Item())
    # A roster that was written from outside may hold what the machine never makes: a request that is granted already.
    return State((item.subscription, item.ask and not item.to, contact in roster.requests and not item.from_))


def outbound(roster: Roster, kind: str, contact: str) -> Outcome:
    """The user sends a stanza of type ``kind`` to the contact (A.2, and pre-approval of section 3.4)."""
    state = state_of(roster, contact)
    step = OUTBOUND[kind][state]
    after = _in_state(roster, contact, step.state)
    if kind == SUBSCRIBED and step.state is state and not roster.shows_presence_to(contact):
        after = after.with_item(contact, after.items.get(contact, Item())._replace(approved=True))
    elif kind == UNSUBSCRIBED and contact in after.items:
        after = after.with_item(contact, after.items[contact]._replace(approved=False))
    return Outcome(after, step.passed_on)


def inbound(roster: Roster, kind: str, contact: str, payload: str = "", max_pending: int = 1) -> Outcome:
    """The contact has sent the user a stanza of type ``kind`` (A.3, and pre-approval of section 3.4).

    ``payload`` is what a request holds; ``max_pending`` says how many may wait for an answer.
    """
    state = state_of(roster, contact)
    step = INBOUND[kind][state]
    if kind != SUBSCRIBE:
        return Outcome(_in_state(roster, contact, step.state), step.passed_on)
    item = roster.items.get(contact, Item())
    if item.from_:
        return Outcome(roster, passed_on=False, granted=True)
    if item.approved:
        asked = INBOUND[SUBSCRIBE][state].state
        return Outcome(_in_state(roster, contact, OUTBOUND[SUBSCRIBED][asked].state), passed_on=False, granted=True)
    if not step.passed_on:
        return Outcome(roster, passed_on=False)
    if len(roster.requests) >= max_pending:
        return Outcome(roster, passed_on=True, full=True)
    return Outcome(_in_state(roster.with_request(contact, payload), contact, step.state), passed_on=True)


def _in_state(roster: Roster, contact: str, state: State) -> Roster:
    """The roster with the contact in that state. No item is made for a contact about whom it says nothing."""
    subscription, ask, asked = state.value
    old = roster.items.get(contact, Item())
    item = old._replace(subscription=subscription, ask=ask)
    if contact in roster.items or item != old:
        roster = roster.with_item(contact, item)
    return roster if asked else roster.without_request(contact)
