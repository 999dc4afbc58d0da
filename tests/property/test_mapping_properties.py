"""What holds for every answer, whatever it says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from undertone.evaluate import mapping
from undertone.evaluate.mapping.cases import cases
from undertone.evaluate.metrics import UNMAPPED
from undertone.records import DIMENSIONS

# Pieces that the readers look for, and noise between them.
PIECES = st.sampled_from(
    """not but or and to from at least 2 3 45 0.5 7 % / twenty five years old two speakers people man woman her his F { } " ( ) : , . ? -
    sad angry happy less than more mid 40s late teens laughs coughs valence arousal high low scale of 1 5 out very""".split()  # noqa: SIM905
)
TEXT = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_any_text_is_read_as_a_class_or_for_a_reason(text: str) -> None:
    for attribute in mapping.attributes():
        found = mapping.to_label(text, attribute)
        assert (found.label is None) == (found.how == "unmapped") == (found.reason is not None)
        assert found.label is None or found.label in mapping.classes(attribute)


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from([(0.0, 1.0), (1.0, 5.0), (-1.0, 1.0)]))
def test_any_text_is_read_as_a_value_on_the_scale_or_for_a_reason(text: str, scale: tuple[float, float]) -> None:
    for dimension in DIMENSIONS:
        found = mapping.to_value(text, dimension, scale=scale)
        assert (found.value is None) == (found.how == "unmapped") == (found.reason is not None)
        assert found.value is None or 0 <= found.value <= 1


@settings(max_examples=200, deadline=None)
@given(TEXT, st.lists(st.sampled_from(["anger", "frustration", "happy", "calm", "neutral", "bored"]), min_size=1, unique=True))
def test_only_offered_classes_are_claimed(text: str, among: list[str]) -> None:
    found = mapping.to_label(text, "emotion", among=among)
    assert found.label is None or found.label in among


def test_case_and_space_around_do_not_matter() -> None:
    tried = 0
    for case in cases("development"):
        if case.attribute in DIMENSIONS:
            continue
        tried += 1
        said = mapping.to_label(f"  {case.text}\n", case.attribute, among=case.among).label
        assert (said or UNMAPPED) == case.read(), case.text
        loud = mapping.to_label(case.text.upper(), case.attribute, among=case.among).label
        assert (loud or UNMAPPED) == case.read(), case.text
    assert tried > 100
