"""The module `offline`: messages for users who are not here, kept until they come (XEP-0160)."""

from __future__ import annotations

from monktalk.xmpp.modules.offline.module import Offline

__all__ = ["Offline"]
