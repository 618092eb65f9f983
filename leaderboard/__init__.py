"""The leaderboard: published numbers as data, records of runs, and the pages and tables made of both.

To read it: `records` (what is taken, what is refused), `pages` (which records belong to which table), `rows` and
`tables` (joined, ordered, ranked, compared), `columns` (what stands in a table), then `markdown` and `site`, which show
tables. `build` and `collect` are the commands. Imports run one way, in that order.
"""
