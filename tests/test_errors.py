"""What a user reads when something can be mended."""

from __future__ import annotations

import pickle

import pytest

from jaxfer.errors import Problem, UserError, raise_problems


def test_a_message_has_all_its_parts() -> None:
    error = UserError("a.nii: wrong", found=0, allowed="1 or 2", mend="--flag=1")
    assert str(error) == "a.nii: wrong\n  found:   0\n  allowed: 1 or 2\n  mend:    --flag=1"
    assert str(UserError("wrong")) == "wrong"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_a_problem_is_one_line() -> None:
    problem = Problem("error", "a.nii", "wrong", 0, "1 or 2", "repair it")
    assert str(problem) == "a.nii: wrong; found 0; allowed 1 or 2 → repair it"
    assert str(Problem("warning", "a.nii", "odd")) == "a.nii: odd"


def test_warnings_alone_raise_nothing() -> None:
    raise_problems([], "bad")
    raise_problems([Problem("warning", "a", "odd")], "bad")


@pytest.mark.parametrize("number", [1, 30, 31, 100])
def test_all_errors_are_raised_as_one_and_counted(number: int) -> None:
    problems = [Problem("error", f"file{i}", "wrong") for i in range(number)]
    with pytest.raises(UserError) as caught:
        raise_problems([Problem("warning", "other", "odd"), *problems], "the data have problems")
    lines = str(caught.value).split("\n")
    assert lines[0] == f"the data have problems ({number}):"
    assert lines[1 : min(number, 30) + 1] == [f"  {p}" for p in problems[:30]]
    assert lines[31:] == ([f"  … and {number - 30} more"] if number > 30 else [])
    assert "other" not in str(caught.value)
