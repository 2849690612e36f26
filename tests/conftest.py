"""Property tests are the same on every run and are not timed; the tests of a module that need a browser share one."""

import pytest
from chromium import LAUNCH
from hypothesis import settings

settings.register_profile("book", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("book")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(**LAUNCH)
        yield started
        started.close()
