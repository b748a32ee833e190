"""Routes under ``/_simulator``: break things, and see what is really going on."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
import trio

from ticker.simulator import faults
from ticker.simulator.http import HttpRequest, HttpResponse, json_response
from ticker.simulator.simulation import Simulation
from ticker.simulator.truth import expiry_truth, market_truth

PREFIX: Final = "/_simulator/"


class _MarketOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``frozen``: stop or resume the market. ``steps``: move it by hand, that many times."""

    frozen: bool | None = None
    steps: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0


class _DumpOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``date``: the day whose instruments are listed from now on."""

    date: dt.date


class AdminApi:
    """Needs no credentials: the simulator listens on loopback only."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._routes: Mapping[tuple[str, str], Callable[[HttpRequest], HttpResponse]] = {
            ("POST", "faults"): self._add_fault,
            ("GET", "faults"): lambda _: json_response(simulation.refusals.table()),
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "sockets"): lambda _: json_response(self._sockets()),
            ("GET", "ledger"): lambda _: json_response(self._ledger()),
            ("GET", "market"): self._market,
            ("POST", "market"): self._steer_market,
            ("POST", "dump"): self._relist,
        }

    def answer(self, request: HttpRequest) -> HttpResponse:
        route = self._routes.get((request.method, request.path.removeprefix(PREFIX)))
        if route is None:
            return json_response({"error": "no such route"}, 404)
        try:
            return route(request)
        except (msgspec.DecodeError, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        except trio.WouldBlock:
            return json_response({"error": "too many faults wait for that socket"}, 409)

    def _add_fault(self, request: HttpRequest) -> HttpResponse:
        fault = msgspec.json.decode(request.body, type=faults.Fault)
        match fault:
            case faults.Handshake() | faults.Rest():
                self._simulation.refusals.add(fault)
                return json_response({"sockets": []})
            case faults.NewToken():
                return self._create_token(fault.api_key)
            case faults.KillToken():
                self._simulation.sessions.revoke_all(fault.api_key)
                return self._inject(_after_kill(fault))
            case _:
                return self._inject(fault)

    def _inject(self, fault: faults.SocketFault | None) -> HttpResponse:
        hit = [] if fault is None else list(self._simulation.sockets.hit_by(fault))
        for socket in hit:
            if fault is not None:
                socket.inject(fault)
        return json_response({"sockets": [socket.id for socket in hit]})

    def _create_token(self, api_key: str) -> HttpResponse:
        if self._simulation.sessions.account(api_key) is None:
            return json_response({"error": "no such api_key"}, 400)
        return json_response(
            {"access_token": self._simulation.sessions.create_access_token(api_key)}
        )

    def _clear_faults(self, _request: HttpRequest) -> HttpResponse:
        self._simulation.refusals.clear()
        for socket in self._simulation.sockets.open.values():
            socket.heal()
        return json_response({"sockets": list(self._simulation.sockets.open)})

    def _relist(self, request: HttpRequest) -> HttpResponse:
        self._simulation.relist(msgspec.json.decode(request.body, type=_DumpOrder).date)
        dump = self._simulation.dump
        return json_response({"count": len(dump.rows), "etag": dump.etag})

    def _sockets(self) -> list[dict[str, object]]:
        return [
            {
                "socket": socket.id,
                "api_key": socket.api_key,
                "connected_at": socket.connected_at,
                "subscriptions": {
                    str(token): mode for token, mode in socket.subscriptions.table().items()
                },
                "sent": msgspec.to_builtins(socket.counts),
            }
            for socket in self._simulation.sockets.open.values()
        ]

    def _ledger(self) -> dict[str, object]:
        table = self._simulation.sockets
        rows = [
            *((socket_id, key, counts, False) for socket_id, key, counts in table.closed),
            *((socket.id, socket.api_key, socket.counts, True) for socket in table.open.values()),
        ]
        return {
            "handshakes": table.handshakes,
            "sockets": [
                {"socket": number, "api_key": api_key, "open": is_open}
                | msgspec.to_builtins(counts)
                for number, api_key, counts, is_open in rows
            ],
        }

    def _market(self, request: HttpRequest) -> HttpResponse:
        market = self._simulation.market
        truth = market_truth(market) | {"frozen": self._simulation.time.frozen}
        underlying = request.query.get("underlying", [None])[0]
        expiry = request.query.get("expiry", [None])[0]
        if underlying and expiry:
            day = dt.date.fromisoformat(expiry)
            truth["contracts"] = expiry_truth(market, underlying, day)
        return json_response(truth)

    def _steer_market(self, request: HttpRequest) -> HttpResponse:
        order = msgspec.json.decode(request.body, type=_MarketOrder)
        if order.frozen is not None:
            self._simulation.time.frozen = order.frozen
        for _ in range(order.steps):
            self._simulation.step()
        market = self._simulation.market
        return json_response(
            {"frozen": self._simulation.time.frozen, "step": market.step, "now": market.now}
        )


def _after_kill(fault: faults.KillToken) -> faults.SocketFault | None:
    match fault.sockets:
        case "close":
            return faults.Close(api_key=fault.api_key, code=1000)
        case "mute":
            return faults.Mute(api_key=fault.api_key)
        case "keep":
            return None
