"""One budget, a tree of grants it is given on in, and all who spend of it.

Sessions stand on the root or on what was carved out of it; gateways use the grants from outside.
What a session's tool call does is one byte in a file of its own, so what really ran is counted
past the daemon: by looking into a directory.
"""

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from scripts.torture.client import Client, Pending, Refused
from scripts.torture.ledger import Json
from scripts.torture.wire import Gone


EXTRA = 50  # calls of sessions beyond the budget, in every life of a daemon
MOST_BUDGET = 40
QUEUE = 32  # prompts that one session takes
WIDE = 0.1  # of the purses: a session for each call
BY_GATEWAYS = 0.25  # as many calls again as sessions make
RUN = 0.25  # of a session's calls start a program, the others write a file
AGENT, ARBITER, HELPER = "scripted", "arbiter", "helper"


@dataclass(frozen=True)
class Share:
    """A grant of the tree: who uses it, and the most it may come to."""

    id: str
    agent: str
    calls: int


@dataclass(eq=False)
class Seat:
    """A session and the grant it stands on; `unanswered` are prompts to be sent again, by id."""

    session: str
    share: Share
    unanswered: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Use:
    """What a gateway is to ask for: so many calls at once, None for the method that takes one."""

    purse: "Purse"
    share: Share
    batch: int | None

    @property
    def calls(self) -> int:
        """How many are charged, all or none."""
        return self.batch or 1

    def request(self) -> tuple[str, Json]:
        """The method and its params."""
        params: Json = {"grantId": self.share.id, "agent": self.share.agent}
        if self.batch is None:
            return "_moorage/grant/use", {**params, "tool": "Read"}
        return "_moorage/grant/useBatch", {**params, "tools": ["Read"] * self.batch}

    async def ask(self, gateway: Client) -> None:
        """Ask, and note what was acknowledged; raises `Gone`."""
        self.purse.tried += self.calls
        try:
            await gateway.call(*self.request())
        except Refused:
            return
        except Gone:
            self.purse.unsettled += self.calls
            raise
        self.purse.acknowledged[self.share.id] += self.calls


@dataclass(eq=False)
class Purse:
    """A budget and its spenders. `folder` is where the sessions work.

    `acknowledged` are calls that gateways were granted. `unsettled` is how many calls may have
    been charged without anything to show for it: no answer came, or that of a turn cut short.
    A `calm` purse is not disturbed. Half of all are for sessions `alone`: gateways are faster.
    """

    folder: Path
    chance: random.Random
    calm: bool
    budget: int = 0
    shares: list[Share] = field(default_factory=list[Share])  # the root first
    seats: list[Seat] = field(default_factory=list[Seat])
    acknowledged: Counter[str] = field(default_factory=Counter[str])
    disturbed: Counter[str] = field(default_factory=Counter[str])
    unsettled: int = 0
    tried: int = 0
    alone: bool = field(init=False)
    _prompts: int = 0

    def __post_init__(self) -> None:
        self.alone = self.chance.random() < 0.5

    # ---- making it

    async def open(self, client: Client) -> None:
        """Make the grants and the sessions; raises `Gone`."""
        self.folder.mkdir()
        self.budget = self.chance.randint(0, MOST_BUDGET)
        if self.chance.random() < WIDE:
            root = await self._share(client, AGENT, self.budget, None)
            for _ in range(self.budget + EXTRA):
                await self._seat(client, root)
        elif self.chance.random() < 0.5:
            root = await self._share(client, AGENT, self.budget, None)
            await self._share(client, HELPER, self.budget // 4, root)
            for _ in range(self.chance.randint(3, 8)):
                await self._seat(client, root)
        else:
            await self._tree(client)

    async def _tree(self, client: Client) -> None:
        """Sessions on one part that they share, and on parts of their own."""
        root = await self._share(client, ARBITER, self.budget, None)
        part = await self._share(client, AGENT, self.budget // 3, root)
        await self._share(client, HELPER, part.calls // 3, part)
        for _ in range(3):
            await self._seat(client, part)
        for _ in range(self.chance.randint(1, 4)):
            await self._seat(client, root, own=self.budget // 8)

    async def _share(self, client: Client, agent: str, calls: int, parent: Share | None) -> Share:
        wish: Json = {"agent": agent, "tools": None, "budget": {"calls": calls}}
        if parent is not None:
            wish["parent"] = parent.id
        made = await client.call("_moorage/grant/create", wish)
        share = Share(str(made["grantId"]), agent, calls)
        self.shares.append(share)
        return share

    async def _seat(self, client: Client, share: Share, own: int | None = None) -> None:
        wish: Json = {"grantId": share.id}
        if own is not None:
            wish = {"tools": None, "parent": share.id, "budget": {"calls": own}}
        meta: Json = {"keepSiblings": True, "agent": AGENT, "grant": wish}
        if self.chance.random() < 0.5:  # the others ask before each call
            meta["config"] = {"permissions": {"default": "allow"}}
        params: Json = {"cwd": str(self.folder), "mcpServers": [], "_meta": {"moorage": meta}}
        made = await client.call("session/new", params)
        if own is not None:
            share = Share(str(made["_meta"]["moorage"]["grantId"]), AGENT, own)
            self.shares.append(share)
        session = str(made["sessionId"])
        client.ledger(session).last = 1
        self.seats.append(Seat(session, share))

    # ---- spending it

    def uses(self) -> list[Use]:
        """What gateways are to ask for in one life of the daemon."""
        rest = 0 if self.alone else round((self.budget + EXTRA) * BY_GATEWAYS)
        uses: list[Use] = []
        while rest > 0:
            batch = self.chance.choice((None, None, None, 2, 5))
            uses.append(Use(self, self.chance.choice(self.shares), batch))
            rest -= uses[-1].calls
        return uses

    async def spend(self, client: Client) -> None:
        """Have all sessions call at once, those that were cut before as well; raises `Gone`."""
        async with trio.open_nursery() as nursery:
            each = min(QUEUE, -(-(self.budget + EXTRA) // len(self.seats)))
            for seat in self.seats:
                again, seat.unanswered = seat.unanswered, {}
                fresh = dict(self._prompt(seat) for _ in range(each - len(again)))
                for name, text in {**again, **fresh}.items():
                    self.tried += name in fresh
                    nursery.start_soon(self._one_prompt, client, seat, name, text)
            if not self.calm:
                nursery.start_soon(self._disturb, client)

    def _prompt(self, seat: Seat) -> tuple[str, str]:
        self._prompts += 1
        name = f"{seat.share.id}-{self._prompts}"
        is_program = self.chance.random() < RUN
        return name, f"/run printf x >> {name}" if is_program else f"/write {name} x"

    async def _one_prompt(self, client: Client, seat: Seat, name: str, text: str) -> None:
        try:
            pending: Pending = await client.prompt(seat.session, text, promptId=name)
            answer = await pending.result()
        except Refused:
            self.unsettled += 1
        except Gone:
            self.unsettled += 1
            seat.unanswered[name] = text
        else:
            self.unsettled += answer["stopReason"] == "cancelled"

    async def _disturb(self, client: Client) -> None:
        """Stop some of it in the middle; what is refused has ended before."""
        for _ in range(self.chance.randint(1, 4)):
            await trio.sleep(self.chance.uniform(0, 0.5))
            what, method, params = self._disturbance()
            with suppress(Refused, Gone):
                await client.call(method, params)
                self.disturbed[what] += 1

    def _disturbance(self) -> tuple[str, str, Json]:
        seat: Json = {"sessionId": self.chance.choice(self.seats).session}
        everything: Json = {**seat, "_meta": {"moorage": {"scope": "all"}}}
        found: list[tuple[str, str, Json]] = [
            ("cancel", "session/cancel", seat),
            ("cancel", "session/cancel", everything),
            ("close", "session/close", seat),
            ("kill", "session/kill", seat),
            ("delete", "session/delete", seat),
        ]
        if len(self.shares) > 1:
            child = self.chance.choice(self.shares[1:])
            found.append(("revoke", "_moorage/grant/close", {"grantId": child.id}))
        return self.chance.choice(found)

    # ---- what came of it

    def ran(self) -> Counter[str]:
        """How many tool calls really ran on each grant, by what they left behind."""
        found: Counter[str] = Counter()
        for path in self.folder.iterdir():
            share, _, number = path.name.partition("-")
            if number.isdigit():
                found[share] += path.stat().st_size
        return found

    def twice(self) -> list[str]:
        """The calls that ran more than once."""
        return [path.name for path in self.folder.iterdir() if path.stat().st_size > 1]

    def done(self) -> int:
        """How many calls ran or were acknowledged."""
        return self.ran().total() + self.acknowledged.total()

    def overspent(self) -> list[str]:
        """Where more happened than was allowed."""
        wrong = [f"{name} ran more than once" for name in self.twice()]
        ran, done = self.ran(), self.done()
        for share in self.shares[1:]:
            here = ran[share.id] + self.acknowledged[share.id]
            if here > share.calls:
                wrong.append(f"{here} calls on a share of {share.calls}")
        return wrong if done <= self.budget else [*wrong, f"{done} calls of {self.budget}"]

    async def look(self, client: Client) -> list[str]:
        """What is wrong with what the daemon says was used; raises `Gone`."""
        done = self.done()  # first: what comes later does not count
        try:
            details = [await _detail(client, share) for share in self.shares]
        except Refused as refusal:
            return [f"a grant is not there: {refusal}"]
        used = sum(detail["used"]["calls"] for detail in details)
        wrong = self.overspent()
        if used < done:
            wrong.append(f"{done} calls were made, and {used} recorded")
        if used > self.budget:
            wrong.append(f"{used} calls recorded of {self.budget}")
        for share, detail in zip(self.shares, details, strict=True):
            if detail["used"]["calls"] > share.calls:
                wrong.append(f"{detail['used']['calls']} recorded on a share of {share.calls}")
        return wrong

    async def settle(self, client: Client) -> list[str]:
        """Use what is left, and say what is wrong then: all of it has to be accounted for."""
        before = await self.look(client)
        for share in reversed(self.shares[1:]):
            with suppress(Refused):
                await client.call("_moorage/grant/close", {"grantId": share.id})
        root = self.shares[0]
        left = (await _detail(client, root))["remaining"]["calls"]
        if left:
            await Use(self, root, left).ask(client)
        wrong = before + await self.look(client)
        with suppress(Refused):
            await client.call(*Use(self, root, None).request())
            wrong.append("there is more in it than its budget")
        lost = self.budget - self.done()
        if lost > self.unsettled:
            wrong.append(f"{lost} calls were charged for nothing, {self.unsettled} unanswered")
        if self.calm and lost and not self.unsettled:
            wrong.append(f"undisturbed, and {lost} less than {self.budget}")
        return wrong


async def _detail(client: Client, share: Share) -> Json:
    return await client.call("_moorage/grant/get", {"grantId": share.id})


def all_uses(purses: Sequence[Purse], chance: random.Random) -> list[Use]:
    """What the gateways ask of all of them, in any order."""
    uses = [use for purse in purses for use in purse.uses()]
    chance.shuffle(uses)
    return uses
