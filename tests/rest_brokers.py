"""Brokers for tests: over a transport in memory, or to a simulator over real HTTP."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import trio

from ticker.accounts.credentials import Credentials
from ticker.accounts.sessions import Session, Sessions
from ticker.errors import BrokerError
from ticker.kite.calls import Call, RestPolicy
from ticker.kite.rest import Brokers, open_brokers
from ticker.latest import Latest
from ticker.simulator.server import serve_simulator
from ticker.simulator.sessions import SimulatedAccount, create_accounts
from ticker.simulator.simulation import SimulatorConfig

Handler = Callable[[httpx.Request], httpx.Response]
POLICY: Final = RestPolicy()
ONCE: Final = RestPolicy(attempts=1)
TOKEN_DEAD: Final = '{"status":"error","error_type":"TokenException","message":"x","data":null}'
PRICES: Final = {
    "status": "success",
    "data": {"NSE:NIFTY 50": {"instrument_token": 1, "last_price": 5}},
}
CANARY: Final = "canary-77aa"
NOW: Final = 1_795_000_000.0


@dataclass(frozen=True)
class Calls:
    """What ``observe`` and ``on_error`` were told."""

    made: list[tuple[str, str, float]] = field(default_factory=list)
    failed: list[tuple[str, Call, BrokerError]] = field(default_factory=list)

    def observe(self, endpoint: str, outcome: str, seconds: float) -> None:
        self.made.append((endpoint, outcome, seconds))

    def on_error(self, account_id: str, call: Call, error: BrokerError) -> None:
        self.failed.append((account_id, call, error))

    def outcomes(self, endpoint: str) -> list[str]:
        return [outcome for name, outcome, _ in self.made if name == endpoint]


class Pieces(httpx.AsyncByteStream):
    """A body that arrives as it would from a socket."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self._body), 65_536):
            yield self._body[at : at + 65_536]


class MemoryTransport(httpx.AsyncBaseTransport):
    """Hands each request to ``handler``, a broker in memory."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = self._handler(request)
        if not response.is_stream_consumed and isinstance(response.stream, Pieces):
            return response
        return httpx.Response(
            response.status_code, headers=response.headers, stream=Pieces(response.content)
        )


def sessions_of(*sessions: Session) -> Latest[Sessions]:
    return Latest({session.account_id: session for session in sessions})


def create_session(account_id: str, api_key: str, access_token: str) -> Session:
    return Session(
        account_id, Latest(Credentials(api_key, access_token, time.time())), f"secret-{CANARY}"
    )


@asynccontextmanager
async def open_memory_brokers(
    handler: Handler,
    *,
    sessions: Latest[Sessions] | None = None,
    policy: RestPolicy = POLICY,
    calls: Calls | None = None,
) -> AsyncIterator[Brokers]:
    """``handler`` is the broker of account ``first``, or of ``sessions``."""
    calls = calls or Calls()
    if sessions is None:
        sessions = sessions_of(create_session("first", f"key-{CANARY}", f"token-{CANARY}"))
    began = trio.current_time()
    async with open_brokers(
        "http://127.0.0.1",
        sessions,
        policy=policy,
        wall_clock=lambda: NOW + trio.current_time() - began,
        observe=calls.observe,
        on_error=calls.on_error,
        transport=MemoryTransport(handler),
    ) as brokers:
        yield brokers


@dataclass(frozen=True)
class SimulatedBrokers:
    """``rest_url``: where the simulator is; ``calls``: all that were made."""

    brokers: Brokers
    sessions: Latest[Sessions]
    accounts: tuple[SimulatedAccount, ...]
    calls: Calls
    simulator: httpx.AsyncClient

    async def inject(self, fault: str, **details: object) -> Any:
        response = await self.simulator.post("/_simulator/faults", json={"fault": fault, **details})
        return response.raise_for_status().json()

    async def heal(self) -> None:
        (await self.simulator.delete("/_simulator/faults")).raise_for_status()


@asynccontextmanager
async def open_simulated_brokers(
    *,
    policy: RestPolicy = POLICY,
    accounts: Iterable[SimulatedAccount] = (),
    wall_clock: Callable[[], float] = time.time,
    **config: Any,
) -> AsyncIterator[SimulatedBrokers]:
    """A simulator over real HTTP, and brokers of its accounts ``first``, ``second``."""
    simulated = tuple(accounts) or create_accounts(1, 2)
    calls = Calls()
    async with trio.open_nursery() as nursery:
        address = await nursery.start(
            lambda task_status: serve_simulator(
                SimulatorConfig(port=0, accounts=simulated, **config),
                wall_clock=wall_clock,
                task_status=task_status,
            )
        )
        sessions: Latest[Sessions] = Latest(
            {
                name: create_session(name, account.api_key, account.access_token)
                for name, account in zip(("first", "second"), simulated, strict=False)
            }
        )
        async with (
            httpx.AsyncClient(base_url=address.rest_url) as simulator,
            open_brokers(
                address.rest_url,
                sessions,
                policy=policy,
                wall_clock=wall_clock,
                observe=calls.observe,
            ) as brokers,
        ):
            yield SimulatedBrokers(brokers, sessions, simulated, calls, simulator)
        nursery.cancel_scope.cancel()


def answer(status: int, text: str | bytes, **headers: str) -> Handler:
    """A broker that says the same to everything."""
    return lambda request: httpx.Response(status, content=text, headers=headers)


async def load(handler: Handler, policy: RestPolicy = ONCE) -> Mapping[str, float]:
    """One call, with answers to it from ``handler``."""
    async with open_memory_brokers(handler, policy=policy) as brokers:
        return await brokers.of("first").load_last_prices(["NSE:NIFTY 50"])
