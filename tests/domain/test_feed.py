"""Watermarks: what two readers have both seen."""

from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.feed import Watermark


@st.composite
def watermarks(draw: st.DrawFn) -> Watermark:
    """Draw a snapshot as PostgreSQL gives one."""
    xmax = draw(st.integers(1, 30))
    in_progress = tuple(sorted(draw(st.sets(st.integers(1, xmax), max_size=5)) - {xmax}))
    return Watermark(min(in_progress, default=xmax), xmax, in_progress)


@given(watermarks(), watermarks())
def test_two_watermarks_have_in_common_what_both_cover(one: Watermark, other: Watermark) -> None:
    common = one.common(other)
    for xid in range(35):
        assert common.covers(xid) == (one.covers(xid) and other.covers(xid))
    assert Watermark.parse(str(common)) == common == other.common(one)
    assert all(common.xmin <= xid < common.xmax for xid in common.in_progress)
