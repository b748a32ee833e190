"""Alert rules name metrics that exist, and each has its page in the runbook."""

import re
from pathlib import Path

import pytest

from ticker.metrics import Metrics

OPS = Path(__file__).resolve().parents[2] / "ops"
RULES = (OPS / "prometheus-rules.yml").read_text()
ALERTS = re.findall(r"- alert: (\w+)", RULES)
EXPRESSIONS = re.findall(r"expr: (.+)", RULES)
FROM_PROMETHEUS = {"up"}
WORDS = {"rate", "increase", "sum", "max", "by", "le", "reason", "kind", "time", "job"} | {
    "histogram_quantile"
}


def exported_names() -> set[str]:
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_of_a_rule_is_exported(expression: str) -> None:
    bare = re.sub(r'"[^"]*"|\[\w+\]|\d[\w.]*', " ", expression)
    used = set(re.findall(r"[a-z_]{2,}", bare)) - WORDS - FROM_PROMETHEUS
    assert used <= exported_names()


def test_every_alert_is_in_the_runbook() -> None:
    runbook = (OPS / "runbook.md").read_text()
    lines = re.findall(r"^## (.+)$", runbook, re.MULTILINE)
    headings = {name for line in lines for name in line.split(", ")}
    assert ALERTS
    assert set(ALERTS) == headings
