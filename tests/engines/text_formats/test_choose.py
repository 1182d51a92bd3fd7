import pytest

from dev_opsgpt.engines.text_formats.choose import form_of
from dev_opsgpt.engines.text_formats.deepseek import DEEPSEEK
from dev_opsgpt.engines.text_formats.form import PLAIN, Form
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.llama3 import LLAMA3
from dev_opsgpt.engines.text_formats.mistral import MAGISTRAL, MISTRAL


@pytest.mark.parametrize(
    ("template", "tokens", "form"),
    [
        ('<tool_call>\n{"name": ..., "arguments": ...}', (), HERMES),
        ('<tool_call>\\n{\\"name\\": ..., \\"arguments\\": ...}', (), HERMES),
        ("<tool_call><function={{ call.name }}>{{ call.arguments }}", (), PLAIN),
        ("{{ '<|python_tag|>' + call }}", (), LLAMA3),
        ('{"name": ..., "parameters": ...}', ("<|python_tag|>",), LLAMA3),
        ("{{ message }}", ("<|python_tag|>",), PLAIN),
        ("{{ '[TOOL_CALLS]' + calls }}", (), MISTRAL),
        ("{{ message }}", ("[TOOL_CALLS]",), MISTRAL),
        ("{{ message }}", ("[TOOL_CALLS]", "[THINK]"), MAGISTRAL),
        ("{{ '<｜tool▁calls▁begin｜>' }}", (), DEEPSEEK),
        # A distilled Qwen has both marks among its tokens, and DeepSeek's template.
        ("{{ '<｜tool▁calls▁begin｜>' }}", ("<tool_call>",), DEEPSEEK),
        ("{{ message }}", (), PLAIN),
        ("", (), PLAIN),
    ],
)
def test_the_form_of_a_model(template: str, tokens: tuple[str, ...], form: Form) -> None:
    assert form_of(template, set(tokens)) is form
