"""The simulator as a program: one port for REST, WebSockets and the admin routes."""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio
from wsproto.utilities import RemoteProtocolError

from ticker.errors import ConfigurationError
from ticker.simulator import admin
from ticker.simulator.admin import AdminApi
from ticker.simulator.http import HttpConnection, HttpRequest, HttpResponse, text_response
from ticker.simulator.line import Line
from ticker.simulator.rest import RestApi
from ticker.simulator.simulation import Simulation, SimulatorConfig
from ticker.simulator.websocket import MarketSocket, greetings


@dataclass(frozen=True, slots=True)
class SimulatorAddress:
    """Where a simulator listens."""

    host: str
    port: int

    @property
    def rest_url(self) -> str:
        """Root of the REST API; ``/_simulator/`` lies under it."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Root of the market-data WebSocket, without credentials."""
        return f"ws://{_bracketed(self.host)}:{self.port}"


async def serve_simulator(
    config: SimulatorConfig,
    *,
    wall_clock: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[SimulatorAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; reports the bound address (``port`` 0 picks one).

    Raises ConfigurationError for an address that is not this machine's own or is in use.
    """
    listeners = await _open_listeners(config)
    simulation = await trio.to_thread.run_sync(Simulation, config, wall_clock)
    server = SimulatorServer(simulation)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_market, simulation)
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        host, port = listeners[0].socket.getsockname()[:2]
        log = structlog.get_logger()
        log.info(
            "simulator listening",
            host=host,
            port=port,
            instruments=len(simulation.dump.instruments),
        )
        task_status.started(SimulatorAddress(host, port))


async def _open_listeners(config: SimulatorConfig) -> list[trio.SocketListener]:
    host = "127.0.0.1" if config.host == "localhost" else config.host
    try:
        if not ipaddress.ip_address(host).is_loopback:
            raise ConfigurationError(f"the simulator listens on loopback only, not on {host}")
        return await trio.open_tcp_listeners(config.port, host=host)
    except ValueError as error:
        raise ConfigurationError(f"not an IP address: {host}") from error
    except OSError as error:
        raise ConfigurationError(
            f"the simulator cannot listen on {host}:{config.port}: {error.strerror}"
        ) from error


async def run_market(simulation: Simulation) -> None:
    """Step the market at its rate. A step that comes late is not made up for."""
    period = 1 / simulation.config.rate
    due = trio.current_time()
    while True:
        due = max(due + period, trio.current_time())
        await trio.sleep_until(due)
        if not simulation.time.frozen:
            simulation.step()


class SimulatorServer:
    """Answers each connection: HTTP until it asks to become a WebSocket."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._rest = RestApi(simulation)
        self._admin = AdminApi(simulation)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends."""
        line = Line(stream)
        http = HttpConnection(stream)
        try:
            async with stream:
                while (request := await http.read_request()) is not None:
                    if request.is_upgrade:
                        await self._upgrade(line, http, request)
                        return
                    response = await self._answer(request)
                    if response is None:
                        await line.reset()
                        return
                    await http.write(response, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client went away

    async def _answer(self, request: HttpRequest) -> HttpResponse | None:
        if request.path.startswith(admin.PREFIX):
            return self._admin.answer(request)
        return await self._rest.answer(request)

    async def _upgrade(self, line: Line, http: HttpConnection, request: HttpRequest) -> None:
        refusal = self._refuse(request)
        if refusal is not None:
            await http.write(refusal, request)
            return
        simulation = self._simulation
        market_socket = MarketSocket(
            simulation.sockets.next_id(),
            request.query["api_key"][0],
            line,
            simulation.market,
            simulation.config.socket_terms,
            simulation.wall_clock(),
        )
        simulation.sockets.open[market_socket.id] = market_socket
        try:
            await market_socket.run(
                request, http.unread, greetings(simulation.dump, simulation.wall_clock())
            )
        except RemoteProtocolError:
            await http.write(text_response(400, "Bad Request"), request)
        finally:
            simulation.sockets.remove(market_socket)

    def _refuse(self, request: HttpRequest) -> HttpResponse | None:
        """Why this handshake fails; None if it does not."""
        simulation = self._simulation
        api_key = request.query.get("api_key", [""])[0]
        access_token = request.query.get("access_token", [""])[0]
        if not api_key or not access_token or "sec-websocket-key" not in request.headers:
            return text_response(400, "Bad Request")
        fault = simulation.refusals.handshake(api_key)
        if fault is not None:
            return text_response(fault.status, "Refused")
        if not simulation.sessions.accepts(api_key, access_token):
            return text_response(403, "Authentication failed")
        others = simulation.sockets.of(api_key)
        if len(others) >= simulation.config.max_sockets:
            match simulation.config.fourth_socket:
                case "reject429":
                    return text_response(429, "Too many connections")
                case "drop_oldest":
                    others[0].close()
                case "allow":
                    pass
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
