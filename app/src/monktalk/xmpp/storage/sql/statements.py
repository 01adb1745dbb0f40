"""The statements on messages and sessions that are worth being handed to the driver as text."""

from __future__ import annotations

from typing import Final

from monktalk.db.bulk import Bulk, blobs, flags, numbers, texts

INSERT_MESSAGES: Final = Bulk(
    "INSERT INTO offline_messages"
    " (host, username, stanza, stamp, expires, session, out_seq, origin, number, part)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    # Ids are given out after the sort.
    "INSERT INTO offline_messages (host, username, stanza, stamp, expires, session, out_seq, origin, number, part)"
    " SELECT host, username, stanza, stamp, expires, session, out_seq, origin, number, part"
    " FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::float8[], %s::float8[], %s::bigint[], %s::bigint[],"
    " %s::text[], %s::bigint[], %s::integer[]) WITH ORDINALITY"
    " AS new(host, username, stanza, stamp, expires, session, out_seq, origin, number, part, place)"
    " ORDER BY place ON CONFLICT DO NOTHING",
    texts,
    texts,
    blobs,
    numbers,
    numbers,
    numbers,
    numbers,
    texts,
    numbers,
    numbers,
)
"""Messages that are known already are left out."""

KNOWN_MESSAGES: Final = Bulk(
    "SELECT origin, number, part, session, out_seq FROM offline_messages WHERE origin = ? AND number = ?",
    # The lock makes this transaction's commit wait until the rows are on the standby, even when their own commit
    # was interrupted while it did.
    "SELECT origin, number, part, session, out_seq FROM offline_messages JOIN"
    " unnest(%s::text[], %s::bigint[]) AS wanted(origin, number) USING (origin, number)"
    " WHERE origin IS NOT NULL FOR KEY SHARE OF offline_messages",
    texts,
    numbers,
)
"""All rows of some origins and numbers."""

PLACE_MESSAGES: Final = Bulk(
    "UPDATE offline_messages SET session = ?, out_seq = ? WHERE id = ?",
    "UPDATE offline_messages AS message SET session = new.session, out_seq = new.out_seq"
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS new(session, out_seq, id) WHERE message.id = new.id",
    numbers,
    numbers,
    numbers,
)

DELETE_MESSAGES: Final = Bulk(
    "DELETE FROM offline_messages WHERE id = ?",
    "DELETE FROM offline_messages WHERE id = ANY (%s::bigint[])",
    numbers,
)

MOVE_MESSAGES: Final = Bulk(
    "UPDATE offline_messages SET session = ? WHERE session = ? AND out_seq > ?",
    "UPDATE offline_messages AS message SET session = new.session"
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS new(session, former, acknowledged)"
    " WHERE message.session = new.former AND message.out_seq > new.acknowledged",
    numbers,
    numbers,
    numbers,
)
"""From the former id of an adopted session to its new one: those that are not acknowledged."""

MESSAGES_OF: Final = Bulk(
    "SELECT session, out_seq, stamp, stanza FROM offline_messages WHERE session = ? ORDER BY out_seq, id",
    "SELECT session, out_seq, stamp, stanza FROM offline_messages WHERE session = ANY (%s::bigint[])"
    " ORDER BY session, out_seq, id",
    numbers,
)

LOCK_MAILBOXES: Final = Bulk(
    "",  # not for SQLite: a transaction that writes is the only one there
    "SELECT pg_advisory_xact_lock(mailbox) FROM unnest(%s::bigint[]) AS mailbox",
    numbers,
)

LOCK_SESSIONS: Final = Bulk(
    "SELECT id FROM sessions WHERE id = ?",
    # An adoption changes the key, so it waits for this lock, and this one for an adoption that is under way.
    "SELECT id FROM sessions WHERE id = ANY (%s::bigint[]) ORDER BY id FOR KEY SHARE",
    numbers,
)

OPEN_SESSIONS: Final = Bulk(
    "INSERT INTO sessions (token, host, username, resource, owner, resumable, state, stamp)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    "INSERT INTO sessions (token, host, username, resource, owner, resumable, state, stamp)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::boolean[], %s::bytea[],"
    " %s::float8[]) ON CONFLICT DO NOTHING",
    texts,
    texts,
    texts,
    texts,
    texts,
    flags,
    blobs,
    numbers,
)

OPENED_SESSIONS: Final = Bulk(
    "SELECT token, id, owner FROM sessions WHERE token = ?",
    "SELECT token, id, owner FROM sessions WHERE token = ANY (%s::text[])",
    texts,
)

CHANGE_SESSIONS: Final = Bulk(
    "UPDATE sessions SET handled = max(handled, coalesce(?, 0)), acknowledged = max(acknowledged, coalesce(?, 0)),"
    " state = coalesce(?, state), resumable = coalesce(?, resumable), stamp = ? WHERE id = ?",
    "UPDATE sessions AS session SET handled = greatest(session.handled, new.handled),"
    " acknowledged = greatest(session.acknowledged, new.acknowledged),"
    " state = coalesce(new.state, session.state), resumable = coalesce(new.resumable, session.resumable),"
    " stamp = new.stamp"
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::boolean[], %s::float8[], %s::bigint[])"
    " AS new(handled, acknowledged, state, resumable, stamp, id) WHERE session.id = new.id",
    numbers,
    numbers,
    blobs,
    flags,
    numbers,
    numbers,
)
"""One row a session; what is null stays."""

CLOSE_SESSIONS: Final = Bulk(
    "DELETE FROM sessions WHERE id = ?",
    "DELETE FROM sessions WHERE id = ANY (%s::bigint[])",
    numbers,
)
