"""Property tests are the same on every run and are not timed."""

from hypothesis import settings

settings.register_profile("book", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("book")
