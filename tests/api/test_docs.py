"""``/``: what somebody finds who knows no more than the address."""

from api.app import create_app
from ticker import __version__
from ticker.metrics import Metrics
from ticker.status import ServiceStatus


async def test_the_signpost_needs_no_key_and_leads_to_routes_that_are_there() -> None:
    status = ServiceStatus(started_at=0.0, environment="test", account_ids=())
    client = create_app(status, Metrics()).test_client()
    response = await client.get("/")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    found = await response.get_json()
    assert (found.pop("name"), found.pop("version")) == ("ticker", __version__)
    assert set(found) == {"docs", "openapi", "health", "metrics"}
    for path in found.values():
        assert (await client.get(path)).status_code == 200
    document = await (await client.get("/openapi.json")).get_json()
    assert document["paths"]["/"]["get"]["security"] == []
