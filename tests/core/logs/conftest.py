"""Runs the tests of this folder without the handlers of pytest, and with all loggers as they were after each."""

from __future__ import annotations

import logging
from collections.abc import Generator
from logging import Logger

import pytest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Take the handlers off; pytest adds them before each phase of a test, so a fixture would be too early."""
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, Logger))]
    before = [(each, each.handlers[:], each.filters[:], each.level, each.propagate, each.disabled) for each in loggers]
    logging.getLogger().handlers.clear()
    try:
        return (yield)
    finally:
        for logger, handlers, filters, level, propagate, disabled in before:
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
