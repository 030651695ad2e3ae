"""A grant as it is stored, and back."""

from moorage_daemon.grants.account import Account
from moorage_daemon.grants.accounts import Kept
from moorage_daemon.store.model import GrantRecord, Head
from moorage_protocol.moorage import Mode


NOWHERE = "/"  # a grant has no working directory


def head_of(account: Account, *, owner: str, session: str | None, at: float) -> Head:
    """The first head of a new grant."""
    return Head(
        id=account.id,
        principal=account.principal,
        owner=owner,
        agent=account.grant.agent,
        mode=Mode.CODE,
        cwd=NOWHERE,
        created_at=at,
        updated_at=at,
        record=record_of(account, session),
    )


def record_of(account: Account, session: str | None) -> GrantRecord:
    """How a grant stands."""
    return GrantRecord(
        grant=account.grant,
        spend=account.spend,
        parent=account.parent.id if account.parent is not None else None,
        revision=account.revision,
        ended=account.ended,
        session=session,
    )


def kept(head: Head, record: GrantRecord) -> Kept:
    """What was stored, for the accounts to take up."""
    return Kept(
        id=head.id,
        principal=head.principal,
        grant=record.grant,
        spend=record.spend,
        parent=record.parent,
        revision=record.revision,
        ended=record.ended,
    )
