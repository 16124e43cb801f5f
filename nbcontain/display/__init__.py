"""From events to pictures: one fold of a journal, drawn as plain text, as static HTML and as a live card.

    journal ──▶ view.update ──▶ View ──▶ text.lines            a terminal, a log, a test
                                     └─▶ pictures ──▶ html     a saved notebook
                                                  └─▶ widgets  a running notebook

Everything but `widgets`, `surface`, `present` and `live` is pure. Nothing here is loaded with IPython or
ipywidgets before a card is shown. What a container says, and what its things are called, is hostile:
every leaf of text goes through `ansi` and `html.escape`.
"""
