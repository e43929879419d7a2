"""What the properties of the pure tests are fed with."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# No deadline: the machines that run the tests are shared. The same examples in each run: what fails is to fail always. (To
# look for more, take derandomize away and some thousands of examples.)
quick = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
thorough = settings(quick, max_examples=200)

# Half a surrogate pair is no character, yet Python's text may hold one, and kernels do send it.
texts = st.text(st.characters() | st.sampled_from("\ud800\udc00\udfffé€😀\x1b\r\b\n"), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts


def _nested(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(values, max_size=4) | st.dictionaries(texts, values, max_size=4)


json_values = st.recursive(
    scalars.filter(lambda value: value not in (float("inf"), -float("inf"))), _nested, max_leaves=8
)
json_objects = st.dictionaries(texts, json_values, max_size=5)


def as_json(value: object) -> object:
    """The value after a journey as JSON, where two halves of a surrogate pair that meet become one character."""
    return json.loads(json.dumps(value))
