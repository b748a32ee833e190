"""Alert rules name metrics and labels that exist, and each has its page in the runbook."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from api.status_metrics import StatusCollector
from tests.rest_brokers import open_memory_brokers
from ticker.metrics import Metrics
from ticker.status import ServiceStatus

OPS: Final = Path(__file__).resolve().parents[2] / "ops"
RULES: Final[dict[str, Mapping[str, Any]]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((OPS / "prometheus-rules.yml").read_text())["groups"]
    for rule in group["rules"]
}
OF_TARGETS: Final = frozenset({"job", "instance"})
"""Labels that Prometheus gives whatever it scrapes."""

FROM_PROMETHEUS: Final[dict[str, frozenset[str]]] = {"up": frozenset()}
WORDS: Final = frozenset(
    {"and", "histogram_quantile", "increase", "max", "rate", "sum", "time"},
)

# Enough of PromQL for rules as simple as ours.
GROUPING: Final = re.compile(r"\b(?:by|on) ?\(([^)]*)\)")
SELECTOR: Final = re.compile(r"\b([a-z_]{2,})\b(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r'([a-z_]+) ?(?:=~|!~|!=|=) ?"[^"]*"')


@pytest.fixture(scope="module")
def exported() -> dict[str, frozenset[str]]:
    """The labels of everything that a service may export, by the name that Prometheus sees."""
    return trio.run(load_exported)


async def load_exported() -> dict[str, frozenset[str]]:
    registry = Metrics().registry
    status = ServiceStatus(started_at=0, environment="test")
    async with open_memory_brokers(lambda request: pytest.fail("no call")) as brokers:
        registry.register(
            StatusCollector(
                status=status,
                brokers=brokers,
                sockets=3,
                tokens_per_socket=3000,
                wall_clock=lambda: 0.0,
            )
        )
        return find_labels(registry)


def find_labels(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    """Also of metrics that have no sample yet, which only the library's inside tells."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    found: dict[str, frozenset[str]] = {}
    for collector in registry._collector_to_names:
        for family in collector.collect():
            owner: Any = collector if isinstance(collector, MetricWrapperBase) else family
            for suffix in suffixes.get(family.type, ("",)):
                extra = {"le"} if suffix == "_bucket" else set()
                found[family.name + suffix] = frozenset(owner._labelnames) | extra
    return found


def split_groupings(expression: str) -> tuple[str, list[set[str]]]:
    """The expression without its groupings, and the labels of each."""
    groupings = [set(re.findall(r"\w+", listed)) for listed in GROUPING.findall(expression)]
    return GROUPING.sub(" ", expression), groupings


@pytest.mark.parametrize("alert", RULES)
def test_every_metric_and_label_of_a_rule_is_exported(
    alert: str, exported: dict[str, frozenset[str]]
) -> None:
    known = exported | FROM_PROMETHEUS
    bare, groupings = split_groupings(RULES[alert]["expr"])
    bare = re.sub(r"\[\w+\]", " ", bare)
    used = [found for found in SELECTOR.findall(bare) if found[0] not in WORDS]
    assert used
    labels: set[str] = set()
    for name, matchers in used:
        assert name in known
        assert set(MATCHER.findall(matchers)) <= known[name] | OF_TARGETS
        assert not MATCHER.sub("", matchers).strip(" ,"), "every matcher was understood"
        labels |= known[name] | OF_TARGETS
    for grouping in groupings:
        assert grouping <= labels


@pytest.mark.parametrize("alert", RULES)
def test_every_label_in_a_summary_is_in_the_alert(
    alert: str, exported: dict[str, frozenset[str]]
) -> None:
    rule = RULES[alert]
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    bare, groupings = split_groupings(rule["expr"])
    if bare.startswith(("sum", "histogram_quantile")):
        assert shown <= (groupings[0] if groupings else set())
    else:
        names = (found[0] for found in SELECTOR.findall(bare))
        first = next((name for name in names if name in exported), None)
        assert shown <= (exported[first] if first else set()) | OF_TARGETS


def test_every_alert_says_how_bad_it_is() -> None:
    assert {rule["labels"]["severity"] for rule in RULES.values()} == {"page", "warn", "info"}


def test_every_alert_is_in_the_runbook() -> None:
    runbook = (OPS / "runbook.md").read_text()
    lines = re.findall(r"^## (.+)$", runbook, re.MULTILINE)
    headings = [name for line in lines for name in line.split(", ")]
    assert RULES
    assert sorted(RULES) == sorted(headings)
