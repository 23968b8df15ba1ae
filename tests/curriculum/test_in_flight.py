"""What is out: validations are known by their outer step until their last unit is back."""

from __future__ import annotations

from curriculum.asynchronous.in_flight import InFlight, Sent


def test_a_validation_is_out_until_its_last_unit_is_back_or_given_up() -> None:
    out = InFlight()
    out.add(0, Sent("a", (0,), 0.0))
    for tag, step in ((1, 10), (2, 10), (3, 20)):
        out.add(tag, Sent("a", (0,), 0.0, validation=step))
    assert out.validations() == {10, 20}
    out.pop([1])
    out.pop([1, 0, 99])  # known no more, no validation, never sent
    assert out.validations() == {10, 20}
    out.pop([2])
    assert out.validations() == {20}
    assert [tag for tag, _, _ in out.pop_late(now=1e9, limit=1.0)] == [3]
    assert out.validations() == set()
