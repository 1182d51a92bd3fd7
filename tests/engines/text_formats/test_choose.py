import pytest

from dev_opsgpt.engines.text_formats.choose import form_of
from dev_opsgpt.engines.text_formats.deepseek import DEEPSEEK
from dev_opsgpt.engines.text_formats.dsml import DSML_FORM
from dev_opsgpt.engines.text_formats.form import PLAIN, Form
from dev_opsgpt.engines.text_formats.glm import GLM
from dev_opsgpt.engines.text_formats.harmony import HARMONY
from dev_opsgpt.engines.text_formats.hermes import HERMES
from dev_opsgpt.engines.text_formats.kimi import KIMI
from dev_opsgpt.engines.text_formats.listed import COMMAND, PIPES, TOOL_CALLS, TOOLCALL
from dev_opsgpt.engines.text_formats.llama3 import LLAMA3
from dev_opsgpt.engines.text_formats.minimax import MINIMAX
from dev_opsgpt.engines.text_formats.mistral import MAGISTRAL, MISTRAL
from dev_opsgpt.engines.text_formats.qwen_coder import QWEN_CODER, SEED


@pytest.mark.parametrize(
    ("template", "tokens", "form"),
    [
        ('<tool_call>\n{"name": ..., "arguments": ...}', (), HERMES),
        ('<tool_call>\\n{\\"name\\": ..., \\"arguments\\": ...}', (), HERMES),
        ("<tool_call><{{ call.name }}>{{ call.arguments }}", (), PLAIN),
        ("<tool_call>\\n<function={{ call.name }}>", (), QWEN_CODER),
        ('<tool_call> or {"arguments"}, no: <tool_call>\\n<function=', (), QWEN_CODER),
        ("{% set begin = '<seed:tool_call>' %}{{ begin }}<function=", (), SEED),
        ("<tool_call>{{ call.name }}<arg_key>", (), GLM),
        ("{% set begin = '<minimax:tool_call>' %}<invoke name=", (), MINIMAX),
        ("<｜DSML｜parameter name=", (), DSML_FORM),
        ("{{ '<|tool_calls_section_begin|>' }}", (), KIMI),
        ("{{ '<TOOLCALL>[' }}", (), TOOLCALL),
        (
            'in <tool_call></tool_call>, as <tool_calls>[{"arguments": 1}]</tool_calls>',
            (),
            TOOL_CALLS,
        ),
        ("<|START_ACTION|>[", (), COMMAND),
        ("respond only with <|tool_call|>", (), PIPES),
        ("{{ message }}", ("<|tool_call|>", "<|/tool_call|>"), PIPES),
        ("{{ '<|channel|>final<|message|>' }}", (), HARMONY),
        ("{{ message }}", ("<|channel|>", "<|message|>", "<|start|>"), HARMONY),
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
