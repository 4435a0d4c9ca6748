"""The check of image sizes that models receive from the data."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from kdzoo.errors import ConfigError
from kdzoo.models.shapes import image_shape


@given(st.integers(1, 9), st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_a_size_is_accepted_if_both_sides_are_long_enough(channels, height, width, least):
    if min(height, width) >= least:
        assert image_shape([channels, height, width], least, "the test") == (channels, height, width)
    else:
        message = f"^in_shape must be at least {least} x {least} for the test, got {height} x {width}$"
        with pytest.raises(ConfigError, match=message):
            image_shape([channels, height, width], least, "the test")


def test_a_list_of_omegaconf_is_accepted():
    assert image_shape(OmegaConf.create([3, 8, 9]), 8, "two halvings") == (3, 8, 9)


@pytest.mark.parametrize(
    ("in_shape", "message"),
    [
        ((784,), "in_shape (channels, height, width) must be 3 integers >= 1, got (784,)"),
        ((1, 8, 0), "in_shape (channels, height, width)[2] must be an integer >= 1, got 0"),
        ((1, 8.0, 8), "in_shape (channels, height, width)[1] must be an integer >= 1, got 8.0"),
    ],
)
def test_what_is_not_the_shape_of_an_image_is_refused(in_shape, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        image_shape(in_shape, 1, "the test")
