"""Examples are the same in every run, and as many as a second takes."""

from hypothesis import settings

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("suite")
