"""Junk at every route: each refusal is a person's sentence about a field."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from quart.testing.utils import sentinel
from werkzeug.routing import Rule

from api.operations import Operation, operation_of
from tests.api.control_rig import ControlRig, open_control
from tests.api.rig import get_problem, header

pytestmark = pytest.mark.slow

VALUES: list[object] = [None, True, -1, 10**30, 1.5, "", "x" * 101, "a\nb", [], [[]], {}, {"x": 1}]
TEXTS = ["", "null", "nan", "-1", "9" * 400, "1.5", "x" * 101, "%00", "a%0Ab", "%E2%80%AE", "[]"]
FOREIGN = re.compile(r"`|regex|msgspec|Expected|Invalid|Traceback|None|<class")
"""What only who wrote the program understands."""


async def test_every_routes_refusal_names_a_field_and_says_what_is_allowed() -> None:
    async with open_control() as rig:
        refused = 0
        for rule, described in operations(rig):
            for method in sorted((rule.methods or set()) - {"HEAD"}):
                for path, body in create_junk(rule, described):
                    refused += await is_refused(rig, method, path, body)
        assert refused > 500


def operations(rig: ControlRig) -> Iterator[tuple[Rule, Operation]]:
    for rule in rig.app.url_map.iter_rules():
        described = operation_of(rig.app.view_functions[rule.endpoint])
        if described is not None:
            yield rule, described


def create_junk(rule: Rule, described: Operation) -> Iterator[tuple[str, bytes | None]]:
    """Paths with their queries, and bodies: one thing is wrong with each."""
    path = re.sub(r"<[^>]+>", "1", rule.rule)
    yield f"{path}?surprise=1", None
    for text in TEXTS if described.path else ():
        if text and "/" not in text:
            yield re.sub(r"<[^>]+>", text, rule.rule), None
    if described.query is not None:
        for field in described.query.__struct_encode_fields__:
            for text in TEXTS:
                yield f"{path}?{field}={text}", None
            yield f"{path}?{field}=1&{field}=1", None
    if described.body is not None:
        for value in VALUES:
            yield path, msgspec.json.encode(value)
        for field in described.body.__struct_encode_fields__:
            for value in VALUES:
                yield path, msgspec.json.encode({field: value})


async def is_refused(rig: ControlRig, method: str, path: str, body: bytes | None) -> bool:
    headers = header() | {"Content-Type": "application/json"}
    client = rig.app.test_client()
    response = await client.open(
        path, method=method, headers=headers, data=body or b"{}", json=sentinel
    )
    case = (method, path, body, (await response.get_data())[:300])
    assert response.status_code < 500 or response.status_code in {502, 503}, case
    if response.status_code != 422:
        return False
    document: dict[str, Any] = await get_problem(response, 422)
    for text in (document["detail"], *(error["message"] for error in document["errors"])):
        assert len(text) > 10, case
        assert not FOREIGN.search(text), case
    assert len(document["errors"]) == 1, case
    return True
