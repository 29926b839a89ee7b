"""Names: the same thing is the same name, and a name that says nothing is refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evervec.domain.naming import slug
from evervec.errors import InvalidNameError


@given(st.text(max_size=120) | st.text("aÄİß -._/\t", max_size=110))
def test_a_slug_is_its_own_slug_or_the_name_is_refused(name: str) -> None:
    try:
        made = slug("Project", name)
    except InvalidNameError:
        return
    assert slug("Project", made) == made
    assert 1 <= len(made) <= 100
    assert not any(character.isspace() or character in "/\\" for character in made)
    assert made.lower() == made


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("River Log", "river-log"),
        ("  Über/uns  ", "über-uns"),
        ("v1.2", "v1.2"),
        ("-x-", "x"),
        ("команда 7", "команда-7"),
    ],
)
def test_letters_of_every_script_stay_and_the_rest_becomes_a_dash(name: str, made: str) -> None:
    assert slug("Dataset", name) == made


@pytest.mark.parametrize("name", ["", " ", "...", "___", "-/-", "a\nb", "a\0b", "x" * 101, "İ" * 60])
def test_a_name_without_a_letter_or_of_too_many_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match=r"^Dataset .* is not a usable name"):
        slug("Dataset", name)
