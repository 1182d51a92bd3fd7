import json

from hypothesis import given, settings
from hypothesis import strategies as st

from dev_opsgpt.engines.text_formats.json_span import JsonSpan

VALUES = st.recursive(
    st.none() | st.integers() | st.text('ab"\\{}[]é \n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('a"\\{}'), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES), st.text('}]"x'), st.integers(1, 7), st.booleans())
def test_the_end_of_an_object(value: object, after: str, size: int, ascii_: bool) -> None:
    whole = json.dumps(value, ensure_ascii=ascii_)
    text = whole + after
    span, read = JsonSpan(), 0
    for start in range(0, len(text), size):
        end = span.end(text[: start + size], read)
        if end is not None:
            assert text[:end] == whole
            return
        read = min(start + size, len(text))
    raise AssertionError("no end was found")
