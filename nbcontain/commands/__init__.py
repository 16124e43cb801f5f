"""The verbs of the magics and of the terminal, written once: docker's names, flags and meanings.

A command returns a value (a table, lines, a document) or something in progress; it never prints.
Drawing what comes back is the business of whoever called. To add a verb, add a function to the module
of its group, and its words to `index.py` (`python tools/command_index.py`), so that the terminal
imports that module alone.
"""

from nbcontain.commands.table import Command, commands, overview, parse_words, split, told

__all__ = ["Command", "commands", "overview", "parse_words", "split", "told"]
