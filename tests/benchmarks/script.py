"""The rival of the whole path: the script a user would write today, with the usual libraries.

The official client receives and parses, vollib prices each option tick from spot, the standard
library's json encodes, redis-py publishes tick by tick. Prints how many ticks it published in
each second.
"""

import argparse
import datetime as dt
import json
import time
from typing import Any

import redis
from kiteconnect import KiteConnect, KiteTicker
from vollib.black_scholes.greeks.analytical import delta, gamma, rho, theta, vega
from vollib.black_scholes.implied_volatility import implied_volatility

RATE = 0.10
SPOT_TOKENS = {256265: "NIFTY", 260105: "BANKNIFTY", 257801: "FINNIFTY"}


class Script:
    """Ticks in, priced payloads out, one by one."""

    def __init__(self, instruments: list[dict[str, Any]], client: redis.Redis) -> None:
        self.rows = {row["instrument_token"]: row for row in instruments}
        self.client = client
        self.spots: dict[str, float] = {}
        self.published = 0
        self.second = time.monotonic()

    def on_ticks(self, _socket: object, ticks: list[dict[str, Any]]) -> None:
        for tick in ticks:
            self.publish(tick)
            self.published += 1
        now = time.monotonic()
        if now - self.second >= 1:
            print(json.dumps({"ticks_per_s": self.published / (now - self.second)}), flush=True)
            self.published, self.second = 0, now

    def publish(self, tick: dict[str, Any]) -> None:
        token = tick["instrument_token"]
        row = self.rows[token]
        if token in SPOT_TOKENS:
            self.spots[SPOT_TOKENS[token]] = tick["last_price"]
            self.client.publish("script:underlying", json.dumps(tick, default=str))
            return
        payload = {
            "symbol": row["name"],
            "token": token,
            "tradingsymbol": row["tradingsymbol"],
            "strike": row["strike"],
            "expiry": str(row["expiry"]),
            "type": row["instrument_type"],
            "price": tick["last_price"],
            "volume": tick.get("volume_traded"),
            "oi": tick.get("oi"),
            "depth": tick.get("depth"),
            "ts": int(time.time()),
            **self.price(row, tick["last_price"]),
        }
        self.client.publish("script:options", json.dumps(payload, default=str))

    def price(self, row: dict[str, Any], premium: float) -> dict[str, float]:
        spot = self.spots.get(row["name"])
        if spot is None or row["instrument_type"] not in ("CE", "PE"):
            return {}
        expires = dt.datetime.combine(row["expiry"], dt.time(15, 30))
        years = max((expires - dt.datetime.now()).total_seconds(), 60.0) / (365 * 86400)  # noqa: DTZ005
        flag = "c" if row["instrument_type"] == "CE" else "p"
        try:
            iv = implied_volatility(premium, spot, row["strike"], years, RATE, flag)
        except Exception:  # noqa: BLE001 - as such scripts do: whatever it raises is "no IV"
            return {}
        at = (flag, spot, row["strike"], years, RATE, iv)
        greeks = {"delta": delta, "gamma": gamma, "theta": theta, "vega": vega, "rho": rho}
        return {"iv": iv} | {name: formula(*at) for name, formula in greeks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rest", "websocket", "redis", "api-key", "access-token", "tokens"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    kite = KiteConnect(arguments.api_key, access_token=arguments.access_token, root=arguments.rest)
    script = Script(kite.instruments(), redis.Redis.from_url(arguments.redis))
    tokens = [int(token) for token in arguments.tokens.split(",")]

    def on_connect(socket: KiteTicker, _response: object) -> None:
        socket.subscribe(tokens)
        socket.set_mode(socket.MODE_FULL, tokens)

    ticker = KiteTicker(arguments.api_key, arguments.access_token, root=arguments.websocket)
    ticker.on_connect = on_connect
    ticker.on_ticks = script.on_ticks
    ticker.connect()


if __name__ == "__main__":
    main()
