"""The broker's REST routes for login, user, instruments, quotes and candles."""

import datetime as dt
import gzip
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import format_datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import trio

from ticker.simulator.candles import (
    CandleRequestError,
    create_candles,
    may_be_continuous,
    parse_request,
)
from ticker.simulator.days import IST
from ticker.simulator.http import HttpRequest, HttpResponse, json_response, text_response
from ticker.simulator.quotes import Level, create_quote
from ticker.simulator.sessions import SimulatedAccount, TokenError
from ticker.simulator.simulation import Simulation
from ticker.simulator.underlyings import SEGMENT_IDS

_LIMITS_PER_S: Final = {"quote": 1, "historical": 3, "other": 10}
_MAX_INSTRUMENTS: Final[Mapping[Level, int]] = {"full": 500, "ohlc": 1000, "ltp": 1000}
_EXCHANGES: Final = ["BFO", "MCX", "NSE", "CDS", "BSE", "BCD", "NFO"]
_PRODUCTS: Final = ["CNC", "NRML", "MIS", "BO", "CO"]
_ORDER_TYPES: Final = ["MARKET", "LIMIT", "SL", "SL-M"]
_URL_CHARACTERS: Final = "%/:?#[]@!$&'()*+,;=~"
_HISTORICAL: Final = "/instruments/historical/"


class RefusedError(Exception):
    """A call that ends in the broker's error envelope."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type

    def response(self) -> HttpResponse:
        return envelope(self.status, self.error_type, str(self))


def envelope(status: int, error_type: str, message: str) -> HttpResponse:
    """The broker's shape for every error."""
    content = {"status": "error", "message": message, "data": None, "error_type": error_type}
    return json_response(content, status)


def _success(data: object) -> HttpResponse:
    return json_response({"status": "success", "data": data})


class RestApi:
    """Answers requests; holds the rate limiter's counts and the compressed dumps."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._calls: dict[tuple[str, str], tuple[int, int]] = {}
        self._dumps: dict[tuple[dt.date, str | None], bytes] = {}
        self._public: Mapping[tuple[str, str], Callable[[HttpRequest], HttpResponse]] = {
            ("GET", "/connect/login"): self._login,
            ("POST", "/session/token"): self._create_session,
            ("DELETE", "/session/token"): self._delete_session,
        }
        self._private: Mapping[
            tuple[str, str], Callable[[HttpRequest, SimulatedAccount], HttpResponse]
        ] = {
            ("GET", "/user/profile"): self._profile,
            ("GET", "/user/margins"): self._margins,
            ("GET", "/user/margins/equity"): self._margins,
            ("GET", "/user/margins/commodity"): self._margins,
            ("GET", "/quote"): lambda request, _: self._quotes(request, "full"),
            ("GET", "/quote/ohlc"): lambda request, _: self._quotes(request, "ohlc"),
            ("GET", "/quote/ltp"): lambda request, _: self._quotes(request, "ltp"),
        }

    async def answer(self, request: HttpRequest) -> HttpResponse | None:
        """The response; None when a fault has the connection end without one."""
        response = await self._answer(request)
        if response is None:
            return None
        date = format_datetime(
            dt.datetime.fromtimestamp(self._simulation.wall_clock(), dt.UTC), usegmt=True
        )
        return replace(response, headers=(*response.headers, ("Date", date)))

    async def _answer(self, request: HttpRequest) -> HttpResponse | None:
        api_key = _credentials(request)[0]
        fault = self._simulation.refusals.rest(request.path, api_key)
        if fault is not None:
            await trio.sleep(fault.delay_s)
            match fault.body:
                case "reset":
                    return None
                case "html":
                    page = f"<html><body><h1>{fault.status}</h1></body></html>"
                    return text_response(fault.status, page, "text/html")
                case "junk":
                    return HttpResponse(fault.status, bytes.fromhex(fault.hex), "text/csv")
                case "envelope":
                    return envelope(fault.status, fault.error_type, "A fault was asked for")
        try:
            return await self._route(request)
        except RefusedError as refusal:
            return refusal.response()

    async def _route(self, request: HttpRequest) -> HttpResponse:
        route = (request.method, request.path)
        public = self._public.get(route)
        if public is not None:
            return public(request)
        account = self._authenticate(request)
        self._throttle(request.path, account.api_key)
        private = self._private.get(route)
        if private is not None:
            return private(request, account)
        if request.method == "GET" and request.path.startswith(_HISTORICAL):
            return await self._candles(request)
        if request.method == "GET" and request.path.split("/")[1] == "instruments":
            return await self._instruments(request)
        raise RefusedError(404, "GeneralException", "Route not found")

    def _authenticate(self, request: HttpRequest) -> SimulatedAccount:
        api_key, access_token = _credentials(request)
        account = self._simulation.sessions.account(api_key or "")
        if account is None or not self._simulation.sessions.accepts(
            account.api_key, access_token or ""
        ):
            raise RefusedError(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        return account

    def _throttle(self, path: str, api_key: str) -> None:
        """Calls are counted by calendar second, per api_key and class of route."""
        if not self._simulation.config.rate_limits:
            return
        kind = "other"
        if path.startswith("/quote"):
            kind = "quote"
        elif path.startswith(_HISTORICAL):
            kind = "historical"
        now = int(self._simulation.wall_clock())
        second, calls = self._calls.get((api_key, kind), (now, 0))
        calls = calls + 1 if second == now else 1
        self._calls[api_key, kind] = (now, calls)
        if calls > _LIMITS_PER_S[kind]:
            raise RefusedError(429, "NetworkException", "Too many requests")

    def _login(self, request: HttpRequest) -> HttpResponse:
        """What the broker's login page ends with; nobody has to type a password here."""
        api_key = _one(request.query, "api_key")
        if self._simulation.sessions.account(api_key) is None:
            raise RefusedError(400, "InputException", "Invalid `api_key`.")
        given = {
            "action": "login",
            "type": "login",
            "status": "success",
            "request_token": self._simulation.sessions.create_request_token(api_key),
        }
        given.update(parse_qsl(_one(request.query, "redirect_params", "")))
        target = _one(request.query, "redirect", self._simulation.config.redirect_url or "")
        if not target:
            return json_response(given)
        joint = "&" if "?" in target else "?"
        location = ("Location", quote(f"{target}{joint}{urlencode(given)}", _URL_CHARACTERS))
        return HttpResponse(302, b"", "text/plain", (location,))

    def _create_session(self, request: HttpRequest) -> HttpResponse:
        form = request.form
        api_key = _one(form, "api_key")
        sessions = self._simulation.sessions
        try:
            access_token = sessions.exchange(
                api_key, _one(form, "request_token"), _one(form, "checksum")
            )
        except TokenError as error:
            raise RefusedError(403, "TokenException", str(error)) from error
        account = sessions.account(api_key)
        now = dt.datetime.fromtimestamp(self._simulation.wall_clock(), IST)
        return _success(
            {
                **_user(account.user_id if account else ""),
                "api_key": api_key,
                "access_token": access_token,
                "public_token": "",
                "enctoken": "",
                "refresh_token": "",
                "silo": "",
                "login_time": f"{now:%Y-%m-%d %H:%M:%S}",
            }
        )

    def _delete_session(self, request: HttpRequest) -> HttpResponse:
        api_key = _one(request.query, "api_key")
        self._simulation.sessions.revoke(api_key, _one(request.query, "access_token"))
        return _success(True)

    def _profile(self, _request: HttpRequest, account: SimulatedAccount) -> HttpResponse:
        return _success(_user(account.user_id))

    def _margins(self, request: HttpRequest, _account: SimulatedAccount) -> HttpResponse:
        segment = request.path.removeprefix("/user/margins").strip("/")
        if segment:
            return _success(_margin())
        return _success({"equity": _margin(), "commodity": _margin()})

    def _quotes(self, request: HttpRequest, level: Level) -> HttpResponse:
        keys = request.query.get("i", [])
        most = _MAX_INSTRUMENTS[level]
        if len(keys) > most:
            raise RefusedError(400, "InputException", f"At most {most} instruments are allowed.")
        simulation = self._simulation
        found = ((key, simulation.position(key)) for key in keys)
        return _success(
            {
                key: create_quote(simulation.market, place, level)
                for key, place in found
                if place is not None
            }
        )

    async def _candles(self, request: HttpRequest) -> HttpResponse:
        market = self._simulation.market
        try:
            wanted = parse_request(request.path.removeprefix(_HISTORICAL), request.query)
        except CandleRequestError as error:
            raise RefusedError(400, "InputException", str(error)) from error
        position = market.position(wanted.token)
        if position is None:
            raise RefusedError(400, "InputException", "invalid token")
        row = market.dump.instruments[position]
        if wanted.is_continuous and not may_be_continuous(row, wanted):
            raise RefusedError(400, "InputException", "invalid continuous request")
        until = self._simulation.time.now()
        candles = await trio.to_thread.run_sync(create_candles, market, position, wanted, until)
        return _success({"candles": candles})

    async def _instruments(self, request: HttpRequest) -> HttpResponse:
        parts = request.path.strip("/").split("/")
        if len(parts) > 2:
            raise RefusedError(404, "GeneralException", "Route not found")
        exchange = parts[1] if len(parts) == 2 else None
        if exchange not in (None, *SEGMENT_IDS):
            raise RefusedError(400, "InputException", "Invalid `exchange`.")
        dump = self._simulation.dump
        if (dump.date, exchange) not in self._dumps:
            csv = await trio.to_thread.run_sync(dump.to_csv, exchange)
            self._dumps[dump.date, exchange] = await trio.to_thread.run_sync(gzip.compress, csv)
        return HttpResponse(200, self._dumps[dump.date, exchange], "text/csv", is_gzipped=True)


def _credentials(request: HttpRequest) -> tuple[str | None, str | None]:
    """From ``Authorization: token api_key:access_token``."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    api_key, colon, access_token = rest.partition(":")
    return (api_key, access_token) if scheme == "token" and colon else (None, None)


def _one(values: Mapping[str, list[str]], name: str, default: str | None = None) -> str:
    found = values.get(name)
    if found:
        return found[0]
    if default is None:
        raise RefusedError(400, "InputException", f"Missing `{name}`.")
    return default


def _user(user_id: str) -> dict[str, object]:
    return {
        "user_id": user_id,
        "user_type": "individual",
        "email": f"{user_id.lower()}@example.com",
        "user_name": f"Simulated {user_id}",
        "user_shortname": "Simulated",
        "broker": "ZERODHA",
        "exchanges": _EXCHANGES,
        "products": _PRODUCTS,
        "order_types": _ORDER_TYPES,
        "avatar_url": None,
        "meta": {"demat_consent": "consent"},
    }


def _margin() -> dict[str, object]:
    cash = 1_000_000.0
    available = {
        "adhoc_margin": 0,
        "cash": cash,
        "opening_balance": cash,
        "live_balance": cash,
        "collateral": 0,
        "intraday_payin": 0,
    }
    names = (
        "debits", "exposure", "m2m_realised", "m2m_unrealised", "option_premium", "payout", "span",
        "holding_sales", "turnover", "liquid_collateral", "stock_collateral", "delivery",
    )  # fmt: skip
    utilised = dict.fromkeys(names, 0)
    return {"enabled": True, "net": cash, "available": available, "utilised": utilised}
