"""An embedded Redis-protocol server as a program: prints ``ready redis://...`` and serves."""

import signal

import trio

from ticker.local.valkey import open_valkey


async def main() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_valkey() as url:
            print(f"ready {url}", flush=True)
            async for _ in signals:
                return


if __name__ == "__main__":
    trio.run(main)
