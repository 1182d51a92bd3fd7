"""The corpus of tiny-chat: dialogues this project wrote, endless and the same for a seed.

intents/*.txt, intents.py   questions with ready answers: itself, small talk, OpsGPT Serve
facts.py numbers.py stories.py unknown.py   general topics
memory.py reading.py structured.py tools.py what depends on the conversation or the tools
mix.py                      puts them together
"""

from tiny_chat.corpus.dialogue import Dialogue
from tiny_chat.corpus.mix import dialogues, drills

__all__ = ["Dialogue", "dialogues", "drills"]
