"""The check of a notebook's parameters, without a kernel; tests/notebooks has it with one."""

from __future__ import annotations

import pytest

from helpers.errors import UsageError
from helpers.show import notebook

KINDS = {"model": str, "image_num": int, "seconds": float, "flip": bool, "sizes": list}
RIGHT = {"model": "HRNet", "image_num": 3, "seconds": 2.0, "flip": True, "sizes": [1], "__annotations__": KINDS}


def test_right_parameters_pass():
    notebook.check_parameters(
        RIGHT, ["", 'model: str = "x"', "# Parameters\nimage_num = 3\nflip = True\n", "other = 1"]
    )


def test_a_whole_number_is_a_number():
    notebook.check_parameters({**RIGHT, "seconds": 2}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 3), ("image_num", True), ("image_num", 1.5), ("image_num", None), ("flip", "no"), ("sizes", 4)],
)
def test_a_value_of_another_type_is_refused(name, value):
    with pytest.raises(UsageError, match=f"The parameter {name} must be of type {KINDS[name].__name__}, not {value!r}"):
        notebook.check_parameters({**RIGHT, name: value}, [])


def test_a_name_that_is_no_parameter_is_refused():
    with pytest.raises(UsageError, match=r"There is no parameter 'image_nmu'; did you mean image_num\?"):
        notebook.check_parameters(RIGHT, ["# Parameters\nmodel = 'HRNet'\nimage_nmu = 3\n"])
