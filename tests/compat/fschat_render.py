"""Runs in fschat's environment: conversations as JSON lines in, fschat's prompts of them out."""

import json
import sys

from fastchat.conversation import Conversation, SeparatorStyle

for line in sys.stdin:
    fields = json.loads(line)
    # Parts come as [text, [image, ...]]; to fschat they are a tuple.
    fields["messages"] = [
        (role, tuple(text) if isinstance(text, list) else text) for role, text in fields["messages"]
    ]
    fields["sep_style"] = SeparatorStyle(fields["sep_style"])
    print(json.dumps(Conversation(**fields).get_prompt()))
