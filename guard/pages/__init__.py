"""What HTML pages share: the frame around them, charts of scores, and how verdicts and numbers are written.

A page lives with who shows it, as a template (`*.html`), a style sheet beside it and a module that gathers what it
says. All text gets into a page through the templates of `frame`, which escape it.
"""
