"""The broker's official Python client at work, in a process of its own; prints JSON.

Its ticker runs Twisted's reactor, which cannot be started twice in a process and is not Trio's.
"""

import datetime as dt
import json
import sys
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from kiteconnect import KiteConnect, KiteTicker
from kiteconnect.exceptions import KiteException

NIFTY_50 = 256265
INFY = 408065


def use_rest(rest_url: str, api_key: str, api_secret: str) -> dict[str, Any]:
    """Log in and call every route for market data once."""
    page = requests.get(
        f"{rest_url}/connect/login",
        params={"v": "3", "api_key": api_key, "redirect": "http://127.0.0.1:9/callback"},
        allow_redirects=False,
        timeout=5,
    )
    query = parse_qs(urlsplit(page.headers["location"]).query)
    kite = KiteConnect(api_key, root=rest_url)
    session = kite.generate_session(query["request_token"][0], api_secret)
    instruments = kite.instruments()
    end = dt.datetime(2025, 11, 19, 15, 30)  # noqa: DTZ001 - the client takes the broker's time
    start = end - dt.timedelta(days=2)
    result = {
        "login": {name: query[name][0] for name in ("status", "action")},
        "user_id": session["user_id"],
        "login_time": session["login_time"],
        "profile": kite.profile(),
        "margins": kite.margins(),
        "equity": kite.margins("equity"),
        "instruments": len(instruments),
        "nfo": len(kite.instruments("NFO")),
        "expiries": sorted({str(row["expiry"]) for row in instruments if row["name"] == "NIFTY"}),
        "quote": kite.quote("NSE:INFY", "NSE:NIFTY 50"),
        "ohlc": kite.ohlc("NSE:INFY"),
        "ltp": kite.ltp(["NSE:INFY", "NSE:NOBODY"]),
        "minutes": kite.historical_data(NIFTY_50, start, end, "minute"),
        "days": kite.historical_data(INFY, start, end, "day", oi=True),
    }
    result["errors"] = [
        _error(lambda: kite.historical_data(INFY, "2025-01-01", "2025-11-01", "minute")),
        _error(lambda: kite.generate_session("used", api_secret)),
        _error(kite.orders),
    ]
    kite.invalidate_access_token()
    result["errors"].append(_error(kite.profile))
    return result


def stream(ws_url: str, api_key: str, access_token: str, option: int) -> dict[str, Any]:
    """Two and a half seconds of three instruments in three modes, in the client's own words."""
    ticker = KiteTicker(api_key, access_token, root=ws_url)
    ticks: list[dict[str, Any]] = []
    texts: list[Any] = []
    errors: list[Any] = []

    def on_connect(ws: Any, _response: object) -> None:
        ws.subscribe([NIFTY_50, INFY, option])
        ws.set_mode(ws.MODE_FULL, [NIFTY_50, option])
        ws.set_mode(ws.MODE_LTP, [INFY])

    def on_message(_ws: object, payload: bytes, is_binary: bool) -> None:
        if not is_binary:
            texts.append(json.loads(payload))

    ticker.on_connect = on_connect
    ticker.on_message = on_message
    ticker.on_ticks = lambda _ws, batch: ticks.extend(batch)
    ticker.on_error = lambda _ws, code, reason: errors.append([code, str(reason)])
    ticker.connect(threaded=True)
    time.sleep(1.5)
    ticker.set_mode(ticker.MODE_QUOTE, [INFY])
    time.sleep(1.0)
    ticker.unsubscribe([NIFTY_50, INFY, option])
    time.sleep(0.5)
    connected = ticker.is_connected()
    ticker.close()
    time.sleep(0.3)
    return {"ticks": ticks, "texts": texts, "errors": errors, "connected": connected}


def _error(call: Any) -> dict[str, Any]:
    try:
        call()
    except KiteException as error:
        return {"type": type(error).__name__, "code": error.code, "message": str(error)}
    return {"type": None}


if __name__ == "__main__":
    if sys.argv[1] == "rest":
        answer = use_rest(sys.argv[2], sys.argv[3], sys.argv[4])
    else:
        answer = stream(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    sys.stdout.write(json.dumps(answer, default=str))
