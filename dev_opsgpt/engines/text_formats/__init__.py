"""How models write reasoning and tool calls in their text: one reader, one format a file."""
