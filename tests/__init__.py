"""Tests mirror sg3's folders; what several of them need stands in tests/helpers, fixtures in the conftest.py files."""

import pytest

pytest.register_assert_rewrite("tests.helpers")  # so that an assertion there shows its values, too
