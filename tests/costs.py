"""What each test costs, and what follows from it: its tier, and which tests start first.

``costs.json`` holds seconds of a processor, those of the fixtures that a test shares with others included, for every
test that takes longer than LISTED. ``pytest --measure-costs`` writes it anew; what is not listed counts as quick.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("costs.json")
LISTED, LONG, SLOW = 0.2, 0.2, 10.0
"""Seconds from which a test is listed, marked ``long``, marked ``slow``."""


def _spent() -> float:
    """Seconds of a processor, of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _name(node: str) -> str:
    return node.partition("[")[0]


def _file(node: str) -> str:
    return node.partition("::")[0]


def _listed() -> dict[str, float]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


COSTS = _listed()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure-costs", action="store_true", help="write the costs of the tests that run to costs.json")


class Costs:
    """Measures, next to each test, the fixtures that it shares with others: whoever is first sets them up."""

    def __init__(self) -> None:
        self.fixtures: dict[object, float] = {}
        self.since, self.shared = 0.0, 0.0
        self.tests: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        start, before = _spent(), self.shared
        result = yield
        if fixturedef.scope != "function":
            own = _spent() - start - (self.shared - before)
            self.fixtures[fixturedef] = own
            self.shared += own
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item):
        self.since, self.shared = _spent(), 0.0
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item, nextitem):
        definitions = {each for found in item._fixtureinfo.name2fixturedefs.values() for each in found}
        shared = sum(self.fixtures.get(each, 0.0) for each in definitions)
        item.user_properties.append(("cost", _spent() - self.since - self.shared + shared))
        return (yield)

    def pytest_runtest_logreport(self, report):
        cost = dict(report.user_properties).get("cost")
        if report.when == "teardown" and cost is not None:
            name = _name(report.nodeid)
            self.tests[name] = max(cost, self.tests.get(name, 0.0))

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workerinput"):
            return
        ran = {_file(name) for name in self.tests}
        known = {name: cost for name, cost in _listed().items() if _file(name) not in ran} | self.tests
        kept = {name: round(cost, 1) for name, cost in sorted(known.items()) if cost >= LISTED}
        FILE.write_text(json.dumps(kept, indent=0) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--measure-costs"):
        config.pluginmanager.register(Costs(), "costs-of-tests")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its cost."""
    cost = COSTS.get(_name(item.nodeid), 0.0)
    if cost >= LONG:
        item.add_marker(pytest.mark.slow if cost >= SLOW else pytest.mark.long)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the files out, those that take longest go first, so that all end together."""
    if hasattr(config, "workerinput"):
        total: Counter[str] = Counter()
        for item in items:
            total[_file(item.nodeid)] += COSTS.get(_name(item.nodeid), 0.0)
        items.sort(key=lambda item: -total[_file(item.nodeid)])
